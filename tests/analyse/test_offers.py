"""Prices: dated, in one currency, matched to the devices that were measured; what is wrong with a row is said exactly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler.analyse import offers
from profiler.errors import SpecError

ROW = '[[offer]]\nname = "box"\ndevice = "AMD EPYC"\nbasis = "rented"\nprice_per_hour = 0.1\ncurrency = "EUR"\nas_of = "2026-11-24"\n'


def test_every_row_that_ships_has_a_source_a_date_and_a_currency() -> None:
    prices = offers.load()
    assert len(prices.offers) > 40 and len(prices.apis) > 30
    for row in (*prices.offers, *prices.apis):
        assert row.source and row.currency == "USD" and re.match(r"(<=)?20\d\d-", row.as_of), row
    assert all(device.source for device in offers.devices())
    known = {device.id for device in offers.devices()}
    assert {o.device for o in prices.offers if o.device.startswith(("nvidia", "amd-mi"))} <= known


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm"),
        ("NVIDIA H100 PCIe", "nvidia-h100-pcie"),
        ("NVIDIA L40S", "nvidia-l40s"),
        ("NVIDIA L4", "nvidia-l4"),
        ("Intel(R) Xeon(R) Platinum 8580", "intel-xeon-8580"),
        ("AMD EPYC 9654 96-Core Processor", "amd-epyc-9654"),
        ("AMD EPYC", None),
        ("Testium 9000", None),
    ],
)
def test_devices_are_known_by_the_names_of_drivers_and_kernels(name: str, found: str | None) -> None:
    assert offers.device_id(name) == found


def test_own_offers_come_before_the_catalogue_and_match_whole_words(tmp_path: Path) -> None:
    prices = offers.load(given=["L4=0.5 USD/h 2026-11-01"])
    assert [o.price_per_hour for o in prices.of_device("NVIDIA L4")] == [0.5]
    assert all(o.shipped for o in prices.of_device("NVIDIA L40S"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("currency", None), "price_per_hour has no currency"),
        (("as_of", None), "price_per_hour has no date"),
        (("as_of", '"yesterday"'), "as_of: 'yesterday' is not a date"),
        (("price_per_hour", None), "price_per_hour: missing"),
        (("price_per_hour", '"cheap"'), "price_per_hour: must be a number (got 'cheap')"),
        (("price_per_hour", "-1"), "price_per_hour: -1 is out of range"),
        (("basis", '"leased"'), "basis: 'leased'"),
        (("device", None), "device: missing"),
        (("device", "5"), "device: must be a text (got 5)"),
        (("basis", '["rented"]'), "basis: must be a text"),
        (("source", "7"), "source: must be a text (got 7)"),
        (("devices", "1.5"), "devices: must be a whole number (got 1.5)"),
        (("vcpus", "inf"), "vcpus: must be a whole number (got inf)"),
        (("pue", "0.5"), "pue: 0.5 is out of range"),
        (("pue", "nan"), "pue: nan is out of range"),
        (("shipped", "1"), "shipped: must be true or false (got 1)"),
    ],
)
def test_a_wrong_row_is_named_with_its_key(tmp_path: Path, change: tuple[str, str | None], says: str) -> None:
    key, value = change
    lines = [line for line in ROW.splitlines() if not line.startswith(f"{key} ")]
    (tmp_path / "p.toml").write_text("\n".join([*lines, *([f"{key} = {value}"] if value else [])]))
    with pytest.raises(SpecError) as caught:
        offers.load(tmp_path / "p.toml")
    assert says in caught.value.message and "p.toml" in caught.value.message and "box" in caught.value.message


def test_a_date_may_be_one_of_toml(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(ROW.replace('"2026-11-24"', "2026-11-24"))
    assert offers.load(tmp_path / "p.toml").offers[0].as_of == "2026-11-24"


def test_mixed_currencies_are_refused_and_nothing_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(ROW)
    with pytest.raises(SpecError, match="mixed currencies: 'L4' is in USD, 'box' in EUR"):
        offers.load(path, ["L4=0.5 USD/h 2026-11-01"])
    prices = offers.load(path)
    assert prices.currency == "EUR" and {o.currency for o in prices.offers} == {"EUR"} and "left out" in prices.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("AMD EPYC", "no device"),
        ("AMD EPYC=USD/h", "no price"),
        ("AMD EPYC=0.1", "no currency"),
        ("AMD EPYC=0.1 USD/h", "has no date"),
        ("AMD EPYC=0.1 usd/h 2026-11-24", "three capitals"),
    ],
)
def test_an_offer_in_one_line_says_what_it_lacks(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        offers.parse_offer(text)
