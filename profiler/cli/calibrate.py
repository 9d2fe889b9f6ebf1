"""`profile calibrate`: how far the client's own times are off on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from profiler.run.calibrate import Point

HEADER = (
    f"{'cores':>5} {'streams':>8} {'tokens/s':>9} {'kept':>7} {'TTFT error p50 / p99':>24} {'gap error p99':>14} "
    f"{'read delay p99':>15} {'CPU/token':>10}"
)


@click.command("calibrate")
@click.option("--quick", is_flag=True, help="Three loads for under three seconds each instead of six for four.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the curve to this file as well.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(quick: bool, out: Path | None, as_json: bool) -> None:
    """Measure the load client's own error on this machine, at rising load.

    A paced server sends tokens at set times and writes down when; the client's times are compared with that, with idle cores and
    beside a burner on every core. Keep the machine quiet meanwhile: about three minutes, one with --quick. The result is kept with the
    machine's id, and later runs on this machine carry the error bar of their token rate.
    """
    from profiler.machine.fingerprint import fingerprint
    from profiler.run import calibrate

    streams, window_s = (calibrate.QUICK_STREAMS, calibrate.QUICK_WINDOW_S) if quick else (calibrate.STREAMS, calibrate.WINDOW_S)
    click.echo(HEADER, err=True)
    curve = calibrate.calibrate(fingerprint()["machine_id"], streams, window_s, lambda point: click.echo(_row(point), err=True))
    path = calibrate.curve_path(curve.machine_id)
    for target in filter(None, (path, out)):
        calibrate.save(curve, target)
    if as_json:
        click.echo(json.dumps(asdict(curve), indent=2))
    else:
        click.echo(f"kept in {path}" + (f" and {out}" if out else ""))


def _row(point: Point) -> str:
    c = point.checked
    errors = f"{_ms(c.ttft_error_p50_s)} / {_ms(c.ttft_error_p99_s)}"
    cpu = f"{c.client_cpu_us_per_token:.1f} µs" if c.client_cpu_us_per_token is not None else "—"
    return (
        f"{point.beside:>5} {c.load:>8.0f} {c.tokens_per_s:>9,.0f} {c.kept:>7.1%} {errors:>24} {_ms(c.itl_error_p99_s):>14} "
        f"{_ms(c.read_delay_p99_s):>15} {cpu:>10}"
    )


def _ms(value_s: float | None) -> str:
    return f"{value_s * 1e3:.3f} ms" if value_s is not None else "—"
