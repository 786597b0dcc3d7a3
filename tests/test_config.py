"""The checks that run before any weights load, and the fingerprint of a run."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.cli import command
from rlaif_lab.cli.command import without_null
from rlaif_lab.config import FAMILIES, build, check, check_target, config_dir, did_you_mean, fingerprint, job_name

CHOICES = [
    f"{folder.name}={file.stem}"
    for folder in sorted(Path(config_dir()).iterdir())
    if folder.is_dir() and folder.name in FAMILIES
    for file in sorted(folder.glob("*.yaml"))
    if file.stem != "none" or folder.name == "logger"  # which puts an optional family out
]


NEEDS_A_VALUE = {
    "hf": {},
    "hf_sft": {"path": "{}/rows.jsonl", "of.path": "{}"},
    "prompts": {"path": "{}/rows.jsonl"},
    "answers": {"path": "{}/rows.jsonl", "grader": "exact"},
    "file": {"path": "{}/rows.jsonl"},
    "hub": {"dataset": "owner/name"},
    "reward_model": {"path": "{}"},
    "api": {"base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key_env": "null"},
    "vllm": {"python": sys.executable},
    "vllm_server": {"base_url": "http://127.0.0.1:1"},
}
"""Choices that say nothing until they are told a path, a name, ..."""


def config(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def error_of(*overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        check(config(*overrides))
    return str(caught.value)


# --- what is shipped ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_on_offer_passes_the_check_and_builds(choice: str, tmp_path: Path, organism: Any) -> None:
    family, name = choice.split("=")
    overrides = [choice]
    if name in NEEDS_A_VALUE:
        organism.save(tmp_path)
        (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "response": "2", "answer": "2"}\n')
        if name == "hf":
            overrides.append(f"policy.path={tmp_path}" if family == "policy" else f"judge.weights.path={tmp_path}")
        overrides += [f"{family}.{key}={value.format(tmp_path)}" for key, value in NEEDS_A_VALUE[name].items()]
    cfg = config(*overrides)
    check(cfg)
    if choice != "judge=reward_model":  # the folder is a language model's
        assert build(cfg[family], family) is not None


@pytest.mark.parametrize("file", sorted((Path(config_dir()) / "experiment").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_experiment_sweeps_over_choices_that_pass_the_check(file: Path) -> None:
    params = OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params", default={})
    check(config(f"experiment={file.stem}"))
    for key, values in params.items():
        for value in str(values).split(","):
            check(config(f"experiment={file.stem}", f"{key}={value.strip()}"))


def test_the_check_loads_no_heavy_library() -> None:
    code = (
        "import sys; from rlaif_lab.cli import lab as run; from rlaif_lab.config import check, config_dir;"
        "from hydra import compose, initialize_config_dir;"
        "c = initialize_config_dir(config_dir(), version_base='1.3'); c.__enter__(); check(compose('config'));"
        "print([m for m in ('transformers', 'pytorch_lightning', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- mistakes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["+learner.klip=0.3"], ["learner.klip", "RLOO takes no such argument", "did you mean 'clip'?", "kl_weight"]),
        (["+sampler.temprature=1"], ["sampler.temprature", "did you mean 'temperature'?"]),
        (["+judge.zzzzzz=1"], ["judge.zzzzzz", "ModelJudge takes no such argument; it takes"]),
        (["judge=stronger", "+judge.weights.widht=3"], ["judge.weights.widht", "did you mean 'width'?"]),
        (["judge=reversed", "+judge.of.flop=1"], ["judge.of.flop", "OracleJudge"]),
        (["~learner.reward", "learner._target_=rlaif_lab.learners.dpo.DPO"], ["learner.clip", "DPO"]),
        (["judge=noisy_oracle", "~policy.skill"], ["policy.skill is missing", "Organism needs it"]),
        (
            ["learner._target_=rlaif_lab.learners.rloo.RLO"],
            ["learner._target_", "has no 'RLO'", "did you mean 'RLOO'?"],
        ),
        (["learner._target_=rlaif_lab.learnerss.rloo.RLOO"], ["learner._target_: cannot import", "learnerss"]),
        (["learner._target_=RLOO"], ["learner._target_: cannot import 'RLOO'"]),
        (["~learner._target_"], ["learner must be a mapping with a _target_"]),
        (["judge=hf"], ["judge.weights.path has no value", "judge.weights.path=..."]),
        (
            ["task=answers"],
            ["task.grader (exact | number | choice | math |", ") and task.path have no value; give them"],
        ),
        (["judge=hf", "task=answers", "task.path=x"], ["judge.weights.path and task.grader (exact", "have no value"]),
        (["rounds=0"], ["rounds must be at least 1; got 0"]),
        (["prompts_per_round=-1"], ["prompts_per_round must be at least 1"]),
        (["threads=0"], ["threads must be at least 1; got 0"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) and len(v) < 3 else "",
)
def test_a_mistake_is_one_sentence_that_names_the_key(overrides: list[str], parts: list[str]) -> None:
    message = error_of(*overrides)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=many", "rounds must be an integer in [1, 1000000]; got 'many'"),
        ("seed=0.5", "seed must be an integer in [0, 4294967296); got 0.5"),
        ("evaluation.prompts=x", "evaluation.prompts must be an integer"),
        ("resume=perhaps", "resume must be true or false; got 'perhaps'"),
        ("+roundz=3", "unknown key 'roundz' (did you mean 'rounds'?)"),
        ("+evaluation.promts=3", "unknown key 'evaluation.promts'"),
        ("evaluation=3", "evaluation"),
    ],
)
def test_the_core_is_typed_and_closed(override: str, message: str) -> None:
    assert message in error_of(override)


def test_a_hint_names_a_key_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or other choices of the group: whatever is misspelt, moved to another part, or sought below a plain value."""
    cfg = config("judge=self")
    monkeypatch.setattr(command, "composed_without", lambda *_: cfg)
    keys = ["seed", "rounds", *(f"{family}.{key}" for family in ("judge", "trainer", "sampler") for key in cfg[family])]
    wrong = [f"{key}x" for key in keys] + [key[:-1] for key in keys]
    wrong += [f"{a}.{b.rpartition('.')[2]}" for a in ("judge", "learner", "bank", "nobody") for b in keys]
    wrong += [f"{key}.path" for key in keys]
    for key in wrong:
        with contextlib.suppress(OmegaConfBaseException):  # below a list, say
            if OmegaConf.select(cfg, key) is not None:
                continue
        told = command.unknown_key(key, ["judge=self"], "config", "rlaif-lab")
        for hinted in re.findall(r"did you mean '([^']+)'", told):
            parent, _, last = hinted.rpartition(".")
            assert last in (OmegaConf.select(cfg, parent) if parent else cfg), told
    assert "judge.weights is 'live' here" in command.unknown_key("judge.weights.path", [], "config", "rlaif-lab")


def test_an_unknown_key_is_refused_when_it_is_composed() -> None:
    from hydra.errors import HydraException

    with pytest.raises(HydraException):
        config("roundz=3")


def test_arguments_of_any_number_are_not_missing_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``*args`` of a user's own judge need no value; a named argument does, also beside ``**rest``."""
    (tmp_path / "own_judges.py").write_text(
        "class Open:\n    def __init__(self, *args, name=''): ...\n"
        "class Needs:\n    def __init__(self, scale, **rest): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_target("judge", {"_target_": "own_judges.Open", "name": "x"})
    with pytest.raises(ValueError, match=r"judge\.scale is missing: Needs needs it"):
        check_target("judge", {"_target_": "own_judges.Needs", "name": "x"})


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("rlo", ["rloo", "dpo"], " (did you mean 'rloo'?)"),
        ("zzz", ["rloo", "dpo"], ""),
        ("__init_", ["__init__"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


# --- building -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.clip=-1"], "learner.clip must lie in (0, 1); got -1"),
        (["sampler.top_p=2"], "sampler.top_p must lie in (0, 1]; got 2"),
        (["learner.reference=ema"], "learner.reference must be one of initial, previous_round; got 'ema'"),
        (["trainer.batch_size=0"], "trainer.batch_size must be at least 1; got 0"),
        (["judge=stronger", "judge.weights.steps=0"], "judge.weights.steps must be at least 1; got 0"),
        (["judge=stronger", "judge.weights.skill={slip: 2, misconception: 0}"], "skill.slip is a probability"),
        (["policy=hf", "policy.path=/nowhere"], "model path '/nowhere' does not exist"),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) else "",
)
def test_a_refused_value_comes_out_as_one_sentence(overrides: list[str], message: str) -> None:
    cfg = config(*overrides)
    family = overrides[-1].split(".")[0]

    def checked_and_built() -> None:
        check(cfg)
        build(cfg[family], family)

    with pytest.raises(ValueError) as caught:
        checked_and_built()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(family)


def test_lists_and_mappings_arrive_as_plain_ones() -> None:
    assert build(config("sampler.stop=[a,b]").sampler, "sampler").stop == ("a", "b")
    assert type(build(config().policy, "policy").skill) is dict


# --- fingerprint ----------------------------------------------------------------------------------------------------
def test_a_fingerprint_is_flat_text_with_what_decides_the_numbers() -> None:
    made = fingerprint(config("judge=stronger"), {"tiny weights": "abc"})
    assert made["judge.weights.skill.slip"] == "0.1"
    assert made["evaluation.prompts"] == str(config().evaluation.prompts)
    assert made["seed"] == "0"
    assert made["tiny weights"] == "abc"
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in made.items())


@pytest.mark.parametrize(
    "override",
    ["seed=1", "learner.clip=0.3", "sampler.stop=[a]", "judge.reads=sum_logp", "task.digits=2", "evaluation.samples=2"],
)
def test_what_changes_a_number_changes_the_fingerprint(override: str) -> None:
    assert fingerprint(config(override), {}) != fingerprint(config(), {})


@pytest.mark.parametrize(
    "override", ["rounds=20", "resume=true", "threads=2", "logger=none", "experiment_name=x", "arm=y"]
)
def test_what_does_not_change_a_number_does_not(override: str) -> None:
    assert fingerprint(config(override), {}) == fingerprint(config(), {})


def test_other_weights_are_another_run() -> None:
    assert fingerprint(config(), {"tiny": "a"}) != fingerprint(config(), {"tiny": "b"})


@pytest.mark.parametrize("experiment", sorted(file.stem for file in Path(config_dir()).glob("experiment/*.yaml")))
def test_every_experiment_composes_and_resolves(experiment: str) -> None:
    cfg = config(f"experiment={experiment}")
    check(cfg)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


# --- optional groups, launchers ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("group", ["bank", "detector", "revision", "human_set", "judge@heldout_judge"])
@pytest.mark.parametrize("value", ["null", "none"])
def test_an_optional_group_can_be_put_out(group: str, value: str) -> None:
    cfg = config(*without_null(f"{group}={value}"))
    check(cfg)
    assert cfg[group.rpartition("@")[2]] is None


@pytest.mark.parametrize("experiment", ["class_law", "plateau_self_vs_stronger", "plateau_real_lm"])
def test_what_an_experiment_sets_can_be_put_out_too(experiment: str) -> None:
    """Its settings of the detector or the bank (``detector: {horizon: 40}``) are then none of anything."""
    cfg = config(f"experiment={experiment}", *without_null("detector=null"), *without_null("bank=null"))
    check(cfg)
    assert cfg.detector is None
    assert cfg.bank is None


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ("bank=task,null", "bank=task,none"),
        ("judge@heldout_judge=null,stronger", "judge@heldout_judge=none,stronger"),
        ("judge=null", "judge=none"),  # which says what can be put out
        ("heldout_judge=null", "judge@heldout_judge=none"),
        ("logger=null", "logger=none"),
        ("callbacks=null", "callbacks=none"),
        ("policy.system=null", "policy.system=null"),
        ("bank=nullable", "bank=nullable"),
    ],
)
def test_null_is_a_choice_of_optional_groups_alone(given: str, passed_on: str) -> None:
    assert without_null(given) == [passed_on]


def test_what_is_null_unless_told_otherwise_may_be_given_so() -> None:
    assert [without_null(f"{group}=null") for group in ("experiment", "variant", "metrics")] == [[], [], []]


@pytest.mark.parametrize("group", ["engine", "task", "policy", "learner", "trainer", "replay", "watch", "scale"])
def test_what_cannot_be_put_out_says_so(group: str) -> None:
    with pytest.raises(ValueError, match=f"^{group}=null: {group} cannot be put out; there is "):
        without_null(f"{group}=null")


LAUNCHERS: dict[str, tuple[str, ...]] = {  # with what gives each job a GPU of its own, as docs/devices.md says it
    "basic": (),
    "local": ("hydra.launcher.n_jobs=8",),
    "joblib": ("hydra.launcher.n_jobs=8",),
    "submitit_local": ("hydra.launcher.gpus_per_node=1",),
    "submitit_slurm": (
        *("hydra.launcher.gpus_per_node=1", "hydra.launcher.cpus_per_task=8", "hydra.launcher.array_parallelism=64"),
        "resume=true",
    ),
    "ray": ("+hydra.launcher.ray.remote.num_gpus=1", "+hydra.launcher.ray.init.num_gpus=8"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_experiment_takes_every_launcher(launcher: str) -> None:
    if launcher == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for file in sorted((Path(config_dir()) / "experiment").glob("*.yaml")):
            gpu = () if launcher == "basic" else ("trainer.accelerator=gpu", *LAUNCHERS[launcher])
            overrides = [f"experiment={file.stem}", f"hydra/launcher={launcher}", *gpu]
            cfg = compose("config", overrides=overrides, return_hydra_config=True)
            assert "_target_" in cfg.hydra.launcher
            for override in LAUNCHERS[launcher]:
                key, _, value = override.lstrip("+").partition("=")
                assert str(OmegaConf.select(cfg, key)).lower() == value


@pytest.mark.parametrize("raw", ["a", "policy.path-../../x/m00", "it's, {odd}", "../..", "x" * 500, "variant-a/b", ""])
def test_a_job_has_one_folder_of_its_own(raw: str) -> None:
    name = job_name(raw)
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 140
    assert name == job_name(raw)
    assert name != job_name(f"{raw}/")
