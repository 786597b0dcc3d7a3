"""Folders of tiny random models with the quirks that real ones have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_model
import torch
from tokenizers import processors

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role='model' %}{% else %}"
    "{% set role=m['role'] %}{% endif %}{{ '<|im_start|>' + role + '\n' + m['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINK = chat_model.CHAT_TEMPLATE.replace("<|im_start|>assistant\n'", "<|im_start|>assistant\n<think>\n'")


def tokenizer(template: str | None = chat_model.CHAT_TEMPLATE, post: Any = None, **special: str | None) -> Any:
    """ChatML over 700 tokens. special: pad, bos, eos, unk."""
    from transformers import PreTrainedTokenizerFast

    given = {"pad": END, "bos": START, "eos": STOP, "unk": None} | special
    options = {f"{name}_token": value for name, value in given.items() if value}
    made = PreTrainedTokenizerFast(
        tokenizer_object=chat_model._tokenizer(700)._tokenizer, padding_side="right", chat_template=template, **options
    )
    if post:
        made._tokenizer.post_processor = post
    return made


def first_token(token: str, index: int) -> Any:
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, index)])


EOS_LAST = processors.TemplateProcessing(single=f"{START} $A {STOP}", special_tokens=[(START, 1), (STOP, 2)])


def base(kind: str) -> dict[str, Any]:
    if kind == "gpt2":
        return {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    if kind == "mpt":
        return {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512, "expansion_ratio": 2}
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "opt":
        return common | {"word_embed_proj_dim": 32, "ffn_dim": 64, "max_position_embeddings": 512}
    return common | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 1024}


def network(kind: str, size: int, seed: int = 1, **config: Any) -> Any:
    """Random weights, larger than usual, so that what a model should not see would show."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = AutoConfig.for_model(kind, **{"vocab_size": size, **base(kind), **config})
        made = AutoModelForCausalLM.from_config(settings, attn_implementation="eager")
        with torch.no_grad():
            for weights in made.parameters():
                if weights.dim() >= 2:
                    weights.normal_(0, 0.08)
    return made.eval()


def save(folder: Path, kind: str, words: Any, size: int | None = None, **config: Any) -> Path:
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    special["pad_token_id"] = words.pad_token_id
    network(kind, size or len(words), **{**special, **config}).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
