"""Which model families each engine serves here, end to end: made, prepared, started, generated, stopped. The table of docs/families.md.

    .venv/bin/python bench/families.py [--family llama ...] [--backend vllm-cpu-bf16 ...] [--size tiny] [--json]

Random weights of a real architecture (`synthetic:`), so a row says "it runs", never "it is good". One family has no code of its own
anywhere: only its configuration in models/make_synthetic.py. A row that fails carries the engine's own reason. `same` is how many of
the first 16 greedy tokens the engines of a family agree on: with random weights near-ties are common, so a few is much already.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from profiler import catalog, environments
from profiler.engines import http_client, registry
from profiler.errors import ProfilerError
from profiler.models import resolve

# Family as people call it -> architecture in make_synthetic.py.
FAMILIES = {
    "Llama": "llama",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Mistral": "mistral",
    "Phi-3": "phi3",
    "Qwen3-MoE": "qwen3_moe",
    "Mixtral": "mixtral",
    "GPT-OSS": "gpt_oss",
    "DeepSeek-V2": "deepseek_v2",
    "DeepSeek-V3": "deepseek_v3",
}
BACKENDS = ("vllm-cpu-bf16", "openvino-xeon-bf16")
TOKENS = 16
PROMPT = list(range(300, 340))


@dataclass(frozen=True)
class Row:
    """`reason` None: it served. `tokens`: the greedy answer to the fixed prompt."""

    family: str
    backend: str
    parameters: int | None
    ready_s: float | None = None
    tokens: tuple[int, ...] = ()
    reason: str | None = None


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def served(family: str, size: str, backend_name: str, work: Path) -> Row:
    """One family on one backend. What goes wrong is the row's reason, one line."""
    parameters = None
    log = work / f"{FAMILIES[family]}-{backend_name}.log"
    try:
        model = resolve(f"synthetic:{FAMILIES[family]}-{size}", say, convert_python=export_python)
        parameters = model.n_parameters
        backend = catalog.backend(backend_name)
        engine = registry.get(backend.engine)
        variant = engine.prepare(model, backend, say)
        with engine.start(variant, backend, log, say) as running:
            body: dict[str, Any] = {"model": running.endpoint.model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
            body |= {"ignore_eos": True, "min_tokens": TOKENS, "return_token_ids": True}
            status, answer = http_client.request(
                running.endpoint, "POST", "/completions", json.dumps(body).encode(), prefix=True, timeout_s=120
            )
            if status != 200:
                return Row(family, backend_name, parameters, reason=http_client.error_text(status, answer))
            ids = json.loads(answer)["choices"][0]["token_ids"]
            return Row(family, backend_name, parameters, running.ready_s, tuple(ids))
    except ProfilerError as error:
        return Row(family, backend_name, parameters, reason=f"{error.message}{_cause(log)}")


def _cause(log: Path) -> str:
    """The exception that began it: an engine's last lines often say only that something ended, and name the next in line."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    named = [found[1] for line in lines if (found := re.search(r"\b(\w*(?:Error|Exception): .+)", line))]
    first = [
        text for text in named if not text.startswith("EngineDeadError") and "Engine core init" not in text and "EngineCore enc" not in text
    ]
    return f" [{first[0][:300]}]" if first else ""


def export_python() -> Path:
    return environments.ensure(environments.ENVIRONMENTS["openvino-export"], say).python


def same(rows: list[Row]) -> int | None:
    """Leading tokens that all engines of one family agree on; None unless two served."""
    answers = [row.tokens for row in rows if row.reason is None]
    if len(answers) < 2:
        return None
    return next((i for i, column in enumerate(zip(*answers, strict=True)) if len(set(column)) > 1), TOKENS)


def table(rows: list[Row], backends: list[str]) -> str:
    lines = ["| family | parameters | " + " | ".join(backends) + f" | same tokens of {TOKENS} |", "|---|" + "---|" * (len(backends) + 2)]
    for family in dict.fromkeys(row.family for row in rows):
        own = {row.backend: row for row in rows if row.family == family}
        cells = [f"ready in {row.ready_s:.0f} s" if (row := own[b]).ready_s is not None else f"no: {row.reason}" for b in backends]
        agreed = same(list(own.values()))
        size = next((f"{row.parameters / 1e6:.1f} M" for row in own.values() if row.parameters), "")
        lines.append(f"| {family} | {size} | " + " | ".join(cells) + f" | {'' if agreed is None else agreed} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=tuple(FAMILIES), default=None)
    parser.add_argument("--backend", action="append", default=None)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    backends = options.backend or list(BACKENDS)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for family in options.family or FAMILIES:
            for backend in backends:
                rows.append(served(family, options.size, backend, Path(work)))
                say(json.dumps(asdict(rows[-1])))
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else table(rows, backends))
    return 0


if __name__ == "__main__":
    sys.exit(main())
