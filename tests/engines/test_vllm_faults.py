"""vLLM killed, and vLLM that cannot start: nothing is left behind, and the cause is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from real_model import export_python
from wire_client import until

from profiler import catalog
from profiler.engines import process, registry, vllm, vllm_log
from profiler.engines.process import Launch
from profiler.errors import EngineError
from profiler.models import resolve
from profiler.records import LocalModel

# As vLLM 0.32.0 writes them: the cause in one process, what follows from it in the others, warnings about other things before both.
WORKER = "(Worker pid=3) ERROR 11-24 11:02:42 [multiproc_executor.py:953] "
CORE = "(EngineCore pid=2) ERROR 11-24 11:02:48 [core.py:1510] "
FOLLOWS = textwrap.dedent(f"""
    {CORE}Traceback (most recent call last):
    {CORE}Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
    Traceback (most recent call last):
      File "launch.py", line 1, in <module>
    RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{'EngineCore': 1}}
""")
WARNING = "(APIServer pid=1) WARNING 11-24 11:01:15 [system_utils.py:255] This can cause errors like `OSError: [Errno 24] Too many files`\n"
VALIDATION = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, {} [type=value_error, input]\n    For further information visit a page\n"


@pytest.mark.parametrize(
    ("log", "told", "helps"),
    [
        ("usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --nonsense=1\n", "--nonsense=1", "options.flags"),
        (WARNING + WORKER + "RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s)\n" + FOLLOWS, "fp8_quant", "no kernel"),
        (VALIDATION.format("Unknown quantization method: nosuch. Must be one of ['awq']"), "nosuch", "options.quantization"),
        (VALIDATION.format("max_model_len (9) is greater than the derived max_model_len (4). To allow"), "(4)", "options.max_model_len"),
        (CORE + "ValueError: To serve one request, 9.0 GiB KV cache is needed, which is larger than 1.0 GiB\n" + FOLLOWS, "9.0 GiB", "kv_cache_gb"),
        (CORE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n" + FOLLOWS, "OutOfMemoryError", "gpu_memory_utilization"),
        (CORE + "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).\n" + FOLLOWS, "too old", "update the NVIDIA driver"),
    ],
)  # fmt: skip
def test_the_cause_is_found_above_what_follows_from_it(log: str, told: str, helps: str) -> None:
    found, way_out = vllm_log.cause(log) or ("", None)
    assert told in found and "\n" not in found and len(found) <= vllm_log.MAX_CAUSE
    assert way_out is not None and helps in way_out


def test_without_an_exception_nothing_is_claimed() -> None:
    assert vllm_log.cause(WARNING + "(APIServer pid=1) INFO 11-24 11:01:15 [x.py:1] Error: none\n") is None
    assert vllm_log.cause(FOLLOWS) is None


def test_healthy_and_dead_on_the_first_request(tmp_path: Path) -> None:
    """The answer says that an engine died; the log says of what."""
    code = textwrap.dedent("""
        import http.server, sys
        class H(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                print("(Worker pid=3) ERROR 11-24 11:02:42 [w.py:953] NotImplementedError: no scaled_mm for int9 here", flush=True)
                body = b'{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause."}}'
                self.send_response(500); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
    """)
    command = lambda port: [sys.executable, "-c", code, str(port)]  # noqa: E731
    launch = Launch(name="b", command=command, model="m", log_path=tmp_path / "engine.log", cause=vllm_log.cause)
    with (
        pytest.raises(EngineError, match="cannot generate: NotImplementedError: no scaled_mm for int9") as caught,
        process.serve(launch, print),
    ):
        pass
    assert "another backend or checkpoint" in str(caught.value.hint) and "engine.log" in str(caught.value.hint)


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return resolve("synthetic:llama-tiny", lambda line: None, convert_python=export_python)


def family(leader: int) -> list[psutil.Process]:
    """All of a server's session. Not by the token in the environment: vLLM's processes write their titles over it."""
    found = []
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == leader:
                found.append(one)
        except ProcessLookupError:
            continue
    return living(found)


def server_of(profiler: int) -> int | None:
    """The API server among the profiler's children."""
    for one in psutil.Process(profiler).children():
        try:
            if vllm.MODULE in one.cmdline():
                return one.pid
        except psutil.Error:
            continue
    return None


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for one in processes:
        with suppress(psutil.Error):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


@pytest.mark.engine
def test_kill_9_of_the_api_server_leaves_no_engine_core_or_worker(tiny: LocalModel, tmp_path: Path) -> None:
    engine, spec = registry.get("vllm"), catalog.backend("vllm-cpu-bf16")
    variant = engine.prepare(tiny, spec, lambda line: None)
    with engine.start(variant, spec, tmp_path / "engine.log", lambda line: None) as running:
        assert running.pid is not None
        processes = family(running.pid)
        assert len(processes) >= 3, "API server, EngineCore and worker"
        os.kill(running.pid, 9)
        until(lambda: not running.alive(), "the death is seen")
    assert living(processes) == []


PROFILER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from profiler import catalog
    from profiler.engines import registry
    from profiler.models import on_disk
    quiet = lambda line: None
    engine, spec = registry.get("vllm"), catalog.backend("vllm-cpu-bf16")
    variant = engine.prepare(on_disk("synthetic:llama-tiny"), spec, quiet)
    with engine.start(variant, spec, Path(sys.argv[1]), quiet):
        sys.stdin.read()
""")


@pytest.mark.engine
def test_kill_9_of_the_profiler_leaves_nothing_of_vllm(tiny: LocalModel, tmp_path: Path) -> None:
    """While it loads: EngineCore is there, the server does not listen yet."""
    profiler = subprocess.Popen([sys.executable, "-c", PROFILER, str(tmp_path / "engine.log")], stdin=subprocess.PIPE)
    try:
        until(lambda: profiler.poll() is not None or len(family(server_of(profiler.pid) or -1)) >= 3, "EngineCore starts", deadline_s=240)
        assert profiler.poll() is None, "the profiler ended by itself"
        processes = family(server_of(profiler.pid) or -1)
        profiler.kill()
        profiler.wait()
        until(lambda: not living(processes), "the guardian ends them all")
    finally:
        profiler.kill()
        profiler.communicate()
