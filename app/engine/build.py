"""A specification -> an engine that is ready to step: back end, scheduler, adapters, and what it says of itself."""

from collections.abc import Callable
from pathlib import Path

import torch

from app.engine.compiling import Compiler
from app.engine.core import EngineCore
from app.engine.costs import StepCosts
from app.engine.grammar import GrammarCompiler
from app.engine.messages import EngineSpec, Loaded
from app.engine.scheduler import Scheduler
from model.backend import Backend, BackendSpec, load_backend
from model.processors import available_cpus
from model.tokenizer import Tokenizer


def build_core(spec: EngineSpec, wake: Callable[[], None] = lambda: None) -> tuple[EngineCore, Loaded]:
    """Load all that `spec` names. `wake` as for EngineCore. Raises HomegrownError with one line for a person."""
    backend = load_backend(
        BackendSpec(
            model=Path(spec.model),
            dtype=spec.dtype,
            quantize=spec.quantize,
            device=spec.device,
            threads=spec.threads or available_cpus(),
            spare=1 if spec.threads is None else 0,
            max_slots=spec.max_slots,
            context=spec.context,
            backend=spec.backend,
        )
    )
    if backend.kernels != "torch":
        # PyTorch's own threads would fight the kernels' for the cores, over the little that it still does here.
        torch.set_num_threads(1)
    core = make_core(backend, spec, wake)
    for name, path in spec.adapters.items():
        core.adapters.load_now(name, path)
    return core, describe(backend, core, deterministic=spec.deterministic)


def make_core(backend: Backend, spec: EngineSpec, wake: Callable[[], None] = lambda: None) -> EngineCore:
    """An engine around a loaded back end."""
    eos_ids = frozenset(backend.config.eos_token_ids)

    def compiler() -> GrammarCompiler:
        return GrammarCompiler(Tokenizer.from_directory(Path(spec.model)), backend.config.vocab_size, eos_ids)

    return EngineCore(
        backend,
        Scheduler(
            backend.n_slots,
            StepCosts(spec.prefill_chunk),
            backend.copy_slot,
            fixed_chunks=spec.deterministic and not backend.invariant,
        ),
        eos_ids,
        deterministic=spec.deterministic,
        speculate=spec.speculate,
        compiler=Compiler(compiler),
        wake=wake,
    )


def describe(backend: Backend, core: EngineCore, *, deterministic: bool) -> Loaded:
    """What the engine says of itself; `seconds` is the caller's to set."""
    return Loaded(
        slots=backend.n_slots,
        context=backend.context,
        vocab_size=backend.config.vocab_size,
        dtype=backend.dtype,
        device=backend.device,
        threads=backend.threads,
        torch_version=str(torch.__version__),
        seconds=0.0,
        quantize=backend.quantize,
        kernels=backend.kernels,
        invariant=backend.invariant or deterministic,
        labels=list(backend.config.labels),
        adapters=core.adapters.labels,
    )
