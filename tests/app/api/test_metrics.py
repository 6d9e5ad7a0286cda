"""GET /metrics over a real socket: everything is counted, once, under labels that clients can't choose."""

import json
import os
import signal
import socket
import threading
import time
from itertools import pairwise

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from serving import wait_for

from app.engine.client import EngineClient
from app.engine.messages import (
    EngineSpec,
    EngineUnavailable,
    Finish,
    InvalidRequest,
    Loaded,
    RequestCancelled,
    RequestFault,
    RequestTimeout,
    Started,
    Step,
    Submit,
    Timings,
    Update,
)
from app.metrics import ABORTED, FINISHED, REJECTED, TIMES, Histogram, Metrics
from app.retry import retry_seconds
from model.sampling_params import SamplingParams

LONG = {"prompt": "hello", "max_tokens": 1000, "ignore_eos": True, "seed": 1}
SLOW = {"backend": "torch", "speculate": False}  # so that a long answer lasts until it has been looked at
# http.md's list, by the names it has here.
GAUGES = {"requests_running", "requests_waiting", "slots_in_use", "slots", "engine_startup_seconds", "engine_up"}
COUNTERS = {
    "requests_finished", "requests_aborted", "requests_rejected", "prompt_tokens", "generation_tokens",
    "prefix_cache_queried_tokens", "prefix_cache_hit_tokens", "engine_restarts", "http_responses",
}  # fmt: skip
HISTOGRAMS = {
    "time_to_first_token_seconds", "inter_token_latency_seconds", "queue_time_seconds", "prefill_time_seconds",
    "decode_time_seconds", "request_time_seconds", "prompt_length_tokens", "output_length_tokens", "step_time_seconds",
    "step_batch_size",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(make_server):
    return make_server(max_slots=1, max_queue=1, prefill_chunk=64, **SLOW).wait_ready()


@pytest.fixture
def client(served):
    served.wait_idle()
    with served.client() as client:
        yield client


def scrape(client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name without prefix, labels) -> value."""
    families = parse_text(client.get("/metrics").text)
    return {
        (sample.name.removeprefix("homegrown_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Watch:
    """How much the samples have grown since it was made."""

    def __init__(self, client) -> None:
        self._client, self._before = client, scrape(client)

    def grown(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return scrape(self._client)[key] - self._before.get(key, 0.0)

    def wait(self, value: float, name: str, **labels: str) -> None:
        wait_for(lambda: self.grown(name, **labels) == value, 5, what=f"{name} {labels} to grow by {value}")


def test_all_of_the_contract_is_there_described_and_of_the_right_kind(client):
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {f.name.removeprefix("homegrown_"): f for f in parse_text(response.text)}
    for names, kind in ((GAUGES, "gauge"), (COUNTERS, "counter"), (HISTOGRAMS, "histogram")):
        for name in names:
            assert families[name].type == kind, name
            assert families[name].documentation, name
    assert {f"{name}" for name in families if not name.startswith("process_")} == GAUGES | COUNTERS | HISTOGRAMS | {
        "model_info"
    }
    (info,) = families["model_info"].samples
    assert (info.labels["model"], info.labels["architecture"], info.labels["device"], info.value) == (
        "tiny",
        "llama",
        "cpu",
        1,
    )
    assert families["engine_startup_seconds"].samples[0].value > 0
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6


def test_openmetrics_on_request(client):
    response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "homegrown_prompt_tokens" in {family.name for family in parse_openmetrics(response.text)}


@pytest.mark.parametrize(
    "accept",
    [
        b"text/plain; version=x.y",
        b"text/plain; version=\xe9",
        b"*/*;q=0.1, ;;=,",
        b"application/openmetrics-text; version=abc",
        b"application/openmetrics-text; version=9.9.9<script>",
        b"Application/OpenMetrics-Text; version=1.0.0; escaping=none",
    ],
)
def test_whatever_is_accepted_one_of_two_formats_comes(client, accept):
    response = client.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] in (
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )
    assert ("openmetrics" in response.headers["content-type"]) is response.text.endswith("# EOF\n")


def test_buckets_resolve_1_to_50_ms():
    inside = [bound for bound in TIMES if 0.001 <= bound <= 0.05]
    assert inside[0] == 0.001
    assert inside[-1] == 0.05
    assert all(after / before <= 1.51 for before, after in pairwise(inside))


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_counted_once_with_all_its_tokens_and_times(client, stream):
    watch = Watch(client)
    body = {"prompt": "abcdefghij", "max_tokens": 20, "ignore_eos": True, "stream": stream}
    assert client.post("/generate", json=body).status_code == 200
    watch.wait(1, "requests_finished_total", reason="length")
    assert watch.grown("prompt_tokens_total") == watch.grown("prefix_cache_queried_tokens_total") == 10
    assert watch.grown("generation_tokens_total") == 20
    assert watch.grown("inter_token_latency_seconds_count") == 19
    for name in HISTOGRAMS - {"inter_token_latency_seconds", "step_time_seconds", "step_batch_size"}:
        assert watch.grown(f"{name}_count") == 1, name
    assert watch.grown("prompt_length_tokens_sum") == 10
    assert watch.grown("output_length_tokens_sum") == 20
    assert watch.grown("step_time_seconds_count") == 20
    assert watch.grown("step_batch_size_sum") == watch.grown("step_batch_size_count")  # one request a step
    whole = watch.grown("request_time_seconds_sum")
    parts = [watch.grown(f"{part}_time_seconds_sum") for part in ("queue", "prefill", "decode")]
    assert 0 < sum(parts) <= whole + 0.05
    assert (
        watch.grown("time_to_first_token_seconds_sum") + watch.grown("inter_token_latency_seconds_sum") <= whole + 0.05
    )
    assert sum(watch.grown("requests_aborted_total", reason=reason) for reason in ABORTED) == 0
    assert watch.grown("http_responses_total", status="200") >= 1


def test_a_warm_prefix_is_a_hit(client):
    body = {"prompt": "the very same prompt, long enough", "max_tokens": 1}
    client.post("/generate", json=body)
    watch = Watch(client)
    client.post("/generate", json=body)
    watch.wait(1, "queue_time_seconds_count")
    queried, hit = watch.grown("prefix_cache_queried_tokens_total"), watch.grown("prefix_cache_hit_tokens_total")
    assert queried == len(body["prompt"])
    assert hit == queried - 1  # the last token is always computed


def test_a_part_of_a_prompt_is_a_step_too(client):
    watch = Watch(client)
    client.post("/generate", json={"prompt": "xyz" * 100, "max_tokens": 1})
    watch.wait(1, "request_time_seconds_count")
    assert watch.grown("step_time_seconds_count") >= 5  # chunks of 64 of 300 tokens


def test_a_stop_string_ends_well(client):
    text = client.post("/generate", json=LONG | {"max_tokens": 60}).json()["text"]
    watch = Watch(client)
    answer = client.post("/generate", json=LONG | {"stop": text[30:33]}).json()
    assert answer["finish_reason"] == "stop"
    watch.wait(1, "requests_finished_total", reason="stop")
    assert sum(watch.grown("requests_aborted_total", reason=reason) for reason in ABORTED) == 0


def send(served, body: dict, path: str = "/generate") -> socket.socket:
    data = json.dumps(body).encode()
    sock = served.connect()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_an_abort_and_gauges_return_to_0(served, client, stream):
    watch = Watch(client)
    with send(served, LONG | {"stream": stream}):
        wait_for(lambda: scrape(client)["requests_running", ()] == 1, 5, what="a running request")
        assert scrape(client)["slots_in_use", ()] == 1
    watch.wait(1, "requests_aborted_total", reason="client_gone")
    wait_for(lambda: scrape(client)["slots_in_use", ()] == 0, 5, what="a free slot")
    after = scrape(client)
    assert (after["requests_running", ()], after["requests_waiting", ()]) == (0, 0)
    assert sum(watch.grown("requests_finished_total", reason=reason) for reason in FINISHED) == 0
    if not stream:  # a stream had its status already
        watch.wait(1, "http_responses_total", status="499")


def test_choices_that_fail_or_are_left_together_are_counted_alike(served, client):
    watch = Watch(client)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "nonsense"}}}
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "max_tokens": 5, "response_format": schema}
    assert client.post("/v1/chat/completions", json=body).status_code == 400
    watch.wait(2, "requests_aborted_total", reason="refused")
    assert watch.grown("requests_aborted_total", reason="client_gone") == 0
    assert sum(watch.grown("requests_rejected_total", reason=reason) for reason in REJECTED) == 0  # it had come further
    with send(served, LONG | {"n": 2}, "/v1/completions"):
        wait_for(lambda: served.counts()["running"] == 1, 5, what="a running request")
    watch.wait(2, "requests_aborted_total", reason="client_gone")


def test_a_full_queue_rejects_and_says_when_to_come_back(served, client):
    watch = Watch(client)
    stop, refused = threading.Event(), []

    def keep_asking() -> None:
        with served.client() as own:
            while not stop.is_set():
                response = own.post("/generate", json=LONG)
                if response.status_code == 429:
                    refused.append(response)
                    time.sleep(0.01)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(refused) >= 5, 20, what="refusals")
    stop.set()
    for thread in threads:
        thread.join()
    assert all(1 <= int(response.headers["retry-after"]) <= 60 for response in refused)
    watch.wait(len(refused), "requests_rejected_total", reason="queue_full")
    assert watch.grown("http_responses_total", status="429") == len(refused)
    assert sum(watch.grown("requests_aborted_total", reason=reason) for reason in ABORTED) == 0


def test_what_is_wrong_is_rejected_by_its_code(client):
    watch = Watch(client)
    post = client.post
    post("/generate", json={"prompt": "a", "temperature": 9})
    post("/generate", json={"prompt": "a", "suffix": "b"})
    post("/generate", json={"prompt": "a", "model": "nope"})
    post("/generate", json={"prompt": "a" * 2000})
    post("/generate", content="{", headers={"content-type": "application/json"})
    post("/generate", content="a", headers={"content-type": "text/plain"})
    client.get("/generate")
    client.get("/nowhere")
    for reason in (
        "invalid_value", "unsupported_parameter", "model_not_found", "context_length_exceeded", "invalid_request",
        "unsupported_media_type", "method_not_allowed", "not_found",
    ):  # fmt: skip
        watch.wait(1, "requests_rejected_total", reason=reason)


def test_what_clients_send_makes_no_new_series(client):
    before = set(scrape(client))
    for number in range(20):
        client.get(f"/made/up/{number}")
        client.request(f"METHOD{number}", "/generate")
        client.post("/generate", json={"prompt": "a", "model": f"m{number}", f"field{number}": 1})
        client.get("/health", headers={"x-request-id": f"id{number}", "user-agent": f"agent{number}"})
    new = set(scrape(client)) - before
    assert all(name == "http_responses_total" for name, _ in new)  # statuses are ours
    rejected = {dict(labels)["reason"] for name, labels in scrape(client) if name == "requests_rejected_total"}
    assert rejected == set(REJECTED)


def test_a_killed_engine_aborts_and_is_counted_when_it_is_back(make_server):
    server = make_server(max_slots=1, **SLOW).wait_ready()
    with server.client() as client:
        watch = Watch(client)
        with send(server, LONG | {"stream": True}) as sock:
            wait_for(lambda: server.counts()["running"] == 1, 5, what="a running request")
            os.kill(server.engine_pid(), signal.SIGKILL)
            while b"[DONE]" not in sock.recv(65536):
                pass
        watch.wait(1, "requests_aborted_total", reason="engine_dead")
        assert scrape(client)["engine_up", ()] == 0
        refused = client.post("/generate", json=LONG)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_dead")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        watch.wait(1, "requests_rejected_total", reason="engine_dead")
        server.wait_ready()
        assert watch.grown("engine_restarts_total") == 1
        assert scrape(client)["engine_up", ()] == 1


def test_a_server_that_drains_can_still_be_watched(make_server):
    server = make_server(max_slots=1, **SLOW).wait_ready()
    with server.client() as client, send(server, LONG | {"stream": True}) as sock:
        wait_for(lambda: server.counts()["running"] == 1, 5, what="a running request")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.get("/ready").status_code == 503, 5, what="the drain")
        assert client.post("/generate", json=LONG).json()["error"]["code"] == "shutting_down"
        after = scrape(client)
        assert after["requests_rejected_total", (("reason", "shutting_down"),)] == 1
        while b"[DONE]" not in sock.recv(65536):
            pass
    assert server.wait() == 0


# -- without a server


@pytest.fixture
def metrics(model_dir):
    return Metrics(EngineClient(EngineSpec(model=str(model_dir))), {"model": "tiny"})


def submit(metrics, number, task="generate"):
    metrics.on_submit(Submit(number, [1, 2, 3], 5, SamplingParams(), 0, task=task, sent=time.monotonic()))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RequestCancelled("x"), "client_gone"),
        (RequestTimeout("x", "queue_timeout"), "queue_timeout"),
        (RequestTimeout("x", "run_timeout"), "run_timeout"),
        (EngineUnavailable("engine_dead"), "engine_dead"),
        (EngineUnavailable("shutting_down"), "shutting_down"),
        (RequestFault("x"), "fault"),
        (InvalidRequest("x", "grammar"), "refused"),
    ],
)
def test_every_way_to_end_early_has_its_reason(metrics, error, reason):
    submit(metrics, 1)
    metrics.on_end(1, error)
    metrics.on_end(1, error)  # a second end is nobody's
    assert metrics.aborted == dict.fromkeys(ABORTED, 0) | {reason: 1}
    assert metrics.whole.counts == [0] * len(metrics.whole.counts)


def test_a_result_without_tokens_is_done(metrics):
    submit(metrics, 1, "embed")
    metrics.on_step(Step([Update(1, [], started=Started(0.5, 0.25, 2), finish="done")], 0, 0, 0.1, 3))
    metrics.on_end(1, None)
    assert metrics.finished["done"] == 1
    assert sum(metrics.first_token.counts) == sum(metrics.output_length.counts) == 0
    assert (metrics.prompt_tokens, metrics.cached_tokens, metrics.batch.total) == (3, 2, 3)


def test_steps_of_requests_that_have_left_count_their_time_alone(metrics):
    metrics.on_step(Step([Update(7, [1, 2])], 1, 0, 0.01, 1))
    assert metrics.generation_tokens == 0
    assert sum(metrics.step.counts) == 1
    metrics.on_step(Step([], 0, 0))  # a heartbeat
    assert sum(metrics.step.counts) == 1


def test_several_tokens_of_a_step_share_its_time(metrics):
    submit(metrics, 1)
    metrics.on_step(Step([Update(1, [5], started=Started(0.0, 0.0))], 1, 0, 0.01, 1))
    metrics.on_step(Step([Update(1, [5, 6, 7, 8])], 1, 0, 0.01, 1))
    assert sum(metrics.inter_token.counts) == 4
    metrics.on_end(1, Finish("stop", None, 3, 5, Timings(0.0, 0.0, 0.01)))
    assert metrics.finished["stop"] == 1


def test_a_histograms_buckets_are_cumulative_and_include_their_bounds():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    samples = {(s.name, s.labels.get("le")): s.value for s in histogram.family("x", "X.").samples}
    assert samples == {
        ("homegrown_x_bucket", "1.0"): 2, ("homegrown_x_bucket", "2.0"): 4, ("homegrown_x_bucket", "+Inf"): 5,
        ("homegrown_x_count", None): 5, ("homegrown_x_sum", None): 14.0,
    }  # fmt: skip


def test_an_hours_worth_of_tokens_costs_little(metrics):
    for number in range(32):
        submit(metrics, number)
    updates = [Update(number, [1]) for number in range(32)]
    began = time.perf_counter()
    for _ in range(1000):
        metrics.on_step(Step(updates, 32, 0, 0.01, 32))
    assert time.perf_counter() - began < 1.0  # 31 us a token; it takes about one


def test_retry_after_is_an_estimate(model_dir):
    engine = EngineClient(EngineSpec(model=str(model_dir)))
    status = engine.status
    full = msgspec.structs.replace(status, state="ready", slots=4, waiting=40)
    ask = {"slot_seconds": 2.0, "startup_seconds": 7.2, "age": 3.4}
    assert retry_seconds("queue_full", full, **ask) == 10  # half of 40, four at a time, 2 s each
    assert retry_seconds("queue_full", full, **(ask | {"slot_seconds": 0.0})) == 1
    assert retry_seconds("queue_full", full, **(ask | {"slot_seconds": 500.0})) == 60
    assert retry_seconds("model_loading", status, **ask) == 4
    assert retry_seconds("engine_dead", status, **ask) == 8
    assert retry_seconds("shutting_down", status, **ask) == 8


def test_the_engines_facts_are_labels_once_it_has_loaded(metrics):
    metrics.on_ready(Loaded(4, 512, 257, "float32", "cpu", 1, "2", 1.5, quantize="int8"), again=True)
    info = next(family for family in metrics.collect() if family.name == "homegrown_model").samples[0].labels
    assert (info["model"], info["dtype"], info["quantize"], info["context"]) == ("tiny", "float32", "int8", "512")
    assert (metrics.restarts, metrics.startup_seconds) == (1, 1.5)
