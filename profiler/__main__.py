"""`python -m profiler` is the same program as `profile`."""

from profiler.cli.main import main

main()
