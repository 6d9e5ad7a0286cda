"""Messages and instructions -> the prompt that a model was trained on, as text and as token ids.

The templates are Jinja and come with the checkpoint. What a person wrote can never become a special token: whatever in it
could be read as one, or as part of one, is disguised while the template runs, and undone in the pieces of text that lie
between the special tokens that the template itself wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from model.disguise import Disguise
from model.errors import HomegrownError, TokenizerError
from model.files import read_json
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from model.template_sandbox import SandboxedTemplate

CHAT_TEMPLATE_FILE = "chat_template.jinja"
INSTRUCTION_TEMPLATE_FILE = "instruction_template.jinja"

# For a base model, which was trained on no template: a transcript, as in plays and interviews.
PLAIN_CHAT_TEMPLATE = """\
{% for message in messages %}
{{ message.role | capitalize }}:
{{ message.content | trim }}{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ 'Assistant:\\n' }}
{%- endif %}
"""
PLAIN_STOPS = ("\n\nUser:", "\n\nSystem:", "\n\nAssistant:")

# Taori et al., "Stanford Alpaca: An Instruction-following LLaMA model", 2023 (github.com/tatsu-lab/stanford_alpaca): the
# wording that many open instruction models were trained with.
ALPACA_TEMPLATE = """\
{% if system %}
{{ system }}
{% elif input %}
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.
{% else %}
Below is an instruction that describes a task. Write a response that appropriately completes the request.
{% endif %}

### Instruction:
{{ instruction }}

{% if input %}
### Input:
{{ input }}

{% endif %}
### Response:
{{ '' }}
"""
ALPACA_STOPS = ("\n\n### ",)

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_CONTINUED_HERE = "continued here"


class PromptError(HomegrownError):
    """A template that can't be read, or messages that it can't be filled with."""


class PromptTemplate:
    """A chat template. Safe to share between threads.

    plain: the checkpoint has none, so this is PLAIN_CHAT_TEMPLATE.
    stops: texts that end an answer under a template whose model doesn't know when to end; empty for a chat model.
    tokens: what `bos_token`, `eos_token` and so on mean in the template.
    """

    def __init__(self, text: str, *, tokens: Mapping[str, str] | None = None, source: str = CHAT_TEMPLATE_FILE) -> None:
        """`tokens`: values of `bos_token`, `eos_token` and so on for the template. PromptError, with the line, when
        `text` isn't a Jinja template."""
        self.text = text
        self.plain = text == PLAIN_CHAT_TEMPLATE
        self.stops = PLAIN_STOPS if self.plain else ()
        self.tokens = dict(tokens or {})
        self._template = _compile(text, source)

    @classmethod
    def from_directory(cls, directory: Path | str, tokens: Mapping[str, str] | None = None) -> Self:
        """The template of a model directory: `chat_template.jinja`, else `chat_template` in tokenizer_config.json, else
        the plain one. `tokens`: those that tokenizer_config.json doesn't name."""
        directory = Path(directory)
        path = directory / "tokenizer_config.json"
        config = read_json(path, TokenizerError) if path.is_file() else {}
        named = {name: text for name in _TOKEN_NAMES if (text := _token_text(config.get(name))) is not None}
        if (directory / CHAT_TEMPLATE_FILE).is_file():
            text, source = _read_text(directory / CHAT_TEMPLATE_FILE), directory / CHAT_TEMPLATE_FILE
        else:
            text, source = _default_template(config.get("chat_template"), path) or PLAIN_CHAT_TEMPLATE, path
        return cls(text, tokens={**(tokens or {}), **named}, source=str(source))

    def render(
        self,
        messages: Sequence[Mapping[str, str | None]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The prompt as text, equal to transformers' `apply_chat_template(..., tokenize=False)`. With
        `continue_final_message` it ends inside the last message, and no generation prompt is added. PromptError when the
        template refuses the messages."""
        return self._render(_checked(messages), add_generation_prompt, continue_final_message)

    def encode(
        self,
        messages: Sequence[Mapping[str, str | None]],
        tokenizer: Tokenizer,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """The prompt as token ids: those of `render`, special tokens included, but never one that a message spells out.
        BOS is the template's own business; in front of the plain template it is put where the tokenizer wants it."""
        checked = _checked(messages)
        disguise = Disguise(tokenizer.special_tokens, taken=(self.text, *_texts(checked)))
        hidden = [
            {name: text if name == "role" else disguise(text) for name, text in message.items()} for message in checked
        ]
        text = self._render(hidden, add_generation_prompt, continue_final_message)
        ids = tokenizer.encode_rendered(text, disguise.undo)
        return _with_bos(ids, tokenizer) if self.plain else ids

    def save(self, directory: Path | str) -> None:
        """Write `chat_template.jinja`."""
        (Path(directory) / CHAT_TEMPLATE_FILE).write_text(self.text, encoding="utf-8")

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool, continue_final: bool) -> str:
        if not continue_final:
            return self._fill(messages, add_generation_prompt)
        # As transformers does it: mark the end of the last message, and cut there. The mark's blank tells whether the
        # template trimmed the message.
        mark = _unused_mark(self.text, messages)
        final = messages[-1]["content"]
        text = self._fill([*messages[:-1], {**messages[-1], "content": f"{final}{mark} "}], False)
        at = text.rfind(mark)
        if at < 0 or final.strip() not in text:
            raise PromptError("messages: the model's chat template changes the last message, so it can't be continued")
        return text[:at] if text.startswith(f"{mark} ", at) else text[:at].rstrip()

    def _fill(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return self._template.render(
            **self.tokens, messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt
        )


class InstructionTemplate:
    """The template of /instruct: an instruction, with an input and a system text if there are any, as one prompt.

    A directory's own `instruction_template.jinja` comes first, then its chat template (a chat model wants its
    instructions as messages), then Alpaca's. stops: as with PromptTemplate.
    """

    def __init__(self, template: SandboxedTemplate | PromptTemplate, stops: tuple[str, ...] = ()) -> None:
        self._template = template
        self.stops = stops

    @classmethod
    def from_text(cls, text: str, *, source: str = INSTRUCTION_TEMPLATE_FILE) -> Self:
        """A template of `instruction`, `input` and `system`; the last two are empty when not given."""
        return cls(_compile(text, source))

    @classmethod
    def from_directory(cls, directory: Path | str) -> Self:
        """See the class. PromptError or TokenizerError names the file that can't be read."""
        path = Path(directory) / INSTRUCTION_TEMPLATE_FILE
        if path.is_file():
            return cls.from_text(_read_text(path), source=str(path))
        chat = PromptTemplate.from_directory(directory)
        return cls(_compile(ALPACA_TEMPLATE, INSTRUCTION_TEMPLATE_FILE), ALPACA_STOPS) if chat.plain else cls(chat)

    def render(self, instruction: str, input: str = "", system: str = "") -> str:
        """The prompt as text."""
        if isinstance(self._template, PromptTemplate):
            return self._template.render(instruction_messages(instruction, input, system))
        return self._template.render(instruction=instruction, input=input, system=system)

    def encode(self, tokenizer: Tokenizer, instruction: str, input: str = "", system: str = "") -> list[int]:
        """The prompt as token ids, BOS in front where the tokenizer wants it; no text given becomes a special token."""
        if isinstance(self._template, PromptTemplate):
            return self._template.encode(instruction_messages(instruction, input, system), tokenizer)
        values = {"instruction": instruction, "input": input, "system": system}
        disguise = Disguise(tokenizer.special_tokens, taken=(self._template.text, *values.values()))
        text = self._template.render(**{name: disguise(value) for name, value in values.items()})
        return _with_bos(tokenizer.encode_rendered(text, disguise.undo), tokenizer)

    def save(self, directory: Path | str) -> None:
        """Write `instruction_template.jinja`, or `chat_template.jinja` when that is what serves."""
        if isinstance(self._template, PromptTemplate):
            self._template.save(directory)
        else:
            (Path(directory) / INSTRUCTION_TEMPLATE_FILE).write_text(self._template.text, encoding="utf-8")


def instruction_messages(instruction: str, input: str = "", system: str = "") -> list[dict[str, str]]:
    """The same request for a chat model: the input is a paragraph of its own behind the instruction."""
    content = f"{instruction}\n\n{input}" if input else instruction
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": content}]


def _compile(text: str, source: str) -> SandboxedTemplate:
    from model.template_sandbox import SandboxedTemplate

    return SandboxedTemplate(text, source)


def _with_bos(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    bos = tokenizer.bos_token_id
    return [bos, *ids] if tokenizer.add_bos and bos is not None and ids[:1] != [bos] else ids


def _token_text(value: object) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: can't be read as text: {error}") from None


def _default_template(value: object, path: Path) -> str | None:
    """tokenizer_config.json's `chat_template`: a text, or a list of named ones of which "default" counts."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"{path}: chat_template: expected a text, found {type(value).__name__}")
    return value


def _checked(messages: Sequence[Mapping[str, str | None]]) -> list[dict[str, str]]:
    """Plain copies, so that a template sees nothing but JSON's own types."""
    if not messages:
        raise PromptError("messages: must not be empty")
    for n, message in enumerate(messages):
        if not _ROLE.fullmatch(message.get("role") or ""):
            raise PromptError(f"messages[{n}].role: must be a word such as system, user or assistant")
        for name in ("content", *message):
            if not isinstance(message.get(name), str) and (name == "content" or message[name] is not None):
                raise PromptError(f"messages[{n}].{name}: must be a text")
    return [{name: str(text) for name, text in message.items() if text is not None} for message in messages]


def _unused_mark(template: str, messages: list[dict[str, str]]) -> str:
    mark = _CONTINUED_HERE
    everything = "\0".join((template, *_texts(messages)))
    while mark in everything:
        mark += "."
    return mark


def _texts(messages: list[dict[str, str]]) -> Iterable[str]:
    return (text for message in messages for text in message.values())
