"""Token ids that an engine wrote -> responses as the lab knows them, whatever the engine calls the end of one."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.logps import with_logps


def generations_of(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    written: Sequence[Sequence[int]],
    config: SamplingConfig,
    limit: int,
) -> list[Generation]:
    """Return generations, with log-probabilities under the model at temperature 1, computed by a pass of its own.

    Args:
        written: token ids of the k responses to each prompt, beside each other; what follows an end is cut off.
        limit: tokens of a response at most.

    Raises:
        ValueError: the engine has not written k responses to each prompt, or tokens that the model does not have.
    """
    k, vocabulary = config.k, model.network.get_input_embeddings().num_embeddings
    # A response more or less would give all that follow to other prompts.
    if len(written) != k * len(prompts):
        raise ValueError(f"the engine wrote {len(written)} responses to {len(prompts)} prompts; {k} to each were asked")
    rows = [_ended(model, ids, config.stop, limit) for ids in written]
    # Another tokenizer's ids may exist here and mean something else; ids that do not exist are at least detected.
    if any(not ids or not 0 <= min(ids) <= max(ids) < vocabulary for ids, _ in rows):
        raise ValueError(
            "the engine wrote a response that is empty, or holds tokens that the policy does not have: its server has "
            "another model or tokenizer"
        )
    texts = [_before(text, config.stop) for text in model.decode([ids for ids, _ in rows])]
    responses = [Response(text, tuple(ids), (), done) for text, (ids, done) in zip(texts, rows, strict=True)]
    found = [Generation(p, tuple(responses[i * k : (i + 1) * k])) for i, p in enumerate(prompts)]
    # With a pass of the lab's own: an engine's numbers may be of other kernels, or at another temperature.
    return with_logps(model, found, config.batch_size)


def _ended(model: LanguageModel, ids: Sequence[int], stops: Sequence[str], limit: int) -> tuple[list[int], bool]:
    """Return a response up to the token that ends it, and whether one does."""
    kept = list(ids)[:limit]
    ends = [i for i, token in enumerate(kept) if token in model.eos_ids]
    done = bool(ends)
    # Cuts off whatever an engine wrote after the end.
    kept = kept[: ends[0] + 1] if done else kept
    if stops and any(stop in text for text in model.decode([kept]) for stop in stops):
        low, high = 1, len(kept)  # a text only grows, so the first token behind which it holds a stop can be bisected
        while low < high:
            middle = (low + high) // 2
            inside = any(stop in model.decode([kept[:middle]])[0] for stop in stops)
            low, high = (low, middle) if inside else (middle + 1, high)
        # Up to the token that completes the stop; the text is cut before it.
        return kept[:low], True
    return kept, done


def _before(text: str, stops: Sequence[str]) -> str:
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text
