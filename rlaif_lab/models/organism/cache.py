"""The organism cache: built once per machine, whoever asks first; several processes may ask at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.organism.recipe import Recipe
from rlaif_lab.progress import Terminal, say
from rlaif_lab.store.checksums import check_sealed, seal
from rlaif_lab.store.files import cache_root, new_folder_beside, open_to_umask, rename_folder, writing
from rlaif_lab.store.locks import try_lock, wait_for
from rlaif_lab.tasks.base import ProceduralTask


def organism_folder(task: ProceduralTask, recipe: Recipe) -> Path:
    return cache_root() / "organisms" / f"{task.name}-{recipe.fingerprint(task)}"


SHIPPED = Path(__file__).resolve().parents[2] / "data" / "organisms"
"""Organisms that come with the package, so that a first run starts at once and its numbers can be had anywhere."""


def shipped_folder(task: ProceduralTask, recipe: Recipe) -> Path | None:
    """Return the folder of the organism if it ships with the package.

    Raises:
        ValueError: if its weights are not those that were shipped.
    """
    # By the recipe's fingerprint, which a changed task or recipe does not have: then none is shipped.
    folder = SHIPPED / f"{task.name}-{recipe.fingerprint(task)}"
    if not folder.is_dir():
        return None
    expected = json.loads((folder / "recipe.json").read_text())["sha256"]
    if weights_hash(folder) != expected:
        raise ValueError(
            f"the weights in {str(folder)!r} are not those that came with the package; install it again, or set "
            "pretrained=never to build the organism on this machine"
        )
    return folder


LEARNT = "learnt"
"""Key of recipe.json: what the organism does, beside what its demonstrator does."""


def tell_unlearnt(task: ProceduralTask, recipe: Recipe, name: str, *, shipped: bool = True) -> None:
    """Say of an organism that is there that it has not learnt what it was asked to, if so."""
    from rlaif_lab.models.organism.skill import Learnt, not_learnt

    folder = (shipped_folder(task, recipe) if shipped else None) or organism_folder(task, recipe)
    description = json.loads((folder / "recipe.json").read_text())
    missed = not_learnt({key: Learnt(**one) for key, one in description.get(LEARNT, {}).items()})
    if missed:
        skill = f"slip {recipe.skill.slip:g}, misconception {recipe.skill.misconception:g}"
        say(
            Terminal.run,
            f"{name} has not learnt its demonstrator ({skill}): {missed}. What its name promises does not hold for it; "
            "another seed or more steps may give one that has",
        )


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of a saved model's weights, in hexadecimal digits."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def organism(task: ProceduralTask, recipe: Recipe, name: str, *, shipped: bool = True) -> LanguageModel:
    """Return the organism of this recipe: the package's own if ``shipped``, else from the cache, else built now."""
    folder = shipped_folder(task, recipe) if shipped else None
    if folder is None:
        build_missing(task, [recipe])
        folder = organism_folder(task, recipe)
    return load_folder(folder, name)


def build_missing(task: ProceduralTask, recipes: Sequence[Recipe]) -> None:
    """Build the recipes that are not cached yet. Where another process already builds one, take the next, and
    wait only when nothing is left to build: two jobs that need the same two organisms build one each."""

    def missing() -> list[Recipe]:
        return [recipe for recipe in recipes if not organism_folder(task, recipe).exists()]

    told = False
    # One round of looking for each wait: what another process builds meanwhile is missing no more.
    for _ in wait_for(lambda: not missing()):
        for recipe in missing():
            folder = organism_folder(task, recipe)
            # A lock for each organism: two processes build two at the same time.
            with try_lock(folder.with_name(f"{folder.name}.lock")) as mine:
                if mine and not folder.exists():
                    _build(task, recipe, folder)
        if (left := missing()) and not told:
            told = True
            names = ", ".join(organism_folder(task, recipe).name for recipe in left)
            say(Terminal.run, f"waiting for another process, which is pretraining {names}")


def _build(task: ProceduralTask, recipe: Recipe, folder: Path) -> None:
    """Pretrain into a temporary folder and rename it: a folder in the cache is always whole."""
    from rlaif_lab.models.organism.build import pretrain
    from rlaif_lab.models.organism.skill import learnt

    skill = recipe.skill
    network, tokenizer = pretrain(
        task, recipe, f"pretraining {task.name} (slip {skill.slip:g}, misconception {skill.misconception:g})"
    )
    # Measured once, when it is built, and kept with it.
    found = learnt(task, recipe, network, tokenizer)
    with writing(folder):
        partial = new_folder_beside(folder)
        try:
            LanguageModel(network, tokenizer, folder.name).save(partial)
            description = {"task": task.name, **asdict(recipe)}
            description |= {LEARNT: {name: asdict(one) for name, one in found.items()}}
            # Last but for the seal: what was asked for, and what came of it.
            (partial / "recipe.json").write_text(json.dumps(description, indent=2))
            open_to_umask(partial)
            seal(partial)
            rename_folder(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def load_folder(folder: Path, name: str) -> LanguageModel:
    """Load a saved causal LM with its tokenizer, in float32 and eval mode.

    Raises:
        ValueError: it cannot be read, or is not what was saved.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    check_sealed(folder)
    try:
        # eager, as it was trained: another attention rounds otherwise.
        network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except Exception as error:  # transformers raises many kinds; all mean the same to the user
        raise ValueError(
            f"cannot load model {name!r} from folder {str(folder)!r}: {error}; delete the folder to have it made again"
        ) from error
    return LanguageModel(network.eval(), tokenizer, name)
