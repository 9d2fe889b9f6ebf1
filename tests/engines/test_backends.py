"""The backends that ship, their options, and the registry."""

from __future__ import annotations

import pytest
from specs import backend

from profiler import catalog
from profiler.engines import registry
from profiler.engines.openvino import _on_this_cpu
from profiler.errors import SpecError, UnknownNameError
from profiler.records import Variant
from profiler.spec import BackendSpec, validate_spec


def test_every_shipped_backend_is_valid_for_its_engine():
    for spec in catalog.load_backends():
        if spec.name != "openai-endpoint":  # its URL comes from the command line
            registry.get(spec.engine).validate(spec)


def test_openvino_backends_differ_in_weights_only():
    specs = [catalog.backend(f"openvino-xeon-{p}") for p in ("bf16", "int8", "int4")]
    assert all(spec.options == specs[0].options for spec in specs)
    assert [spec.variant.weight_format for spec in specs] == ["bf16", "int8", "int4"]
    assert specs[2].variant.group_size == 64


@pytest.mark.parametrize(
    ("engine", "options", "words"),
    [
        ("openvino", {"kv_cache_precison": "u8"}, ("kv_cache_precison", "kv_cache_precision")),
        ("openvino", {"kv_cache_precision": "q4"}, ("kv_cache_precision", "one of")),
        ("openvino", {"cache_size_gb": 0.5}, ("cache_size_gb", "whole number")),
        ("openvino", {"prefix_caching": "yes"}, ("prefix_caching", "true or false")),
        ("null", {"ttft": 5}, ("options.ttft", "ttft_ms")),
        ("paced", {"distribution": "normal"}, ("distribution", "lognormal")),
        ("openai", {}, ("options.url", "--url")),
    ],
)
def test_wrong_options_name_the_backend_and_what_would_be_right(engine, options, words):
    with pytest.raises(SpecError) as caught:
        registry.get(engine).validate(backend(engine, **options))
    said = f"{caught.value.message} {caught.value.hint}"
    assert f"test-{engine}" in said and all(word in said for word in words)


@pytest.mark.parametrize("variant", [{"weight_format": "fp8"}, {"weight_format": "int8", "group_size": 64}])
def test_variants_openvino_cannot_make(variant):
    raw = {"name": "b", "summary": "s", "engine": "openvino", "device": "cpu", "precision": "x", "variant": variant}
    with pytest.raises(SpecError, match="backend b: variant"):
        registry.get("openvino").validate(validate_spec(raw, BackendSpec, "here"))


@pytest.mark.parametrize(
    ("able", "asked", "inference", "cache"),
    [
        ({"FP32", "INT8"}, {"inference_precision": "bf16", "kv_cache_precision": "bf16"}, "f32", "f32"),
        ({"FP32", "INT8"}, {"inference_precision": "bf16", "kv_cache_precision": "u8"}, "f32", "u8"),
        ({"FP32", "INT8", "BF16"}, {"inference_precision": "bf16", "kv_cache_precision": "bf16"}, "bf16", "bf16"),
        ({"FP32", "INT8", "BF16"}, {"inference_precision": "f16", "kv_cache_precision": "f16"}, "f32", "f16"),
        ({"FP32", "INT8", "BF16"}, {"inference_precision": "f32", "kv_cache_precision": "f32"}, "f32", "f32"),
    ],
)
def test_a_cpu_without_16_bit_arithmetic_computes_in_f32_and_says_so(able, asked, inference, cache):
    spec = backend("openvino", **asked)
    said: list[str] = []
    made = _on_this_cpu(Variant("int8", None, "int8", 1, details={"method": "m"}), spec, frozenset(able), said.append)
    assert made.variant_id == ("int8" if inference == asked["inference_precision"] else f"int8-in-{inference}")
    assert bool(said) == (made.variant_id != "int8")
    command = registry.get("openvino").command(made, spec, 1)
    assert f"--inference-precision={inference}" in command and f"--kv-cache-precision={cache}" in command
    assert made.details["method"] == "m"


def test_unknown_engine():
    assert registry.names() == ["llamacpp", "null", "openai", "openvino", "paced", "vllm"]
    with pytest.raises(UnknownNameError) as caught:
        registry.get("openvin")
    assert "openvino" in caught.value.hint
