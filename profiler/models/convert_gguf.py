"""GGUF file -> Hugging Face folder in bf16. A script for the export environment: `python convert_gguf.py --gguf F --out DIR`.

Imports nothing of profiler. The tokenizer is rebuilt from the file's own tokens and merges, because the one transformers 5.5 builds from
a GGUF is wrong after save and reload (spaces become unknown tokens, another end token); the result must round-trip text or it is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

CONTROL = 3  # GGUF token type of special tokens
ROUND_TRIP = "Hello world, 123 times: naïve café, tabs\tand\nlines, 東京 and 🦜."


def build_tokenizer(fields: dict[str, Any]) -> Any:
    """The byte-level BPE of a `tokenizer.ggml.model = gpt2` file, as a transformers tokenizer. Raises SystemExit if it is of another kind."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kind = fields["tokenizer.ggml.model"]
    if kind != "gpt2":
        raise SystemExit(f"cannot convert a {kind!r} tokenizer (byte-level BPE, 'gpt2', is supported): give a safetensors folder instead")
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    bpe = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(merge.split(" ")) for merge in merges])
    tokenizer = Tokenizer(bpe)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    end = tokens[fields["tokenizer.ggml.eos_token_id"]]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)
    fast.chat_template = fields.get("tokenizer.chat_template")
    return fast


def check(folder: Path) -> None:
    """Reload what was saved: text must survive. Raises SystemExit if it does not."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    back = tokenizer.decode(tokenizer.encode(ROUND_TRIP, add_special_tokens=False).ids)
    if back != ROUND_TRIP:
        raise SystemExit(f"the converted tokenizer does not round-trip text: {ROUND_TRIP!r} became {back!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM

    wanted = ("model", "tokens", "merges", "token_type", "eos_token_id")
    reader = GGUFReader(args.gguf)
    fields = {f"tokenizer.ggml.{key}": reader.fields[f"tokenizer.ggml.{key}"].contents() for key in wanted}
    if "tokenizer.chat_template" in reader.fields:
        fields["tokenizer.chat_template"] = reader.fields["tokenizer.chat_template"].contents()
    tokenizer = build_tokenizer(fields)
    model = AutoModelForCausalLM.from_pretrained(args.gguf.parent, gguf_file=args.gguf.name, dtype=torch.float32)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    check(args.out)
    types = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    parameters = sum(p.numel() for p in model.parameters())
    sys.stdout.write(json.dumps({"tensor_types": types, "parameters": parameters}) + "\n")


if __name__ == "__main__":
    main()
