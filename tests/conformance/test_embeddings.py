import base64
import math
import struct

import pytest

PATH = "/v1/embeddings"


@pytest.fixture(scope="module", autouse=True)
def _served(api):
    """A server without this route is not asked about it."""
    if not api.ours and api.client.post(PATH, json={"model": api.model, "input": "a"}).status_code in (404, 405, 501):
        pytest.skip("the server under test has no embeddings for this model")


def embed(api, texts, **fields):
    return api.ask_at(PATH, {"model": api.model, "input": texts, **fields})


def test_shape(api):
    """An answer has OpenAI's form: a list of embeddings with their index, the model, usage."""
    body = embed(api, "The old man and the sea")
    assert (body["object"], body["model"]) == ("list", api.model)
    (entry,) = body["data"]
    assert (entry["object"], entry["index"]) == ("embedding", 0)
    assert all(isinstance(value, float) for value in entry["embedding"])
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


def test_unit_length(api):
    """A vector has length 1."""
    for entry in embed(api, ["The old man", "a" * 300])["data"]:
        assert math.hypot(*entry["embedding"]) == pytest.approx(1, abs=1e-4)


def test_order(api):
    """Vectors come in their texts' order, each as if asked for alone; usage counts them all."""
    texts = ["The old man", "It was a dark night", "Yes"]
    body, alone = embed(api, texts), [embed(api, text) for text in texts]
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2]
    for entry, one in zip(body["data"], alone, strict=True):
        assert entry["embedding"] == pytest.approx(one["data"][0]["embedding"], abs=1e-4)
    assert body["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in alone)


def test_base64(api):
    """As base64 the vector is the same, as little-endian float32."""
    plain, packed = (embed(api, "Yes", encoding_format=form)["data"][0]["embedding"] for form in ("float", "base64"))
    data = base64.b64decode(packed, validate=True)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(plain, abs=1e-5)


def test_ids(api):
    """The input may be token ids, or lists of them."""
    ids = api.ids("The old man")
    one, two = embed(api, ids), embed(api, [ids, ids[:1]])
    assert one["usage"]["prompt_tokens"] == len(ids)
    assert two["data"][0]["embedding"] == pytest.approx(one["data"][0]["embedding"], abs=1e-4)
    assert len(two["data"]) == 2


def test_meaning(api):
    """Texts that differ have different vectors; a text is nearest to itself."""
    texts = ["The old man went to sea.", "The king had three daughters.", "It rained."]
    vectors = [entry["embedding"] for entry in embed(api, texts)["data"]]
    (again,) = [entry["embedding"] for entry in embed(api, texts[1])["data"]]
    near = [sum(a * b for a, b in zip(again, vector, strict=True)) for vector in vectors]
    assert max(near) == near[1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None), ("input", []), ("input", {}), ("input", 5), ("input", [None]), ("input", ["a", 5]), ("input", [-1]),
        ("input", [10**9]), ("encoding_format", "hex"), ("encoding_format", 5), ("dimensions", 0), ("dimensions", "many"),
    ],
    ids=repr,
)  # fmt: skip
def test_wrong(api, field, value):
    """A wrong field is a 400 that names it."""
    api.refuse(PATH, {"model": api.model, "input": "a", field: value}, param=field)


def test_unknown_model(api):
    """An unknown model is a 404."""
    api.refuse(PATH, {"model": "no-such-model", "input": "a"}, 404, code="model_not_found")


@pytest.mark.extension
def test_dimensions(api):
    """Only the model's own number of dimensions can be had."""
    own = len(embed(api, "a")["data"][0]["embedding"])
    assert len(embed(api, "a", dimensions=own)["data"][0]["embedding"]) == own
    api.refuse(PATH, {"input": "a", "dimensions": own - 1}, param="dimensions")


@pytest.mark.extension
def test_too_long(api):
    """An input over the context is refused."""
    api.refuse(PATH, {"input": " hello" * (api.context + 1)}, code="context_length_exceeded")
