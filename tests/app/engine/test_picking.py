"""Picking a whole step against drawing token by token with the sorted sampler, which defines the right answer."""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.engine import picking
from app.engine.grammar import Constraint, GrammarCompiler
from app.engine.messages import Grammar, GrammarError
from app.engine.picking import Ask, Picked, pick, score
from model.native import rows as native
from model.sampling import BANNED, SamplingRow, adjust, logprobs, sample_sorted
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer

VOCAB, EOS = 50257, 50256
GRAMMARS = [
    Grammar("regex", "[ab ]{1,6}"),
    Grammar("choice", '["yes", "yes sir", "no"]'),
    Grammar("json_object", ""),
    Grammar("json_schema", '{"type":"object","properties":{"x":{"enum":["a","b"]}},"required":["x"],"additionalProperties":false}'),
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["kernels", "numpy", "batched"], autouse=True)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways through picking: native kernels, numpy where there are none, and what a GPU does (here on a CPU)."""
    if request.param == "kernels" and native._kernels() is None:
        pytest.skip("no kernels were built here")
    if request.param != "kernels":
        monkeypatch.setattr(native, "_kernels", lambda: None)
    if request.param == "batched":
        monkeypatch.setattr(picking, "_on_cpu", lambda _: False)
    return request.param


@cache
def compiler() -> GrammarCompiler:
    return GrammarCompiler(Tokenizer.gpt2(), VOCAB, frozenset({EOS}))


def constraint(grammar: Grammar | None) -> Constraint | None:
    return None if grammar is None else compiler().submit(grammar).result()


def one_by_one(logits: Tensor, row: SamplingRow, limits: Constraint | None) -> tuple[list[int], bool]:
    """The definition: row i of logits gives token i, until the end; and whether there the bans left nothing to draw."""
    row = SamplingRow(row.params, row.seed, row.prompt, list(row.output), row.end_ids)
    tokens: list[int] = []
    for i in range(len(logits)):
        table = logits[i : i + 1].clone()
        if limits is not None:
            try:
                limits.allow(table[0], row.end_ids)
            except GrammarError:
                return tokens, True
            if adjust(table, [row]).max() == BANNED:
                return tokens, True
        token = int(sample_sorted(table, [row]))
        tokens.append(token)
        if token in row.end_ids:
            break
        row.append(token)
        if limits is not None:
            assert limits.accept(token)
            if limits.finished:
                break
    return tokens, False


def allowed(limits: Constraint, ends: frozenset[int]) -> list[int] | None:
    """What may come next; None where nothing may."""
    row = torch.zeros(VOCAB)
    try:
        limits.allow(row, ends)
    except GrammarError:
        return None
    return (row == 0).nonzero()[:, 0].tolist()


@st.composite
def params(draw) -> SamplingParams:
    maybe = lambda off, some: draw(st.one_of(st.just(off), some))  # noqa: E731
    return SamplingParams(
        temperature=maybe(0.0, st.sampled_from([0.3, 1.0, 2.0])),
        top_p=maybe(1.0, st.floats(0.05, 1)),
        top_k=maybe(0, st.sampled_from([1, 3, 50, VOCAB])),
        min_p=maybe(0.0, st.floats(0, 1)),
        presence_penalty=maybe(0.0, st.floats(-2, 2)),
        frequency_penalty=maybe(0.0, st.floats(-2, 2)),
        repetition_penalty=maybe(1.0, st.floats(0.5, 2)),
        logit_bias=maybe({}, st.dictionaries(st.integers(0, VOCAB + 10), st.floats(-100, 100), max_size=3)),
        min_tokens=maybe(0, st.integers(1, 6)),
        stop_token_ids=maybe((), st.tuples(st.integers(0, 300))),
        ignore_eos=draw(st.booleans()),
    )


@st.composite
def cases(draw) -> tuple[SamplingParams, int, int, list[int], list[int], Grammar | None]:
    words = st.lists(st.integers(0, 300), max_size=6)
    grammar = draw(st.one_of(st.none(), st.sampled_from(GRAMMARS)))
    return draw(params()), draw(st.integers(0, 2**60)), draw(st.integers(0, 4)), draw(words), draw(words), grammar


def logits_of(seed: int, rows: int, spread: str) -> Tensor:
    values = torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))
    values[:, :300] += 4
    values[:, EOS] += 6
    return (values * 4).round() / 4 if spread == "ties" else values * (0.01 if spread == "flat" else 2.5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(cases(), min_size=1, max_size=5), st.integers(0, 99), st.sampled_from(["ties", "flat", "wide"]))
def test_a_step_gives_the_tokens_drawn_one_by_one(asked: list, seed: int, spread: str) -> None:
    parts, asks, expected = [], [], []
    for i, (p, row_seed, n_drafts, prompt, output, grammar) in enumerate(asked):
        ends = frozenset(p.stop_token_ids) | (frozenset() if p.ignore_eos else {EOS})
        row = SamplingRow(p, row_seed, prompt, output, ends)
        table = logits_of(seed + i, 1 + n_drafts, spread)
        alone = constraint(grammar)
        right, stuck = one_by_one(table, row, alone)
        # Right guesses up to a wrong one at a place that varies; the rows behind it must not matter.
        drafts = [right[j] if j < len(right) and j != row_seed % 6 else 1 for j in range(n_drafts)]
        wrong = next((j for j in range(n_drafts) if j >= len(right) or drafts[j] != right[j]), n_drafts)
        expected.append(None if stuck and wrong >= len(right) else right[: wrong + 1])
        parts.append(table)
        asks.append(Ask(row, drafts, None, constraint(grammar)))
    logits = torch.cat(parts)
    before, outputs = logits.clone(), [list(ask.row.output) for ask in asks]
    picked = pick(logits, asks)
    assert torch.equal(logits, before)
    assert [ask.row.output for ask in asks] == outputs
    for result, right, ask, case in zip(picked, expected, asks, asked, strict=True):
        if right is None:
            assert isinstance(result, GrammarError)
            continue
        assert isinstance(result, Picked), result
        assert result.tokens == right
        if ask.constraint is not None:  # it stands behind the tokens of the answer
            fresh = constraint(case[-1])
            assert fresh is not None
            assert all(fresh.accept(token) for token in right if token not in ask.row.end_ids)
            assert allowed(ask.constraint, ask.row.end_ids) == allowed(fresh, ask.row.end_ids)


def plain(**changes) -> SamplingRow:
    return SamplingRow(SamplingParams(**{"temperature": 0.0, **changes}), 7, [1, 2], [], frozenset({0}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_fails_alone(bad: float, temperature: float) -> None:
    logits = torch.randn(4, 100)
    logits[1, 40] = bad
    logits[3, 5] = bad  # behind a wrong draft: it never counts
    first = 7
    logits[2, first] = 9.0
    rows = [plain(), plain(temperature=temperature, top_p=0.5), plain()]
    picked = pick(logits, [Ask(rows[0]), Ask(rows[1]), Ask(rows[2], [first + 1])])
    assert isinstance(picked[1], FloatingPointError)
    assert picked[0] == Picked([int(logits[0].argmax())])
    assert picked[2] == Picked([first])
    right = pick(logits, [Ask(rows[0]), Ask(rows[1]), Ask(rows[2], [first])])
    assert isinstance(right[2], FloatingPointError)


class Faulty:
    """A constraint that breaks where it is told to."""

    finished = False

    def __init__(self, at: str) -> None:
        self.at = at

    def allow(self, row: Tensor, ends: frozenset[int]) -> None:
        if self.at == "allow":
            raise RuntimeError("injected")
        row[:50] = float("-inf")

    def accept(self, token: int) -> bool:
        if self.at == "accept":
            raise RuntimeError("injected")
        return self.at != "refuse"


@pytest.mark.parametrize(("at", "kind"), [
    ("allow", RuntimeError), ("accept", RuntimeError), ("refuse", GrammarError), ("", None),
])  # fmt: skip
def test_a_faulty_grammar_fails_its_own_row(at: str, kind: type | None) -> None:
    logits = torch.randn(3, 100)
    asks = [Ask(plain()), Ask(plain(), constraint=Faulty(at)), Ask(plain(temperature=1.0))]  # type: ignore[arg-type]
    picked = pick(logits, asks)
    assert picked[0] == Picked([int(logits[0].argmax())])
    assert picked[2] == Picked(sample_sorted(logits[2:], [asks[2].row]).tolist())
    if kind is None:
        assert picked[1] == Picked([50 + int(logits[1, 50:].argmax())])
    else:
        assert isinstance(picked[1], kind)
    assert all(ask.row.output == [] for ask in asks)


def test_a_grammar_whose_every_token_is_banned_says_so() -> None:
    # "a" is complete after one token; what may follow is another "a", which is a stop id, or the end: both wait for min_tokens.
    a = Tokenizer.gpt2().encode("a")[0]
    limits = constraint(Grammar("regex", "a{1,2}"))
    assert limits is not None
    assert limits.accept(a)
    row = SamplingRow(SamplingParams(min_tokens=9, stop_token_ids=(a,)), 0, [], [a], frozenset({a, EOS}))
    two = Tokenizer.gpt2().encode("aa")
    assert len(two) == 1
    [picked] = pick(torch.zeros(1, VOCAB), [Ask(row, constraint=limits)])
    assert isinstance(picked, GrammarError)
    assert "min_tokens" in str(picked)


def test_an_end_token_ends_a_draft() -> None:
    logits = torch.zeros(3, 10)
    logits[0, 4] = logits[1, 0] = logits[2, 5] = 1  # 0 is an end id
    assert pick(logits, [Ask(plain(), [4, 0])]) == [Picked([4, 0])]


def test_many_equal_tokens_go_by_id() -> None:
    """Of equals the lower id is likelier: with u = 0 the first of them, near 1 the last."""
    logits = torch.tensor([[0.0, 3.0, 3.0, -1.0, 3.0]])
    rows = [SamplingRow(SamplingParams(top_k=k), seed, []) for seed in range(200) for k in (1, 2, 3, 0)]
    table = logits.repeat(len(rows), 1)
    picked = [result.tokens[0] for result in pick(table, [Ask(row) for row in rows]) if isinstance(result, Picked)]
    assert picked == sample_sorted(table, rows).tolist()
    assert set(picked[::4]) == {1}
    assert set(picked[1::4]) == {1, 2}
    assert set(picked[2::4]) == {1, 2, 4}


def test_log_probabilities_are_the_models_own_and_one_per_token() -> None:
    logits = torch.randn(3, 200)
    row = plain(logit_bias={3: 100.0}, repetition_penalty=1.5)
    picked = pick(logits, [Ask(row, [3, 3], tops=4)])[0]
    assert isinstance(picked, Picked)
    assert picked.tokens == [3, 3, 3]
    own, ids, values = logprobs(logits, torch.tensor([3, 3, 3]), 4)
    assert picked.logprobs is not None
    for i, report in enumerate(picked.logprobs):
        assert report.logprob == pytest.approx(float(own[i]), abs=1e-5)
        assert report.top_ids == ids[i].tolist()
        assert report.top_logprobs == pytest.approx(values[i].tolist(), abs=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.integers(0, 30), st.integers(0, 99))
def test_scores_of_given_tokens(rows: int, top: int, seed: int) -> None:
    logits = torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed)) * 5
    tokens = [(7 * i + seed) % 20 for i in range(rows)]
    own, ids, values = logprobs(logits, torch.tensor(tokens), min(top, 20))
    reports = score(logits, tokens, top)
    assert [report.logprob for report in reports] == pytest.approx(own.tolist(), abs=1e-4)
    assert [report.top_ids for report in reports] == ids.tolist()
    for report, right in zip(reports, values.tolist(), strict=True):
        assert report.top_logprobs == pytest.approx(right, abs=1e-4)


def test_scores_of_broken_logits_are_refused() -> None:
    with pytest.raises(FloatingPointError):
        score(torch.tensor([[0.0, float("nan")]]), [0], 1)
