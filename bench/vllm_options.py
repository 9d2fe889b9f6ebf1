"""What LoRA adapters and speculative decoding cost or win on vLLM: the same load on the same model, one start per option.

    .venv/bin/python bench/vllm_options.py [--option base --option adapters --option ngram --option draft] [--users 1,4] [--json]

`adapters`: three on one base, each request asks for the base or one of them (seeded). `ngram`: guesses from the prompt itself. `draft`: the
base's first ten layers guess. Measured by the product's own client; a chunk may hold several tokens and they are counted by their ids.
The adapters and the draft are made here, untrained: their speed is real, how often the draft guesses right is not that of a good one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from profiler import catalog, environments, plan
from profiler.engines import registry
from profiler.models import resolve
from profiler.models.synthetic_adapter import write_adapter, write_draft
from profiler.records import LocalModel
from profiler.run.cell import measure
from profiler.spec import BackendSpec, SweepSpec, WorkloadSpec, validate_spec

OPTIONS = ("base", "adapters", "ngram", "draft")
ISL, OSL = 64, 64
DRAFT_LAYERS = 10
WINDOW_MAX_S = 60.0  # with adapters no answer of 64 tokens ends within 20 s on two cores
GUESSES = 4


@dataclass(frozen=True)
class Row:
    """`accepted`: share of the guessed tokens that the model took, by the server's counters. Times are medians over the cohort."""

    option: str
    users: int
    output_tps: float
    ttft_p50_s: float
    tpot_p50_s: float
    tokens_per_read: float
    accepted: float | None
    requests: int
    wrong_length: int  # answers with another number of tokens than asked: must be 0
    asked: dict[str, int]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def backend_of(option: str, model: LocalModel, work: Path) -> BackendSpec:
    spec = catalog.backend("vllm-cpu-bf16")
    added: dict[str, Any] = {}
    if option == "adapters":
        added["adapters"] = {f"lora-{n}": str(write_adapter(model.folder, work / f"lora-{n}", seed=n)) for n in (1, 2, 3)}
    elif option == "ngram":
        added["speculative"] = {"method": "ngram", "num_speculative_tokens": GUESSES, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    elif option == "draft":
        draft = write_draft(model.folder, work / "draft", DRAFT_LAYERS)
        added["speculative"] = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": GUESSES}
    # A context no longer than the load needs, so that warm-up and pool are those of the load.
    raw = spec.model_dump() | {"name": f"{spec.name}-{option}", "options": {**spec.options, "max_model_len": 1024, **added}}
    return validate_spec(raw, BackendSpec, option)


def measured(option: str, users: list[int], requests: int, model: LocalModel, work: Path) -> list[Row]:
    backend = backend_of(option, model, work)
    lengths = {"kind": "fixed", "isl": ISL, "osl": OSL}
    raw = {"name": "vllm-options", "version": 1, "summary": "bench", "source": "bench", "lengths": lengths}
    workload = validate_spec(raw | ({"adapters": "mixed"} if option == "adapters" else {}), WorkloadSpec, "bench")
    engine = registry.get("vllm")
    variant = engine.prepare(model, backend, say)
    rows = []
    with engine.start(variant, backend, work / f"{option}.log", say) as running:
        for number in users:
            spec = SweepSpec(requests=requests, window_min_s=5, window_max_s=WINDOW_MAX_S, warmup_s=2)
            cell = plan.make_cell(spec, backend, workload, "concurrency", float(number), None)
            folder = work / f"{option}-{number}"
            folder.mkdir()
            before = running.metrics()
            result = measure(
                cell, running.endpoint, model.folder / "tokenizer.json", model.max_context_tokens, folder, engine_pid=running.pid
            )
            good = [r for r in result.requests if r.in_window and r.error_kind is None]
            opened, closed = result.drive.window_open_ns, result.drive.window_close_ns
            tokens = sum(
                count
                for r in result.requests
                for offset, count in zip(r.arrival_offsets_us, r.arrival_tokens, strict=True)
                if r.sent_ns is not None and opened <= r.sent_ns + offset * 1000 < closed
            )
            reads = [count for r in good for count in r.arrival_tokens]
            row = Row(
                option,
                number,
                tokens / ((closed - opened) / 1e9),
                statistics.median(r.ttft_s for r in good if r.ttft_s is not None),
                statistics.median(r.tpot_s for r in good if r.tpot_s is not None),
                sum(reads) / len(reads),
                accepted(before, running.metrics()),
                len(good),
                sum(r.output_tokens != OSL for r in good),
                dict(Counter(r.asked_model or running.endpoint.model for r in good)),
            )
            say(json.dumps(asdict(row)))
            rows.append(row)
    return rows


def accepted(before: dict[str, float], after: dict[str, float]) -> float | None:
    """Accepted / drafted tokens, from vLLM's counters; None where nothing was drafted."""

    def grown(name: str) -> float:
        return sum(
            value - before.get(key, 0.0) for key, value in after.items() if key.startswith(f"vllm:spec_decode_num_{name}_tokens_total")
        )

    drafted = grown("draft")
    return grown("accepted") / drafted if drafted else None


def table(rows: list[Row]) -> str:
    base = {row.users: row for row in rows if row.option == "base"}
    lines = [
        "| option | users | output tokens/s | of base | TTFT p50, ms | TPOT p50, ms | tokens per read | guesses taken |",
        "|---|" + "---|" * 7,
    ]
    for row in rows:
        share = f"{row.output_tps / base[row.users].output_tps:.2f}" if row.users in base else ""
        taken = "" if row.accepted is None else f"{row.accepted:.0%}"
        times = f"{row.ttft_p50_s * 1e3:.0f} | {row.tpot_p50_s * 1e3:.1f}"
        lines.append(f"| {row.option} | {row.users} | {row.output_tps:.1f} | {share} | {times} | {row.tokens_per_read:.2f} | {taken} |")
    return "\n".join(lines)


def export_python() -> Path:
    return environments.ensure(environments.ENVIRONMENTS["openvino-export"], say).python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--option", action="append", choices=OPTIONS, default=None)
    parser.add_argument("--users", default="1,4")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = resolve(options.model, say, convert_python=export_python)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for option in options.option or OPTIONS:
            rows += measured(option, [int(n) for n in options.users.split(",")], options.requests, model, Path(work))
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
