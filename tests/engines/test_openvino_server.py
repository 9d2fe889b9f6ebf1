"""What only a real model shows."""

from __future__ import annotations

import json
import threading

import psutil
import pytest
from wire_client import Wire, until

pytestmark = pytest.mark.engine


@pytest.fixture
def server(openvino_server):
    return Wire(openvino_server)


def test_it_writes_english(server):
    text = server.chat(max_tokens=20).json["choices"][0]["message"]["content"]
    assert "Paris" in text


def test_half_a_character_is_never_sent(server):
    reply = server.call(
        "POST",
        "/v1/chat/completions",
        {
            "model": server.model,
            "messages": [{"role": "user", "content": "Repeat this emoji many times: 🦜🦜🦜🦜🦜🦜"}],
            "temperature": 0,
            "max_tokens": 30,
            "stream": True,
            "return_token_ids": True,
        },
    )
    pieces = [c["choices"][0] for c in reply.chunks if "token_ids" in c["choices"][0]]
    assert "🦜" in "".join(p["delta"]["content"] for p in pieces)
    assert all("\ufffd" not in p["delta"]["content"] for p in pieces[:-1])
    assert any(p["token_ids"] and not p["delta"]["content"] for p in pieces), "a token with no text yet is still a chunk"
    assert sum(len(p["token_ids"]) for p in pieces) == 30


def test_text_prompt_and_its_ids_give_the_same(server, smollm2):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(smollm2.folder / "tokenizer.json")).encode("The capital of France is").ids
    by_text = server.complete(prompt="The capital of France is", max_tokens=6)
    by_ids = server.complete(prompt=ids, max_tokens=6)
    assert by_text.json["choices"] == by_ids.json["choices"]
    assert by_text.json["choices"][0]["text"].startswith(" Paris")


def test_end_of_text_stops_unless_ignored(server):
    question = [{"role": "user", "content": "Answer with one word: what is the capital of France?"}]
    body = {"model": server.model, "messages": question, "temperature": 0, "max_tokens": 200}
    choice = server.call("POST", "/v1/chat/completions", body).json["choices"][0]
    assert choice["finish_reason"] == "stop" and "<|im_end|>" not in choice["message"]["content"]
    longer = server.call("POST", "/v1/chat/completions", {**body, "ignore_eos": True}).json
    assert longer["usage"]["completion_tokens"] == 200 and longer["choices"][0]["finish_reason"] == "length"


def test_a_seed_repeats_and_no_seed_does_not(server):
    def text(**fields):
        return server.complete(prompt="Once upon a time", max_tokens=24, ignore_eos=True, **{"temperature": 1.0, **fields}).json["choices"][
            0
        ]["text"]

    assert text(seed=7) == text(seed=7)
    assert len({text() for _ in range(3)}) > 1


def test_requests_join_a_running_batch(server):
    replies = {}

    def ask(i):
        replies[i] = server.stream(prompt=[200 + i] * (50 + i), max_tokens=20 + i, ignore_eos=True)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: len(r.chunks) for i, r in replies.items()} == {i: 20 + i for i in range(8)}
    metrics = server.running.metrics()
    assert metrics["slm_server_most_requests"] >= 2
    assert 57 <= metrics["slm_server_widest_step_tokens"] <= 256  # the longest prompt, and what OpenVINO takes in one step


def test_a_client_that_leaves_during_prefill_frees_its_request(server):
    import socket

    body = json.dumps({"model": server.model, "prompt": [300] * 6000, "max_tokens": 100, "stream": True}).encode()
    with socket.create_connection((server.host, server.port)) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    until(lambda: server.running.metrics()["slm_server_requests_running"] == 0, "the request outlived its client")
    assert server.stream(max_tokens=2).done
    until(lambda: server.running.metrics()["slm_server_kv_cache_usage_ratio"] < 0.01, "its part of the cache was not freed")


def test_too_long_for_the_context(server):
    reply = server.complete(prompt=[5] * 8190, max_tokens=3)
    assert reply.status == 400 and "8192" in reply.json["error"]["message"]


def test_a_token_outside_the_vocabulary(server):
    assert server.complete(prompt=[49152]).status == 400


def test_idle_means_idle(server):
    process = psutil.Process(server.running.pid)
    until(lambda: process.cpu_percent(interval=0.2) < 20, "the idle server uses the CPU")
