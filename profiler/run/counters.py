"""What two scrapes of a server's Prometheus page say of the time between them: means from histograms, growth of counters. Pure.

Names are vLLM's (vllm/v1/metrics/loggers.py, 0.32); a server with others gives None. A family is summed over its labels: an engine with
data parallelism has a series for each rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Scrape = Mapping[str, float]  # `name{labels}` to value

RUNNING, WAITING, KV_USE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
QUEUE, PREFILL, DECODE = "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds"
TTFT = "vllm:time_to_first_token_seconds"
PREEMPTIONS, HITS, QUERIES = "vllm:num_preemptions", "vllm:prefix_cache_hits", "vllm:prefix_cache_queries"
CACHE_CONFIG = "vllm:cache_config_info"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def split(series: str) -> tuple[str, str]:
    """`name{a="b"}` as name and `a="b"`."""
    name, _, labels = series.partition("{")
    return name, labels.removesuffix("}")


def level(scrape: Scrape, family: str) -> float | None:
    """A gauge or counter (with or without `_total`), summed over its labels; None where it is not there."""
    found = [value for series, value in scrape.items() if split(series)[0] in (family, f"{family}_total")]
    return sum(found) if found else None


def highest(scrape: Scrape, family: str) -> float | None:
    """The largest over its labels: for shares, whose sum means nothing."""
    found = [value for series, value in scrape.items() if split(series)[0] == family]
    return max(found) if found else None


def grown(before: Scrape, after: Scrape, family: str) -> float | None:
    """By how much a counter grew; None where it is not there, or where a series of it fell: then the server was started anew between."""
    names = [series for series in after if split(series)[0] in (family, f"{family}_total")]
    steps = [after[series] - before.get(series, 0.0) for series in names]
    return sum(steps) if steps and min(steps) >= 0 else None


def mean(before: Scrape, after: Scrape, histogram: str) -> float | None:
    """Mean of what a histogram observed between the scrapes, exact (its sum over its count, no buckets); None when that is nothing."""
    total, count = grown(before, after, f"{histogram}_sum"), grown(before, after, f"{histogram}_count")
    return total / count if total is not None and count else None


def hit_rate(before: Scrape, after: Scrape) -> tuple[float | None, int | None, int | None]:
    """Hit rate, hit tokens and looked-up tokens of the prefix cache (vLLM counts tokens, hits in whole blocks). None without counters.

    The rate alone is None when nothing was looked up.
    """
    hits, queries = grown(before, after, HITS), grown(before, after, QUERIES)
    if hits is None or queries is None:
        return None, None, None
    return (hits / queries if queries else None), round(hits), round(queries)


def cache_config(scrape: Scrape) -> dict[str, str]:
    """The labels of vLLM's cache_config_info, such as block_size and enable_prefix_caching; {} where there is none."""
    for series in scrape:
        name, labels = split(series)
        if name == CACHE_CONFIG:
            return dict(_LABEL.findall(labels))
    return {}


def caches_prefixes(scrape: Scrape) -> bool | None:
    """Whether the server keeps a prefix cache; None when it does not say."""
    return {"True": True, "False": False}.get(cache_config(scrape).get("enable_prefix_caching", ""))


def block_tokens(scrape: Scrape) -> int | None:
    """Tokens in one block of the KV cache; only whole blocks are found again."""
    text = cache_config(scrape).get("block_size", "")
    return int(text) if text.isdigit() else None
