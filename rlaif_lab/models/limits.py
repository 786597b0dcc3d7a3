"""How much a model takes: positions, and token ids. Told before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    """Return how many tokens a model of this configuration reads at most; None where it says nothing of it."""
    # A multimodal model's limit is that of its text part.
    text = config.get_text_config()
    found = [value for name in POSITIONS if isinstance(value := getattr(text, name, None), int) and value > 0]
    # Some configurations give several: the smallest holds.
    return min(found) if found else None


def check_length(model: str, config: Any, names: Sequence[str], lengths: Sequence[int], new_tokens: int) -> None:
    """Raise ValueError when one of these prompts, with ``new_tokens`` of response, is longer than the model reads."""
    room = positions(config)
    if room is None or not lengths:
        return
    # The longest is named: the others are shorter than that.
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] + new_tokens > room:
        raise ValueError(
            f"model {model!r} reads {room} tokens at most, and prompt {names[longest]!r} has {lengths[longest]}, with "
            f"up to {new_tokens} of response to come; shorten the prompts, or lower task.max_response_tokens"
        )


def check_tokens(
    model: str, config: Any, names: Sequence[str], ids: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise ValueError when a prompt, or the end of a response, needs a token for which the model has no embedding. (A
    padding token may lack one: another takes its place.)"""
    size = int(config.get_text_config().vocab_size)
    wanted = {f"prompt {name!r}": max(row) for name, row in zip(names, ids, strict=True)}
    for what, token in (wanted | {"the end of a response": int(tokenizer.eos_token_id)}).items():
        if token >= size:
            raise ValueError(
                f"model {model!r} has embeddings for {size} tokens, but {what} needs token {token} "
                f"({tokenizer.convert_ids_to_tokens(token)!r}); its tokenizer belongs to another model, or the "
                "embedding has to be enlarged (resize_token_embeddings)"
            )


@contextmanager
def out_of_memory(key: str) -> Iterator[None]:
    """Name the setting that decides how much is computed at once where there is not the memory for it."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(f"the device's memory is not enough: lower {key}") from error
    except RuntimeError as error:
        # torch's CPU allocator raises a RuntimeError, which only its words tell apart.
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise ValueError(f"the machine's memory is not enough: lower {key}") from error
