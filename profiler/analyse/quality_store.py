"""The evaluations of a results folder beside its runs: which one speaks for a run, what it says against the reference, and how to get one.

The one seam through which answers read RESULTS/quality. An evaluation speaks for a run of the same model content, backend and variant whose
options could not have changed an answer; the newest that can be compared with the reference, of the run's own machine where there is one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.analyse.margins import NONE_STATED, Margins
from profiler.analyse.quality_rows import Row, rows
from profiler.errors import ProfilerError, StoreError
from profiler.quality import documents

Document = Mapping[str, Any]
WIDE = ("f32", "bf16", "fp16")  # what may be a reference without being named
# They change how fast an answer comes, not which: an evaluation under one value speaks for a run under another.
HARMLESS = frozenset(
    (
        "prefix_caching", "cache_size_gb", "kv_cache_gb", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size", "threads",
        "threads_bind", "enforce_eager", "stream_interval", "tensor_parallel_size", "gpu_memory_utilization", "visible_devices", "mig_device",
        "n_gpu_layers", "port", "server_metrics", "device", "device_count", "price_usd_per_hour",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """A stored evaluation: its document, its row, and the document that the row compares it with (None: there is no reference)."""

    document: Document
    row: Row
    reference: Document | None

    @property
    def model(self) -> str:
        return str(self.document["model"]["name"])


@dataclass(frozen=True)
class Standing:
    """What is known of the quality of a run: an evaluation, or why there is none and the command that would give it."""

    evaluation: Evaluation | None
    reason: str | None = None
    command: str | None = None

    @property
    def row(self) -> Row | None:
        return self.evaluation.row if self.evaluation is not None else None


NOT_LOOKED_FOR = Standing(None, "not looked for")


@dataclass(frozen=True)
class Evaluations:
    """Of one results folder; `problems`: files that could not be read, one line each."""

    results: Path
    margins: Margins
    found: tuple[Evaluation, ...]
    problems: tuple[str, ...] = ()

    def of(self, run: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Standing:
        """For a row of `runs`; `options`: of the backend it ran with, None where they are not known."""
        if run.get("provenance_class") == "imported":
            return Standing(None, "imported figures: what served them cannot be asked")
        if run.get("model") is None:
            return Standing(None, f"the {run.get('engine') or 'engine'} serves no model")
        evaluation = find(self.found, run, options)
        if evaluation is not None:
            return Standing(evaluation)
        return Standing(None, self._why(run), self.command(run))

    def _why(self, run: Mapping[str, Any]) -> str:
        same = [e for e in self.found if e.row.backend == run["backend"]]
        variants = {e.row.variant for e in same if identity(e.document) == _identity_of(run)}  # of this model alone
        if run["variant"] in variants:
            return "evaluated with other options of the backend, which can change its answers"
        if variants:
            return f"evaluated as another variant ({', '.join(sorted(variants))})"
        return "evaluated with another model" if same else "not evaluated"

    def command(self, run: Mapping[str, Any]) -> str:
        """What would evaluate a run's backend, against the reference that is in use."""
        own = [e for e in self.found if identity(e.document) == _identity_of(run)]
        reference = self.margins.reference or next((e.row.backend for e in own if e.row.is_reference), None)
        words = ["profile", "evaluate", "--model", str(run["model"]), "--backend", str(run["backend"])]
        words += ["--reference", reference] if reference is not None and reference != run["backend"] else []
        return shlex.join([*words, "--results", str(self.results)]) + (f" {self.margins.options}" if self.margins.stated else "")


def open_all(results: Path, margins: Margins | None = None) -> Evaluations:
    """Everything that RESULTS/quality holds, each beside its reference. Raises SpecError for a reference that nobody evaluated."""
    stated = margins or NONE_STATED
    found, problems = load_all(results)
    return Evaluations(results, stated, tuple(rows_for(found, stated, results)), tuple(problems))


def load_all(results: Path) -> tuple[list[Document], list[str]]:
    """(the documents, oldest first; what could not be read). A folder without evaluations gives none."""
    made, problems = [], []
    for path in sorted((results / documents.FOLDER).glob("*.json")):
        try:
            document = documents.load(results, path.stem)
        except StoreError as error:
            problems.append(error.message)
            continue
        if document is None:
            continue
        flaw = _flaw(document)
        if flaw is None:
            made.append(document)
        else:
            problems.append(f"{path}: not an evaluation: {flaw}")
    return sorted(made, key=lambda document: (str(document["made_at"]), str(document["key"]))), problems


def rows_for(found: Sequence[Document], margins: Margins, results: Path | None = None) -> list[Evaluation]:
    """One per document, models apart, each compared with its model's reference as far as both were asked the same. Raises SpecError.

    `results`: the folder that they are from; without it there is no KL divergence and no top-1 agreement.
    """
    known = {str(document["backend"]["name"]) for document in found}
    if margins.reference is not None and known and margins.reference not in known:
        from profiler.errors import SpecError

        raise SpecError(
            f"--reference {margins.reference!r}: it was not evaluated",
            hint=f"evaluated: {', '.join(sorted(known))}; `profile evaluate --backend {margins.reference}` adds it",
        )
    made = []
    for name in dict.fromkeys(identity(document) for document in found):
        own = [document for document in found if identity(document) == name]
        references = _references(own, margins.reference)
        for document in own:
            reference = _reference(document, references)
            (row,) = rows([document], reference, margins.drift_margin, margins.margin, results)
            made.append(Evaluation(document, row, reference))
    return made


def find(evaluations: Sequence[Evaluation], run: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Evaluation | None:
    """The evaluation that speaks for a row of `runs`, or None."""
    wanted = (_identity_of(run), run["backend"], run["variant"])
    own = [
        e
        for e in evaluations
        if (identity(e.document), e.row.backend, e.row.variant) == wanted
        and (options is None or _telling(options) == _telling(e.document["backend"].get("options") or {}))
    ]

    def rank(e: Evaluation) -> tuple[int, bool, str]:
        compared = 2 if e.row.is_reference else (e.row.drift is not None) + (e.row.tasks is not None)
        return compared, _machine(e.document) == run.get("machine_id"), str(e.document["made_at"])

    return max(own, key=rank, default=None)


def identity(document: Document) -> tuple[str | None, str | None]:
    """(content hash, None), or (None, name) of what is known by its name only, such as an endpoint's model."""
    model = document["model"]
    return (model["content_hash"], None) if model.get("content_hash") else (None, str(model["name"]))


def _identity_of(run: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return (run["model_hash"], None) if run.get("model_hash") else (None, str(run["model"]))


def _references(own: Sequence[Document], named: str | None) -> list[Document]:
    """The evaluations of the backend that the others of this model are compared with: the named one, else the widest weights."""
    if named is not None:
        return [document for document in own if document["backend"]["name"] == named]
    wide = [document for document in own if document["variant"].get("precision") in WIDE]
    if not wide:
        return []
    first = min(wide, key=lambda d: (WIDE.index(d["variant"]["precision"]), d["backend"]["name"]))
    return [document for document in wide if document["backend"]["name"] == first["backend"]["name"]]


def _reference(document: Document, references: Sequence[Document]) -> Document | None:
    """Itself where it is one; else the one that was asked most of the same, the newest of those."""
    if any(document["key"] == reference["key"] for reference in references):
        return document

    def same(reference: Document) -> tuple[int, str]:
        parts = ((document.get(name) or {}, reference.get(name) or {}) for name in ("drift", "tasks"))
        return sum(bool(a) and a.get("digest") == b.get("digest") for a, b in parts), str(reference["made_at"])

    return max(references, key=same, default=None)


def _telling(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in HARMLESS}


def _machine(document: Document) -> Any:
    return (document.get("machine") or {}).get("machine_id")


def _flaw(document: Document) -> str | None:
    """What a document lacks that its row needs: it may be somebody else's."""
    try:
        for part, names in (("model", ("name",)), ("backend", ("name", "engine")), ("variant", ("variant_id",))):
            for name in names:
                document[part][name].encode()
        document["made_at"].encode(), document["key"].encode()
        drift, tasks = document.get("drift"), document.get("tasks")
        if drift is not None:
            windows = drift["windows"]
            assert drift["digest"] and (windows is not None or drift["reason"])
            assert windows is None or all(isinstance(x, int | float) for window in windows for x in window)
        if tasks is not None:
            assert tasks["digest"] and all(one["id"] is not None and one["passed"] in (True, False, None) for one in tasks["examples"])
        rows([document], None, None, None)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError, ProfilerError) as error:
        return f"{type(error).__name__} {error}".strip()
    return None
