"""GET /v1/models and the routes of operations."""

from typing import Literal

from pydantic import BaseModel, Field


class ModelCard(BaseModel):
    """A model that requests can name."""

    id: str = Field(description="The name that requests give.")
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time of the model's files.")
    owned_by: str = Field(default="homegrown", description="Always homegrown.")
    parent: str | None = Field(default=None, description="The base model of an adapter.")
    max_model_len: int = Field(description="Context in tokens: prompt and answer together.")
    task: Literal["generate", "classify"] = Field("generate", description="What it gives: text, or labels.")


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard] = Field(description="In no particular order.")


class Health(BaseModel):
    """The server is up, and its engine is loading or alive."""

    status: Literal["ok", "loading"] = Field(description="loading: alive, but not ready yet.")
    running: int = Field(description="Requests in a slot.")
    waiting: int = Field(description="Requests in the queue.")
    slots: int = Field(description="Requests that can run at once; 0 while loading.")


class Ready(BaseModel):
    """A request would be taken now."""

    status: Literal["ready"] = "ready"


class Version(BaseModel):
    """What runs here. The engine's own facts are null until it has loaded."""

    version: str = Field(description="This software's.")
    python: str = Field(description="Python's version.")
    model: str = Field(description="The base model's name.")
    architecture: str = Field(description="gpt2 or llama.")
    context: int = Field(description="Tokens that a prompt and its answer may have together.")
    device: str | None = Field(default=None, description="cpu or cuda.")
    dtype: str | None = Field(default=None, description="Number format of the weights.")
    quantize: str | None = Field(default=None, description="none, int8 or int4.")
    kernels: str | None = Field(default=None, description="What computes.")
    threads: int | None = Field(default=None, description="Compute threads.")
    slots: int | None = Field(default=None, description="Requests that can run at once.")
    torch: str | None = Field(default=None, description="PyTorch's version.")
