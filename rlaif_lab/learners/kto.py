"""Kahneman-Tversky optimisation: single responses, each labelled desirable or undesirable."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.feedback.matrices import win_rates
from rlaif_lab.learners.base import Batch, Learner, Reference, mean_of, one_of, sequence_logps
from rlaif_lab.learners.losses import kto, kto_reference_point
from rlaif_lab.learners.preference import check_not_negative, check_positive, per_token

LabelsFrom = Literal["pairs", "win_rates"]


class KTO(Learner):
    """KTO (Ethayarajh et al. 2402.01306). An example is one response; its signal is 1 (desirable) or -1 (undesirable).

    labels_from: ``pairs`` takes every pair apart, the chosen response desirable and the rejected one undesirable;
        ``win_rates`` reads all k responses of a prompt: desirable if it wins more than half of its comparisons,
        undesirable if less, left out if just half.
    beta: as in DPO. desirable_weight, undesirable_weight: lambda_D and lambda_U; where the numbers n of the two
        kinds differ, as they may with ``win_rates``, the paper wants lambda_D n_D at or a little above lambda_U n_U.
    nll_weight: weight of the desirable responses' negative log-likelihood per token; undesirable ones count 0 there.

    The reference point z_ref stands for KL(pi || pi_ref). The paper estimates it from other prompts' responses,
    (x, y') mismatched, because it trains on data that the policy did not write and sampling is slow. Here the
    responses *are* the policy's own, so their log-ratios estimate the divergence itself, without a second forward
    pass: the batch mean, with importance weights pi / pi_sampled, since they were drawn with the weights that the round
    started from. (Without the weights its expectation is below 0 for the reference ``previous_round``, the sampler
    itself, and the clamp would always hold.) It is clamped at 0 and carries no gradient.

    All but z_ref is a mean over examples. z_ref is that of a forward pass, so a batch cut in parts and accumulated has
    slightly other gradients than the whole.

    Logged as by PairLearner. chosen_nll and reward_margin compare the desirable and the undesirable responses of a
    batch, and are left out where it has none; reward_accuracy is how often a response is on its side of z_ref.
    """

    def __init__(
        self,
        beta: float = 0.1,
        labels_from: LabelsFrom = "pairs",
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        nll_weight: float = 0.5,
        reference: Reference = "previous_round",
        name: str = "kto",
    ) -> None:
        super().__init__(reference)
        check_positive("learner.beta", beta)
        one_of("learner.labels_from", labels_from, LabelsFrom)
        check_not_negative("learner.desirable_weight", desirable_weight)
        check_not_negative("learner.undesirable_weight", undesirable_weight)
        check_not_negative("learner.nll_weight", nll_weight)
        if desirable_weight == undesirable_weight == 0:
            raise ValueError("learner.desirable_weight and learner.undesirable_weight cannot both be 0")
        self.beta, self.labels_from, self.nll_weight, self.name = beta, labels_from, nll_weight, name
        self.desirable_weight, self.undesirable_weight = desirable_weight, undesirable_weight
        # Only one of the two is collected as feedback; win rates are in the judgements.
        self.needs = ("judgements", "pairs") if labels_from == "pairs" else ("judgements",)

    def examples(self, feedback: Feedback) -> list[Example]:
        return _from_pairs(feedback) if self.labels_from == "pairs" else _from_win_rates(feedback)

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        totals = sequence_logps(logps)
        policy, desirable = totals[:, 0], batch.signal[:, 0] > 0
        ratios = policy - sequence_logps(batch.reference_logps)[:, 0]
        # Ratios to the reference, and the drift since sampling, which corrects for whose responses they are.
        z_ref = kto_reference_point(ratios, policy - sequence_logps(batch.sampled_logps)[:, 0])
        losses = kto(
            ratios,
            desirable,
            z_ref,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        nll = -per_token(totals, batch)[:, 0]
        preference = losses.mean()
        rewards = self.beta * ratios.detach()
        logged = {
            "preference_loss": preference.detach(),
            # On its side of z: what the loss asks for.
            "reward_accuracy": mean_of(((ratios > z_ref) == desirable).float()),
            "kto_reference_point": z_ref,
        }
        # A batch may hold one kind only: no mean of the other is logged then.
        if desirable.any():
            logged["chosen_nll"] = mean_of(nll[desirable])
            if not desirable.all():
                logged["reward_margin"] = mean_of(rewards[desirable]) - mean_of(rewards[~desirable])
        # Masked and not selected: the mean stays over all examples, as for the losses.
        return preference + self.nll_weight * (nll * desirable).mean(), logged


def _from_pairs(feedback: Feedback) -> list[Example]:
    responses = {g.prompt.id: g.responses for g in feedback.generations}
    return [
        Example(pair.prompt, (responses[pair.prompt.id][sample],), (signal,), feedback.round_index)
        for pair in feedback.pairs
        # A pair apart: each response is an example of its own, whatever became of the other.
        for sample, signal in ((pair.sample_chosen, 1.0), (pair.sample_rejected, -1.0))
    ]


def _from_win_rates(feedback: Feedback) -> list[Example]:
    # Hard: what counts is whether it wins more than half of its comparisons.
    rates = win_rates(feedback.prob_beats, hard=True)
    return [
        Example(g.prompt, (response,), (1.0 if rate > 0.5 else -1.0,), feedback.round_index)
        for g, row in zip(feedback.generations, rates, strict=True)
        for response, rate in zip(g.responses, row, strict=True)
        if rate > 0.5 or rate < 0.5  # nan, a response without any verdict, is neither
    ]
