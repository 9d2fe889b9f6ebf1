"""The trust header: what a reader must know before looking at any figure. Every line is taken from the runs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from profiler.machine.difference import differences
from profiler.report import quality_page
from profiler.report.selection import Row, Selection, label
from profiler.units import format_duration, format_size

if TYPE_CHECKING:
    from profiler.analyse.fit import Answer

UNOBSERVED = "nobody observed or declared it"


def header(selection: Selection, planned: Answer | None = None) -> list[tuple[str, str]]:
    """(heading, text) in reading order; `planned` is a planner's answer on the same page, which brings the demand and the prices."""
    rows, documents = selection.rows, selection.documents
    return [
        ("Asked", _asked(selection)),
        ("Demand", _demand(planned)),
        ("Measured on", _machines(documents)),
        *([("Machines differ", differ)] if (differ := machines_differ(documents)) else []),
        ("Model", _models(documents)),
        ("Variants", _variants(rows)),
        ("Load", _loads(selection)),
        ("Starts", _starts(rows)),
        ("Requests", _counts(rows)),
        ("Validity", _validity(rows)),
        ("Provenance", ", ".join(_distinct(row["provenance_class"] for row in rows)) + "; " + _software(documents)),
        *([("Quality", told)] if (told := quality_page.trust(selection)) else []),
        ("Prices", _prices(planned)),
        ("Not measured, not verified", " ".join(_not_verified(selection))),
    ]


def _asked(selection: Selection) -> str:
    return "; ".join(f"{workload}: {selection.qos(workload) or 'no QoS target'}" for workload in selection.workloads)


def _demand(planned: Answer | None) -> str:
    if planned is None:
        return "none was given: the verdicts stand at the loads that were measured"
    demand = planned.question.demand
    return demand.text if demand is not None else "none was given: capacity and cost stand at the limit λ* of each backend"


def _prices(planned: Answer | None) -> str:
    """The dates and bases of the prices that were used, or how to have some."""
    if planned is None:
        return "none on this page; profile fit --qos … --demand … --out FILE adds capacity and cost"
    found = [cost for c in planned.candidates for cost in c.costs]
    days = sorted({cost.offer.as_of for cost in found})
    if not days:
        return "no price is known for these devices: give --offer"
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"as of {span}, {planned.question.prices.currency}, of {len({cost.offer.name for cost in found})} offers"


def _machines(documents: Sequence[Any]) -> str:
    """The devices as observed or declared; the client's own machine is never named for somebody else's server."""
    texts = []
    for document in documents:
        row, machine = document["run"], document["provenance"].get("machine") or {}
        if row["status"] != "done":
            continue
        if row["device_source"] != "observed":
            texts.append(
                f"{row['device']} (declared, not observed)" if row["device"] else f"an endpoint whose device is unknown: {UNOBSERVED}"
            )
            continue
        cores = f"{machine.get('sockets') or '?'} socket(s), {machine.get('cores') or '?'} cores, {machine.get('threads') or '?'} threads"
        limits = f", limited to {machine['cgroup_cpus']:g} CPUs by its cgroup" if machine.get("cgroup_cpus") else ""
        where = ", a virtual machine" if machine.get("virtual") else ""
        memory = f", {format_size(machine['memory_bytes'])}" if machine.get("memory_bytes") else ""
        isa = f"; {', '.join(machine['isa'])}" if machine.get("isa") else ""
        texts.append(f"{row['device']}: {cores}{memory}{limits}{where}{isa} (observed)")
    return "; ".join(_distinct(texts)) or "nothing was measured"


def machines_differ(documents: Sequence[Any]) -> str | None:
    """In what the machines of measured runs differ; None where all may be compared plainly."""
    seen = [
        document["provenance"].get("machine") or {}
        for document in documents
        if document["run"]["status"] == "done" and document["run"]["device_source"] == "observed"
    ]
    found = differences(seen)
    return (
        f"these runs are of differing machines, so a difference between backends may be the machine's: {'; '.join(found)}"
        if found
        else None
    )


def _models(documents: Sequence[Any]) -> str:
    texts = []
    for document in documents:
        row, model = document["run"], document["provenance"].get("model")
        if model is None:
            texts.append(str(row["model"]) if row["model"] else f"none: the {row['engine']} engine measures the harness")
            continue
        size = f", {model['n_parameters'] / 1e6:.0f} M parameters" if model.get("n_parameters") else ""
        origin = f"; its weights were dequantised from {model['base_precision']}" if model["base_precision"].startswith("q") else ""
        texts.append(f"{model['name']} from {model['source']}{size}, content {model['content_hash']}{origin}")
    return "; ".join(_distinct(texts))


def _variants(rows: Sequence[Row]) -> str:
    texts = [
        f"{row['variant']} on {row['engine']} {row['engine_version'] or ''}".rstrip()
        + (f" ({format_size(row['variant_size_bytes'])})" if row["variant_size_bytes"] else "")
        for row in rows
        if row["variant"]
    ]
    return "; ".join(_distinct(texts)) or "none was prepared"


def _loads(selection: Selection) -> str:
    points = [point for workload in selection.workloads for point in selection.loads(workload)]
    closed = ", ".join(f"{load:g}" for load in sorted({load for kind, load in points if kind == "concurrency"}))
    opened = ", ".join(_distinct(label({**row, "repeat": 0}) for row in selection.rows if row["load_kind"] == "rate"))
    texts = [f"closed loop with {closed} users (each waits for its answer: no queue, no proof for a Poisson rate)"] if closed else []
    texts += [f"open loop at {opened} (arrivals never wait)"] if opened else []
    pinned = sorted({d["run"]["workload"] for d in selection.documents if (d["provenance"].get("workload") or {}).get("pin_output")})
    texts += [f"output lengths pinned (ignore_eos) in {', '.join(pinned)}"] if pinned else []
    cut = _distinct((row["workload"], row["cut_share"]) for row in selection.done if row["cut_share"])
    texts += [f"{name}: {share:.1%} of requests cut to fit the context" for name, share in cut]
    texts += _traces(selection.documents)
    return "; ".join(texts)


def _traces(documents: Sequence[Any]) -> list[str]:
    """What was replayed of which record, with every factor, and how much of it an infinite prefix cache would have known."""
    texts = []
    for document in documents:
        facts = (document["provenance"].get("prompts") or {}).get("trace")
        if facts:
            bound = document["run"]["prefix_bound"]
            reuse = f"; an infinite prefix cache would have known {bound:.1%} of its input tokens" if bound is not None else ""
            texts.append("trace " + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "sha256") + reuse)
    return _distinct(texts)


def _starts(rows: Sequence[Row]) -> str:
    per = {
        backend: len({r["start_id"] for r in rows if r["backend"] == backend and r["start_id"]})
        for backend in _distinct(r["backend"] for r in rows)
    }
    text = ", ".join(f"{backend} {count}" for backend, count in per.items())
    if max(per.values(), default=0) <= 1:
        text += ". Every figure is conditional on one engine start; starts differ more than requests do"
    return text


def _counts(rows: Sequence[Row]) -> str:
    done = [row for row in rows if row["status"] == "done"]
    if not done:
        return "none"
    known = [row for row in done if row["n_requests"] is not None and row["window_s"] is not None]
    if not known:  # imported figures
        return f"not stated by the source ({len(done)} imported rows)"
    n = sorted(row["n_requests"] for row in known)
    errors = sum(row["n_errors"] or 0 for row in done)
    windows = sorted(row["window_s"] for row in known)
    span = f"windows of {format_duration(windows[0])} to {format_duration(windows[-1])}"
    each = f"{n[0]}" if n[0] == n[-1] else f"{n[0]} to {n[-1]}"
    return f"{each} answered per cell ({sum(n)} in {len(known)} runs), {errors} failed; {span}"


def _validity(rows: Sequence[Row]) -> str:
    counts = Counter(row["validity"] for row in rows if row["status"] == "done")
    text = ", ".join(f"{counts[flag]} {flag}" for flag in ("valid", "suspect", "invalid") if counts[flag])
    failed = sum(1 for row in rows if row["status"] != "done")
    stability = Counter(row["stability"] for row in rows if row["status"] == "done" and row["stability"])
    text += f"; {', '.join(f'{count} {word}' for word, count in stability.most_common())}" if stability else ""
    reasons = Counter(reason for row in rows if row["status"] == "done" for reason in row["validity_reasons"])
    why = "".join(f"; {reason} ({count}×)" for reason, count in reasons.most_common(3))
    return (text or "no run finished") + (f", {failed} could not be measured" if failed else "") + why


def _software(documents: Sequence[Any]) -> str:
    versions = _distinct(d["run"]["profiler_version"] for d in documents)
    commits = _distinct(d["provenance"].get("git_commit") for d in documents)
    days = sorted({str(d["run"]["started_at"] or "imported, undated")[:17].partition("T")[0] for d in documents})
    known = [c for c in commits if c]
    return (
        f"slm-profiler {', '.join(map(str, versions))}"
        + (f" at {', '.join(known)}" if known else "")
        + f", {days[0]}"
        + (f" to {days[-1]}" if days[-1] != days[0] else "")
    )


def _not_verified(selection: Selection) -> list[str]:
    rows = selection.done
    found = []
    if all(row["energy_j"] is None for row in rows):
        reasons = _distinct(row["energy_reason"] for row in rows if row["energy_reason"])
        found.append(f"Power: {'; '.join(reasons) or 'not measured'}.")
    if any("from-q" in (row["variant"] or "") for row in rows):
        found.append(
            "The weights come from an already quantised file, so int8 and int4 are a second quantisation here: demonstration only."
        )
    if any("-in-f32" in (row["variant"] or "") for row in rows):
        found.append("This CPU has no 16-bit arithmetic that OpenVINO uses: variants named -in-f32 compute and cache in f32.")
    if len({row["variant"] for row in rows}) > 1 and all(standing.row is None for standing in selection.standings.values()):
        found.append("Quality: not evaluated; a faster variant may answer worse. The samples below are no evaluation.")
    if any(row["load_kind"] == "concurrency" for row in rows):
        found.append("Requests of one run are taken as independent.")
    return found or ["Nothing that is known."]


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
