"""A request on the engine's side: what it asked, where it stands, and what one step does for it."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from app.engine.adapters import Adapter
from app.engine.grammar import Constraint
from app.engine.messages import Started, Submit
from app.engine.picking import Ask, Picked
from app.engine.pooling import Mean
from app.engine.slots import Slot
from app.engine.speculation import Drafter
from model.backend import Segment
from model.sampling import SamplingRow


@dataclass(eq=False, slots=True)
class Request:
    """From the queue to its end. It waits (for a slot, and before that for its grammar or adapter), may follow another whose
    prompt begins alike, prefills, and decodes if it generates."""

    submit: Submit
    row: SamplingRow
    arrived: float
    ask: Ask
    order: int = 0  # of admission
    admitted: float = 0.0
    pending: list[Future[Any]] = field(default_factory=list)  # to be done before it can have a slot
    compiled: Future[Constraint] | None = None  # one of these: its grammar
    adapter: Adapter | None = None
    drafter: Drafter | None = None
    mean: Mean | None = None  # embed: of the hidden states so far
    slot: Slot | None = None  # None: waiting
    cached: int = 0  # prompt tokens that its slot had already
    first_at: float = 0.0  # when the prompt's last chunk was done, on the engine's clock
    decoding: bool = False  # the whole prompt is in the slot: each step adds a token
    leader: "Request | None" = None  # whose prefill it waits for ...
    needed: int = 0  # ... until so many tokens are there
    followers: "list[Request]" = field(default_factory=list)

    @property
    def prompt(self) -> list[int]:
        """The prompt's token ids."""
        return self.submit.prompt

    @property
    def number(self) -> int:
        """The back end's number of its adapter; 0 for the base model."""
        return 0 if self.adapter is None else self.adapter.number

    @property
    def prefilled(self) -> int:
        """Prompt tokens in the slot, until the first token is out."""
        return 0 if self.slot is None else len(self.slot.tokens)

    @property
    def first_output(self) -> int:
        """The first position of the prompt whose hidden state is wanted: all before it may come from a slot."""
        submit = self.submit
        if submit.task == "embed":
            return 0
        last = len(submit.prompt) - 1
        return last if submit.prompt_logprobs is None else min(max(submit.score_from, 1) - 1, last)

    def started(self, now: float) -> Started:
        """The times until the first result, which is there now."""
        self.first_at = now
        return Started(self.admitted - self.arrived, now - self.admitted, self.cached)


@dataclass(frozen=True, slots=True)
class Work:
    """What one step does for one request: a chunk of its prompt, or its newest token and the ones drafted behind it."""

    request: Request
    segment: Segment
    prefill: bool
    last: bool  # its last hidden state gives a token, or the result

    @classmethod
    def chunk(cls, request: Request, start: int, end: int) -> "Work":
        """Positions [start, end) of the prompt."""
        assert request.slot is not None
        outputs = max(end - max(start, request.first_output), 0)
        segment = Segment(request.slot.index, start, request.prompt[start:end], outputs, request.number)
        return cls(request, segment, True, end == len(request.prompt))

    @classmethod
    def decode(cls, request: Request, drafts: Sequence[int]) -> "Work":
        """The newest token is not in its slot yet: it goes behind the prompt and the tokens before it."""
        assert request.slot is not None
        request.ask.drafts = drafts
        tokens = [request.row.output[-1], *drafts]
        segment = Segment(request.slot.index, len(request.slot.tokens), tokens, len(tokens), request.number)
        return cls(request, segment, False, True)

    @property
    def picks(self) -> bool:
        """Whether its last rows of logits give tokens."""
        return self.last and self.request.submit.task == "generate" and self.request.submit.max_tokens > 0


@dataclass(slots=True)
class Outcome:
    """What a step computed for a piece of work: rows [begin, end) of `hidden`, and what was picked from their logits."""

    begin: int
    end: int
    hidden: Tensor  # [all rows of the step, D] float32
    picked: Picked | Exception | None = None

    @property
    def rows(self) -> Tensor:
        """This work's hidden states, [outputs, D]."""
        return self.hidden[self.begin : self.end]
