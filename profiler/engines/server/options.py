"""The command line of the server, and its start."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import selectors
import socket
import sys
from pathlib import Path
from typing import Any

from .app import App
from .http11 import bind, serve

EXIT_PORT_IN_USE = 98  # EADDRINUSE; the launcher tries another port on it


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="slm-server", description="OpenAI-compatible streaming server")
    backs = root.add_subparsers(dest="back", required=True)
    openvino = backs.add_parser("openvino", help="a model in OpenVINO IR, on the CPU")
    openvino.add_argument("--model", required=True, help="folder with openvino_model.xml, config.json and tokenizer.json")
    openvino.add_argument("--inference-precision", default="bf16", choices=("bf16", "f16", "f32"))
    openvino.add_argument("--kv-cache-precision", default="bf16", choices=("bf16", "f16", "f32", "u8"))
    openvino.add_argument("--cache-size-gb", type=int, default=2)
    openvino.add_argument("--max-num-batched-tokens", type=int, help="tokens per step; OpenVINO's default is 256")
    openvino.add_argument("--max-num-seqs", type=int, help="requests per step; OpenVINO's default is 256")
    openvino.add_argument("--threads", type=int, help="default: OpenVINO's own choice, one per physical core")
    openvino.add_argument("--prefix-caching", action="store_true")
    null = backs.add_parser("null", help="no model: tokens at set times")
    null.add_argument("--ttft-ms", type=float, default=20.0)
    null.add_argument("--itl-ms", type=float, default=5.0)
    null.add_argument("--tokens-per-chunk", type=int, default=1)
    null.add_argument("--capacity", type=int, help="answers served at once; others wait (default: no limit)")
    null.add_argument("--scale-cv", type=float, default=0.0, help="all times are multiplied by one lognormal draw of mean 1 and this CV")
    null.add_argument("--seed", type=int, help="of that draw (default: another one at each start)")
    null.add_argument("--record", type=Path, help="JSON lines of what was sent when: request_id, index, tokens, sent_ns (CLOCK_MONOTONIC)")
    for back in (openvino, null):
        back.add_argument("--host", default="127.0.0.1")
        back.add_argument("--port", type=int, required=True)
        back.add_argument("--served-model-name", required=True)
    return root


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        sock = bind(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"slm-server: cannot listen on {where}: {error.strerror}", file=sys.stderr)  # noqa: T201 - this is the engine's log
        return EXIT_PORT_IN_USE if error.errno == errno.EADDRINUSE else 1
    selector = selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_serve(options, sock, selector))
    return 0


async def _serve(options: argparse.Namespace, sock: socket.socket, selector: selectors.BaseSelector) -> None:
    back: Any
    if options.back == "openvino":
        from .openvino_back import OpenVinoBack

        back = OpenVinoBack(options)
    else:
        from .null_back import NullBack

        back = NullBack(options)
    gc.collect()
    gc.freeze()  # what was loaded stays; without it a full collection would walk it in the middle of an answer
    serve(asyncio.get_running_loop(), sock, App(back).handle)
    print(f"slm-server: {options.served_model_name} on {options.host}:{options.port}, loaded in {back.load_s:.2f} s", flush=True)  # noqa: T201
    await back.run(selector)
