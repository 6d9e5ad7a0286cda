"""The prompt templates that a model is tuned with, and examples made with them.

What stands in the exported directory is what training used: templates are read back through the code that serves them, so that
a prompt has the same token ids there and here. An answer ends with the token that ends the model's turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from model.config import ModelConfig
from model.derived import own_templates
from model.errors import ConfigError
from model.prompts import (
    ALPACA_STOPS,
    ALPACA_TEMPLATE,
    CHAT_TEMPLATE_FILE,
    INSTRUCTION_TEMPLATE_FILE,
    PLAIN_STOPS,
    InstructionTemplate,
    PromptError,
    PromptTemplate,
)
from model.tokenizer import Tokenizer
from training.data.dialogues import Chat, Dialogue, Instruction, Request
from training.data.examples import Example
from training.errors import DataError

Family = Literal["auto", "alpaca", "transcript"]
_STOPS: dict[Family, tuple[str, ...]] = {"auto": (), "alpaca": ALPACA_STOPS, "transcript": PLAIN_STOPS}

# Alpaca's wording for conversations: one message gives ALPACA_TEMPLATE's prompt, further ones go on below the answer's end.
ALPACA_CHAT_TEMPLATE = """\
{% if messages[0].role in ('system', 'developer') %}
{{ messages[0].content | trim }}
{% else %}
Below is an instruction that describes a task. Write a response that appropriately completes the request.
{% endif %}

{% for message in messages %}
{% if message.role == 'user' %}
### Instruction:
{{ message.content | trim }}

{% elif message.role == 'assistant' %}
### Response:
{{ message.content | trim }}{{ eos_token }}

{% elif not loop.first %}
{{ raise_exception('only the first message may have the role ' ~ message.role) }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
### Response:
{{ '' }}
{%- endif %}
"""

# The transcript that base models are asked with (PLAIN_CHAT_TEMPLATE), answers closed by the end-of-text token. It needs no other
# special token, so a vocabulary without chat tokens stays as it is.
TRANSCRIPT_CHAT_TEMPLATE = """\
{% for message in messages %}
{{ message.role | capitalize }}:
{{ message.content | trim }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{{ '\\n\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
Assistant:
{{ '' }}
{%- endif %}
"""
TRANSCRIPT_INSTRUCTION_TEMPLATE = """\
{% if system %}
System:
{{ system }}

{% endif %}
User:
{{ instruction }}

{% if input %}
{{ input }}

{% endif %}
Assistant:
{{ '' }}
"""


@dataclass(frozen=True)
class Templates:
    """The templates of a run. `files`: name -> text of those that the exported directory needs. `end`: the token that closes an
    answer, one of those that end generation. `base_stops`: texts that end an answer of the base to such prompts when it is served,
    where it has no template of its own, and so never learned when to end."""

    chat: PromptTemplate
    instruction: InstructionTemplate
    files: dict[str, str]
    tokenizer: Tokenizer
    end: int
    base_stops: tuple[str, ...] = ()

    def prompt(self, request: Request) -> list[int]:
        """The request's token ids, as serving makes them. PromptError when the template refuses its messages."""
        if isinstance(request, Instruction):
            return self.instruction.encode(self.tokenizer, request.instruction, request.input, request.system)
        if isinstance(request, Chat):
            messages = [{"role": role, "content": content} for role, content in request.messages]
            return self.chat.encode(messages, self.tokenizer)
        return self.tokenizer.encode_prompt(request.text)

    def answer(self, text: str) -> list[int]:
        """An answer's token ids, the end token last; written out at its end, it isn't doubled."""
        written = self.tokenizer.token_bytes(self.end).decode("utf-8", "replace")
        return [*self.tokenizer.encode(text.removesuffix(written).rstrip()), self.end]

    def example(self, request: Request, answer: str) -> Example:
        """One answer to learn behind its prompt. PromptError as `prompt`."""
        prompt, ids = self.prompt(request), self.answer(answer)
        return _example([*prompt, *ids], [False] * len(prompt) + [True] * len(ids))

    def examples(self, dialogue: Dialogue) -> Iterator[Example]:
        """A dialogue's answers to learn, each behind exactly the prompt that it will be asked with.

        All turns share one example where each prompt begins with the one before and its answer, as templates for chats have it;
        where not, a new one begins. DataError names the row whose messages the template refuses.
        """
        tokens: list[int] = []
        counted: list[bool] = []
        for turn in dialogue.turns:
            try:
                prompt = self.prompt(turn.request)
            except PromptError as error:
                raise DataError(f"{dialogue.where}: {error}") from None
            if tokens and prompt[: len(tokens)] != tokens:
                yield _example(tokens, counted)
                counted = []
            answer = self.answer(turn.answer)
            counted += [False] * (len(prompt) - len(counted)) + [True] * len(answer)
            tokens = prompt + answer
        if tokens:
            yield _example(tokens, counted)


def choose_templates(
    base: Path, tokenizer: Tokenizer, config: ModelConfig, family: Family, *, instructions: bool, chats: bool
) -> Templates:
    """The templates to tune a model of directory `base` with.

    auto: the base's own; where it has none, Alpaca's if there are `instructions` among the rows, the transcript if there are
    `chats`, and none for plain texts. ConfigError when the model has no token to end an answer with.
    """
    files = own_templates(base)
    is_plain = not files
    if family == "auto" and not files:
        family = "alpaca" if instructions else "transcript" if chats else "auto"
    bos = "{{ bos_token }}" if tokenizer.add_bos else ""
    if family == "alpaca":
        files = {CHAT_TEMPLATE_FILE: bos + ALPACA_CHAT_TEMPLATE, INSTRUCTION_TEMPLATE_FILE: ALPACA_TEMPLATE}
    elif family == "transcript":
        files = {
            CHAT_TEMPLATE_FILE: bos + TRANSCRIPT_CHAT_TEMPLATE,
            INSTRUCTION_TEMPLATE_FILE: TRANSCRIPT_INSTRUCTION_TEMPLATE,
        }
    with TemporaryDirectory() as directory:
        tokenizer.save(directory)
        for name, text in files.items():
            (Path(directory) / name).write_text(text, "utf-8")
        chat, instruction = PromptTemplate.from_directory(directory), InstructionTemplate.from_directory(directory)
    stops = _STOPS[family] if is_plain else ()
    return Templates(chat, instruction, files, tokenizer, _end_token(chat, tokenizer, config), stops)


def _end_token(chat: PromptTemplate, tokenizer: Tokenizer, config: ModelConfig) -> int:
    """What the chat template closes an answer with, else the end-of-text token; it must end generation."""
    ends = config.eos_token_ids
    try:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ids = chat.encode(messages, tokenizer, add_generation_prompt=False)
    except PromptError:
        ids = []
    found = next((token for token in reversed(ids) if token in ends), tokenizer.eos_token_id)
    if found is None or found not in ends:
        raise ConfigError(
            "the model has no token that ends an answer: config.json must name the tokenizer's end-of-text token as "
            f"eos_token_id (it names {', '.join(map(str, ends)) or 'none'})"
        )
    return found


def _example(tokens: list[int], counted: list[bool]) -> Example:
    return Example(np.array(tokens, np.int32), np.array(counted, bool))
