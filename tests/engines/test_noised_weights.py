"""A model damaged on purpose: the real weights with noise on them, served, and judged by the real command beside an untouched copy."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from profiler import catalog
from profiler.cli.main import cli
from profiler.engines import registry, variant_folder
from profiler.engines.protocol import RunningEngine
from profiler.models.folder import inspect
from profiler.records import LocalModel

NOISE = 0.1  # of each matrix's own standard deviation; rounding to 4 bits is about as much


def add_noise(path: Path, seed: int) -> int:
    """Gaussian noise on every matrix of a safetensors file (a length, a JSON header, the tensors) of bf16; how many there were."""
    raw = bytearray(path.read_bytes())
    (header_bytes,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + header_bytes])
    made, count = np.random.default_rng(seed), 0
    for name, tensor in sorted(header.items()):
        if name == "__metadata__" or len(tensor["shape"]) != 2:
            continue
        assert tensor["dtype"] == "BF16"
        start, end = (8 + header_bytes + at for at in tensor["data_offsets"])
        upper = np.frombuffer(raw[start:end], dtype="<u2").astype(np.uint32)
        values = (upper << 16).view(np.float32)
        noised = values + made.normal(0, NOISE * float(values.std()), values.shape).astype(np.float32)
        raw[start:end] = (noised.view(np.uint32) >> 16).astype("<u2").tobytes()
        count += 1
    path.write_bytes(raw)
    return count


@contextmanager
def served(model: LocalModel, folder: Path) -> Iterator[RunningEngine]:
    spec = catalog.backend("openvino-xeon-int8")
    engine = registry.get("openvino")
    variant = engine.prepare(model, spec, lambda line: None)
    with engine.start(variant, spec, folder / f"{model.name}.log", lambda line: None) as running:
        yield running


@pytest.mark.engine
def test_noise_on_the_weights_is_inferior_and_a_copy_is_not(
    openvino_server: RunningEngine, smollm2: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("copy", "noised"):
        shutil.copytree(smollm2.folder, tmp_path / name)
    assert add_noise(tmp_path / "noised" / "model.safetensors", 7) > 200
    models = {name: inspect(tmp_path / name, name, "a test", smollm2.base_precision) for name in ("copy", "noised")}
    assert models["copy"].content_hash == smollm2.content_hash != models["noised"].content_hash
    real, hashed = variant_folder.folder, models["noised"].content_hash
    # Exported beside the test, not into the user's cache.
    monkeypatch.setattr(variant_folder, "folder", lambda content: tmp_path / "made" / "int8" if content[0] == hashed else real(content))
    (tmp_path / "tasks.jsonl").write_text(
        '{"prompt": "The capital of France is", "expected": "paris", "scorer": "regex", "max_tokens": 4}\n'
    )
    with served(models["copy"], tmp_path) as copy, served(models["noised"], tmp_path) as noised:
        arguments = ["evaluate", "--model", "stand", "--tokenizer", str(smollm2.folder), "--results", str(tmp_path / "results"), "--json"]
        arguments += ["--tasks", str(tmp_path / "tasks.jsonl"), "--drift-margin", "2%", "--parallel", "1"]
        for name, running in (("reference", openvino_server), ("copy", copy), ("noised", noised)):
            options = f'url = "{running.endpoint.url}"\nmodel = "{running.endpoint.model}"\ndevice = "a test"\n'
            (tmp_path / f"{name}.toml").write_text(
                f'name = "{name}"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\nsummary = "a test"\n[options]\n{options}'
            )
            arguments += ["--backend", str(tmp_path / f"{name}.toml")]
        done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    rows = {row["backend"]: row for row in json.loads(done.stdout)["variants"]}
    assert rows["reference"]["is_reference"] and rows["reference"]["perplexity"] < 100
    assert rows["copy"]["verdict"] == "NON-INFERIOR" and abs(rows["copy"]["drift"]["delta_nll"]) < 1e-3
    assert rows["noised"]["verdict"] == "INFERIOR" and rows["noised"]["drift"]["delta_lo"] > 0.02
