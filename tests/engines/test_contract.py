"""What every engine must do, checked over the wire."""

from __future__ import annotations

import pytest
from wire_client import until


def running_requests(wire) -> float:
    return wire.running.metrics()["slm_server_requests_running"]


def test_token_ids_and_usage_agree(wire):
    reply = wire.stream(max_tokens=9, ignore_eos=True)
    assert reply.status == 200 and reply.done
    counts = [len(chunk["choices"][0]["token_ids"]) for chunk in reply.chunks]
    assert counts == [1] * 9
    assert [chunk["usage"]["completion_tokens"] for chunk in reply.chunks] == list(range(1, 10))
    last = reply.events[-1]
    assert last["choices"] == [] and last["usage"] == {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}
    assert [c["choices"][0]["finish_reason"] for c in reply.chunks] == [None] * 8 + ["length"]


def test_stream_and_whole_say_the_same(wire):
    streamed, whole = wire.stream(max_tokens=12), wire.complete(max_tokens=12, return_token_ids=True)
    assert "".join(c["choices"][0]["text"] for c in streamed.chunks) == whole.json["choices"][0]["text"]
    assert [i for c in streamed.chunks for i in c["choices"][0]["token_ids"]] == whole.json["choices"][0]["token_ids"]
    assert whole.json["usage"]["completion_tokens"] == len(whole.json["choices"][0]["token_ids"])


def test_without_asking_there_is_no_usage_and_no_ids(wire):
    reply = wire.complete(stream=True, max_tokens=3)
    assert all("usage" not in event and "token_ids" not in event["choices"][0] for event in reply.events)


def test_min_tokens_and_ignore_eos_pin_the_length(wire):
    reply = wire.chat(max_tokens=40, min_tokens=40, ignore_eos=True)
    assert reply.json["usage"]["completion_tokens"] == 40
    assert reply.json["choices"][0]["finish_reason"] == "length"


def test_chat_streams_a_role_then_text(wire):
    reply = wire.chat(stream=True, max_tokens=5)
    deltas = [c["choices"][0]["delta"] for c in reply.chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d["content"] for d in deltas)


def test_a_client_that_leaves_frees_its_request(wire):
    until(lambda: running_requests(wire) == 0, "idle before")
    sock = wire.open_stream(max_tokens=4000)
    assert running_requests(wire) == 1
    sock.close()
    until(lambda: running_requests(wire) == 0, "the request outlived its client")
    assert wire.stream(max_tokens=2).done


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"model": "another"}, 404, "another"),
        ({"max_tokens": 10_000_000}, 400, "context"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": [1, "a"]}, 400, "prompt"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, 400, "min_tokens"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"n": 2}, 400, "n=2"),
    ],
)
def test_bad_requests_are_told(wire, fields, status, word):
    reply = wire.complete(**fields)
    assert reply.status == status
    assert word in reply.json["error"]["message"]


def test_bad_json_is_told(wire):
    reply = wire.call("POST", "/v1/completions", b'{"prompt": ')
    assert reply.status == 400 and "JSON" in reply.json["error"]["message"]


def test_health_models_and_unknown_paths(wire):
    assert wire.call("GET", "/health").status == 200
    assert [m["id"] for m in wire.call("GET", "/v1/models").json["data"]] == [wire.model]
    assert wire.call("GET", "/nothing").status == 404
    assert wire.call("GET", "/v1/completions").status == 405


def test_metrics_count_tokens(wire):
    before = wire.running.metrics()
    wire.complete(max_tokens=7, ignore_eos=True)
    after = wire.running.metrics()
    assert after["slm_server_generation_tokens_total"] - before["slm_server_generation_tokens_total"] == 7
    assert after["slm_server_prompt_tokens_total"] - before["slm_server_prompt_tokens_total"] == 4
    done = 'slm_server_requests_total{outcome="done"}'
    assert after[done] - before[done] == 1


def test_reset_is_refused_while_requests_run(wire):
    until(lambda: running_requests(wire) == 0, "idle before")
    sock = wire.open_stream(max_tokens=4000)
    assert wire.call("POST", "/reset_prefix_cache").status == 409
    sock.close()
    until(lambda: running_requests(wire) == 0, "the request outlived its client")
    wire.running.reset_prefix_cache()
    assert wire.stream(max_tokens=2).done


def test_running_engine_tells_about_itself(wire):
    running = wire.running
    assert running.alive() and running.start_id
    if running.pid is None:
        assert running.peak_memory_bytes() is None and running.device_source == "declared"
    else:
        assert running.peak_memory_bytes() > 1_000_000
        assert running.ready_s > 0 and running.load_s is not None
        assert running.device_source == "observed" and running.versions
