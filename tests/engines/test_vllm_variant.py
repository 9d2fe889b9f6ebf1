"""Variants, adapters and refusals of the vLLM engine, without vLLM."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from profiler import environments
from profiler.engines import registry, vllm, vllm_adapters, vllm_cpu, vllm_variant
from profiler.errors import EngineError, ModelError, SpecError
from profiler.models.synthetic_adapter import write_adapter, write_draft
from profiler.records import LocalModel, Variant
from profiler.spec import BackendSpec, validate_spec

CONFIG = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "vocab_size": 32, "max_position_embeddings": 64}


def quiet(line: str) -> None:
    pass


def weights(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file by the format's description; each tensor is filled with its number."""
    header, data = {}, b""
    for number, (name, shape) in enumerate(shapes.items()):
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes([number]) * size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def contents(path: Path) -> dict[str, tuple[list[int], bytes]]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    body = raw[8 + length :]
    return {n: (t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items() if n != "__metadata__"}


def model(folder: Path, **changes: Any) -> LocalModel:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "tokenizer.json").write_text("{}")
    width = (CONFIG | changes)["hidden_size"]
    shapes = {"model.embed_tokens.weight": [32, width], "model.norm.weight": [width]}
    for layer in range(3):
        shapes |= {f"model.layers.{layer}.self_attn.{p}.weight": [out, width] for p, out in (("q_proj", width), ("v_proj", 4))}
    weights(folder / "model.safetensors", shapes)
    return LocalModel(folder.name, folder, "0123", "folder:x", "bf16", 64)


def backend(variant: dict[str, Any] | None = None, device: str = "cpu", **options: Any) -> BackendSpec:
    raw = {"name": "b", "summary": "s", "engine": "vllm", "device": device, "precision": "x", "variant": variant or {}, "options": options}
    return validate_spec(raw, BackendSpec, "here")


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"weight_format": "int8"}, "w8a8"),
        ({"weight_format": "int4"}, "w4a16"),
        ({"weight_format": "w8a8", "group_size": 64}, "remove it"),
        ({"weight_format": "bf16", "method": "gptq"}, "remove it"),
    ],
)
def test_what_is_not_made_for_vllm(variant: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match="variant") as caught:
        registry.get("vllm").validate(backend(variant))
    assert words in str(caught.value.hint)


@pytest.mark.parametrize(
    "variant",
    [
        {"checkpoint": "a/b", "weight_format": "w8a8"},
        {"checkpoint": "a/b", "method": "gptq"},
        {"weight_format": "w4a16", "calibration": {"seed": 2}},
        {"weight_format": "w4a16", "reduced_range": True},
        {"weight_format": "w8a8", "reduced_range": True, "method": "gptq"},
        {"weight_format": "w4a16", "method": "rtn", "calibration": {"seed": 2}},
    ],
)
def test_contradictions_are_refused(variant: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="variant"):
        backend(variant)


def test_full_precision_is_the_model_itself(tmp_path: Path) -> None:
    own = model(tmp_path / "m")
    made = vllm_variant.prepare(own, backend({"weight_format": "bf16"}).variant, "e", quiet)
    assert made.path == own.folder and made.variant_id == "bf16" and made.details["calibration"] is None
    assert made.size_bytes == (own.folder / "model.safetensors").stat().st_size


def test_one_text_for_one_seed_and_where_it_is_kept_follows_what_decides_it(tmp_path: Path) -> None:
    own = model(tmp_path / "m")

    def place(**variant: Any) -> Path:
        return vllm_variant.folder(own, backend({"weight_format": "w4a16", **variant}).variant)

    gptq = backend({"weight_format": "w4a16", "method": "gptq", "calibration": {"samples": 3}}).variant
    first, second = vllm_variant.calibration_of(gptq), vllm_variant.calibration_of(gptq)
    assert first is not None and first == second and len(first[0]) == len(set(first[0])) == 3
    assert first[1] | {"sha256": ""} == {"text": "english", "seed": 1, "samples": 3, "tokens": 512, "sha256": ""}
    places = [place(), place(group_size=64), place(method="gptq"), place(method="gptq", calibration={"seed": 2}), place(method="awq")]
    assert len(set(places)) == 5
    assert place(group_size=128) == place(method="rtn") == place()


def test_a_failed_quantization_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's own words, from a stand-in for the environment's interpreter."""
    python = tmp_path / "python"
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    found = environments.Environment(python, "own", {})
    monkeypatch.setattr(environments, "ensure", lambda *_: found)
    monkeypatch.setattr(environments, "installed", lambda _: found)
    python.write_text("#!/bin/sh\necho '  - model.layers.0.mlp.up_proj (columns=576, group_size=128)'\nexit 1\n")
    python.chmod(0o755)
    spec = backend({"weight_format": "w4a16"}).variant
    with pytest.raises(ModelError, match="group size does not divide") as caught:
        vllm_variant.prepare(model(tmp_path / "m"), spec, "e", quiet)
    assert "64" in str(caught.value.hint)
    assert {path.suffix for path in (tmp_path / "cache" / "variants").iterdir()} == {".lock", ".log"}
    python.write_text("#!/bin/sh\necho 'RuntimeError: Cannot access accelerator device when none is available.'\nexit 1\n")
    awq = backend({"weight_format": "w4a16", "method": "awq"}).variant
    with pytest.raises(ModelError, match="AWQ only where there is an accelerator"):
        vllm_variant.prepare(model(tmp_path / "n"), awq, "e", quiet)


CT = {
    "quant_method": "compressed-tensors",
    "ignore": ["lm_head"],
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}},
}


@pytest.mark.parametrize(
    ("config", "name", "group_size"),
    [
        (CT, "w8a8", None),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "w4a16-gptq", 64),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "w4a16-awq", 128),
        ({"quant_method": "fp8"}, "fp8", None),
        ({"quant_method": "mxfp4"}, "mxfp4", None),
    ],
)
def test_a_ready_checkpoint_says_what_it_is(tmp_path: Path, config: dict[str, Any], name: str, group_size: int | None) -> None:
    ready = model(tmp_path / "ready", quantization_config=config)
    made = vllm_variant.prepare(model(tmp_path / "m"), backend({"checkpoint": str(ready.folder)}).variant, "e", quiet)
    assert (made.variant_id, made.path, made.details["group_size"]) == (name, ready.folder, group_size)


def test_checkpoints_that_cannot_be_meant(tmp_path: Path) -> None:
    own = model(tmp_path / "m")
    other = model(tmp_path / "other", hidden_size=16, quantization_config=CT)
    for checkpoint, words in [
        (str(other.folder), "hidden_size is 16"),
        (str(own.folder), "not quantized"),
        ("./nowhere", "no such folder"),
    ]:
        with pytest.raises(ModelError, match=words) as caught:
            vllm_variant.prepare(own, backend({"checkpoint": checkpoint}).variant, "e", quiet)
        assert caught.value.hint
    with pytest.raises(ModelError, match="already"):
        vllm_variant.prepare(other, backend({"weight_format": "w8a8"}).variant, "e", quiet)
    assert vllm_variant.prepare(other, backend({"weight_format": "as-is"}).variant, "e", quiet).details["method"] == "compressed-tensors"


@pytest.mark.parametrize(
    ("weight_format", "able", "words"),
    [
        ("w4a16", {"avx2"}, "avx512f"),
        ("w4a16-gptq", {"avx2"}, "cpu_gemm_wna16"),
        ("w4a16", {"avx2", "avx512f"}, None),
        ("w8a8", {"avx2"}, "reduced_range"),
        ("w8a8", {"avx2", "avx_vnni"}, None),
        ("w8a8", {"avx512f", "avx512_vnni"}, None),
        ("w8a8-reduced", {"avx2"}, None),
        ("w8a16", {"avx2", "avx512f"}, "w8a8"),
        ("bf16", {"avx2"}, None),
    ],
)
def test_weights_that_a_cpu_cannot_run(weight_format: str, able: set[str], words: str | None) -> None:
    said = vllm_cpu.refusal(weight_format, frozenset(able))
    assert (said is None) if words is None else (said is not None and words in said)


def test_a_backend_says_so_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = registry.get("vllm")
    monkeypatch.setattr(vllm_cpu, "flags", lambda: frozenset({"avx2"}))
    assert any("avx512f" in problem for problem in engine.problems(backend({"weight_format": "w4a16"})))
    assert not any("avx512f" in problem for problem in engine.problems(backend({"weight_format": "w4a16"}, device="cuda")))
    assert any("saturate" in problem for problem in engine.problems(backend({"weight_format": "w8a8"})))
    assert not any("saturate" in problem for problem in engine.problems(backend({"weight_format": "w8a8", "reduced_range": True})))


def test_adapters_fit_their_base_only(tmp_path: Path) -> None:
    own, wider, deeper = model(tmp_path / "m"), model(tmp_path / "wider", hidden_size=16), model(tmp_path / "deeper")
    adapter = write_adapter(own.folder, tmp_path / "a", rank=4)
    made = contents(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.v_proj.lora_{}.weight"
    assert [made[name.format(k)][0] for k in "AB"] == [[4, 8], [4, 4]] and len(made) == 12
    vllm_adapters.check(backend(adapters={"a": str(adapter)}), own.folder, "m")
    weights(deeper.folder / "model.safetensors", {"model.embed_tokens.weight": [32, 8]})
    for base, words in [(wider, "inputs of 16, the adapter's are 8"), (deeper, "the base has no model.layers.0")]:
        with pytest.raises(EngineError, match=words) as caught:
            vllm_adapters.check(backend(adapters={"a": str(adapter)}), base.folder, base.name)
        assert "trained on m" in str(caught.value.hint)
    with pytest.raises(EngineError, match="rank is 4") as caught:
        vllm_adapters.check(backend(adapters={"a": str(adapter)}, max_lora_rank=2), own.folder, "m")
    assert caught.value.hint == "set max_lora_rank = 4"
    for folder, words in [(own.folder, "no LoRA adapter"), (tmp_path / "none", "no such folder")]:
        with pytest.raises(EngineError, match=words):
            vllm_adapters.check(backend(adapters={"a": str(folder)}), own.folder, "m")


def test_adapters_on_int8_layers_of_a_cpu_are_refused_with_the_cause(tmp_path: Path) -> None:
    own = model(tmp_path / "m")
    adapter = str(write_adapter(own.folder, tmp_path / "a", rank=4))
    with pytest.raises(EngineError, match="oneDNN") as caught:
        vllm_adapters.check(backend({"weight_format": "w8a8"}, adapters={"a": adapter}), own.folder, "m")
    assert "bf16" in str(caught.value.hint)
    vllm_adapters.check(backend({"weight_format": "w8a8"}, device="cuda", adapters={"a": adapter}), own.folder, "m")


def test_adapters_of_two_seeds_differ(tmp_path: Path) -> None:
    own = model(tmp_path / "m")
    files = [write_adapter(own.folder, tmp_path / f"a{n}", seed=n) / "adapter_model.safetensors" for n in (1, 1, 2)]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_a_draft_is_the_base_without_its_later_layers(tmp_path: Path) -> None:
    own = model(tmp_path / "m")
    draft = write_draft(own.folder, tmp_path / "draft", 2)
    before, after = contents(own.folder / "model.safetensors"), contents(draft / "model.safetensors")
    assert after == {name: tensor for name, tensor in before.items() if ".layers.2." not in name}
    assert json.loads((draft / "config.json").read_text()) == CONFIG | {"num_hidden_layers": 2}
    assert (draft / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(("able", "dtype"), [({"avx2"}, "float32"), ({"avx2", "avx512f"}, "bfloat16"), (set(), "bfloat16")])
def test_bf16_is_not_emulated(able: set[str], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_cpu, "flags", lambda: frozenset(able))
    spec, said = backend({"weight_format": "bf16"}), []
    made = vllm._on_this_cpu(Variant("bf16", None, "bf16", None), spec, said.append)
    assert made.variant_id == ("bf16-in-f32" if dtype == "float32" else "bf16")
    assert f"--dtype={dtype}" in registry.get("vllm").command(made, spec, 1)
    assert bool(said) == (dtype == "float32")
