"""Pretrain the organisms that come with the package, and put them into rlaif_lab/data/organisms.

    python experiments/organisms/ship.py

On the default task: of block 0, the default, the policy and the judges weaker, medium and stronger; of block 1, the
demonstration's, the policy and the judge stronger. Run it when a recipe or the default task has changed; the organisms
of the recipes before are removed. What each has learnt of its demonstrator is measured, and written beside its recipe.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

from hydra import compose, initialize_config_dir

from rlaif_lab.config import build, config_dir
from rlaif_lab.models.organism.cache import LEARNT, SHIPPED, build_missing, load_folder, organism_folder, weights_hash
from rlaif_lab.models.organism.skill import learnt, not_learnt

JUDGES = {0: ("stronger", "medium", "weaker"), 1: ("stronger",)}
"""Block -> judges."""


def main() -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        configs = [
            compose("config", overrides=[f"judge={judge}", f"block={block}"])
            for block, judges in JUDGES.items()
            for judge in judges
        ]
    task = build(configs[0].task, "task")
    policies = [build(cfg.policy, "policy").recipe() for cfg in configs]
    judges = [build(cfg.judge, "judge").sources()[0].recipe() for cfg in configs]
    recipes = list(dict.fromkeys([*policies, *judges]))
    build_missing(task, recipes)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    for recipe in recipes:
        built = organism_folder(task, recipe)
        folder = SHIPPED / built.name
        shutil.copytree(built, folder, copy_function=shutil.copyfile)
        (folder / "checksums.txt").unlink(missing_ok=True)  # the package holds the hash of the weights instead
        model = load_folder(folder, folder.name)
        found = learnt(task, recipe, model.network, model.tokenizer)
        description = json.loads((folder / "recipe.json").read_text()) | {"sha256": weights_hash(folder)}
        description[LEARNT] = {name: asdict(one) for name, one in found.items()}
        (folder / "recipe.json").write_text(json.dumps(description, indent=2) + "\n")
        print(folder.name, description["skill"], description["sha256"][:12], not_learnt(found))


if __name__ == "__main__":
    main()
