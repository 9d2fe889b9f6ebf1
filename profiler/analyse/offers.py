"""What one can rent or own, as a whole, and what hosted models cost: dated rows with a source.

The rows that ship stand in prices/*.toml; a user's file has the same form and comes first. One currency at a time: nothing is converted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from profiler.errors import SpecError, UnknownNameError, did_you_mean

Basis = Literal["rented", "owned", "paid"]
BASES: tuple[Basis, ...] = get_args(Basis)
NEEDS_PRICE = {"price_per_hour", "purchase", "tariff_per_kwh", "support_per_year", "input_per_million", "output_per_million"}


@dataclass(frozen=True)
class Offer:
    """A node with its devices and its price. Prices are in `currency`; None means "not given".

    rented: `price_per_hour`. owned: `purchase` over `years`, power and `support_per_year`. paid: power alone, the only thing that running adds.
    """

    name: str
    device: str  # an id of prices/devices.toml, or a part of the `device` column of the runs
    basis: Basis
    currency: str
    as_of: str  # YYYY-MM or YYYY-MM-DD; `<=` in front: an upper bound
    source: str
    devices: int = 1  # accelerators, or sockets of a CPU node
    vcpus: int | None = None  # hardware threads of a CPU node: how many measured machines fit into it
    price_per_hour: float | None = None
    purchase: float | None = None
    years: float | None = None
    power_w: float | None = None  # at the wall, of the whole node, while it serves
    pue: float | None = None
    tariff_per_kwh: float | None = None
    support_per_year: float | None = None
    region: str = ""
    note: str = ""
    shipped: bool = False  # from our catalogue; the user's own otherwise


@dataclass(frozen=True)
class ApiPrice:
    """A hosted model by the million tokens, in the provider's own tokens."""

    model: str
    provider: str
    input_per_million: float
    output_per_million: float
    currency: str
    as_of: str
    source: str
    shipped: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}@{self.provider}"


@dataclass(frozen=True)
class Device:
    """`match`: a regular expression on the lower-case name that a driver or kernel gives it. A CPU's figures are per socket."""

    id: str
    kind: str
    match: str
    source: str
    memory_gib: float | None = None
    memory_bandwidth_gb_per_s: float | None = None
    tdp_w: float | None = None
    cores: int | None = None


@dataclass(frozen=True)
class Prices:
    """`notes` says what was left out and why."""

    offers: tuple[Offer, ...]
    apis: tuple[ApiPrice, ...]
    currency: str
    notes: tuple[str, ...] = ()

    def of_device(self, device: str) -> list[Offer]:
        """The offers of a device as the store names it; the user's own ones alone where there are any."""
        known = device_id(device)
        found = [offer for offer in self.offers if offer.device == known or _names(offer.device, device)]
        return [offer for offer in found if not offer.shipped] or found

    def api(self, name: str) -> ApiPrice:
        """`MODEL@PROVIDER`, or a model alone: its cheapest. Raises UnknownNameError."""
        found = [api for api in self.apis if name in (api.name, api.model)]
        if not found:
            raise UnknownNameError("hosted model", name, [api.name for api in self.apis])
        return min(found, key=lambda api: api.input_per_million + api.output_per_million)


def load(path: Path | None = None, given: Iterable[str] = (), currency: str | None = None) -> Prices:
    """The catalogue with the user's rows in front. `given`: offers in one line each, as `parse_offer` reads them.

    The user's own rows must be in one currency (or in `currency`, where that is named); rows of the catalogue in another one are left out.
    Raises SpecError naming file, row and key.
    """
    own_offers, own_apis = _read(path) if path is not None else ([], [])
    own_offers += [parse_offer(text) for text in given]
    own: list[Offer | ApiPrice] = [*own_offers, *own_apis]
    chosen = currency or (own[0].currency if own else "USD")
    for row in own:
        if row.currency != chosen:
            first = next((r.name for r in own if r.currency == chosen), "--currency")
            raise SpecError(
                f"mixed currencies: {row.name!r} is in {row.currency}, {first!r} in {chosen}",
                hint="one currency at a time: convert the row yourself and say the rate and its date in `source`",
            )
    offers, apis = _shipped()
    kept_offers = [offer for offer in offers if offer.currency == chosen]
    kept_apis = [api for api in apis if api.currency == chosen]
    left_out = len(offers) + len(apis) - len(kept_offers) - len(kept_apis)
    notes = (f"{left_out} rows of the catalogue are not in {chosen} and were left out: nothing is converted",) if left_out else ()
    return Prices((*own_offers, *kept_offers), (*own_apis, *kept_apis), chosen, notes)


def parse_offer(text: str) -> Offer:
    """`DEVICE=0.096 USD/h 2026-11-24`, from the command line. Raises SpecError that names the missing part."""
    where = f"--offer {text!r}"
    example = 'write e.g. --offer "AMD EPYC=0.096 USD/h 2026-11-24"'
    device, _, price = text.rpartition("=")
    if not device.strip():
        raise SpecError(f"{where}: no device", hint=example)
    number = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*", price)
    if number is None:
        raise SpecError(f"{where}: no price", hint=example)
    rest = price[number.end() :]
    unit = re.match(r"([A-Z]{3})\s*/\s*h\b\s*", rest)
    if unit is None:
        what = "no currency" if not re.match(r"[A-Za-z]{3}\b", rest) else "the price must be in three capitals per hour"
        raise SpecError(f"{where}: {what}", hint=example)
    row = {"name": device.strip(), "device": device.strip(), "basis": "rented", "price_per_hour": float(number.group(1))}
    return _build(Offer, row | {"currency": unit.group(1), "as_of": rest[unit.end() :].strip(), "source": "the command line"}, where)


@lru_cache(maxsize=1)
def devices() -> tuple[Device, ...]:
    """The devices that ship."""
    rows = tomllib.loads(_text("devices.toml"))["device"]
    return tuple(Device(**row) for row in rows)


def device_id(device: str) -> str | None:
    """The id of a device by the name a driver or kernel gives it, or by its id; None when it is not known."""
    name = re.sub(r"\((r|tm)\)", "", device.lower())
    return next((d.id for d in devices() if d.id == name or re.search(d.match, name)), None)


def _names(wanted: str, device: str) -> bool:
    """Whether the words of `wanted` stand in the device's name, as whole words."""
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted.lower())}(?!\w)", device.lower()) is not None


@lru_cache(maxsize=1)
def _shipped() -> tuple[tuple[Offer, ...], tuple[ApiPrice, ...]]:
    offers = tomllib.loads(_text("offers.toml"))["offer"]
    apis = tomllib.loads(_text("api.toml"))["api"]
    return (
        tuple(_build(Offer, row | {"shipped": True}, "offers.toml") for row in offers),
        tuple(_build(ApiPrice, row | {"shipped": True}, "api.toml") for row in apis),
    )


def _text(name: str) -> str:
    return (resources.files("profiler.analyse") / "prices" / name).read_text(encoding="utf-8")


def _read(path: Path) -> tuple[list[Offer], list[ApiPrice]]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", hint="give the path of a TOML file of prices") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}", hint="docs/cost.md has an example") from error
    for key in raw:
        if key not in ("offer", "api"):
            raise SpecError(f"{path}: {key}: unknown key", hint=did_you_mean(key, ("offer", "api")) or "tables: [[offer]] and [[api]]")
    defaults = {"source": f"{path.name}, by the user"}
    offers = [_build(Offer, defaults | row, f"{path}: offer {n}") for n, row in enumerate(_tables(path, raw, "offer"), 1)]
    return offers, [_build(ApiPrice, defaults | row, f"{path}: api {n}") for n, row in enumerate(_tables(path, raw, "api"), 1)]


def _tables(path: Path, raw: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = raw.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(f"{path}: {key}: must be tables", hint=f"write [[{key}]]")
    return rows


Kind = TypeVar("Kind", Offer, ApiPrice)


def _build(kind: type[Kind], row: Mapping[str, Any], where: str) -> Kind:
    name = row.get("name") or row.get("model")
    where = f"{where} {name!r}" if name and repr(name) not in where and str(name) not in where else where
    known = {f.name: f for f in fields(kind)}
    for key, value in row.items():
        if key not in known:
            raise SpecError(f"{where}: {key}: unknown key", hint=did_you_mean(key, known) or f"known keys: {', '.join(known)}")
        _check_value(f"{where}: {key}", str(known[key].type), key, value)
    priced = sorted(NEEDS_PRICE & row.keys())
    if not row.get("currency"):
        raise SpecError(f"{where}: {priced[0] if priced else 'a price'} has no currency", hint='add currency = "USD"')
    if not re.fullmatch(r"[A-Z]{3}", str(row["currency"])):
        raise SpecError(f"{where}: currency: {row['currency']!r} is not three capitals", hint='write currency = "USD"')
    if not row.get("as_of"):
        raise SpecError(f"{where}: {priced[0] if priced else 'a price'} has no date", hint='add as_of = "2026-11-24": prices change')
    if not re.fullmatch(r"(<=)?\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?", str(row["as_of"])):
        raise SpecError(f"{where}: as_of: {row['as_of']!r} is not a date", hint='write as_of = "2026-11-24"')
    missing = [f for f, field in known.items() if f not in row and _required(field)]
    if missing:
        raise SpecError(f"{where}: {missing[0]}: missing", hint="docs/cost.md has an example")
    made = kind(**(dict(row) | {"as_of": str(row["as_of"])}))
    if isinstance(made, Offer):
        _check_basis(made, where)
    return made


def _check_value(where: str, kind: str, key: str, value: Any) -> None:
    """By the type of the field. A date may be TOML's own."""
    if kind == "bool":
        good = isinstance(value, bool)
    elif "float" in kind or "int" in kind:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"{where}: must be a number (got {value!r})")
        if "float" not in kind and not isinstance(value, int):
            raise SpecError(f"{where}: must be a whole number (got {value!r})")
        lowest = 1 if key == "pue" else 0
        if not lowest <= value < 1e12 or (value == 0 and key in ("years", "devices", "vcpus")):
            hint = "all power / that of the machines: 1 or more" if key == "pue" else None
            raise SpecError(f"{where}: {value!r} is out of range", hint=hint)
        return
    else:
        good = isinstance(value, str) or (key == "as_of" and isinstance(value, date))
    if not good:
        raise SpecError(f"{where}: must be {'true or false' if kind == 'bool' else 'a text'} (got {value!r})")


def _required(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is MISSING


def _check_basis(offer: Offer, where: str) -> None:
    if offer.basis not in BASES:
        raise SpecError(f"{where}: basis: {offer.basis!r}", hint=did_you_mean(str(offer.basis), BASES) or f"one of {', '.join(BASES)}")
    needed = {"rented": ("price_per_hour",), "owned": ("purchase", "years"), "paid": ()}[offer.basis]
    for key in needed:
        if getattr(offer, key) is None:
            raise SpecError(f"{where}: {key}: missing", hint=f"an offer with basis {offer.basis!r} needs {' and '.join(needed)}")
