"""The reward model of a run: trained on its judgements round by round, an ensemble if wanted."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from rlaif_lab.records import Floats, Generation
from rlaif_lab.reward.examples import Group, RewardExample, grouped, split_by_prompt
from rlaif_lab.reward.settings import Labels, Training
from rlaif_lab.reward.validation import Validation, validate
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.checksums import read_checked, seal
from rlaif_lab.store.files import open_to_umask, write_atomically, writing

if TYPE_CHECKING:
    from rlaif_lab.models.access import JudgeContext
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.reward.network import RewardNetwork

Data = Literal["all", "latest"]
Metrics = dict[str, float]


class RewardModel:
    """Bradley-Terry reward models on the body of a causal LM, ``members`` of them.

    model: ``policy``, the weights the run started from, or the source of another model.
    data: the judgements of ``all`` rounds so far, or the ``latest`` round's only.
    members: each has a head and an order of the data of its own; all see all of the data, since resampling it costs
        more than it adds in diversity (Lakshminarayanan et al. 1612.01474; for reward models Coste et al. 2310.02743).
    validation_share: of the prompts, kept out of training in every round and for every member.
    restart: each round from ``model``'s weights, instead of the last round's reward model.
    The other arguments: see reward/settings.py and reward/losses.py.
    """

    def __init__(
        self,
        model: Literal["policy"] | ModelSource = "policy",
        data: Data = "latest",
        members: int = 1,
        passes: int = 4,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 5,
        clip_norm: float = 1.0,
        labels: Labels = "soft",
        margin: float = 0.0,
        label_smoothing: float = 0.0,
        centring: float = 0.01,
        validation_share: float = 0.1,
        restart: bool = False,
        name: str = "bradley_terry",
    ) -> None:
        if isinstance(model, str) and model != "policy":
            raise ValueError(
                "reward_model.model must be policy, or the source of another model (a mapping with _target_); "
                f"got {model!r}"
            )
        if data not in get_args(Data):
            raise ValueError(f"reward_model.data must be one of {', '.join(get_args(Data))}; got {data!r}")
        if members < 1:
            raise ValueError(f"reward_model.members must be at least 1; got {members}")
        if not 0.0 <= validation_share < 1.0:
            raise ValueError(f"reward_model.validation_share must lie in [0, 1); got {validation_share}")
        self.training = Training(
            passes=passes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            clip_norm=clip_norm,
            labels=labels,
            margin=margin,
            label_smoothing=label_smoothing,
            centring=centring,
        )
        self.model, self.data, self.size, self.name = model, data, members, name
        self.validation_share, self.restart = validation_share, restart
        self.members: list[RewardNetwork] = []

    def sources(self) -> list[ModelSource]:
        """Return the models it needs besides the policy."""
        return [] if isinstance(self.model, str) else [self.model]

    def attach(self, context: JudgeContext) -> None:
        """Load weights: called once, before the first ``fit``."""
        self.context = context
        self.base = context.policy("initial") if isinstance(self.model, str) else context.load(self.model)

    def identity(self) -> str:
        """Return what decides the reward model beside its data and the run's seed. Called after ``attach``."""
        settings = [self.base.weights_hash(), self.data, self.size, self.validation_share, self.restart]
        return repr([*settings, self.training])

    # --- training -------------------------------------------------------------------------------------------------
    def fit(self, examples: Sequence[RewardExample], round_index: int, folder: Path, previous: Path | None) -> Metrics:
        """Train every member and keep it in ``folder``/member_0, ...; what is there already is loaded.

        examples: of all rounds so far, or of this one. previous: the last round's folder, None in the first.
        Returns the metrics, which ``folder``/metrics.json keeps. Accuracy, loss (nats; ln 2 is a coin's), brier and
        ece are the ensemble's on pairs of held-out prompts, against the judge's probabilities for soft labels and its
        preferences for hard ones; accuracy_train is that on as many prompts that it has learnt from. disagreement: mean
        standard deviation between members of the difference of a pair's rewards. pairs: those trained on.
        tokens/reward_model: read in training, over all passes and members.
        """
        # With `latest`, examples of earlier rounds do not count, wherever they come from.
        wanted = [e for e in examples if self.data == "all" or e.round_index == round_index]
        learnt, held_out = split_by_prompt(grouped(wanted), self.validation_share, self.context.seed)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        start = None if self.restart else previous
        # One after the other, each whole before the next begins: a killed run trains only those that are missing.
        self.members = [self._member(i, learnt, round_index, folder, start) for i in range(self.size)]
        file = folder / "metrics.json"
        if not file.exists():
            metrics = self._measure(learnt, held_out, folder)
            write_atomically(file, json.dumps(metrics, indent=1).encode())
        return _read_metrics(file)

    def _member(
        self, number: int, groups: Sequence[Group], round_index: int, folder: Path, previous: Path | None
    ) -> RewardNetwork:
        """Return a member: loaded from a whole folder, else trained in a temporary one that is renamed when whole."""
        from rlaif_lab.reward.network import load_reward_network, with_reward_head
        from rlaif_lab.reward.training import train

        name, where = f"member_{number}", f"round {round_index}, member {number}"
        # A member's head and its order of the data are its own; the data are the same for all.
        identity = (self.context.seed, "reward model", round_index, number)
        if not (folder / name).exists():
            begun = time.perf_counter()
            if previous is None:
                model = with_reward_head(self.base, seed_for(*identity, "head"), name)
            else:
                model = load_reward_network(previous / name, name)
                model.network.to(self.base.device)
            train(model, groups, self.training, where, *identity)
            seconds = time.perf_counter() - begun
            _write_folder(folder / name, lambda partial: _save(model, partial, seconds))
        # Read back even when it was just trained, so that a resumed run goes on with the same.
        model = load_reward_network(folder / name, name)
        model.network.to(self.base.device).requires_grad_(False)
        return model

    def _measure(self, learnt: Sequence[Group], held_out: Sequence[Group], folder: Path) -> Metrics:
        # As many prompts that it has learnt from: a gap between both is overfitting.
        validation, training = self._validate(held_out), self._validate(learnt[: len(held_out)])
        seconds = [json.loads((folder / f"member_{i}" / TIMES).read_text())["seconds"] for i in range(self.size)]
        return {
            "reward_model/accuracy": validation.accuracy,
            "reward_model/accuracy_train": training.accuracy,
            "reward_model/loss": validation.loss,
            "reward_model/brier": validation.brier,
            "reward_model/ece": validation.ece,
            "reward_model/disagreement": validation.disagreement,
            "reward_model/pairs": sum(len(g.pairs) for g in learnt),
            "reward_model/pairs_held_out": sum(len(g.pairs) for g in held_out),
            "tokens/reward_model": self._tokens(learnt) * self.training.passes * self.size,
            "time/reward_model_s": sum(seconds),
        }

    def _tokens(self, groups: Sequence[Group]) -> int:
        """Return the tokens that one pass over these prompts reads, a prompt once for all its answers."""
        encoded = self.members[0].encode([(g.prompt, g.answers) for g in groups])
        return sum(len(prompt) + sum(map(len, answers)) for prompt, answers in encoded)

    def _validate(self, groups: Sequence[Group]) -> Validation:
        asked = [(g.prompt, g.answers) for g in groups]
        differences = [
            [row[i] - row[j] for row, g in zip(scores, groups, strict=True) for i, j, _ in g.pairs]
            for scores in (member.score(asked, self.training.batch_size).rewards for member in self.members)
        ]
        hard = self.training.labels == "hard"
        labels = [1.0 if hard else p for g in groups for _, _, p in g.pairs]
        return validate(np.array(differences), np.array(labels))

    # --- rewards --------------------------------------------------------------------------------------------------
    def rewards(self, generations: Sequence[Generation]) -> tuple[Floats, Floats]:
        """Return the mean over members of every response's reward, and their standard deviation: (N, k) each.

        A Bradley-Terry reward is defined up to a constant per prompt, so a member's mean over the prompt's responses is
        taken off before members are compared. Equal texts get equal rewards. Call ``fit`` first.
        """
        assert self.members, "no reward model has been trained or loaded"
        # Equal texts are rewarded once.
        asked = [(g.prompt, list(dict.fromkeys((r.text, r.finished) for r in g.responses))) for g in generations]
        by_member = []
        for member in self.members:
            scores = [
                dict(zip(answers, row, strict=True))
                for (_, answers), row in zip(asked, member.score(asked, self.training.batch_size).rewards, strict=True)
            ]
            by_member.append(
                [[s[r.text, r.finished] for r in g.responses] for s, g in zip(scores, generations, strict=True)]
            )
        values = np.array(by_member)
        # Less each member's own level on the prompt, which Bradley-Terry leaves free.
        return values.mean(0), (values - values.mean(2, keepdims=True)).std(0)


# --- files --------------------------------------------------------------------------------------------------------
TIMES = "training.json"


def _save(model: RewardNetwork, folder: Path, seconds: float) -> None:
    model.save(folder)
    (folder / TIMES).write_text(json.dumps({"seconds": seconds}))


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder all or nothing: temporary folder, fsync, rename."""
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        # What a killed run left half-written.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        open_to_umask(partial)
        seal(partial)
        # On the disk before the rename, as for single files.
        for file in partial.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        partial.rename(folder)


def _read_metrics(path: Path) -> Metrics:
    try:
        metrics: Metrics = json.loads(read_checked(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is corrupt ({error}); delete it to have it computed again") from None
    return metrics
