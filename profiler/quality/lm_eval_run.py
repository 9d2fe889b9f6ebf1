"""Script, run in the environment `lm-eval`: tasks of lm-evaluation-harness, loaded and looked at, or asked of a server.

    lm_eval_run.py FILE       with {"do": "look" | "ask", "tasks": [...], "folder": DIR, "out": FILE, ...}

Lines that start with `progress: ` are for people; the result is the JSON file OUT. Imports nothing from `profiler`.
Exit code 3: the server is gone or failed, as opposed to what it cannot do.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from lm_eval import simple_evaluate
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

SERVER_FAILED = 3
BOOTSTRAPS = 1000  # of metrics whose standard error has no formula
TIMEOUT_S = 300.0


class NoAnswer(Exception):
    """The server refused; the message is its own."""


class ServerFailed(Exception):
    pass


def say(text: str) -> None:
    print(f"progress: {text}", flush=True)  # noqa: T201 - the launcher reads it


class Client(LocalCompletionsAPI):  # type: ignore[misc]
    """lm_eval's own client, one request at a time, for servers that give less than OpenAI did.

    Without `stop` the answer is cut here, at the same place: greedy text does not depend on when it is broken off. Without
    `top_logprobs` whether a continuation is the greedy one is found by asking for the greedy one.
    """

    def __init__(self, greedy_for: set[str], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.greedy_for = greedy_for
        self.greedy_needed = False
        self.stops = True
        self.done = self.total = 0

    def loglikelihood(self, asked: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """In two parts: only some tasks want to know whether a continuation is the greedy one, and it can cost a request."""
        self.done, self.total = 0, len(asked)
        found: dict[int, tuple[float, bool]] = {}
        for needed in (False, True):
            part = [k for k, one in enumerate(asked) if (one.task_name in self.greedy_for) == needed]
            self.greedy_needed = needed
            if part:
                answers = super().loglikelihood([asked[k] for k in part], disable_tqdm=disable_tqdm)
                found |= dict(zip(part, answers, strict=True))
        return [found[k] for k in range(len(asked))]

    def generate_until(self, asked: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.done, self.total = 0, len(asked)
        answers: list[str] = super().generate_until(asked, disable_tqdm=disable_tqdm)
        return answers

    def model_call(self, messages: Any, *, generate: bool = True, gen_kwargs: Any = None, **more: Any) -> dict[str, Any]:
        body = self._create_payload(
            self.create_message(messages),
            generate=generate,
            gen_kwargs=dict(gen_kwargs or {}),
            seed=self._seed,
            eos=self.eos_string,
            **more,
        )
        self.done += 1
        if self.done % 20 == 1 or self.done == self.total:
            say(f"request {self.done} of {max(self.done, self.total)}")
        if not generate:
            return self.post(body)
        stops = [stop for stop in body.get("stop") or [] if stop]
        if self.stops and stops:
            try:
                return self.post(body)
            except NoAnswer as error:
                if "stop" not in str(error):
                    raise
                self.stops = False
        answer = self.post({key: value for key, value in body.items() if key != "stop"})
        for choice in answer["choices"]:
            choice["text"] = cut(choice["text"], stops)
        return answer

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = requests.post(self.base_url, json=body, headers=self.header, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise ServerFailed(f"{self.base_url}: {error}") from None
        if response.ok:
            answer: dict[str, Any] = response.json()
            return answer
        kind = NoAnswer if 400 <= response.status_code < 500 else ServerFailed
        try:
            words = response.json()["error"]["message"]
        except (ValueError, LookupError, TypeError):
            words = response.text[:200]
        raise kind(f"HTTP {response.status_code}: {words}")

    def parse_logprobs(self, outputs: Any, tokens: Any = None, ctxlens: Any = None, **more: Any) -> list[tuple[float, bool]]:
        (output,), (ids,), (context,) = (outputs if isinstance(outputs, list) else [outputs]), tokens, ctxlens
        given = output["choices"][0].get("logprobs") or {}
        values = given.get("token_logprobs")
        if not isinstance(values, list) or len(values) != len(ids) + 1 or None in values[context:-1]:
            raise NoAnswer("the answer has not one log-probability per token")
        if given.get("top_logprobs"):
            tops = given["top_logprobs"][context:-1]
            greedy = all(value >= max(top.values()) for value, top in zip(values[context:-1], tops, strict=True))
        else:
            greedy = self.greedy_needed and self.is_greedy(ids[:context], ids[context:])
        return [(math.fsum(values[context:-1]), greedy)]

    def is_greedy(self, context: list[int], continuation: list[int]) -> bool:
        body = {"model": self.model, "prompt": context, "max_tokens": len(continuation), "temperature": 0, "return_token_ids": True}
        choice = self.post(body)["choices"][0]
        if not isinstance(choice.get("token_ids"), list):
            raise NoAnswer("whether an answer is the greedy one: the server gives neither top_logprobs nor token_ids")
        return bool(choice["token_ids"] == continuation)


def cut(text: str, stops: list[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def load(specs: list[str]) -> tuple[TaskManager, list[str], dict[str, Any]]:
    """The manager, what to run (names, or paths of YAML files), and all tasks in it by name. A folder means every task in it."""
    folders = [spec for spec in specs if Path(spec).is_dir()]
    # Those that come with the harness are thousands of files, read in some 15 s: only where one of them is named.
    named = any(not Path(spec).exists() for spec in specs)
    say("reading the harness's own tasks" if named else "reading the tasks")
    manager = TaskManager(include_path=folders or None, include_defaults=named)
    wanted: list[str] = []
    for spec in specs:
        if spec not in folders:
            wanted.append(spec)
            continue
        inside = sorted(name for name in manager.all_subtasks if (at := manager.task_index[name].yaml_path) and Path(spec) in at.parents)
        if not inside:
            raise ValueError(f"{spec}: no task in it (a YAML file with the key `task`)")
        wanted += inside
    found: dict[str, Any] = dict(manager.load(wanted)["tasks"])
    return manager, wanted, found


def look(tasks: dict[str, Any]) -> dict[str, Any]:
    """What is in them: equal digests ask the same, whatever the files are called."""
    content = hashlib.sha256()
    for name, task in sorted(tasks.items()):
        config = task.config.to_dict() if hasattr(task.config, "to_dict") else vars(task.config)
        # Where the data lie is none of it; what they are is.
        config.pop("dataset_kwargs", None)
        content.update(json.dumps([name, config], sort_keys=True, default=repr).encode())
        docs = [task.eval_docs] + ([task.fewshot_docs()] if task.config.num_fewshot else [])
        for part in docs:
            for doc in part or []:
                content.update(json.dumps(doc, sort_keys=True, default=repr).encode())
    return {"tasks": sorted(tasks), "digest": content.hexdigest()[:16]}


def wants_greedy(task: Any) -> bool:
    metrics = {entry.get("metric") for entry in task.config.metric_list or []}
    if task.OUTPUT_TYPE == "multiple_choice":
        return "exact_match" in metrics or callable(task.config.process_results)
    return bool(task.OUTPUT_TYPE == "loglikelihood")


def client(asked: dict[str, Any], tasks: dict[str, Any]) -> Client:
    tokenizer = load_tokenizer(Path(asked["tokenizer"]))
    made = Client(
        {name for name, task in tasks.items() if wants_greedy(task)},
        model=asked["model"],
        base_url=asked["url"] + "/completions",
        tokenizer_backend=None,
        max_length=asked["max_length"],
        header=asked["headers"],
        max_retries=1,
    )
    made.tokenizer_backend, made.tokenizer, made.tokenized_requests = "huggingface", tokenizer, True
    return made


def load_tokenizer(folder: Path) -> Any:
    """As transformers reads the folder, where that is what tokenizer.json says; a folder with tokenizer.json alone will do."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    if not (folder / "tokenizer_config.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(file))
    found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    sample = "The 2nd of 10 words:\n  a tokenizer's spaces, “signs” and é."
    if (
        list(found(sample, add_special_tokens=False).input_ids)
        != Tokenizer.from_file(str(file)).encode(sample, add_special_tokens=False).ids
    ):
        return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=found.eos_token, bos_token=found.bos_token)
    return found


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """Per task (and group): each metric with its standard error and n; null is what the harness does not give."""
    counts = results.get("n-samples") or {}
    found: dict[str, Any] = {}
    for name, entry in results["results"].items():
        members = (results.get("group_subtasks") or {}).get(name) or [name]
        n = sum(counts[member]["effective"] for member in members if member in counts) or None
        metrics = {}
        for key, value in entry.items():
            metric, _, rest = key.partition(",")
            if isinstance(value, bool) or not isinstance(value, int | float) or metric.endswith("_stderr") or not rest:
                continue
            stderr = entry.get(f"{metric}_stderr,{rest}")
            metrics[metric if rest == "none" else key] = {"value": number(value), "stderr": number(stderr), "n": n}
        found[name] = metrics
    return found


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def main() -> int:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(asked["folder"])
    try:
        manager, wanted, tasks = load(asked["tasks"])
        found: dict[str, Any] = {"version": version("lm_eval")}
        if asked["do"] == "look":
            found |= look(tasks)
        else:
            done = simple_evaluate(
                model=client(asked, tasks),
                tasks=wanted,
                task_manager=manager,
                limit=asked["limit"],
                log_samples=False,
                bootstrap_iters=BOOTSTRAPS,
            )
            found["tasks"] = figures(done)
    except ServerFailed as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log's last line is the reason
        return SERVER_FAILED
    except (NoAnswer, KeyError, ValueError, FileNotFoundError) as error:
        print(error.args[0] if error.args else error, file=sys.stderr)  # noqa: T201
        return 1
    Path(asked["out"]).write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
