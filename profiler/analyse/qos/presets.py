"""Named targets, each with where its figures come from: `profile list qos`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A named target and where its figures come from."""

    text: str
    source: str
    use: str


PRESETS: dict[str, Preset] = {
    "chat": Preset(
        "ttft_p95<=1s, tpot_p95<=100ms, error_rate<=1%",
        "1 s keeps the flow of thought (Nielsen, Usability Engineering, 1993, ch. 5); 100 ms per token is about twice the speed of silent "
        "reading, 238 words/min at 1.3 tokens a word (Brysbaert, J. of Memory and Language 109, 2019)",
        "a person reads along",
    ),
    "mlperf-server-8b": Preset(
        "ttft_p99<=2s, tpot_p99<=100ms",
        "MLPerf Inference 5.1, Llama-3.1-8B, server scenario: p99 TTFT 2 s, p99 TPOT 100 ms",
        "the published GPU results keep this",
    ),
    "mlperf-interactive-8b": Preset(
        "ttft_p99<=500ms, tpot_p99<=30ms",
        "MLPerf Inference 5.1, Llama-3.1-8B, interactive scenario: p99 TTFT 0.5 s, p99 TPOT 30 ms (as remembered; not checked against the rules)",
        "the strict one of MLPerf",
    ),
    "code-completion": Preset(
        "e2e_p95<=1s, error_rate<=1%",
        "this project's choice: a completion that comes after 1 s breaks the flow of thought (Nielsen, Usability Engineering, 1993, ch. 5); "
        "the whole line is shown at once, so the end counts and not the first token",
        "a whole short answer, shown at once",
    ),
    "long-prompt": Preset(
        "ttft_p95<=500ms+1ms*isl, tpot_p95<=100ms, error_rate<=1%",
        "this project's choice: who sends 8,000 tokens waits longer than who sends 80; 1 ms a token is 1,000 tokens/s of prefill. "
        "The pace is that of chat (Brysbaert, 2019)",
        "prompts of very different lengths",
    ),
    "batch": Preset(
        "makespan<=4h for 10000 requests, error_rate<=1%",
        "this project's choice: 10,000 documents in a night shift's half; nobody waits for a single one. Another job: write its own number",
        "a job that has to end in time",
    ),
}
