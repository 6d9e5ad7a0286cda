"""Several streams as one: whichever way they end, nothing is left running, and nothing is logged as lost."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from app.api.choices import Choices
from app.engine.messages import RequestCancelled, RequestFault
from app.engine.output import OutputProcessor
from app.engine.stream import GenerationStream
from app.schemas.common import SamplingFields
from app.service import Service, Target
from model.sampling_params import SamplingParams
from model.tokenizer import Tokenizer


@pytest.mark.parametrize("end", ["left", "failed", "abandoned"])
def test_no_error_of_a_choice_is_lost(model_dir, end):
    tokenizer, lost = Tokenizer.from_directory(model_dir), []

    async def read(choices: Choices) -> None:
        async for _ in choices:
            pass

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        outputs = [OutputProcessor(tokenizer, [], min_tokens=0, prompt_tokens=1) for _ in range(4)]
        streams = [GenerationStream(output, lambda _: None) for output in outputs]
        choices = Choices(streams)
        reader = asyncio.create_task(read(choices))
        await asyncio.sleep(0.01)
        if end == "failed":
            for stream in streams:
                stream.fail(RequestFault("the engine is gone"))
        elif end == "abandoned":
            reader.cancel()
            await asyncio.wait([reader])
        choices.cancel()
        expected = {"left": RequestCancelled, "failed": RequestFault, "abandoned": asyncio.CancelledError}[end]
        with pytest.raises(expected):
            await reader
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    gc.collect()
    assert not lost


@pytest.mark.parametrize("seed", [None, 0, -(2**63), 2**63 - 1])
def test_the_parameters_of_answers_are_made_and_checked_once(seed):
    """They may have a bias for every token there is, and a request may want many answers to many prompts."""
    handed_in = []

    class Engine:
        info = limits = SimpleNamespace(slots=4, max_queue=4)

        def check_available(self) -> None: ...

        def generate(self, _prompt: list[int], params: SamplingParams, _tokens: int, **_: object) -> None:
            handed_in.append(params)

    service: Any = SimpleNamespace(engine=Engine(), room=lambda *_: 1)
    fields = SamplingFields.model_validate({"seed": seed, "logit_bias": {"5": 1.0}})
    Service.begin(service, [[1], [2]], fields, target=Target("tiny"), max_tokens=1, default_tokens=None, n=3)
    assert len(handed_in) == 6
    assert len({id(params) for params in handed_in}) == (1 if seed is None else 3)
    assert handed_in[:3] == handed_in[3:]
    seeds = [params.seed for params in handed_in[:3]]
    assert seeds[0] == seed
    assert len(set(seeds)) == (1 if seed is None else 3)
