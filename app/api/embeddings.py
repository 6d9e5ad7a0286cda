"""POST /v1/embeddings: OpenAI's."""

import array
import base64
import sys
from collections.abc import Sequence
from functools import partial

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.inputs import encode_text, run_all
from app.api.routing import ERRORS, JSONRoute, get_service
from app.http.errors import ApiError, invalid
from app.schemas.embeddings import EmbeddingRequest, EmbeddingResponse
from app.service import Service

router = APIRouter(prefix="/v1", route_class=JSONRoute, tags=["openai"])


@router.post("/embeddings", response_model=EmbeddingResponse, responses=ERRORS)
async def embed(body: EmbeddingRequest, request: Request) -> Response:
    """Vectors of texts: the mean of the last hidden states, of length 1. Any model gives them, classifiers too."""
    service = get_service(request)
    target = service.resolve_model(body.model)
    width = service.config.d_model
    if body.dimensions not in (None, width):
        text = f"dimensions: {target.name} gives vectors of {width} numbers only; leave dimensions out"
        raise invalid(text, "dimensions", "unsupported_parameter")
    service.engine.check_available()
    rows = await _token_ids(service, body)
    vectors = await run_all(request, [partial(service.engine.embed, ids, adapter=target.adapter) for ids in rows])
    n_tokens = sum(map(len, rows))
    content = await service.off_loop(lambda: _render(vectors, target.name, body, n_tokens), len(vectors) * width)
    return Response(content, media_type="application/json")


def _render(vectors: Sequence[Sequence[float]], model: str, body: EmbeddingRequest, n_tokens: int) -> bytes:
    """EmbeddingResponse as JSON."""
    spell = _base64 if body.encoding_format == "base64" else _floats
    data = [{"object": "embedding", "index": i, "embedding": spell(vector)} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


async def _token_ids(service: Service, body: EmbeddingRequest) -> list[list[int]]:
    """The inputs as token ids. ApiError 400 for one that is too long, or has an id that the model hasn't."""
    tokenizer, info = service.engine.tokenizer, service.engine.info
    inputs = body.inputs
    size = sum(len(each) for each in inputs)
    rows = await service.off_loop(
        lambda: [encode_text(tokenizer, each) if isinstance(each, str) else each for each in inputs], size
    )
    for i, ids in enumerate(rows):
        param = "input" if len(rows) == 1 else f"input[{i}]"
        if len(ids) > info.context:
            raise ApiError(
                400,
                f"{param}: this model's maximum context length is {info.context} tokens, and this has {len(ids)}; shorten it "
                "or split it.",
                code="context_length_exceeded",
                param=param,
                extra={"n_prompt_tokens": len(ids), "n_ctx": info.context},
            )
        if isinstance(inputs[i], list) and not (min(ids) >= 0 and max(ids) < info.vocab_size):
            wrong = next(token for token in ids if not 0 <= token < info.vocab_size)
            raise invalid(f"{param}: {wrong} is no token id; they go from 0 to {info.vocab_size - 1}", param)
    return rows


def _floats(vector: Sequence[float]) -> list[float]:
    """The numbers, as exact as base64 has them."""
    return array.array("f", vector).tolist()


def _base64(vector: Sequence[float]) -> str:
    values = array.array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")
