import concurrent.futures
import json
import math
import time

import httpx
import pytest
import torch
from oracle import Oracle, make_adapters

from app.api.classify import _characters
from app.likelihood import CONTENT_FREE, calibrated, content_free_bias
from model.checkpoint import load_model, save_model
from model.classifier import as_classifier, classify_texts
from model.tokenizer import Tokenizer

MOODS = ["good", "bad", "odd"]
LABELS = ["yes", "not at all"]
LONG = "word " * 1000


def ask(client: httpx.Client, **body) -> dict:
    response = client.post("/classify", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: httpx.Client, **body) -> dict:
    response = client.post("/classify", json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.fixture(scope="module")
def classifier_dir(model_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("classifiers") / "mood"
    model = as_classifier(load_model(model_dir), MOODS, seed=3)
    with torch.no_grad():
        model.score.weight.mul_(5)
    save_model(model, directory)
    Tokenizer.from_directory(model_dir).save(directory)
    return directory


@pytest.fixture(scope="module")
def mood_server(make_server, classifier_dir):
    return make_server(model=str(classifier_dir), max_slots=2, max_queue=2).wait_ready()


@pytest.fixture
def moods(mood_server):
    with mood_server.client() as client:
        yield client


def check(answer: dict, labels: list[str], n: int) -> None:
    """What holds for every answer."""
    assert set(answer) == {"id", "object", "model", "data", "usage"}
    assert answer["object"] == "list"
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert [each["index"] for each in answer["data"]] == list(range(n))
    for each in answer["data"]:
        assert set(each) == {"object", "index", "label", "scores", "truncated"}
        assert set(each["scores"]) == set(labels)
        values = list(each["scores"].values())
        assert values == sorted(values, reverse=True)
        assert each["label"] == next(iter(each["scores"]))
        assert math.fsum(values) == pytest.approx(1.0)


# -- by a classifier's head


def test_a_classifier_gives_its_own_probabilities(moods, classifier_dir):
    texts = ["I like it", "  the end is missing\n", "<|endoftext|> is only text", "é" * 20]
    answer = ask(moods, input=texts)
    check(answer, MOODS, len(texts))
    model, tokenizer = load_model(classifier_dir), Tokenizer.from_directory(classifier_dir)
    expected = classify_texts(model, tokenizer, [text.strip() for text in texts])
    for each, row in zip(answer["data"], expected.tolist(), strict=True):
        assert [each["scores"][label] for label in MOODS] == pytest.approx(row, abs=1e-4)
        assert not each["truncated"]
    assert answer["usage"]["prompt_tokens"] == sum(len(text.strip().encode()) for text in texts)
    assert answer["model"] == "mood"


def test_one_text_and_a_list_of_one_are_the_same(moods):
    one, many = ask(moods, input="hello"), ask(moods, input=["hello"])
    assert one["data"] == many["data"]


def test_more_texts_than_slots_and_queue_keep_their_order(moods):
    texts = [f"text number {i}" for i in range(40)]
    answer = ask(moods, input=texts)
    check(answer, MOODS, 40)
    for i in (0, 17, 39):
        assert ask(moods, input=texts[i])["data"][0]["scores"] == pytest.approx(answer["data"][i]["scores"], abs=1e-6)


def test_a_text_over_the_context_loses_its_end(moods):
    long, cut = ask(moods, input=[LONG, LONG[:1024]])["data"]
    assert (long["truncated"], cut["truncated"]) == (True, False)
    assert long["scores"] == pytest.approx(cut["scores"], abs=1e-6)


def test_top_k(moods):
    everything = ask(moods, input="hello")["data"][0]
    for k in (1, 2, 3, 10):
        answer = ask(moods, input="hello", top_k=k)["data"][0]
        assert list(answer["scores"].items()) == list(everything["scores"].items())[:k]
        assert answer["label"] == everything["label"]


def test_a_classifier_takes_no_other_labels(moods):
    for name, value in (
        ("labels", LABELS),
        ("examples", [{"text": "a", "label": "good"}]),
        ("template", "{text}{label}"),
    ):
        error = refusal(moods, input="a", **{name: value})
        assert error["param"] == name
        assert "labels of its own" in error["message"]


def test_a_classifier_does_not_generate(moods):
    response = moods.post("/generate", json={"prompt": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
    assert moods.get("/v1/models/mood").json()["task"] == "classify"


def test_a_classifier_embeds_as_its_trunk_does(moods, client):
    one, other = (
        each.post("/v1/embeddings", json={"input": "hello"}).json()["data"][0]["embedding"] for each in (moods, client)
    )
    assert one == pytest.approx(other, abs=1e-5)


# -- with adapters on a language model


@pytest.fixture(scope="module")
def adapter_dirs(model_dir, tmp_path_factory):
    return make_adapters(model_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def adapted(make_server, adapter_dirs):
    folder = adapter_dirs["mood"].parent
    server = make_server(adapters_dir=str(folder), max_slots=2).wait_ready()
    with server.client() as client:
        yield client


def test_an_adapter_that_classifies(adapted, model_dir, adapter_dirs):
    answer = ask(adapted, input=["What is it?", "And now?"], model="mood")
    check(answer, MOODS, 2)
    oracle = Oracle(model_dir, adapter_dirs)
    for text, each in zip(["What is it?", "And now?"], answer["data"], strict=True):
        expected = oracle.scores(list(text.encode()), "mood").softmax(-1).tolist()
        assert [each["scores"][label] for label in MOODS] == pytest.approx(expected, abs=1e-4)
    assert refusal(adapted, input="a", model="mood", labels=LABELS)["param"] == "labels"


def test_labels_by_an_adapters_likelihood(adapted, client):
    base = ask(adapted, input="What is it?", labels=LABELS)["data"][0]["scores"]
    assert base == pytest.approx(ask(client, input="What is it?", labels=LABELS)["data"][0]["scores"], abs=1e-5)
    tuned = [ask(adapted, input="What is it?", labels=LABELS, model="one")["data"][0]["scores"] for _ in range(2)]
    assert tuned[0] == pytest.approx(tuned[1], abs=1e-5)
    assert tuned[0] != pytest.approx(base, abs=1e-3)
    assert refusal(adapted, input="a", model="one")["param"] == "labels"


# -- by likelihood


def expected_scores(model_dir, texts, labels, examples=()) -> list[list[float]]:
    """The same by plain forwards; tokens are single bytes here."""
    model = load_model(model_dir)
    shown = "".join(f"Text: {text}\nLabel: {label}\n\n" for text, label in examples)

    def means(text: str) -> list[float]:
        row = []
        for label in labels:
            stem, tail = f"{shown}Text: {text}\nLabel:".encode(), f" {label}".encode()
            logprobs = model(torch.tensor([list(stem + tail)]))[0].log_softmax(-1)
            at = range(len(stem), len(stem) + len(tail))
            row.append(sum(float(logprobs[i - 1, (stem + tail)[i]]) for i in at) / len(tail))
        return row

    bias = content_free_bias([means(text) for text in CONTENT_FREE])
    return [calibrated(means(text), bias) for text in texts]


def test_zero_shot_is_the_calibrated_likelihood(client, model_dir):
    texts = ["Is it so?", "No, never."]
    answer = ask(client, input=texts, labels=LABELS)
    check(answer, LABELS, 2)
    for each, row in zip(answer["data"], expected_scores(model_dir, texts, LABELS), strict=True):
        assert [each["scores"][label] for label in LABELS] == pytest.approx(row, abs=1e-4)
    again = ask(client, input=texts, labels=LABELS)  # its bias is known by now
    assert [each["scores"] for each in again["data"]] == [
        pytest.approx(each["scores"], abs=1e-6) for each in answer["data"]
    ]


def test_few_shot_shows_the_examples_first(client, model_dir):
    examples = [("Up", "yes"), ("Down", "not at all")]
    body = {"input": "Left", "labels": LABELS, "examples": [{"text": t, "label": label} for t, label in examples]}
    (answer,) = ask(client, **body)["data"]
    (row,) = expected_scores(model_dir, ["Left"], LABELS, examples)
    assert [answer["scores"][label] for label in LABELS] == pytest.approx(row, abs=1e-4)
    assert answer["scores"] != ask(client, input="Left", labels=LABELS)["data"][0]["scores"]


def test_a_template_of_ones_own(client):
    body = {"input": "a {label} {text}", "labels": LABELS}
    default = ask(client, **body, template="Text: {text}\nLabel: {label}")
    assert default["data"][0]["scores"] == pytest.approx(ask(client, **body)["data"][0]["scores"], abs=1e-6)
    other = ask(client, **body, template="{text} -- {label}")
    assert other["data"][0]["scores"] != default["data"][0]["scores"]


def test_a_long_text_is_cut_so_that_the_prompt_fits(client):
    answers = ask(client, input=[LONG, "short"], labels=LABELS)
    assert [each["truncated"] for each in answers["data"]] == [True, False]
    check(answers, LABELS, 2)


def prefix_tokens(client: httpx.Client) -> tuple[float, float]:
    """Prompt tokens so far: all, and those that a slot had already."""
    lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return tuple(float(lines[f"homegrown_prefix_cache_{name}_total"]) for name in ("queried_tokens", "hit_tokens"))


def test_the_shared_prefix_is_computed_once(client):
    labels = [f"label number {i}" for i in range(8)]
    body = {"input": "It was a dark night. " * 20, "labels": labels}
    body["examples"] = [{"text": "The sun rose. " * 10, "label": labels[0]}]
    ask(client, **body)  # the calibration is known from now on
    body["input"] = f"Then came the morning. {body['input']}"
    queried, hit = prefix_tokens(client)
    n_tokens = ask(client, **body)["usage"]["prompt_tokens"]
    more_queried, more_hit = prefix_tokens(client)
    computed = (more_queried - queried) - (more_hit - hit)
    assert more_queried - queried > 8 * 600
    assert computed <= n_tokens + 8 * 16  # each label's last tokens before it, and what is not worth copying


def test_many_texts_and_labels(client):
    labels = [f"label {i}" for i in range(7)]
    answer = ask(client, input=[f"text {i}" for i in range(6)], labels=labels, top_k=1)
    assert [len(each["scores"]) for each in answer["data"]] == [1] * 6


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "labels"),
        ({"labels": LABELS}, "input"),
        ({"input": "", "labels": LABELS}, "input"),
        ({"input": ["a", " \n"], "labels": LABELS}, "input[1]"),
        ({"input": [], "labels": LABELS}, "input"),
        ({"input": 5, "labels": LABELS}, "input"),
        ({"input": ["a"] * 2049, "labels": LABELS}, "input"),
        ({"input": "a", "labels": ["one"]}, "labels"),
        ({"input": "a", "labels": ["one", "one"]}, "labels"),
        ({"input": "a", "labels": ["one", " "]}, "labels"),
        ({"input": "a", "labels": ["one", "x" * 201]}, "labels"),
        ({"input": "a", "labels": [str(i) for i in range(129)]}, "labels"),
        ({"input": "a", "labels": "one"}, "labels"),
        ({"input": ["a"] * 1639, "labels": [str(i) for i in range(10)]}, "input"),
        ({"input": "a", "labels": LABELS, "top_k": 0}, "top_k"),
        ({"input": "a", "labels": LABELS, "template": "{text}"}, "template"),
        ({"input": "a", "labels": LABELS, "template": "{label} {text}"}, "template"),
        ({"input": "a", "labels": LABELS, "template": "{text} {text} {label}"}, "template"),
        ({"input": "a", "labels": LABELS, "examples": [{"text": "b", "label": "no"}]}, "examples[0].label"),
        ({"input": "a", "labels": LABELS, "examples": [{"text": " ", "label": "yes"}]}, "examples[0].text"),
        ({"input": "a", "labels": LABELS, "examples": [{"text": "b"}]}, "examples[0].label"),
        ({"input": "a", "labels": LABELS, "examples": [{"text": LONG, "label": "yes"}]}, "examples"),
        ({"input": "a", "labels": ["x" * 190, *(str(i) for i in range(9))], "template": "y" * 900 + "{text}{label}"}, "template"),
    ],
)  # fmt: skip
def test_mistakes_are_named(client, body, param):
    error = refusal(client, **body)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/classify", {"input": ["a", "?"], "labels": LABELS}, None),
        ("/classify", {"input": "a", "labels": ["one", "?"]}, "labels"),
        ("/classify", {"input": "a", "labels": LABELS, "template": "?{text}{label}"}, "template"),
        ("/classify", {"input": "a", "labels": LABELS, "examples": [{"text": "?", "label": "yes"}]}, "examples[0].text"),
        ("/v1/embeddings", {"input": ["a", "?"]}, "input"),
        ("/tokenize", {"prompt": "?"}, None),
        ("/instruct", {"instruction": "?"}, "instruction"),
        ("/instruct", {"instruction": "a", "input": "?", "max_tokens": 1}, None),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_refused_or_replaced(client, path, body, param):
    content = json.dumps(body).replace("?", "\\ud800")
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == (200 if param is None else 400)
    assert response.json().get("error", {}).get("param") == param
    if path == "/tokenize":
        assert bytes(byte for piece in response.json()["pieces"] for byte in piece).decode() == "\ufffd"


def test_an_unknown_model(client):
    response = client.post("/classify", json={"input": "a", "labels": LABELS, "model": "../mood"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


# -- in company


def test_a_client_that_leaves_a_large_batch_frees_the_slots(server):
    texts = [f"{i} {LONG}" for i in range(12)]  # nothing that they could share
    body = json.dumps({"input": texts, "labels": LABELS}).encode()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with server.connect() as connection:
        connection.sendall(head.encode() + body)
        deadline = time.monotonic() + 20
        while server.counts()["running"] == 0:
            assert time.monotonic() < deadline
    server.wait_idle(within=5)
    time.sleep(0.1)
    assert server.counts()["running"] == 0, "nothing more of it is begun"


def test_batches_beside_each_other_and_beside_generation(server):
    def classify(i: int) -> list:
        with server.client() as client:
            return ask(client, input=[f"{i} {j}" for j in range(8)], labels=LABELS)["data"]

    alone = [classify(i) for i in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool, server.client() as client:
        together = [pool.submit(classify, i) for i in range(2)]
        assert client.post("/generate", json={"prompt": "a", "max_tokens": 8}).status_code in (200, 429)
        for one, other in zip(alone, together, strict=True):
            for a, b in zip(one, other.result(), strict=True):
                assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)


def test_more_batches_than_can_wait_are_answered_or_refused(mood_server):
    texts = [f"text {i}" for i in range(10)]

    def classify(_: int) -> httpx.Response:
        with mood_server.client() as client:
            return client.post("/classify", json={"input": texts})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(classify, range(24)))
    answered = [response.json()["data"] for response in responses if response.status_code == 200]
    assert answered
    for data in answered:
        assert [each["label"] for each in data] == [each["label"] for each in answered[0]]
        assert len(data) == 10
    for response in responses:
        assert response.status_code == 200 or response.json()["error"]["code"] == "queue_full"
    mood_server.wait_idle()


def test_many_labels_of_short_texts_are_long_work_too():
    few, many = ["a", "b"], [str(i) for i in range(128)]
    assert _characters(["a short text"], few, []) < 100
    assert _characters(["short"] * 128, many, []) > 50_000
    assert _characters(["short"] * 128, few, [("an example", "a")]) > 4000
