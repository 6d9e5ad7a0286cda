"""Several streams as one: whichever way they end, nothing is left running, and nothing is logged as lost."""

import asyncio
import gc

import pytest

from app.api.choices import Choices
from app.engine.messages import RequestCancelled, RequestFault
from app.engine.output import OutputProcessor
from app.engine.stream import GenerationStream
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
