"""`profile fit`, `plan` and `cost` on a store as a sweep leaves it: the answer, its JSON, its page, and bad input in one line each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import queues
import synthetic

from profiler.analyse.latency import summarise
from profiler.cli import main as program
from profiler.store.store import Store

NS = 10**9
QOS = "ttft_p95<=1s, tpot_p95<=100ms"
OFFER = "Testium 9000=0.1 USD/h 2026-11-24"


def keep(store: Store, kind: str, load: float, backend: str = "null", **columns: Any) -> None:
    users, rate = (int(load), 0.0) if kind == "concurrency" else (0, load)
    found = queues.batching_server(60.0, random.Random(load).randrange(99), rate=rate, users=users)
    whole = [r for r in found if r.done_ns is not None]
    requests = []
    for k, r in enumerate(whole):
        first, last = (r.sent_ns + r.arrival_offsets_us[i] * 1000 for i in (0, -1))  # type: ignore[operator]
        ttft, e2e = (first - r.intended_ns) / NS, (last - r.intended_ns) / NS
        tpot = (last - first) / NS / (len(r.arrival_offsets_us) - 1)
        values = {
            "request_id": f"r{k:05d}",
            "intended_ns": r.intended_ns,
            "sent_ns": r.sent_ns,
            "first_token_ns": first,
            "last_token_ns": last,
        }
        values |= {
            "done_ns": last,
            "ttft_s": ttft,
            "ttft_sched_s": ttft,
            "tpot_s": tpot,
            "e2e_s": e2e,
            "e2e_sched_s": e2e,
            "max_icl_s": tpot * 2,
        }
        values |= {"prompt_tokens": 10, "output_tokens": 32, "asked_output_tokens": 32, "arrival_offsets_us": r.arrival_offsets_us}
        requests.append(synthetic.record(k, **values | {"arrival_tokens": r.arrival_tokens, "text": None}))
    run = {"sweep_id": "feed", "cell_id": f"{backend}{kind}{load}", "backend": backend, "engine": "null", "model": "m", "variant": "bf16"}
    run |= {"device": "Testium 9000", "workload": "w", "load_kind": kind, "load": load, "provenance_class": "measured", "start_id": "s1"}
    run |= {"request_rate": len(whole) / 60, "window_s": 60.0, "window_open_ns": 0, "window_close_ns": 60 * NS, "ready_s": 2.0}
    run |= {
        "isl_mean": 10.0,
        "osl_mean": 32.0,
        "energy_reason": "power is not sampled by this version",
        "arrivals": "poisson" if rate else "closed",
    }
    measured = summarise(requests, synthetic.drive(window_open_ns=0, window_close_ns=60 * NS), None)
    store.keep(synthetic.document(**measured | run | columns, profiler_version="0.1.0"), requests)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planning")
    store = Store(path)
    for load in (1, 4, 16):
        keep(store, "concurrency", load)
    keep(store, "rate", 4.0)
    for load in (1, 2):
        keep(store, "concurrency", load, "undeclared", device=None)
    keep(store, "concurrency", 2, "elsewhere", workload="other")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        program.main(list(words))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(stop.value.code or 0), captured.out, captured.err


def test_fit_says_verdicts_replicas_costs_and_what_is_missing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "fit", "--results", str(results), "--qos", QOS, "--demand", "12rps", "--offer", OFFER, "--workload", "w")
    assert code == 0
    for text in (
        "FITS 4",
        "replica",
        "at λ*",
        "at saturation",
        "idle =",
        "Cheapest that keeps",
        "missing, ",
        "nobody declared",
        "measured",
    ):
        assert text in out, text


def test_json_is_strict_and_the_demand_costs_what_its_offers_cost(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "fit", "--results", str(results), "--qos", QOS, "--demand", "12rps", "--offer", OFFER, "--workload", "w", "--json"
    )
    answer = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    row = next(c for c in answer["candidates"] if c["backend"] == "null")
    assert code == 0 and row["capacity"]["replicas"] >= 3 and row["limit"]["lower"] == 4.0
    assert row["costs"][0]["points"][0]["per_month"] == pytest.approx(row["costs"][0]["offers"] * 73.0)
    undeclared = next(c for c in answer["candidates"] if c["backend"] == "undeclared")
    assert undeclared["costs"] == [] and undeclared["provenance_class"] == "predicted"


def test_without_a_price_it_is_not_costed_and_says_what_to_give(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "fit", "--results", str(results), "--qos", QOS, "--demand", "1rps")
    assert 'no price for Testium 9000; give --offer "Testium 9000=PRICE USD/h DATE"' in out.replace("\n", " ")
    assert "no common workload of" in out


def test_plan_reads_a_daily_shape_and_cost_shows_the_money(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "demand.toml"
    daily = ", ".join(["0.5"] * 12 + ["1.5"] * 12)
    file.write_text(f'[demand]\nrate = 6.0\nqos = "{QOS}"\ndaily = [{daily}]\nworkload = "w"\n[fleet]\nspares = 1\nautoscale = true\n')
    page = tmp_path / "report.html"
    code, out, _ = run(capsys, "plan", str(file), "--results", str(results), "--offer", OFFER, "--out", str(page))
    assert code == 0 and "on average" in out and "+ 1 spare" in out
    assert "Capacity and cost" in page.read_text() and "Attainment against load" in page.read_text()
    code, out, _ = run(
        capsys, "cost", "--results", str(results), "--qos", QOS, "--offer", OFFER, "--workload", "w", "--api", "llama-3.1-8b@groq"
    )
    assert code == 0 and "against llama-3.1-8b@groq" in out and "price_per_hour from" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fit", "--qos", QOS, "--demand", "0rps"], "a demand of zero"),
        (["fit", "--qos", QOS, "--demand", "1e9rps"], "beyond any fleet"),
        (["fit", "--qos", QOS, "--demand", "fast"], "not a demand"),
        (["fit", "--qos", QOS, "--offer", "box=1"], "no currency"),
        (["fit", "--qos", QOS, "--offer", "box=1 USD/h"], "has no date"),
        (["fit", "--qos", QOS, "--offer", "a=1 USD/h 2026-11", "--offer", "b=1 EUR/h 2026-11"], "mixed currencies"),
        (["fit", "--qos", "ttft_p95<=fast"], "expected a number"),
        (["fit", "--qos", QOS, "--workload", "nope"], "no runs of workload 'nope'"),
        (["cost", "--qos", QOS, "--offer", OFFER, "--api", "nope"], "no hosted model called 'nope'"),
        (["plan", "missing.toml"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(results: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    code, _, err = run(capsys, *words, "--results", str(results))
    assert code in (1, 2) and says in err


def test_only_invalid_and_only_suspect_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(Store(tmp_path / "a"), "rate", 2.0, validity="invalid", validity_reasons=["late sends"])
    code, _, err = run(capsys, "fit", "--results", str(tmp_path / "a"), "--qos", QOS)
    assert code == 1 and "only failed or invalid runs (1): late sends" in err
    keep(Store(tmp_path / "b"), "rate", 2.0, validity="suspect")
    _, out, _ = run(capsys, "fit", "--results", str(tmp_path / "b"), "--qos", QOS)
    assert "only suspect runs" in out and "UNDECIDED 2" in out


def test_a_fleet_lengths_and_co2(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--results", str(results), "--qos", QOS, "--offer", OFFER, "--json")
    _, out, _ = run(capsys, "fit", *asked, "--workload", "w", "--fleet", "2", "--grid", "380 g/kWh 2024 example")
    row = next(c for c in json.loads(out)["candidates"] if c["backend"] == "null")
    assert row["fleet"]["replicas"] == 2 and row["fleet"]["lower"] >= 1.9 * row["limit"]["lower"]
    assert row["carbon"] is None and any("CO2: no energy was measured" in text for text in row["missing"])
    code, out, _ = run(capsys, "fit", *asked, "--lengths", "20:64", "--demand", "1rps")
    row = next(c for c in json.loads(out)["candidates"] if c["backend"] == "null")
    assert code == 0 and row["workload"] == "20 in, 64 out" and row["provenance_class"] == "predicted"
    assert row["interpolation"]["tpot"]["provenance_class"] == "predicted" and any("extrapolated" in text for text in row["missing"])
    lone = next(c for c in json.loads(out)["candidates"] if c["backend"] == "elsewhere")
    assert lone["limit"] is None and "an interpolation needs 4" in lone["missing"][0]


def test_energy_and_a_grid_make_co2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(Store(tmp_path), "concurrency", 4, energy_j=36_000.0, energy_scope="wall", energy_reason=None)
    _, out, _ = run(capsys, "fit", "--results", str(tmp_path), "--qos", QOS, "--grid", "500 g/kWh 2024 example", "--json")
    (row,) = json.loads(out)["candidates"]
    (stored,) = Store(tmp_path).rows()
    assert row["carbon"]["kg_lo"] == pytest.approx(0.01 / (stored["request_rate"] * 60) * 1000 * 0.5)  # 10 Wh over the window


def test_a_mix_of_workloads_names_a_fleet(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(
        f'[demand]\nqos = "{QOS}"\n[[mix]]\nworkload = "w"\nrate = 9.0\n[[mix]]\nworkload = "w"\nrate = 2.0\nqos = {{ ttft_p95 = "<=2s" }}\n'
    )
    code, out, _ = run(capsys, "plan", str(file), "--results", str(results), "--offer", OFFER)
    assert code == 0 and "cheapest mixed fleet (predicted" in out and "3 x null on Testium 9000" in out
    _, out, _ = run(capsys, "plan", str(file), "--results", str(results), "--offer", OFFER, "--json")
    assert json.loads(out)["month"] == pytest.approx(3 * 73.0) and json.loads(out)["provenance_class"] == "predicted"
    for extra in (("--out", "page.html"), ("--workload", "w"), ("--lengths", "8:8"), ("--grid", "380 g/kWh 2024 example"), ("--api", "x")):
        code, _, err = run(capsys, "plan", str(file), "--results", str(results), *extra)
        assert code == 2 and extra[0] in err, extra


def test_a_job_is_a_demand_and_a_target_may_be_a_file(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target.toml"
    target.write_text('[qos]\nmakespan = "<=1000s for 8000 requests"\nttft_p95 = "<=1s"\n')
    code, out, _ = run(capsys, "fit", "--results", str(results), "--qos", str(target), "--offer", OFFER, "--workload", "w", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["qos"] == "ttft_p95<=1s" and "taken as a demand of 8 requests/s" in answer["notes"][0]
    assert next(c for c in answer["candidates"] if c["backend"] == "null")["capacity"]["replicas"] >= 2
    code, _, err = run(capsys, "fit", "--results", str(results), "--qos", "output_tps>=10")
    assert code == 2 and "gives no highest load" in err


def test_imported_figures_are_costed_at_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    source = {"import_tool": "t", "import_source": "s", "import_licence": "MIT", "import_date": "2025", "provenance_class": "imported"}
    for load in (0.2, 0.4, 0.6, 0.8):
        run_of = {
            "cell_id": f"c{load}",
            "backend": "theirs",
            "model": "m",
            "variant": "int8",
            "device": "Testium 9000",
            "workload": "w",
            "load": load,
        }
        run_of |= {
            "load_kind": "rate",
            "tpot_mean_s": 0.05 + 0.1 * load,
            "imported_tps": 400 * load,
            "validity": "suspect",
            "energy_reason": "none",
        }
        store.keep(synthetic.document(**run_of | source, profiler_version="0.1.0"))
    asked = ("--results", str(tmp_path), "--qos", "tpot_p95<=100ms", "--demand", "1rps", "--offer", OFFER)
    _, out, _ = run(capsys, "fit", *asked, "--json")
    (row,) = json.loads(out)["candidates"]
    demanded = row["costs"][0]["points"][0]
    assert row["limit"] is None and row["estimate"]["range"]["lower"] == 0.4 and row["capacity"]["replicas"] == 3
    assert (demanded["relation"], demanded["per_month"]) == (">=", pytest.approx(3 * 73.0)) and row["provenance_class"] == "imported"
    _, out, _ = run(capsys, "cost", *asked)
    assert "at least" in out and "By imported means alone" in out and "Cheapest that keeps" not in out


def test_a_price_of_which_a_part_is_unknown_is_at_least_and_comes_last(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = '[[offer]]\nname = "{}"\ndevice = "Testium 9000"\ncurrency = "USD"\nas_of = "2026-11-24"\n'
    owned = row.format("mine") + 'basis = "owned"\npurchase = 36\nyears = 3\npower_w = 100\npue = 1.0\nsupport_per_year = 0\n'
    prices = tmp_path / "prices.toml"
    prices.write_text(owned)
    asked = ("--results", str(results), "--qos", QOS, "--demand", "2rps", "--workload", "w", "--prices", str(prices))
    _, out, _ = run(capsys, "fit", *asked, "--json")
    sentence = json.loads(out)["rankings"][0]["sentence"]
    assert "at least 1.00 USD a month" in sentence and "without tariff_per_kwh" in sentence
    prices.write_text(owned + row.format("theirs") + 'basis = "rented"\nprice_per_hour = 0.1\n')
    _, out, _ = run(capsys, "fit", *asked, "--json")
    ranking = json.loads(out)["rankings"][0]
    assert "1 x theirs (rented): 73.00 USD a month" in ranking["sentence"]
    assert list(ranking["cheapest_by_demand"]["rented"]) == ["measured"]
    assert "mine (" not in json.dumps(ranking["cheapest_by_demand"]["rented"])


def candidates(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> tuple[list[dict[str, Any]], list[str]]:
    code, out, _ = run(capsys, "fit", "--results", str(path), "--qos", QOS, "--json", *words)
    assert code == 0
    return json.loads(out)["candidates"], json.loads(out)["notes"]


def test_runs_beside_a_loaded_backend_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"co_run_with": "b", "co_run_load": "4 users", "qos_result": None}
    keep(Store(tmp_path), "concurrency", 16, **shared)
    code, _, err = run(capsys, "fit", "--results", str(tmp_path), "--qos", QOS)
    assert code == 1 and "only runs beside another loaded backend (1)" in err
    keep(Store(tmp_path), "concurrency", 4, **shared | {"co_run_load": "idle"})
    keep(Store(tmp_path), "concurrency", 1)
    (row,), notes = candidates(capsys, tmp_path)
    assert [v["load"] for v in row["verdicts"]] == [1.0, 4.0]
    assert any("co_run_with" in note and "left out: 1" in note for note in notes)


def test_a_limit_at_a_poisson_rate_counts_poisson_arrivals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    keep(store, "rate", 2.0)
    keep(store, "rate", 4.0, arrivals="constant")
    keep(store, "rate", 6.0, arrivals="gamma cv=3")
    (row,), _ = candidates(capsys, tmp_path)
    assert row["limit_measured"]["rate"]["lower"] == 2.0 and [v["load"] for v in row["verdicts"]] == [2.0]
    assert any("4/s constant, 6/s gamma cv=3" in text for text in row["missing"])


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    store = Store(tmp_path / "two")
    for model, load in (("big", 2.0), ("small", 4.0)):
        for workload in ("w", "v"):
            keep(store, "rate", load, model=model, workload=workload)
    return store.path


def test_two_models_on_one_backend_have_names_of_their_own(two_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "fit", "--results", str(two_models), "--qos", QOS, "--workload", "w", "--offer", OFFER)
    assert (
        code == 0 and "null · big" in out and "missing, null · small" in out and ": null · small on Testium 9000" in " ".join(out.split())
    )


def test_two_models_of_a_mix_are_two_kinds(two_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"import_tool": "t", "import_source": "s", "import_licence": "MIT", "import_date": "2025", "provenance_class": "imported"}
    for load in (20.0, 40.0, 80.0):
        row = {"backend": "theirs", "model": "m", "variant": "int8", "device": "Testium 9000", "load": load, "load_kind": "rate"}
        row |= {"workload": "w", "cell_id": f"c{load}", "tpot_mean_s": 0.05, "ttft_mean_s": 0.05, "imported_tps": 400 * load}
        Store(two_models).keep(synthetic.document(**row | source, validity="suspect", profiler_version="0.1.0"))
    file = tmp_path / "mix.toml"
    file.write_text(f'[demand]\nqos = "{QOS}"\n' + "".join(f'[[mix]]\nworkload = "{name}"\nrate = 2.0\n' for name in ("w", "v")))
    asked = ("plan", str(file), "--results", str(two_models), "--offer", OFFER)
    _, out, _ = run(capsys, *asked, "--json")
    answer = json.loads(out)
    carries = {kind["name"].partition(" on ")[0]: kind["carries"] for kind in answer["kinds"]}
    assert carries == {"null · big": [2.0, 2.0], "null · small": [4.0, 4.0]}
    assert answer["notes"] == ["imported figures prove no λ* and are left out of the mix: theirs"] and answer["reason"] is None
    _, out, _ = run(capsys, *asked)
    assert "1 x null · small on Testium 9000" in out and "note: imported figures prove no λ*" in out


def test_one_series_of_unknown_lengths_silences_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    source = {"import_tool": "t", "import_source": "s", "import_licence": "MIT", "import_date": "2025", "provenance_class": "imported"}
    for load in (1.0, 2.0, 4.0):
        row = {"backend": "theirs", "model": "m", "variant": "int8", "device": "Testium 9000", "load": load, "load_kind": "rate"}
        row |= {"workload": "w", "cell_id": f"c{load}", "tpot_mean_s": 0.05, "imported_tps": 400 * load, "validity": "suspect"}
        store.keep(synthetic.document(**row | source, profiler_version="0.1.0"))
    for demand in ("30tps", "50users"):
        code, _, err = run(capsys, "fit", "--results", str(tmp_path), "--qos", QOS, "--demand", demand)
        assert code == 2 and f"demand '{demand}'" in err
    keep(store, "rate", 4.0)
    for demand in ("30tps", "50users"):
        rows, _ = candidates(capsys, tmp_path, "--demand", demand, "--offer", OFFER)
        found = {row["backend"]: row for row in rows}
        assert found["null"]["capacity"]["replicas"] >= 1 and found["null"]["costs"]
        assert found["theirs"]["capacity"] is None and found["theirs"]["costs"] == []
        assert any(text.startswith(f"not sized, not costed: demand '{demand}'") for text in found["theirs"]["missing"])


def test_lengths_that_were_not_measured_scale_with_the_day(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "demand.toml"
    daily = ", ".join(["0.1"] * 12 + ["1.9"] * 12)
    file.write_text(f'[demand]\nrate = 60.0\nqos = "{QOS}"\ndaily = [{daily}]\nisl = 20\nosl = 64\n[fleet]\nautoscale = true\n')
    _, out, _ = run(capsys, "plan", str(file), "--results", str(results), "--json", "--grid", "380 g/kWh 2024 example")
    row = next(c for c in json.loads(out)["candidates"] if c["backend"] == "null")
    assert row["capacity"]["mean_replicas"] < row["capacity"]["replicas"] and row["capacity"]["ready_s"] == 2.0
    assert "CO2: not predicted for these lengths" in row["missing"]
    (row, *_), _ = candidates(capsys, results, "--lengths", "20:64", "--fleet", "2", "--workload", "w")
    assert "λ* of 2 replicas: not predicted for these lengths" in row["missing"]


def test_turns_without_a_time_are_noted(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.jsonl"
    rows = [{"t_s": 0.5 * n, "isl": 10, "osl": 32, "session": f"u{n}"} for n in range(80)]
    rows.append({"after_s": 1.0, "isl": 10, "osl": 32, "session": "u0"})
    file.write_text("\n".join(json.dumps(row) for row in rows))
    _, notes = candidates(capsys, results, "--workload", "w", "--demand", f"trace:{file}")
    assert any("1 of 81 requests wait for an answer" in note for note in notes)


def test_help_says_the_exit_codes_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--help")[1].count("Exit codes") == 1
