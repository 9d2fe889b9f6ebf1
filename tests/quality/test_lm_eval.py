"""lm-evaluation-harness: the real one against a stand-in whose figures are computed here too; a fake of its command where things go wrong."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from quality_stand import Stand, log_prob, standing
from tokenizers import Tokenizer, models, pre_tokenizers

from profiler import environments
from profiler.cli.main import cli
from profiler.engines import guardian
from profiler.errors import EngineError, ProfilerError, SpecError
from profiler.quality import lm_eval
from profiler.quality.lm_eval import Harness
from profiler.quality.tasks import Tasks
from profiler.records import Endpoint

WORDS = ["the", "harbour", "wakes", "before", "town", "does", "and", "nobody", "sees", "it"]


def best_after(token: int) -> int:
    return max(range(len(WORDS)), key=lambda other: log_prob(token, other))


class Completions(Stand):
    """As our own server: prompts as token ids, log-probabilities of these only, no `stop`."""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if isinstance(body.get("prompt"), list) and isinstance(body["prompt"][0], list):
            body = {**body, "prompt": body["prompt"][0]}
        if body.get("stop"):
            self.asked.append(body)
            return 400, {"error": {"message": "stop=['and'] is not supported by this server"}}
        if isinstance(body.get("prompt"), list) and not body.get("echo") and "prompt_logprobs" not in body:
            self.asked.append(body)
            ids = [body["prompt"][-1]]
            for _ in range(body["max_tokens"]):
                ids.append(best_after(ids[-1]))
            text = "wakes before the town and nobody sees it"
            return 200, {"choices": [{"index": 0, "text": text, "token_ids": ids[1:], "finish_reason": "length"}]}
        return super().reply(path, body)


QUESTIONS = [("the harbour", "wakes before"), ("nobody sees", "it"), ("town does", "and nobody"), ("before the", "town"), ("it", "does")]
OTHERS = ["the town", "sees"]
YAML = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: data.jsonl
test_split: test
doc_to_text: "{{{{question}}}}"
output_type: {kind}
{rest}
"""
CHOICE = "doc_to_choice: choices\ndoc_to_target: answer\nmetric_list:\n  - metric: acc\n"
LAST = 'doc_to_target: " {{target}}"\nmetric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n'
GENERATE = 'doc_to_target: "wakes before the town"\ngeneration_kwargs:\n  until: [" and"]\n  max_gen_toks: 6\nmetric_list:\n  - metric: exact_match\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*WORDS, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text(" ".join(WORDS[(k * 7 + k // 10) % 10] for k in range(300)))
    (tmp_path / "examples.jsonl").write_text(json.dumps({"prompt": "q", "expected": "yes", "scorer": "exact"}))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    lines = []
    for k, (question, answer) in enumerate(QUESTIONS):
        last = WORDS.index(question.split()[-1])
        target = WORDS[best_after(last)] if k % 2 else answer
        lines.append(json.dumps({"question": question, "choices": [answer, *OTHERS], "answer": 0, "target": target}))
    (tasks / "data.jsonl").write_text("\n".join(lines))
    for name, kind, rest in (("pick", "multiple_choice", CHOICE), ("last", "loglikelihood", LAST), ("write", "generate_until", GENERATE)):
        (tasks / f"{name}.yaml").write_text(YAML.format(name=name, kind=kind, rest=rest))
    return tmp_path


def command(folder: Path, stand: Stand, *more: str) -> list[str]:
    (folder / "stand.toml").write_text(
        f'name = "stand"\nengine = "openai"\ndevice = "remote"\nprecision = "as-served"\nsummary = "a stand-in"\n[options]\nurl = "{stand.url}"\ndevice = "a test"\n'
    )
    arguments = ["evaluate", "--model", "stand", "--tokenizer", str(folder), "--results", str(folder / "results")]
    arguments += ["--text", str(folder / "text.txt"), "--tasks", str(folder / "examples.jsonl"), "--backend", str(folder / "stand.toml")]
    return [*arguments, *more]


def evaluate(folder: Path, stand: Stand, *more: str) -> Any:
    return CliRunner().invoke(cli, command(folder, stand, *more), standalone_mode=False)


def log_likelihood(question: str, answer: str) -> float:
    before, *rest = [WORDS.index(word) for word in [question.split()[-1], *answer.split()]]
    return sum(log_prob(a, b) for a, b in itertools.pairwise([before, *rest]))


@pytest.mark.engine
def test_the_real_harness(folder: Path) -> None:
    environments.ensure(environments.ENVIRONMENTS["lm-eval"], lambda line: None)
    with standing(Completions()) as stand:
        done = evaluate(folder, stand, "--harness", str(folder / "tasks"), "--harness-limit", "4", "--json")
        assert done.exception is None and done.return_value == 0, done.output
    found = json.loads(done.stdout)["harness"]["stand"]["harness"]
    assert found["version"] == "0.4.13" and found["limit"] == 4 and set(found["tasks"]) == {"pick", "last", "write"}
    right = [
        all(log_likelihood(question, answer) > log_likelihood(question, other) for other in OTHERS) for question, answer in QUESTIONS[:4]
    ]
    share = sum(right) / 4
    assert 0 < share < 1, "the questions would not tell a right count from a wrong one"
    of_pick = found["tasks"]["pick"]["acc"]
    assert of_pick["value"] == share and of_pick["n"] == 4 and of_pick["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 3))
    greedy = [k % 2 == 1 or greedily(*QUESTIONS[k]) for k in range(4)]
    assert found["tasks"]["last"]["acc"]["value"] == sum(greedy) / 4 < 1
    assert found["tasks"]["write"]["exact_match"]["value"] == 1.0, "cut at ` and`, which the server would not do"
    (kept,) = (folder / "results" / "quality").glob("*.json")
    document = json.loads(kept.read_text())
    assert document["harness"] == found and document["harness_reason"] is None
    data = folder / "tasks" / "data.jsonl"
    data.write_text(data.read_text().replace("nobody sees", "nobody does"))
    again = lm_eval.read(str(folder / "tasks" / "pick.yaml"), 4, lambda line: None)
    assert again.tasks == ("pick",) and again.digest != found["digest"]


def greedily(question: str, answer: str) -> bool:
    ids = [WORDS.index(word) for word in [question.split()[-1], *answer.split()]]
    return all(best_after(a) == b for a, b in itertools.pairwise(ids))


@pytest.mark.engine
def test_a_server_without_log_probabilities_and_a_task_that_is_none(folder: Path) -> None:
    environments.ensure(environments.ENVIRONMENTS["lm-eval"], lambda line: None)
    with standing(Completions("none")) as stand:
        done = evaluate(folder, stand, "--harness", str(folder / "tasks" / "pick.yaml"))
        assert done.exception is None and "echo is not supported" in done.output
        (kept,) = (folder / "results" / "quality").glob("*.json")
        document = json.loads(kept.read_text())
        assert document["harness"] is None and document["harness_reason"] == "HTTP 400: echo is not supported" and document["harness_log"]
        (folder / "tasks" / "data.jsonl").unlink()
        stand.asked.clear()
        done = evaluate(folder, stand, "--harness", str(folder / "tasks" / "pick.yaml"))
        assert isinstance(done.exception, SpecError) and "data.jsonl" in done.exception.message and not stand.asked


FAKE = """#!{python}
import json, os, signal, sys, time
asked = json.load(open(sys.argv[4]))
print("progress: begun", flush=True)
open(os.path.dirname(os.path.abspath(__file__)) + "/seen", "a").write(json.dumps([sys.argv, os.getpid(), asked]) + "\\n")
if asked["do"] == "look":
    json.dump({{"version": "0", "tasks": ["t"], "digest": "d"}}, open(asked["out"], "w"))
else:
{does}
"""


def fake(tmp_path: Path, does: str) -> Path:
    file = tmp_path / "fake-python"
    file.write_text(FAKE.format(python=sys.executable, does="\n".join("    " + line for line in does.splitlines())))
    file.chmod(0o755)
    return file


def asked(tmp_path: Path, does: str) -> dict[str, Any]:
    harness = Harness(("t",), ("t",), None, "0", "d", fake(tmp_path, does))
    return lm_eval.part(
        harness, Endpoint("127.0.0.1", 9, "m", headers={"Authorization": "Bearer secret"}), tmp_path / "tokenizer.json", print
    )


def seen(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("print('why it failed', file=sys.stderr); sys.exit(1)", "why it failed"),
        ("os.kill(os.getpid(), 9)", "it ended with exit code -9"),
        ("pass", "it ended without a result"),
        ("open(asked['out'], 'w').write('{')", "it ended without a result"),
    ],
)
def test_a_harness_that_fails_says_why(tmp_path: Path, does: str, reason: str) -> None:
    found = asked(tmp_path, does)
    assert found["harness"] is None and found["harness_reason"] == reason and "progress" not in found["harness_log"]


def test_a_server_that_fails_is_an_error_and_a_key_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it is gone"):
        asked(tmp_path, "print('it is gone', file=sys.stderr); sys.exit(3)")
    (arguments, _, question), *_ = seen(tmp_path)
    assert "secret" not in " ".join(arguments) and question["headers"] == {"Authorization": "Bearer secret"}
    assert not Path(arguments[-1]).exists()


def test_without_a_tokenizer_or_a_wish_there_is_a_reason() -> None:
    endpoint = Endpoint("127.0.0.1", 9, "m")
    assert "--harness" in lm_eval.part(None, endpoint, None, print)["harness_reason"]
    harness = Harness(("t",), ("t",), None, "0", "d", Path("none"))
    assert "no tokenizer" in lm_eval.part(harness, endpoint, None, print)["harness_reason"]


@pytest.mark.parametrize("change", [{"limit": 3}, {"digest": "e"}, {"version": "1"}, {"tasks": ("u",)}])
def test_stored_results_answer_no_other_task(change: dict[str, Any]) -> None:
    harness = Harness(("t",), ("t",), None, "0", "d", Path("p"))
    tasks = Tasks("mine", (), digest="same", harness=harness)
    assert tasks.asked != replace(tasks, harness=replace(harness, **change)).asked
    assert tasks.asked == replace(tasks, harness=replace(harness, python=Path("q"), specs=("/elsewhere/t.yaml",))).asked
    assert replace(tasks, harness=None).asked == "same"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--harness-limit", "3"), "--harness-limit"),
        (("--harness", ","), "no task"),
        (("--harness", "none.yaml"), "no such file"),
        (("--harness", "a b"), "no such file"),
    ],
)
def test_wrong_usage_starts_nothing(folder: Path, more: tuple[str, ...], message: str) -> None:
    with standing(Completions()) as stand:
        done = evaluate(folder, stand, *more)
        assert isinstance(done.exception, ProfilerError) and message in done.exception.message and done.exception.exit_code == 2
        assert not stand.asked


def wait_for(what: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def alive(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_takes_the_harness_along(folder: Path, number: signal.Signals) -> None:
    program = fake(folder, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)")
    with standing(Completions()) as stand:
        arguments = command(folder, stand, "--harness", "t")
        script = f"import sys; sys.argv[0] = 'profile'; from profiler.quality import lm_eval; from profiler import environments as e; e.ensure = lambda *_: e.Environment(__import__('pathlib').Path({str(program)!r}), 'h', {{}}); from profiler.cli.main import main; sys.exit(main())"
        child = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: (folder / "seen").exists() and len(seen(folder)) == 2)
            pids = [seen(folder)[-1][1]]
            assert alive(pids)
            os.kill(child.pid, number)
            child.wait(60)
            wait_for(lambda: not alive(pids))
        finally:
            child.kill()
            child.wait()
    assert guardian.GRACE_S and list((folder / "results" / "quality").glob("*.part")), "text and examples were kept"
