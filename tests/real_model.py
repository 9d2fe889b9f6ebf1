"""The one real model of all tests that need one."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.records import LocalModel


def export_python() -> Path:
    """The interpreter of the export environment, built if it is not there."""
    from profiler import environments

    return environments.ensure(environments.ENVIRONMENTS["openvino-export"], lambda line: None).python


@pytest.fixture(scope="session")
def smollm2() -> LocalModel:
    """The model of the quickstart, from the cache, the hub or the package registry."""
    from profiler.models import resolve

    return resolve("smollm2-135m-instruct", lambda line: None, convert_python=export_python)
