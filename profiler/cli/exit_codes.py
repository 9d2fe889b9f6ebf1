"""The exit codes of `profile`, each once; docs/exit-codes.md is their table, and a test compares the two."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_PROVEN = 3  # sweep --fail-on-qos, evaluate --fail-on-quality: a target or a quality that is not proven to be kept
    REGRESSION = 4  # compare --fail-if: more than the limit, proven
    INCONCLUSIVE = 5  # compare --fail-if: neither is proven
    INTERRUPTED = 130  # 128 + SIGINT, what shells report for a program ended by Ctrl-C
