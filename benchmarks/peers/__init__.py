"""Engines that are measured side by side on the same weights and prompts. One file each; a worker process runs one setting.

Free of anything but the standard library: a peer runs in a virtual environment of its own, which has none of our packages.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Setting:
    """One way to run one engine. `engine` names the module here; `precision` is what it is compared in."""

    engine: str
    variant: str
    precision: str  # float32, bfloat16, int8, 4-bit
    environment: str | None = None  # under --environments; None: the one that runs the benchmark
    artifact: str | None = None  # what it loads, beside the model's directory; None: that directory itself

    @property
    def name(self) -> str:
        """How the command line and the tables call it."""
        return f"{self.engine}:{self.variant}"

    @property
    def ours(self) -> bool:
        """Whether it is this project's engine."""
        return self.engine in ("ours", "bare")


_LIST = [
    Setting("ours", "float32", "float32"),
    Setting("ours", "bfloat16", "bfloat16"),
    Setting("ours", "int8", "int8"),
    Setting("ours", "int4", "4-bit"),
    Setting("bare", "float32", "float32"),
    Setting("bare", "bfloat16", "bfloat16"),
    Setting("bare", "int8", "int8"),
    Setting("bare", "int4", "4-bit"),
    Setting("transformers", "float32", "float32", "main"),
    Setting("transformers", "bfloat16", "bfloat16", "main"),
    Setting("transformers", "float32-static", "float32", "main"),
    Setting("transformers", "bfloat16-static", "bfloat16", "main"),  # on a GPU it captures its steps
    Setting("ctranslate2", "float32", "float32", "main", "ctranslate2-float32"),
    Setting("ctranslate2", "bfloat16", "bfloat16", "main", "ctranslate2-bfloat16"),
    Setting("ctranslate2", "int8", "int8", "main", "ctranslate2-int8"),
    Setting("llama_cpp", "f32", "float32", "llama", "f32.gguf"),
    Setting("llama_cpp", "bf16", "bfloat16", "llama", "bf16.gguf"),
    Setting("llama_cpp", "q8_0", "int8", "llama", "q8_0.gguf"),
    Setting("llama_cpp", "q4_0", "4-bit", "llama", "q4_0.gguf"),
    Setting("openvino", "float32", "float32", "ov", "openvino-float32"),
    Setting("openvino", "bfloat16", "bfloat16", "ov", "openvino-float32"),
    Setting("openvino", "int8", "int8", "ov", "openvino-int8"),
]
SETTINGS = {setting.name: setting for setting in _LIST}
OURS = [s.name for s in _LIST if s.engine == "ours"]
BARE = [s.name for s in _LIST if s.engine == "bare"]
PEERS = [s.name for s in _LIST if not s.ours and "static" not in s.variant and s.name != "ctranslate2:bfloat16"]


@dataclass(frozen=True)
class Job:
    """What a worker is told. Travels as JSON."""

    setting: str
    task: str  # "measure" or "prepare"
    models: str  # directory with the model in the Hugging Face layout (`hf`) and what peers make of it
    threads: int = 2
    device: str = "cpu"
    streams: tuple[int, ...] = (1, 8, 32)
    new_tokens: int = 64  # of a decoding stream
    context: int = 1024
    vocab_size: int = 50257
    repeats: int = 2
    seed: int = 0  # another one for each round: no prompt is ever seen twice
    foreign_limit: float = 0.15
    parts: tuple[str, ...] = ("first", "prefill", "decode")
    spawned: float = 0.0  # when the process was started, on the monotonic clock
    backend: str = "auto"  # ours: auto, native, torch
    process: bool = False  # ours: the engine in a process of its own, as the server has it

    @property
    def of(self) -> Setting:
        """The setting itself."""
        return SETTINGS[self.setting]

    @property
    def source(self) -> Path:
        """The model's directory in the Hugging Face layout."""
        return Path(self.models) / "hf"

    @property
    def artifact(self) -> Path:
        """What this setting loads."""
        return Path(self.models) / self.of.artifact if self.of.artifact else self.source

    def to_json(self) -> str:
        """For the command line of a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """What to_json made."""
        fields: dict[str, Any] = json.loads(text)
        fields |= {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**fields)


class Engine(Protocol):
    """A loaded model that continues token ids."""

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """Exactly `n_new` greedy tokens for each prompt, ends of text among them or not; all prompts at once."""
        ...

    def about(self) -> dict[str, Any]:
        """Versions and sizes for the report; nothing that takes time."""
        ...
