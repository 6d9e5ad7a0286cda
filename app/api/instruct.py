"""POST /instruct: the model's template for instructions around a generate."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.generate import answer
from app.api.routing import STREAMED, JSONRoute, get_service
from app.http.errors import invalid, to_api_error
from app.schemas.generate import DEFAULT_MAX_TOKENS, GenerateResponse
from app.schemas.instruct import InstructRequest
from model.errors import ContextLengthError
from model.prompts import PromptError

router = APIRouter(route_class=JSONRoute, tags=["generate"])


@router.post("/instruct", response_model=GenerateResponse, responses=STREAMED)
async def instruct(body: InstructRequest, request: Request) -> Response:
    """Follow an instruction, the answer whole or streamed."""
    service = get_service(request)
    target = service.resolve_generator(service.chat_model if body.model is None else body.model)
    service.engine.check_available()
    templates, tokenizer = service.templates(target), service.engine.tokenizer
    template = templates.instruction
    size = len(body.instruction) + len(body.input) + len(body.system)
    try:
        prompt = await service.off_loop(
            lambda: template.encode(tokenizer, body.instruction, body.input, body.system), size
        )
    except PromptError as error:
        text = f"instruction: the model's template refuses it: {templates.explain(error)}"
        raise invalid(text, "instruction") from None
    try:
        (stream,) = service.begin(
            [prompt],
            body,
            target=target,
            max_tokens=body.asked_tokens,
            default_tokens=DEFAULT_MAX_TOKENS,
            stops=template.stops,
            logprobs=body.logprobs,
            grammar=body.grammar,
        )
    except ContextLengthError as error:
        refusal = to_api_error(error, request.state.request_id)
        if refusal.body["param"] == "prompt":  # which is this route's instruction
            refusal.body["param"] = "instruction"
        raise refusal from None
    return await answer(request, stream, target.name, body)
