"""Training speed and memory, side by side: our loop, a plain eager float32 loop of the same model, transformers' Trainer.

    python benchmarks/train.py                        # 13.9 M parameters, 16 rows of 256 tokens
    python benchmarks/train.py --shape homegrown-4m   # the bundled model's shape
    python benchmarks/train.py --shape gpt2 --rows 8  # on a GPU: the 124M shape

Each case is a process of its own, so that its peak memory is its own. They take turns, a few updates each, until every case had
its rounds; what is shown is the median of the rounds. Same shape, random tokens, AdamW, one update per batch, no evaluation.
Figures of one run compare; those of two runs may not.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CASES = {
    "eager-float32": "plain PyTorch loop: float32, cross-entropy over all logits, AdamW",
    "trainer": "transformers Trainer: bf16, fused AdamW",
    "trainer-compiled": "transformers Trainer: bf16, fused AdamW, torch_compile",
    "ours": "train_step: bf16, not compiled",
    "ours-compiled": "train_step: bf16, compiled",
    "ours-masked": "train_step: bf16, compiled, documents that don't see each other",
    "ours-muon": "train_step: bf16, compiled, Muon for the matrices",
}


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", default="small", help="small (GPT-2 with 6 layers x 384), or one of model.config.PRESETS"
    )
    parser.add_argument("--rows", type=int, default=16, help="rows of a batch")
    parser.add_argument(
        "--micro-batch", type=int, default=8, help="rows that train_step computes at a time; the others: all"
    )
    parser.add_argument("--context", type=int, default=None, help="tokens of a row; by default the preset's context")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="updates of a case in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    parser.add_argument("--worker", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    results = measure(options)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start a process for each case, give them turns, collect their rates and peaks."""
    workers: dict[str, subprocess.Popen[str]] = {}
    begun = dict.fromkeys(options.cases, 0.0)
    for case in options.cases:  # one after the other: setting up is work too
        start = time.monotonic()
        command = [sys.executable, __file__, "--worker", case, "--shape", options.shape, "--rows", str(options.rows)]
        command += ["--threads", str(options.threads), "--steps", str(options.steps)]
        command += ["--micro-batch", str(options.micro_batch)]
        command += ["--context", str(options.context)] if options.context else []
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(ROOT)}
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        workers[case] = worker
        reply(worker)
        begun[case] = time.monotonic() - start
        print(f"{case}: ready after {begun[case]:.0f} s", file=sys.stderr)
    seconds: dict[str, list[float]] = {case: [] for case in options.cases}
    for turn in range(options.rounds):
        for case, worker in workers.items():
            seconds[case].append(ask(worker, "go")["seconds"])
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    figures = {}
    for case, worker in workers.items():
        last = ask(worker, "end")
        rates = [last["tokens"] / s for s in seconds[case]]
        figures[case] = {
            **last, "tokens_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates),
            "start_seconds": begun[case],
        }  # fmt: skip
        worker.wait()
    return {
        "shape": options.shape,
        "rows": options.rows,
        "micro_batch": options.micro_batch,
        "threads": options.threads,
        "cases": figures,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """What it was measured on, and the peak that the rates are compared with."""
    sys.path.insert(0, str(ROOT))
    import torch

    from training.devices import describe_device, peak_flops

    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = peak_flops(device)
    return {
        "device": describe_device(device),
        "torch": torch.__version__,
        "peak": peak.flops,
        "peak_source": peak.source,
    }


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    base = results["cases"].get("eager-float32", {}).get("tokens_per_second")
    peers = [case["tokens_per_second"] for name, case in results["cases"].items() if name.startswith("trainer")]
    lines = [
        f"{results['shape']}, {results['rows']} rows (train_step: {results['micro_batch']} at a time), "
        f"{results['device']}, PyTorch {results['torch']}; peak "
        f"{results['peak'] / 1e9:.0f} GFLOP/s ({results['peak_source']})\n",
        "| case | tokens/s (median, range) | x eager float32 | x best Trainer | of the peak | peak memory, MB | start, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in results["cases"].items():
        rate = case["tokens_per_second"]
        lines.append(
            f"| {CASES[name]} | {rate:,.0f} ({case['lowest']:,.0f}-{case['highest']:,.0f}) "
            f"| {f'{rate / base:.2f}' if base else ''} | {f'{rate / max(peers):.2f}' if peers else ''} "
            f"| {rate * case['flops_per_token'] / results['peak']:.0%} | {case['peak_mb']:,.0f} | {case['start_seconds']:.0f} |"
        )
    return "\n".join(lines)


def ask(worker: subprocess.Popen[str], word: str) -> dict[str, Any]:
    """Send a word, wait for the reply."""
    assert worker.stdin is not None
    worker.stdin.write(word + "\n")
    worker.stdin.flush()
    return reply(worker)


def reply(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """The worker's next line of JSON; whatever libraries print in between is passed over."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith('{"bench"'):
            return json.loads(line)["bench"]
    raise SystemExit(f"a case ended too early with exit code {worker.wait()}")


def answer(values: dict[str, Any]) -> None:
    """A worker's reply."""
    print(json.dumps({"bench": values}), flush=True)


class Turns:
    """A worker's side: says that it is ready, then lets `steps` updates pass for each "go"."""

    def __init__(self, steps: int, final: Callable[[], dict[str, Any]]) -> None:
        self.steps, self.final, self._left, self._begun = steps, final, 0, 0.0

    def next(self) -> bool:
        """Before each update: whether there is to be one."""
        if self._left:
            self._left -= 1
            return True
        answer({"seconds": time.perf_counter() - self._begun} if self._begun else {"ready": True})
        if sys.stdin.readline().strip() != "go":
            answer(self.final())
            return False
        self._left, self._begun = self.steps - 1, time.perf_counter()
        return True


def work(options: argparse.Namespace) -> None:
    """One case, in its process."""
    import torch

    from model.checkpoint import empty_model
    from model.config import gpt2_config, preset
    from model.gpt import GPT
    from training.costs import training_flops

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    small = gpt2_config(6, 6, 384, vocab_size=8192, context_length=256, bos_token_id=0, eos_token_ids=(0,))
    config = small if options.shape == "small" else preset(options.shape)
    context = options.context or config.context_length
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blocks = [torch.randint(0, config.vocab_size, (options.rows, context + 1)) for _ in range(4)]
    flops = training_flops(empty_model(config).requires_grad_(True), context)

    def final() -> dict[str, Any]:
        peak = (
            torch.cuda.max_memory_allocated()
            if device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        return {"tokens": options.rows * context * options.steps, "flops_per_token": flops, "peak_mb": peak / 2**20}

    turns = Turns(options.steps, final)
    if options.worker.startswith("trainer"):
        with tempfile.TemporaryDirectory() as directory:
            trainer(config, blocks, turns, Path(directory), compiled=options.worker.endswith("compiled"))
        return
    model = GPT(config).to(device).train()
    update = (
        eager(model, blocks, device)
        if options.worker == "eager-float32"
        else ours(model, blocks, device, options.worker, options.micro_batch)
    )
    for i in range(3):  # compiling, and the allocator's first growth
        update(i)
    count = 0
    while turns.next():
        update(count)
        if device.type == "cuda":
            torch.cuda.synchronize()
        count += 1


def eager(model: Any, blocks: list[Any], device: Any) -> Callable[[int], None]:
    """The loop as a tutorial writes it."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def update(i: int) -> None:
        block = blocks[i % len(blocks)].to(device)
        loss = F.cross_entropy(model(block[:, :-1]).flatten(0, 1), block[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return update


def ours(model: Any, blocks: list[Any], device: Any, case: str, micro_batch: int) -> Callable[[int], None]:
    """training.loop.train_step, as a run calls it."""
    from training.data.batch import TokenBatch
    from training.distributed import World
    from training.fit import keep_freed_memory
    from training.loop import StepSettings, train_step
    from training.objectives import LanguageModelLoss
    from training.optim import make_optimizers
    from training.state import TrainState

    keep_freed_memory()  # as a run does
    objective = LanguageModelLoss(model, bf16=True)
    if case != "ours":
        objective.compile()
    name = "muon" if case == "ours-muon" else "adamw"
    optimizers = make_optimizers(model, name, lr=1e-4, matrix_lr=1e-3, weight_decay=0.0, beta2=0.95)
    state, world = TrainState(model, optimizers), World(0, 1, device)

    def update(i: int) -> None:
        block = blocks[i % len(blocks)]
        tokens = block[:, :-1].contiguous()
        documents = (tokens < tokens.max() // 256).cumsum(1) if case == "ours-masked" else None
        batch = TokenBatch(tokens, block[:, 1:].contiguous(), documents)
        train_step(state, batch, objective, StepSettings(micro_batch, 1.0), 1.0, world)

    return update


def trainer(config: Any, blocks: list[Any], turns: Turns, directory: Path, *, compiled: bool) -> None:
    """The same shape in transformers, trained by its Trainer at its fastest settings for this machine."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from model.architectures import config_to_hf

    (directory / "config.json").write_text(json.dumps(config_to_hf(config)))
    theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), attn_implementation="sdpa")
    rows = [{"input_ids": row[:-1], "labels": row[:-1]} for block in blocks for row in block]

    class Gate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step >= 3 and not turns.next():
                control.should_training_stop = True

    arguments = TrainingArguments(
        output_dir=str(directory / "out"), per_device_train_batch_size=len(blocks[0]), max_steps=10**6, bf16=True,
        use_cpu=not torch.cuda.is_available(), torch_compile=compiled, optim="adamw_torch_fused", max_grad_norm=1.0,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(model=theirs, args=arguments, train_dataset=rows, callbacks=[Gate()]).train()


if __name__ == "__main__":
    main()
