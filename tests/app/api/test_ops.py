import platform
import re

import torch

from app.api.ops import VERSION


def test_health_ready_version(client):
    body = client.get("/health").json()
    assert (body["status"], body["slots"]) == ("ok", 4)
    assert client.get("/ready").json() == {"status": "ready"}
    version = client.get("/version").json()
    assert (version["model"], version["architecture"], version["context"]) == ("tiny", "llama", 1024)
    assert (version["device"], version["dtype"], version["threads"], version["slots"]) == ("cpu", "float32", 1, 4)
    assert version["torch"] == torch.__version__
    assert version["python"] == platform.python_version()
    assert (version["quantize"], version["version"]) == ("none", VERSION)
    assert version["kernels"]


def test_models(client):
    listing = client.get("/v1/models").json()
    assert listing["object"] == "list"
    (card,) = listing["data"]
    assert (card["id"], card["object"], card["max_model_len"], card["task"]) == ("tiny", "model", 1024, "generate")
    assert card["parent"] is None
    assert client.get("/v1/models/tiny").json() == card


def test_the_openapi_page_describes_every_field(client):
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["GenerateRequest"]
    assert all(field.get("description") for field in schema["properties"].values())
    assert schema["properties"]["temperature"]["maximum"] == 2
    assert "422" not in document["paths"]["/generate"]["post"]["responses"]


def test_the_page_of_the_api_asks_no_other_site(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "https://" not in page.text
    assert "http://" not in page.text
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    local = [link for link in links if link.startswith("/")]
    assert set(links) - set(local) == {"data:,"}
    for link in local:
        asset = client.get(link)
        assert asset.status_code == 200
        assert asset.headers["content-type"].split(";")[0] in ("text/javascript", "application/javascript", "text/css")
    for path in ("/docs/%2e%2e", "/docs/%2e%2e/main.py", "/docs/redoc.standalone.js", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404
    assert '"/openapi.json"' in page.text or "'/openapi.json'" in page.text
