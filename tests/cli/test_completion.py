"""Shell completion, asked as a shell asks; and the scripts by the shells that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from profiler import catalog
from profiler.store.store import Store

PROFILE = Path(sys.executable).parent / "profile"


def offered(*words: str, folder: Path | None = None) -> list[str]:
    """What `profile` offers for the last word."""
    environment = os.environ | {
        "COMP_WORDS": " ".join(("profile", *words)),
        "COMP_CWORD": str(len(words)),
        "_PROFILE_COMPLETE": "bash_complete",
    }
    done = subprocess.run([PROFILE], env=environment, capture_output=True, text=True, cwd=folder, check=False)
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_that_ship() -> None:
    assert offered("sw") == ["sweep"]
    assert offered("sweep", "--backend", "openvino-") == [name for name in catalog.backend_names() if name.startswith("openvino-")]
    assert offered("sweep", "--workload", "quickstart-") == [name for name in catalog.workload_names() if name.startswith("quickstart-")]
    assert "smollm2-135m-instruct" in offered("sweep", "--model", "smol")
    assert "--find-limit" in offered("sweep", "--find")
    assert offered("explain", "goodp") == ["goodput"]
    assert "openvino" in offered("engines", "install", "openv")


def test_ids_of_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    run_id = store.keep(synthetic.document(workload="w"), [synthetic.record(0)]).name
    assert offered("results", "show", run_id[:4], folder=tmp_path) == [run_id]
    assert offered("results", "show", "--results", str(store.path), run_id[:4]) == [run_id]
    assert offered("report", "--sweep", "s", folder=tmp_path) == ["s1"]
    assert offered("fit", "--workload", "w", folder=tmp_path) == ["w"]
    assert offered("results", "show", "2", folder=tmp_path / "results") == []  # no folder: nothing, and no error in the prompt


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_scripts(shell: str) -> None:
    script = subprocess.run([PROFILE, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert "_PROFILE_COMPLETE" in script and "%(" not in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, capture_output=True)


def test_bash_completes_with_it() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    code = f"""
PATH={PROFILE.parent}:$PATH
eval "$(profile completion bash)"
COMP_WORDS=(profile list back); COMP_CWORD=2
_profile_completion profile
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "backends", done.stderr
