"""The short form of bench/store_crash.py: a few kills of real sweeps and readers, nothing lost and nothing half read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "store_crash.py"


def test_ten_kills_lose_nothing_and_no_reader_sees_half_a_run() -> None:
    done = subprocess.run(
        [sys.executable, BENCH, "--kills", "10", "--readers", "3", "--limit-s", "150"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    kills, finished, looks = int(row[0]), int(row[5]), int(row[8])
    assert kills >= 5 and finished > 0 and looks > 0, done.stdout  # a machine that is busy elsewhere gets fewer done in its time
    assert re.search(r"\| 0 \| 0 \| \d+ \| 0 \|$", done.stdout.strip()), done.stdout
