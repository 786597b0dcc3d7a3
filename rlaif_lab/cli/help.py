"""Help, version and lists of choices: quick, on stdout, without Hydra or any heavy library."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LAB = """\
rlaif-lab runs self-improvement loops under AI feedback: a policy answers prompts, a judge compares the answers, and the
policy is trained on what the judge preferred, round by round. When does the loop stop improving?

usage: rlaif-lab [KEY=VALUE ...] [GROUP=CHOICE ...]

examples
  rlaif-lab judge=stronger block=1 rounds=5            one run; its folder is under outputs/
  rlaif-lab -m judge=self,stronger seed=0,1,2          a sweep: every combination; under multirun/
  rlaif-lab experiment=plateau_self_vs_stronger        a study that comes with the lab

groups that matter first (`rlaif-lab GROUP=` lists the choices of one)
{groups}
  others: {others}

options
  --cfg job          print the composed config, with every key and its value, and stop
  --estimate         print the memory and the minutes that the run would need, by stage, and stop
  -m, --multirun     sweep over values with commas
  --config-dir DIR   a folder with choices of your own, e.g. DIR/judge/mine.yaml, and classes beside it
  --version          print the version of the lab
  --hydra-help       options of Hydra itself

other commands (each takes --help)
  rlaif-resume       continue a run or a sweep that was stopped
  rlaif-report       make the page of a run or a sweep: curves, verdicts, samples
  rlaif-audit        measure how good a judge is, and what sways it
  rlaif-annotate     let people label comparisons on a page
  rlaif-export       write a run's preferences as data sets, and a model card
  rlaif-prepare      build the organisms that a sweep needs, before its jobs start
  rlaif-workspace    save a workspace in a W&B project
"""

AUDIT = """\
rlaif-audit asks a judge about labelled pairs and measures how often it is right, in both orders, and what sways it.

usage: rlaif-audit [KEY=VALUE ...] [GROUP=CHOICE ...]

examples
  rlaif-audit judge=stronger                                              pairs made by the task
  rlaif-audit judge=hf judge.weights.path=MODEL bank=general              a model by its likelihood, on shipped pairs
  rlaif-audit -m judge=self,stronger bank=file bank.path=pairs.jsonl      two judges on pairs of your own

groups (`rlaif-audit GROUP=` lists the choices of one)
{groups}

options
  --cfg job          print the composed config and stop
  -m, --multirun     one audit for each combination of values with commas
  --config-dir DIR   a folder with choices of your own
  --version          print the version of the lab
"""

RESUME = """\
rlaif-resume continues a run or a sweep that was stopped, where it stopped, with the config that started it.

usage: rlaif-resume DIR [KEY=VALUE ...] [--trust PACKAGE]

  DIR         the folder of a run, of a sweep, or one with sweeps in it, of which the newest is meant
  KEY=VALUE   a setting to change, e.g. rounds=20; relative paths count from the folder that the run was started in

examples
  rlaif-resume outputs/single/2025-01-31_12-00-00_self_s0
  rlaif-resume multirun/demo hydra/launcher=basic
  rlaif-resume outputs/single/2025-01-31_12-00-00_self_s0 rounds=20

options
  --trust PACKAGE    also run classes of this package, in a folder that was not started on this machine
  --version          print the version of the lab
"""

FIRST = {
    "task": "the prompts",
    "policy": "the model that is trained",
    "judge": "what compares the answers",
    "learner": "how the policy learns from the judgements",
    "experiment": "studies that come with the lab",
}
AUDITED = {
    "judge": "the judge that is audited",
    "bank": "the labelled pairs",
    "task": "the prompts, and how answers are graded",
    "policy": "the model that judge=self stands for",
}
DATA = ("constitution", "criteria", "template", "hydra")  # folders that are no groups of choices


def lab_version() -> str:
    """Return the version that is installed; in a clone that is not, ``unknown``."""
    try:
        return version("rlaif-lab")
    except PackageNotFoundError:
        return "unknown"


def quick_answer(program: str, arguments: Sequence[str], folders: Sequence[Path]) -> str | None:
    """Return what a command line that only asks something is answered; None for one that wants work.

    Args:
        program: ``rlaif-lab``, ``rlaif-audit`` or ``rlaif-resume``.
        arguments: after the program's name.
        folders: those with choices, the lab's own first.
    """
    if "--version" in arguments:
        return f"{program} {lab_version()}"
    if "--help" in arguments or "-h" in arguments:
        return help_of(program, folders)
    for argument in arguments:
        # `judge=` and `judge@heldout_judge=` ask for the choices of one group.
        group = argument.lstrip("+").removesuffix("=").partition("@")[0]
        # A key with a dot is not a group.
        if argument.endswith("=") and "." not in group and (found := choices_of(group, folders)):
            width = max(map(len, found))
            lines = [f"  {name:{width}}  {said}".rstrip() for name, said in found.items()]
            return "\n".join([f"{group}: choose one, e.g. {program} {group}={next(iter(found))}", *lines])
    return None


def help_of(program: str, folders: Sequence[Path]) -> str:
    """Return the help text, with the choices that there are."""
    if program == "rlaif-resume":
        return RESUME.rstrip()
    first = FIRST if program == "rlaif-lab" else AUDITED
    groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})
    others = [name for name in groups if name not in (*first, *DATA) and not name.startswith("_")]
    lines = []
    for name, meaning in first.items():
        found = list(choices_of(name, folders))
        few = ", ".join(found[:6]) + (f", ... ({len(found)})" if len(found) > 6 else "")
        lines.append(f"  {name:11}{meaning}: {few}")
    text = LAB if program == "rlaif-lab" else AUDIT
    return text.format(groups="\n".join(lines), others=", ".join(others)).rstrip()


def choices_of(group: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return the choices of a group with the first line of each one's comment; empty where there is no such group."""
    found: dict[str, str] = {}
    for folder in folders:
        place = folder / group
        if group and place.is_dir():
            for file in sorted(place.rglob("*.yaml")):
                name = str(file.relative_to(place).with_suffix(""))
                # The first folder with a choice says what it is: the lab's own.
                found.setdefault(name, _comment(file))
    return found


def _comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    # The first lines only: what follows is about keys.
    said = [line.removeprefix("#").strip() for line in lines[:3] if line.startswith("# ") and "@package" not in line]
    return said[0] if said else ""
