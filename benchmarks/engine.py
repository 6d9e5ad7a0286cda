"""Our engine's speed and memory, alone or beside its peers: the same weights, prompts and machine, in one run.

    python benchmarks/engine.py                         # ours in float32, bfloat16, int8 and 4-bit
    python benchmarks/engine.py --peers --mixed         # beside transformers, ctranslate2, llama.cpp and OpenVINO
    python benchmarks/engine.py --peers openvino:int8 llama_cpp:q8_0 --ours int8 --rounds 5
    python benchmarks/engine.py --bare --shape tiny     # the back end without the engine around it; a minute's try

Every setting runs in a process of its own, once a round, and the order rotates; what is shown is the median of the rounds (and
their range). Rates are tokens a second. decode, N: N streams, after prompts of 64 tokens (128 for one stream), the prompts' time
taken off. prefill: a prompt of 512. first token: a prompt of 128. start: from the start of the process to the first token of a
short prompt. of the bandwidth: one stream's weights a second against what as many threads read from memory in the same run.
agrees: greedy tokens that are those of a float32 reference.

Prefix caches are off in the peers, and no prompt occurs twice, so ours has nothing to reuse either; nor does it draft tokens.
A sample counts only when other processes used less than --foreign cores meanwhile. Peers live in virtual environments below
--work; what is missing is said with the commands that make it. Figures of one run compare; those of two runs may not.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import BARE, OURS, PEERS, SETTINGS, Job, models, report  # noqa: E402
from benchmarks.peers.machine import median, read_bandwidth  # noqa: E402

LOADS = ("mixed", "gaps", "adapters", "speculation")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", nargs="*", metavar="SETTING", help=f"measure peers too: all, or of {', '.join(PEERS)}")
    add("--ours", nargs="*", metavar="FORMAT", help="only these of float32, bfloat16, int8, int4; with nothing, none")
    add("--bare", action="store_true", help="also the back end alone, without the engine around it")
    add("--shape", default="gpt2", help="a preset of model.config with GPT-2's vocabulary, or tiny; random weights")
    add("--model", type=Path, help="a model directory to measure instead")
    add("--rounds", type=int, default=3)
    add("--repeats", type=int, default=2, help="repetitions of a figure in a round")
    add("--streams", type=int, nargs="+", default=[1, 8, 32])
    add("--new-tokens", type=int, default=64, help="tokens that each stream decodes")
    add("--threads", type=int, default=2)
    add("--device", choices=["cpu", "cuda"], default="cpu", help="of ours, transformers and ctranslate2")
    add("--backend", choices=["auto", "native", "torch"], default="auto", help="ours: what computes")
    add("--process", action="store_true", help="ours: the engine in a process of its own, as under the server")
    add("--parts", nargs="+", choices=["first", "prefill", "decode"], default=["first", "prefill", "decode"])
    add("--mixed", action="store_true", help="ours: mixed lengths at once, and pauses while a long prompt is read")
    add("--adapters", action="store_true", help="ours: several LoRA adapters in one batch")
    add("--speculation", action="store_true", help="ours: drafts from a prompt that repeats itself")
    add("--foreign", type=float, default=0.15, help="cores that others may use while a sample is taken")
    add("--timeout", type=float, default=900, help="seconds that one setting may take in a round")
    add("--work", type=Path, default=models.DEFAULT_WORK, help="where models and environments are kept")
    add("--environments", type=Path, help="virtual environments of the peers; by default WORK/environments")
    add("--prepare", action="store_true", help="make the models, and stop")
    add("--json", type=Path, help="write all figures there")
    return parser


def main() -> int:
    """Run the settings and print the tables; 1 when one of them failed."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a worker, in a group of its own, ends too
    options.environments = options.environments or options.work / "environments"
    names = chosen(options)
    job = prepared(options, names)
    if options.prepare:
        return 0
    samples, bandwidths = measure(options, names, job)
    results = summary(options, job, samples, bandwidths)
    print(results.pop("text"))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(any(reply is None for replies in samples.values() for reply in replies))


def chosen(options: argparse.Namespace) -> list[str]:
    """The settings' names; SystemExit for one that isn't there."""
    formats = [name.partition(":")[2] for name in OURS] if options.ours is None else options.ours
    names = [f"ours:{name}" for name in formats]
    names += [name.replace("ours", "bare") for name in names] if options.bare else []
    if options.peers is not None:
        names += options.peers or PEERS
    for name in names:
        if name not in SETTINGS:
            raise SystemExit(f"there is no setting {name}; there are: {', '.join([*OURS, *BARE, *SETTINGS])}")
    if not names:
        raise SystemExit("nothing to measure: name formats with --ours, or --peers")
    return list(dict.fromkeys(names))


def prepared(options: argparse.Namespace, names: list[str]) -> Job:
    """The job that all settings share, its models made. SystemExit says what is missing."""
    label = options.shape if options.model is None else f"model-{options.model.resolve().name}"
    directory = options.work.resolve() / "models" / label
    lacking = models.missing(options.environments.resolve(), directory, names)
    if lacking:
        raise SystemExit("Not everything is installed:\n" + "\n".join(lacking))
    models.write_source(directory, options.shape, options.model)
    if options.adapters:
        from benchmarks.peers.loads import ADAPTERS, RANK

        models.write_adapters(directory, ADAPTERS, RANK)
    config = model_config(directory)
    wanted = {
        "mixed": options.mixed,
        "gaps": options.mixed,
        "adapters": options.adapters,
        "speculation": options.speculation,
    }
    job = Job(
        setting=names[0], task="measure", models=str(directory), threads=options.threads, device=options.device,
        streams=tuple(options.streams), new_tokens=options.new_tokens, context=min(1024, config.context_length),
        vocab_size=config.vocab_size, repeats=options.repeats, foreign_limit=options.foreign, backend=options.backend,
        process=options.process, parts=(*options.parts, *(load for load in LOADS if wanted[load])),
    )  # fmt: skip
    problems = [models.write_artifact(replace(job, setting=name), options.environments.resolve()) for name in names]
    if any(problems):
        raise SystemExit("\n".join(filter(None, problems)))
    return job


def model_config(directory: Path) -> Any:
    """The measured model's configuration."""
    from model.architectures import read_config

    return read_config(directory / "hf")


def measure(options: argparse.Namespace, names: list[str], job: Job) -> tuple[report.Samples, list[float]]:
    """All rounds. What was measured before an interruption counts."""
    samples: report.Samples = {name: [] for name in names}
    bandwidths: list[float] = []
    try:
        for turn in range(options.rounds):
            bandwidths.append(read_bandwidth(options.threads))
            shift = turn * max(1, len(names) // max(2, options.rounds)) % len(names)
            for name in names[shift:] + names[:shift]:
                reply = run(replace(job, setting=name, seed=turn), options)
                samples[name].append(reply)
                print(f"round {turn + 1} of {options.rounds}, {name}: {brief(reply)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: the tables show what there is", file=sys.stderr)
    return samples, bandwidths


def brief(reply: dict[str, Any] | None) -> str:
    """A round's figures in a line."""
    if reply is None:
        return "failed"
    return ", ".join(
        f"{figure} {one['value']:.4g}" + (f" ({one['foreign']:.1f} cores busy)" if one["foreign"] > 0.1 else "")
        for figure, one in reply["figures"].items()
    )


def run(job: Job, options: argparse.Namespace) -> dict[str, Any] | None:
    """One setting's process, from its start to its reply; None, and the end of its log shown, when it fails."""
    python = models.python_of(options.environments.resolve(), job.of)
    command = [str(python), "-W", "ignore", "-m", "benchmarks.peers.worker"]
    command.append(replace(job, spawned=time.monotonic()).to_json())
    with tempfile.TemporaryFile("w+") as log:
        # A group of its own: what belongs to it is told apart from others' use of the machine, and ends with it.
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, process_group=0,
            env=models.environment(job.threads),
        )  # fmt: skip
        try:
            out, _ = worker.communicate(timeout=options.timeout)
        except subprocess.TimeoutExpired:
            out = ""
            print(f"{job.setting}: no reply within {options.timeout:.0f} s", file=sys.stderr)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        replies = [line for line in out.splitlines() if line.startswith('{"bench"')]
        if replies:
            return json.loads(replies[-1])["bench"]
        log.seek(0)
        print(f"{job.setting} failed ({worker.returncode}):\n{log.read().strip()[-2000:]}", file=sys.stderr)
    return None


def summary(options: argparse.Namespace, job: Job, samples: report.Samples, bandwidths: list[float]) -> dict[str, Any]:
    """Everything for the JSON file, and the tables as "text"."""
    config = model_config(Path(job.models))
    read, whole = weights(config)
    bandwidth, streams, limit = median(bandwidths), options.streams, options.foreign
    goals = report.compare(samples, streams, limit)
    positions = max(n * ((128 if n == 1 else 64) + 1 + options.new_tokens) for n in streams)
    per_token = 2 * config.n_layer * config.n_kv_head * config.head_dim
    parts = [
        f"{options.model or options.shape}: {whole / 1e6:.0f} M parameters, {options.threads} threads, {options.device}, "
        f"{processor()}; memory reads at {bandwidth / 1e9:.1f} GB/s "
        f"({min(bandwidths) / 1e9:.1f}-{max(bandwidths) / 1e9:.1f})",
        report.engine_table(samples, streams, limit, bandwidth, read),
        report.memory_table(samples, whole, per_token, positions, max(streams) * job.context),
        report.load_table(samples, limit),
        report.goal_table(goals) if goals else "",
        *reuse(samples),
    ]
    facts = {name: next((r["about"] for r in rounds if r is not None), None) for name, rounds in samples.items()}
    return {
        "text": "\n\n".join(part for part in parts if part), "job": asdict(job), "processor": processor(), "about": facts,
        "bandwidth": bandwidths, "goals": goals, "agreement": report.agreement(samples), "samples": samples,
    }  # fmt: skip


def weights(config: Any) -> tuple[int, int]:
    """Parameters that one decoded token reads (of embeddings only the tied head), and all of them."""
    from model.checkpoint import empty_model

    model = empty_model(config)
    shapes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    whole = sum(shapes.values())
    tables = [count for name, count in shapes.items() if "embedding" in name]
    head = config.vocab_size * config.d_model
    return whole - sum(tables) + (head if config.tie_embeddings else 0), whole


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} processors"


def reuse(samples: report.Samples) -> list[str]:
    """A warning when ours got prompt tokens for nothing."""
    cached = {
        name: max(r["about"].get("cached_tokens") or 0 for r in rounds if r is not None)
        for name, rounds in samples.items()
        if any(rounds)
    }
    return [f"CAUTION: {name} reused {count} prompt tokens" for name, count in cached.items() if count]


if __name__ == "__main__":
    sys.exit(main())
