"""How often the verdicts of docs/quality.md are wrong, over simulated evaluations: `python bench/quality_trials.py [--trials 200]`.

The simulation shares nothing with the product but the function under test. A small language model is a table of next-token
probabilities (softmax of normal logits given the token before); a text is drawn from the reference model itself. Damage is noise on the
table's logits, its strength searched so that the true drift of the perplexity has the wanted size. Examples pass by a latent difficulty that both
models share. Prints a Markdown table; takes about a minute.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from profiler.analyse import quality

VOCABULARY, WINDOWS, TOKENS = 60, 14, 128
MARGIN_DRIFT, MARGIN_TASKS, EXAMPLES = 0.02, 0.05, 400


def log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    return result


class Language:
    """A Markov chain with its stationary distribution, and damaged copies of it at a known true drift."""

    def __init__(self, made: np.random.Generator) -> None:
        self.logits = made.normal(0, 2.5, (VOCABULARY, VOCABULARY))
        self.reference = log_softmax(self.logits)
        chain = np.exp(self.reference)
        state = np.full(VOCABULARY, 1 / VOCABULARY)
        for _ in range(500):
            state = state @ chain
        self.joint = state[:, None] * chain
        self.noise = made.normal(0, 1, self.logits.shape)

    def damaged(self, drift: float) -> np.ndarray:
        """Log-probabilities of a copy whose true perplexity is 1 + drift times the reference's (bisection on the noise's strength)."""
        low, high = 0.0, 8.0
        for _ in range(60):
            middle = (low + high) / 2
            table = log_softmax(self.logits + middle * self.noise)
            low, high = (low, middle) if (self.joint * (self.reference - table)).sum() > math.log1p(drift) else (middle, high)
        return log_softmax(self.logits + low * self.noise) if drift else self.reference

    def texts(self, made: np.random.Generator) -> np.ndarray:
        steps = np.cumsum(np.exp(self.reference), axis=1)
        out = np.empty((WINDOWS, TOKENS), dtype=np.int64)
        out[:, 0] = made.integers(0, VOCABULARY, WINDOWS)
        for k in range(1, TOKENS):
            drawn = made.random(WINDOWS)[:, None]
            out[:, k] = np.minimum((steps[out[:, k - 1]] < drawn).sum(axis=1), VOCABULARY - 1)
        return out


def drift_trial(true_drift: float) -> Callable[[np.random.Generator], str]:
    def trial(made: np.random.Generator) -> str:
        language = Language(made)
        text, table = language.texts(made), language.damaged(true_drift)

        def windows(model: np.ndarray) -> list[tuple[float, int]]:
            return [(float(-model[row[:-1], row[1:]].sum()), TOKENS - 1) for row in text]

        return quality.drift_verdict(quality.drift(windows(language.reference), windows(table)), MARGIN_DRIFT).result

    return trial


def task_trial(true_loss: float, churn: float, n: int = EXAMPLES) -> Callable[[np.random.Generator], str]:
    """`churn`: the share of examples that change to the better by chance, and as many to the worse beside `true_loss`."""

    def trial(made: np.random.Generator) -> str:
        kind = made.choice(4, size=n, p=[0.55 - churn - true_loss, churn + true_loss, churn, 0.45 - churn])
        reference, variant = (kind <= 1), (kind == 0) | (kind == 2)
        found = quality.paired(reference.tolist(), variant.tolist())
        return quality.task_verdict(found, MARGIN_TASKS).result

    return trial


CASES: list[tuple[str, str, Callable[[np.random.Generator], str]]] = [
    ("perplexity", "identical copy", drift_trial(0.0)),
    ("perplexity", "noised, true drift +0.5 %", drift_trial(0.005)),
    ("perplexity", "noised, true drift = the margin, +2 %", drift_trial(MARGIN_DRIFT)),
    ("perplexity", "noised, true drift +5 %", drift_trial(0.05)),
    ("perplexity", "noised, true drift +20 %", drift_trial(0.20)),
    ("examples", "identical copy", task_trial(0.0, 0.0)),
    ("examples", "same rate, 4 % change either way", task_trial(0.0, 0.04)),
    ("examples", "true loss = the margin, 1 % change either way", task_trial(MARGIN_TASKS, 0.01)),
    ("examples", "true loss = the margin, 8 % change either way", task_trial(MARGIN_TASKS, 0.08)),
    ("examples", "true loss 15 points", task_trial(0.15, 0.04)),
    ("examples", "identical copy, the 24 built-in examples", task_trial(0.0, 0.0, 24)),
    ("examples", "true loss 15 points, the 24 built-in examples", task_trial(0.15, 0.04, 24)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print("| what | truth | non-inferior | inferior | undecided |\n|---|---|---|---|---|")
    for k, (what, truth, trial) in enumerate(CASES):
        made = np.random.default_rng([options.seed, k])
        seen = Counter(trial(made) for _ in range(options.trials))
        shares = " | ".join(f"{seen[name] / options.trials:.1%}" for name in ("NON-INFERIOR", "INFERIOR", "UNDECIDED"))
        print(f"| {what} | {truth} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
