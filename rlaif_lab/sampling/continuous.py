"""Continuous batching of transformers: rows that end make room for the next at once, in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.records import Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Determinism
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.sampling.responses import generations_of
from rlaif_lab.seeding import seed_for

COMMON_DRAWS = ("evaluation",)
"""Purposes for which two policies are compared with the same draws, so that the difference has little noise: there is
one seed for all that is sampled in one call here, so these are left to the lab's own sampler."""


SMALLEST_PAGE = 4
"""Tokens of a page at least, which transformers demands."""


class Continuous:
    """transformers' ``generate_batch`` with the policy's own network. Draws belong to the prompts of one call together
    (level ``chunk``): another chunk, or another number of ranks, draws others.

    max_batch_tokens: tokens in one pass. num_blocks, page_size: of the cache, in pages of so many tokens. All three
        decide the draws too. Of models that are not causal transformers with attention throughout, use ``exact``.
    """

    determinism: Determinism = "chunk"
    recorded = True

    def __init__(self, max_batch_tokens: int = 1024, num_blocks: int = 512, page_size: int = 32) -> None:
        for name, value, least in (
            ("max_batch_tokens", max_batch_tokens, 1),
            ("num_blocks", num_blocks, 1),
            ("page_size", page_size, SMALLEST_PAGE),
        ):
            if value < least:
                raise ValueError(f"engine.{name} must be at least {least}; got {value}")
        self.max_batch_tokens, self.num_blocks, self.page_size = max_batch_tokens, num_blocks, page_size

    def update(self, policy: LanguageModel, version: str) -> None:
        """Do nothing: the weights that are trained are the ones that sample."""

    def generate(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        config: SamplingConfig,
        limit: int,
        identity: Sequence[int | str],
    ) -> list[Generation]:
        # Evaluation compares two policies with the same draws, which needs them by item.
        if identity[1] in COMMON_DRAWS or not prompts:
            return Exact().generate(model, prompts, config, limit, identity)
        most = config.max_new_tokens or limit
        ids = [row for row in model.encode_prompts(prompts) for _ in range(config.k)]
        # By all prompts of the call: another call, or another order, has other draws.
        seed = seed_for("sample together", *identity, *(prompt.id for prompt in prompts)) % 2**31
        with inference(model.network), out_of_memory("engine.num_blocks"):
            written = self._written(model, ids, config, most, seed)
        return generations_of(model, prompts, written, config, most)

    def close(self) -> None:
        """Do nothing: the cache of a call ends with it."""

    def _written(
        self, model: LanguageModel, ids: Sequence[list[int]], config: SamplingConfig, most: int, seed: int
    ) -> list[list[int]]:
        import torch
        from transformers import ContinuousBatchingConfig, GenerationConfig

        # An adapter's wrapper has no `generate_batch`; its layers are within the base model.
        network: Any = model.network.get_base_model() if hasattr(model.network, "peft_config") else model.network
        attention = network.config._attn_implementation
        batching = ContinuousBatchingConfig(
            seed=seed, max_batch_tokens=self.max_batch_tokens, num_blocks=self.num_blocks, page_size=self.page_size
        )
        drawn = config.temperature > 0
        # Greedy decoding refuses settings of sampling.
        settings = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p} if drawn else {}
        generation = GenerationConfig(
            do_sample=drawn,
            max_new_tokens=most,
            eos_token_id=list(model.eos_ids),
            pad_token_id=model.pad_id,
            **settings,
        )
        # transformers seeds the global generator: forked, so that its state is as before.
        # What it logs, with a traceback, is told below in a sentence.
        logger = logging.getLogger("ContinuousBatchingLogger")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        with torch.random.fork_rng():
            try:
                found = network.generate_batch(
                    list(ids),
                    generation_config=generation,
                    continuous_batching_config=batching,
                    progress_bar=False,
                )
            finally:
                logger.setLevel(level)
                # It may leave the network with its own attention.
                if network.config._attn_implementation != attention:
                    network.set_attn_implementation(attention)
        outputs = list(found.values())  # in the order of what was asked
        failed = next((output.error for output in outputs if output.error is not None), None)
        # Responses that are missing would shift all that follow.
        if failed is not None or len(outputs) != len(ids):
            raise ValueError(
                f"transformers' continuous batching gave up ({failed or 'responses are missing'}); use engine=exact, "
                "or raise engine.num_blocks"
            )
        return [list(output.generated_tokens) for output in outputs]
