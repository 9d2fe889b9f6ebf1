"""Backends for tests."""

from __future__ import annotations

from typing import Any

from profiler.spec import BackendSpec, validate_spec


def backend(engine: str, **options: Any) -> BackendSpec:
    raw = {"name": f"test-{engine}", "summary": "a test", "engine": engine, "device": "cpu", "precision": "none", "options": options}
    return validate_spec(raw, BackendSpec, "a test")
