"""LiteLLM as a client: chat, streams, completions, embeddings and errors. Prints what it got as JSON. Runs in an environment of
its own: python ask_litellm.py BASE_URL KEY MODEL (no other module of this repository is imported)."""

import asyncio
import json
import sys
from typing import Any

import litellm

base_url, key, model = sys.argv[1:]
ACCESS = {"api_base": base_url, "api_key": key, "num_retries": 0, "max_retries": 0}
CHAT = {"model": f"openai/{model}", "messages": [{"role": "user", "content": "Who lives by the sea?"}], **ACCESS}
GREEDY = {"max_tokens": 24, "temperature": 0}


def chunks_text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def asynchronously() -> list[str]:
    answers = await asyncio.gather(*(litellm.acompletion(**CHAT, max_tokens=24, seed=seed) for seed in range(4)))
    stream = await litellm.acompletion(**CHAT, **GREEDY, stream=True)
    return [*(answer.choices[0].message.content for answer in answers), chunks_text([chunk async for chunk in stream])]


def error_of(**fields: Any) -> list[Any]:
    try:
        litellm.completion(**{**CHAT, **GREEDY, **fields})
    except litellm.exceptions.APIError as error:
        return [type(error).__name__, error.status_code]
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None)]
    return []


found: dict[str, Any] = {}
whole = litellm.completion(**CHAT, **GREEDY)
found["chat"], found["usage"] = whole.choices[0].message.content, whole.usage.completion_tokens
stream = list(litellm.completion(**CHAT, **GREEDY, stream=True, stream_options={"include_usage": True}))
found["streamed"], found["streamed_usage"] = chunks_text(stream), stream[-1].usage.completion_tokens
rebuilt = litellm.stream_chunk_builder(stream)
found["rebuilt"] = rebuilt.choices[0].message.content
found["logprobs"] = "".join(
    entry.token for entry in litellm.completion(**CHAT, **GREEDY, logprobs=True).choices[0].logprobs.content
)
found["async"] = asyncio.run(asynchronously())
completion = {"model": f"text-completion-openai/{model}", "prompt": "Once upon a time", **ACCESS, **GREEDY}
found["completion"] = litellm.text_completion(**completion).choices[0].text
found["completion_streamed"] = "".join(
    chunk.choices[0].text or "" for chunk in litellm.text_completion(**completion, stream=True) if chunk.choices
)
vectors = litellm.embedding(
    model=f"openai/{model}", input=["The old man", "The sea"], encoding_format="float", api_base=base_url, api_key=key
)
found["embeddings"] = [entry["embedding"] for entry in vectors.data]
found["errors"] = {
    "temperature": error_of(temperature=3),
    "model": error_of(model="openai/gpt-none"),
    "key": error_of(api_key="wrong"),
    "long": error_of(messages=[{"role": "user", "content": " hello" * 600}]),
}
print(json.dumps(found))
