"""One thread, one throw-away organism cache per session, W&B offline, and two tiny models that tests never change."""

from __future__ import annotations

import os
import shutil
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"

import pytest
import torch
from helpers import tiny_recipe

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.organism.recipe import Recipe
from rlaif_lab.tasks.arithmetic import Addition

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """``RLAIF_LAB_TEST_CACHE`` keeps organisms from session to session; without it the cache is a temporary folder.
    (Workers of pytest-xdist inherit the variable, so that they share the folder.)"""
    if "RLAIF_LAB_TEST_CACHE" not in os.environ:
        folder = os.environ["RLAIF_LAB_TEST_CACHE"] = tempfile.mkdtemp(prefix="rlaif_lab_tests_")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop("RLAIF_LAB_TEST_CACHE", None))
    os.environ["RLAIF_LAB_CACHE"] = os.environ["RLAIF_LAB_TEST_CACHE"]


@pytest.fixture(scope="session")
def task() -> Addition:
    return Addition(digits=2)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return tiny_recipe()


@pytest.fixture(scope="session")
def organism(task: Addition, recipe: Recipe) -> LanguageModel:
    """Very briefly trained: it has learnt the form of an answer, not addition. Frozen."""
    from rlaif_lab.models.organism.cache import organism

    model = organism(task, recipe, "tiny")
    model.network.requires_grad_(False)
    return model


@pytest.fixture(scope="session")
def untrained(task: Addition, recipe: Recipe) -> LanguageModel:
    """Random weights: every token is possible everywhere, so responses end at all lengths. Frozen."""
    from rlaif_lab.models.organism.build import build_network, build_tokenizer

    tokenizer = build_tokenizer(task)
    network = build_network(recipe, len(tokenizer)).eval().requires_grad_(False)
    return LanguageModel(network, tokenizer, "untrained")
