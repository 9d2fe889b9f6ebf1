"""A model of a real architecture with random weights. A script for the export environment: `python make_synthetic.py --name llama-tiny --text F --out DIR`.

Imports nothing of profiler. For speed without a download: its answers mean nothing, its timing is that of the architecture and size.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "25m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
}
# Per architecture what differs from the plain decoder.
EXTRA: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "phi3": {"pad_token_id": 0},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    # Latent attention with DeepSeek's own latent and rotary sizes: vLLM's kernels know 512 + 64 only.
    "deepseek_v2": {
        "num_key_value_heads": 4,
        "head_dim": 64,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
        "moe_intermediate_size": 128,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "head_dim": 64,
        "q_lora_rank": 64,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
        "moe_intermediate_size": 128,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",  # in published configs; transformers implies it, vLLM reads it
    },
}
VOCABULARY = 4096
CONTEXT = 4096
END = "<|im_end|>"
SPECIAL = [END, "<|im_start|>"]
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def train_tokenizer(text: Path) -> Any:
    """A byte-level BPE trained on `text` in a second or two; every byte is in it, so any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train([str(text)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.chat_template = CHAT
    return fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="ARCHITECTURE-SIZE")
    parser.add_argument("--text", type=Path, required=True, help="what the tokenizer is trained on")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    architecture, _, size = args.name.rpartition("-")
    tokenizer = train_tokenizer(args.text)
    settings = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    head_dim = SIZES[size]["hidden_size"] // SIZES[size]["num_attention_heads"]
    config = AutoConfig.for_model(architecture, **{**SIZES[size], "head_dim": head_dim, **settings, **EXTRA[architecture]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    parameters = sum(p.numel() for p in model.parameters())
    sys.stdout.write(json.dumps({"tensor_types": ["BF16"], "parameters": parameters}) + "\n")


if __name__ == "__main__":
    main()
