"""Tokens, not chunks: what is counted, and which read brought it, on bytes as servers send them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import DONE, END, HEAD, chunk, event

from profiler.run.answer import Answer, AnswerParser


def parse(*reads: bytes, count=None, closed: bool = False) -> Answer:
    """The reads arrive at 1, 2, 3, ... ns."""
    parser = AnswerParser(count)
    for i, data in enumerate(reads):
        parser.feed(data, i + 1)
    return parser.finish(closed)


def said(**choice) -> bytes:
    """An event with one choice."""
    return b"data: " + json.dumps({"choices": [{"index": 0} | choice]}).encode() + b"\n\n"


def total(n: int) -> bytes:
    return b"data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": n}}).encode() + b"\n\n"


def words(text: str) -> int:
    return len(text.split())


def test_several_tokens_in_one_chunk():
    answer = parse(HEAD + chunk(event([1, 2, 3], "abc")), chunk(event([4, 5], "de", finish="length")), chunk(DONE) + END)
    assert (answer.stamps, answer.counts, answer.text) == ([1, 2], [3, 2], "abcde")
    assert (answer.count_source, answer.finish_reason, answer.error_kind) == ("token_ids", "length", None)


def test_several_chunks_in_one_read():
    answer = parse(HEAD + chunk(event([1], "a")) + chunk(event([2], "b")), chunk(event([3], "c")) + chunk(event([4], "d")))
    assert (answer.stamps, answer.counts) == ([1, 2], [2, 2])


def test_half_an_emoji_is_a_token_without_text():
    answer = parse(HEAD, chunk(event([240], "")), chunk(event([159], "")), chunk(event([1], "🙂", finish="stop")), chunk(DONE) + END)
    assert (answer.stamps, answer.counts, answer.text) == ([2, 3, 4], [1, 1, 1], "🙂")


def test_half_an_emoji_by_running_usage():
    answer = parse(HEAD, chunk(event(None, "", 1)), chunk(event(None, "🙂", 2)), chunk(event(None, "", 2, "stop")), chunk(DONE) + END)
    assert (answer.stamps, answer.counts, answer.count_source) == ([2, 3], [1, 1], "continuous_usage")


def test_a_character_cut_between_reads():
    data = chunk(event([1], "", None)).replace(b'"text":""', '"text":"🙂"'.encode())
    data = chunk(data[data.index(b"data:") : -2])
    cut = data.index("🙂".encode()) + 2
    answer = parse(HEAD + data[:cut], data[cut:], chunk(DONE) + END)
    assert (answer.stamps, answer.counts, answer.text) == ([2], [1], "🙂")


@pytest.mark.parametrize(
    "first",
    [
        said(delta={"role": "assistant", "content": ""}, finish_reason=None),
        said(delta={"role": "assistant"}),
        said(text=""),
        said(text="", token_ids=[]),
        b'data: {"choices":[]}\n\n',
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":3,"completion_tokens":0}}\n\n',
    ],
)
def test_role_only_and_empty_events_are_no_first_token(first):
    for token in (said(delta={"content": "hi"}, token_ids=[7]), said(delta={"content": "hi"})):
        answer = parse(HEAD, chunk(first), chunk(token), chunk(said(delta={}, finish_reason="stop")), chunk(DONE) + END)
        assert (answer.stamps, answer.counts, answer.error_kind) == ([3], [1], None)


def test_reasoning_is_output():
    answer = parse(
        HEAD + chunk(said(delta={"reasoning_content": "hm"}, token_ids=[1])),
        chunk(said(delta={"reasoning": "hm"}, token_ids=[2])),
        chunk(said(delta={"content": "yes"}, token_ids=[3], finish_reason="stop")),
        chunk(DONE) + END,
    )
    assert (answer.stamps, answer.counts, answer.text) == ([1, 2, 3], [1, 1, 1], "hmhmyes")


def test_without_usage_the_tokenizer_counts():
    reads = (HEAD + chunk(said(text="one two")), chunk(said(text="three", finish_reason="stop")), chunk(DONE) + END)
    answer = parse(*reads, count=words)
    assert (answer.counts, answer.count_source) == ([2, 1], "tokenizer")
    answer = parse(*reads)
    assert (answer.counts, answer.count_source) == ([1, 1], None)  # a guess that names no source


def test_final_usage_is_shared_out_by_the_tokenizer():
    reads = (HEAD + chunk(said(text="one two")), chunk(said(text="three", finish_reason="stop")), chunk(total(6)) + chunk(DONE) + END)
    answer = parse(*reads, count=words)
    assert (answer.stamps, answer.counts, answer.count_source) == ([1, 2], [4, 2], "usage")


@given(texts=st.lists(st.sampled_from(["a", "a b", "a b c"]), min_size=1, max_size=30), used=st.integers(1, 80))
def test_final_usage_is_never_changed_and_the_first_text_keeps_a_token(texts, used):
    events = [chunk(said(text=text)) for text in texts]
    answer = parse(HEAD, *events, chunk(total(used)) + chunk(DONE) + END, count=words)
    assert answer.tokens == used and answer.stamps[0] == 2 and min(answer.counts) >= 1
    if used == sum(map(words, texts)):
        assert answer.counts == list(map(words, texts))


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([event(None, "a", 0), event(None, "b", 0), event(None, "c", 3)], 3),  # a count that stays 0 beside text
        ([event(None, "a", 2), event(None, "b", 1), event(None, "c", 3)], 3),  # a count that falls
        ([event(None, "a", 1), said(text="b"), event(None, "c", 3)], 3),  # text without a count
    ],
)
def test_running_usage_that_contradicts_the_text_is_no_running_count(events, tokens):
    answer = parse(HEAD, *map(chunk, events), chunk(DONE) + END)
    assert (answer.tokens, answer.count_source, answer.stamps[0]) == (tokens, "usage", 2)
    assert answer.counts == [1, 1, 1]


def test_a_total_of_zero_beside_text_is_no_count():
    answer = parse(HEAD, chunk(said(text="one two", finish_reason="stop")), chunk(total(0)) + chunk(DONE) + END, count=words)
    assert (answer.counts, answer.count_source) == ([2], "tokenizer")


def test_token_ids_win_over_usage():
    answer = parse(HEAD, chunk(event([1], "a", 5)), chunk(event([2], "b", 9, "stop")), chunk(DONE) + END)
    assert (answer.counts, answer.count_source) == ([1, 1], "token_ids")


@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
def test_every_line_end_of_the_specification(line):
    answer = parse(HEAD + chunk(event([1], "a").replace(b"\n", line.encode())), *[chunk(DONE.replace(b"\n", line.encode())) + END])
    assert (answer.counts, answer.done, answer.error_kind) == ([1], True, None)


def test_data_over_several_lines_and_without_a_space():
    body = b'data:{"choices":[{"index":0,\ndata:"text":"a","token_ids":[1]}]}\n\n'
    assert parse(HEAD, chunk(body), chunk(DONE) + END).counts == [1]


def test_a_last_event_without_its_empty_line():
    answer = parse(HEAD, chunk(event([1], "a", finish="stop")), chunk(b"data: [DONE]") + END)
    assert (answer.done, answer.error_kind) == (True, None)


EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda ids, text: event(ids, text), st.lists(st.integers(0, 9), max_size=3), st.sampled_from(["", "a", "🙂", "x\ny", "é"])
        ),
        st.just(b": comment\n\n"),
        st.just(said(delta={"role": "assistant", "content": ""})),
        st.just(total(4)),
        st.just(b'data: {"choices":[{"text":5,"token_ids":null}],"usage":null}\n\n'),  # a field of another type
        st.just(b'data: {"choices": [{"text": "b", "extra": NaN, "token_ids": [1]}]}\n\n'),
    ),
    max_size=8,
)


@given(events=EVENTS, ends=st.sampled_from(["\n", "\r\n"]), whole=st.booleans(), data=st.data())
def test_any_cut_into_reads_counts_the_same(events, ends, whole, data):
    """Each token belongs to the read that completed its event, wherever the cuts fall."""
    events = [e.replace(b"\n", ends.encode()) for e in [*events, event([1], "end", finish="stop"), DONE]]
    body = b"".join(map(chunk, events)) + END
    if whole:
        body = b"".join(events)
        head = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
    else:
        head = HEAD
    wire = head + body
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=12))))
    reads = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    once, cut, bytewise = parse(wire), parse(*reads), parse(*(wire[i : i + 1] for i in range(len(wire))))
    assert once.error_kind is cut.error_kind is bytewise.error_kind is None
    assert once.tokens == cut.tokens == bytewise.tokens
    assert once.text == cut.text == bytewise.text
    # Byte by byte, a stamp is an offset: it names the byte that completed the event; the cut read must be the one that holds it.
    holders = [sum(cut_at < offset for cut_at in cuts) + 1 for offset in bytewise.stamps]
    expected: dict[int, int] = {}
    for holder, count in zip(holders, bytewise.counts, strict=True):
        expected[holder] = expected.get(holder, 0) + count
    assert dict(zip(cut.stamps, cut.counts, strict=True)) == expected


@given(events=EVENTS)
def test_one_chunk_per_read_goes_the_short_way_and_counts_the_same(events):
    events = [*events, event([1], "end", finish="stop")]
    short = parse(HEAD, *map(chunk, events), chunk(DONE) + END)
    long = parse(HEAD, *(piece for e in events for piece in (chunk(e)[:1], chunk(e)[1:])), chunk(DONE) + END)
    assert (short.counts, short.text, short.tokens) == (long.counts, long.text, long.tokens)
    assert [s - 1 for s in short.stamps] == [(s) // 2 for s in long.stamps]


def test_a_chunk_size_that_lies_is_not_http():
    good = chunk(event([1], "a"))
    for lie in (b"1" + good, good.replace(good[:2], b"ff", 1), b"zz" + good[2:]):
        answer = parse(HEAD, chunk(event([9], "b")), lie, chunk(event([2], "c", finish="stop")), chunk(DONE) + END)
        assert answer.error_kind in ("bad_stream", "truncated")


@pytest.mark.parametrize("bad", [b"data: {nope\n\n", b"data: 3\n\n", b"data: [1]\n\n", b'data: {"choices":[{"text":"\xff"}]\n\n'])
def test_invalid_json_is_a_bad_stream_and_what_came_before_is_kept(bad):
    answer = parse(HEAD, chunk(event([1], "a")), chunk(bad), chunk(event([2], "b", finish="stop")), chunk(DONE) + END)
    assert (answer.error_kind, answer.counts, answer.stamps) == ("bad_stream", [1], [2])
    assert "not a JSON object" in (answer.error or "")


def test_an_error_in_the_stream():
    answer = parse(HEAD, chunk(event([1], "a")), chunk(b'data: {"error":{"message":"out of memory","code":500}}\n\n') + END)
    assert (answer.error_kind, answer.error, answer.tokens) == ("server_error", "out of memory", 1)


def test_a_stream_that_ends_early_is_truncated():
    assert parse(HEAD, chunk(event([1], "a"))).error_kind == "truncated"
    assert parse(HEAD, chunk(event([1], "a")) + END).error_kind == "truncated"  # neither [DONE] nor a finish reason
    assert parse(HEAD, chunk(event([1], "a", finish="stop"))[:-9]).error_kind == "truncated"
    assert parse(HEAD, chunk(event([1], "a", finish="stop")) + END).error_kind is None


def test_content_length_and_the_end_of_the_connection_frame_an_answer_too():
    body = event([1], "a") + event([2], "b", finish="stop") + DONE
    length = HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
    neither = HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")
    for head, closed in ((length, False), (neither, True)):
        answer = parse(head, body[:30], body[30:], closed=closed)
        assert (answer.counts, answer.error_kind) == ([2], None)
    assert parse(length, body[:-30], closed=True).error_kind == "truncated"
    assert parse(neither, body, closed=False).error_kind == "truncated"


def test_a_compressed_answer_is_refused():
    head = HEAD.replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type")
    answer = parse(head, chunk(b"\x1f\x8b\x08\x00junk"), END)
    assert answer.error_kind == "bad_stream" and "compressed (gzip)" in (answer.error or "")
    fine = parse(head.replace(b"gzip", b"identity"), chunk(event([1], "a", finish="stop")), chunk(DONE) + END)
    assert (fine.error_kind, fine.tokens) == (None, 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","code":400}}', "400: too long"),
        (b'{"detail":"not here"}', "400: not here"),
        (b'{"message":"m"}', "400: m"),
        (b"<html>oops</html>", "400: <html>oops</html>"),
        (b"", "400: no text"),
    ],
)
def test_an_error_status_keeps_the_servers_words(body, message):
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = parse(head + body)
    assert (answer.status, answer.error_kind, answer.error) == (400, "http_status", message)


def test_an_answer_that_is_no_stream():
    body = b'{"choices":[{"text":"whole"}]}'
    answer = parse(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.error_kind == "bad_stream" and "not a stream of events" in (answer.error or "")


def test_not_http_at_all():
    assert parse(b"SSH-2.0-OpenSSH\r\n").error_kind == "bad_stream"
