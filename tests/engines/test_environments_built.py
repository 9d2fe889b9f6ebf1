"""The real environments of the engines and tools that the tests run. Each is built here if it is not there: in the lane without engines, while the
other one begins with engines whose environment it has (tests/conftest.py)."""

import pytest

from profiler import environments

pytestmark = pytest.mark.builds


@pytest.mark.parametrize("name", ["vllm-cpu", "openvino", "openvino-export", "llmcompressor", "lm-eval"])
def test_an_environment_holds_what_its_pins_say_and_nothing_that_breaks_it(name: str) -> None:
    spec = environments.ENVIRONMENTS[name]
    versions = {named.replace("_", "-"): version for named, version in environments.ensure(spec, print).versions.items()}
    pins = [pin.split("==") for pin in (*spec.first_pins, *spec.pins, *spec.no_deps_pins) if "==" in pin]
    assert pins
    for distribution, version in pins:
        # A build of PyTorch for CPUs says so behind a plus sign.
        assert versions[distribution.partition("[")[0].replace("_", "-").lower()].partition("+")[0] == version
    assert not set(spec.remove) & set(versions)
