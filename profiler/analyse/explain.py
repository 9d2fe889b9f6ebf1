"""What a word means: metrics, columns of the store, words of the glossary. Every definition stands in one place and is read from there.

Definitions of stored quantities are the schema's, words are those of docs/glossary.md, what a QoS target reads is qos.METRICS'. Only what
none of them says is here: the formula in symbols, and what a metric is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from profiler import catalog
from profiler.analyse.qos import METRICS, PRESETS
from profiler.errors import UnknownNameError
from profiler.store import schema

Kind = Literal["metric", "column", "word", "preset"]


@dataclass(frozen=True)
class Explained:
    """`stored`: table.column of each place. `is_not`: what it is mistaken for. `qos`: how a target reads it, None where none does."""

    name: str
    kind: Kind
    unit: str
    definition: str
    formula: str | None = None
    is_not: str | None = None
    stored: tuple[str, ...] = ()
    qos: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class _Metric:
    column: str  # whose definition is the metric's
    formula: str
    is_not: str
    also: tuple[str, ...] = ()  # further columns it is stored in, as patterns of column names of `runs`


_METRICS = {
    "ttft": _Metric("requests.ttft_s", "first_token_ns − sent_ns", "the first byte, an empty or a role-only chunk; nor what a user waits where requests queue before they are sent: ttft_sched", (r"ttft_p\d+_s", "ttft_mean_s")),
    "ttft_sched": _Metric("requests.ttft_sched_s", "first_token_ns − intended_ns", "ttft, which leaves out how late a request was sent", (r"ttft_sched_p\d+_s",)),
    "tpot": _Metric("requests.tpot_s", "(last_token_ns − first_token_ns) / (output_tokens − tokens in the first read)", "the gap between two reads (icl), nor e2e / output_tokens, which has the TTFT in it", (r"tpot_p\d+_s", "tpot_mean_s")),
    "icl": _Metric("requests.max_icl_s", "max over reads of t[k] − t[k−1], from arrival_offsets_us", "the gap between two tokens: a read may bring several. vLLM's bench calls it ITL; as `itl` and `tbt` differ between tools, a target refuses both words"),
    "e2e": _Metric("requests.e2e_s", "done_ns − sent_ns", "the wait from the intended send: e2e_sched", ("e2e_mean_s",)),
    "e2e_sched": _Metric("requests.e2e_sched_s", "done_ns − intended_ns", "the time of the last token: the last byte ends it", (r"e2e_sched_p\d+_s",)),
    "output_tps": _Metric("runs.output_tps", "output tokens that arrive in [open, close) / window_s", "tokens of requests that ended in the window, nor input tokens: total_tps"),
    "total_tps": _Metric("runs.total_tps", "output_tps + input tokens of requests whose first token arrives in the window / window_s", "a rate at which output appears"),
    "request_rate": _Metric("runs.request_rate", "requests answered in full in [open, close) / window_s", "the rate that was asked for: offered_rate"),
    "offered_rate": _Metric("runs.offered_rate", "n_cohort / window_s", "what was answered: request_rate"),
    "goodput": _Metric("runs.goodput", "requests of the cohort that meet every threshold of the target / window_s", "the request rate: a late answer counts there and not here"),
    "send_lag": _Metric("runs.send_lag_p99_s", "sent_ns − intended_ns", "latency of the server: it is this program's own error", (r"send_lag_p\d+_s",)),
    "energy": _Metric("runs.energy_j", "∫ P dt over the window, of one scope", "comparable between scopes, nor ever estimated from a nominal TDP", (r"energy_.*_j", "energy_scope", "energy_reason", "energy_source")),
    "power": _Metric("runs.power_mean_w", "energy_j / window_s", "the idle power taken off: idle_power_w stands beside it", ("idle_power_w",)),
    "prefix_hit_rate": _Metric("runs.prefix_hit_rate", "prefix_hit_tokens / prefix_queried_tokens", "what was asked for: prefix_declared; nor what is possible: prefix_block_bound"),
    "memory": _Metric("runs.peak_memory_bytes", "highest resident memory of the engine's processes", "the model's size on disk: variant_size_bytes", (r"predicted_\w+_bytes", r"used_\w+_bytes", "memory_limit_bytes")),
}  # fmt: skip
_SAME = {"itl": "icl", "tbt": "icl", "λ*": "limit", "throughput": "output_tps", "energy_j": "energy", "lambda*": "limit"}
_DERIVED = {
    "limit": Explained("limit", "metric", "1/s", "λ*: the highest Poisson rate at which the QoS target is kept", "lower end: the highest measured rate that FITS below which none FAILS; upper end: the lowest that FAILS",
                       "a throughput at saturation; nor proven by a closed loop, which has no queue", ("profile fit: limit_lower, limit_upper",), None, "docs/limits.md, docs/capacity.md"),
    "idle": Explained("idle", "metric", "share", "share of the fleet's capacity under the target that the demand leaves unused, redundancy apart", "1 − demand / (replicas × λ*)",
                      "GPU utilisation", ("profile fit: idle_share",), None, "docs/cost.md"),
    "qos_price": Explained("qos_price", "metric", "factor", "the price of the QoS: what keeping the target costs over running saturated", "cost per request at λ* / cost per request at saturation",
                           "a price in money; \"≥\" where saturation was not proven by a plateau", ("profile cost: price of the QoS",), None, "docs/cost.md"),
    "error_rate": Explained("error_rate", "metric", "share", "share of the cohort that failed, was cancelled or never finished", "n_errors / n_cohort",
                            "HTTP errors alone: a stalled or cut answer counts", ("runs.n_errors", "runs.n_cohort"), "error_rate<=1%: proven by the exact bound of the share", "docs/qos.md"),
}  # fmt: skip


def explain(name: str) -> Explained:
    """The definition of a metric, column, word or preset; `ttft_p95` is that percentile of ttft. Raises UnknownNameError."""
    asked = name.strip().lower()
    asked = _SAME.get(asked, asked)
    table, _, column = asked.rpartition(".")
    if not table and (found := _metric(asked)):
        return found
    if (columns := _columns(column, table)) is not None:
        return columns
    if not table and (percentile := re.fullmatch(r"(\w+?)_p(\d+(?:\.\d+)?)", asked)) and (base := _metric(percentile[1])):
        order = f"p{percentile[2]} of the cohort: an order statistic, no interpolation; failed and unfinished requests count as +∞"
        return Explained(
            asked,
            "metric",
            base.unit,
            f"{order}. {base.name}: {base.definition}",
            base.formula,
            base.is_not,
            base.stored,
            base.qos,
            base.source,
        )
    words = glossary()
    key = next((word for word in words if asked in {part.strip().lower() for part in (word, *word.split(","))}), None)
    if key is not None:
        return Explained(key, "word", "", words[key], source="docs/glossary.md")
    if asked in PRESETS:
        preset = PRESETS[asked]
        return Explained(asked, "preset", "", preset.text, source=preset.source, qos=f"--qos {asked}")
    raise UnknownNameError("metric, column or word", name, names())


def everything() -> list[Explained]:
    """Metrics, then words and presets: what `profile explain` lists. Columns are in `names()` as well."""
    metrics = [found for name in (*_METRICS, *_DERIVED) if (found := _metric(name))]
    words = [Explained(word, "word", "", text, source="docs/glossary.md") for word, text in glossary().items()]
    return [*metrics, *words, *(explain(name) for name in PRESETS)]


def names() -> list[str]:
    """Everything that can be explained."""
    columns = [c.name for table in schema.TABLES.values() for c in table]
    return list(dict.fromkeys([*_METRICS, *_DERIVED, *_SAME, *glossary(), *PRESETS, *columns]))


def glossary() -> dict[str, str]:
    """Word -> meaning, from the tables of docs/glossary.md; links are reduced to their text."""
    text = (catalog.root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| (.+?) \|$", text, flags=re.M)
    return {word: re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"docs/\2", meaning).replace("`", "") for word, meaning in rows if word != "word"}


def _metric(name: str) -> Explained | None:
    if name in _DERIVED:
        return _DERIVED[name]
    if name not in _METRICS:
        return None
    m = _METRICS[name]
    table, _, column = m.column.partition(".")
    defined = next(c for c in schema.TABLES[table] if c.name == column)
    stored = [m.column, *(f"runs.{c.name}" for c in schema.RUNS if any(re.fullmatch(p, c.name) for p in m.also))]
    return Explained(
        name, "metric", defined.unit, defined.definition, m.formula, m.is_not, tuple(dict.fromkeys(stored)), _qos(name), "docs/measuring.md"
    )


def _qos(name: str) -> str | None:
    if name not in METRICS:
        return None
    column, _, vacuous = METRICS[name]
    without = "keeps the limit" if vacuous else "misses"
    return f"{name}_p95<=… reads requests.{column}; an answered request without it {without}, a failed one always misses"


def _columns(name: str, table: str) -> Explained | None:
    """A column by its name; the one of `runs` first where several tables have it."""
    found = [(t, c) for t, columns in schema.TABLES.items() for c in columns if c.name == name and table in ("", t)]
    if not found:
        return None
    first = found[0][1]
    stored = tuple(f"{t}.{c.name}" for t, c in found)
    return Explained(first.name, "column", first.unit, first.definition, stored=stored, source="results/README.md")


def near(beginning: str) -> Iterable[str]:
    """Names that begin so, for completion."""
    return (name for name in names() if name.startswith(beginning))
