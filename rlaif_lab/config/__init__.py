"""Configuration: the typed core, where conf/ lies, and checks that run before any weights load."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.config.ranges import Count, Number, Seed, Share
from rlaif_lab.config.secrets import check_config
from rlaif_lab.config.trusted import OWN, PYTHON, check_allowed
from rlaif_lab.config.types import allowed_text, check_value, located, not_finite, parameters_of, shown
from rlaif_lab.config.types import did_you_mean as did_you_mean  # of old use here


@dataclass(frozen=True)
class EvaluationSize:
    """How much is evaluated: the keys and defaults of ``loop.evaluation.Evaluation``, which checks them."""

    prompts: Count = 512
    samples: Count = 4
    final_samples: Number = 64
    final_prompts: Number = 64
    measured: Count | None = None


@dataclass(frozen=True)
class GateSettings:
    """When a judge is refused: the keys and defaults of ``loop.gate.Gate``, which acts on them."""

    force: bool = False
    confidence: Annotated[float, Gt(0.5), Lt(1)] = 0.95
    max_failed: Share = 0.5


@dataclass
class RunConfig:
    """The closed core of a run. The open families (task, judge, learner, ...) carry a ``_target_`` each."""

    task: Any = None
    policy: Any = None
    judge: Any = None
    heldout_judge: Any = None
    learner: Any = None
    sampler: Any = None
    engine: Any = None
    pairing: Any = None
    replay: Any = None
    reward_model: Any = None
    revision: Any = None
    bank: Any = None
    metrics: Any = None
    watch: Any = None
    detector: Any = None
    trainer: Any = None
    logger: Any = None
    callbacks: Any = None
    experiment_name: str = "single"
    arm: str = "arm"
    seed: Seed = 0
    block: Annotated[int, Ge(0), Le(10**6)] = 0
    rounds: Annotated[int, Ge(1), Le(10**6)] = 10
    prompts_per_round: Count = 1024
    evaluation: EvaluationSize = field(default_factory=EvaluationSize)
    human_set: Any = None
    sync_every: Count | None = None
    lag: Number = 0
    gate: GateSettings = field(default_factory=GateSettings)
    export: bool = True
    resume: bool = False
    threads: Annotated[int, Ge(1), Le(1024)] = 1


def schema(config: type) -> DictConfig:
    """Return fields and defaults for Hydra, which closes it; types are checked by ``check``, in its own words."""
    # Plain values: Hydra would check types in its own words, before `check` could in ours.
    return OmegaConf.create(asdict(config()))


ConfigStore.instance().store(name="schema", node=schema(RunConfig))  # what `schema` in conf/config.yaml stands for

# In the order in which a config is checked and documented.
FAMILIES = (
    "task",
    "policy",
    "judge",
    "heldout_judge",
    "learner",
    "sampler",
    "engine",
    "pairing",
    "replay",
    "reward_model",
    "revision",
    "bank",
    "trainer",
    "watch",
    "detector",
    "human_set",
    "logger",
)
OPTIONAL = ("heldout_judge", "revision", "bank", "detector", "human_set")
SEVERAL = ("metrics", "callbacks")
"""Families of which a run may have any number, each by a name of its own."""
KINDS = {
    "task": "rlaif_lab.tasks.base.Task",
    "policy": "rlaif_lab.models.sources.ModelSource",
    "judge": "rlaif_lab.judges.base.Judge",
    "heldout_judge": "rlaif_lab.judges.base.Judge",
    "learner": "rlaif_lab.learners.base.Learner",
    "sampler": "rlaif_lab.sampling.config.SamplingConfig",
    "engine": "rlaif_lab.sampling.engine.Engine",
    "pairing": "rlaif_lab.feedback.pairing.Pairing",
    "replay": "rlaif_lab.feedback.replay.Replay",
    "reward_model": "rlaif_lab.reward.model.RewardModel",
    "revision": "rlaif_lab.feedback.revision.RevisionConfig",
    "bank": "rlaif_lab.audit.bank.PairBank",
    "trainer": "rlaif_lab.training.settings.TrainerConfig",
    "watch": "rlaif_lab.tracking.alarms.Watch",
    "detector": "rlaif_lab.plateau.detector.Detector",
    "human_set": "rlaif_lab.people.human_set.HumanSet",
    "logger": "rlaif_lab.tracking.base.Tracker",
    "metrics": "rlaif_lab.metrics.base.Metric",
    "callbacks": "pytorch_lightning.callbacks.Callback",
    "plan": "rlaif_lab.audit.plan.Plan",
}
"""What a family's choice has to build."""
# What a resumed run may change: where it logs, how much it exports, how many rounds it goes on for.
NOT_IN_FINGERPRINT = (
    "logger",
    "metrics",
    "resume",
    "export",
    "threads",
    "experiment_name",
    "arm",
    "rounds",
    "gate",
    "watch",
)
"""Keys that may differ between a run and its resumption: they do not change a number. More rounds only extend it."""


def config_dir() -> str:
    """Return the conf/ folder: inside the installed package, else beside it in a clone."""
    # Installed, conf/ is inside the package; in a clone, beside it.
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise ValueError(f"no conf/config.yaml in {package} or {package.parent}: the installation is incomplete")


def job_folder(overrides: str, longest: int = 200) -> str:
    """Return the name of a job's folder in sweeps of earlier versions, which their resumption has to find again."""
    if len(overrides) <= longest:
        return overrides
    # 12 digits of a hash: two long names with the same beginning are two folders.
    return f"{overrides[: longest - 13]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


def folder_name(text: Any, longest: int = 120) -> str:
    """Return a text as the name of one folder: the same for the same text, another one for another.

    Letters, digits and ``._=+-`` stay; where anything else stood, or it is too long, a hash of the text ends the name.
    """
    plain_text = str(text)
    # What file systems and shells take without quotes.
    name = re.sub(r"[^A-Za-z0-9._=+-]+", "-", plain_text).strip(".-")
    if name == plain_text and len(name) <= longest:
        return name
    return f"{name[: longest - 9].rstrip('.-')}-{hashlib.sha256(plain_text.encode()).hexdigest()[:8]}".lstrip("-")


def job_name(overrides: str) -> str:
    """Return the name of a sweep's job: its overrides, of which a path or a named variant is told by its last part."""
    # A path tells a job by its end: the rest is the same for all jobs, and long.
    short = re.sub(r"[^_\s]*/", "", overrides)
    name = folder_name(short) or "job"
    if short == overrides:
        return name
    return f"{name}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def policy_seed(block: int) -> int:
    """Return the seed that a block's policy organism is pretrained from; block 0 has that of a run by itself."""
    # Even numbers for policies, odd ones for judges: no judge is ever pretrained from a policy's seed.
    return 2 * block


def judge_seed(block: int) -> int:
    """Return the seed that a block's judge organisms are pretrained from: never a policy's, of no block."""
    return 2 * block + 1


def name_of(family: str, _root_: Any) -> str:
    """Return what the choice of a family is called: its ``name``, else that of its class."""
    # Unresolved: the choice may refer to something that is not there yet.
    whole: Any = OmegaConf.to_container(_root_, resolve=False)
    content = whole.get(family) or {}
    if not isinstance(content, dict):
        return "none"
    if isinstance(named := content.get("name"), str):
        # A name that refers to others is resolved where it stands.
        return str(OmegaConf.select(_root_, f"{family}.name")) if "${" in named else named
    return str(content.get("_target_") or "none").rpartition(".")[2]


OmegaConf.register_new_resolver("name_of", name_of, replace=True)


def real_learning_rate(adapter_rank: int | None) -> float:
    """Return AdamW's usual learning rate for a real model: an adapter takes ten times what all weights take."""
    return 1e-4 if adapter_rank else 1e-5


OmegaConf.register_new_resolver("real_learning_rate", real_learning_rate, replace=True)
OmegaConf.register_new_resolver("policy_seed", policy_seed, replace=True)
OmegaConf.register_new_resolver("judge_seed", judge_seed, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)  # hydra.sweep.subdir of earlier versions
OmegaConf.register_new_resolver("job_name", job_name, replace=True)  # and of this one
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)

MOVED = {
    "rlaif_lab.judges.api.ApiJudge": "rlaif_lab.judges.api.judge.ApiJudge",
    "rlaif_lab.judges.cached.CachedJudge": "rlaif_lab.judges.wrappers.cached.CachedJudge",
    "rlaif_lab.judges.constitution.ConstitutionJudge": "rlaif_lab.judges.prompted.constitution.ConstitutionJudge",
    "rlaif_lab.judges.human_budget.HumanBudget": "rlaif_lab.judges.wrappers.human_budget.HumanBudget",
    "rlaif_lab.judges.length_control.LengthControl": "rlaif_lab.judges.wrappers.length_control.LengthControl",
    "rlaif_lab.judges.model.ModelJudge": "rlaif_lab.judges.logprob.ModelJudge",
    "rlaif_lab.judges.panel.Panel": "rlaif_lab.judges.wrappers.panel.Panel",
    "rlaif_lab.judges.pointwise.PointwiseJudge": "rlaif_lab.judges.prompted.pointwise.PointwiseJudge",
    "rlaif_lab.judges.prompted.PromptedJudge": "rlaif_lab.judges.prompted.pairwise.PromptedJudge",
    "rlaif_lab.judges.wrappers.BiasedJudge": "rlaif_lab.judges.wrappers.noise.BiasedJudge",
    "rlaif_lab.judges.wrappers.NoisyJudge": "rlaif_lab.judges.wrappers.noise.NoisyJudge",
    "rlaif_lab.judges.wrappers.ShorterOnTie": "rlaif_lab.judges.wrappers.order.ShorterOnTie",
    "rlaif_lab.judges.wrappers.SingleOrderJudge": "rlaif_lab.judges.wrappers.order.SingleOrderJudge",
    "rlaif_lab.pairing.Pairing": "rlaif_lab.feedback.pairing.Pairing",
    "rlaif_lab.replay.Replay": "rlaif_lab.feedback.replay.Replay",
    "rlaif_lab.revision.RevisionConfig": "rlaif_lab.feedback.revision.RevisionConfig",
    "rlaif_lab.sweep.Sweep": "rlaif_lab.cli.sweep.Sweep",
    "rlaif_lab.tracking.NoTracker": "rlaif_lab.tracking.base.NoTracker",
    "rlaif_lab.tracking.WandbTracker": "rlaif_lab.tracking.wandb_tracker.WandbTracker",
    "rlaif_lab.trainer.TrainerConfig": "rlaif_lab.training.settings.TrainerConfig",
    "rlaif_lab.watch.Watch": "rlaif_lab.tracking.alarms.Watch",
}
"""Class paths of earlier versions, which run folders and users' own YAML files hold -> where the classes are now."""

# What a missing key means in a run from before that key existed: an old run continues as it began.
ADDED: dict[str, str] = {
    "trainer.half_life": "None",
    "engine._target_": "rlaif_lab.sampling.exact.Exact",
    "callbacks": "None",
    "engine determinism": "item",
    "block": "0",
    "bank.labels": "None",
    "bank.ignore": "[]",
    "task.format": "auto",
    "task.columns.system": "system",
    "task.columns.input": "None",
    "task.ignore": "[]",
    "judge.wait_s": "0",
    "judge.failures_in_row": "8",
    "evaluation.measured": "None",
    "human_set": "None",
}
"""Keys that the fingerprints of earlier versions lack, with the value that those versions had."""


def current_path(target: str) -> str:
    """Return the class path of today for one that may be an earlier version's."""
    return MOVED.get(target, target)


def with_current_paths(value: Any) -> Any:
    """Return a config (plain containers) in which each ``_target_`` is the class path of today."""
    if isinstance(value, dict):
        return {
            key: current_path(child) if key == "_target_" and isinstance(child, str) else with_current_paths(child)
            for key, child in value.items()
        }
    return [with_current_paths(child) for child in value] if isinstance(value, list) else value


# --- checks -------------------------------------------------------------------------------------------------------
def check(cfg: DictConfig) -> None:
    """Validate everything that does not require loading weights. Raises ValueError with a one-sentence message."""
    check_core(cfg, RunConfig, FAMILIES, OPTIONAL)
    for family in SEVERAL:
        nodes = plain(cfg[family]) if isinstance(cfg[family], DictConfig) else cfg[family] or {}
        if not isinstance(nodes, dict):
            raise ValueError(f"{family} must be a mapping of names to parts; got {shown(nodes)}")
        for name, node in nodes.items():
            check_family(f"{family}.{name}", node, family)


def check_core(cfg: DictConfig, core: type, families: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Check a composed config against its dataclass, and its families against the classes that they name.

    An optional family that was put out (``bank=none``) becomes None.
    """
    # First as written, with its references, so that mistakes are reported in the user's own words.
    raw = plain(cfg, resolve=False)
    check_fields("", core, raw, families)
    for path, number in not_finite(raw, ""):
        raise ValueError(f"{path} must be finite; got {number}")
    missing = sorted(missing_keys(raw, ""))
    if missing:
        keys = " and ".join(f"{key}{allowed_text(raw, key)}" for key in missing)
        verb, what = ("has", "one") if len(missing) == 1 else ("have", "them")
        example = " ".join(f"{key}=..." for key in missing)
        raise ValueError(f"{keys} {verb} no value; give {what}, e.g. {example}")
    for family in optional:
        # `~bank`, or `bank=none`: Hydra cannot override a group with null. An experiment may have settings for what is
        # put out, which then count for nothing.
        if raw[family] == {} or put_out(raw[family]):
            cfg[family] = None
    for family in families:
        node = plain(cfg[family]) if isinstance(cfg[family], DictConfig) else cfg[family]
        if node is None and family in optional:
            continue
        check_family(family, node, family, optional)
    content = plain(cfg)
    # Keys in wrong places before anything is written: what is resolved may hold a variable's content.
    check_config(content)
    # And once more resolved: a reference may bring a value of another type.
    check_fields("", core, content, families)
    for key, hint in get_type_hints(core).items():
        if hint is str:
            check_name(key, content[key])
            if not isinstance(cfg[key], str):
                cfg[key] = str(content[key])  # arm=3 is a text


def put_out(node: Any) -> bool:
    """Return whether a family's choice is ``none``, whatever an experiment sets of it."""
    return isinstance(node, dict) and node.get("put_out") is True and "_target_" not in node


def check_family(path: str, node: Any, family: str, optional: tuple[str, ...] = ()) -> None:
    """Check what a family was given: nodes from the inside out, and that the outermost is of the family's class."""
    if not isinstance(node, dict) or "_target_" not in node:
        node = None if put_out(node) else node
        off = "; only " + ", ".join(optional) + " can be put out" if optional and not node else ""
        raise ValueError(f"{path} must be a mapping with a _target_; got {shown(node)}{off}")
    for place, text in _texts(node, path):
        # Before it is imported: importing runs code already.
        if place.endswith("._target_") or text.startswith(PYTHON):
            check_allowed(place, text.removeprefix(PYTHON))
    # From the inside out, so that the message names the innermost key that is wrong.
    for place, target in targets(node, path):
        check_target(place, target)
    # Old class paths as today's: the class decides what it takes.
    check_value(path, located(path, KINDS[family]), with_current_paths(node))


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of all texts in plain containers."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, f"{path}.{key}")
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _texts(child, f"{path}[{i}]")


def packages_of(content: Any) -> list[str]:
    """Return the packages whose classes a config names, each once, without the lab's own."""
    named = (text.partition(".")[0] for place, text in _texts(content, "") if place.endswith("._target_"))
    # In order of appearance, each once: a message lists them as the user wrote them.
    return [package for package in dict.fromkeys(named) if package != OWN]


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return a config as plain containers. Raises ValueError, one sentence, for an interpolation that fails."""
    try:
        content = OmegaConf.to_container(cfg, resolve=resolve)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from None
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def missing_keys(node: Any, path: str) -> Iterator[str]:
    """Yield the dotted keys that have no value yet (``???``)."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield from missing_keys(child, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


def check_name(key: str, name: str) -> None:
    """Check a text that becomes a folder or a label. Raises ValueError."""
    text = str(name)
    if not text.strip() or len(text) > 120 or not text.isprintable():
        raise ValueError(f"{key} must be 1 to 120 printable characters; got {shown(text)}")
    if key == "experiment_name" and (set(text) & set("/\\") or text.startswith(".")):
        raise ValueError(f"{key} must be the name of one folder, without / and not beginning with a dot; got {text!r}")


def check_fields(path: str, core: type, content: dict[str, Any], families: tuple[str, ...] = ()) -> None:
    """Check the values of one dataclass of the core, and of those in it. Raises ValueError."""
    hints = get_type_hints(core, include_extras=True)
    for key, value in content.items():
        place = f"{path}{key}"
        if key not in hints:
            raise ValueError(f"unknown key {place!r}{did_you_mean(key, [*hints])}; see rlaif-lab --cfg job")
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                names = ", ".join(entry.name for entry in fields(hints[key]))
                raise ValueError(f"{place} must be a mapping with the keys {names}; got {shown(value)}")
            check_fields(f"{place}.", hints[key], value)
        # A reference is checked once it is resolved.
        elif key not in families and not (isinstance(value, str) and "${" in value):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            # `arm=3` is a text: YAML reads a number, and means a name.
            check_value(place, hints[key], str(value) if hints[key] is str and number else value)


def targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted key, content) of all nodes with a ``_target_`` in plain containers, the innermost first."""
    if isinstance(node, DictConfig):
        node = plain(node)
    if isinstance(node, dict):
        for key, child in node.items():
            # Children first: what a node is made of is checked before the node itself.
            yield from targets(child, f"{path}.{key!s}")
        if "_target_" in node:
            yield path, {str(key): value for key, value in node.items()}


def check_target(path: str, node: dict[str, Any]) -> None:
    """Check that the target can be imported, and that the arguments are those of its signature and of their types."""
    if not isinstance(node["_target_"], str):
        raise ValueError(f"{path}._target_ must be the dotted path of a class; got {shown(node['_target_'])}")
    node = with_current_paths(node)
    target = located(path, node["_target_"])
    name = node["_target_"].rpartition(".")[2]
    if not callable(target):
        raise ValueError(f"{path}._target_: {node['_target_']!r} is no class")
    parameters = parameters_of(target)
    # A function with `**kwargs` cannot be asked which names it takes.
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    arguments = [key for key in node if not key.startswith("_")]
    for key in arguments:
        if key not in parameters and not takes_any:
            hint = did_you_mean(key, list(parameters)) or elsewhere(path, key)
            known = ", ".join(parameters) or "none"
            raise ValueError(f"{path}.{key}: {name} takes no such argument{hint}; it takes {known}")
    for argument, (annotation, parameter) in parameters.items():
        if argument in arguments:
            check_value(f"{path}.{argument}", annotation, node[argument])
        elif parameter.default is parameter.empty and "_args_" not in node and not node.get("_partial_"):
            raise ValueError(f"{path}.{argument} is missing: {name} needs it")


def elsewhere(path: str, key: str) -> str:
    """Return which other choices of the group have a key that the composed one lacks, in words."""
    # `heldout_judge` chooses from the group `judge`.
    folder = Path(config_dir()) / {"heldout_judge": "judge"}.get(path, path)
    having = [file.stem for file in sorted(folder.glob("*.yaml")) if key in (OmegaConf.load(file) or {})]
    return f" (of this group, {', '.join(having)} {'has' if len(having) == 1 else 'have'} it)" if having else ""


# --- building -----------------------------------------------------------------------------------------------------
def build(node: DictConfig, path: str) -> Any:
    """Build what a ``_target_`` node describes. Its ValueError comes out with the dotted key as the user writes it."""
    return _construct(with_current_paths(OmegaConf.to_container(node, resolve=True)), path)


def _construct(value: Any, path: str) -> Any:
    """Build plain containers from the inside out, with the path of each."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if isinstance(value, list):
        return [_construct(child, f"{path}[{i}]") for i, child in enumerate(value)]
    if not isinstance(value, dict):
        return value
    # The arguments before what takes them: an error is reported with the path of the part that raised it.
    arguments = {k: _construct(child, f"{path}.{k}") for k, child in value.items() if k != "_target_"}
    if "_target_" not in value:
        return arguments
    try:
        if any(key.startswith("_") for key in arguments):  # Hydra's own: _args_, _partial_, ...
            # Plain containers: no part should have to know OmegaConf.
            return instantiate(OmegaConf.create(value), _convert_="all")
        make = instantiate({"_target_": value["_target_"], "_partial_": True})  # Hydra says what may be called
        return make(**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(with_path(str(error), path, [*parameters_of(located(path, value["_target_"]))])) from error
    except InstantiationException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error


PLACE = re.compile(rf"\b(?:{'|'.join([*FAMILIES, 'recipe', 'plan'])})\.([a-z_]+)")


def with_path(message: str, path: str, parameters: list[str]) -> str:
    """Return a class's complaint with its keys as they are called in this config.

    A class says ``judge.flip``, which may be ``judge.of.flip`` or ``heldout_judge.flip`` here.
    """
    # Only keys that this class has: another part's name in the message stays.
    told = PLACE.sub(lambda m: f"{path}.{m[1]}" if m[1] in parameters else m[0], message)
    return told if told.startswith(path) or path in told.split(";")[0] else f"{path}: {told}"


def fingerprint(cfg: DictConfig, identities: dict[str, str]) -> dict[str, str]:
    """Return what decides a run's numbers, flat: dotted key -> value. ``identities``: content hashes of models and
    data."""
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        else:
            flat[prefix] = str(value)

    # Flat, so that a difference can be reported by its key.
    walk("", {key: value for key, value in content.items() if key not in NOT_IN_FINGERPRINT})
    return as_of_today(flat | identities)


AT_ONCE = (
    *("sampler.batch_size", "revision.batch_size", "trainer.devices", "trainer.strategy", "trainer.num_nodes"),
    *("engine.base_url", "engine.python", "engine.folder", "engine.wait_s", "engine.timeout_s"),
    *("judge.wait", "judge.human.wait", "heldout_judge.wait", "human_set.by.wait"),  # for people
)


def as_of_today(fingerprint: Mapping[str, str]) -> dict[str, str]:
    """Return a fingerprint that may be an earlier version's as this version would write it.

    How many rows are computed at once, on how many devices, and whether the run waits for people, is left out: it does
    not change what a run is, and presets choose it anew.
    """
    current = {k: current_path(v) if k.endswith("_target_") else v for k, v in fingerprint.items()}
    current = {k: v for k, v in current.items() if k not in AT_ONCE}
    # Today's keys win: what ADDED says holds for fingerprints that lack them.
    return ADDED | current
