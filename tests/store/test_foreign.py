"""Foreign tables: encodings, units, what is kept apart, and one line for each kind of bad input. Tables are written here, none is real."""

from __future__ import annotations

import codecs
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import ProfilerError, SpecError, StoreError
from profiler.store.foreign import mapping as mappings
from profiler.store.foreign.bring import bring
from profiler.store.foreign.table import read
from profiler.store.foreign.units import KINDS, factor, header_flag, spelt_in, value_flags
from profiler.store.store import Store

MAPPING = """
[source]
tool = "a tool"
published = "a paper"
licence = "MIT"
date = "2025-03"

[constants]
engine = "ovms"
backend = "ovms-{node}"
workload = "theirs"
load_kind = "rate"
variant = "int8"

[columns]
model = { to = "model" }
node = { to = "device", values = { x1 = "Xeon One" } }
rate = { to = "load", unit = "1/s", leave_out = ["inf"] }
"mean tpot" = { to = "tpot_mean_s", unit = "ms", formula = "their-tpot", definition = "mean time per token" }
itl = { foreign = "itl", unit = "ms", formula = "their-itl", definition = "gap between chunks" }
"""
CSV = "model,node,rate,mean tpot,itl,note\nm,x1,0.5,80,79,a\nm,x1,1.0,120,,b\nm,x1,inf,900,,c\n"


def written(tmp_path: Path, csv: str | bytes = CSV, toml: str = MAPPING) -> tuple[Path, mappings.Mapping]:
    table, file = tmp_path / "t.csv", tmp_path / "m.toml"
    table.write_bytes(csv if isinstance(csv, bytes) else csv.encode())
    file.write_text(toml)
    return table, mappings.load(str(file))


def test_rows_become_imported_runs_with_source_and_formulas(tmp_path: Path) -> None:
    table, mapping = written(tmp_path)
    store = Store(tmp_path / "r")
    done = bring(store, table, mapping)
    assert (done.added, done.known, done.converted.left_out) == (2, 0, {"rate is inf": 1})
    rows = Store(tmp_path / "r").rows()
    assert [(r["load"], r["tpot_mean_s"], r["device"], r["backend"]) for r in rows] == [
        (0.5, pytest.approx(0.08), "Xeon One", "ovms-x1"),
        (1.0, pytest.approx(0.12), "Xeon One", "ovms-x1"),
    ]
    row = rows[0]
    assert (row["provenance_class"], row["validity"], row["started_at"]) == ("imported", "suspect", None)
    assert (row["import_tool"], row["import_licence"], row["import_date"]) == ("a tool", "MIT", "2025-03")
    assert row["import_formulas"] == ["tpot_mean_s = their-tpot", "foreign itl = their-itl"]
    assert all(row[f"tpot_{p}_s"] is None for p in ("p50", "p90", "p95", "p99"))
    kept = store.run(row["run_id"])["imported"]
    assert kept["cells"]["note"] == "a" and kept["row"] == 2
    assert {f["column"]: f["value"] for f in kept["figures"]} == {"mean tpot": 80.0, "itl": 79.0}
    assert not list((tmp_path / "r" / "runs").rglob("requests.parquet"))
    assert store.sql("select count(*) as n from requests")["n"][0] == 0 and not store.warnings


def test_the_same_import_twice_adds_nothing_and_a_new_row_adds_one(tmp_path: Path) -> None:
    table, mapping = written(tmp_path, CSV + "m,x1,1.0,120,,b\n")  # two equal rows are two measurements
    assert bring(Store(tmp_path / "r"), table, mapping).added == 3
    assert bring(Store(tmp_path / "r"), table, mapping).added == 0
    table, mapping = written(tmp_path, CSV + "m,x1,1.0,120,,b\nm,x1,2,300,,d\n")
    assert bring(Store(tmp_path / "r"), table, mapping).added == 1
    other = written(tmp_path, toml=MAPPING.replace('"theirs"', '"others"'))[1]
    assert bring(Store(tmp_path / "r"), table, other, dry_run=True).other_mappings == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_and_parquet_give_the_same_cells(tmp_path: Path, encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    table, _ = written(tmp_path, mark + CSV.replace("m,x1", "modèle,x1").encode(encoding))
    plain = [cells for _, cells in read(table).rows]
    assert [cells["model"] for cells in plain] == ["modèle"] * 3
    assert read(table).header == ("model", "node", "rate", "mean tpot", "itl", "note")


def test_parquet_and_semicolons(tmp_path: Path) -> None:
    _, mapping = written(tmp_path)
    pq.write_table(pa.table({"model": ["m"], "node": ["x1"], "rate": [0.5], "mean tpot": [80.0], "itl": [None]}), tmp_path / "t.parquet")
    assert bring(Store(tmp_path / "r"), tmp_path / "t.parquet", mapping).added == 1
    table, _ = written(tmp_path, CSV.replace(",", ";"))
    assert bring(Store(tmp_path / "q"), table, mapping).added == 2


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        (CSV.replace("80", "fast"), "row 2, column 'mean tpot': 'fast' is not a number"),
        (CSV.replace("80", "NaN"), "row 2, column 'mean tpot': NaN is no figure"),
        (CSV.replace("120", "-1"), "row 3, column 'mean tpot': -1 is below 0"),
        (CSV.replace("0.5", "0"), "row 2, column 'rate': a load of 0"),
        (CSV.replace("0.5", ""), "row 2, column 'rate': empty, and load is needed"),
        (CSV.replace(",79,a", ""), "row 2, column 'mean tpot': 4 cells, the header has 6"),
        (CSV.replace("note", "itl"), "row 1, column 'itl': two columns of one name"),
        (CSV.replace("mean tpot", "mean tpt"), "no column 'mean tpot'"),
        (CSV.splitlines()[0], "no rows"),
        (b"", "no rows"),
        (b"model,node\nm,\xff\xfe\xfa", "row 2: neither UTF-8 nor UTF-16"),
        (b'model,node\n"m,x', "not CSV"),
        (b"PAR1 and no more", "not readable as Parquet"),
    ],
)
def test_bad_tables_are_named_in_one_line_and_nothing_is_written(tmp_path: Path, csv: str | bytes, said: str) -> None:
    table, mapping = written(tmp_path, csv)
    with pytest.raises(ProfilerError) as caught:
        bring(Store(tmp_path / "r"), table, mapping)
    assert said in caught.value.message and str(table) in caught.value.message and "\n" not in caught.value.message
    assert not (tmp_path / "r").exists()


def test_a_missing_file_and_an_unknown_mapping(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        read(tmp_path / "none.csv")
    with pytest.raises(ProfilerError) as caught:
        mappings.load("openvino-llm-model-ovms")
    assert "openvino-llm-models-ovms" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('to = "tpot_mean_s"', 'to = "tpot_p95_s"', "a mean never becomes a percentile"),
        ('to = "tpot_mean_s", unit = "ms"', 'to = "tpot_mean_s", unit = "tokens/s"', "is not one of tpot_mean_s"),
        ('unit = "ms", formula = "their-itl"', 'unit = "msec", formula = "their-itl"', "unit = 'msec'"),
        ('formula = "their-tpot", ', "", "needs formula"),
        ('to = "model"', 'to = "modell"', "did you mean 'model'"),
        ('to = "model"', 'to = "model", foreign = "x"', "either to"),
        ('licence = "MIT"\n', "", "source.licence: missing"),
        ('date = "2025-03"', 'date = "March"', "not stated"),
        ('engine = "ovms"', "load = 3", "load: filled more than once"),
        ('workload = "theirs"\n', "", "nothing fills workload"),
        ("ovms-{node}", "ovms-{node", "expected '}'"),
    ],
)
def test_bad_mappings(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MAPPING
    with pytest.raises(SpecError) as caught:
        written(tmp_path, toml=MAPPING.replace(old, new, 1))
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_units_that_look_wrong_are_flagged_and_stay_in_the_run(tmp_path: Path) -> None:
    toml = MAPPING.replace('unit = "ms", formula = "their-tpot"', 'unit = "s", formula = "their-tpot"')
    table, mapping = written(tmp_path, toml=toml)
    done = bring(Store(tmp_path / "r"), table, mapping)
    assert done.converted.flags == {"tpot_mean_s: is its unit right?": 2}
    assert "not a time per token" in Store(tmp_path / "r").rows()[0]["validity_reasons"][1]


def test_milliwatts_and_samples_are_told() -> None:
    assert "milliwatts?" in value_flags({"power_mean_w": 350_000.0})[0]
    assert "samples/s?" in value_flags({"output_tps": 10.2, "request_rate": 10.0})[0]
    assert "samples/s?" in value_flags({"output_tps": 3.0, "load": 64.0, "load_kind": "concurrency", "tpot_mean_s": 0.02})[0]
    assert not value_flags({"output_tps": 450.0, "request_rate": 1.0, "power_mean_w": 350.0, "tpot_mean_s": 0.05, "ttft_mean_s": 0.8})


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("power_mw", "mW"),
        ("Power (mW)", "mW"),
        ("Tokens/s [samples/s]", "samples/s"),
        ("ttft_ms", "ms"),
        ("Throughput [tok/s]", "tokens/s"),
        ("tokens", None),
    ],
)
def test_the_unit_a_header_spells(header: str, unit: str | None) -> None:
    assert spelt_in(header) == unit


def test_a_header_of_another_unit_is_flagged() -> None:
    assert "says mW, the mapping says W" in str(header_flag("power_mw", "W"))
    assert header_flag("power_mw", "mW") is None and header_flag("power", "W") is None


@given(st.sampled_from([u for units in KINDS.values() for u in units]))
def test_every_unit_has_a_positive_factor(unit: str) -> None:
    assert factor(unit) > 0


@pytest.mark.parametrize("name", mappings.shipped())
def test_mappings_that_ship_are_sound(name: str) -> None:
    found = mappings.load(name)
    assert found.description and found.source.licence in ("Apache-2.0", "MIT")
