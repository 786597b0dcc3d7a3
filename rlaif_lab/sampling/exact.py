"""Prompts -> generations: several responses per prompt, batched, with a KV cache.

What ``generate`` lacks: the prompt is computed once for its k samples, finished rows leave the batch, every
sample draws from a stream of its own (so batch size and order change nothing), and log-probabilities come free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.models.packed import pack
from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.decoding import Decoder, decoder
from rlaif_lab.sampling.engine import Determinism
from rlaif_lab.seeding import seed_for, splitmix64, uniforms

SPARE = 12
"""Tokens that are decoded beyond those that a stop string could be made of."""
WIDE, BLOCK = 2**13, 2**9
"""Vocabularies beyond the first are searched in blocks of the second."""


class Exact:
    """The lab's own sampler, in this process and with the policy's own network. Every sample has its own draws, so
    neither batch size nor order of the prompts changes one."""

    determinism: Determinism = "item"
    recorded = True

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
        return sample(model, prompts, config, limit, *identity)

    def close(self) -> None:
        """Do nothing: there is no memory but the policy's."""


def sample(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    max_new_tokens: int,
    *identity: int | str,
) -> list[Generation]:
    """Sample ``config.k`` responses to each prompt, in the order of ``prompts``.

    identity: what the draws are for, e.g. (run_seed, "rounds", 3); with the prompt's id and the sample's number
    it decides every draw.
    """
    most = config.max_new_tokens or max_new_tokens
    with inference(model.network), out_of_memory("sampler.batch_size"):
        return _Sampling(model, prompts, config, most, identity).generations()


class _Sampling:
    """Draws all responses to some prompts, of which so many are in the decoder at a time as the batch has room for."""

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        config: SamplingConfig,
        limit: int,
        identity: tuple[int | str, ...],
    ) -> None:
        self.model, self.prompts, self.config, self.limit = model, prompts, config, limit
        self.ids = model.encode_prompts(prompts)
        # Whole prompts: the k samples of one share its pass.
        self.at_once = max(1, config.batch_size // config.k)
        prompt_seeds = np.array([seed_for("sample", *identity, p.id) for p in prompts], dtype=np.uint64)
        streams = splitmix64(np.arange(config.k, dtype=np.uint64))
        # A stream for each sample: the prompt's seed, and the sample's number scrambled.
        self.seeds = (prompt_seeds[:, None] ^ streams[None, :]).reshape(-1)
        rows = len(prompts) * config.k
        # Kept where they are computed, and fetched once: a transfer for each token would cost more than the token.
        self.written = torch.zeros((limit, rows), dtype=torch.long, device=model.device)
        self.said = torch.zeros((limit, rows), device=model.device)
        self.lengths, self.finished = np.zeros(rows, dtype=int), np.zeros(rows, dtype=bool)
        self.alive = np.arange(0)  # which row each row of the decoder is
        self.begun = 0  # prompts

    def generations(self) -> list[Generation]:
        """Draw, and return the responses in the order of the prompts."""
        while self.begun < len(self.prompts):
            ahead, token = self._begin(self.at_once), None
            while len(self.alive):
                if token is not None:
                    ahead.advance(token)
                free = self.at_once - len(self.alive) // self.config.k
                # Rows that have ended make room for the next prompts, a quarter of a batch at a time: one by one, the
                # passes over prompts would cost more than full batches gain.
                if ahead.refills and self.begun < len(self.prompts) and free >= max(1, self.at_once // 4):
                    ahead.join(self._begin(free))
                token = self._step(ahead)
        k, responses, found = self.config.k, self._responses(), []
        for i, prompt in enumerate(self.prompts):
            found.append(Generation(prompt, tuple(responses[i * k : (i + 1) * k])))
        return found

    def _begin(self, count: int) -> Decoder:
        """Return a decoder of the next prompts, whose rows are alive from now on."""
        chosen = range(self.begun, min(len(self.prompts), self.begun + count))
        # Responses are empty: only the prompts are packed.
        batch = pack([self.ids[i] for i in chosen], [[()] for _ in chosen], self.model.pad_id)
        device, k = self.model.device, self.config.k
        ahead = decoder(
            self.model.network, batch.prompt_ids.to(device), batch.prompt_mask.long().to(device), k, self.limit
        )
        self.alive = np.concatenate([self.alive, np.arange(chosen.start * k, chosen.stop * k)])
        self.begun = chosen.stop
        return ahead

    def _step(self, ahead: Decoder) -> Tensor:
        """Draw a token for each row. Rows that it ends leave the decoder; return the tokens of those that stay."""
        model, config, alive = self.model, self.config, self.alive
        ages = self.lengths[alive]
        # By token position: a row's draws do not depend on which rows are left.
        draws = torch.from_numpy(uniforms(self.seeds[alive], ages)).to(model.device)
        token, logp = choose(ahead.logits.float(), draws, config)
        at = torch.from_numpy(ages).to(model.device), torch.from_numpy(alive).to(model.device)
        self.written[at], self.said[at] = token, logp
        self.lengths[alive] = ages + 1
        ended = torch.isin(token, torch.tensor(model.eos_ids, device=model.device)).cpu().numpy()
        if config.stop:
            # A stop string may end within a token, so it is looked for in the text.
            rows = self.written[: ages.max() + 1, at[1]].T.tolist()
            ended |= _stopped(model, [row[: age + 1] for row, age in zip(rows, ages, strict=True)], config.stop)
        self.finished[alive[ended]] = True
        ended |= ages + 1 == self.limit
        # Finished rows leave the batch: nothing more is computed of them.
        self.alive = alive[~ended]
        if ended.any() and len(self.alive):
            keep = torch.from_numpy(np.flatnonzero(~ended)).to(model.device)
            ahead.keep(keep)
            token = token[keep]
        return token

    def _responses(self) -> list[Response]:
        tokens, logps = (
            [row[:length] for row, length in zip(table.T.tolist(), self.lengths, strict=True)]
            for table in (self.written, self.said)
        )
        texts = [_cut(text, self.config.stop) for text in self.model.decode(tokens)]
        return [
            Response(text, tuple(ids), tuple(values), bool(end))
            for text, ids, values, end in zip(texts, tokens, logps, self.finished, strict=True)
        ]


def choose(logits: Tensor, draws: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Return tokens by inverse CDF, and their log-probability at temperature 1, untruncated.

    Shapes: logits (N, V), draws (N,) uniform in [0, 1) -> tokens (N,), logps (N,) in nats.
    """
    if logits.shape[-1] > WIDE and config.untruncated:
        return _choose_by_blocks(logits, draws)
    # At temperature 1, whatever is sampled from: what learners take as the policy's own.
    logps = torch.log_softmax(logits, dim=-1)
    # The largest of each row: finite only if the row is.
    _check_finite(logps.amax(-1))
    if config.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        # Cumulated in float64: over a large vocabulary float32's last values would not reach 1.
        cumulative = sampling_probabilities(logits, config).double().cumsum(dim=-1)
        # Scaled by the total, so that rounding cannot leave a gap at the end.
        target = draws.double() * cumulative[:, -1]
        tokens = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(1)
        # Only a draw that rounds up to the total could lie beyond the last token.
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logps.gather(-1, tokens[:, None]).squeeze(1)


def _choose_by_blocks(logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same for a large vocabulary: first the block of tokens that the draw falls into, then the token.

    Two passes over all logits, where cumulating them takes six, most of them in float64.
    """
    probabilities = logits.softmax(dim=-1)
    vocabulary, whole = logits.shape[-1], logits.shape[-1] // BLOCK * BLOCK
    sums = probabilities[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    sums = torch.cat([sums, probabilities[:, whole:].sum(-1, keepdim=True)], dim=1)  # the last, shorter block
    _check_finite(sums.sum(-1))
    cumulative = sums.double().cumsum(dim=-1)
    # Below the total, whatever is rounded: a block that holds nothing must not be chosen.
    target = draws.double().clamp(max=1.0 - 1e-12) * cumulative[:, -1]
    block = torch.searchsorted(cumulative, target[:, None], right=True)
    size = sums.gather(1, block).double()
    # Where within its block the draw lies, as a share of it: the block is added up once more, and rounding must not
    # lead out of it.
    share = (target[:, None] - cumulative.gather(1, block) + size) / size
    tokens = block * BLOCK + torch.arange(BLOCK, device=logits.device)
    inside = probabilities.gather(1, tokens.clamp(max=vocabulary - 1)).double()
    inside = inside.masked_fill(tokens >= vocabulary, 0.0).cumsum(dim=-1)
    place = torch.searchsorted(inside, share.clamp(0.0, 1.0 - 1e-12) * inside[:, -1:], right=True)
    token = block * BLOCK + place
    return token.squeeze(1), probabilities.gather(1, token).log().squeeze(1)


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "the model's next-token logits are not finite (nan or infinite), so nothing can be sampled from it; its "
            "weights are broken, or training has diverged: lower trainer.learning_rate"
        )


def sampling_probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Return the distribution that is sampled from: temperature, then top-k, then top-p. Shapes: (N, V) -> (N, V)."""
    scaled = logits / config.temperature
    if config.top_k:
        # With ties at the k-th place all of them stay.
        kth = scaled.topk(min(config.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < kth, -torch.inf)
    if config.top_p < 1.0:
        ordered, index = scaled.sort(dim=-1, descending=False)
        # The tail from below: what together has at most 1 - p goes.
        tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - config.top_p
        tail[:, -1] = False  # the most likely token always stays
        scaled = scaled.masked_fill(tail.scatter(-1, index, tail), -torch.inf)
    return scaled.softmax(dim=-1)


def _stopped(model: LanguageModel, rows: Sequence[Sequence[int]], stops: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Tell of each row whether its text holds a stop by now. What the newest token completes stands at the end of the
    text, so that only a tail is decoded: its first characters may be others than in the whole, its last ones are not.
    """
    longest = max(map(len, stops))
    # The tail's first tokens may decode to other characters than in the whole text; a few more make up for that.
    tail = longest + SPARE
    texts = model.decode([row[-tail:] for row in rows])
    # Tokens that write nothing may have filled the tail: then the whole is decoded.
    unsure = [i for i, text in enumerate(texts) if len(rows[i]) > tail and len(text) < tail]
    for i, text in zip(unsure, model.decode([rows[i] for i in unsure]), strict=True):
        texts[i] = text  # tokens that write nothing
    return np.array([any(stop in text for stop in stops) for text in texts], dtype=bool)


def _cut(text: str, stops: tuple[str, ...]) -> str:
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text
