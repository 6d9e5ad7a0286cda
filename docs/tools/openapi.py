"""The service's OpenAPI document, of an engine that is not started."""

from typing import Any

from app.engine.client import EngineClient
from app.engine.messages import EngineLimits
from app.main import create_app, engine_spec
from app.settings import Settings


def openapi_document() -> dict[str, Any]:
    """What /openapi.json answers on a server with the bundled model and no key."""
    settings = Settings.model_validate({})
    return create_app(settings, EngineClient(engine_spec(settings), EngineLimits())).openapi()
