"""What a stored file decides is decided by the bytes that were written, or by nothing."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_lab.records import Prompt
from rlaif_lab.store.checksums import CHECKSUMS, DamagedError, check_sealed, listed, read_checked, seal
from rlaif_lab.store.files import write_atomically
from rlaif_lab.store.outcome import write_finished
from rlaif_lab.store.rows import read_metrics
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS
from store.test_run_folder import generations

PROMPTS = [Prompt(f"task/{i}", f"{i}+{i}=") for i in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    store = RoundStore(tmp_path / "run")
    store.claim({"seed": "0"}, resume=False)
    store.compute_once(0, "evaluation", lambda: {"quality/sampled": 0.5})
    store.stage(0, GENERATIONS, PROMPTS, generations, chunk=10)
    store.append_row({"round": 0, "quality/sampled": 0.5})
    store.append_row({"round": 1, "quality/sampled": 0.75})
    return store


def test_the_list_is_what_sha256sum_checks(store: RoundStore) -> None:
    for file in ("run.json", "round_000/evaluation.json", "round_000/generations.parquet", "metrics.jsonl"):
        digest = hashlib.sha256((store.directory / file).read_bytes()).hexdigest()
        assert digest in listed(store.directory)[file]
    once = [f"{min(found)}  {name}" for name, found in listed(store.directory).items() if len(found) == 1]
    command = ["sha256sum", "-c"]
    done = subprocess.run(command, input="\n".join(once), text=True, capture_output=True, cwd=store.directory)
    assert done.returncode == 0, done.stdout


FILES = {
    "run.json": lambda store: store.claim({"seed": "0"}, resume=True),
    "round_000/evaluation.json": lambda store: store.read_json(0, "evaluation"),
    "round_000/generations.parquet": lambda store: store.read_stage(0, GENERATIONS),
    "metrics.jsonl": lambda store: store.rows(),
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_taken(tmp_path_factory: pytest.TempPathFactory, name: str, place: float, bit: int) -> None:
    """Nor does any end in another kind of error: one sentence that names the file."""
    store = RoundStore(tmp_path_factory.mktemp("flip") / "run")
    store.claim({"seed": "0"}, resume=False)
    store.compute_once(0, "evaluation", lambda: {"quality/sampled": 0.5})
    store.stage(0, GENERATIONS, PROMPTS, generations, chunk=10)
    store.append_row({"round": 0, "quality/sampled": 0.5})
    path = store.directory / name
    content = bytearray(path.read_bytes())
    at = int(
        place * (len(content) - 1)
    )  # not the newline at the end: a line without one was cut short, and is made again
    content[at] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match=Path(name).name):
        FILES[name](store)


def test_a_file_of_another_round_is_not_taken_for_this_one(store: RoundStore) -> None:
    store.compute_once(1, "evaluation", lambda: {"quality/sampled": 0.9})
    one, other = (store.directory / f"round_00{i}" / "evaluation.json" for i in (0, 1))
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedError, match="swapped"):
        store.read_json(1, "evaluation")


def test_a_file_that_nobody_wrote_is_not_taken(store: RoundStore) -> None:
    (store.directory / "round_000" / "changes.json").write_text('{"changes": [1.0]}')
    with pytest.raises(DamagedError, match="not listed"):
        store.read_json(0, "changes")


def test_a_kill_between_the_list_and_the_file_costs_nothing(store: RoundStore) -> None:
    path = store.directory / "config.json"
    write_atomically(path, b"{}")
    with (store.directory / CHECKSUMS).open("a") as file:  # the next content was announced, and never written
        file.write(f"{hashlib.sha256(b'{1}').hexdigest()}  config.json\n{'0' * 40}")
    assert read_checked(path) == b"{}"
    write_atomically(path, b"{2}")
    assert read_checked(path) == b"{2}"
    with store.metrics_file.open("ab") as file:
        file.write(b'{"round": 2, "x"')
    assert [row["round"] for row in store.rows()] == [0, 1]
    store.append_row({"round": 2})
    assert [row["round"] for row in store.rows()] == [0, 1, 2]


def test_a_folder_of_an_earlier_version_is_read_and_vouched_for_from_now_on(
    store: RoundStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.directory / CHECKSUMS).unlink()
    assert len(store.rows()) == 2
    assert store.read_json(0, "evaluation")
    store.claim({"seed": "0"}, resume=True)
    assert "before files had checksums" in capsys.readouterr().out
    assert set(FILES) <= set(listed(store.directory))
    for read in FILES.values():
        read(store)


def test_a_sealed_folder_is_whole_or_named_but_its_card_may_be_edited(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).write_text(name)
    seal(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    check_sealed(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(DamagedError, match=r"config\.json.*missing"):
        check_sealed(tmp_path)
    (tmp_path / CHECKSUMS).write_text("")
    with pytest.raises(DamagedError, match="empty"):
        check_sealed(tmp_path)


@pytest.mark.parametrize("lines", [0, 1, None])
def test_a_finished_run_that_lost_rows_is_named_though_fewer_rows_were_once_right(
    store: RoundStore, lines: int | None
) -> None:
    file = store.directory / "metrics.jsonl"
    write_finished(store.directory, 1)
    assert len(store.rows()) == 2
    if lines is None:
        file.unlink()
    else:
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:lines]))
    with pytest.raises(DamagedError, match=r"metrics\.jsonl' is corrupt: finished\.json says that it had 2 lines"):
        store.rows()
    (store.directory / "finished.json").unlink()
    assert len(store.rows()) == (lines or 0)


def test_a_model_is_looked_at_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(64))
    (tmp_path / "config.json").write_text("{}")
    seal(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(63) + b"x")
    check_sealed(tmp_path, largest=32)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DamagedError, match=r"config\.json"):
        check_sealed(tmp_path, largest=32)


@pytest.mark.parametrize("what", ["a folder", "a device that never ends", "a link to nothing"])
def test_what_is_no_file_is_told_and_not_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / "metrics.jsonl"
    if what == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if "device" in what else "/nowhere")
    if what == "a link to nothing":
        assert read_metrics(path) == []
    else:
        with pytest.raises(ValueError, match=r"metrics\.jsonl"):
            read_metrics(path)
