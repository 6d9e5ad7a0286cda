"""Training runs in processes of their own, that can be killed: forked from one that has everything imported."""

import multiprocessing
import os
import random
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["training.pretrain", "torch.utils.tensorboard", "torch.distributed.fsdp"])

TINY = """
name = "tiny"
[data]
vocab_size = 300
validation_fraction = 0.2
about = "Made-up sentences."
[model]
preset = "homegrown-4m"
changes = { n_layer = 2, d_model = 64, n_head = 2, n_kv_head = 2, head_dim = 32, d_ff = 96, context_length = 32 }
[optim]
batch_tokens = 256
warmup_steps = 2
[run]
steps = 120
tensorboard = false
micro_batch = 4
compile = false
threads = 1
log_every = 1
eval_every = 10
eval_tokens = 500
save_every = 2
"""


def sentence(rng: random.Random) -> str:
    who, what = rng.choice(["The fox", "A girl", "My uncle", "The king"]), rng.choice(["saw", "ate", "lost", "sold"])
    return f"{who} {what} {rng.choice(['the', 'a'])} {rng.choice(['red', 'big', 'new'])} {rng.choice(['hat', 'cake', 'boat'])}."


def write_inputs(directory: Path, recipe: str = TINY) -> tuple[Path, Path]:
    """A recipe and a corpus of made-up sentences."""
    rng = random.Random(0)
    documents = [" ".join(sentence(rng) for _ in range(12)) for _ in range(120)]
    (directory / "corpus.txt").write_text("\n<|endoftext|>\n".join(documents))
    (directory / "recipe.toml").write_text(recipe)
    return directory / "recipe.toml", directory / "corpus.txt"


def start_pretrain(
    inputs: tuple[Path, Path], out: Path, *, resume: bool = False, processes: int = 1
) -> list[BaseProcess]:
    """Begin a run, or go on with it, in so many processes as torchrun would start."""
    return start(_pretrain, *inputs, out, resume, processes=processes)


def start(task: Callable[..., object], *arguments: object, processes: int) -> list[BaseProcess]:
    """Call `task`, a function that another process can import, in so many processes as torchrun would start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(processes):
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        process = _FORKED.Process(target=_call, args=(task, arguments, environment), daemon=True)
        process.start()
        started.append(process)
    return started


def _call(task: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    task(*arguments)


def _pretrain(recipe: Path, corpus: Path, out: Path, resume: bool) -> None:
    from training.pretrain import pretrain
    from training.pretrain_recipe import PretrainSettings

    pretrain(PretrainSettings.from_toml(recipe, {"data": {"corpus": [str(corpus)]}}), out, resume=resume)


def wait(processes: list[BaseProcess], seconds: float = 120) -> None:
    """Until all have ended well."""
    for process in processes:
        process.join(seconds)
        assert process.exitcode == 0, f"a training process ended with {process.exitcode}"
