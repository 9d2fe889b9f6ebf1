"""What every engine must do, checked over the wire."""

from __future__ import annotations

import re

import pytest
from wire_client import until

from profiler.errors import EngineError


def counted(wire, ours: str, vllm: str) -> float:
    """A counter or gauge of /metrics by its name in our own servers or in vLLM, whose names carry labels."""
    values = wire.running.metrics()
    return sum(value for name, value in values.items() if name in (ours, vllm) or name.startswith(f"{vllm}{{"))


def running_requests(wire) -> float:
    return counted(wire, "slm_server_requests_running", "vllm:num_requests_running")


def test_token_ids_and_usage_agree(wire):
    reply = wire.stream(max_tokens=9, ignore_eos=True)
    assert reply.status == 200 and reply.done
    counts = [len(chunk["choices"][0]["token_ids"]) for chunk in reply.chunks]
    assert counts == [1] * 9
    assert [chunk["usage"]["completion_tokens"] for chunk in reply.chunks] == list(range(1, 10))
    last = reply.events[-1]
    assert last["choices"] == []
    assert last["usage"].items() >= {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}.items()
    assert [c["choices"][0]["finish_reason"] for c in reply.chunks] == [None] * 8 + ["length"]


def test_stream_and_whole_say_the_same(wire):
    streamed, whole = wire.stream(max_tokens=12), wire.complete(max_tokens=12, return_token_ids=True)
    assert "".join(c["choices"][0]["text"] for c in streamed.chunks) == whole.json["choices"][0]["text"]
    assert [i for c in streamed.chunks for i in c["choices"][0]["token_ids"]] == whole.json["choices"][0]["token_ids"]
    assert whole.json["usage"]["completion_tokens"] == len(whole.json["choices"][0]["token_ids"])


def test_without_asking_there_is_no_usage_and_no_ids(wire):
    reply = wire.complete(stream=True, max_tokens=3)
    assert all(event.get("usage") is None and event["choices"][0].get("token_ids") is None for event in reply.events)


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
    until(lambda: running_requests(wire) == 1, "the request is not seen to run")  # vLLM counts after its step
    sock.close()
    until(lambda: running_requests(wire) == 0, "the request outlived its client")
    assert wire.stream(max_tokens=2).done


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"model": "another"}, 404, "another"),
        ({"max_tokens": 10_000_000}, 400, "context|max_model_len"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": [1, "a"]}, 400, "prompt"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, 400, "min_tokens"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"n": 2}, 400, r"\bn\b.*2"),
    ],
)
def test_bad_requests_are_told(wire, fields, status, word):
    reply = wire.complete(**fields)
    assert reply.status == status
    assert re.search(word, reply.json["error"]["message"])


def test_bad_json_is_told(wire):
    reply = wire.call("POST", "/v1/completions", b'{"prompt": ')
    assert reply.status == 400 and "JSON" in reply.json["error"]["message"]


def test_health_models_and_unknown_paths(wire):
    assert wire.call("GET", "/health").status == 200
    assert [m["id"] for m in wire.call("GET", "/v1/models").json["data"]] == [wire.model]
    assert wire.call("GET", "/nothing").status == 404
    assert wire.call("GET", "/v1/completions").status == 405


def test_metrics_count_tokens(wire):
    def now() -> list[float]:
        written = counted(wire, "slm_server_generation_tokens_total", "vllm:generation_tokens_total")
        read = counted(wire, "slm_server_prompt_tokens_total", "vllm:prompt_tokens_total")
        done = counted(wire, 'slm_server_requests_total{outcome="done"}', "vllm:request_success_total")
        return [written, read, done]

    until(lambda: running_requests(wire) == 0, "idle before")
    before = now()
    wire.complete(max_tokens=7, ignore_eos=True)
    until(lambda: [b - a for a, b in zip(before, now(), strict=True)] == [7, 4, 1], "tokens and requests are miscounted")


def test_reset_is_refused_while_requests_run(wire):
    until(lambda: running_requests(wire) == 0, "idle before")
    # A prompt of its own that fills whole blocks: a cache that holds nothing has nothing to refuse.
    sock = wire.open_stream(prompt=list(range(100, 400)), max_tokens=4000)
    with pytest.raises(EngineError, match="reset"):
        wire.running.reset_prefix_cache()
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
