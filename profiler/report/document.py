"""What every page of this program shares: escaping, a Content-Security-Policy, plotly packed into the file, and a write that never leaves half.

Pages open offline and load nothing. Their policy allows no source at all but scripts of known hash, inline styles (plotly writes them) and
images from data: URLs.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import ReportError

if TYPE_CHECKING:
    from jinja2 import Environment

SIGNIFICANT_DIGITS = 6  # of figure data: a screen has some four thousand pixels


def environment(filters: Mapping[str, Any]) -> Environment:
    """Templates of profiler/report/page; everything that is put in is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("profiler.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= dict(filters)
    return made


def asset(name: str) -> str:
    """A style or script of profiler/report/page."""
    return (resources.files("profiler.report") / "page" / name).read_text(encoding="utf-8")


def policy(*hashes: str) -> str:
    """The Content-Security-Policy of a page whose scripts have these hashes (`hash_of`)."""
    scripts = " ".join(f"'{each}'" for each in hashes) or "'none'"
    return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def hash_of(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def packed_plotly() -> tuple[str, str]:
    """(plotly.min.js as base64 of gzip, its hash): 4.8 MB become 2.0. draw.js unpacks it, and runs it by its hash only.

    PyPI's plotly has no partial bundle; a copy of one in this repository would have to follow its releases by hand.
    """
    from plotly.offline import get_plotlyjs

    library: str = get_plotlyjs()
    return base64.b64encode(gzip.compress(library.encode(), 9, mtime=0)).decode(), hash_of(library)


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<` at all, so neither an end tag nor a comment. inf and NaN become null."""
    text = json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def write(text: str, out: Path, hint: str = "give another file with --out") -> Path:
    """Write beside `out` and rename into place; returns `out`. Raises ReportError, with the hint, and leaves nothing when it cannot."""
    beside = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            beside = Path(file.name)
            file.write(text)
        beside.chmod(0o644)
        beside.replace(out)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ReportError(f"{out}: cannot be written: {reason}", hint=hint) from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):  # it is gone where it was renamed
                beside.unlink()
    return out
