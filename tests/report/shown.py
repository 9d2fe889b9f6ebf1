"""Runs as a sweep leaves them, for tests of what a report shows; one text of them is hostile. And a browser's page of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import synthetic
from playwright.sync_api import Browser

from profiler.analyse import qos, verdict
from profiler.analyse.latency import summarise
from profiler.store.store import Store

MS = 1_000_000
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
CHAT = "ttft_p95<=500ms, tpot_p95<=25ms"


def keep(store: Store, backend: str, kind: str, load: float, *, ttft_ms: int = 100, gap_ms: int = 20, n: int = 64, **columns: Any) -> str:
    """One finished run of `n` requests whose latencies spread by a third, judged as the product judges; returns its run_id."""
    warm = 30  # an open loop that starts empty fills up first: that is no growing backlog
    requests = [
        synthetic.record(i, intended_ms=15 * i, ttft_ms=ttft_ms + i * ttft_ms // (3 * n), gaps_ms=(gap_ms, gap_ms + i % 3))
        for i in range(n)
    ]
    drive = synthetic.drive(window_open_ns=15 * warm * MS, window_close_ns=15 * (n + warm) * MS)
    target = qos.parse(CHAT)
    judged = verdict.judge(target, requests, kind, load, drive, columns.get("validity", "valid"))  # type: ignore[arg-type]
    values = summarise(requests, drive, target) | {
        "sweep_id": "feedbeef00000000",
        "cell_id": f"{backend}-{kind}-{load}-{columns.get('workload', 'quickstart-chat')}",
        "backend": backend,
        "engine": "openvino",
        "engine_version": "1.2.3",
        "variant": backend.rpartition("-")[2] + "-from-q4_1",
        "device": "Testium 9000",
        "device_source": "observed",
        "model": "smollm2",
        "workload": "quickstart-chat",
        "load_kind": kind,
        "load": load,
        "qos": CHAT,
        "qos_result": judged.result,
        "qos_reason": judged.reason,
        "start_id": f"start-{backend}",
        "provenance_class": "measured",
        "energy_reason": "power is not sampled by this version",
        "profiler_version": "0.1.0",
    }
    document = synthetic.document(**values | columns)
    document["provenance"] = {"machine": {"sockets": 1, "cores": 2, "threads": 2, "isa": ["avx2"]}, "workload": {"pin_output": True}}
    document["samples"] = [{"prompt_tail": "Once", "answer": f"upon a time {HOSTILE}"}]
    document["verdicts"] = [judged.to_dict()]
    return store.keep(document, requests).name


def open_page(
    browser: Browser, path: Path, width: int = 1200, scheme: Any = "light", fragment: str = "", ready: str = "html[data-drawn=yes]"
) -> Any:
    """(page, everything the page said, everything it asked for) once `ready` is there; the caller closes its context."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri() + (f"#{fragment}" if fragment else ""))
    # By selector: wait_for_function would evaluate a string, which the page's policy forbids.
    page.wait_for_selector(ready, state="attached", timeout=60_000)
    return page, said, asked
