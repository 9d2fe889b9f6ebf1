"""Settings for all tests."""

import signal

import pytest
from hypothesis import settings
from real_model import smollm2  # noqa: F401 - a fixture
from synthetic import make_document, make_drive, make_record  # noqa: F401 - fixtures

# No deadline: how long an example takes depends on the machine and on who else uses it.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# A run in the background of a script (`make test &`, some CI) is started with SIGINT ignored, and so would be every program that a test starts
# to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` has two lanes (pytest-xdist): one worker has all real engines, first and one at a time, on shared servers; the other builds
    the environments that are missing (`builds`), then has the rest, a file at a time. Without workers only the order changes."""

    def has(mark: str, item: pytest.Item) -> bool:
        return item.get_closest_marker(mark) is not None

    items.sort(key=lambda item: (not has("engine", item), not has("builds", item)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("engines" if has("engine", item) else item.path.name))
