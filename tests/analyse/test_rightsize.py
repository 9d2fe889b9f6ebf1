"""The ranking in words: what lacks a part of its price, and what would make something cheaper fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from profiler.analyse import cost, rightsize
from profiler.analyse.footprint import Footprint
from profiler.analyse.offers import Offer, Prices


def offer(**changes: Any) -> Offer:
    values: dict[str, Any] = {"name": "box", "device": "H100", "basis": "rented", "currency": "USD", "as_of": "2026-11", "source": "s"}
    return Offer(**values | changes)


OWNED = {"basis": "owned", "purchase": 1200.0, "years": 1.0, "power_w": 100.0, "pue": 1.0, "tariff_per_kwh": 0.1, "support_per_year": 0.0}


def change(monkeypatch: pytest.MonkeyPatch, dearest: float, spares: int = 0, needs: int = 1, **offered: Any) -> str:
    """The smallest change, where `best` costs `dearest` a month and another would fit on one offer if the target were looser."""
    monkeypatch.setattr(rightsize, "relaxation", lambda c: (0.5, "ttft_p95<=2s"))
    made = cost.cost(offer(price_per_hour=dearest / 730), 1.0, 1, 0, 1.0, None, None, None)
    best = SimpleNamespace(cheapest=made, capacity=None, span=object(), demand=None)
    row = {"device": "H100", "backend": "slow"}
    slow = SimpleNamespace(name="slow", row=row, span=None, footprint=Footprint(needs), demand=None)
    question = SimpleNamespace(prices=Prices((offer(**offered),), (), "USD"), spares=spares)
    return rightsize._change(SimpleNamespace(question=question), [best, slow], [("measured", (best,))])  # type: ignore[arg-type, list-item]


def test_an_owned_offer_counts_by_its_whole_month(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "slow would fit" in change(monkeypatch, 120.0, **OWNED)  # 100 of purchase and 7.30 of power
    assert "slow" not in change(monkeypatch, 105.0, **OWNED)
    assert "slow would fit" in change(monkeypatch, 10.0, **OWNED | {"basis": "paid"})
    assert "slow" not in change(monkeypatch, 120.0, **OWNED | {"tariff_per_kwh": None})  # at least so much is not less


def test_spares_and_devices_are_paid_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rented = {"price_per_hour": 1.0}
    assert "slow would fit" in change(monkeypatch, 800.0, **rented)
    assert "slow" not in change(monkeypatch, 800.0, spares=1, **rented)
    assert "slow" not in change(monkeypatch, 800.0, needs=2, **rented)
    assert "slow would fit" in change(monkeypatch, 800.0, spares=1, needs=4, **rented | {"devices": 8})
