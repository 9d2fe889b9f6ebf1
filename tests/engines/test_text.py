"""Incremental decoding, against the whole decode of the same ids."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from profiler.engines.server import wire
from profiler.engines.server.http11 import BadRequest
from profiler.engines.server.text import Decoder, Text


@pytest.fixture(scope="module")
def bytewise():
    """Every byte a token: characters are as broken as they can be."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def pieces(tokenizer, ids, prompt=()):
    decoder = Decoder(tokenizer, list(prompt))
    return [decoder.add([token], last=i == len(ids) - 1) for i, token in enumerate(ids)]


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=200))
def test_pieces_join_to_the_text_and_no_piece_is_broken(bytewise, text):
    text = text.replace("\ufffd", "?")
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable()) or "x"
    ids = bytewise.encode(text).ids
    got = pieces(bytewise, ids)
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


def test_bytes_that_are_no_text_do_not_hold_the_stream_back(bytewise):
    start = bytewise.encode("🦜").ids[0]
    got = pieces(bytewise, [start] * 20 + bytewise.encode("ok").ids)
    assert sum(bool(piece) for piece in got[:15]) >= 2
    assert "".join(got).endswith("ok")


def test_an_unfinished_character_comes_out_at_the_end(bytewise):
    ids = bytewise.encode("a🦜").ids[:-1]
    assert "".join(pieces(bytewise, ids)).startswith("a\ufffd")


def folder(tmp_path, bytewise, template):
    bytewise.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}, "chat_template": template}))
    return Text(tmp_path)


def test_chat_template(tmp_path, bytewise):
    text = folder(
        tmp_path,
        bytewise,
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    )
    assert text.chat([{"role": "user", "content": "hi"}]) == "user:hi</s>>"


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[0].__class__.__mro__ }}", "{{ 1/'a' }}", None]
)
def test_a_template_that_refuses_or_misbehaves_is_a_bad_request(tmp_path, bytewise, template):
    with pytest.raises(BadRequest):
        folder(tmp_path, bytewise, template).chat([{"role": "user", "content": "hi"}])


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "é": "<"}}}


def test_tools_go_through_a_template_that_has_a_place_for_them(tmp_path, bytewise):
    template = "{% if tools %}{{ tools[0] | tojson }}|{{ tools[0] | tojson(indent=4) }}|{% endif %}{{ messages[0].content }}"
    text = folder(tmp_path, bytewise, template)
    assert text.chat([{"role": "user", "content": "hi"}]) == "hi"
    assert text.chat([{"role": "user", "content": "hi"}], [TOOL]).split("|") == [
        '{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "é": "<"}}}',
        json.dumps(TOOL, indent=4, ensure_ascii=False),
        "hi",
    ]


def test_a_template_without_a_place_for_tools_is_a_bad_request(tmp_path, bytewise):
    text = folder(tmp_path, bytewise, "{{ messages[0].content }}")
    with pytest.raises(BadRequest, match="no place for them"):
        text.chat([{"role": "user", "content": "hi"}], [TOOL])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"tools": [TOOL]}, None, None),
        ({"tools": [TOOL], "tool_choice": "auto"}, None, None),
        ({"tools": []}, None, None),
        ({"tools": [TOOL], "tool_choice": "none"}, None, None),
        ({"tools": [TOOL], "tool_choice": "required"}, 400, "cannot force"),
        ({"tools": "f"}, 400, "list of objects"),
    ],
)
def test_which_tools_are_read(body, status, words):
    raw = json.dumps({"messages": [{"role": "user", "content": "hi"}], **body}).encode()
    if status:
        with pytest.raises(BadRequest, match=words):
            wire.parse("chat", raw, "id", "m")
    else:
        wanted = body["tools"] if body["tools"] and body.get("tool_choice") != "none" else None
        assert wire.parse("chat", raw, "id", "m").tools == wanted
