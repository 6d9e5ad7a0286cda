"""POST /tokenize and /detokenize: what the model reads, and back."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.chat import encode_messages
from app.api.routing import ERRORS, JSONRoute, get_service
from app.http.errors import invalid
from app.schemas.tokens import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChat,
    TokenizeFields,
    TokenizePrompt,
    TokenizeRequest,
    TokenizeResponse,
)
from app.service import Service

router = APIRouter(route_class=JSONRoute, tags=["tokens"])


@router.post("/tokenize", response_model=TokenizeResponse, responses=ERRORS)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Token ids of a text or of chat messages. Nothing is cut: there may be more than the context has room for."""
    service = get_service(request)
    if isinstance(body, TokenizeChat):
        target = service.resolve_model(service.chat_model if body.model is None else body.model)
        ids = await encode_messages(service, body, service.templates(target))
    else:
        service.resolve_model(body.model)
        ids = await _prompt_ids(service, body)
    content = await service.off_loop(lambda: _render(service, ids, body), len(ids))
    return Response(content, media_type="application/json")


@router.post("/detokenize", response_model=DetokenizeResponse, responses=ERRORS)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of token ids."""
    service = get_service(request)
    service.resolve_model(body.model)
    tokenizer, ids, size = service.engine.tokenizer, body.tokens, service.config.vocab_size
    if ids and not (min(ids) >= 0 and max(ids) < size):
        wrong = next(token for token in ids if not 0 <= token < size)
        raise invalid(f"tokens: {wrong} is no token id; they go from 0 to {size - 1}", "tokens")
    content = await service.off_loop(lambda: msgspec.json.encode({"prompt": tokenizer.decode(ids)}), len(ids))
    return Response(content, media_type="application/json")


def _render(service: Service, ids: list[int], body: TokenizeFields) -> bytes:
    """TokenizeResponse as JSON."""
    fields: dict[str, Any] = {"count": len(ids), "max_model_len": service.context, "tokens": ids}
    if body.pieces or body.return_token_strs:
        pieces = [service.engine.tokenizer.token_bytes(token) for token in ids]
        if body.pieces:
            fields["pieces"] = [list(piece) for piece in pieces]
        if body.return_token_strs:
            fields["token_strs"] = [piece.decode("utf-8", "replace") for piece in pieces]
    return msgspec.json.encode(fields)


async def _prompt_ids(service: Service, body: TokenizePrompt) -> list[int]:
    """As requests to generate have them; an empty text, which those begin with a token of the model's, has none here."""
    tokenizer, text = service.engine.tokenizer, body.prompt
    if body.add_special_tokens and (text or tokenizer.add_bos):
        return await service.encode_prompt(text)
    return await service.off_loop(lambda: tokenizer.encode(text, allow_special=True), len(text))
