"""OpenAI's own Python client, which checks every response strictly here."""

import asyncio
from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from conformance import KEY, MODEL
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field
from serving import ROOT

HELLO = [{"role": "user", "content": "Who lives by the sea?"}]
PROMPT = "Once upon a time"


@pytest.fixture
def client(base_url) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key=KEY, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def lenient(base_url) -> Iterator[OpenAI]:
    """As clients are by default. Strictly, the client refuses what OpenAI's server itself sends: the null of a prompt's first
    token and of a finish_reason that is still to come in a completion's chunk, and the base64 that it asks for itself."""
    with OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
        yield client


def run_async(base_url, work):
    async def main():
        async with AsyncOpenAI(
            base_url=base_url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client:
            return await work(client)

    return asyncio.run(main())


def test_models(client):
    carried = {path.parent.name for path in (ROOT / "checkpoints" / MODEL / "adapters").glob("*/adapter_config.json")}
    assert sorted(model.id for model in client.models.list()) == sorted({MODEL, *carried})
    assert client.models.retrieve(MODEL).owned_by == "homegrown"


def test_completions(client, lenient):
    answer = client.completions.create(
        model=MODEL, prompt=[PROMPT, "The old man"], n=2, max_tokens=8, seed=1, logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in answer.choices)
    scored = lenient.completions.create(model=MODEL, prompt=PROMPT, echo=True, max_tokens=0, logprobs=1)
    assert scored.choices[0].logprobs.token_logprobs[0] is None
    assert scored.choices[0].text == PROMPT


def test_completions_streamed(client, lenient):
    whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0)
    chunks = list(lenient.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_chat(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_completion_tokens=12, temperature=0, logprobs=True, top_logprobs=3
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def test_chat_streamed(client):
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 24, "temperature": 0, "n": 1}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_clients_own_accumulator(client):
    asked = {"model": MODEL, "messages": HELLO, "seed": 4, "n": 2, "stop": ["e"]}  # it takes a cut answer for an error
    with client.chat.completions.stream(**asked, logprobs=True) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    whole = client.chat.completions.create(**asked)
    assert [choice.message.content for choice in final.choices] == [c.message.content for c in whole.choices]
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= {event.type for event in events}


class Cat(BaseModel):
    """What an answer is parsed into."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=30)
    colour: Literal["black", "white", "red"]


@pytest.mark.parametrize("seed", [1, 2])
def test_an_answer_parsed_into_a_class(client, seed):
    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Cat, seed=seed, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, Cat)


def test_embeddings(client, lenient):
    answer = lenient.embeddings.create(model=MODEL, input=["The old man", "The sea"])  # asks for base64
    plain = client.embeddings.create(model=MODEL, input=["The old man", "The sea"], encoding_format="float")
    for entry, other in zip(answer.data, plain.data, strict=True):
        assert entry.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(value * value for value in entry.embedding) == pytest.approx(1, abs=1e-5)


def test_errors_become_the_clients_own(client, base_url):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model=MODEL, prompt=PROMPT, temperature=3)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": " hello" * 600}], stream=True)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with (
        OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


def test_request_ids(client):
    answer = client.completions.with_raw_response.create(
        model=MODEL, prompt=PROMPT, max_tokens=1, extra_headers={"X-Request-Id": "from-the-client"}
    )
    assert answer.request_id == "from-the-client"
    assert answer.parse()._request_id == "from-the-client"


def test_fields_of_ours(client):
    """What OpenAI's API doesn't know travels as extra_body, and back as an extra attribute."""
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=24, temperature=2, extra_body={"top_k": 1, "stop_token_ids": [10]}
    )
    greedy = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0)
    assert greedy.choices[0].text.startswith(answer.choices[0].text)
    assert answer.choices[0].stop_reason in (None, 10)


def test_async_many_at_once(base_url):
    async def work(client: AsyncOpenAI):
        async def one(seed: int) -> str:
            answer = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=24, seed=seed)
            return answer.choices[0].message.content or ""

        alone = [await one(seed) for seed in range(8)]
        return alone, list(await asyncio.gather(*map(one, range(8))))

    alone, together = run_async(base_url, work)
    assert together == alone


def test_async_stream_left_in_the_middle(base_url, api):
    async def work(client: AsyncOpenAI):
        asked = {
            "model": MODEL,
            "messages": HELLO,
            "max_tokens": 400,
            "stream": True,
            "extra_body": {"ignore_eos": True},
        }
        async with await client.chat.completions.create(**asked) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        for _ in range(200):  # its slot is free soon
            if not api.client.get("/health").json()["running"]:
                return True
            await asyncio.sleep(0.02)
        return False

    assert run_async(base_url, work)


def test_async_timeout_of_the_clients(base_url):
    async def work(client: AsyncOpenAI):
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.001).completions.create(model=MODEL, prompt=PROMPT, max_tokens=300)
        return await client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2)

    assert run_async(base_url, work).choices
