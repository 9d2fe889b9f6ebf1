"""Engine environments, without the network: pins that pip finds nowhere, and wheels made here."""

from __future__ import annotations

import errno
import json
import sys
import threading
import zipfile

import pytest

from profiler import environments
from profiler.environments import EnvironmentSpec, ensure, env_hash, installed
from profiler.errors import EnvironmentError_


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("SLM_PROFILER_PYTHON_SMALL", raising=False)


@pytest.fixture
def wheel(tmp_path):
    """A one-module wheel, and the pip options that find it."""
    name = tmp_path / "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("tiny_thing.py", "x = 1\n")
        archive.writestr("tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny_thing\nVersion: 1.0\n")
        archive.writestr(
            "tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    return ["--find-links", str(tmp_path)]


SMALL = EnvironmentSpec("small", pins=("tiny_thing==1.0",), check_imports=("tiny_thing",))


def test_built_once_then_found(wheel):
    lines = []
    built = ensure(SMALL, lines.append, wheel)
    assert built.versions["tiny_thing"] == "1.0" and built.env_hash == env_hash(SMALL)
    assert any("tiny_thing" in line for line in lines)
    lines.clear()
    assert ensure(SMALL, lines.append) == built == installed(SMALL)
    assert lines == []


def test_two_at_once_build_one(wheel):
    lines, found = [], []
    threads = [threading.Thread(target=lambda: found.append(ensure(SMALL, lines.append, wheel))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert sum("making the environment" in line for line in lines) == 1


def test_what_a_killed_build_left_is_no_environment_and_is_replaced(wheel):
    leftover = environments.cache_root() / "environments" / f"small-{env_hash(SMALL)}"
    (leftover / "bin").mkdir(parents=True)
    (leftover / "bin" / "python").write_text("half a file")
    assert installed(SMALL) is None
    assert ensure(SMALL, lambda line: None, wheel).versions["tiny_thing"] == "1.0"


def test_pip_that_fails_shows_its_last_lines():
    with pytest.raises(EnvironmentError_) as caught:
        ensure(SMALL, lambda line: None)
    assert "tiny_thing" in caught.value.detail and "--pip-args" in caught.value.hint
    assert installed(SMALL) is None


def test_an_import_that_fails_is_told(wheel):
    broken = EnvironmentSpec("small", pins=("tiny_thing==1.0",), check_imports=("no_such_module",))
    with pytest.raises(EnvironmentError_, match="no_such_module"):
        ensure(broken, lambda line: None, wheel)
    assert installed(broken) is None


def test_the_hash_is_of_the_pins():
    assert env_hash(SMALL) != env_hash(EnvironmentSpec("small", pins=("tiny_thing==1.1",)))
    assert env_hash(EnvironmentSpec("x", pins=("a", "b"))) != env_hash(EnvironmentSpec("x", pins=("a",), no_deps_pins=("b",)))


def test_an_interpreter_of_the_users(monkeypatch):
    spec = EnvironmentSpec("small", pins=(), check_imports=("json",))
    monkeypatch.setenv("SLM_PROFILER_PYTHON_SMALL", sys.executable)
    found = ensure(spec, lambda line: None)
    assert str(found.python) == sys.executable and found.env_hash.startswith("own-") and "pytest" in found.versions
    monkeypatch.setenv("SLM_PROFILER_PYTHON_SMALL", "/nowhere/python")
    with pytest.raises(EnvironmentError_, match="SLM_PROFILER_PYTHON_SMALL=/nowhere/python"):
        installed(spec)


def test_a_full_disk_is_named(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(environments, "_build", full)
    with pytest.raises(EnvironmentError_, match="is full"):
        ensure(SMALL, lambda line: None)


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentError_) as caught:
        ensure(SMALL, lambda line: None)
    assert "SLM_PROFILER_CACHE" in caught.value.hint


def test_the_marker_is_plain_json(wheel):
    built = ensure(SMALL, lambda line: None, wheel)
    assert json.loads((built.python.parents[1] / ".complete").read_text())["versions"]["tiny_thing"] == "1.0"
