"""Log-probabilities of what was sampled, computed anew: for engines whose own are of other kernels or another law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.records import Generation


def with_logps(model: LanguageModel, generations: Sequence[Generation], rows: int) -> list[Generation]:
    """Return the generations with each token's log-probability (nats) under the model, at temperature 1, untruncated.

    rows: responses in a forward pass, about; it decides memory only.
    """
    found: list[Generation] = []
    # By responses, as the packed row of a prompt holds all of its own.
    at_once = max(1, rows // max((len(g.responses) for g in generations), default=1))
    for start in range(0, len(generations), at_once):
        some = generations[start : start + at_once]
        ids = [[r.token_ids for r in g.responses] for g in some]
        batch = pack(model.encode_prompts([g.prompt for g in some]), ids, model.pad_id).to(model.device)
        with inference(model.network):
            logps = response_logps(model.network, batch).float().cpu().tolist()
        for generation, rows_of in zip(some, logps, strict=True):
            responses = tuple(
                # Padding is cut off: as many numbers as tokens.
                replace(response, logps=tuple(row[: len(response.token_ids)]))
                for response, row in zip(generation.responses, rows_of, strict=True)
            )
            found.append(replace(generation, responses=responses))
    return found
