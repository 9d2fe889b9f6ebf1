"""docs/json.md and docs/exit-codes.md are what the commands do."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import synthetic
from click.testing import CliRunner

from profiler import errors
from profiler.cli.exit_codes import ExitCode
from profiler.cli.main import cli, main
from profiler.cli.results_sql import READY
from profiler.run.calibrate import Curve
from profiler.selftest import record
from profiler.store import schema
from profiler.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "notebooks" / "data" / "closed-loop"
ROWS = re.findall(r"^\| (`profile .+?) \| (object|array) \| (.+?) \|$", (ROOT / "docs" / "json.md").read_text(), flags=re.M)
DOCUMENTED = {
    name: (kind, re.findall(r"`([^`]+)`", keys)) for names, kind, keys in ROWS for name in re.findall(r"`profile ([^`]+)`", names)
}
GUIDELLM = ROOT / "tests" / "store" / "foreign" / "guidellm" / "out.json"
FIT = ["--qos", "ttft_p95<=1s", "--offer", "AMD EPYC=0.096 USD/h 2026-11-24"]


def leaves(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += leaves(command, f"{path}{name} ") if isinstance(command, click.Group) else [(path + name, command)]
    return found


@pytest.mark.parametrize(("name", "command"), leaves(cli), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_takes_json_and_is_documented(name: str, command: click.Command) -> None:
    assert "--json" in {option for p in command.params for option in p.opts}, f"profile {name} has no --json"
    assert any(documented.startswith(name) for documented in DOCUMENTED), f"docs/json.md does not name profile {name}"


def arguments_of(tmp_path: Path) -> dict[str, list[str]]:
    run_id = Store(DATA).rows()[0]["run_id"]
    demand = tmp_path / "demand.toml"
    demand.write_text('[demand]\nrate = 0.5\nqos = "ttft_p95<=1s"\n')
    mix = tmp_path / "mix.toml"
    workload = Store(DATA).rows()[0]["workload"]
    mix.write_text('[demand]\nqos = "ttft_p95<=10s"\n' + f'[[mix]]\nworkload = "{workload}"\nrate = 0.1\n' * 2)
    store = ["--results", str(DATA)]
    reference = str(ROOT / "results" / "reference" / "openvino-xeon.csv")
    return {
        "sweep --dry-run": ["sweep", "--dry-run", "--backend", "null", "--workload", "quickstart-chat", "--concurrency", "1"],
        "sweep --find-limit --dry-run": [
            *("sweep", "--find-limit", "--dry-run", "--backend", "null", "--workload", "quickstart-chat", "--qos", "ttft_p95<=1s")
        ],
        "report": ["report", *store, "--out", str(tmp_path / "r.html")],
        "fit": ["fit", *store, *FIT, "--demand", "0.5rps"],
        "report --index": ["report", "--index", str(tmp_path)],
        "cost": ["cost", *store, *FIT],
        "plan": ["plan", str(demand), *store, *FIT[2:]],
        "plan MIX.toml": ["plan", str(mix), *store, *FIT[2:]],
        **{f"list {kind}": ["list", kind] for kind in ("backends", "workloads", "models", "engines", "qos")},
        "engines remove": ["engines", "remove", "openvino"],
        "doctor": ["doctor"],
        "results ls": ["results", "ls", *store],
        "results show": ["results", "show", run_id, *store],
        "results sql": ["results", "sql", "fastest first", *store],
        "results import": ["results", "import", str(GUIDELLM), "--dry-run", "--results", str(tmp_path / "s")],
        "results import --map": [
            "results",
            "import",
            reference,
            "--map",
            "reference-openvino-xeon",
            "--dry-run",
            "--results",
            str(tmp_path / "s"),
        ],
        "results verify": ["results", "verify", *store],
        "results push": ["results", "push", str(tmp_path / "other"), *store],
        "results pull": ["results", "pull", str(DATA), "--results", str(tmp_path / "third")],
        "explain": ["explain"],
        "explain METRIC": ["explain", "ttft"],
        "completion": ["completion", "fish"],
    }


def test_keys_are_those_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_PROFILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, arguments in arguments_of(tmp_path).items():
        done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, (name, done.output)
        found = json.loads(done.stdout, parse_constant=pytest.fail)  # NaN, Infinity
        kind, keys = DOCUMENTED[name]
        assert isinstance(found, list) == (kind == "array"), name
        first: dict[str, Any] = found[0] if isinstance(found, list) else found
        if name == "results ls":
            assert list(first) == [c.name for c in schema.RUNS]
        elif name == "results sql":
            assert list(first)[:3] == ["backend", "load", "output_tps"]
        else:
            assert list(first) == keys, name


def test_documented_keys_of_what_takes_minutes() -> None:
    assert DOCUMENTED["calibrate"][1] == [field.name for field in dataclasses.fields(Curve)]
    assert DOCUMENTED["selftest"][1] == list(record.make({}, [], [], True))


def test_exit_codes_are_those_of_the_page(tmp_path: Path) -> None:
    table = re.findall(r"^\| (\d+) \| (\w+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), flags=re.M)
    assert {(int(code), name) for code, name in table} == {(code.value, code.name) for code in ExitCode}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ProfilerError)]
    assert {kind.exit_code for kind in kinds} <= set(ExitCode)
    for arguments, code in (
        (["--version"], ExitCode.DONE),
        (["results", "ls", "--results", str(tmp_path / "none")], ExitCode.FAILED),
        (["results", "sql", "drop table runs", "--results", str(DATA)], ExitCode.FAILED),
        (["fit", "--qos", "nonsense<=", "--results", str(DATA)], ExitCode.USAGE),
        (["list", "nothing"], ExitCode.USAGE),
        (["explain", "gooodput"], ExitCode.USAGE),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code, arguments


def test_named_queries_run_and_are_listed() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["results", "sql", "--json"]).stdout)
    assert {one["name"]: one["sql"] for one in listed} == READY
    for name in READY:
        done = CliRunner().invoke(cli, ["results", "sql", name, "--csv", "--results", str(DATA)], catch_exceptions=False)
        assert done.exit_code == 0 and "," in done.stdout.splitlines()[0], name
        written = CliRunner().invoke(cli, ["results", "sql", READY[name], "--csv", "--results", str(DATA)], catch_exceptions=False)
        assert written.stdout == done.stdout


def test_sql_only_reads_and_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "results")
    store.keep(synthetic.document(workload="w"), [synthetic.record(0)])
    before = sorted(path.name for path in store.path.rglob("*"))
    out = tmp_path / "x.csv"
    for query in ("drop view runs", f"copy runs to '{out}'", "select 1; select 2", f"attach '{out}'", "select nothing from runs", ""):
        with pytest.raises(SystemExit) as stopped:
            main(["results", "sql", query, "--results", str(store.path)])
        assert stopped.value.code == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[0].startswith("error: SQL: ") and len(lines) <= 2, (query, lines)
    assert sorted(path.name for path in store.path.rglob("*")) == before and not out.exists()
    with pytest.raises(SystemExit) as stopped:
        main(["results", "sql", "fastest first", "--json", "--csv", "--results", str(store.path)])
    assert stopped.value.code == 2
