import pytest
from conformance import check_error


def test_list(api):
    """GET /v1/models lists the models in OpenAI's form."""
    body = api.client.get("/v1/models").json()
    assert body["object"] == "list"
    assert api.model in [card["id"] for card in body["data"]]
    for card in body["data"]:
        assert card["object"] == "model"
        assert isinstance(card["created"], int)
        assert isinstance(card["owned_by"], str)


def test_one(api):
    """GET /v1/models/{id} gives the card that the list has."""
    listed = {card["id"]: card for card in api.client.get("/v1/models").json()["data"]}
    assert api.client.get(f"/v1/models/{api.model}").json() == listed[api.model]


def test_an_unknown_one(api):
    """GET /v1/models/{id} of an unknown model is a 404 with code model_not_found."""
    check_error(api.client.get("/v1/models/no-such-model"), 404, code="model_not_found")


@pytest.mark.extension
def test_what_cards_tell(api):
    """A model's card says its parent, its context and its task."""
    card = api.client.get(f"/v1/models/{api.model}").json()
    assert card["parent"] is None
    assert card["max_model_len"] == api.context
    assert card["task"] in ("generate", "classify")
