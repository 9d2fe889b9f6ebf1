"""Script, run in the export environment: a Hugging Face folder to OpenVINO IR in one weight format.

    openvino_export.py --model DIR --out DIR --weight-format fp16|int8|int4 [--group-size N]

Lines that start with `progress: ` are for people; the result is OUT/variant.json. Imports nothing from `profiler`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

# As the model's author wrote them: what a library saves again is not always what it loaded.
VERBATIM = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
BITS = {"u4": 4, "i4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32}


def say(text: str) -> None:
    print(f"progress: {text}", flush=True)  # noqa: T201 - the launcher reads it


def export(model: Path, out: Path, weight_format: str, group_size: int | None, trust_remote_code: bool) -> int:
    """The exit code of optimum's own command: its Python functions for this are private, and the public one leaves int8 undone."""
    command = [sys.executable, "-I", "-W", "ignore", "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(model)]
    command += ["--task", "text-generation-with-past", "--library", "transformers", "--weight-format", weight_format]
    command += ["--disable-convert-tokenizer"]  # the server tokenizes with tokenizer.json
    if weight_format == "int4":
        # ratio 1: all layers that may be 4-bit are; nncf itself keeps embeddings and the last layer at 8.
        command += ["--group-size", str(group_size or 128), "--ratio", "1.0"]
    if trust_remote_code:
        command.append("--trust-remote-code")
    scratch = out / "scratch"  # optimum works in the temporary folder: keep it where it is removed with us, and on the same disk
    scratch.mkdir()
    say(f"converting to OpenVINO IR, weights {weight_format}")
    code = subprocess.run([*command, str(out)], env={**os.environ, "TMPDIR": str(scratch)}, check=False).returncode
    shutil.rmtree(scratch)
    for name in VERBATIM:
        if (model / name).is_file():
            shutil.copyfile(model / name, out / name)
    return code


def describe(out: Path, weight_format: str, group_size: int | None) -> dict[str, Any]:
    """What is really in the IR: bytes of weights by element type, and the layers that stayed above the asked precision."""
    import openvino

    say("reading what was made")
    model = openvino.Core().read_model(out / "openvino_model.xml")
    by_type: Counter[str] = Counter()
    higher = []
    asked_bits = {"fp16": 16, "int8": 8, "int4": 4}[weight_format]
    for node in model.get_ops():
        if node.get_type_name() != "Constant":
            continue
        kind = node.get_element_type().get_type_name()
        count = 1
        for length in node.get_output_shape(0):
            count *= length
        if kind in BITS and count >= 4096:  # smaller ones are scales, norms and shapes
            by_type[kind] += count * BITS[kind] // 8
            # Scales of quantised weights are 16 bit by design; a weight has two large dimensions.
            large = [length for length in node.get_output_shape(0) if length >= 64]
            if BITS[kind] > asked_bits and len(large) >= 2 and "/scale" not in node.get_friendly_name():
                higher.append(f"{node.get_friendly_name()}: {kind}")
    return {
        "method": "16-bit IR, not quantised" if weight_format == "fp16" else "nncf weight compression, data-free, asymmetric",
        "weight_format": weight_format,
        "group_size": group_size if weight_format == "int4" else None,
        "weight_bytes_by_type": dict(by_type),
        "kept_in_higher_precision": higher,
        "made_with": {name: version(name) for name in ("openvino", "optimum-intel", "nncf", "transformers", "torch")},
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weight-format", choices=("fp16", "int8", "int4"), required=True)
    parser.add_argument("--group-size", type=int)
    parser.add_argument("--trust-remote-code", action="store_true")
    options = parser.parse_args()
    code = export(options.model, options.out, options.weight_format, options.group_size, options.trust_remote_code)
    if code != 0:
        return code
    details = describe(options.out, options.weight_format, options.group_size)
    bits = {"fp16": 16, "int8": 8, "int4": 4}[options.weight_format]
    sizes = details["weight_bytes_by_type"]
    if not any(BITS[kind] == bits for kind in sizes):  # a library that quietly skips the step must not give a variant its name
        print(f"asked for {options.weight_format} weights, but the IR holds {sizes}", file=sys.stderr)  # noqa: T201
        return 1
    (options.out / "variant.json").write_text(json.dumps(details, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
