import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.inputs import encode_text, run_in_turn
from app.engine.messages import QueueFull, RequestTimeout
from model.classifier import encode_text as trained_encode_text
from model.tokenizer import Tokenizer


class Engine:
    """Counts what runs; refuses what it has no room for."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.running, self.most, self.refused = room, 0, 0, 0
        self.begun: list[int] = []

    async def ask(self, i: int, seconds: float = 0.0, error: Exception | None = None) -> int:
        if self.running >= self.room:
            self.refused += 1
            raise QueueFull("full")
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append(i)
        try:
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
            return i * i
        finally:
            self.running -= 1


@given(n=st.integers(1, 30), width=st.integers(1, 8))
def test_results_come_in_order_and_no_more_run_than_may(n, width):
    engine = Engine()
    jobs = [partial(engine.ask, i, seconds=0.001 * (i % 3)) for i in range(n)]
    assert asyncio.run(run_in_turn(jobs, width, 60)) == [i * i for i in range(n)]
    assert engine.most <= width
    assert sorted(engine.begun) == list(range(n))


def test_a_full_queue_refuses_the_first_but_not_what_follows():
    engine = Engine(room=2)
    jobs = [partial(engine.ask, i, seconds=0.002) for i in range(12)]
    assert asyncio.run(run_in_turn(jobs, 4, 60)) == [i * i for i in range(12)]
    assert engine.refused > 0
    engine.room = 0
    with pytest.raises(QueueFull):
        asyncio.run(run_in_turn(jobs, 4, 60))


@pytest.mark.parametrize("at", [0, 3, 11])
def test_the_first_failure_ends_them_all(at):
    engine = Engine()
    error = ValueError("this one")
    jobs = [partial(engine.ask, i, 0.002, error if i == at else None) for i in range(12)]
    with pytest.raises(ValueError, match="this one"):
        asyncio.run(run_in_turn(jobs, 2, 60))
    assert engine.running == 0
    assert len(engine.begun) <= at + 3


def test_the_limit_is_for_all_together():
    engine = Engine()
    with pytest.raises(RequestTimeout, match="fewer inputs"):
        asyncio.run(run_in_turn([partial(engine.ask, i, 0.05) for i in range(50)], 2, 0.2))
    assert engine.running == 0
    assert len(engine.begun) < 50


@pytest.fixture(scope="module", params=[False, True])
def tokenizer(request):
    tokenizer = Tokenizer.gpt2()
    tokenizer.add_bos = request.param
    return tokenizer


@given(text=st.text(min_size=1, max_size=40))
def test_texts_are_encoded_as_in_training(tokenizer, text):
    assert encode_text(tokenizer, text) == trained_encode_text(tokenizer, text)
