"""The prompt templates of the served model, and of adapters that were tuned with others."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.prompts import INSTRUCTION_TEMPLATE_FILE, InstructionTemplate, PromptError, PromptTemplate


@dataclass(frozen=True)
class Templates:
    """For conversations and for instructions. `directories`: where they were read."""

    chat: PromptTemplate
    instruction: InstructionTemplate
    directories: tuple[Path, ...]

    @classmethod
    def of_model(cls, directory: Path) -> Self:
        """A model directory's own, or the common ones. PromptError or TokenizerError names the file that can't be read."""
        chat, instruction = PromptTemplate.from_directory(directory), InstructionTemplate.from_directory(directory)
        return cls(chat, instruction, (directory,))

    def of_adapter(self, directory: Path) -> "Templates":
        """Those of an adapter on this model: what it was tuned with, as far as its directory tells, else the model's. Errors as
        `of_model`."""
        chat = PromptTemplate.from_directory(directory)
        has_instruction = (directory / INSTRUCTION_TEMPLATE_FILE).is_file()
        return Templates(
            self.chat if chat.plain else chat,
            # A chat template of its own serves for instructions too, as it does for a model.
            InstructionTemplate.from_directory(directory) if has_instruction or not chat.plain else self.instruction,
            (directory, *self.directories),
        )

    def explain(self, error: PromptError) -> str:
        """Why a template refused, for a client: its file's name is told, but not where that lies."""
        text = str(error)
        for directory in self.directories:
            text = text.replace(f"{directory}{os.sep}", "")
        return text
