"""GET /docs: the OpenAPI document as a page to try it on. All of it comes from this server: no network is needed."""

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, Response

router = APIRouter(prefix="/docs", include_in_schema=False)

_ASSETS = frozenset({"swagger-ui-bundle.js", "swagger-ui.css"})
_NO_ICON = "data:,"  # the framework's default would come from its own site
_NO_VALIDATOR = {"validatorUrl": "none"}  # it would ask another site about this server's document


@router.get("")
async def page(request: Request) -> Response:
    """Swagger UI over /openapi.json."""
    return get_swagger_ui_html(
        openapi_url=str(request.app.openapi_url),
        title=request.app.title,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url=_NO_ICON,
        swagger_ui_parameters=_NO_VALIDATOR,
    )


@router.get("/{name}")
async def asset(name: str) -> Response:
    """Swagger UI's own files, from the package that carries them."""
    if name not in _ASSETS:
        raise HTTPException(404)
    path = files("fastapi_offline").joinpath("static", name)
    return FileResponse(str(path), headers={"Cache-Control": "max-age=86400"})
