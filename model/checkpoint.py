"""Load and save a model directory in the Hugging Face layout: `config.json`, `model.safetensors` (sharded when large).

Only safetensors is read or written: a pickle file can run code, so one is refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from model.architectures import Weights, config_to_hf, read_config, weight_map
from model.config import ModelConfig
from model.errors import CheckpointError
from model.files import INDEX, WEIGHTS, read_json, write_json, write_whole
from model.gpt import GPT, SequenceClassifier

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def load_model(
    directory: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> GPT | SequenceClassifier:
    """The model in `directory`, in evaluation mode, its weights as `dtype` on `device`.

    Raises CheckpointError, naming the file or tensor: missing, truncated or corrupt file, unknown architecture,
    tensor missing or of the wrong shape, pickle in place of safetensors.
    """
    directory = Path(directory)
    config = read_config(directory)
    model = empty_model(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {name: tensor.to(device=device, dtype=dtype) for name, tensor in read_weights(directory, config, shapes)}
    missing = model.load_state_dict(state, strict=False, assign=True).missing_keys
    trunk = model.trunk if isinstance(model, SequenceClassifier) else model
    trunk.tie_embeddings()
    unset = [name for name in missing if not (config.tie_embeddings and name == "head.weight")]
    assert not unset, f"weight_map leaves out {unset}"
    return model.to(device).eval().requires_grad_(False)


def read_weights(
    directory: Path | str, config: ModelConfig, shapes: Mapping[str, torch.Size], *, release: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Our parameters one after another, by name, as stored: [out, in] on the CPU, in the file's number format. `shapes`: of the
    parameters (empty_model has them). CheckpointError as load_model.

    A tensor's memory is the file's own pages where it can be. With `release` those leave memory when the tensor is dropped, so
    that whoever turns one after the other into something smaller never holds two copies of all; and what is stored transposed
    is a transposed view. Without, they leave when the last tensor does, and all tensors are contiguous.
    """
    directory = Path(directory)
    with ExitStack() as stack:
        read, names = stack.enter_context(_open_weights(directory))
        for ours, source in weight_map(config).items():
            tensor = _assemble(source, read, names, directory)
            if tensor.shape != shapes[ours]:
                raise CheckpointError(
                    f"{directory}: {', '.join(source.names)} has shape {list(tensor.shape)}, but config.json asks for "
                    f"{list(shapes[ours])}; the weights and the configuration are not of one model"
                )
            yield ours, tensor if release else tensor.contiguous()
            if release:  # pages stay as long as the file is mapped: map it anew
                del tensor
                stack.close()
                read, names = stack.enter_context(_open_weights(directory))


def stored_dtypes(directory: Path | str) -> set[str]:
    """Number formats of the matrices in a model directory's weights, by their names in safetensors: "F32", "BF16", "F16".
    CheckpointError as load_model."""
    found: set[str] = set()
    for path in _weight_files(Path(directory)):
        try:
            with safe_open(path, framework="pt") as file:
                slices = [file.get_slice(name) for name in list(file.keys())]
                found |= {part.get_dtype() for part in slices if len(part.get_shape()) == 2}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: truncated or corrupt ({error}); get the file again") from None
    return found


def empty_model(config: ModelConfig) -> GPT | SequenceClassifier:
    """A model of that shape without memory or random numbers (PyTorch's "meta" tensors): to be filled, or for its shapes."""
    with torch.device("meta"), _NoInitialisation():
        return SequenceClassifier(config) if config.labels else GPT(config)


class _NoInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are. Drawing them without memory imports PyTorch's compiler: a second at each start."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def save_model(
    model: GPT | SequenceClassifier,
    directory: Path | str,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write config.json, generation_config.json and the weights (as `dtype`; None keeps theirs) into `directory`.

    Each file appears whole or not at all. The directory is made when it isn't there; other files in it stay. CheckpointError when
    the disk doesn't take it.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    published: dict[str, Tensor] = {}
    for ours, source in weight_map(model.config).items():
        pieces = state[ours].split(source.rows) if source.rows else (state[ours],)
        for name, piece in zip(source.names, pieces, strict=True):
            published[name] = (piece.t() if source.transposed else piece).to("cpu", dtype).contiguous()
    save_state(model.config, published, directory, max_shard_bytes=max_shard_bytes)


def save_state(
    config: ModelConfig, tensors: Mapping[str, Tensor], directory: Path | str, *, max_shard_bytes: int = 5_000_000_000
) -> None:
    """Write a model directory from tensors that have their published names and layout already."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    fields = config_to_hf(config)
    dtypes = {_DTYPES[t.dtype] for t in tensors.values() if t.dtype in _DTYPES}
    fields["torch_dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
    _write_shards(dict(tensors), directory, max_shard_bytes)
    eos = fields["eos_token_id"]
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": eos, "pad_token_id": config.pad_token_id}
    write_json(directory / "generation_config.json", {k: v for k, v in generation.items() if v is not None})
    write_json(directory / "config.json", fields)


def _write_shards(tensors: dict[str, Tensor], directory: Path, max_shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += nbytes
    names = [WEIGHTS] if len(shards) == 1 else [
        f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))
    ]  # fmt: skip
    for name, shard in zip(names, shards, strict=True):
        write_tensors(directory / name, shard, {"format": "pt"})
    if len(shards) > 1:
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file of contiguous tensors on the CPU, whole or not at all. CheckpointError names the file that the disk
    doesn't take: the library's own error for it is no OSError."""
    try:
        write_whole(path, lambda part: save_file(dict(tensors), part, metadata=metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: can't be written ({error}); make room, or name another directory") from None


@contextmanager
def _open_weights(directory: Path) -> Iterator[tuple[Callable[[str], Tensor], set[str]]]:
    """A reader of tensors by published name, and the names there are."""
    with ExitStack() as stack:
        owner: dict[str, Any] = {}
        for path in _weight_files(directory):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: truncated or corrupt ({error}); get the file again") from None
            owner |= dict.fromkeys(file.keys(), (path, file))

        def read(name: str) -> Tensor:
            path, file = owner[name]
            try:
                return file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: tensor {name} can't be read ({error}); get the file again") from None

        yield read, set(owner)


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / WEIGHTS, directory / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not where:
            raise CheckpointError(f"{index}: weight_map is missing or empty; get the file again")
        paths = [directory / str(name) for name in sorted(set(where.values()))]
        for path in paths:
            if path.parent != directory or not path.is_file():
                raise CheckpointError(f"{path}: no such file, though {INDEX} names it; get it again")
        return paths
    pickles = [path.name for pattern in _PICKLES for path in directory.glob(pattern)]
    if pickles:
        raise CheckpointError(
            f"{directory}: holds {', '.join(sorted(pickles))} but no {WEIGHTS}; pickle files can run code and are never "
            "loaded: save the model as safetensors"
        )
    raise CheckpointError(f"{single}: no such file; a model directory needs its weights")


def _assemble(source: Weights, read: Callable[[str], Tensor], names: set[str], directory: Path) -> Tensor:
    pieces = []
    for name in source.names:
        # A bare trunk, as OpenAI's GPT-2 files were published, lacks the wrapper's prefix.
        bare = name.removeprefix("transformer.").removeprefix("model.")
        found = next((n for n in (name, bare) if n in names), None)
        if found is None:
            raise CheckpointError(
                f"{directory}: the weights have no tensor {name}; they are incomplete or of another model"
            )
        piece = read(found)
        pieces.append(piece.t() if source.transposed else piece)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
