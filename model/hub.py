"""Open weights from the Hugging Face Hub, and which directory a model's name means. Free of torch.

A pulled model lies under the models directory ($HOMEGROWN_MODELS, else ~/.cache/homegrown/models) as OWNER/NAME, with
`homegrown.json` recording the commit it is. It appears there when it is complete; until then its files lie in a hidden
directory beside it, from which an interrupted pull goes on.

A model directory may carry LoRA adapters: PEFT directories in its own folder `adapters`, each called by its directory's name.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model.architectures import config_from_hf
from model.errors import CheckpointError, ConfigError
from model.files import INDEX, WEIGHTS, file_sha256, put_in_place, read_json, sweep, write_json

ALIASES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
RECORD = "homegrown.json"
ADAPTERS = "adapters"
BUNDLED = Path(__file__).resolve().parents[1] / "checkpoints"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BESIDE_WEIGHTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "special_tokens_map.json", "chat_template.jinja", "instruction_template.jinja", "README.md", "LICENSE",
)  # fmt: skip
_OF_ADAPTER = (
    "adapter_config.json", "adapter_model.safetensors", "labels.json", "chat_template.jinja", "instruction_template.jinja",
    "tokenizer.json", "tokenizer_config.json", "README.md", "LICENSE",
)  # fmt: skip
# What only the disk says: a network's errors have other numbers.
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
_ADAPTER_WEIGHTS = re.compile(rf"{ADAPTERS}/([A-Za-z0-9][A-Za-z0-9._-]*)/adapter_model\.safetensors")


def models_directory() -> Path:
    """Where pulled models lie."""
    given = os.environ.get("HOMEGROWN_MODELS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "homegrown" / "models"


def resolve_model(name: str) -> Path:
    """The directory that `name` means: a directory itself, a bundled model, or a pulled one (by alias or Hub id).

    CheckpointError lists what there is.
    """
    for directory in (Path(name), BUNDLED / name, _place(ALIASES.get(name, name))):
        if directory.is_dir() and (directory / "config.json").is_file():
            return directory
    if (Path(name) / "adapter_config.json").is_file():
        raise CheckpointError(f"{name}: is an adapter; name the model that it is for, and the adapter beside it")
    if Path(name).is_dir():
        raise CheckpointError(f"{name}: holds no config.json; a model directory needs it")
    if name in ALIASES or _REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{name} is not here yet; get it with: homegrown pull {name}")
    raise CheckpointError(f"there is no model {name!r}; name a directory or one of: {', '.join(known_models())}")


def own_adapters(model: Path) -> Path | None:
    """The folder of the adapters that a model directory carries; None when it has no such folder."""
    folder = model / ADAPTERS
    return folder if folder.is_dir() else None


def carrier(adapter: Path) -> Path | None:
    """The model directory that carries the adapter in directory `adapter`; None when it lies anywhere else."""
    folder = adapter.resolve().parent
    return folder.parent if folder.name == ADAPTERS and (folder.parent / "config.json").is_file() else None


def pull(name: str, *, revision: str | None = None, offline: bool = False) -> Path:
    """Fetch a model by alias or Hub id, with a progress bar, and return its directory; one that is there already stays.

    `revision`: a commit, tag or branch; the commit that it means is recorded. `offline` (or HF_HUB_OFFLINE) only looks at what
    was pulled before. Only safetensors are fetched. Adapters that the model carries come with it; those that were added here stay
    when another commit takes its place. CheckpointError says in one line what can't be had and why.
    """
    from huggingface_hub import constants

    repository = ALIASES.get(name, name)
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointError(f"{name!r} is no Hub id like owner/name, nor one of {', '.join(ALIASES)}")
    target = _place(repository)
    sweep(target.parent)  # a pull that was killed while it replaced the model has left it beside its place
    record = read_json(target / RECORD) if (target / RECORD).is_file() else {}
    have = record.get("revision")
    if offline or constants.HF_HUB_OFFLINE:
        if have is None:
            raise CheckpointError(f"{repository} was not pulled before, and offline mode forbids to fetch it")
        if revision not in (None, have):
            raise CheckpointError(
                f"{repository} is here at {have}, not at {revision}, and offline mode forbids to fetch that"
            )
        return target
    commit, files = _look_up(repository, revision)
    if commit == have:
        return target
    stage = target.with_name(f".{target.name}.{commit}.part")
    _fetch(repository, commit, ["config.json"], stage)
    try:
        config_from_hf(read_json(stage / "config.json"))
    except ConfigError as error:
        shutil.rmtree(stage)
        raise CheckpointError(f"{repository}: {error}") from None
    _fetch(repository, commit, files, stage)
    brought = sorted({match[1] for name in files if (match := _ADAPTER_WEIGHTS.fullmatch(name))})
    about = {"repository": repository, "revision": commit}
    write_json(stage / RECORD, {**about, "adapters": brought} if brought else about)
    if target.exists():
        _keep_adapters(target, stage, set(record.get("adapters", ())))
    put_in_place(stage, target)
    return target


def _look_up(repository: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that `revision` means, and the files to fetch."""
    from huggingface_hub import HfApi

    with _explained(repository, revision):
        info = HfApi().model_info(repository, revision=revision, timeout=30)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    weights = [WEIGHTS] if WEIGHTS in names else _shards(names)
    if not weights:
        raise CheckpointError(
            f"{repository}: has no safetensors weights; pickle files can run code and are never fetched. Look for a revision "
            "or a copy with model.safetensors"
        )
    texts = [name for name in _BESIDE_WEIGHTS if name in names]
    return str(info.sha), [*texts, *_adapter_files(names), *weights]


def _adapter_files(names: set[str]) -> list[str]:
    """The files of the adapters that a repository carries, of those whose weights are safetensors."""
    found = [name.rpartition("/")[0] for name in sorted(names) if _ADAPTER_WEIGHTS.fullmatch(name)]
    whole = [directory for directory in found if f"{directory}/{_OF_ADAPTER[0]}" in names]
    return [path for directory in whole for name in _OF_ADAPTER if (path := f"{directory}/{name}") in names]


def _keep_adapters(old: Path, new: Path, pulled: set[str]) -> None:
    """Copy the adapters that somebody put into the old directory into the new one: all but those that were pulled with it."""
    for directory in (old / ADAPTERS).glob("*/"):
        kept = new / ADAPTERS / directory.name
        if directory.name not in pulled and not kept.exists():
            part = new / f".{directory.name}.part"  # a copy that is cut short must not pass for the adapter
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(directory, part, symlinks=True)
            kept.parent.mkdir(exist_ok=True)
            part.replace(kept)


def _shards(names: set[str]) -> list[str]:
    shards = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    return [*shards, INDEX] if shards and INDEX in names else []


def _fetch(repository: str, commit: str, files: Sequence[str], stage: Path) -> None:
    """Bring `files` into `stage`, each under its name only when complete; a part that is there already goes on.

    The library's own snapshot_download begins a file anew after a killed run, so its lower layer is used: one file, from a
    byte on.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    stage.mkdir(parents=True, exist_ok=True)
    for name in files:
        path, part = stage / name, stage / f"{name}.part"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(repository, name, revision=commit)
        with _explained(repository, commit, part), part.open("ab") as file:
            facts = get_hf_file_metadata(url)
            if facts.size is not None and file.tell() > facts.size:
                file.seek(0)
                file.truncate()  # it is no part of this file
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=build_hf_headers(),
                expected_size=facts.size,
                displayed_filename=name,
            )
        if facts.etag and re.fullmatch(r"[0-9a-f]{64}", facts.etag) and file_sha256(part) != facts.etag:
            part.unlink()  # large files carry their SHA-256 as their tag
            raise CheckpointError(f"{repository}: {name} arrived damaged; run the command again to fetch it anew")
        part.replace(path)


@contextmanager
def _explained(repository: str, revision: str | None, file: Path | None = None) -> Iterator[None]:
    """What the Hub's client raises, as one line. `file`: what is being written."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise CheckpointError(f"{repository}: its owner gives access on request; get it, then set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{repository}: has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"{repository}: no such repository on the Hub, or a private one (then set HF_TOKEN)"
        ) from None
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"{repository}: the Hub answered {error.response.status_code}; try again later") from None
    except (
        Exception
    ) as error:  # mostly the exceptions of the HTTP library beneath, which changes with the client's version
        if isinstance(error, OSError) and error.errno in _OF_DISK:
            raise CheckpointError(
                f"{file or error.filename}: can't be written: {error.strerror}; when it can, run the command again, it goes on "
                "where it was"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{repository}: the Hub can't be reached ({reason}); with a network run the command again, it goes on where it was"
        ) from None


def _place(repository: str) -> Path:
    return models_directory() / repository


def known_models() -> list[str]:
    """Names that `resolve_model` and `pull` know: of bundled and of pulled models, and the aliases."""
    bundled = (path.parent.name for path in BUNDLED.glob("*/config.json"))
    root = models_directory()
    pulled = (str(path.parent.relative_to(root)) for path in root.glob(f"*/*/{RECORD}"))
    return sorted({*bundled, *pulled, *ALIASES})
