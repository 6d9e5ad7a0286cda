"""POST /v1/chat/completions: a conversation, answered by OpenAI's protocol."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.choices import Choices, send_whole
from app.api.logprobs import chat_logprobs
from app.api.routing import STREAMED, JSONRoute, get_service
from app.engine.messages import Delta, Finish
from app.http.errors import ApiError, invalid, to_api_error
from app.http.sse import EventStream, frame
from app.schemas.chat import ChatRequest, ChatResponse, MessagesFields
from app.schemas.openai import count_usage
from app.service import Service
from app.templates import Templates
from model.errors import ContextLengthError
from model.prompts import PromptError
from model.tokenizer import Tokenizer

_MESSAGE_SIZE = 64  # what a message costs a template, as so many characters of text

router = APIRouter(prefix="/v1", route_class=JSONRoute, tags=["openai"])


@router.post("/chat/completions", response_model=ChatResponse, responses=STREAMED)
async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation, whole or streamed. A model without a chat template of its own is given the conversation as a
    transcript of paragraphs that begin with "User:", "Assistant:" and "System:"; the next such beginning ends its answer."""
    service = get_service(request)
    target = service.resolve_generator(service.chat_model if body.model is None else body.model)
    service.engine.check_available()
    templates = service.templates(target)
    prompt = await encode_messages(service, body, templates)
    try:
        streams = service.begin(
            [prompt],
            body,
            target=target,
            max_tokens=body.asked_tokens,
            default_tokens=None,
            n=body.n,
            stops=templates.chat.stops,
            logprobs=body.alternatives,
            grammar=body.grammar,
        )
    except ContextLengthError as error:
        raise _too_long(error, body) from None
    choices, tokenizer = Choices(streams), service.engine.tokenizer if body.logprobs else None
    if body.stream:
        chunks = _Chunks(target.name, body.n, tokenizer, with_usage=body.include_usage)
        return await EventStream.start(request, choices, chunks, choices.cancel)
    return await send_whole(request, choices, lambda deltas: _whole(target.name, deltas, tokenizer))


async def encode_messages(service: Service, fields: MessagesFields, templates: Templates) -> list[int]:
    """Token ids of a conversation under a model's chat template. ApiError 400 when the template refuses it."""
    tokenizer = service.engine.tokenizer
    messages = [message.to_template() for message in fields.messages]
    size = sum(len(message["content"] or "") + _MESSAGE_SIZE for message in messages)

    def encode() -> list[int]:
        return templates.chat.encode(
            messages,
            tokenizer,
            add_generation_prompt=fields.opens_answer,
            continue_final_message=fields.continues,
        )

    try:
        return await service.off_loop(encode, size)
    except PromptError as error:
        text = templates.explain(error)
        raise invalid(text if text.startswith("messages") else f"messages: {text}", "messages") from None


def _too_long(error: ContextLengthError, body: ChatRequest) -> ApiError:
    """The same in a chat's own terms."""
    refusal = to_api_error(error, "")
    no_prompt = not 0 < error.n_prompt_tokens < error.n_ctx
    refusal.body["param"] = "messages" if no_prompt else body.length_field
    refusal.body["message"] = refusal.body["message"].replace("max_tokens", body.length_field)
    return refusal


def _common(kind: str, model: str) -> dict[str, Any]:
    """What an answer, or each chunk of it, begins with."""
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _whole(model: str, deltas: Sequence[Delta], tokenizer: Tokenizer | None) -> bytes:
    """ChatResponse of whole answers, as JSON; with log-probabilities if there is a tokenizer to spell them with."""
    choices, finishes = [], []
    for index, delta in enumerate(deltas):
        assert delta.finish is not None, "a whole answer has an end"
        finishes.append(delta.finish)
        choices.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": tokenizer and chat_logprobs(delta.tokens, tokenizer),
                "finish_reason": delta.finish.reason,
                "stop_reason": delta.finish.stop_reason,
            }
        )
    usage = count_usage(finishes, len(finishes))
    return msgspec.json.encode({**_common("chat.completion", model), "choices": choices, "usage": usage})


class _Chunks:
    """Renders the deltas of `n` answers as frames. Put together from bytes, since every token comes through here."""

    def __init__(self, model: str, n: int, tokenizer: Tokenizer | None, *, with_usage: bool) -> None:
        """`tokenizer`: spells log-probabilities, if they were asked for."""
        self._n, self._tokenizer, self._with_usage = n, tokenizer, with_usage
        self._head = msgspec.json.encode(_common("chat.completion.chunk", model))[:-1]
        self._fronts = [self._head + b',"choices":[{"index":%d,"delta":' % index for index in range(n)]
        self._end = b'],"usage":null}' if with_usage else b"]}"
        self._back = b',"finish_reason":null}' + self._end
        self._begun = [False] * n
        self._finishes: dict[int, Finish] = {}

    def __call__(self, event: tuple[int, Delta]) -> bytes:
        """The frames for one answer's next delta: before the first the role, behind the last of all the usage."""
        index, delta = event
        front, frames = self._fronts[index], b""
        if not self._begun[index]:
            self._begun[index] = True
            frames = frame(front + b'{"role":"assistant","content":""},"logprobs":null' + self._back)
        content = b'{"content":' + msgspec.json.encode(delta.text) + b"}" if delta.text else b"{}"
        logprobs = msgspec.json.encode(chat_logprobs(delta.tokens, self._tokenizer)) if self._tokenizer else b"null"
        body = front + content + b',"logprobs":' + logprobs
        if delta.finish is None:
            return frames + frame(body + self._back)
        self._finishes[index] = delta.finish
        ending = {"finish_reason": delta.finish.reason, "stop_reason": delta.finish.stop_reason}
        frames += frame(body + b"," + msgspec.json.encode(ending)[1:] + self._end)
        return frames + self._usage() if self._with_usage and len(self._finishes) == self._n else frames

    def _usage(self) -> bytes:
        usage = count_usage([self._finishes[index] for index in range(self._n)], self._n)
        return frame(self._head + b',"choices":[],"usage":' + msgspec.json.encode(usage) + b"}")
