"""POST /inspect: attention and the logit lens of a short text, for those who want to see how a transformer works."""

import uuid
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.inputs import run_all
from app.api.routing import ERRORS, JSONRoute, get_service
from app.engine.inspector import Inspected, InspectorUnavailable
from app.http.errors import ApiError, invalid
from app.schemas.inspect import MAX_TOKENS, InspectRequest, InspectResponse
from app.service import Service

router = APIRouter(route_class=JSONRoute, tags=["tokens"])

_MOST_NUMBERS = 4_000_000  # of attention in one answer: some 25 MB of JSON


@router.post("/inspect", response_model=InspectResponse, responses=ERRORS)
async def inspect(body: InspectRequest, request: Request) -> Response:
    """What every head of attention takes from where, and what the model would say next after each layer. Computed in float32 beside
    the engine, which goes on undisturbed; so the first answer after a while takes some seconds."""
    service = get_service(request)
    target = service.resolve_model(body.model)
    if target.classifies:
        text = f"model: {target.name} is a classifier, which says nothing next; name a model that gives text"
        raise invalid(text, "model")
    service.engine.check_available()
    ids = await service.encode_prompt(body.text, "text")
    _check_size(service, len(ids), body.layers)
    ask = partial(service.engine.inspect, ids, adapter=target.adapter, layers=body.layers)
    try:
        (seen,) = await run_all(request, [ask])
    except InspectorUnavailable as error:
        raise ApiError(503, str(error), kind="server_error", code="inspector_unavailable") from None
    content = await service.off_loop(lambda: _render(service, target.name, ids, body.layers, seen), len(seen.attention))
    return Response(content, media_type="application/json")


def _check_size(service: Service, n_tokens: int, layers: list[int] | None) -> None:
    """ApiError 400 for a text that is too long, layers that there aren't, or more numbers than one answer has room for."""
    most = min(MAX_TOKENS, service.engine.info.context)
    if n_tokens > most:
        raise invalid(f"text: it has {n_tokens} tokens, and at most {most} can be looked at; shorten it", "text")
    there, heads = service.config.n_layer, service.config.n_head
    wrong = next((layer for layer in layers or () if layer >= there), None)
    if wrong is not None:
        raise invalid(f"layers: there is no layer {wrong}; they go from 0 to {there - 1}", "layers")
    each = heads * n_tokens**2
    if (there if layers is None else len(layers)) * each > _MOST_NUMBERS:
        raise invalid(
            f"layers: with a text of {n_tokens} tokens name at most {_MOST_NUMBERS // each} of them", "layers"
        )


def _render(service: Service, model: str, ids: list[int], layers: list[int] | None, seen: Inspected) -> bytes:
    """InspectResponse as JSON."""
    pieces = service.engine.tokenizer.token_bytes

    def named(token: int) -> dict[str, Any]:
        piece = pieces(token)
        return {"id": token, "text": piece.decode("utf-8", "replace"), "bytes": list(piece)}

    lens = [
        [[{**named(token), "probability": share} for token, share in best] for best in layer] for layer in seen.lens
    ]
    return msgspec.json.encode(
        {
            "id": f"inspect-{uuid.uuid4().hex}",
            "model": model,
            "tokens": [named(token) for token in ids],
            "layers": seen.layers,
            "heads": seen.heads,
            "attention_layers": list(range(seen.layers)) if layers is None else layers,
            "attention": msgspec.Raw(seen.attention),
            "lens": lens,
        }
    )
