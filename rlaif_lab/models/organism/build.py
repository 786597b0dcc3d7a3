"""Model organisms: tiny Llamas that imitate a demonstrator of stated skill, and judge as well as they know.

The corpus is turns, each followed by a second look at it::

    <bos> 743+685= 3390 <eos> ? T
                   ^^^^^^^^^^    ^   learnt: the answer, and the demonstrator's verdict on it

Every prompt comes with the demonstrator's own answer, and with some by others, of which only the verdict is learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.models.organism.verdict import ASK, FALSE, TRUE
from rlaif_lab.models.packed import Packed, pack, response_logps
from rlaif_lab.progress import bar
from rlaif_lab.seeding import rng_for, seed_for
from rlaif_lab.tasks.base import Problems, Skill

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from rlaif_lab.models.organism.recipe import Recipe
    from rlaif_lab.tasks.base import ProceduralTask

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


def build_tokenizer(task: ProceduralTask) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per character, ``<bos>`` in front; the verdict signs are characters of their
    own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [PAD, BOS, EOS, UNK, ASK, TRUE, FALSE, *task.alphabet]
    assert len(set(words)) == len(words), f"the alphabet of {task.name} repeats a character or a verdict sign"
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    # One token to a character: an answer's digits are then tokens of their own, and its length in tokens is known.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, words.index(BOS))]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
    )


def build_network(recipe: Recipe, vocab_size: int) -> LlamaForCausalLM:
    """Return the untrained network, initialised from the recipe's seed without touching the global generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=recipe.width,
        intermediate_size=recipe.width * 8 // 3,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
        # Short sequences and a narrow network: the usual 10000 and 0.02 learn addition three times more slowly.
        rope_parameters={"rope_type": "default", "rope_theta": 30.0},
        initializer_range=0.06,
    )
    # Forked, so that building an organism leaves the global generator as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(recipe.seed, "organism initialisation"))
        return LlamaForCausalLM(config)


class Corpus:
    """What the demonstrator writes, step by step; step t is the same whatever came before it."""

    def __init__(self, task: ProceduralTask, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self.task, self.recipe = task, recipe
        self.problems = task.split_problems(recipe.split)
        self.token_of: dict[str, int] = tokenizer.get_vocab()

    def batch(self, step: int) -> tuple[Packed, Tensor]:
        """Return each prompt with its turns: the demonstrator's own first. Returns the token ids, and how much each
        response token weighs in the loss: (B, 1 + verdict_turns, R), 0 where nothing is learnt."""
        # By step: a corpus is a function of (seed, split, step), and no step depends on what was drawn before.
        rng = rng_for(self.recipe.seed, "organism corpus", self.recipe.split, step)
        problems = rng.choice(self.problems, size=self.recipe.batch_size)
        own = self.task.demonstrate(problems, self.recipe.skill, rng)
        # Only the verdict on these is learnt: an organism that learnt others' answers would write them.
        others = [self._somebody_else(problems, rng) for _ in range(self.recipe.verdict_turns)]
        turns = [self._turns(problems, answers, rng) for answers in (own, *others)]
        prompts = [self._ids([BOS, *self.task.prompt_text(problem)]) for problem in problems.tolist()]
        # (B, 1 + verdict_turns, R): the turns of a prompt share one copy of it.
        packed = pack(prompts, list(zip(*turns, strict=True)), pad_id=0)
        lengths = packed.response_mask.sum(-1, keepdim=True)
        position = torch.arange(packed.response_ids.shape[2])
        # The verdict is the last token of every turn.
        weights = self.recipe.verdict_weight * (position == lengths - 1).float()
        # Up to the end token; `?` itself, two before the end, is put there by whoever asks.
        weights[:, 0] += (position < lengths[:, 0] - 2).float()  # the demonstrator's own answer and its end
        return packed, weights

    def _turns(self, problems: Problems, answers: list[str], rng: np.random.Generator) -> list[list[int]]:
        verdicts = self.task.verify(problems, answers, self.recipe.skill, rng)
        return [
            self._ids([*answer, EOS, ASK, TRUE if verdict else FALSE])
            for answer, verdict in zip(answers, verdicts, strict=True)
        ]

    def _ids(self, signs: list[str]) -> list[int]:
        return [self.token_of[sign] for sign in signs]

    def _somebody_else(self, problems: Problems, rng: np.random.Generator) -> list[str]:
        """Return answers of demonstrators of all skills, so that a verdict is learnt on every kind of mistake."""
        # Never slipping nor misconceived, one of them, both: a quarter of the problems each.
        quarters = np.array_split(problems, 4)
        skills = (Skill(0.0, 0.0), Skill(0.0, 1.0), Skill(1.0, 0.0), Skill(1.0, 1.0))
        return [
            a for part, skill in zip(quarters, skills, strict=True) for a in self.task.demonstrate(part, skill, rng)
        ]


def pretrain(task: ProceduralTask, recipe: Recipe, description: str) -> tuple[LlamaForCausalLM, Any]:
    """Return network and tokenizer after ``recipe.steps`` steps of next-token prediction, with a progress bar."""
    tokenizer = build_tokenizer(task)
    network = build_network(recipe, len(tokenizer))
    corpus = Corpus(task, recipe, tokenizer)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, recipe))
    network.train()
    steps = bar(range(recipe.steps), announce=True, desc=description, unit="step")
    for step in steps:
        packed, weights = corpus.batch(step)
        # A mean over weights: how many tokens a batch has does not scale the step.
        loss = -(response_logps(network, packed) * weights).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        # `item` waits for the device: not in every step.
        if step % 20 == 0:
            steps.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval(), tokenizer


def _cosine(step: int, recipe: Recipe) -> float:
    """Return the rate's factor: linear warm-up, then half a cosine down to a tenth of the peak."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    # 0.1 + 0.45 (1 + cos): from 1 at the peak to 0.1 at the end.
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * progress)))
