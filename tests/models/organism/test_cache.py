"""The organism cache: every organism is built once, by whoever comes first; a killed build leaves nothing broken."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny_recipe

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.organism import build as organism
from rlaif_lab.models.organism import cache
from rlaif_lab.models.organism.recipe import Recipe
from rlaif_lab.store.checksums import DamagedError
from rlaif_lab.store.files import DiskError, cache_root, umask
from rlaif_lab.tasks.arithmetic import Addition

FORK = multiprocessing.get_context("fork")  # a forked child finds its imports done
RECIPES = [tiny_recipe(seed=seed, width=16, layers=1) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLAIF_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretends_to_train(log: Path, seconds: float) -> Callable[..., tuple]:
    """In place of ``pretrain``: notes who builds what, and takes its time."""

    def build(task: Addition, recipe: Recipe, description: str) -> tuple:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {recipe.seed}\n")
        time.sleep(seconds)
        tokenizer = organism.build_tokenizer(task)
        return organism.build_network(recipe, len(tokenizer)), tokenizer

    return build


def builds(log: Path) -> list[tuple[int, int]]:
    """(process, seed) of every build begun."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), int(seed)) for pid, seed in (line.split() for line in lines)]


def start(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=work)
    process.start()
    return process


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_an_organism_is_built_once_and_then_found(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 0.0))
    first = cache.organism(task, RECIPES[0], "first")
    again = cache.organism(task, RECIPES[0], "again")
    assert first.weights_hash() == again.weights_hash()
    assert (first.name, again.name) == ("first", "again")
    assert len(builds(log)) == 1
    cache.build_missing(task, [*RECIPES, *RECIPES])
    assert [seed for _, seed in builds(log)] == [0, 1]


def test_the_organism_found_is_the_one_that_was_trained(task: Addition) -> None:
    recipe = tiny_recipe(steps=2)
    found = cache.organism(task, recipe, "found")
    network, tokenizer = organism.pretrain(task, recipe, "again")
    assert found.weights_hash() == LanguageModel(network, tokenizer, "trained").weights_hash()
    assert cache.organism_folder(task, recipe).is_relative_to(os.environ["RLAIF_LAB_CACHE"])


class Dotted(Addition):
    def __init__(self) -> None:
        super().__init__(2)
        self.name = "addition0.5"


@pytest.mark.parametrize("task", [Addition(2), Dotted()], ids=lambda t: t.name)
def test_two_processes_build_one_each_of_the_two_they_both_need(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 1.0))
    processes = [start(lambda: cache.build_missing(task, RECIPES)) for _ in range(2)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(seed for _, seed in builds(log)) == [0, 1]
    assert len({pid for pid, _ in builds(log)}) == 2
    for recipe in RECIPES:
        cache.load_folder(cache.organism_folder(task, recipe), "whole")


def test_a_crowd_that_wants_one_organism_builds_it_once(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 0.3))
    processes = [start(lambda: cache.build_missing(task, RECIPES[:1])) for _ in range(5)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(builds(log)) == 1


@pytest.mark.parametrize("killed_while", ["training", "saving"])
def test_a_killed_build_leaves_nothing_broken_and_the_next_asker_builds(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, killed_while: str
) -> None:
    log, half = tmp_path / "log", tmp_path / "half"

    def hang_half_way(self: LanguageModel, folder: Path) -> None:
        self.network.save_pretrained(folder)
        half.touch()
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(organism, "pretrain", pretends_to_train(log, 60.0 if killed_while == "training" else 0.0))
        patch.setattr(LanguageModel, "save", hang_half_way)
        process = start(lambda: cache.build_missing(task, RECIPES[:1]))
        wait_for((lambda: builds(log)) if killed_while == "training" else half.exists)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(10)
    folder = cache.organism_folder(task, RECIPES[0])
    assert not folder.exists()
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 0.0))
    cache.organism(task, RECIPES[0], "next")
    assert len(builds(log)) == 2
    assert (folder / "recipe.json").is_file()


def test_a_waiting_process_takes_over_when_the_builder_is_killed(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 60.0))
    builder = start(lambda: cache.build_missing(task, RECIPES[:1]))
    wait_for(lambda: builds(log))
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(log, 0.0))
    waiting = start(lambda: cache.build_missing(task, RECIPES[:1]))
    time.sleep(0.5)
    assert len(builds(log)) == 1
    os.kill(builder.pid or 0, signal.SIGKILL)
    waiting.join(20)
    builder.join(10)
    assert waiting.exitcode == 0
    assert {pid for pid, _ in builds(log)} == {builder.pid, waiting.pid}
    assert cache.organism_folder(task, RECIPES[0]).is_dir()


def test_a_failed_build_says_why_and_leaves_nothing(
    task: Addition, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    def full(self: LanguageModel, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LanguageModel, "save", full)
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(empty_cache.parent / "log", 0.0))
    with pytest.raises(DiskError, match="No space left"):
        cache.build_missing(task, RECIPES[:1])
    assert [p.name for p in (empty_cache / "organisms").iterdir() if p.is_dir()] == []


def test_one_flipped_bit_in_a_cached_organism_is_never_used(
    task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(tmp_path / "log", 0.0))
    cache.build_missing(task, RECIPES[:1])
    folder = cache.organism_folder(task, RECIPES[0])
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match=r"model\.safetensors.*corrupt.*delete the folder"):
        cache.organism(task, RECIPES[0], "flipped")
    shutil.rmtree(folder)
    cache.organism(task, RECIPES[0], "made again")


def test_others_may_read_a_shared_cache(task: Addition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(organism, "pretrain", pretends_to_train(tmp_path / "log", 0.0))
    cache.build_missing(task, RECIPES[:1])
    folder = cache.organism_folder(task, RECIPES[0])
    mask = umask()
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~mask}


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot load model 'mine'"):
        cache.load_folder(tmp_path, "mine")


def test_the_cache_lies_in_the_home_folder_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RLAIF_LAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "rlaif_lab"
