"""What the machine did while a cell was measured, sampled by a process of its own: docs/telemetry.md.

`recording(folder, pids, period_s)` is all the rest of the program needs; a source of readings is one file with one class (source.py).
"""
