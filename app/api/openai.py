"""OpenAI's routes."""

from fastapi import APIRouter, Request

from app.api.routing import ERRORS, JSONRoute, get_service
from app.schemas.models import ModelCard, ModelList
from app.service import Service

router = APIRouter(prefix="/v1", route_class=JSONRoute, tags=["openai"])


@router.get("/models", responses={401: ERRORS[401]})
async def list_models(request: Request) -> ModelList:
    """The models that requests can name."""
    return ModelList(data=[_card(get_service(request))])


@router.get("/models/{model:path}", responses={401: ERRORS[401], 404: ERRORS[404]})
async def get_model(model: str, request: Request) -> ModelCard:
    """One of them. (A Hub id has a slash in it.)"""
    service = get_service(request)
    service.resolve_model(model)
    return _card(service)


def _card(service: Service) -> ModelCard:
    return ModelCard(id=service.model_name, created=service.created, max_model_len=service.context)
