"""The conversion of the real model, and one that is made: what their tokenizers and variants say."""

from __future__ import annotations

import json

import pytest
from real_model import export_python
from tokenizers import Tokenizer

from profiler import catalog
from profiler.engines import registry
from profiler.models import resolve
from profiler.records import LocalModel

pytestmark = pytest.mark.engine

TEXTS = [
    "The ferry captain counted 1,204 lamps before dawn, didn't she?",
    "  two spaces,\ttabs\nand\r\nlines  ",
    "0123456789 3.14159 1e-9",
    "naïve café — «Größe» 東京 🦜👩‍🚀 ✓",
    "def f(x):\n    return x**2  # comment",
]


@pytest.fixture(scope="module")
def tokenizer(smollm2: LocalModel) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2.folder / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_converted_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert max(ids) < tokenizer.get_vocab_size() == 49_152


def test_digits_are_tokens_of_their_own_and_ends_are_special(tokenizer: Tokenizer, smollm2: LocalModel) -> None:
    assert tokenizer.encode("2026", add_special_tokens=False).tokens == ["2", "0", "2", "6"]
    assert tokenizer.encode("<|im_start|>user", add_special_tokens=False).tokens[0] == "<|im_start|>"
    settings = json.loads((smollm2.folder / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>"
    config = json.loads((smollm2.folder / "config.json").read_text())
    assert config["eos_token_id"] == tokenizer.token_to_id("<|im_end|>")


def test_english_takes_about_as_many_tokens_as_it_should(tokenizer: Tokenizer) -> None:
    """A tokenizer with lost merges still round-trips, byte by byte."""
    text = "Every morning the old teacher walked along the river and talked with the people who were fishing there."
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) <= 1.3 * len(text.split())


def test_the_real_model_is_what_it_says(smollm2: LocalModel) -> None:
    assert (smollm2.max_context_tokens, smollm2.n_parameters) == (8192, 134_515_008)
    if smollm2.source.startswith("package:"):
        assert smollm2.base_precision == "q4_1" and smollm2.license == "Apache-2.0"


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_variants_say_that_their_weights_were_quantized_before(smollm2: LocalModel, precision: str) -> None:
    variant = registry.get("openvino").prepare(smollm2, catalog.backend(f"openvino-xeon-{precision}"), lambda line: None)
    base = smollm2.base_precision
    assert variant.variant_id.startswith(precision) and (f"-from-{base}" in variant.variant_id) == (base == "q4_1")
    assert variant.details["base_precision"] == base and variant.path is not None and variant.size_bytes
    kinds = variant.details["weight_bytes_by_type"]
    assert {"bf16": "f16", "int8": "u8", "int4": "u4"}[precision] in kinds


def test_a_synthetic_model_is_a_whole_model() -> None:
    model = resolve("synthetic:llama-tiny", lambda line: None, convert_python=export_python)
    assert (model.base_precision, model.max_context_tokens, model.name) == ("bf16", 4096, "synthetic:llama-tiny")
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    # Embedding (tied or not), 4 layers of attention, MLP and norms, the last norm.
    d, m, heads, kv, layers, vocabulary = 128, 256, 4, 2, 4, 4096
    layer = d * d * 2 + 2 * d * (d // heads * kv) + 3 * d * m + 2 * d
    assert model.n_parameters in (vocabulary * d + layers * layer + d, 2 * vocabulary * d + layers * layer + d)
