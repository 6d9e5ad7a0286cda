"""What the settings load: a random model in the Hugging Face layout, and each peer's own form of it. Made once, then kept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import SETTINGS, Job, Setting

ROOT = Path(__file__).parents[2]
DEFAULT_WORK = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "homegrown" / "bench"

# What each environment needs, as pip is told; PyTorch first, so that nothing else chooses another build of it.
TORCH = "torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu"
ENVIRONMENTS = {
    "main": f"{TORCH} transformers safetensors ctranslate2",
    "ov": "openvino openvino-genai numpy",
    "llama": "llama-cpp-python",  # compiles for some ten minutes; needs cmake and a C++ compiler
    "ovx": f'{TORCH} "optimum-intel[openvino]" nncf',  # exports to OpenVINO's form; not needed once that is done
}
_AFTERWARDS = {"ovx": "uninstall -y torchvision"}  # it comes along, built for another PyTorch, and breaks transformers
_EXPORTERS = {"openvino": "ovx", "llama_cpp": None, "ctranslate2": "main"}  # None: this environment
TINY = {"n_layer": 2, "n_head": 2, "d_model": 64, "context_length": 256}


def python_of(environments: Path, setting: Setting, *, exporting: bool = False) -> Path:
    """The interpreter that runs a setting, or that makes its model."""
    name = _EXPORTERS[setting.engine] if exporting else setting.environment
    return Path(sys.executable) if name is None else environments / name / "bin" / "python"


def missing(environments: Path, models: Path, names: Sequence[str]) -> list[str]:
    """What has to be installed before these settings can run: one text for each environment that isn't there."""
    wanted: dict[str, dict[str, None]] = {}  # names as keys: in order, each once
    for name in names:
        setting = SETTINGS[name]
        made = setting.artifact is None or (models / setting.artifact).exists()
        for exporting in (False,) if made else (False, True):
            python = python_of(environments, setting, exporting=exporting)
            if not python.exists():
                wanted.setdefault(python.parents[1].name, {})[name] = None
    return [
        f"{', '.join(users)} need {environments / name}:\n"
        f"    {sys.executable} -m venv {environments / name} && "
        f"{environments / name}/bin/pip install {ENVIRONMENTS[name]}"
        + (f" && {environments / name}/bin/pip {_AFTERWARDS[name]}" if name in _AFTERWARDS else "")
        for name, users in wanted.items()
    ]


def write_source(models: Path, shape: str, model: Path | None) -> None:
    """Put the model that is measured at `models`/hf: a link to `model`, or random weights of a preset's shape, always the
    same; "tiny" is for trying the benchmark itself."""
    target = models / "hf"
    if (target / "config.json").exists():
        return
    models.mkdir(parents=True, exist_ok=True)
    if model is not None:
        target.symlink_to(model.resolve())
        return
    import torch

    from model.checkpoint import save_model
    from model.config import gpt2_config, preset
    from model.gpt import GPT
    from model.tokenizer import Tokenizer

    config = gpt2_config(**TINY) if shape == "tiny" else preset(shape)
    torch.manual_seed(0)
    partial = target.with_name("hf.part")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(GPT(config), partial)
    tokenizer = Tokenizer.gpt2()
    if config.vocab_size < tokenizer.vocab_size:
        raise SystemExit(
            f"--shape {shape}: its vocabulary of {config.vocab_size} is no GPT-2's; name a model with --model"
        )
    tokenizer.save(partial)
    partial.rename(target)


def write_adapters(models: Path, count: int, rank: int) -> None:
    """Random LoRA adapters of the source, for all its projections, at `models`/adapters."""
    if (models / "adapters").exists():
        return
    import torch

    from model.adapters import save_adapter
    from model.checkpoint import load_model
    from model.lora import LoraConfig, add_lora, lora_pairs

    partial = models / "adapters.part"
    shutil.rmtree(partial, ignore_errors=True)
    model = load_model(models / "hf")
    add_lora(model, LoraConfig(rank=rank))
    for i in range(count):
        torch.manual_seed(i)
        for _, pair in lora_pairs(model):
            torch.nn.init.normal_(pair.a, std=0.02)
            torch.nn.init.normal_(pair.b, std=0.02)
        save_adapter(model, partial / f"bench-{i}", "bench")
    partial.rename(models / "adapters")


def write_artifact(job: Job, environments: Path) -> str | None:
    """Make what a setting loads, unless it is there; what went wrong, if something did."""
    if job.artifact.exists() or job.of.artifact is None:
        return None
    print(f"making {job.artifact} ...", file=sys.stderr)
    command = [str(python_of(environments, job.of, exporting=True)), "-W", "ignore", "-m", "benchmarks.peers.worker"]
    command.append(replace(job, task="prepare").to_json())
    done = subprocess.run(command, env=environment(job.threads), cwd=ROOT, capture_output=True, text=True)
    if job.artifact.exists():
        return None
    return f"{job.artifact} could not be made (exit code {done.returncode}):\n{done.stderr.strip()[-2000:]}"


def environment(threads: int) -> dict[str, str]:
    """A worker's environment: as many threads as asked for in every library that reads that from there, and no network."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = dict.fromkeys(names, str(threads)) | {
        "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"
    }  # fmt: skip
    return os.environ | settings
