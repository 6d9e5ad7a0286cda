"""Jinja templates from a checkpoint, run so that they can neither touch the program nor keep it busy for ever.

The environment is the one that transformers renders chat templates in (`apply_chat_template`): sandboxed, blocks trimmed,
loop controls, `raise_exception`, `strftime_now`, `tojson` that leaves HTML alone, and the `generation` tag. On top come
limits, since the sandbox itself only bounds one `range`: on loop turns, macro calls, time, and the length of a text. They
stop a template that is wrong; one that is out to fill the memory still can, so serve only checkpoints that you trust.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from model.prompts import PromptError

MAX_SECONDS = 5.0
MAX_TURNS = 1_000_000
MAX_CHARACTERS = 20_000_000


class _LimitError(Exception):
    """A template went past one of the limits above."""


class _Meter:
    """What one rendering has used up."""

    def __init__(self) -> None:
        self.turns = 0
        self.deadline = time.monotonic() + MAX_SECONDS

    def tick(self) -> None:
        self.turns += 1
        if self.turns > MAX_TURNS:
            raise _LimitError(f"takes more than {MAX_TURNS} turns of loops and calls")
        if time.monotonic() > self.deadline:
            raise _LimitError(f"takes more than {MAX_SECONDS:g} s")


_meter: ContextVar[_Meter] = ContextVar("meter")


def _metered(items: Iterable[Any]) -> Iterator[Any]:
    meter = _meter.get()
    for item in items:
        meter.tick()
        yield item


def _tick(value: Any) -> Any:
    _meter.get().tick()
    return value


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise _LimitError(f"makes a text of more than {MAX_CHARACTERS} characters")


def _sized(value: Any) -> Any:
    if isinstance(value, str | list | tuple):
        _check_length(len(value))
    return value


class _Limits(NodeTransformer):
    """Puts the meter into a parsed template: each loop's items, each macro's start, each joined text."""

    @staticmethod
    def _filtered(node: Any, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filtered(node.iter, "_metered")
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        tick = self._filtered(nodes.Const(0, lineno=node.lineno), "_tick")
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(node, "_sized")


class _Generation(Extension):
    """`{% generation %}`, by which templates mark what the assistant wrote for training: its content as it stands."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        self.filters |= {"tojson": _to_json, "_metered": _metered, "_tick": _tick, "_sized": _sized}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        del self.globals["lipsum"]  # text to fill pages with, as much as it is asked for

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse a product or a power before it fills the memory."""
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(times, int):
                    _check_length(len(many) * times)
        if operator == "**" and isinstance(right, int) and abs(right) > 1000:
            raise _LimitError("raises to a power of more than 1000")
        return _sized(super().call_binop(context, operator, left, right))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


_environment = _Environment()


class SandboxedTemplate:
    """One compiled template; safe to share between threads. `source` names it in errors."""

    def __init__(self, text: str, source: str) -> None:
        """PromptError with the line when it isn't a Jinja template."""
        self.text = text
        self.source = source
        try:
            tree = _Limits().visit(_environment.parse(text))
            code = _environment.compile(tree)
        except TemplateSyntaxError as error:
            raise PromptError(f"{source}: line {error.lineno}: {error.message}") from None
        except (TemplateError, RecursionError) as error:
            raise PromptError(f"{source}: can't be read as a Jinja template: {error}") from None
        self._template = Template.from_code(_environment, code, _environment.make_globals(None))

    def render(self, **values: Any) -> str:
        """The filled-in text. PromptError for what the template itself refuses, an error in it, or a limit passed."""
        token = _meter.set(_Meter())
        try:
            return "".join(self._pieces(values))
        except PromptError:
            raise
        except _LimitError as error:
            raise PromptError(f"{self.source}: {error}; it does not end, or has to be written otherwise") from None
        except OverflowError as error:  # the sandbox's own limit
            raise PromptError(f"{self.source}: {error} (a range may have {MAX_RANGE} items)") from None
        except TemplateError as error:
            raise PromptError(f"{self.source}: {error}") from None
        except RecursionError:
            raise PromptError(f"{self.source}: calls itself without end") from None
        except Exception as error:  # anything a template's expression can raise
            raise PromptError(f"{self.source}: {type(error).__name__}: {error}") from error
        finally:
            _meter.reset(token)

    def _pieces(self, values: dict[str, Any]) -> Iterator[str]:
        """Templates stream what they write, so that an endless one is stopped while it writes."""
        length = 0
        for piece in self._template.root_render_func(self._template.new_context(values)):
            length += len(piece)
            _check_length(length)
            yield piece
