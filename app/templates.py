"""The prompt templates of the served model, and of adapters that were tuned with others."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.prompts import INSTRUCTION_TEMPLATE_FILE, InstructionTemplate, PromptError, PromptTemplate


@dataclass(frozen=True)
class Templates:
    """For conversations and for instructions. `directories`: where they were read. `own`: the first of those has a template, so
    the model there was tuned to answer."""

    chat: PromptTemplate
    instruction: InstructionTemplate
    directories: tuple[Path, ...]
    own: bool

    @classmethod
    def of_model(cls, directory: Path) -> Self:
        """A model directory's own, or the common ones. PromptError or TokenizerError names the file that can't be read."""
        chat, instruction = PromptTemplate.from_directory(directory), InstructionTemplate.from_directory(directory)
        return cls(chat, instruction, (directory,), not chat.plain or (directory / INSTRUCTION_TEMPLATE_FILE).is_file())

    def of_adapter(self, directory: Path) -> "Templates":
        """Those of an adapter on this model: what it was tuned with, as far as its directory tells, else the model's. Errors as
        `of_model`."""
        # The vocabulary is the model's, so an adapter need not name its special tokens again.
        chat = PromptTemplate.from_directory(directory, self.chat.tokens)
        has_instruction = (directory / INSTRUCTION_TEMPLATE_FILE).is_file()
        if has_instruction:
            instruction = InstructionTemplate.from_directory(directory)
        else:  # A chat template of its own serves for instructions too, as it does for a model.
            instruction = self.instruction if chat.plain else InstructionTemplate(chat)
        return Templates(
            self.chat if chat.plain else chat,
            instruction,
            (directory, *self.directories),
            has_instruction or not chat.plain,
        )

    def explain(self, error: PromptError) -> str:
        """Why a template refused, for a client: its file's name is told, but not where that lies."""
        text = str(error)
        for directory in self.directories:
            text = text.replace(f"{directory}{os.sep}", "")
        return text


def tuned_adapter(base: Templates, adapters: Mapping[str, Templates]) -> str | None:
    """Which of the adapters that generate answers conversations and instructions that name no model. None, so the base does,
    where that has templates of its own, and unless exactly one of the adapters has."""
    tuned = [name for name, templates in adapters.items() if templates.own]
    return tuned[0] if len(tuned) == 1 and not base.own else None
