"""A store as a sweep leaves it, with hostile text in it, and a real browser to look at its report with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from playwright.sync_api import Browser, sync_playwright
from shown import HOSTILE, keep, open_page

from profiler.store.store import Store


@pytest.fixture
def keep_run() -> Callable[..., str]:
    return keep


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two backends, three closed loops and an open one, a failed cell, a suspect run."""
    store = Store(tmp_path_factory.mktemp("results"))
    for backend, speed in (("openvino-xeon-int8", 1), ("openvino-xeon-bf16", 2)):
        for load in (1, 4, 16):
            keep(store, backend, "concurrency", load, ttft_ms=60 * load * speed, gap_ms=3 * load * speed)
        keep(store, backend, "rate", 3, ttft_ms=120 * speed, gap_ms=12 * speed)
    keep(store, "openvino-xeon-int8", "concurrency", 2, validity="suspect", validity_reasons=[f"late sends {HOSTILE}"])
    failed = {"status": "failed", "status_reason": f"it died: {HOSTILE}", "validity": "invalid", "validity_reasons": ["it died"]}
    columns = {"sweep_id": "feedbeef00000000", "cell_id": "dead", "backend": HOSTILE, "workload": "quickstart-chat", "model": HOSTILE}
    store.keep(synthetic.document(**columns, **failed, engine="openvino", provenance_class="measured", profiler_version="0.1.0"))
    return store


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Where there is none the test is skipped with the reason; in CI that is a failure."""
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        reason = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Any]]:
    """`opened(file, width=…, scheme=…, fragment=…)` gives (page, everything the page said, everything it asked for)."""
    pages = []

    def keep_open(path: Path, **options: Any) -> Any:
        pages.append(open_page(browser, path, **options))
        return pages[-1]

    yield keep_open
    for page, _, _ in pages:
        page.context.close()
