"""How much a model takes: positions, and token ids. Told before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.records import Prompt

POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
    "context_length",
)
"""The names by which configurations give the number of positions."""


def positions(config: Any) -> int | None:
    """How many tokens a model of this configuration reads at most; None where it says nothing of it."""
    text = config.get_text_config()
    found = [value for name in POSITIONS if isinstance(value := getattr(text, name, None), int) and value > 0]
    return min(found) if found else None


def check_length(
    model: LanguageModel, config: Any, prompts: Sequence[Prompt], new_tokens: int, what: str = "policy"
) -> None:
    """Raise ValueError when one of these prompts, with ``new_tokens`` of response, is longer than the model reads."""
    room = positions(config)
    if room is None or not prompts:
        return
    lengths = [len(ids) for ids in model.encode_prompts(prompts)]
    longest = max(range(len(prompts)), key=lengths.__getitem__)
    if lengths[longest] + new_tokens > room:
        raise ValueError(
            f"{what} {model.name!r} reads {room} tokens at most, and prompt {prompts[longest].id!r} has "
            f"{lengths[longest]} with {new_tokens} of response to come; shorten prompts, or lower "
            "sampler.max_new_tokens (task.max_response_tokens)"
        )
