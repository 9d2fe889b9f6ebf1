"""`profile evaluate` against real sockets whose log-probabilities and answers are set."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from quality_stand import Stand, log_prob, standing, top
from tokenizers import Tokenizer, models, pre_tokenizers

from profiler.cli.evaluated import Evaluated
from profiler.cli.main import cli
from profiler.engines.openai import OpenAIEngine
from profiler.errors import ProfilerError, SpecError
from profiler.quality.lm_eval import Harness

WORDS = ["the", "harbour", "wakes", "before", "town", "does", "and", "nobody", "sees", "it"]
TEXT = " ".join(WORDS[(k * 7 + k // 10) % 10] for k in range(128 * 12 + 5))
TASKS = [{"prompt": f"question {k}", "expected": "yes", "scorer": "exact"} for k in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*WORDS, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)) + "\nnonsense\n")
    return tmp_path


@pytest.fixture
def stands(folder: Path) -> Iterator[dict[str, Stand]]:
    right = {one["prompt"]: "yes" for one in TASKS}
    made = {
        "full": Stand("prompt_logprobs", answers=right),
        "copy": Stand("echo", answers=right),
        "noised": Stand("echo", worse=0.1, answers=dict.fromkeys(list(right)[:40], "yes")),
        "mute": Stand("none", answers=right),
        "twin": Stand("prompt_logprobs", answers=right),
        "faint": Stand("prompt_logprobs", worse=0.3, answers=right),
    }
    with ExitStack() as stack:
        for name, stand in made.items():
            stack.enter_context(standing(stand))
            (folder / f"{name}.toml").write_text(
                f'name = "{name}"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\nsummary = "a stand-in"\n[options]\nurl = "{stand.url}"\ndevice = "a test"\n'
            )
        yield made


def evaluate(folder: Path, *more: str, names: tuple[str, ...] = ("full", "copy", "noised", "mute")) -> Any:
    arguments = ["evaluate", "--model", "stand", "--tokenizer", str(folder), "--results", str(folder / "results")]
    arguments += ["--text", str(folder / "text.txt"), "--tasks", str(folder / "tasks.jsonl")]
    for name in names:
        arguments += ["--backend", str(folder / f"{name}.toml")]
    return CliRunner().invoke(cli, [*arguments, *more], standalone_mode=False)


def test_a_copy_passes_a_noised_one_does_not_and_a_mute_one_is_undecided(folder: Path, stands: dict[str, Stand]) -> None:
    done = evaluate(folder, "--json", "--margin", "5%", "--drift-margin", "0.02", "--fail-on-quality")
    assert done.exception is None and done.return_value == 3, done.output
    assert "tasks.jsonl: line 61" in done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == ["reference", "margin", "drift_margin", "failed", "determinism", "variants"], "docs/json.md names them"
    rows = {row["backend"]: row for row in answer["variants"]}
    assert answer["reference"] == "full" and rows["full"]["is_reference"] and rows["full"]["verdict"] is None
    assert {name: row["verdict"] for name, row in rows.items() if name != "full"} == {
        "copy": "NON-INFERIOR",
        "noised": "INFERIOR",
        "mute": "UNDECIDED",
    }
    assert rows["mute"]["perplexity"] is None and "echo is not supported" in rows["mute"]["missing"]["perplexity"]
    assert rows["noised"]["drift"]["delta_nll"] == pytest.approx(0.1) and len(rows["noised"]["lost"]) == 20
    ids = [WORDS.index(word) for word in TEXT.split()]
    windows = [ids[k * 128 : (k + 1) * 128] for k in range(12)]
    nll = [-log_prob(a, b) for window in windows for a, b in itertools.pairwise(window)]
    assert rows["full"]["perplexity"] == pytest.approx(math.exp(sum(nll) / len(nll)), rel=1e-5)


def test_what_is_stored_holds_each_log_probability_and_where_it_came_from(folder: Path, stands: dict[str, Stand]) -> None:
    assert evaluate(folder, names=("full", "copy")).exception is None
    kept = [json.loads(path.read_text()) for path in (folder / "results" / "quality").glob("*.json")]
    assert len(kept) == 2 and not list((folder / "results" / "quality").glob(".*"))
    document = next(one for one in kept if one["backend"]["name"] == "copy")
    assert document["format"] == "slm-profiler-quality" and document["machine"]["machine_id"] and len(document["start"]["start_ids"]) == 1
    assert [len(window) for window in document["drift"]["windows"]] == [127] * 12
    assert document["drift"]["top"] is None and "given token only" in document["drift"]["top_reason"]
    full = next(one for one in kept if one["backend"]["name"] == "full")["drift"]["top"]
    raw = (folder / "results" / "quality" / full["file"]).read_bytes()
    assert (full["k"], full["source"], full["sha256"]) == (20, "prompt_logprobs", hashlib.sha256(raw).hexdigest())
    arrays = np.load(io.BytesIO(raw))
    assert arrays["ids"].shape == arrays["log_probs"].shape == (12 * 127, 20)
    assert (arrays["ids"].dtype, arrays["log_probs"].dtype) == (np.int32, np.float32)
    assert (np.diff(arrays["log_probs"], axis=1) <= 0).all(), "best first"
    assert len(document["tasks"]["examples"]) == 60 and document["tasks"]["bad_lines"][0].startswith("line 61")


def test_without_a_margin_there_are_figures_and_no_verdict(folder: Path, stands: dict[str, Stand]) -> None:
    done = evaluate(folder, names=("full", "noised"))
    assert done.return_value == 0 and "No verdict without a margin" in done.output and "+10.52%" in done.output


def test_kl_and_top_1_agreement_where_both_say_them(folder: Path, stands: dict[str, Stand]) -> None:
    rows = json.loads(evaluate(folder, "--json", names=("full", "copy", "twin", "faint")).stdout)["variants"]
    assert rows[1]["kl"] is None and "given token only" in rows[1]["missing"]["kl"] and "given token only" in rows[1]["missing"]["top1"]
    assert rows[2]["kl"]["value"] == 0 and rows[2]["top1"] == {"value": 1.0, "lo": 1.0, "hi": 1.0, "windows": 12, "tokens": 12 * 127}
    ids = [WORDS.index(word) for word in TEXT.split()]
    pairs = [pair for k in range(12) for pair in itertools.pairwise(ids[k * 128 : (k + 1) * 128])]

    def kl(before: int, token: int) -> float:
        """All tokens the same 0.3 nats less probable, so that what they lose is in the rest."""
        best = sorted(top(before, token).values(), reverse=True)[:20]
        rest = 1 - sum(math.exp(x) for x in best)
        return sum(math.exp(x) * 0.3 for x in best) + rest * math.log(rest / (1 - sum(math.exp(x - 0.3) for x in best)))

    expected = sum(kl(a, b) for a, b in pairs) / len(pairs)
    assert rows[3]["kl"]["value"] == pytest.approx(expected, rel=1e-4) and rows[3]["kl"]["lo"] < expected < rows[3]["kl"]["hi"]
    assert rows[3]["kl_per_token"]["largest"] == pytest.approx(max(kl(a, b) for a, b in pairs), rel=1e-4)
    positions = rows[3]["by_position"]
    assert [(one["first"], one["last"], one["drift"]["tokens"]) for one in positions] == [
        (1, 15, 12 * 15),
        (16, 31, 12 * 16),
        (32, 63, 12 * 32),
        (64, 127, 12 * 64),
    ]
    assert all(one["drift"]["delta_nll"] == pytest.approx(0.3) and one["top1"]["value"] == 1 for one in positions)
    assert rows[1]["by_position"][0]["kl"] is None and rows[1]["by_position"][0]["drift"]["delta_nll"] == pytest.approx(0)


def test_the_table_has_kl_agreement_and_the_parts_of_the_windows(folder: Path, stands: dict[str, Stand]) -> None:
    shown = evaluate(folder, names=("full", "faint", "copy")).output
    assert ", 100.0%" in shown and "top-1 100.0% to 100.0%" in shown and "by tokens before: 1-15 +35.0%, 0." in " ".join(shown.split())
    assert "copy: no KL, top-1 agreement: the server gives the log-probability of the given token only" in " ".join(shown.split())


def test_a_file_of_the_top_tokens_that_was_changed_is_not_believed(folder: Path, stands: dict[str, Stand], monkeypatch: Any) -> None:
    from profiler.quality import top_k

    real = top_k.keep
    monkeypatch.setattr(top_k, "keep", lambda *given: real(*given) | {"sha256": "0" * 64})
    row = json.loads(evaluate(folder, "--json", names=("full", "twin")).stdout)["variants"][1]
    assert row["kl"] is None and "not the file that was written" in row["missing"]["kl"] and row["drift"] is not None


def test_one_that_was_broken_off_goes_on(folder: Path, stands: dict[str, Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.quality.documents.key_of", lambda *_: "a" * 16)  # an endpoint's own key changes with the time
    stand = stands["copy"]
    stand.breaks_at = "question 20"
    assert evaluate(folder, names=("copy",)).return_value == 1
    assert not list((folder / "results" / "quality").glob("*.json"))
    stand.breaks_at, stand.asked = None, []
    done = evaluate(folder, names=("copy",))
    assert done.return_value == 0 and "goes on after 20 of 60" in done.stderr
    again = [body["messages"][0]["content"] for body in stand.asked if "messages" in body]
    assert set(again) == {f"question {k}" for k in range(20, 60)}, "of the first time some may still be under way"
    assert not [body for body in stand.asked if body.get("echo")], "the text was asked before"
    (kept,) = (folder / "results" / "quality").glob("*.json")
    document = json.loads(kept.read_text())
    assert len(document["tasks"]["examples"]) == 60 and len(document["start"]["start_ids"]) == 2


def test_another_reference(folder: Path, stands: dict[str, Stand]) -> None:
    done = evaluate(folder, "--json", "--margin", "5%", "--reference", str(folder / "noised.toml"), names=("full",))
    rows = {row["backend"]: row for row in json.loads(done.stdout)["variants"]}
    assert rows["noised"]["is_reference"] and rows["full"]["tasks"]["gained"] == 20 and rows["full"]["verdict"] == "NON-INFERIOR"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--margin", "5"), "share"),
        (("--margin", "x%"), "share"),
        (("--fail-on-quality",), "margin"),
        (("--margin", "nan"), "share"),
        (("--text", "none.txt"), "none.txt"),
        (("--tasks", "none.jsonl"), "none.jsonl"),
    ],
)
def test_wrong_usage_starts_nothing(folder: Path, stands: dict[str, Stand], more: tuple[str, ...], message: str) -> None:
    done = evaluate(folder, *more)
    assert isinstance(done.exception, ProfilerError) and message in done.exception.message and done.exception.exit_code == 2
    assert not any(stand.asked for stand in stands.values())


def test_one_backend_alone_proves_nothing(folder: Path, stands: dict[str, Stand]) -> None:
    twice = ("--reference", str(folder / "full.toml"), "--backend", str(folder / "full.toml"))
    for more in ((), twice):
        done = evaluate(folder, "--margin", "5%", "--fail-on-quality", *more, names=("full",))
        assert isinstance(done.exception, SpecError) and "only the reference is evaluated" in done.exception.message
        assert "second --backend" in str(done.exception.hint) and not stands["full"].asked
    assert not Evaluated("full", 0.05, None, [], folder).proven


def test_what_was_not_answered_is_counted_and_a_busy_server_is_no_smaller_sample(
    folder: Path, stands: dict[str, Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiler.quality.asking.time.sleep", lambda _: None)
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS[:4])))
    (folder / "text.txt").write_text(TEXT[: len(TEXT) // 4])
    answers: dict[str, tuple[int, str]] = {"copy": (422, "question 2"), "mute": (422, "question"), "noised": (429, "question 2")}
    for name, (status, at) in answers.items():
        real = stands[name].reply

        def reply(path: str, body: dict[str, Any], real: Any = real, status: int = status, at: str = at) -> Any:
            return (status, {"error": {"message": "too long"}}) if at in json.dumps(body) else real(path, body)

        monkeypatch.setattr(stands[name], "reply", reply)
    answer = json.loads(evaluate(folder, "--json").stdout)
    rows = {row["backend"]: row for row in answer["variants"]}
    assert "examples" not in rows["full"]["missing"] and answer["failed"] == {"noised": "HTTP 429: too long"}
    assert rows["copy"]["examples"] == 3 and rows["copy"]["missing"]["examples"] == "1 of 4 were not answered: HTTP 422: too long"
    missing = rows["mute"]["missing"]
    assert missing["examples"] == missing["tasks"] == "4 of 4 were not answered: HTTP 422: too long"
    shown = " ".join(evaluate(folder, names=("full", "copy")).output.split())
    assert "copy: examples: 1 of 4 were not answered: HTTP 422: too long" in shown


def test_one_that_is_gone_is_named_and_the_others_are_kept(folder: Path, stands: dict[str, Stand]) -> None:
    (folder / "gone.toml").write_text(
        'name = "gone"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\nsummary = "nobody"\n[options]\nurl = "http://127.0.0.1:9/v1"\n'
    )
    done = evaluate(folder, "--json", names=("full", "gone", "copy"))
    answer = json.loads(done.stdout)
    assert list(answer["failed"]) == ["gone"] and [row["backend"] for row in answer["variants"]] == ["full", "copy"]
    assert done.return_value == 0


def test_a_dry_run_asks_nobody_and_says_what_it_would(folder: Path, stands: dict[str, Stand]) -> None:
    done = evaluate(folder, "--dry-run", "--json", names=("full", "copy"))
    answer = json.loads(done.stdout)
    assert list(answer) == ["load", "seconds_min", "seconds_max", "backends"], "docs/json.md names them"
    assert [(one["backend"], one["is_reference"], one["windows"], one["examples"], one["stored"]) for one in answer["backends"]] == [
        ("full", True, 12, 60, None),
        ("copy", False, 12, 60, None),
    ]
    assert 0 < answer["seconds_min"] < answer["seconds_max"]
    assert not any(stand.asked for stand in stands.values()) and not (folder / "results").exists()
    assert evaluate(folder, names=("full", "copy")).return_value == 0
    text = evaluate(folder, "--dry-run", names=("full", "mute")).stdout.splitlines()
    assert "12 windows and 60 examples" in text[1] and "as on 20" in text[1], "the time of the evaluation before"
    assert "a guess" in text[2], "nothing is known of another backend"


def test_a_dry_run_builds_no_harness_and_its_time_is_kept_apart(
    folder: Path, stands: dict[str, Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def tick(seconds: float = 1.0) -> float:
        now[0] += seconds
        return now[0]

    def part(harness: Any, *_: Any) -> dict[str, Any]:
        tick(1e6 if harness else 0.0)
        return {"harness": None, "harness_reason": "a stand-in"}

    def never(*_: Any) -> Any:
        raise AssertionError("a dry run starts nothing")

    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS[:4])))
    (folder / "text.txt").write_text(TEXT[: len(TEXT) // 4])
    for module in ("running", "evaluate"):
        monkeypatch.setattr(f"profiler.quality.{module}.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr("profiler.quality.lm_eval.part", part)
    monkeypatch.setattr("profiler.quality.lm_eval.read", lambda *_: Harness(("t",), ("t",), None, "0", "d", Path("p")))
    assert evaluate(folder, "--harness", "t", names=("full",)).return_value == 0
    (path,) = (folder / "results" / "quality").glob("*.json")
    effort = json.loads(path.read_text())["effort"]
    assert effort["asked_s"] < 1e6 <= effort["harness_s"]
    monkeypatch.setattr("profiler.quality.lm_eval.read", never)
    monkeypatch.setattr("profiler.environments.ensure", never)
    again = json.loads(evaluate(folder, "--dry-run", "--json", "--harness", "t,arc_easy", names=("full",)).stdout)
    assert again["harness"] == ["t", "arc_easy"] and again["seconds_max"] < 1e6 and "as on" in again["backends"][0]["because"]
    shown = evaluate(folder, "--dry-run", "--harness", "t,arc_easy", names=("full",)).output
    assert "lm-evaluation-harness: t, arc_easy; its time is not estimated" in shown
    for more in (("--harness", ","), ("--harness-limit", "3")):
        assert isinstance(evaluate(folder, "--dry-run", *more, names=("full",)).exception, SpecError)
    # Before it was kept apart, the harness's time was in `asked_s`: no estimate comes of that.
    document = json.loads(path.read_text()) | {"harness_log": "a line", "sha256": None}
    del document["effort"]["harness_s"]
    path.write_text(json.dumps(document))
    assert "a guess" in evaluate(folder, "--dry-run", names=("full",)).output


def test_what_is_kept_is_read_without_a_right_to_write_and_nothing_is_prepared_in_vain(
    folder: Path, stands: dict[str, Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    prepared = []
    real = OpenAIEngine.prepare
    monkeypatch.setattr(OpenAIEngine, "prepare", lambda *given: prepared.append(1) or real(*given))
    (folder / "tasks.jsonl").write_text(json.dumps(TASKS[0]))
    (folder / "text.txt").write_text(TEXT[: len(TEXT) // 4])
    # An endpoint is asked again every time, so its key is made one of what it is here.
    monkeypatch.setattr("profiler.quality.documents.key_of", lambda served, *_: f"{served[1]:x<16}")
    assert evaluate(folder, names=("full",)).return_value == 0 and prepared == [1]
    monkeypatch.setattr("profiler.quality.documents.locked", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert "evaluated already" in evaluate(folder, names=("full",)).stderr and prepared == [1, 1]
    for more in (("--again",), ("--backend", str(folder / "copy.toml"))):
        done = evaluate(folder, "--json", *more, names=("full",))
        (why,) = json.loads(done.stdout)["failed"].values()
        assert "cannot be written: Permission denied" in why
    assert prepared == [1, 1, 1], "of these only what is there already"


def test_answers_that_change_with_the_load_are_asked_one_by_one_and_that_is_said(folder: Path, stands: dict[str, Stand]) -> None:
    stands["copy"].turns_at = stands["copy"].gathers = 2
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS[:4])))
    (folder / "text.txt").write_text(TEXT[: len(TEXT) // 4])
    done = evaluate(folder, "--json", names=("full", "copy"))
    answer = json.loads(done.stdout)
    assert {name: found["parallel"] for name, found in answer["determinism"].items()} == {"full": 8, "copy": 1}
    assert {row["backend"]: row["passed"] for row in answer["variants"]} == {"full": 4, "copy": 4}, "what was turned is not what is scored"
    kept = [json.loads(path.read_text()) for path in (folder / "results" / "quality").glob("*.json")]
    assert {one["backend"]["name"]: one["asked"].partition(",")[0] for one in kept} == {
        "full": "8 requests at once",
        "copy": "one request at a time",
    }
    line = evaluate(folder, "--parallel", "2", names=("copy",)).stdout
    assert "copy: deterministic alone; at 2 at once 0 of 4 answers and 0 of" in line and "asked 2 at once, as you said" in line
