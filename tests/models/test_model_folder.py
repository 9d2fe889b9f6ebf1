"""What is asked of a folder before anything is made from it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.engines.openvino_variant import variant_id
from profiler.errors import ModelError
from profiler.models.folder import content_hash, inspect
from profiler.records import LocalModel
from profiler.spec import VariantSpec

MakeModel = Callable[..., Path]


def test_a_complete_folder(make_model: MakeModel) -> None:
    folder = make_model()
    model = inspect(folder, "mine", "folder:my-model")
    assert (model.name, model.folder, model.source) == ("mine", folder, "folder:my-model")
    assert (model.max_context_tokens, model.base_precision, model.n_parameters) == (512, "bf16", 2 * 3 + 5)
    assert len(model.content_hash) == 16 and int(model.content_hash, 16) >= 0


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_missing_is_named(make_model: MakeModel, missing: str) -> None:
    folder = make_model(without=(missing,))
    with pytest.raises(ModelError) as caught:
        inspect(folder, "mine", "x")
    assert missing.removeprefix("model") in caught.value.message and str(folder) in caught.value.message and caught.value.hint


def test_pickled_weights_alone_are_no_weights(make_model: MakeModel) -> None:
    """Loading a pickle runs what its author put into it."""
    folder = make_model(without=("model.safetensors",))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"no \*\.safetensors") as caught:
        inspect(folder, "mine", "x", trust_remote_code=True)
    assert "convert" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_config_that_cannot_be_read_is_named(make_model: MakeModel, content: bytes) -> None:
    folder = make_model()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        inspect(folder, "mine", "x")


def test_a_config_without_a_context_length(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="max_position_embeddings"):
        inspect(make_model(max_position_embeddings=None), "mine", "x")
    nested = make_model("nested", max_position_embeddings=None, text_config={"max_position_embeddings": 77})
    assert inspect(nested, "mine", "x").max_context_tokens == 77


NOT_SAFETENSORS = {
    "empty": b"",
    "short": b"short",
    "noise": b"\xff" * 64,
    "not JSON": struct.pack("<Q", 2) + b"{]",
    "a list": struct.pack("<Q", 3) + b"[1]",
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
}


@pytest.mark.parametrize("content", NOT_SAFETENSORS.values(), ids=NOT_SAFETENSORS)
def test_weights_that_are_not_safetensors_are_named(make_model: MakeModel, content: bytes) -> None:
    folder = make_model()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        inspect(folder, "mine", "x")


@pytest.mark.parametrize(
    ("config", "precision", "variant"),
    [
        ({"dtype": "bfloat16"}, "bf16", "int8"),
        ({"dtype": None, "torch_dtype": "float16"}, "fp16", "int8"),
        ({"dtype": "float32"}, "f32", "int8"),
        ({"dtype": "float16", "quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq4", "int8-from-gptq4"),
        ({"dtype": "float16", "quantization_config": {"quant_method": "awq", "w_bit": 4}}, "awq4", "int8-from-awq4"),
        ({"dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}, "fp8", "int8-from-fp8"),
        ({"dtype": None}, "unknown", "int8-from-unknown"),
    ],
)
def test_a_variant_says_what_it_was_made_from(make_model: MakeModel, config: dict[str, object], precision: str, variant: str) -> None:
    model = inspect(make_model(**config), "mine", "x")
    assert model.base_precision == precision
    assert variant_id(model, VariantSpec(weight_format="int8")) == variant


def test_a_model_made_from_gguf_says_so_in_every_variant() -> None:
    model = LocalModel("m", Path("m"), "0" * 16, "x", "q4_1", 512)
    for weight_format in ("bf16", "fp16", "int8", "int4"):
        assert variant_id(model, VariantSpec(weight_format=weight_format)) == f"{weight_format}-from-q4_1"


def test_code_that_comes_with_a_model_is_refused_unless_trusted(make_model: MakeModel) -> None:
    folder = make_model(auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (folder / "modeling_mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="code of its own") as caught:
        inspect(folder, "mine", "x")
    assert "--trust-remote-code" in str(caught.value.hint)
    assert inspect(folder, "mine", "x", trust_remote_code=True).max_context_tokens == 512
    assert not (folder / "ran").exists()


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1] + b"\x01"),
    "config": lambda f: (f / "config.json").write_text(json.dumps({"max_position_embeddings": 513})),
    "tokenizer": lambda f: (f / "tokenizer.json").write_bytes(b"{ }"),
    "chat template": lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"),
    "another shard": lambda f: shutil.copy(f / "model.safetensors", f / "model-2.safetensors"),
    "a file's name": lambda f: (f / "model.safetensors").rename(f / "other.safetensors"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_hash_follows_what_decides_the_answers(make_model: MakeModel, what: str) -> None:
    folder = make_model()
    before = content_hash(folder)
    CHANGES[what](folder)
    assert content_hash(folder) != before


def test_the_hash_follows_nothing_else(make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model()
    before = content_hash(folder)
    (folder / "README.md").write_text("changed")
    (folder / "training.log").write_text("new")
    os.utime(folder / "model.safetensors", (1, 1))
    assert content_hash(folder) == before
    shutil.copytree(folder, tmp_path / "copy")
    assert content_hash(tmp_path / "copy") == before, "the same model in another folder is the same model"


@pytest.mark.parametrize("note", ["{", "[]", '{"stamp": 1}', ""])
def test_a_spoilt_note_of_the_hash_is_made_anew(make_model: MakeModel, note: str) -> None:
    folder = make_model()
    before = content_hash(folder)
    (folder / ".profiler-hash.json").write_text(note)
    assert content_hash(folder) == before
