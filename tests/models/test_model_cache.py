"""Made once, never seen half-made: processes that are killed, processes that meet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.errors import ModelError
from profiler.models import cache as model_cache
from profiler.models.cache import ORIGIN, made, run_script


def until(condition: Callable[[], bool], what: str, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def quiet(line: str) -> None:
    pass


def names(cache: Path) -> set[str]:
    return {path.name for path in (cache / "models").iterdir()}


def test_made_once(cache: Path) -> None:
    calls = []

    def make(folder: Path, lock: int) -> dict[str, str]:
        calls.append(folder)
        (folder / "weights").write_text("w")
        return {"source": "a test"}

    folder = made("key", quiet, make)
    assert made("key", quiet, make) == folder == cache / "models" / "key"
    assert len(calls) == 1 and calls[0] != folder, "it is made beside its place"
    assert json.loads((folder / ORIGIN).read_text()) == {"source": "a test"} and (folder / "weights").read_text() == "w"
    assert names(cache) == {"key", "key.lock"}


@pytest.mark.parametrize("error", [ModelError("no"), KeyboardInterrupt(), RuntimeError("bug")])
def test_a_failed_make_leaves_nothing_and_can_be_tried_again(cache: Path, error: BaseException) -> None:
    def fail(folder: Path, lock: int) -> dict[str, str]:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        made("key", quiet, fail)
    assert names(cache) == {"key.lock"}
    assert made("key", quiet, lambda folder, lock: {}).is_dir()


KILLED = """
import os, sys
from profiler.models.cache import made
def make(folder, lock):
    (folder / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), 9)
made("key", print, make)
"""


def test_a_killed_make_counts_as_nothing(cache: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == -signal.SIGKILL
    assert names(cache) == {"key.part", "key.lock"}
    seen: list[set[str]] = []

    def make(folder: Path, lock: int) -> dict[str, str]:
        seen.append({path.name for path in folder.iterdir()})
        return {}

    folder = made("key", quiet, make)
    assert seen == [set()] and {p.name for p in folder.iterdir()} == {ORIGIN} and names(cache) == {"key", "key.lock"}


# Writes before and after it is told to go on, as a conversion does that takes minutes.
SLOW_SCRIPT = """
import sys, time
from pathlib import Path
out, go = Path(sys.argv[1]), Path(sys.argv[2])
(out / "early").touch()
(go / "begun").touch()
end = time.monotonic() + 60
while not (go / "go").exists() and time.monotonic() < end:
    time.sleep(0.01)
(out / "late").touch()
print("{}")
"""
ORPHAN_MAKER = """
import sys
from pathlib import Path
from profiler.models.cache import made, run_script
script, go = sys.argv[1:]
made("key", print, lambda folder, lock: run_script(Path(sys.executable), Path(script), [str(folder), go], "converting", lock))
"""


def test_a_conversion_that_outlives_a_killed_profiler_does_not_write_into_the_next_one(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_SCRIPT)
    profiler = subprocess.Popen([sys.executable, "-c", ORPHAN_MAKER, str(script), str(tmp_path)])
    until((tmp_path / "begun").exists, "the conversion never began")
    profiler.send_signal(signal.SIGKILL)
    profiler.wait()
    said: list[str] = []
    result: list[Path] = []
    thread = threading.Thread(target=lambda: result.append(made("key", said.append, lambda folder, lock: {"by": "the second"})))
    thread.start()
    until(lambda: any("waiting" in line for line in said), "the second did not wait for the orphan")
    assert not result
    (tmp_path / "go").touch()
    thread.join(30)
    assert {p.name for p in result[0].iterdir()} == {ORIGIN} and "the second" in (result[0] / ORIGIN).read_text()


def test_two_processes_make_it_once(cache: Path, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from profiler.models.cache import made
def make(folder, lock):
    with open({str(tmp_path / "calls")!r}, "a") as calls:
        calls.write("x")
    return {{}}
print(made("key", lambda line: None, make))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == [str(cache / "models" / "key")] * 2
    assert (tmp_path / "calls").read_text() == "x"


def test_the_disk_is_full(cache: Path) -> None:
    def fill(folder: Path, lock: int) -> dict[str, str]:
        with Path("/dev/full").open("w") as full:  # answers each write as a full disk does
            full.write("x")
        return {}

    with pytest.raises(ModelError, match="No space left") as caught:
        made("key", quiet, fill)
    assert "SLM_PROFILER_CACHE" in str(caught.value.hint) and names(cache) == {"key.lock"}


def test_a_cache_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="key: ") as caught:
        made("key", quiet, lambda folder, lock: {})
    assert "SLM_PROFILER_CACHE" in str(caught.value.hint)


def test_a_script_that_fails_is_quoted(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys\nprint('noise', file=sys.stderr)\nsys.exit('this is not a GGUF file')")
    with Path(os.devnull).open() as lock, pytest.raises(ModelError, match="converting x failed: this is not a GGUF file") as caught:
        run_script(Path(sys.executable), script, [], "converting x", lock.fileno())
    assert "noise" in str(caught.value.detail)


def test_scripts_are_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    script = tmp_path / "env.py"
    script.write_text("import json, os\nprint('noise')\nprint(json.dumps({'offline': os.environ['HF_HUB_OFFLINE']}))")
    with Path(os.devnull).open() as lock:
        assert model_cache.run_script(Path(sys.executable), script, [], "x", lock.fileno()) == {"offline": "1"}
