"""How well the search for λ* does, against simulated servers of known truth: hundreds of searches a minute, without an engine.

    .venv/bin/python bench/limit_strategy.py [--searches 100] [--requests 600] [--seed 1]

Servers are queues first come, first served before `places` that each take a fixed time; a whole engine start is faster or slower by a log-normal
factor (CV). λ* is where the long-run share of misses over starts meets what is allowed, by bisection on simulations of 400 starts x 20,000
requests. Printed for each server: whether the interval held λ* (coverage), its width, how often both ends were proven, and the measuring time
beside a ladder of 5 % rungs and a plain bisection of the same rungs, both over half to twice λ* with as many starts and requests a rung.
Time is simulated: warm-up, window and drain of each run, and a fixed cost of each run and start. Simulation shares no code with `profiler`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.analyse import enough, qos, verdict
from profiler.analyse.search import Ask, Found, Search
from profiler.plan import SCREEN_REQUESTS
from profiler.records import DriveResult, RequestRecord
from profiler.run.enough import Rule

Floats = NDArray[np.float64]
NS = 1e9
WARMUP_S, RUN_COST_S, START_COST_S = 1.0, 1.0, 1.0


@dataclass(frozen=True)
class Server:
    """`limit`: of the wait before service, in service times; allowed to be exceeded by `allowed` of the requests."""

    name: str
    places: int
    service_s: float
    limit: float
    cv: float
    allowed: float = 0.05

    @property
    def capacity(self) -> float:
        return self.places / self.service_s


SERVERS = (
    Server("4 places, CV 0", 4, 0.020, 0.5, 0.0),
    Server("4 places, CV 2 %", 4, 0.020, 0.5, 0.02),
    Server("16 places, CV 0", 16, 0.080, 0.25, 0.0),
    Server("16 places, CV 2 %", 16, 0.080, 0.25, 0.02),
    Server("16 places, CV 5 %", 16, 0.080, 0.25, 0.05),
)


def waits(server: Server, came: Floats, speed: float) -> Floats:
    """Time until service begins, s. With one service time for all the n-th to come takes the place of the one `places` before it."""
    service_s = server.service_s * speed
    wait = np.empty_like(came)
    for lane in range(server.places):
        own = came[lane :: server.places]
        number = np.arange(len(own)) * service_s
        begins = number + np.maximum.accumulate(own - number)
        wait[lane :: server.places] = begins - own
    return wait


@cache
def truth(server: Server, starts: int = 400, requests: int = 20_000) -> float:
    draw = np.random.default_rng(7)
    sigma = math.sqrt(math.log1p(server.cv**2))
    gaps = [np.random.default_rng([8, k]).exponential(1.0, requests) for k in range(starts)]
    speeds = draw.lognormal(-(sigma**2) / 2, sigma, starts)
    low, high = 0.3 * server.capacity, server.capacity
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        shares = [
            np.mean(waits(server, np.cumsum(gap) / middle, speed)[200:] > server.limit * server.service_s)
            for gap, speed in zip(gaps, speeds, strict=True)
        ]
        low, high = (middle, high) if np.mean(shares) <= server.allowed else (low, middle)
    return math.sqrt(low * high)


@dataclass
class Bench:
    """One simulated machine: what a run answers and how long it took."""

    server: Server
    seed: int
    requests: int
    seconds: float = 0.0
    runs: int = 0
    requests_sent: int = 0
    _speeds: dict[int, float] = field(default_factory=dict)

    def start(self, number: int) -> None:
        sigma = math.sqrt(math.log1p(self.server.cv**2))
        self._speeds[number] = float(np.random.default_rng([self.seed, number, 1]).lognormal(-(sigma**2) / 2, sigma))
        self.seconds += START_COST_S

    def measure(self, load: float, start: int, rule: Rule | None) -> dict[str, Any]:
        most = self.requests if rule is None else rule.most
        gaps = np.random.default_rng([self.seed, start, 2]).exponential(1.0, int(WARMUP_S * load * 2) + 2 * most + 200) / load
        came = np.cumsum(gaps)
        wait = waits(self.server, came, self._speeds[start])
        opens = int(np.searchsorted(came, WARMUP_S))
        target = self.target
        n = most
        for size in rule.sizes if rule is not None else ():
            if rule is not None and rule.decide(self._records(came, wait, opens, size)):
                n = size
                break
        records = self._records(came, wait, opens, n)
        closes_s = float(came[opens + n - 1])
        drive = DriveResult(
            0, int(WARMUP_S * NS), int(closes_s * NS) + 1, int((closes_s + 60) * NS), "", "", 0.0, "user", None, None, 0.0, 0
        )
        found = verdict.judge(target, records, "rate", load, drive)
        self.seconds += RUN_COST_S + closes_s + float(wait[opens + n - 1]) + self.server.service_s
        self.runs += 1
        self.requests_sent += n
        run: dict[str, Any] = {"run_id": f"{start}-{load}-{rule is None}", "status": "done", "validity": "valid", "start_id": f"s{start}"}
        run |= {"qos_result": found.result, "load": load, "qos": str(target)}
        run |= {"window_open_ns": drive.window_open_ns, "window_close_ns": drive.window_close_ns}
        return {"run": run, "verdicts": [found.to_dict()]}

    @property
    def target(self) -> qos.QosTarget:
        return qos.parse(f"ttft_p{100 * (1 - self.server.allowed):g}<={self.server.limit * self.server.service_s:.6f}s")

    def _records(self, came: Floats, wait: Floats, opens: int, n: int) -> list[RequestRecord]:
        """The whole load up to the cohort's end; the cohort alone where a look is taken (rules are given no more)."""
        return [record(float(came[k]), float(wait[k]), self.server.service_s, k) for k in range(opens, opens + n)]


def record(came_s: float, wait_s: float, service_s: float, number: int) -> RequestRecord:
    came, first, last = int(came_s * NS), int((came_s + wait_s) * NS), int((came_s + wait_s + service_s) * NS)
    return RequestRecord(
        str(number), None, 0, came, came, first, last, last, wait_s, wait_s, None, wait_s + service_s, wait_s + service_s, None, 1, 1, 1,
        "length", None, None, 200, False, True, True, "usage", (), (),
    )  # fmt: skip


def search(bench: Bench, first: float, rung: float, most_starts: int) -> tuple[Found, list[tuple[int, Ask, str]]]:
    found = Search(first, rung, most_starts)
    rule = Rule(SCREEN_REQUESTS, lambda cohort: "plain" if enough.plain(bench.target, cohort) else None)
    asked = []
    while not found.done():
        number = found.starts
        ask = found.ask()
        if ask is not None:
            bench.start(number)
        while ask is not None:
            document = bench.measure(ask.load, number, rule if ask.purpose == "screen" else None)
            c = document["verdicts"][0]["constraints"][0]
            asked.append((number, ask, f"{c['misses']}/{c['n']} worth {c['independent']:.0f}"))
            found.tell(ask, document)
            ask = found.ask()
        found.start_over()
    return found.found(), asked


def ladder_seconds(server: Server, rungs: list[float], starts: int, requests: int) -> float:
    """Of `starts` engine starts that each measure every load in `rungs`. Drain above capacity included."""
    return starts * (START_COST_S + sum(run_seconds(server, load, requests) for load in rungs))


def run_seconds(server: Server, load: float, requests: int) -> float:
    backlog_s = max(0.0, requests * (1 / server.capacity - 1 / load))
    return RUN_COST_S + WARMUP_S + requests / load + backlog_s + server.service_s


def rungs_over(low: float, high: float, rung: float) -> list[float]:
    return [low * (1 + rung) ** k for k in range(math.ceil(math.log(high / low) / math.log1p(rung)) + 1)]


def bisection_seconds(server: Server, rungs: list[float], limit: float, starts: int, requests: int) -> float:
    """Halves the ladder until neighbours are left; it is never wrong here, so this is the least it can take. Starts are shared (kept up)."""
    low, high, seconds = 0, len(rungs) - 1, starts * START_COST_S
    while high - low > 1:
        middle = (low + high) // 2
        seconds += starts * run_seconds(server, rungs[middle], requests)
        low, high = (middle, high) if rungs[middle] <= limit else (low, middle)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--most-starts", type=int, default=8)
    parser.add_argument("--rung", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one server")
    parser.add_argument("--show", action="store_true", help="each probe of each search")
    options = parser.parse_args()
    print(f"{options.searches} searches each; {options.requests} requests a run; at most {options.most_starts} starts; 95 %\n")
    print(
        "| server | λ* | interval held λ* | both ends | one end | width (median, p90) | starts | s, median | of a ladder | of a bisection |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for server in SERVERS if options.only is None else SERVERS[options.only : options.only + 1]:
        print(row(server, options), flush=True)


def row(server: Server, options: argparse.Namespace) -> str:
    limit = truth(server)
    held, both, one, widths, middles, starts, seconds, ladder, halves = 0, 0, 0, [], [], [], [], [], []
    for number in range(options.searches):
        bench = Bench(server, options.seed * 100_000 + number, options.requests)
        first = 0.3 * server.capacity * float(np.random.default_rng([options.seed, number]).uniform(0.5, 1.5))
        found, asked = search(bench, first, options.rung, options.most_starts)
        if options.show:
            print(f"-- λ* {limit:.4g}: {found.reason}; {bench.seconds:.0f} s; {found.lower} {found.upper}")
            for start, ask, saw in asked:
                print(f"   start {start} {ask.purpose} {ask.load:.4g} ({ask.load / limit - 1:+.1%}): {saw}")
        held += (found.lower is None or found.lower <= limit) and (found.upper is None or found.upper > limit)
        both += found.lower is not None and found.upper is not None
        one += (found.lower is None) != (found.upper is None)
        if found.lower is not None and found.upper is not None:
            widths.append(found.upper / found.lower)
            middles.append((found.estimate or math.nan) / limit)
        starts.append(found.starts)
        seconds.append(bench.seconds)
        rungs = rungs_over(limit / 2, limit * 2, options.rung)
        ladder.append(bench.seconds / ladder_seconds(server, rungs, found.starts, options.requests))
        halves.append(bench.seconds / bisection_seconds(server, rungs, limit, found.starts, options.requests))
    width = f"{np.median(widths) - 1:.1%}, {np.quantile(widths, 0.9) - 1:.1%}" if widths else "-"
    share = options.searches
    if options.show:
        print(f"-- bias {np.mean(np.log(middles)):+.3f} sd {np.std(np.log(middles)):.3f}")
    return (
        f"| {server.name} | {limit:.4g} ({limit / server.capacity:.2f}) | {held / share:.1%} | {both / share:.0%} | {one / share:.0%} | {width} "
        f"| {np.mean(starts):.1f} | {np.median(seconds):.0f} | {np.median(ladder):.2f} | {np.median(halves):.2f} (p90 {np.quantile(halves, 0.9):.2f}) |"
    )


if __name__ == "__main__":
    main()
