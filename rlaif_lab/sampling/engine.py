"""What samples from a language model, whatever machinery does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.returned import finite, named, records, shown

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.sampling.config import SamplingConfig

Determinism = Literal["item", "chunk"]
"""How finely samples can be drawn again: each by itself (``item``), or only together with the prompts that were given
in the same call (``chunk``)."""


class Engine(Protocol):
    """Prompts in, responses out. One file plus one YAML in ``conf/engine/``.

    Every stage that samples goes through it. Responses come back in the order of the prompts, k to each; the token that
    ends a response is part of it, and ``finished`` says whether there was one.
    """

    determinism: Determinism
    recorded: bool
    """Whether a response's ``logps`` are those of the weights that sampled, at temperature 1 and untruncated; where
    not, the lab computes them with a forward pass before it stores a round's samples."""

    def update(self, policy: LanguageModel, version: str) -> None:
        """Take over the policy's weights, before something is sampled from it. version: which weights these are; an
        engine that holds them already has nothing to do."""

    def generate(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        config: SamplingConfig,
        limit: int,
        identity: Sequence[int | str],
    ) -> list[Generation]:
        """Return ``config.k`` responses to each prompt, at most ``limit`` tokens long unless the config says otherwise.

        model: the policy of the last ``update``, or another model, frozen: the initial policy, that of an earlier
        round, a judge's. An engine that holds the policy alone leaves those to ``Exact``.
        identity: what the draws are for, e.g. (run_seed, "rounds", 3); with the prompt's id and the sample's number it
        decides every draw.
        """

    def close(self) -> None:
        """Give memory back, before training and at the end; ``update`` comes before what is sampled next."""


def sample(
    engine: Engine,
    model: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    config: SamplingConfig,
    limit: int,
    identity: Sequence[int | str],
) -> list[Generation]:
    """Return what an engine, perhaps of the user's own, samples (``Engine.generate``).

    Raises:
        ValueError: it gives other prompts, another number of responses, log-probabilities that are not finite, or not
            one for each token.
    """
    where = named(engine, "generate")
    generations = records(where, engine.generate(model, prompts, config, limit, identity), Generation, len(prompts))
    for prompt, generation in zip(prompts, generations, strict=True):
        told = f"{where}, prompt {prompt.id!r}"
        if generation.prompt != prompt:
            raise ValueError(f"{told}: prompt {shown(getattr(generation.prompt, 'id', None))} came back in its place")
        for response in records(told, generation.responses, Response, config.k):
            if not isinstance(response.text, str):
                raise ValueError(f"{told}: a response's text must be a text; got {shown(response.text)}")
            finite(told, response.logps, "log-probabilities")
            if len(response.logps) != len(response.token_ids) and (engine.recorded or response.logps):
                raise ValueError(
                    f"{told}: a response of {len(response.token_ids)} tokens has {len(response.logps)} "
                    "log-probabilities"
                )
    return generations
