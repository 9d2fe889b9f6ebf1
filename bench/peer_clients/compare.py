"""One client's run against the server's record: what it reports wrongly, and what it does to the load. Two different faults."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peer_clients.adapters import OUTPUT_TOKENS, Client, Reported
from profiler.engines.paced.record import SentRequest
from profiler.run import oracle

RUN_S = 180.0


def run(command: Sequence[str], variables: dict[str, str], folder: Path) -> str | None:
    """Run it in `folder`, log beside; returns why it failed, or None. Whatever it left behind is ended."""
    with (folder / "peer.log").open("wb") as log:
        process = subprocess.Popen(
            list(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables, cwd=folder, start_new_session=True
        )
        try:
            code = process.wait(RUN_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait()
    lines = [line for line in (folder / "peer.log").read_text(errors="replace").splitlines() if line.strip()]
    if code is None:
        return f"not done after {RUN_S:.0f} s"
    return None if code == 0 else f"exit code {code}: {lines[-1][:200] if lines else ''}"


def figures(client: Client, streams: int, sent: Sequence[SentRequest], reported: Sequence[Reported], cpu_s: float) -> dict[str, Any]:
    """All of one run, JSON-safe. Pairs are of requests that the server finished and the client reports; the first round is warm-up.

    `kept` is over the middle of the run: from one ideal request time after the first request to one before the last token.
    """
    pace = oracle.Pace(output_tokens=OUTPUT_TOKENS)
    by = {("index", s.index): s for s in sent} | {("id", s.request_id): s for s in sent} | {("body", s.body_fnv1a): s for s in sent}
    pairs = []
    for one in reported:
        key = ("index", one.index) if one.index is not None else ("id", one.request_id) if one.request_id else ("body", one.body)
        server = by.get(key)
        if server is not None and server.ended == "done" and one.ttft_s is not None:
            pairs.append((one, server))
    began = min(s.received_ns for s in sent)
    ended = max(s.chunks[-1].before_ns for s in sent if s.chunks)
    pairs = [(one, s) for one, s in pairs if s.received_ns >= began + 0.5 * pace.request_s * 1e9] or pairs
    first, last = began + pace.request_s * 1e9, ended - pace.request_s * 1e9
    given = sum(c.tokens for s in sent for c in s.chunks if first <= c.before_ns < last)
    tokens = sum(c.tokens for s in sent for c in s.chunks)
    true = [(s.chunks[0].before_ns - s.received_ns) / 1e9 for _, s in pairs]
    said = [one.ttft_s for one, _ in pairs if one.ttft_s is not None]
    errors = [a - b for a, b in zip(said, true, strict=True)]
    gaps = [(one.gap_s, _gap_s(s)) for one, s in pairs if one.gap_s is not None]
    return {
        "client": client.name,
        "streams": streams,
        "n_sent": len(sent),
        "n": len(pairs),
        "ttft_reported_p50_s": oracle.quantile(said, 0.5),
        "ttft_reported_p99_s": oracle.quantile(said, 0.99),
        "ttft_true_p50_s": oracle.quantile(true, 0.5),
        "ttft_true_p99_s": oracle.quantile(true, 0.99),
        "ttft_error_p50_s": oracle.quantile(errors, 0.5),
        "ttft_error_p99_s": oracle.quantile(errors, 0.99),
        "gap_reported_s": statistics.fmean(a for a, _ in gaps) if gaps else None,
        "gap_true_s": statistics.fmean(b for _, b in gaps) if gaps else None,
        "tokens_per_s": given / ((last - first) / 1e9) if last > first else None,
        "kept": given / ((last - first) / 1e9) / pace.tokens_per_s(streams) if last > first else None,
        "cpu_us_per_token": cpu_s / tokens * 1e6 if tokens else None,
    }


def _gap_s(sent: SentRequest) -> float:
    return (sent.chunks[-1].before_ns - sent.chunks[0].before_ns) / 1e9 / max(1, sum(c.tokens for c in sent.chunks[1:]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians over repeats, one line per client and load; reporting and disturbing side by side."""
    lines = [
        "| client | streams | runs | n | reporting: TTFT p50 ms | TTFT p99 ms | error per request p50 / p99 ms | gap mean ms | "
        "disturbing: load kept % | output tokens/s (could be) | server's TTFT p50 / p99 ms | server's gap ms | CPU µs/token |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    seen: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        seen.setdefault((row["client"], row["streams"]), []).append(row)
    for (client, streams), runs in sorted(seen.items(), key=lambda item: (item[0][1], [r["client"] for r in rows].index(item[0][0]))):

        def one(key: str, factor: float, form: str, runs: list[dict[str, Any]] = runs) -> str:
            values = [r[key] * factor for r in runs if r.get(key) is not None]
            return f"{statistics.median(values):{form}}" if values else "—"

        failed = [r["failure"] for r in runs if r.get("failure")]
        if len(failed) == len(runs):
            lines.append(f"| {client} | {streams} | {len(runs)} | 0 | did not run: {failed[0]} |" + " |" * 8)
            continue
        could = oracle.Pace(output_tokens=OUTPUT_TOKENS).tokens_per_s(streams)
        lines.append(
            f"| {client} | {streams} | {len(runs) - len(failed)} | {one('n', 1, '.0f')} | "
            f"{one('ttft_reported_p50_s', 1e3, '.1f')} / {one('ttft_true_p50_s', 1e3, '.1f')} | "
            f"{one('ttft_reported_p99_s', 1e3, '.1f')} / {one('ttft_true_p99_s', 1e3, '.1f')} | "
            f"{one('ttft_error_p50_s', 1e3, '.2f')} / {one('ttft_error_p99_s', 1e3, '.2f')} | "
            f"{one('gap_reported_s', 1e3, '.2f')} / {one('gap_true_s', 1e3, '.2f')} | {one('kept', 100, '.1f')} | "
            f"{one('tokens_per_s', 1, ',.0f')} ({could:,.0f}) | {one('ttft_true_p50_s', 1e3, '.1f')} / {one('ttft_true_p99_s', 1e3, '.1f')} | "
            f"{one('gap_true_s', 1e3, '.2f')} | {one('cpu_us_per_token', 1, '.0f')} |"
        )
    return "\n".join(lines)
