"""OpenVINO GenAI's continuous batching behind the server: add_request, step, read; our own state of each request.

Traps this file answers (docs/engines.md): after a cancel the status reads IGNORED and the finish reason NONE, and so it does for a
prompt larger than the cache, without an exception; precision defaults change with the weight format, so both are always set.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import selectors
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import wire
from .http11 import BadRequest
from .text import Decoder, Text

KV_BLOCK = 32  # tokens; OpenVINO GenAI's block on CPUs
MAX_SIZED = 128  # tokens of a prompt that surely goes in one step
STEP_TOKENS = 256  # OpenVINO GenAI's own max_num_batched_tokens


class Flight:
    """One request inside the pipeline."""

    __slots__ = ("answer", "decoder", "echo_left", "handle")

    def __init__(self, answer: wire.Answer, handle: Any, decoder: Decoder) -> None:
        self.answer, self.handle, self.decoder = answer, handle, decoder
        self.echo_left = answer.prompt_tokens if answer.ask.echo else 0  # tokens of the prompt that are still to come back


class OpenVinoBack:
    """Loads at construction; `run` is the step loop. `options` as options.py parses them."""

    def __init__(self, options: Namespace) -> None:
        import numpy
        import openvino
        import openvino_genai

        self._numpy, self._tensor, self._genai = numpy, openvino.Tensor, openvino_genai
        self.options = options
        self.folder = Path(options.model)
        self.model: str = options.served_model_name
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.max_context_tokens = int(config.get("max_position_embeddings") or config.get("n_positions") or 2048)
        self.vocabulary = int(config.get("vocab_size") or 2**31)
        self.stop_ids = _stop_ids(self.folder, config)
        self.text = Text(self.folder)
        self.flights: dict[int, Flight] = {}
        self.serial = 0
        self.steps = 0
        self.step_s = 0.0
        self.wake = asyncio.Event()
        self.load_s = 0.0
        # What is taken from the prefix cache is not computed, and has no log-probabilities.
        self.no_logprobs = "the prefix cache is on; start the server without it" if options.prefix_caching else None
        self.memory_before, self.memory_after = _anonymous_bytes(), 0
        self.kv_token_bytes = 0.0
        self.widest_step, self.most_flights = 0, 0  # prompt tokens in one step at most; requests at a time
        self._load()
        self.memory_after = _anonymous_bytes()

    def _load(self) -> None:
        started = time.monotonic()
        scheduler = self._genai.SchedulerConfig()
        scheduler.cache_size = self.options.cache_size_gb
        scheduler.enable_prefix_caching = self.options.prefix_caching
        if self.options.max_num_batched_tokens:
            scheduler.max_num_batched_tokens = self.options.max_num_batched_tokens
        if self.options.max_num_seqs:
            scheduler.max_num_seqs = self.options.max_num_seqs
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.options.inference_precision,
            "KV_CACHE_PRECISION": self.options.kv_cache_precision,
        }
        if self.options.threads:
            properties["INFERENCE_NUM_THREADS"] = self.options.threads
        self.pipeline = self._genai.ContinuousBatchingPipeline(str(self.folder), scheduler, "CPU", properties)
        self.load_s = time.monotonic() - started

    def encode(self, ask: wire.Ask) -> list[int]:
        if ask.messages is not None:
            return self.text.encode(self.text.chat(ask.messages, ask.tools), special=False)
        if isinstance(ask.prompt, str):
            ids = self.text.encode(ask.prompt, special=True)
            if not ids:
                raise BadRequest(400, "the prompt is empty")
            return ids
        assert ask.prompt is not None
        if min(ask.prompt) < 0 or max(ask.prompt) >= self.vocabulary:
            raise BadRequest(400, f"a token id of the prompt is outside the vocabulary of {self.vocabulary}")
        return ask.prompt

    def submit(self, answer: wire.Answer, prompt: list[int], max_tokens: int) -> None:
        self.serial += 1
        tensor = self._tensor(self._numpy.array([prompt], dtype=self._numpy.int64))
        try:
            handle = self.pipeline.add_request(self.serial, tensor, self._generation(answer.ask, max_tokens))
        except RuntimeError as error:  # OpenVINO's own check of the generation settings
            raise BadRequest(400, f"refused by OpenVINO: {str(error).strip().splitlines()[-1]}") from None
        self.flights[id(answer)] = Flight(answer, handle, Decoder(self.text.tokenizer, prompt if answer.ask.kind == "completions" else []))
        self.most_flights = max(self.most_flights, len(self.flights))
        limit = self.options.max_num_batched_tokens or STEP_TOKENS
        if self.widest_step < limit:
            waiting = sum(flight.answer.prompt_tokens for flight in self.flights.values() if flight.answer.tokens == 0)
            self.widest_step = min(max(self.widest_step, waiting), limit)
        self.wake.set()

    def _generation(self, ask: wire.Ask, max_tokens: int) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.min_new_tokens = ask.min_tokens
        config.ignore_eos = ask.ignore_eos
        if not ask.ignore_eos and self.stop_ids:
            config.set_eos_token_id(self.stop_ids[0])
            config.stop_token_ids = set(self.stop_ids)
        if ask.temperature > 0:
            config.do_sample = True
            config.temperature = ask.temperature
            config.top_p = ask.top_p
            if ask.top_k > 0:
                config.top_k = ask.top_k
            # OpenVINO's default seed is the same for every request; unseeded must mean different answers.
            config.rng_seed = ask.seed if ask.seed is not None else secrets.randbits(31)
        config.presence_penalty = ask.presence_penalty
        config.frequency_penalty = ask.frequency_penalty
        config.repetition_penalty = ask.repetition_penalty
        config.echo = ask.echo
        config.logprobs = int(ask.logprobs)
        return config

    def cancel(self, answer: wire.Answer) -> None:
        flight = self.flights.pop(id(answer), None)
        if flight is not None:
            flight.handle.cancel()
            self.wake.set()  # the pipeline lets go of a cancelled request in its next step

    async def run(self, selector: selectors.BaseSelector) -> None:
        """Step while there is work, sleep while there is none. Ends only with the process. `selector` is the loop's own."""
        while True:
            if not self.pipeline.has_non_finished_requests():
                self.wake.clear()
                await self.wake.wait()
                continue
            started = time.monotonic()
            try:
                self.pipeline.step()
            except Exception:
                self._die()
            self.step_s += time.monotonic() - started
            self.steps += 1
            if self.kv_token_bytes == 0 and len(self.flights) == 1:
                self._size_token(next(iter(self.flights.values())).answer)
            self._deliver()
            # A look at the sockets costs a tenth of two turns of the loop, and mostly nobody has said anything. Every fourth step
            # the loop gets its turns anyway, for what it has queued itself.
            if selector.select(0) or self.steps % 4 == 0:
                # Twice: the first turn only polls the sockets and queues their callbacks behind us, the second lets them run.
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    def _size_token(self, answer: wire.Answer) -> None:
        """KV bytes per token, from the first step of a lone short request: what the pool has given out / its blocks' tokens."""
        metrics = self.pipeline.get_metrics()
        blocks = -(-answer.prompt_tokens // KV_BLOCK)
        if answer.tokens == 0 and answer.prompt_tokens <= MAX_SIZED and answer.prompt_tokens % KV_BLOCK and metrics.cache_usage > 0:
            self.kv_token_bytes = metrics.cache_size_in_bytes * metrics.cache_usage / 100 / (blocks * KV_BLOCK)

    def _deliver(self) -> None:
        ended = []
        ignored = self._genai.GenerationStatus.IGNORED
        stopped = self._genai.GenerationFinishReason.STOP
        unfinished = self._genai.GenerationFinishReason.NONE
        for key, flight in list(self.flights.items()):
            handle = flight.handle
            if flight.answer.ended:  # its client left while this step's tokens were written
                continue
            if not handle.can_read():
                if flight.answer.tokens == 0 and handle.get_status() == ignored:
                    ended.append(key)
                    flight.answer.fail(400, f"the prompt of {flight.answer.prompt_tokens} tokens does not fit into the KV cache")
                continue
            output = next(iter(handle.read().values()))
            reason = output.finish_reason
            last = reason != unfinished
            ids, log_probs = output.generated_ids, output.generated_log_probs if flight.answer.ask.logprobs else ()
            if flight.echo_left:
                ids, log_probs = self._echo(flight, ids, log_probs)
            text = flight.decoder.add(ids, last)
            if last:
                ended.append(key)
            flight.answer.push(ids, text, ("stop" if reason == stopped else "length") if last else None, log_probs)
        for key in ended:
            self.flights.pop(key, None)

    def _echo(self, flight: Flight, ids: list[int], log_probs: Sequence[float]) -> tuple[list[int], Sequence[float]]:
        """Gives the prompt's part of this step back; what is left is output. The first token has no log-probability: nothing precedes it."""
        n = min(flight.echo_left, len(ids))
        first = flight.echo_left == flight.answer.prompt_tokens
        known: list[float | None] = list(log_probs[:n])
        flight.answer.echo(ids[:n], self.text.tokenizer.decode(ids[:n]), [None, *known[1:]] if first and known else known)
        flight.echo_left -= n
        return ids[n:], log_probs[n:]

    def _die(self) -> None:
        """The pipeline's state after an exception is unknown: say so to everyone, then end, so that nobody measures a ruin."""
        traceback.print_exc()
        for flight in list(self.flights.values()):
            flight.answer.fail(500, "the engine failed; its log says why")
        sys.stderr.flush()
        os._exit(1)

    def reset_prefix_cache(self) -> None:
        """By rebuilding the pipeline: OpenVINO GenAI has no other way. Blocks for the time of a load."""
        del self.pipeline  # first, or both caches are in memory at once
        self._load()

    def gauges(self) -> dict[str, float]:
        metrics = self.pipeline.get_metrics()
        return {
            "requests_waiting": sum(1 for flight in self.flights.values() if flight.answer.tokens == 0),
            "kv_cache_usage_ratio": metrics.cache_usage / 100,
            "kv_cache_bytes": metrics.cache_size_in_bytes,
            "steps_total": self.steps,
            "step_seconds_total": self.step_s,
            "load_seconds": self.load_s,
            "kv_cache_peak_ratio": metrics.max_cache_usage / 100,
            "kv_token_bytes": self.kv_token_bytes,
            "widest_step_tokens": self.widest_step,
            "most_requests": self.most_flights,
            "anonymous_before_load_bytes": self.memory_before,
            "anonymous_after_load_bytes": self.memory_after,
        }


def _anonymous_bytes() -> int:
    """Resident memory of this process that is no file: heap, packed weights, KV cache. 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def _stop_ids(folder: Path, config: dict[str, Any]) -> list[int]:
    """End-of-text tokens: generation_config.json if it names them, else config.json."""
    file = folder / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    return [] if found is None else list(found) if isinstance(found, list) else [int(found)]
