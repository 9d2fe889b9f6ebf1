"""How the bounds of a run are made: exact ranks and binomials, or a block bootstrap for a trace; at a level that pays for every look.

A run that may end as soon as it knows enough is looked at several times, and each look is a chance to err. The number of looks is fixed
beforehand (profiler.run.enough.LOOKS) and each takes its equal share of the error: by the union bound all of them together, the last one
included, err with at most the stated probability, whatever the dependence between them (Bonferroni; Pocock, Biometrika 64, 1977, has sharper
limits, but for normal means only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.analyse import percentiles
from profiler.analyse.percentiles import ALPHA
from profiler.store.schema import BOUNDS_METHOD


@dataclass(frozen=True)
class Bounds:
    """`blocks`: requests are correlated and the load is not stationary (trace replays). `looks`: how often the run may have been judged."""

    blocks: bool = False
    looks: int = 1

    @property
    def method(self) -> str:
        from profiler.analyse import bootstrap

        return (bootstrap.METHOD if self.blocks else BOUNDS_METHOD) + (f"-of-{self.looks}-looks" if self.looks > 1 else "")

    def level(self, alpha: float = ALPHA) -> float:
        """What one look may spend of `alpha`."""
        return alpha / self.looks

    def quantile(self, values: Sequence[float], p: float, alpha_lo: float, alpha_hi: float) -> tuple[float | None, float | None]:
        """Bounds of the p-quantile of `values`, which stand in the order of their requests; +inf where a bound lies among failed ones."""
        from profiler.analyse import bootstrap

        bound = bootstrap.quantile_bounds if self.blocks else percentiles.quantile_bounds
        return bound(values, p, self.level(alpha_lo), self.level(alpha_hi))

    def share(self, misses: Sequence[bool], alpha_lo: float, alpha_hi: float) -> tuple[float, float]:
        """Bounds of the share of True, each one-sided at its own level."""
        from profiler.analyse import bootstrap

        if self.blocks:
            return bootstrap.share_bounds(misses, self.level(alpha_lo), self.level(alpha_hi))
        count, n = sum(misses), len(misses)
        return percentiles.share_lower(count, n, self.level(alpha_lo)), percentiles.share_upper(count, n, self.level(alpha_hi))


EXACT = Bounds()
