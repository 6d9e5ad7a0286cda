"""OpenAI's routes."""

from fastapi import APIRouter, Request

from app.api.routing import ERRORS, JSONRoute, get_service
from app.schemas.models import ModelCard, ModelList
from app.service import Service, Target

router = APIRouter(prefix="/v1", route_class=JSONRoute, tags=["openai"])


@router.get("/models", responses={401: ERRORS[401], 503: ERRORS[503]})
async def list_models(request: Request) -> ModelList:
    """The models that requests can name."""
    service = get_service(request)
    return ModelList(data=[model_card(service, target) for target in service.targets.values()])


@router.get("/models/{model:path}", responses={401: ERRORS[401], 404: ERRORS[404], 503: ERRORS[503]})
async def get_model(model: str, request: Request) -> ModelCard:
    """One of them. (A Hub id has a slash in it.)"""
    service = get_service(request)
    return model_card(service, service.resolve_model(model))


def model_card(service: Service, target: Target) -> ModelCard:
    """What the listing says of a model."""
    return ModelCard(
        id=target.name,
        created=service.created,
        parent=target.parent,
        max_model_len=service.context,
        task="classify" if target.classifies else "generate",
    )
