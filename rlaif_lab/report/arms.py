"""Runs -> arms: which runs are seeds of the same thing, and in what the arms differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlaif_lab.config import NOT_IN_FINGERPRINT
from rlaif_lab.config.older import with_later_settings
from rlaif_lab.report.load import Problem, Run, Runs
from rlaif_lab.store.outcome import read_outcome

IGNORED = (set(NOT_IN_FINGERPRINT) - {"rounds"}) | {"seed", "weights", "versions", "git_commit", "labellers"}
"""Top-level config keys in which the seeds of one arm may differ."""

Settings = dict[str, str]
"""A config, flat: dotted key -> value as text."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in the seed only.

    name: the config's arm. distinction: settings that tell it from other arms of that name, usually none.
    runs: one per seed, sorted by seed; the incomplete ones too.
    """

    name: str
    distinction: Settings
    runs: list[Run]

    @property
    def label(self) -> str:
        """Return the arm's name and what else tells it apart, such as ``self (learner.beta=0.1)``."""
        settings = ", ".join(f"{key}={value}" for key, value in self.distinction.items())
        return f"{self.name} ({settings})" if settings else self.name

    @property
    def settings(self) -> Settings:
        return flat(self.runs[0].config)

    @property
    def complete(self) -> list[Run]:
        return [run for run in self.runs if run.complete]


@dataclass(frozen=True)
class Study:
    """Everything the report is made from.

    title: the experiments in it. folder: the name of the folder it was read from.
    arms: sorted by label. problems: what is not, or not wholly, in the numbers. notes: what a reader should know
    about how runs were pooled.
    """

    title: str
    folder: str
    arms: list[Arm]
    problems: list[Problem]
    notes: list[str]
    commands: list[str]

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms for run in arm.runs]


def study(found: Runs, folder: str) -> Study:
    """Group runs into arms; a second run of the same arm, seed and config is set aside, since it is no new seed."""
    by_name: dict[str, list[Run]] = defaultdict(list)
    for run in found.runs:
        by_name[run.arm].append(run)
    # Runs of one arm whose configs hold other keys are of several versions of the lab.
    if any(len({frozenset(flat(run.config)) for run in runs}) > 1 for runs in by_name.values()):
        by_name = {
            name: [replace(run, config=with_later_settings(run.config)) for run in runs]
            for name, runs in by_name.items()
        }
    arms: list[Arm] = []
    notes: list[str] = []
    problems = list(found.failed)
    for name in sorted(by_name):
        for distinction, runs in split(by_name[name]):
            kept, repeated = one_per_seed(runs)
            arms.append(Arm(name, distinction, kept))
            problems += repeated
            notes += _pooled(arms[-1])
    notes += organisms(found.runs)
    for run in (run for arm in arms for run in arm.runs if not run.complete):
        lacking = run.missing_rounds
        whole = f"of rounds 0 to {run.last_round}"
        reason = f"incomplete: {len(lacking)} {whole} not logged, the first is round {lacking[0]}"
        why = read_outcome(run.path) if run.path else ""
        problems.append(Problem(run.name, f"{reason}; {why}" if why else reason))
    problems.sort(key=lambda problem: problem.name)
    title = ", ".join(sorted({str(run.config.get("experiment_name", "runs")) for run in found.runs}))
    return Study(
        title, folder, sorted(arms, key=lambda arm: arm.label), problems=problems, notes=notes, commands=found.commands
    )


def split(runs: Sequence[Run]) -> list[tuple[Settings, list[Run]]]:
    """Return the runs of one arm name by what else they differ in, with the settings that tell groups apart.

    A key that takes another value for each seed (a base model per seed, say) splits nothing.
    """
    settings = [flat(run.config) for run in runs]
    keys = [key for key in differing(settings) if not _follows_seed(key, runs, settings)]
    groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for index, setting in enumerate(settings):
        groups[tuple(setting.get(key) for key in keys)].append(index)
    naming = _telling_apart(keys, [settings[members[0]] for members in groups.values()])
    return [
        (
            {key: settings[members[0]][key] for key in naming if key in settings[members[0]]},
            [runs[index] for index in members],
        )
        for members in groups.values()
    ]


def one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Problem]]:
    """Return the run of each seed that got furthest, of equals the last by name (names start with the date), sorted by
    seed; and the others."""
    kept: dict[int, Run] = {}
    # Ascending: of each seed the run that got furthest is entered last, and stays.
    for run in sorted(runs, key=lambda run: (run.complete, len(run.rows), run.name)):
        kept[run.seed] = run
    repeated = [
        Problem(run.name, f"not used: same arm, seed and config as {kept[run.seed].name}")
        for run in runs
        if run is not kept[run.seed]
    ]
    return [kept[seed] for seed in sorted(kept)], repeated


def baseline_for(arm: Arm, arms: Sequence[Arm], baseline: str) -> Arm | None:
    """Return the arm that ``arm`` is compared with; None for the baseline itself, or where there is none.

    baseline: a full label, or an arm's name. Of several arms of that name (or of the only one, where ``arm`` itself is
    one of several), the one that agrees with ``arm`` in the settings that tell either from its namesakes.
    """
    if arm.name == baseline or arm.label == baseline:
        return None
    # A full label names one arm, whatever else that is set to.
    for other in arms:
        if other.label == baseline and other.distinction:
            return other

    def agree(settings: Settings, distinction: Settings) -> bool:
        return all(settings.get(key, value) == value for key, value in distinction.items())

    fitting = [
        other
        for other in arms
        if other.name == baseline and agree(other.settings, arm.distinction) and agree(arm.settings, other.distinction)
    ]
    return fitting[0] if len(fitting) == 1 else None


def differences(arms: Sequence[Arm]) -> dict[str, list[str | None]]:
    """Return the config keys in which the arms differ -> value in each arm, None where it has no such key."""
    settings = [arm.settings for arm in arms]
    # A setting in which even the seeds of one arm differ does not tell arms apart.
    followed = {key for arm in arms for key in differing([flat(run.config) for run in arm.runs])}
    return {key: [s.get(key) for s in settings] for key in differing(settings) if key not in followed}


# --- configs --------------------------------------------------------------------------------------------------------
def flat(config: dict[str, Any]) -> Settings:
    """Return what decides a run's numbers, but for the seed."""
    settings: Settings = {}

    def walk(prefix: str, value: Any) -> None:
        # An empty mapping has no keys to go into: it is a value.
        if isinstance(value, dict) and value:
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        else:
            settings[prefix] = value if isinstance(value, str) else json.dumps(value)

    walk("", {key: value for key, value in config.items() if key not in IGNORED})
    return settings


def differing(settings: Sequence[Settings]) -> list[str]:
    """Return the keys that do not have one and the same value everywhere, sorted."""
    keys = sorted({key for setting in settings for key in setting})
    return [key for key in keys if len({setting.get(key) for setting in settings}) > 1]


def _follows_seed(key: str, runs: Sequence[Run], settings: Sequence[Settings]) -> bool:
    """Return whether there is one value for each seed, and another for every other. Never the number of rounds: final
    values of runs of different lengths are not comparable."""
    values: dict[int, set[str | None]] = defaultdict(set)
    for run, setting in zip(runs, settings, strict=True):
        values[run.seed].add(setting.get(key))
    one_each = all(len(held) == 1 for held in values.values())
    return key != "rounds" and one_each and len(set.union(*values.values())) == len(values)


def _telling_apart(keys: Sequence[str], groups: Sequence[Settings]) -> list[str]:
    """Return a short selection of ``keys`` that tells the groups apart: names first, then the shortest."""
    chosen: list[str] = []

    def classes(some: Sequence[str]) -> int:
        return len({tuple(group.get(key) for key in some) for group in groups})

    for key in sorted(keys, key=lambda key: (not key.endswith(".name"), key.endswith("_target_"), len(key), key)):
        if classes([*chosen, key]) > classes(chosen):
            chosen.append(key)
    return sorted(chosen)


def organisms(runs: Sequence[Run]) -> list[str]:
    """Return which organisms the runs had, by role and block, and what their intervals are therefore over.

    A recipe gives other weights on other machines. Runs of one block whose weights differ are named: they are pooled,
    and a reader should know.
    """
    held: dict[str, dict[int, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in runs:
        for role, weights in run.config.get("weights", {}).items():
            named = role if role == "policy" else f"{role} of {run.arm}"
            held[named][int(run.config.get("block", 0))][str(weights)].append(run.name)
    notes = []
    for role, blocks in sorted(held.items()):
        for block, found in sorted(blocks.items()):
            if len(found) > 1:
                groups = "; ".join(f"{weights[:12]}: {', '.join(names)}" for weights, names in sorted(found.items()))
                notes.append(f"Block {block} has unequal weights as {role} ({groups}); these runs were pooled.")
        hashes = ", ".join(f"block {b}: {w[:12]}" for b, found in sorted(blocks.items()) for w in found)
        notes.append(f"Weights of the {role}: {hashes}.")
    if len(held.get("policy", {})) == 1 and len({run.seed for run in runs}) > 1:
        notes.append(
            "All seeds share one policy organism: intervals are over prompts and draws, conditional on it. In a study "
            "the unit is the block (block=${seed})."
        )
    return notes


def _pooled(arm: Arm) -> list[str]:
    """Return a warning for each key that follows the seed without being one."""
    settings = [flat(run.config) for run in arm.runs]
    notes = []
    for key in differing(settings):
        if key != "block" and not key.endswith("seed"):
            values = ", ".join(f"seed {r.seed}: {s.get(key)}" for r, s in zip(arm.runs, settings, strict=True))
            notes.append(f"The seeds of {arm.label} also differ in {key} ({values}); they were pooled.")
    return notes
