"""Pretrain the organisms that come with the package, and put them into rlaif_lab/data/organisms.

    python experiments/organisms/ship.py

Those of block 0 on the default task: the policy, and the judges weaker, medium and stronger. Run it when a recipe or
the default task has changed; the organisms of the recipes before are removed.
"""

from __future__ import annotations

import json
import shutil

from hydra import compose, initialize_config_dir

from rlaif_lab.config import build, config_dir
from rlaif_lab.models.organism.cache import SHIPPED, build_missing, organism_folder, weights_hash

JUDGES = ("stronger", "medium", "weaker")


def main() -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        configs = [compose("config", overrides=[f"judge={judge}"]) for judge in JUDGES]
    task = build(configs[0].task, "task")
    sources = [build(configs[0].policy, "policy"), *(build(cfg.judge, "judge").sources()[0] for cfg in configs)]
    recipes = [source.recipe() for source in sources]
    build_missing(task, recipes)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    for recipe in recipes:
        built = organism_folder(task, recipe)
        folder = SHIPPED / built.name
        shutil.copytree(built, folder, copy_function=shutil.copyfile)
        description = json.loads((folder / "recipe.json").read_text()) | {"sha256": weights_hash(folder)}
        (folder / "recipe.json").write_text(json.dumps(description, indent=2) + "\n")
        print(folder.name, description["skill"], description["sha256"][:12])


if __name__ == "__main__":
    main()
