import torch


def test_health_ready_version(client):
    body = client.get("/health").json()
    assert (body["status"], body["slots"]) == ("ok", 4)
    assert client.get("/ready").json() == {"status": "ready"}
    version = client.get("/version").json()
    assert (version["model"], version["architecture"], version["context"]) == ("tiny", "llama", 1024)
    assert (version["device"], version["dtype"], version["threads"], version["slots"]) == ("cpu", "float32", 1, 4)
    assert version["torch"] == torch.__version__


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
