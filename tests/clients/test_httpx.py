"""httpx: keep-alive, pipelines of requests over one connection, compressed answers asked for, a stream read by lines."""

import asyncio
import json

import httpx
from conformance import KEY, MODEL

HEADERS = {"Authorization": f"Bearer {KEY}"}
BODY = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 24, "seed": 1}


def test_one_connection_for_many_requests(api):
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(base_url=api.root, headers=HEADERS, limits=limits) as client:
        texts = {client.post("/v1/completions", json=BODY).json()["choices"][0]["text"] for _ in range(5)}
        assert len(texts) == 1
        assert client.post("/v1/completions", json={"temperature": 9}).status_code == 400  # and the connection stays
        assert client.post("/v1/completions", json=BODY).json()["choices"][0]["text"] in texts


def test_a_stream_by_lines(api):
    with (
        httpx.Client(base_url=api.root, headers=HEADERS) as client,
        client.stream("POST", "/v1/completions", json=BODY | {"stream": True}) as response,
    ):
        lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    text = "".join(json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines)
    assert text == api.ask_at("/v1/completions", BODY)["choices"][0]["text"]


def test_asynchronously_at_once(api):
    async def work() -> list[str]:
        async with httpx.AsyncClient(base_url=api.root, headers=HEADERS, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.post("/v1/completions", json=BODY | {"seed": i}) for i in range(12))
            )
        return [answer.json()["choices"][0]["text"] for answer in answers]

    alone = [api.ask_at("/v1/completions", BODY | {"seed": i})["choices"][0]["text"] for i in range(12)]
    assert asyncio.run(work()) == alone


def test_a_body_in_chunks(api):
    data = json.dumps(BODY).encode()

    def pieces():
        for byte in data:
            yield bytes([byte])

    headers = HEADERS | {"Content-Type": "application/json; charset=utf-8"}
    answer = httpx.post(f"{api.root}/v1/completions", content=pieces(), headers=headers)
    assert answer.json()["choices"] == api.ask_at("/v1/completions", BODY)["choices"]
