"""The reward model of a run: what it learns, that it is the same whenever it is computed, and what a crash leaves."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.oracle import OracleJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation
from rlaif_lab.reward.examples import RewardExample, examples_from, grouped, split_by_prompt
from rlaif_lab.reward.model import RewardModel
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.arithmetic import Addition

WEIGHTS = "member_{}/model.safetensors"


@pytest.fixture(scope="module")
def generations(organism: LanguageModel, task: Addition) -> list[Generation]:
    """What the organism answers; few of it is right, and nearly every prompt has wrong answers of all lengths."""
    prompts = task.prompts("rounds", 0, 1600, 0)
    return sample(organism, prompts, SamplingConfig(k=16), task.max_response_tokens, 0, "reward tests")


@pytest.fixture(scope="module")
def gold(generations: list[Generation], task: Addition) -> list[RewardExample]:
    """Every pair of a right and a wrong answer."""
    oracle = OracleJudge()
    oracle.attach(JudgeContext(0, None, None, task))  # type: ignore[arg-type]
    return examples_from(0, generations, judge_generations(oracle, generations))


@pytest.fixture(scope="module")
def some(generations: list[Generation]) -> list[RewardExample]:
    """A few pairs with made-up labels."""
    pairs = [(g, g.responses[0], g.responses[1]) for g in generations[:60]]
    chances = rng_for(0, "made up").uniform(0.5, 1.0, len(pairs))
    return [
        RewardExample(g.prompt, a, b, p, 0) for (g, a, b), p in zip(pairs, chances, strict=True) if a.text != b.text
    ]


def reward_model(base: LanguageModel, seed: int = 0, **settings: Any) -> RewardModel:
    model = RewardModel(**({"batch_size": 16, "passes": 1, "learning_rate": 1e-3} | settings))
    model.attach(JudgeContext(seed, lambda name: base, lambda source: base, None))
    return model


def differences(model: RewardModel, examples: list[RewardExample]) -> np.ndarray:
    """Reward of the chosen minus that of the rejected: (P,)."""
    rewards, _ = model.rewards([Generation(e.prompt, (e.chosen, e.rejected)) for e in examples])
    return rewards[:, 0] - rewards[:, 1]


def contents(folder: Path) -> dict[str, bytes]:
    """All that is kept of a fit, but how long it took."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    metrics = json.loads(files.pop("metrics.json"))
    del metrics["time/reward_model_s"]
    for name in [name for name in files if name.endswith("checksums.txt")]:
        files[name] = b"\n".join(line for line in files[name].split(b"\n") if not line.endswith(b"training.json"))
    return {k: v for k, v in files.items() if not k.endswith("training.json")} | {"": json.dumps(metrics).encode()}


# --- what it learns ---------------------------------------------------------------------------------------------------
def test_it_learns_what_is_right_from_gold_labels(
    organism: LanguageModel, gold: list[RewardExample], tmp_path: Path
) -> None:
    model = reward_model(organism, passes=8, learning_rate=3e-3, validation_share=0.3)
    metrics = model.fit(gold, 0, tmp_path, None)
    n = metrics["reward_model/pairs_held_out"]
    assert n > 150
    assert metrics["reward_model/accuracy"] > 0.5 + 4 * 0.5 / math.sqrt(n)
    assert metrics["reward_model/loss"] < math.log(2)
    assert metrics["reward_model/brier"] < 0.25
    assert metrics["reward_model/pairs"] + n == len(gold)


def test_held_out_prompts_never_reach_the_weights(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    _, held_out = split_by_prompt(grouped(some), 0.3, seed=0)
    names = {g.prompt.id for g in held_out}
    assert 5 < len(names) < len(some) - 5
    turned = [replace(e, chosen=e.rejected, rejected=e.chosen) if e.prompt.id in names else e for e in some]
    metrics = []
    for name, examples in (("as judged", some), ("turned", turned)):
        model = reward_model(organism, validation_share=0.3)
        metrics.append(model.fit(examples, 0, tmp_path / name, None))
    assert len({(tmp_path / name / WEIGHTS.format(0)).read_bytes() for name in ("as judged", "turned")}) == 1
    right, wrong = (m["reward_model/accuracy"] for m in metrics)
    assert right == pytest.approx(1 - wrong)


def test_pairs_that_are_even_end_up_with_equal_rewards(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    even = [replace(e, prob_chosen_wins=0.5) for e in some]
    spread = []
    for passes, rate in ((1, 1e-9), (60, 2e-3)):
        model = reward_model(organism, passes=passes, learning_rate=rate, validation_share=0.0, labels="soft")
        model.fit(even, 0, tmp_path / str(passes), None)
        spread.append(np.abs(differences(model, even)).mean())
    assert spread[1] < 0.1 * spread[0]


def test_centring_pulls_the_rewards_to_zero(organism: LanguageModel, some: list[RewardExample], tmp_path: Path) -> None:
    means = []
    for centring in (0.0, 1.0):
        model = reward_model(organism, passes=30, centring=centring, validation_share=0.0)
        model.fit(some, 0, tmp_path / str(centring), None)
        rewards, _ = model.rewards([Generation(e.prompt, (e.chosen, e.rejected)) for e in some])
        means.append(np.abs(rewards.mean(1)).mean())
    assert means[1] < 0.3 * means[0]


def test_a_margin_drives_the_rewards_apart(organism: LanguageModel, some: list[RewardExample], tmp_path: Path) -> None:
    apart = []
    for margin in (0.0, 3.0):
        model = reward_model(organism, passes=20, margin=margin, labels="hard", validation_share=0.0)
        model.fit(some, 0, tmp_path / str(margin), None)
        apart.append(differences(model, some).mean())
    assert apart[1] > apart[0] + 0.5


# --- ensembles --------------------------------------------------------------------------------------------------------
def test_members_disagree_and_copies_do_not(
    organism: LanguageModel, some: list[RewardExample], generations: list[Generation], tmp_path: Path
) -> None:
    model = reward_model(organism, members=2, validation_share=0.3)
    metrics = model.fit(some, 0, tmp_path / "two", None)
    mean, std = model.rewards(generations[:20])
    assert mean.shape == std.shape == (20, 16)
    assert metrics["reward_model/disagreement"] > 0
    assert (std > 0).all()

    (tmp_path / "copies").mkdir()
    for i in range(2):
        shutil.copytree(tmp_path / "two" / "member_0", tmp_path / "copies" / f"member_{i}")
    copies = reward_model(organism, members=2, validation_share=0.3)
    assert copies.fit(some, 0, tmp_path / "copies", None)["reward_model/disagreement"] == 0.0
    assert (copies.rewards(generations[:20])[1] == 0.0).all()


def test_the_ensembles_reward_is_the_members_mean(
    organism: LanguageModel, some: list[RewardExample], generations: list[Generation], tmp_path: Path
) -> None:
    """Each member alone is what it is in company: its seed is its number. A constant per prompt is no disagreement."""
    model = reward_model(organism, members=2)
    model.fit(some, 0, tmp_path / "two", None)
    one, other = (
        [
            [member.score([(g.prompt, [(r.text, r.finished)])], 1).rewards[0][0] for r in g.responses]
            for g in generations[:5]
        ]
        for member in model.members
    )
    mean, std = model.rewards(generations[:5])
    np.testing.assert_allclose(mean, (np.array(one) + np.array(other)) / 2, atol=1e-5)
    apart = np.array(one) - np.array(other)
    np.testing.assert_allclose(std, np.abs(apart - apart.mean(1, keepdims=True)) / 2, atol=1e-5)
    alone = reward_model(organism, members=1)
    alone.fit(some, 0, tmp_path / "one", None)
    assert alone.members[0].weights_hash() == model.members[0].weights_hash() != model.members[1].weights_hash()
    assert (alone.rewards(generations[:5])[1] == 0.0).all()


def test_equal_texts_have_equal_rewards(
    organism: LanguageModel, some: list[RewardExample], generations: list[Generation], tmp_path: Path
) -> None:
    model = reward_model(organism)
    model.fit(some, 0, tmp_path, None)
    g = generations[0]
    rewards, _ = model.rewards([Generation(g.prompt, (*g.responses, *g.responses))])
    assert rewards[0, :16].tolist() == rewards[0, 16:].tolist()


# --- the same whenever it is computed ---------------------------------------------------------------------------------
def test_two_fits_are_equal_to_the_byte_and_another_seed_is_another(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    for name, seed, noise in (("one", 0, 1), ("two", 0, 2), ("other", 1, 1)):
        torch.manual_seed(noise)
        reward_model(organism, seed, members=2).fit(some, 0, tmp_path / name, None)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one[WEIGHTS.format(0)] != other[WEIGHTS.format(0)]


def test_what_is_there_is_loaded_and_not_trained_again(
    organism: LanguageModel, some: list[RewardExample], generations: list[Generation], tmp_path: Path
) -> None:
    first = reward_model(organism, members=2)
    metrics = first.fit(some, 0, tmp_path, None)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    again = reward_model(organism, members=2)
    assert again.fit(some, 0, tmp_path, None) == metrics
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == stamps
    for one, other in zip(first.rewards(generations[:5]), again.rewards(generations[:5]), strict=True):
        assert one.tolist() == other.tolist()


def test_killed_between_members_it_ends_as_if_it_had_not_been(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    settings = {"members": 3, "passes": 4}
    reward_model(organism, **settings).fit(some, 0, tmp_path / "straight", None)
    killed = tmp_path / "killed"
    child = multiprocessing.get_context("fork").Process(
        target=lambda: reward_model(organism, **settings).fit(some, 0, killed, None)
    )
    child.start()
    while not (killed / "member_0").exists():
        assert child.is_alive()
        time.sleep(0.001)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (killed / "metrics.json").exists()
    reward_model(organism, **settings).fit(some, 0, killed, None)
    assert contents(killed) == contents(tmp_path / "straight")


# --- rounds -----------------------------------------------------------------------------------------------------------
def test_rounds_go_on_from_the_last_one_or_start_again(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    later = [replace(e, round_index=1) for e in some[::2]]

    def weights(name: str, examples: list[RewardExample], previous: str | None, **settings: Any) -> bytes:
        folder = tmp_path / name
        reward_model(organism, **settings).fit(
            examples, int(previous is not None), folder, previous and tmp_path / previous
        )  # type: ignore[arg-type]
        return (folder / WEIGHTS.format(0)).read_bytes()

    weights("first", some, None)
    on = weights("on", [*some, *later], "first", data="latest")
    assert on == weights("on, latest given alone", later, "first", data="latest")
    assert on != weights("on, all", [*some, *later], "first", data="all")
    again = weights("again", [*some, *later], "first", data="latest", restart=True)
    assert again != on
    weights("first, other", some, None, learning_rate=1e-2)
    assert again == weights("again from there", [*some, *later], "first, other", data="latest", restart=True)


def test_another_model_may_be_the_one_to_start_from(
    organism: LanguageModel, untrained: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    source: Any = object()
    model = RewardModel(model=source, batch_size=16, passes=1)
    assert model.sources() == [source]
    assert RewardModel().sources() == []
    model.attach(JudgeContext(0, lambda name: organism, {source: untrained}.__getitem__, None))
    model.fit(some, 0, tmp_path / "other", None)
    reward_model(untrained).fit(some, 0, tmp_path / "same", None)
    assert len({(tmp_path / name / WEIGHTS.format(0)).read_bytes() for name in ("other", "same")}) == 1


def test_a_round_without_preferences_leaves_the_model_as_it_was(organism: LanguageModel, tmp_path: Path) -> None:
    metrics = reward_model(organism, members=2).fit([], 0, tmp_path / "0", None)
    assert metrics["reward_model/pairs"] == 0
    assert math.isnan(metrics["reward_model/accuracy"])
    reward_model(organism, members=2).fit([], 1, tmp_path / "1", tmp_path / "0")
    assert len({(tmp_path / r / WEIGHTS.format(1)).read_bytes() for r in "01"}) == 1


def test_training_leaves_the_policy_as_it_was(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    before = organism.weights_hash()
    reward_model(organism, learning_rate=1e-2).fit(some, 0, tmp_path, None)
    assert organism.weights_hash() == before
    assert not any(p.requires_grad for p in organism.network.parameters())


# --- what cannot be ---------------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_finite_is_an_error_with_round_and_member(
    organism: LanguageModel, some: list[RewardExample], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"round 2, member 0: loss .* lower reward_model.learning_rate"):
        reward_model(organism, data="all", passes=20, learning_rate=1e30, clip_norm=0).fit(some, 2, tmp_path, None)
    assert not (tmp_path / "member_0").exists()


def test_corrupt_metrics_are_named(organism: LanguageModel, tmp_path: Path) -> None:
    reward_model(organism).fit([], 0, tmp_path, None)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics.json' is corrupt .* delete it"):
        reward_model(organism).fit([], 0, tmp_path, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "judge"),
        ("data", "newest"),
        ("members", 0),
        ("passes", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -0.1),
        ("warmup_steps", -1),
        ("clip_norm", -1.0),
        ("labels", "firm"),
        ("margin", -1.0),
        ("label_smoothing", 0.5),
        ("centring", -0.1),
        ("validation_share", 1.0),
    ],
)
def test_impossible_settings_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"reward_model.{key} must .*got {value!r}"):
        RewardModel(**{key: value})


def test_the_yaml_files_are_the_constructors(task: Addition) -> None:
    import inspect

    from omegaconf import OmegaConf

    from rlaif_lab.config import config_dir

    keys = OmegaConf.load(Path(config_dir()) / "reward_model" / "bradley_terry.yaml")
    defaults = {k: p.default for k, p in inspect.signature(RewardModel).parameters.items()}
    assert {k: v for k, v in keys.items() if k != "_target_"} == defaults  # type: ignore[union-attr]


def test_pairs_of_one_prompt_are_all_used(organism: LanguageModel, gold: list[RewardExample], tmp_path: Path) -> None:
    """A prompt's k responses make up to k (k - 1) / 2 pairs; none is lost in grouping."""
    several = max((list(es) for _, es in itertools.groupby(gold, key=lambda e: e.prompt.id)), key=len)
    assert len(several) > 3
    metrics = reward_model(organism, validation_share=0.0).fit(several, 0, tmp_path, None)
    assert metrics["reward_model/pairs"] == len(several)
