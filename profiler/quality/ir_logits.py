"""The most probable tokens of an OpenVINO variant, from the logits of the IR that was served: its engine gives the given token's only.

Same folder, same precision hints, same threads as the server; the attention is the IR's own, where the server's is paged. So the given tokens'
log-probabilities of both are compared, and logits that are not those that were served are not kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from profiler import environments
from profiler.engines import variant_folder
from profiler.errors import ModelError, ProfilerError
from profiler.quality import top_k
from profiler.quality.asking import TOP_K

if TYPE_CHECKING:
    from profiler.quality.windows import Windows
    from profiler.records import Variant
    from profiler.spec import BackendSpec

SCRIPT = Path(__file__).parent / "ir_logits_script.py"
MAX_APART = 0.01  # of the perplexity: 0.00014 was seen at f32 (docs/quality.md); paged attention in bf16 may be ten times that


def added(
    drift: dict[str, Any],
    backend: BackendSpec,
    variant: Variant,
    windows: Windows,
    results: Path,
    key: str,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """`drift` with `top` where this backend's IR can give it; as it is for every other engine, and where the server gave it."""
    if backend.engine != "openvino" or variant.path is None or drift["windows"] is None or drift["top"] is not None:
        return drift
    try:
        ids, log_probs, given = logits(backend, variant, windows, progress)
        apart = math.expm1((math.fsum(map(math.fsum, drift["windows"])) - math.fsum(given)) / len(given))
        if not abs(apart) <= MAX_APART:
            why = f"the IR's own logits are not those that were served: their perplexity is {apart:+.2%} apart"
            return drift | {"top_reason": why}
        kept = top_k.keep(results, key, ids, log_probs)
    except ProfilerError as error:
        return drift | {"top_reason": f"the IR's logits could not be computed: {error.message}"}
    return drift | {"top": {"source": "ir_logits", **kept, "perplexity_to_served": round(apart, 9)}, "top_reason": None}


def logits(
    backend: BackendSpec, variant: Variant, windows: Windows, progress: Callable[[str], None]
) -> tuple[list[list[int]], list[list[float]], list[float]]:
    """`ids` and `log_probs` [places, k], and the log-probability of each given token. Raises ModelError, EnvironmentError_."""
    import numpy as np

    from profiler.engines.openvino import DEFAULTS

    python = environments.ensure(environments.ENVIRONMENTS["openvino"], progress).python
    asked = {**DEFAULTS, **backend.options, **variant.details.get("computes_in", {})}
    with TemporaryDirectory(prefix="slm-profiler-") as work:
        tokens, out = Path(work) / "windows.json", Path(work) / "top.npz"
        tokens.write_text(json.dumps(windows.tokens), encoding="utf-8")
        command = [str(python), "-I", "-u", str(SCRIPT), f"--model={variant.path}", f"--windows={tokens}", f"--out={out}", f"--k={TOP_K}"]
        command += [f"--inference-precision={asked['inference_precision']}", f"--kv-cache-precision={asked['kv_cache_precision']}"]
        command += [f"--threads={asked['threads']}"] if "threads" in asked else []
        variant_folder.run_script(command, Path(work) / "script.log", backend.name, progress, _explain)
        try:
            with np.load(out, allow_pickle=False) as found:
                return found["ids"].tolist(), found["log_probs"].tolist(), found["given"].tolist()
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{backend.name}: no logits came: {error}") from None


def _explain(last: str, _log: Path) -> tuple[str, str]:
    return last[:200], "perplexity and examples are kept; only KL and top-1 agreement need the logits"
