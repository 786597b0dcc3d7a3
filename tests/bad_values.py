"""Bad single values for every key of every choice: what a slip of the keyboard, or a misunderstanding, gives a key.

A test tries a sample of them, experiments/faults/bad_values.py all. Nothing here starts a process or loads weights: a
config is composed once per choice, the value is put in, and what the lab does before weights load is done.
"""

from __future__ import annotations

import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rlaif_lab.config import FAMILIES, OPTIONAL, RunConfig, build, check_core, config_dir
from rlaif_lab.config.types import located, parameters_of

EITHER_SIGN = {"position", "length", "self_preference", "coefficient", "no_eos_penalty", "margin"}
"""Keys that may well be negative: biases in nats, of either sign."""

WRONG_TYPE = {
    int: ["abc", "[1]", "{a: 1}", "true", "1.5", "'1; 2'", "[]"],
    float: ["abc", "[0.5]", "{a: 1}", "true", "'0,5'", "{}"],
    bool: ["perhaps", "[true]", "{a: 1}", "1.5", "3"],
    str: ["[a]", "{a: b}", "true", "3", "1.5"],
    list: ["abc", "3", "true", "{a: 1}"],
    dict: ["abc", "3", "true", "[1]"],
    Literal: ["nope", "[a]", "{a: 1}", "3", "'live '"],
    object: ["'abc!'", "3", "true", "[1]", "{a: 1}"],
}
NOT_FINITE = ["nan", "inf", "-inf"]
SENSELESS = {int: ["-1", "1000000000000000"], float: ["-0.5", "1e30", "-1e12"]}

NEEDED = {
    "judge=hf": ["judge.weights.path=org/model"],
    "policy=hf": ["policy.path=org/model"],
    "policy=hf_sft": ["policy.of.path=org/model", "policy.path=rows.jsonl"],
    "task=prompts": ["task.path=rows.jsonl"],
    "task=answers": ["task.path=rows.jsonl", "task.grader=exact"],
    "bank=file": ["bank.path=general"],
    "bank=hub": ["bank.dataset=owner/name"],
    "judge=reward_model": ["judge.path=folder"],
    "judge=api": ["judge.base_url=http://127.0.0.1:1/v1", "judge.model=m", "judge.api_key_env=null"],
}
"""Choices that say nothing until they are told a path, a name, ..."""


@dataclass(frozen=True)
class Bad:
    """A bad value for one key of one choice."""

    choice: str
    key: str
    value: str
    why: str


@dataclass(frozen=True)
class Answer:
    """What the lab said: ``clear`` (one sentence), ``traceback`` or ``accepted``."""

    kind: str
    message: str
    names_key: bool


def choices() -> list[str]:
    """Every choice of every family, and the core under an empty name."""
    folders = [Path(config_dir()) / family for family in FAMILIES if family != "heldout_judge"]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    return ["", *(f"{file.parent.name}={file.stem}" for file in files if file.stem != "none")]


@cache
def composed(choice: str) -> DictConfig:
    """The config with one choice, and what this needs."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=[choice] * bool(choice) + NEEDED.get(choice, []))


def bad_values(choice: str) -> Iterator[Bad]:
    """Yield every bad value of one choice."""
    cfg = composed(choice)
    if not choice:
        yield from _of_core("", RunConfig, cfg, choice)
        return
    family = choice.split("=")[0]
    content = OmegaConf.to_container(cfg[family], resolve=True)
    yield from _of_node(family, content, choice)


def _of_core(path: str, core: type, node: Any, choice: str) -> Iterator[Bad]:
    for name, hint in get_type_hints(core, include_extras=True).items():
        if path or name not in FAMILIES:
            if isinstance(node[name], DictConfig):
                yield from _of_core(f"{name}.", hint, node[name], choice)
            for bad in _of_key(f"{path}{name}", hint, choice):
                if not (hint is str and bad.value in ("3", "1.5")):  # which are texts there
                    yield bad


def _of_node(path: str, node: Any, choice: str) -> Iterator[Bad]:
    for value in ("3", "nan", "[a]", "nowhere.Nothing", "rlaif_lab.records", "null"):
        yield Bad(choice, f"{path}._target_", value, "class")
    parameters = parameters_of(located(path, node["_target_"]))
    for key, value in node.items():
        if key in parameters:
            ours = node["_target_"].startswith("rlaif_lab.")  # what is senseless elsewhere, we cannot know
            yield from (
                bad for bad in _of_key(f"{path}.{key}", parameters[key][0], choice) if ours or bad.why != "senseless"
            )
            if isinstance(value, dict) and "_target_" in value:
                yield from _of_node(f"{path}.{key}", value, choice)


def _of_key(key: str, annotation: Any, choice: str) -> Iterator[Bad]:
    kinds, members = _kinds(annotation)
    if Any in kinds:
        return
    wrong = [v for kind in kinds for v in WRONG_TYPE[kind] if all(v in WRONG_TYPE[other] for other in kinds)]
    for value in wrong:
        if value not in members and not (value in ("[]", "{}") and {list, dict} & kinds):
            yield Bad(choice, key, value, "type")
    for value in NOT_FINITE:
        yield Bad(choice, key, value, "not finite")
    for kind in kinds & set(SENSELESS):
        for value in SENSELESS[kind]:
            if not (value.startswith("-0") and key.rpartition(".")[2] in EITHER_SIGN):
                yield Bad(choice, key, value, "senseless")
    if type(None) not in members:
        yield Bad(choice, key, "null", "null")


def _kinds(annotation: Any) -> tuple[set[Any], set[Any]]:
    """The kinds of value that an annotation takes, and the members of its Literals (and NoneType)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin in (Union, types.UnionType):
        found = [_kinds(argument) for argument in arguments]
        return set().union(*(kinds for kinds, _ in found)), set().union(*(members for _, members in found))
    if origin is Literal:
        return {Literal}, {str(argument).lower() for argument in arguments}
    if annotation is type(None):
        return set(), {type(None)}
    if annotation is Any or annotation in (int, float, bool, str):
        return {annotation}, set()
    if (origin is not None and issubclass(origin, dict)) or getattr(origin, "__name__", "") == "Mapping":
        return {dict}, set()
    if origin is not None:
        return {list}, set()
    return {dict if hasattr(annotation, "__total__") else object}, set()


def answer(bad: Bad) -> Answer:
    """Put the value in, check, and build the family that it belongs to."""
    cfg = composed(bad.choice).copy()
    parsed = OverridesParser.create().parse_overrides([f"{bad.key}={bad.value}"])[0].value()
    family = bad.key.split(".")[0]
    try:
        OmegaConf.update(cfg, bad.key, parsed, merge=False, force_add=True)
        check_core(cfg, RunConfig, (family,) if family in FAMILIES else (), OPTIONAL)  # the others are as they were
        if family in FAMILIES:
            build(cfg[family], family)
    except ValueError as error:
        told = str(error)
        return Answer("clear" if "\n" not in told else "traceback", told, bad.key.removesuffix("._target_") in told)
    except Exception:
        return Answer("traceback", traceback.format_exc(), names_key=False)
    return Answer("accepted", "", names_key=False)
