"""POST /generate: the plain way to continue a text."""

import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.choices import Choices, send_whole
from app.api.logprobs import token_choice
from app.api.routing import STREAMED, JSONRoute, get_service
from app.engine.messages import Delta, Finish, Token
from app.engine.stream import GenerationStream
from app.http.sse import EventStream, frame
from app.schemas.generate import DEFAULT_MAX_TOKENS, GenerateFields, GenerateRequest, GenerateResponse
from model.tokenizer import Tokenizer

router = APIRouter(route_class=JSONRoute, tags=["generate"])


@router.post("/generate", response_model=GenerateResponse, responses=STREAMED)
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Continue a text, whole or streamed."""
    service = get_service(request)
    target = service.resolve_generator(body.model)
    service.engine.check_available()
    prompt = await service.encode_prompt(body.prompt) if isinstance(body.prompt, str) else body.prompt
    (stream,) = service.begin(
        [prompt],
        body,
        target=target,
        max_tokens=body.asked_tokens,
        default_tokens=DEFAULT_MAX_TOKENS,
        logprobs=body.logprobs,
        grammar=body.grammar,
    )
    return await answer(request, stream, target.name, body)


async def answer(request: Request, stream: GenerationStream, model: str, body: GenerateFields) -> Response:
    """Our own form of an answer, whole or streamed as `body` wants it."""
    tokenizer = get_service(request).engine.tokenizer
    encode = _encoder(f"gen-{uuid.uuid4().hex}", model, tokenizer, with_logprobs=body.logprobs is not None)
    if body.stream:
        return await EventStream.start(request, stream, lambda delta: frame(encode(delta)), stream.cancel)
    return await send_whole(request, Choices([stream]), lambda deltas: encode(deltas[0]))


def _encoder(answer_id: str, model: str, tokenizer: Tokenizer, *, with_logprobs: bool) -> Callable[[Delta], bytes]:
    """JSON of a delta; one that ends the answer tells the rest too. A whole answer is its only delta."""

    def encode(delta: Delta) -> bytes:
        fields: dict[str, Any] = {"text": delta.text}
        if delta.finish is not None:
            fields = {"id": answer_id, "model": model, **fields, **_ending(delta.finish)}
        if with_logprobs:
            fields["logprobs"] = [_report(token, tokenizer) for token in delta.tokens]
        return msgspec.json.encode(fields)

    return encode


def _ending(finish: Finish) -> dict[str, Any]:
    timings, n_tokens = finish.timings, finish.completion_tokens
    speed = (n_tokens - 1) / timings.decode if n_tokens > 1 and timings.decode > 0 else None
    return {
        "finish_reason": finish.reason,
        "stop_reason": finish.stop_reason,
        "usage": {
            "prompt_tokens": finish.prompt_tokens,
            "completion_tokens": n_tokens,
            "total_tokens": finish.prompt_tokens + n_tokens,
        },
        "timings": {
            "queue_ms": round(timings.queue * 1000, 3),
            "prefill_ms": round(timings.prefill * 1000, 3),
            "decode_ms": round(timings.decode * 1000, 3),
            "tokens_per_second": speed and round(speed, 2),
        },
    }


def _report(token: Token, tokenizer: Tokenizer) -> dict[str, Any]:
    logprobs = token.logprobs
    assert logprobs is not None, "the engine was asked for log-probabilities"
    alternatives = zip(logprobs.top_ids, logprobs.top_logprobs, strict=True)
    return {
        **_choice(token.id, logprobs.logprob, tokenizer),
        "text_offset": token.text_offset,
        "top_logprobs": [_choice(other, value, tokenizer) for other, value in alternatives],
    }


def _choice(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    return {"id": token_id, **token_choice(token_id, logprob, tokenizer)}
