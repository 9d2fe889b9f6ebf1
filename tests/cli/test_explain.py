"""`profile explain`: one definition per word, read from where it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from profiler.analyse import explain, qos
from profiler.cli.main import cli, main
from profiler.store import schema

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["explain", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_every_metric_says_what_it_is_where_it_is_stored_and_what_it_is_not() -> None:
    for one in explain.everything():
        if one.kind == "metric":
            assert one.definition and one.formula and one.is_not and one.stored and one.unit is not None
            for place in one.stored:
                if not place.startswith("profile "):
                    table, _, column = place.partition(".")
                    assert column in {c.name for c in schema.TABLES[table]}


def test_definitions_are_those_of_the_schema_and_the_glossary() -> None:
    by_name = {c.name: c for c in schema.REQUESTS}
    assert explain.explain("ttft").definition == by_name["ttft_s"].definition
    readme = (ROOT / "docs" / "schema.md").read_text()
    for column in schema.RUNS:
        assert explain.explain(f"runs.{column.name}").definition.replace("|", "·") in readme
    words = re.findall(r"^\| ([^|]+?) \| ", (ROOT / "docs" / "glossary.md").read_text(), flags=re.M)
    assert set(explain.glossary()) == set(words) - {"word"} and len(words) > 30
    for word in explain.glossary():
        assert explain.explain(word).definition


def test_what_a_target_reads() -> None:
    for name, (column, _, vacuous) in qos.METRICS.items():
        said = explain.explain(name).qos
        assert said is not None and column in said and ("keeps" in said) == vacuous


@pytest.mark.parametrize(
    ("asked", "name"), [("TTFT", "ttft"), ("itl", "icl"), ("tpot_p95", "tpot_p95"), ("λ*", "limit"), ("chat", "chat"), ("OSL", "ISL, OSL")]
)
def test_names_people_use(asked: str, name: str) -> None:
    assert explain.explain(asked).name == name


def test_text_and_json_say_the_same() -> None:
    plain = json.loads(run("tpot", "--json"))
    text = " ".join(run("tpot").split())
    assert plain["formula"] in text and plain["definition"] in text and all(place in text for place in plain["stored"])
    listed = run()
    assert all(one["name"] in listed for one in json.loads(run("--json")))


def test_unknown_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "gooodput"])
    assert stopped.value.code == 2
    assert "did you mean 'goodput'?" in capsys.readouterr().err
