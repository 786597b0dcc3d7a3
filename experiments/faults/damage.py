"""Damage stored files, then do what one does with a run, and count how often the damage is named or mended.

    python experiments/faults/damage.py

An unfinished run is resumed: that has to end in one sentence that names the file, or in the same numbers as without the
damage. A finished run, alone and in a sweep of two, is reported on, opened, exported and its policy checked as a model:
one of them has to name the file, and the report has to show the other run.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import runs

from rlaif_lab.export import export_run
from rlaif_lab.models.place import check_model_folder
from rlaif_lab.report.load import load
from rlaif_lab.results import read_run
from rlaif_lab.store.checksums import check_sealed

FILES = (
    *("run.json", "config.json", "metrics.jsonl", "checksums.txt", "round_001/generations.parquet"),
    *("round_001/judgements.parquet", "round_001/evaluated.parquet", "round_001/ahead.parquet"),
    *("round_001/evaluation.json", "round_001/changes.json", "round_001/policy.pt", "checkpoints/round_001.ckpt"),
    ".hydra/overrides.yaml",
)
READ_WHEN_FINISHED = (
    *("config.json", "metrics.jsonl", "round_001/changes.json", "round_001/generations.parquet"),
    *("round_001/judgements.parquet", "policy/model.safetensors", "policy/config.json", "policy/tokenizer.json"),
)
Damage = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content) - 1)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content) - 1)])


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def zeros(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content) // 2)
    size = min(4096, len(content) // 3)
    content[at : at + size] = bytes(size)
    path.write_bytes(content)


def another_type(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"[1, 2]\n")


def a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def swapped(path: Path, rng: random.Random) -> None:
    """With the same file of another round; where there is none, or it is equal, with another file."""
    for other in (
        Path(str(path).replace("001", "000")),
        Path(str(path).replace("001", "002")),
        path.parent / "run.json",
    ):
        if other != path and other.is_file() and other.read_bytes() != path.read_bytes():
            path.write_bytes(other.read_bytes())
            return
    path.write_bytes(b"{}")


DAMAGES: tuple[Damage, ...] = (flip, truncate, empty, zeros, another_type, a_folder, swapped)


@contextlib.contextmanager
def heard(into: list[str]) -> Iterator[None]:
    """What is printed, and the sentence of an error; any other error than a ValueError is a traceback."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield
    except ValueError as error:
        into.append(str(error))
    except Exception as error:
        into.append(f"Traceback: {type(error).__name__}: {error}")
    into.append(out.getvalue())


def resumed(folder: Path, name: str, expected: str) -> str:
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    child = runs.start(folder, *runs.SMALLEST)
    child.join()
    said = log.read_text(errors="replace")
    if "Traceback" in said:
        return "TRACEBACK " + said.splitlines()[-1]
    if child.exitcode == 0:
        return "mended" if str(runs.result(folder)["rows"]) == expected else "TAKEN"
    return "named" if Path(name).name in said else "UNNAMED " + " ".join(said.splitlines()[-1:])


def read(sweep: Path, name: str) -> str:
    """Everything that one does with finished runs."""
    run, said = sweep / "damaged", list[str]()
    with heard(said):
        found = load(sweep)
        assert any(other.name == "whole" for other in found.runs), "the other run is not shown"
        said += [problem.reason for problem in found.failed]
    with heard(said):
        opened = read_run(run)
        for index in range(3):
            opened.round(index)
    with heard(said):
        export_run(run)
    with heard(said):
        check_model_folder(run / "policy")
        check_sealed(run / "policy")
    text = "\n".join(said)
    if "Traceback" in text or "not shown" in text:
        return "TRACEBACK " + text[text.index("Traceback") :].splitlines()[0]
    return "named" if Path(name).name in text else "TAKEN"


def main() -> int:
    place = runs.prepare()
    straight, half = place / "straight", place / "half"
    runs.whole(straight, *runs.SMALLEST)
    expected = str(runs.result(straight)["rows"])
    for share in (0.7, 0.6, 0.8, 0.5, 0.75, 0.65):  # of a run: until it is caught in its last round
        shutil.rmtree(half, ignore_errors=True)
        runs.killed(half, share * runs.whole(place / f"timed_{share}", *runs.SMALLEST), *runs.SMALLEST)
        if (half / "checkpoints" / "round_001.ckpt").exists() and not (half / "finished.json").exists():
            break
    rng = random.Random(0)
    counts: dict[str, int] = {}
    for kind, names in (("unfinished", FILES), ("finished", READ_WHEN_FINISHED)):
        for name in names:
            for damage in DAMAGES:
                case = place / "case"
                shutil.rmtree(case, ignore_errors=True)
                folder = case / "damaged"
                shutil.copytree(half if kind == "unfinished" else straight, folder)
                if kind == "finished":
                    shutil.copytree(straight, case / "whole")
                damage(folder / name, rng)
                outcome = resumed(folder, name, expected) if kind == "unfinished" else read(case, name)
                counts[outcome.split()[0]] = counts.get(outcome.split()[0], 0) + 1
                if outcome not in ("named", "mended"):
                    print(f"{kind} run, {name}, {damage.__name__}: {outcome}", flush=True)
    good = counts.get("named", 0) + counts.get("mended", 0)
    tried = sum(counts.values())
    print(f"damages named (or mended: {counts.get('mended', 0)}) / tried: {good} / {tried}; {counts}")
    shutil.rmtree(place)
    return 0 if good == tried else 1


if __name__ == "__main__":
    sys.exit(main())
