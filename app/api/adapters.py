"""/v1/adapters: load a LoRA adapter from the server's folder, or unload one, while the server runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathField

from app.adapters import NAME_RULE, adapters_in
from app.api.openai import model_card
from app.api.routing import ERRORS, JSONRoute, get_service
from app.engine.messages import AdapterError
from app.http.errors import ApiError, invalid
from app.schemas.adapters import AdapterDeleted, AdapterRequest
from app.schemas.models import ModelCard
from app.service import Service, Target
from model.errors import TokenizerError
from model.prompts import PromptError

router = APIRouter(prefix="/v1/adapters", route_class=JSONRoute, tags=["operations"])


@router.post("", responses=ERRORS)
async def load_adapter(body: AdapterRequest, request: Request) -> ModelCard:
    """Load an adapter from the adapters folder under its directory's name. Requests may name it once this has answered, and it
    is loaded again when the engine restarts."""
    service = get_service(request)
    path = _find(service, body.name)
    if body.name in service.targets:
        raise invalid(f"name: a model {body.name} is here already; unload it first, or rename the directory", "name")
    try:
        service.read_templates(body.name, path)
        labels = await service.engine.load_adapter(body.name, str(path))
    except (PromptError, TokenizerError) as error:  # with the file's path, which is nobody else's business
        raise invalid(f"name: {str(error).replace(str(path), body.name)}", "name") from None
    except AdapterError as error:
        raise invalid(str(error), "name") from None
    return model_card(service, Target(body.name, body.name, tuple(labels), service.model_name))


@router.delete("", responses=ERRORS)
async def unload_adapter(body: AdapterRequest, request: Request) -> AdapterDeleted:
    """Unload an adapter. New requests can't name it from now on; this answers when those that use it have ended."""
    return await _unload(get_service(request), body.name)


@router.delete("/{name}", responses=ERRORS)
async def unload_named_adapter(
    name: Annotated[str, PathField(description="The adapter's name.")], request: Request
) -> AdapterDeleted:
    """The same for clients and proxies that send no body with DELETE."""
    return await _unload(get_service(request), name)


async def _unload(service: Service, name: str) -> AdapterDeleted:
    loaded = service.engine.adapters
    if name == service.model_name or (name in service.settings.aliases and name not in loaded):
        raise invalid(f"name: {name} is no adapter; only adapters can be unloaded", "name")
    if name not in loaded:
        raise _unknown(name, "loaded", loaded)
    try:
        await service.engine.unload_adapter(name)
    except AdapterError as error:
        raise invalid(str(error), "name") from None
    return AdapterDeleted(id=name)


def _find(service: Service, name: str) -> Path:
    """The adapter's directory. ApiError when there is no folder, or nothing of that name in it."""
    folder = service.adapters_folder
    if folder is None:
        why = "it must be started with adapters_dir, or with a model that carries some"
        raise invalid(f"name: this server has no folder of adapters; {why}", "name")
    try:
        found = adapters_in(folder)
    except OSError:
        found = {}
    if name not in found:
        raise _unknown(name, "in the folder", found)
    return found[name]


def _unknown(name: str, where: str, there: Mapping[str, object]) -> ApiError:
    names = ", ".join(sorted(there)) or "none"
    text = f"There is no adapter {name[:100]!r} {where} ({NAME_RULE}); there are: {names}"
    return ApiError(404, text, code="model_not_found", param="name")
