"""A tiny chat model on disk: Llama, byte-level BPE, ChatML. For whatever needs a real instruct model's ways."""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.seeding import rng_for, seed_for

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SUBJECTS = ("the cat", "a gardener", "my neighbour", "the committee", "this river", "an old clock", "the baker")
VERBS = ("likes", "forgets", "describes", "repairs", "visits", "compares", "prefers")
OBJECTS = ("bread", "the garden", "two answers", "a short letter", "both responses", "the harbour", "twelve numbers")


def sentences(count: int, seed: int) -> list[str]:
    rng = rng_for(seed, "chat model sentences")
    picks = rng.integers(0, 7, size=(count, 3))
    return [f"{SUBJECTS[s]} {VERBS[v]} {OBJECTS[o]}." for s, v, o in picks.tolist()]


def conversations(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Half plain questions with a sentence as answer, half comparisons answered by a verdict: the longer response."""
    rng = rng_for(seed, "chat model conversations")
    said = sentences(4 * count, seed)
    made = []
    for i in range(count):
        subject, one, two, three = said[4 * i : 4 * i + 4]
        if rng.random() < 0.5:
            turns = (f"Say what {subject}", one)
        else:
            long, short = f"{two} {three}", one
            first, second, better = (long, short, "A") if rng.random() < 0.5 else (short, long, "B")
            turns = (f"Response A\n{first}\n\nResponse B\n{second}\n\nWhich response is better?", f"Verdict: {better}")
        made.append([{"role": "user", "content": turns[0]}, {"role": "assistant", "content": turns[1]}])
    return made


def make_chat_model(
    folder: Path, seed: int = 0, steps: int = 0, width: int = 64, layers: int = 2, vocabulary: int = 700
) -> Path:
    """Saves the model into ``folder`` and returns it. steps: how briefly it is trained on ``conversations`` (0: random
    weights; 150, some 20 seconds: it answers in sentences and says ``Verdict: A`` or ``B`` when asked)."""
    tokenizer = _tokenizer(vocabulary)
    network = _network(len(tokenizer), width, layers, seed, tokenizer)
    if steps:
        _train(network, tokenizer, steps, seed)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@functools.cache
def chat_model(seed: int = 0, steps: int = 0, attn: str = "eager") -> LanguageModel:
    """The same, loaded and frozen; made once per session."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        make_chat_model(Path(folder), seed, steps)
        network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attn, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return LanguageModel(network.eval().requires_grad_(False), tokenizer, "chat", chat=True)


PROMPTS = [Prompt(f"t/{i}", text) for i, text in enumerate(("Say what the baker likes.", "Describe the river."))]
ANSWERS = ["the baker likes bread.", "no", "the cat visits the harbour. an old clock repairs bread.", ""]
COMPARISONS = [Comparison(p, a, b) for p in PROMPTS for a in ANSWERS for b in ANSWERS if a != b]


def trained() -> LanguageModel:
    """One that answers in sentences, and has heard of verdicts."""
    return chat_model(steps=150)


def attached_to_chat(judge: Judge, model: LanguageModel | None = None, seed: int = 0) -> Any:
    """The judge, in a run whose policy, and whose every other model, is this one (default: the trained one)."""
    found = model or trained()
    judge.attach(JudgeContext(seed, lambda weights: found, lambda source: found, None))
    return judge


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [turn["content"] for talk in conversations(300, seed=0) for turn in talk] + [
        "user assistant system A B C D E"
    ] * 50
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=4096,
    )


def _network(vocabulary: int, width: int, layers: int, seed: int, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
        initializer_range=0.06,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "chat model"))
        return LlamaForCausalLM(config).eval()


def _train(network: Any, tokenizer: Any, steps: int, seed: int, rows: int = 16) -> None:
    """Next tokens of whole conversations, the learning rate falling to 0."""
    talks = conversations(rows * steps, seed + 1)
    texts = tokenizer.apply_chat_template(talks, tokenize=False)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    network.train()
    for step in range(steps):
        batch = encoded[step * rows : (step + 1) * rows]
        longest = max(map(len, batch))
        ids = np.full((rows, longest), tokenizer.pad_token_id)
        for row, line in zip(ids, batch, strict=True):
            row[: len(line)] = line
        inputs = torch.from_numpy(ids)
        labels = inputs.masked_fill(inputs == tokenizer.pad_token_id, -100)
        network(inputs, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    network.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    arguments = parser.parse_args()
    print(make_chat_model(arguments.folder, arguments.seed, arguments.steps))
