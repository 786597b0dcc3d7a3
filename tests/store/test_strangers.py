"""Reading a stranger's folder runs nothing of it."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif_lab.config.trusted import TRUST, UntrustedError, trust
from rlaif_lab.learners.base import Learner
from rlaif_lab.store.checkpoints import check_logged, newest_checkpoint, prune
from rlaif_lab.store.checksums import DamagedError
from rlaif_lab.store.strangers import make
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Task

ADDITION = {"_target_": "rlaif_lab.tasks.arithmetic.Addition", "digits": 2}


class Opened:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """There only if something has run."""
    return tmp_path / "ran"


def attacks(folder: Path, mark: Path) -> dict[str, Any]:
    """Tasks that a config.json might name."""
    (folder / "evil.pkl").write_bytes(pickle.dumps(Opened(mark)))
    (folder / "hubconf.py").write_text(f"open({str(mark)!r}, 'w')\ndef model(**_): ...\n")
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    write = {"_target_": "pathlib.Path.write_text", "self": str(mark), "data": "x"}
    return {
        "a pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(folder / "evil.pkl")},
        "a command": {"_target_": "os.system", "command": f"touch {mark}"},
        "a process": {"_target_": "subprocess.Popen", "args": ["touch", str(mark)]},
        "torch.load": {"_target_": "torch.load", "f": str(folder / "evil.pkl"), "weights_only": False},
        "torch.hub": {"_target_": "torch.hub.load", "repo_or_dir": str(folder), "model": "model", "source": "local"},
        "a file": write,
        "an open file": {"_target_": "builtins.open", "file": str(mark), "mode": "w"},
        "eval": {"_target_": "builtins.eval", "_args_": [f"open({str(mark)!r}, 'w')"]},
        "a module of the folder": {"_target_": "evil.Task"},
        "what a module of the lab imports": {"_target_": "rlaif_lab.store.files.Path.touch", "self": str(mark)},
        "a function of the lab": {
            "_target_": "rlaif_lab.store.files.write_atomically",
            "path": str(mark),
            "content": "x",
        },
        "a class of another kind": {"_target_": "rlaif_lab.store.run_folder.RoundStore", "directory": str(mark)},
        "a part": {"_target_": "rlaif_lab.tasks.prompts_file.PromptsFile", "path": None, "max_response_tokens": write},
        "Hydra's partial": ADDITION | {"_partial_": True},
        "Hydra's arguments": ADDITION | {"_args_": [write]},
        "an attribute of the lab's os": {"_target_": "rlaif_lab.store.files.os.system", "command": f"touch {mark}"},
        "no class": {"_target_": 3},
        "an absent class": {"_target_": "rlaif_lab.tasks.arithmetic.Nothing"},
        "an interpolation": {"_target_": "rlaif_lab.tasks.arithmetic.Addition", "digits": "${oc.env:HOME}"},
        "a list": [],
    }


NAMES = (
    *("a pickle", "a command", "a process", "torch.load", "torch.hub", "a file", "an open file", "eval"),
    *("a module of the folder", "what a module of the lab imports", "a function of the lab", "a class of another kind"),
    *("a part", "Hydra's partial", "Hydra's arguments", "an attribute of the lab's os", "no class", "an absent class"),
    *("an interpolation", "a list"),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_config_names_is_not_run(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    made = attacks(tmp_path, mark)
    assert set(made) == set(NAMES)
    content = made[name]
    with pytest.raises(ValueError, match="task"):
        make(content, Task, "task")  # type: ignore[type-abstract]
    assert not mark.exists()
    assert "evil" not in sys.modules


def test_the_labs_own_classes_are_made_of_the_kind_that_is_wanted() -> None:
    task = make(ADDITION, Task, "task")  # type: ignore[type-abstract]
    assert isinstance(task, Addition) and task.digits == 2
    with pytest.raises(UntrustedError, match="is no Learner"):
        make(ADDITION, Learner, "learner")  # type: ignore[type-abstract]


def test_a_package_that_one_trusts_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_tasks.py").write_text(
        "from rlaif_lab.tasks.arithmetic import Addition\nclass Mine(Addition):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUST, raising=False)
    content = ADDITION | {"_target_": "my_own_tasks.Mine"}
    with pytest.raises(UntrustedError, match=f"{TRUST}=my_own_tasks"):
        make(content, Task, "task")  # type: ignore[type-abstract]
    monkeypatch.setenv(TRUST, "other")
    trust("my_own_tasks")
    assert type(make(content, Task, "task")).__name__ == "Mine"  # type: ignore[type-abstract]


@pytest.mark.parametrize("kind", ["torch's pickle", "a bare pickle", "half of one", "empty", "a folder"])
def test_a_checkpoint_is_not_unpickled(tmp_path: Path, mark: Path, kind: str) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = folder / "round_002.ckpt"
    if kind == "torch's pickle":
        torch.save({"state_dict": {}, "callbacks": Opened(mark)}, path)
    elif kind == "a folder":
        path.mkdir()
    else:
        torch.save({"state_dict": {"a": torch.ones(1000)}}, path)
        whole = path.read_bytes()
        content = {"a bare pickle": pickle.dumps(Opened(mark)), "half of one": whole[: len(whole) // 2], "empty": b""}
        path.write_bytes(content[kind])
    with pytest.raises(ValueError, match=r"round_002\.ckpt"):
        newest_checkpoint(folder)
    assert not mark.exists()


def test_the_newest_checkpoint_is_found_by_number_and_two_are_kept(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for index in (8, 9, 10, 998, 1000):
        torch.save({"epoch": index}, tmp_path / f"round_{index:03d}.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "round_1000.ckpt"
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_1000.ckpt", "round_998.ckpt"]


def test_rows_that_are_gone_are_missed(tmp_path: Path) -> None:
    newest = tmp_path / "checkpoints" / "round_002.ckpt"
    check_logged(None, [])
    check_logged(newest, [0, 1, 2, 3])
    for logged in ([], [0, 1], [0, 2]):
        with pytest.raises(DamagedError, match=r"metrics\.jsonl.*is corrupt: it lacks round"):
            check_logged(newest, logged)
