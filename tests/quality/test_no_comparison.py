"""Why there is nothing to compare: the reference is gone or none, a server has no log-probabilities, another vocabulary. The reason is in the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from quality_stand import Stand, standing
from tokenizers import Tokenizer, models, pre_tokenizers

from profiler.cli.main import cli
from profiler.errors import UsageError

WORDS = ["the", "harbour", "wakes", "before", "town", "does", "and", "nobody", "sees", "it"]


class Smaller(Stand):
    """A model with a vocabulary of its own, in which these ids are not."""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if isinstance(body.get("prompt"), list) and max(body["prompt"]) > 5:
            return 400, {"error": {"message": "a token id of the prompt is outside the vocabulary of 6"}}
        return super().reply(path, body)


def evaluate(folder: Path, urls: dict[str, str], *more: str) -> Any:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*WORDS, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "text.txt").write_text(" ".join(WORDS[(k * 7 + k // 10) % 10] for k in range(1300)))
    (folder / "mine.jsonl").write_text(json.dumps({"prompt": "q", "expected": "yes", "scorer": "exact"}))
    arguments = ["evaluate", "--model", "stand", "--tokenizer", str(folder), "--results", str(folder / "results"), "--json"]
    arguments += ["--text", str(folder / "text.txt"), "--tasks", str(folder / "mine.jsonl"), "--margin", "5%", "--drift-margin", "2%"]
    for name, url in urls.items():
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\nsummary = "a stand-in"\n[options]\nurl = "{url}"\ndevice = "a test"\n'
        )
        arguments += ["--backend", str(folder / f"{name}.toml")]
    return CliRunner().invoke(cli, [*arguments, *more], standalone_mode=False)


def rows(done: Any) -> dict[str, Any]:
    assert done.exception is None, done.exception
    return {row["backend"]: row for row in json.loads(done.stdout)["variants"]}


def test_the_reference_failed(tmp_path: Path) -> None:
    with standing(Stand()) as stand:
        done = evaluate(tmp_path, {"gone": "http://127.0.0.1:9/v1", "here": stand.url}, "--fail-on-quality")
    row = rows(done)["here"]
    assert row["perplexity"] and row["drift"] is None and row["tasks"] is None and row["verdict"] is None
    assert "reference" in row["missing"]["drift"] and "reference" in row["missing"]["pairs"] and row["missing"]["verdict"]
    assert list(json.loads(done.stdout)["failed"]) == ["gone"] and done.return_value == 3, "nothing was proven"


def test_a_reference_that_is_none(tmp_path: Path) -> None:
    with standing(Stand()) as stand:
        done = evaluate(tmp_path, {"here": stand.url}, "--reference", "openvino-xeon-bf61")
        assert isinstance(done.exception, UsageError) and "did you mean 'openvino-xeon-bf16'" in str(done.exception.hint)
        assert not stand.asked


@pytest.mark.parametrize(("other", "why"), [(Smaller(), "outside the vocabulary of 6"), (Stand("none"), "echo is not supported")])
def test_one_that_cannot_score_these_tokens_says_why_on_either_side(tmp_path: Path, other: Stand, why: str) -> None:
    with standing(Stand()) as stand, standing(other):
        as_variant = rows(evaluate(tmp_path, {"good": stand.url, "other": other.url}))["other"]
        as_reference = rows(evaluate(tmp_path, {"other": other.url, "good": stand.url}))["good"]
    assert as_variant["perplexity"] is None and as_variant["drift"] is None
    assert why in as_variant["missing"]["perplexity"] and why in as_variant["missing"]["drift"]
    assert as_reference["perplexity"] and "the reference" in as_reference["missing"]["drift"] and why in as_reference["missing"]["drift"]
    assert {as_variant["verdict"], as_reference["verdict"]} == {"UNDECIDED"}


def test_other_tokens_are_not_compared(tmp_path: Path) -> None:
    """Two documents whose texts were cut by different vocabularies, as a store can hold them."""
    from profiler.analyse.quality_rows import rows as judged

    with standing(Stand()) as stand:
        assert evaluate(tmp_path, {"one": stand.url, "two": stand.url}).exception is None
    one, two = (json.loads(path.read_text()) for path in (tmp_path / "results" / "quality").glob("*.json"))
    two["drift"]["digest"] = "another"
    row = judged([one, two], one, 0.02, 0.05)[1]
    assert row.drift is None and "vocabulary" in row.missing["drift"]
