"""Small model folders, and a cache of each test's own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

MakeModel = Callable[..., Path]


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """A file of zeros in f32 by the format's own description: length, JSON header, data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512, "dtype": "bfloat16"}


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A complete folder of no use; `without` leaves files out, the rest changes config.json."""

    def make(name: str = "my-model", without: tuple[str, ...] = (), **config: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        files = {
            "config.json": json.dumps(CONFIG | config).encode(),
            "tokenizer.json": b"{}",
            "model.safetensors": safetensors({"a": [2, 3], "b": [5]}),
            "README.md": b"about",
        }
        for file, content in files.items():
            if file not in without:
                (folder / file).write_bytes(content)
        return folder

    return make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
