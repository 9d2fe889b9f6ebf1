"""What a sweep says while it runs: one live line on a terminal, one line per event elsewhere (CI, a file). On stderr."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from profiler.plan import Cell, cohort_wanted

if TYPE_CHECKING:
    from profiler.run.drive import DriveProgress

QUIET_PERIOD_S = 20.0  # without a terminal a cell in progress speaks this often, so that CI logs show life


class Progress:
    """Counts cells, estimates the time left from the cells that are done, and prints."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.done = 0
        self.failed = 0
        self._tty = sys.stderr.isatty()
        self._measuring_s = 0.0  # spent in cells that are done; set-up and engine starts are not what is left
        self._cell_began = time.monotonic()
        self._spoke = time.monotonic()
        self._live = False

    def note(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        click.echo(text, err=True)

    def working(self, text: str) -> None:
        """A line of a long set-up step: replaced by the next one on a terminal, kept elsewhere."""
        if self._tty:
            self._line(text)
        else:
            click.echo(text, err=True)

    def live(self, text: str) -> None:
        """Where it is: replaced by the next one on a terminal, said now and then elsewhere."""
        if self._tty:
            self._line(text)
        elif time.monotonic() - self._spoke >= QUIET_PERIOD_S:
            self._spoke = time.monotonic()
            click.echo(text, err=True)

    def cell_started(self, cell: Cell) -> None:
        self._spoke = self._cell_began = time.monotonic()
        if self._tty:
            self._line(f"{self._count()} {cell.label}: preparing prompts")

    def cell_progress(self, cell: Cell, now: DriveProgress) -> None:
        """n against n needed, as the window fills."""
        if not self._tty and time.monotonic() - self._spoke < QUIET_PERIOD_S:
            return
        self._spoke = time.monotonic()
        text = f"{self._count()} {cell.label}: {now.phase} {now.elapsed_s:.0f} s, n {now.cohort_done}/{cohort_wanted(cell)}"
        text += f", {now.errors} errors" if now.errors else ""
        text += self._left()
        if self._tty:
            self._line(text)
        else:
            click.echo(text, err=True)

    def cell_done(self, cell: Cell, summary: str, failed: bool = False) -> None:
        self.done += 1
        self.failed += failed
        if not failed:
            self._measuring_s += time.monotonic() - self._cell_began
        self.note(f"[{self.done}/{self.cells}] {cell.label}: {summary}")

    def already(self, count: int, backend: str) -> None:
        """Cells that an earlier sweep into this folder has measured under the same conditions."""
        self.cells -= count
        if count:
            self.note(
                f"{backend}: {count} cell{'s' if count != 1 else ''} already measured under the same conditions (--again repeats them)"
            )

    def _count(self) -> str:
        return f"[{self.done + 1}/{self.cells}]"

    def _left(self) -> str:
        """From the mean length of the cells measured so far."""
        measured = self.done - self.failed
        if not measured:
            return ""
        spent_s = time.monotonic() - self._cell_began
        left_s = max(0.0, self._measuring_s / measured * (self.cells - self.done) - spent_s)
        return f", about {max(1, round(left_s / 60))} min left"

    def _line(self, text: str) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        click.echo("\r\x1b[2K" + text[:width], err=True, nl=False)
        self._live = True

    def _clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._live = False
