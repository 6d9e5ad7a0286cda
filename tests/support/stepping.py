"""An engine's core over the fake back end, stepped by hand under a clock of its own."""

import itertools
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from fake_backend import END, FakeBackend

from app.engine.core import EngineCore
from app.engine.costs import StepCosts
from app.engine.messages import Cancel, LoadAdapter, Submit
from app.engine.scheduler import Scheduler
from model.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@dataclass
class Answer:
    tokens: list = field(default_factory=list)
    scored: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    started: object = None
    last: object = None
    steps: int = 0


class _Timed:
    """A back end whose forwards take time on the test's clock."""

    def __init__(self, backend, tick):
        self._backend, self._tick = backend, tick

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def forward(self, segments):
        self._tick(segments)
        return self._backend.forward(segments)


class Engine:
    """A core over a back end, the fake one unless another is given, and what it has said of each request."""

    def __init__(
        self, n_slots=4, chunk=64, *, deterministic=False, compiler=None, speculate=True, backend=None, **fake
    ):
        self.clock = Clock()
        self.backend = _Timed(backend, self._tick)
        if backend is None:
            self.backend = FakeBackend(n_slots, **fake)
            self.backend.before = self._tick
        n_slots = self.backend.n_slots
        costs = StepCosts(chunk)
        fixed = deterministic and not self.backend.invariant
        scheduler = Scheduler(n_slots, costs, self.backend.copy_slot, fixed_chunks=fixed, clock=self.clock)
        self.core = EngineCore(
            self.backend,
            scheduler,
            frozenset(self.backend.config.eos_token_ids),
            deterministic=deterministic,
            compiler=compiler,
            speculate=speculate,
        )
        self.answers = {}
        self.replies = []
        self.ids = itertools.count()

    def _tick(self, segments):
        self.clock.now += 0.001 + 0.0001 * sum(len(segment.tokens) for segment in segments)

    def submit(self, prompt, max_tokens=4, params=GREEDY, **fields):
        number = next(self.ids)
        self.answers[number] = Answer()
        self.core.handle(Submit(number, list(prompt), max_tokens, params, params.seed or 0, **fields))
        return number

    def cancel(self, number):
        self.core.handle(Cancel(number))

    def step(self, n=1):
        for _ in range(n):
            step = self.core.step()
            self.clock.now += 1e-4
            for update in step.updates:
                answer = self.answers[update.id]
                assert answer.last is None, "an update after the last one"
                answer.tokens += update.tokens
                answer.scored += update.prompt_logprobs or []
                answer.logprobs += update.logprobs or []
                answer.started = update.started or answer.started
                answer.steps += 1
                if update.finish or update.error:
                    answer.last = update
            self.replies += self.core.replies()
        return self

    def run(self, limit=5000):
        """Step until nothing is left to do."""
        for _ in range(limit):
            if not self.core.busy:
                self.core.check_integrity()
                return self
            self.step()
        raise AssertionError("the engine doesn't come to an end")

    def load(self, name, n_pairs, **weights):
        """An adapter, as if it had been read from disk."""
        read = Future()
        self.core.handle(LoadAdapter(name, "nowhere"))
        adapter = self.core.adapters._named[name]
        adapter.reading = read
        read.set_result(SimpleNamespace(pairs=[None] * n_pairs, **{"labels": (), "score": None, **weights}))
        return self.step()


def prompt_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, END, n).tolist()
