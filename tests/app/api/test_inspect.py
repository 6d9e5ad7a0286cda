"""POST /inspect over a real socket: what it tells is the model's own, it has bounds, and it disturbs nobody."""

import math
import os
import signal
import subprocess
import threading

import pytest
from oracle import make_adapters
from serving import Server, events, wait_for

TEXT = "The séa"
LONG = {"prompt": "hello", "max_tokens": 300, "ignore_eos": True, "temperature": 0}


def error_of(response, status: int, **members) -> dict:
    assert response.status_code == status, response.text[:500]
    error = response.json()["error"]
    assert members.items() <= error.items()
    assert "/" not in error["message"]
    return error


def inspector_pid(server: Server) -> int | None:
    command = ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return next((int(line.split()[0]) for line in lines if "app.engine.inspecting" in line), None)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_its_shape(client):
    seen = client.post("/inspect", json={"text": TEXT})
    assert seen.status_code == 200, seen.text
    body = seen.json()
    assert body["id"].startswith("inspect-")
    assert (body["model"], body["layers"], body["heads"], body["attention_layers"]) == ("tiny", 2, 4, [0, 1])
    data = TEXT.encode()
    assert [token["id"] for token in body["tokens"]] == list(data)
    assert [token["bytes"] for token in body["tokens"]] == [[byte] for byte in data]
    assert [token["text"] for token in body["tokens"]] == list("The s\ufffd\ufffda")
    count = len(data)
    assert [[len(head) for head in layer] for layer in body["attention"]] == [[count] * 4] * 2
    for row_number in range(count):
        for layer in body["attention"]:
            for head in layer:
                row = head[row_number]
                assert len(row) == count
                assert sum(row) == pytest.approx(1, abs=0.0001 * count)
                assert not any(row[row_number + 1 :])
                assert all(share == round(share, 4) >= 0 for share in row)
    assert [[len(best) for best in layer] for layer in body["lens"]] == [[5] * count] * 3
    for layer in body["lens"]:
        for best in layer:
            shares = [each["probability"] for each in best]
            assert shares == sorted(shares, reverse=True)
            assert all(
                each["text"] == bytes([each["id"]]).decode("utf-8", "replace") for each in best if each["id"] < 256
            )
            assert all(each["bytes"] == [each["id"]] for each in best if each["id"] < 256)


def test_the_last_of_the_lens_is_what_the_model_says_next(client):
    last = client.post("/inspect", json={"text": TEXT, "layers": []}).json()["lens"][-1]
    ask = {"prompt": TEXT, "echo": True, "max_tokens": 1, "logprobs": 5, "temperature": 0}
    told = client.post("/v1/completions", json=ask).json()["choices"][0]["logprobs"]
    # The alternatives of the token at each place are those that were likeliest behind the one before.
    assert len(told["top_logprobs"]) == len(last) + 1
    for best, expected in zip(last, told["top_logprobs"][1:], strict=True):
        likeliest = sorted(map(math.exp, expected.values()), reverse=True)[:5]
        ours = [each["probability"] for each in best]
        # (Parts of characters share a name there, so some may be missing.)
        assert ours[0] == pytest.approx(likeliest[0], abs=1e-4)
        assert all(any(share == pytest.approx(one, abs=1e-4) for one in ours) for share in likeliest[:4])


def test_only_the_layers_asked_for(client):
    whole = client.post("/inspect", json={"text": TEXT}).json()
    part = client.post("/inspect", json={"text": TEXT, "layers": [1]}).json()
    assert part["attention_layers"] == [1]
    assert part["attention"] == whole["attention"][1:]
    assert (part["lens"], part["tokens"]) == (whole["lens"], whole["tokens"])
    assert client.post("/inspect", json={"text": TEXT, "layers": []}).json()["attention"] == []


def test_an_empty_text_is_read_as_a_prompt_is(client):
    body = client.post("/inspect", json={"text": ""}).json()
    assert [(token["id"], token["text"]) for token in body["tokens"]] == [(256, "<|endoftext|>")]
    assert body["attention"] == [[[[1.0]]] * 4] * 2


def test_the_longest_text_and_one_that_is_longer(client):
    assert len(client.post("/inspect", json={"text": "a" * 128}).json()["tokens"]) == 128
    error = error_of(client.post("/inspect", json={"text": "a" * 129}), 400, param="text", code="invalid_value")
    assert "129 tokens" in error["message"]
    assert "at most 128" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"layers": [2]}, "layers"), ({"layers": [-1]}, "layers[0]"), ({"layers": [0, "1"]}, "layers[1]"),
        ({"layers": 1}, "layers"), ({"layers": [0] * 5000}, "layers"),
        ({"layers": [1] * 100, "text": "a" * 128}, "layers"), ({"text": None}, "text"),
        ({"text": 5}, "text"), ({"text": ["a"]}, "text"),
    ],
)  # fmt: skip
def test_mistakes_name_the_field(client, fields, param):
    error = error_of(client.post("/inspect", json={"text": "a", **fields}), 400, param=param)
    assert len(error["message"]) < 300


def test_streams_go_on_beside_it_and_say_the_same(client, server):
    alone = client.post("/generate", json=LONG).json()["text"]
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        with server.client() as own:
            while not done.is_set():
                seen.append(own.post("/inspect", json={"text": "a" * 60}).status_code)

    thread = threading.Thread(target=look)
    thread.start()
    wait_for(lambda: seen, what="a first answer")
    try:
        beside = [events_of(client) for _ in range(3)]
    finally:
        done.set()
        thread.join()
    assert beside == [alone] * 3
    assert set(seen) == {200}


def events_of(client) -> str:
    with client.stream("POST", "/generate", json=LONG | {"stream": True}) as response:
        return "".join(event["text"] for event in events(response))


# -- its process, and other models


@pytest.fixture(scope="module")
def many(make_server, model_dir, tmp_path_factory):
    """A server with adapters; one of them classifies."""
    folder = tmp_path_factory.mktemp("adapters")
    made = make_adapters(model_dir, tmp_path_factory.mktemp("made"))
    for name in ("one", "mood"):
        made[name].rename(folder / name)
    return make_server(adapters_dir=folder, aliases="first=one", max_slots=2, request_timeout=8).wait_ready()


@pytest.mark.slow
def test_an_adapter_is_looked_into_by_name_and_a_classifier_is_not(many):
    with many.client() as client:
        base, adapted, alias = (
            client.post("/inspect", json={"text": TEXT, "model": name}).json() for name in ("tiny", "one", "first")
        )
        assert base["attention"] != adapted["attention"] == alias["attention"]
        assert (adapted["model"], alias["model"]) == ("one", "first")
        error = error_of(client.post("/inspect", json={"text": TEXT, "model": "mood"}), 400, param="model")
        assert "classifier" in error["message"]
        error_of(client.post("/inspect", json={"text": TEXT, "model": "two"}), 404, code="model_not_found")


@pytest.mark.slow
def test_a_process_that_hangs_or_is_killed_is_told_in_the_one_shape(many):
    answers: list = []

    def ask() -> None:
        with many.client() as client:
            answers.append(client.post("/inspect", json={"text": TEXT}))

    wait_for(lambda: ask() or answers[-1].status_code == 200, what="a first answer")  # a start may take too long here
    pid = inspector_pid(many)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    ask()
    error_of(answers[-1], 504, code="timeout", type="server_error")
    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: many.counts(), what="the question to be on its way")
    os.kill(pid, signal.SIGKILL)
    thread.join()
    if answers[-1].status_code != 200:  # it was killed over the question that nobody waits for any more
        error = error_of(answers[-1], 503, code="inspector_unavailable", type="server_error")
        assert "try again" in error["message"]
        assert answers[-1].headers["retry-after"]
    wait_for(lambda: ask() or answers[-1].status_code == 200, what="an answer again")
    with many.client() as client:
        assert client.post("/generate", json=LONG | {"max_tokens": 3}).status_code == 200
        assert client.get("/status").json()["memory"]["inspector"] > 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_server(make_server, number):
    server = make_server(max_slots=1).wait_ready()
    with server.client() as client:
        assert client.post("/inspect", json={"text": TEXT}).status_code == 200
    pid = inspector_pid(server)
    assert pid is not None
    assert alive(pid)
    code = server.stop(number)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not alive(pid), 10, what="the inspector's end")
    assert "Traceback" not in server.log
