"""Engine `llamacpp` through a stand-in binary: it takes llama-server's flags strictly, and answers as our paced server does."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from pathlib import Path

import pytest
from specs import backend
from wire_client import Wire

from profiler.engines import llamacpp, registry
from profiler.errors import EngineError, ModelError, SpecError
from profiler.records import LocalModel
from profiler.spec import BackendSpec, validate_spec

SERVER = Path(__file__).resolve().parents[2] / "profiler" / "engines" / "server" / "__main__.py"
# Flags as `llama-server --help` has them: the value is the next word, an unknown one ends it.
STAND_IN = textwrap.dedent("""
    #!{python}
    import os, sys
    if sys.argv[1:] == ["--version"]:
        print("version: 6123 (0123abcd)", file=sys.stderr)
        sys.exit()
    VALUED = {{"--model", "--alias", "--port", "--host", "--parallel", "--ctx-size", "--cache-type-k", "--cache-type-v", "--batch-size",
              "--threads", "--n-gpu-layers"}}
    PLAIN = {{"--cache-prompt", "--no-cache-prompt", "--no-context-shift", "--metrics", "--no-webui"}}
    words, asked = iter(sys.argv[1:]), {{}}
    for word in words:
        if word not in VALUED | PLAIN:
            sys.exit(f"error: invalid argument: {{word}}")
        asked[word] = next(words) if word in VALUED else ""
    if open(asked["--model"], "rb").read(4) != b"GGUF":
        sys.exit("error: failed to load model")
    flags = [f"--port={{asked['--port']}}", f"--host={{asked['--host']}}", f"--served-model-name={{asked['--alias']}}", "--ttft-ms=1", "--itl-ms=1"]
    os.execv({python!r}, [{python!r}, "-I", "-u", {server!r}, "null", *flags])
""").lstrip()


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    folder = tmp_path / "model"
    folder.mkdir()
    return LocalModel("m", folder, "0" * 16, "folder:m", "bf16", 8192)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text(STAND_IN.format(python=sys.executable, server=str(SERVER)))
    path.chmod(0o755)
    monkeypatch.delenv(llamacpp.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(path.parent))
    return path


def test_it_serves_a_gguf_and_says_what_it_was(stand_in: Path, model: LocalModel, gguf: Path, tmp_path: Path) -> None:
    engine, spec = registry.get("llamacpp"), backend("llamacpp", gguf=str(gguf), threads=2, max_num_seqs=3, max_model_len=100)
    assert engine.problems(spec) == []
    variant = engine.prepare(model, spec, lambda line: None)
    assert (variant.variant_id, variant.precision, variant.size_bytes) == ("gguf-q4_k_m", "q4_k_m", 64)
    assert variant.details["sha256"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    with engine.start(variant, spec, tmp_path / "engine.log", lambda line: None) as running:
        assert running.versions == {"llama.cpp": "6123 (0123abcd)"} and running.env_hash == variant.env_hash
        assert running.command[0] == str(stand_in)
        words = list(running.command)
        assert words[words.index("--ctx-size") + 1] == "300" and words[words.index("--parallel") + 1] == "3"
        assert "--no-cache-prompt" in words
        assert Wire(running).stream(max_tokens=3).done
    assert not running.alive()


def test_a_flag_that_it_does_not_know_is_told(stand_in: Path, model: LocalModel, gguf: Path, tmp_path: Path) -> None:
    engine, spec = registry.get("llamacpp"), backend("llamacpp", gguf=str(gguf), flags=["--nonsense"])
    variant = engine.prepare(model, spec, lambda line: None)
    with (
        pytest.raises(EngineError, match="invalid argument: --nonsense"),
        engine.start(variant, spec, tmp_path / "log", lambda line: None),
    ):
        pass


def test_without_a_binary_it_says_where_to_get_one(model: LocalModel, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(llamacpp.VARIABLE, "")
    engine, spec = registry.get("llamacpp"), backend("llamacpp", gguf=str(gguf))
    (problem,) = engine.problems(spec)
    assert "llama.cpp" in problem and llamacpp.VARIABLE in problem
    with pytest.raises(EngineError, match="no llama-server"):
        engine.prepare(model, spec, lambda line: None)
    assert engine.command(engine_variant(gguf), spec, 1)[0] == "<llama-server>"


def engine_variant(gguf: Path):
    from profiler.records import Variant

    return Variant("gguf-q4_k_m", gguf, "q4_k_m", 64)


def test_which_gguf(model: LocalModel, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    spec = backend("llamacpp")
    with pytest.raises(ModelError, match="no GGUF of m") as caught:
        llamacpp.gguf_of(model, spec)
    assert "gguf = " in (caught.value.hint or "")
    beside = tmp_path / "cache" / "models" / "m-gguf" / "m-Q4_0.gguf"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(b"GGUF")
    assert llamacpp.gguf_of(model, spec) == beside, "the file that the catalogue's model was made from"
    (model.folder / "own.gguf").write_bytes(b"GGUF")
    assert llamacpp.gguf_of(model, spec).name == "own.gguf"
    (model.folder / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="2 GGUF files"):
        llamacpp.gguf_of(model, spec)
    assert llamacpp.gguf_of(model, backend("llamacpp", gguf=str(gguf))) == gguf
    with pytest.raises(ModelError, match="no such GGUF"):
        llamacpp.gguf_of(model, backend("llamacpp", gguf="/nowhere.gguf"))


def test_what_it_cannot_do_is_refused() -> None:
    raw = {"name": "b", "summary": "s", "engine": "llamacpp", "device": "cpu", "precision": "x"}
    for more, word in (({"variant": {"weight_format": "int4"}}, "weight_format"), ({"options": {"n_gpu_layers": 9}}, "n_gpu_layers")):
        with pytest.raises(SpecError, match=word):
            registry.get("llamacpp").validate(validate_spec({**raw, **more}, BackendSpec, "here"))
