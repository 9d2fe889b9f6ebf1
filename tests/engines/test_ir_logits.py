"""KL and top-1 agreement from an IR's logits, against the whole vocabulary by lines of their own; and what is kept, and what is not."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from profiler import catalog, environments
from profiler.analyse import divergence
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.quality import ir_logits, top_k
from profiler.quality.asking import Asker
from profiler.quality.evaluate import drift_part
from profiler.quality.windows import Windows
from profiler.records import LocalModel, Variant
from profiler.spec import BackendSpec

FULL_KL = """
import json, sys
import numpy as np, openvino
asked = json.load(sys.stdin)
def distributions(folder):
    compiled = openvino.Core().compile_model(folder + "/openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": asked["precision"]})
    for ids in asked["windows"]:
        request, n = compiled.create_infer_request(), len(ids)
        inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, n), np.int64), "position_ids": np.arange(n)[None],
                  "beam_idx": np.zeros(1, np.int32)}
        names = {name for port in request.model_inputs for name in port.names}
        logits = request.infer({k: v for k, v in inputs.items() if k in names})["logits"][0, :-1].astype(np.float64)
        yield logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
found = []
for p, q in zip(distributions(asked["reference"]), distributions(asked["variant"])):
    found += [[float((np.exp(a) * (a - b)).sum()), int(a.argmax()), int(b.argmax())] for a, b in zip(p, q)]
json.dump(found, sys.stdout)
"""


def windows(model: LocalModel) -> Windows:
    from tokenizers import Tokenizer

    text = (catalog.root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(model.folder / "tokenizer.json")).encode(text).ids
    return Windows("glossary", tuple(tuple(ids[k : k + 150]) for k in range(0, 450, 150)))


def prepared(model: LocalModel, name: str) -> tuple[BackendSpec, Variant]:
    spec = catalog.backend(name)
    return spec, registry.get("openvino").prepare(model, spec, lambda line: None)


@pytest.mark.engine
def test_kl_is_a_lower_bound_of_that_of_the_whole_vocabulary_and_near_it(smollm2: LocalModel) -> None:
    text = windows(smollm2)
    (bf16, reference), (int8, variant) = prepared(smollm2, "openvino-xeon-bf16"), prepared(smollm2, "openvino-xeon-int8")
    tops = []
    for spec, one in ((bf16, reference), (int8, variant)):
        ids, log_probs, given = ir_logits.logits(spec, one, text, lambda line: None)
        assert len(ids) == len(log_probs) == len(given) == 3 * 149 and all(len(place) == 20 for place in ids)
        tops.append((np.array(ids, dtype=np.int32), np.array(log_probs, dtype=np.float32)))
    python = environments.ensure(environments.ENVIRONMENTS["openvino"], lambda line: None).python
    question = {"reference": str(reference.path), "variant": str(variant.path), "windows": text.tokens}
    question["precision"] = variant.details["computes_in"]["inference_precision"]
    done = subprocess.run([str(python), "-I", "-c", FULL_KL], input=json.dumps(question), capture_output=True, text=True, check=True)
    oracle = json.loads(done.stdout)
    kl = divergence.kl_per_place(tops[0], tops[1])
    assert len(oracle) == len(kl)
    full = [row[0] for row in oracle]
    # Sums in another order differ by rounding, place by place; at bf16 by more than at f32.
    assert all(value <= exact * 1.05 + 1e-3 for value, exact in zip(kl, full, strict=True))
    assert 0.5 * math.fsum(full) < kl.sum() < 1.02 * math.fsum(full)
    agreement = sum(a == b for _, a, b in oracle) / len(oracle)
    assert divergence.top1_per_place(tops[0], tops[1]).mean() == pytest.approx(agreement, abs=0.01)


@pytest.mark.engine
def test_logits_of_what_was_served_are_kept_and_others_are_not(openvino_server: RunningEngine, smollm2: LocalModel, tmp_path: Path) -> None:
    text = windows(smollm2)
    spec, variant = prepared(smollm2, "openvino-xeon-int8")

    def never(ids: object, log_probs: object) -> dict[str, object]:
        raise AssertionError("this server gives the given token's only")

    drift = drift_part(Asker(openvino_server.endpoint), text, lambda line: None, never)
    assert drift["source"] == "echo" and drift["top"] is None and "given token only" in drift["top_reason"]
    done = ir_logits.added(drift, spec, variant, text, tmp_path, "a" * 16, lambda line: None)
    assert done["top"]["source"] == "ir_logits" and done["top_reason"] is None and abs(done["top"]["perplexity_to_served"]) < 0.005
    arrays, why = top_k.load(tmp_path, {"drift": done})
    assert why is None and arrays is not None and arrays[0].shape == (3 * 149, 20)
    other = drift | {"windows": [[x - 0.05 for x in window] for window in drift["windows"]]}
    refused = ir_logits.added(other, spec, variant, text, tmp_path, "b" * 16, lambda line: None)
    assert refused["top"] is None and "not those that were served" in refused["top_reason"]
    assert not list((tmp_path / "quality").glob("b*"))


@pytest.mark.engine
def test_an_ir_that_cannot_be_read_leaves_the_reason(smollm2: LocalModel, tmp_path: Path) -> None:
    from dataclasses import replace

    text = windows(smollm2)
    spec, variant = prepared(smollm2, "openvino-xeon-int8")
    drift = {"windows": [[-1.0] * 149] * 3, "top": None, "top_reason": "x"}
    done = ir_logits.added(drift, spec, replace(variant, path=tmp_path), text, tmp_path, "a" * 16, lambda line: None)
    assert done["top"] is None and "could not be computed" in done["top_reason"]
