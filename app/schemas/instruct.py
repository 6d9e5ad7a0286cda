"""POST /instruct."""

from pydantic import Field

from app.schemas.common import CHAT_MODEL
from app.schemas.generate import GenerateFields


class InstructRequest(GenerateFields):
    """Follow an instruction. Nothing written in these texts counts as a special token."""

    model: str | None = Field(None, description=CHAT_MODEL)
    instruction: str = Field(min_length=1, description="What is to be done.")
    input: str = Field("", description="What it is to be done with, apart from the instruction.")
    system: str = Field(
        "", description="What holds for all instructions, where the model's template has a place for it."
    )
