"""Settings for all tests."""

import signal

from hypothesis import settings
from real_model import smollm2  # noqa: F401 - a fixture
from synthetic import make_document, make_drive, make_record  # noqa: F401 - fixtures

# No deadline: how long an example takes depends on the machine and on who else uses it.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# A run in the background of a script (`make test &`, some CI) is started with SIGINT ignored, and so would be every program that a test starts
# to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)
