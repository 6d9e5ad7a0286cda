"""POST and DELETE /v1/adapters."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from app.adapters import NAME_RULE, is_adapter_name
from app.schemas.common import RequestBody


class AdapterRequest(RequestBody):
    """Which adapter."""

    name: str = Field(description=f"Its directory's name in the server's adapters folder: {NAME_RULE}.")

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not is_adapter_name(value):
            raise ValueError(f"must be the name of a directory in the server's adapters folder, no path: {NAME_RULE}")
        return value


class AdapterDeleted(BaseModel):
    """No request can name it any more."""

    id: str = Field(description="The adapter's name.")
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
