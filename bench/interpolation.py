"""How far the interpolation of docs/interpolation.md is off, by hardware: each measured cell predicted from the others.

    .venv/bin/python bench/interpolation.py FOLDER          # prints the tables; FOLDER holds the three public files (docs/interpolation.md names them)
    .venv/bin/python bench/interpolation.py FOLDER --write  # and writes them into the page

Groups are what is never pooled: system, model, engine and version, precision, parallelism; of OpenVINO: file, model, device, precision.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from profiler.analyse.interpolate import FEWEST, Fit, Point, fit, interpolation, quantiles

PAGE = Path(__file__).resolve().parents[1] / "docs" / "interpolation.md"
SILICON = "aiconfigurator_silicon_sample.csv"
GROUP = ("system", "model_path", "backend", "backend_version", "precision", "tp_size", "pp_size", "attention_dp_size", "moe_ep_size")
Groups = dict[tuple[str, ...], list[Point]]


def silicon(path: Path) -> Groups:
    """Aggregated serving only; users are its batch size."""
    found: Groups = defaultdict(list)
    for row in csv.DictReader(path.open(encoding="utf-8")):
        if row["mode"] != "agg":
            continue
        try:
            isl, osl, users, ttft, tpot = (float(row[k]) for k in ("isl", "osl", "batch_size", "silicon_ttft_ms", "silicon_tpot_ms"))
        except ValueError:
            continue
        if ttft > 0 and tpot > 0:
            found[tuple(row[k] for k in GROUP)].append(Point(isl, osl, users, ttft / 1e3, tpot / 1e3))
    return found


def openvino(path: Path, device: str, model: str, precision: str, rate: str, throughput: str, latency: str) -> Groups:
    """Lengths are not stated and alike, so they are 1; R by Little's law from the rate that was answered, in units of the unknown length."""
    rows: dict[tuple[str, ...], list[tuple[float, float, float]]] = defaultdict(list)
    for row in csv.DictReader(path.open(encoding="utf-8-sig")):
        if row[rate] != "inf":
            rows[(row[device], row[model], row[precision])].append((float(row[rate]), float(row[throughput]), float(row[latency]) / 1e3))
    found: Groups = {}
    for key, own in rows.items():
        lowest = min(own)
        per_request = lowest[1] / lowest[0]
        found[key] = [Point(1.0, 1.0, tokens / per_request * tpot, None, tpot) for _, tokens, tpot in own]
    return found


def at_rates(groups: Groups) -> str:
    """The same of open loops, where only the answered rate is given: R itself must be predicted, so its own TPOT does not help."""
    lines = [
        "| hardware | groups | rates inside | median | nine in ten | no answer | rates outside | median | nine in ten | no answer |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    errors: dict[tuple[str, bool], list[float]] = defaultdict(list)
    without: dict[tuple[str, bool], int] = defaultdict(int)
    for key, points in groups.items():
        for k, left_out in enumerate(points):
            others = points[:k] + points[k + 1 :]
            rate, made = left_out.running / (left_out.tpot_s or 1.0), interpolation(others)
            assert not isinstance(made, str)
            inside = min(p.running / (p.tpot_s or 1.0) for p in others) <= rate <= max(p.running / (p.tpot_s or 1.0) for p in others)
            predicted = made.at_rate(1.0, 1.0, rate)
            if predicted is None:
                without[(key[0], inside)] += 1
            else:
                errors[(key[0], inside)].append(abs((predicted.tpot_s or 0.0) / (left_out.tpot_s or 1.0) - 1))
    for system in sorted({key[0] for key in groups}):
        parts = [f"{_cells(errors[(system, inside)])} | {without[(system, inside)]}" for inside in (True, False)]
        lines.append(f"| {system} | {sum(key[0] == system for key in groups)} | {' | '.join(parts)} |")
    return "\n".join(lines)


def table(groups: Groups, metrics: Sequence[str]) -> str:
    """One line per hardware: errors of the cells inside the hull of the others, and of those outside."""
    fits: dict[tuple[str, str], list[Fit]] = defaultdict(list)
    for key, points in groups.items():
        for metric in metrics:
            if len({p.cell for p in points}) >= FEWEST + 1:
                fits[(key[0], metric)].append(fit(metric, points))
    lines = [
        "| hardware | metric | groups | cells inside | median | nine in ten | cells outside | median | nine in ten |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (system, metric), own in sorted(fits.items()):
        parts = [[e for f in own for e in getattr(f, where)] for where in ("errors_inside", "errors_outside")]
        lines.append(f"| {system} | {metric.upper()} | {len(own)} | {' | '.join(_cells(part) for part in parts)} |")
    return "\n".join(lines)


def _cells(errors: Sequence[float]) -> str:
    found = quantiles(errors)
    return f"{len(errors)} | {found[0]:.1%} | {found[1]:.0%}" if found is not None else "0 | — | —"


def tables(folder: Path) -> dict[str, str]:
    sample = openvino(
        folder / "openvino_llm_models_ovms.csv", "Node", "Model", "Precision", "Request Rate", "Throughput [tok/s]", "TPOT Mean Latency"
    )
    graph = openvino(
        folder / "openvino_graph-data-ovms-genai_flat.csv",
        "platform",
        "model",
        "precision",
        "request_rate",
        "throughput_tok_s",
        "latency_ms",
    )
    return {
        "silicon": table(silicon(folder / SILICON), ("tpot", "ttft")),
        "openvino-llm-models": at_rates(sample),
        "openvino-graph": at_rates(graph),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--write", action="store_true")
    asked = arguments.parse_args()
    made = tables(asked.folder)
    for name, text in made.items():
        print(f"{name}\n{text}\n")
    if asked.write:
        page = PAGE.read_text()
        for name, text in made.items():
            page = re.sub(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, text=text: m[1] + text + m[2], page, flags=re.S)  # type: ignore[misc]
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
