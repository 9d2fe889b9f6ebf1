"""Log-probabilities through the server, against the same IR's logits computed by lines of their own in the engine's environment."""

from __future__ import annotations

import json
import math
import subprocess

import pytest
from wire_client import Wire

from profiler import catalog, environments
from profiler.engines import registry
from profiler.engines.protocol import RunningEngine
from profiler.records import LocalModel

ORACLE = """
import json, sys
import numpy as np, openvino
asked = json.load(sys.stdin)
hint = {"INFERENCE_PRECISION_HINT": asked["precision"]}
request = openvino.Core().compile_model(asked["folder"] + "/openvino_model.xml", "CPU", hint).create_infer_request()
nll = []
for ids in asked["windows"]:
    request.reset_state()
    n = len(ids)
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, n), np.int64), "position_ids": np.arange(n)[None],
             "beam_idx": np.zeros(1, np.int32)}
    names = {name for port in request.model_inputs for name in port.names}
    logits = request.infer({k: v for k, v in feeds.items() if k in names})["logits"][0].astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    logp = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    nll.append([-logp[i, ids[i + 1]] for i in range(n - 1)])
json.dump(nll, sys.stdout)
"""


def test_a_server_without_a_model_says_so(null_server: RunningEngine) -> None:
    reply = Wire(null_server).complete(prompt=[1, 2], max_tokens=1, logprobs=1, echo=True)
    assert reply.status == 400 and "no model" in reply.json["error"]["message"]


@pytest.mark.parametrize("fields", [{"logprobs": 5}, {"logprobs": True}, {"echo": "yes"}, {"logprobs": 1, "stream": True}])
def test_what_is_not_given_is_refused(null_server: RunningEngine, fields: dict[str, object]) -> None:
    reply = Wire(null_server).call("POST", "/v1/completions", {"prompt": [1], "max_tokens": 1, **fields})
    message = reply.json["error"]["message"]
    assert reply.status == 400 and ("logprobs" in message or "echo" in message)


def windows(model: LocalModel) -> list[list[int]]:
    from tokenizers import Tokenizer

    text = (catalog.root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(model.folder / "tokenizer.json")).encode(text).ids
    return [ids[k : k + 300] for k in range(0, 1200, 300)]  # longer than a step of 256 tokens: the prompt comes back in parts


@pytest.mark.engine
def test_served_perplexity_is_that_of_the_logits(openvino_server: RunningEngine, smollm2: LocalModel) -> None:
    server = Wire(openvino_server)
    asked = windows(smollm2)
    spec = catalog.backend("openvino-xeon-int8")
    variant = registry.get("openvino").prepare(smollm2, spec, lambda line: None)
    served = []
    for ids in asked:
        choice = server.complete(prompt=ids, max_tokens=0, echo=True, logprobs=1, return_token_ids=True).json["choices"][0]
        assert choice["token_ids"] == ids and choice["logprobs"]["token_logprobs"][0] is None
        served.append([-x for x in choice["logprobs"]["token_logprobs"][1:]])
    python = environments.ensure(environments.ENVIRONMENTS["openvino"], lambda line: None).python
    question = {"folder": str(variant.path), "windows": asked, "precision": variant.details["computes_in"]["inference_precision"]}
    done = subprocess.run([str(python), "-I", "-c", ORACLE], input=json.dumps(question), capture_output=True, text=True, check=True)
    direct = json.loads(done.stdout)
    assert [len(x) for x in served] == [len(x) for x in direct] == [len(ids) - 1 for ids in asked]

    def perplexity(nll: list[list[float]]) -> float:
        return math.exp(sum(map(sum, nll)) / sum(map(len, nll)))

    assert perplexity(served) == pytest.approx(perplexity(direct), rel=0.005)
    assert perplexity(direct) < 200, "an English text is not a riddle to a model of English"


@pytest.mark.engine
def test_the_log_probability_of_an_answer(openvino_server: RunningEngine) -> None:
    server = Wire(openvino_server)
    plain = server.complete(prompt="The capital of France is", max_tokens=3, logprobs=1, return_token_ids=True).json["choices"][0]
    assert len(plain["logprobs"]["token_logprobs"]) == len(plain["token_ids"]) == 3
    whole = server.complete(prompt="The capital of France is", max_tokens=3, logprobs=1, echo=True, return_token_ids=True).json
    choice = whole["choices"][0]
    assert choice["text"].startswith("The capital of France is Paris")
    assert choice["token_ids"][-3:] == plain["token_ids"]
    assert choice["logprobs"]["token_logprobs"][-3:] == pytest.approx(plain["logprobs"]["token_logprobs"], abs=0.05)
    assert whole["usage"]["completion_tokens"] == 3
