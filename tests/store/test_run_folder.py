"""The round store: atomic, idempotent, and clear about what is wrong."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif_lab.records import Comparison, Generation, Judgement, PreferencePair, Prompt, Response
from rlaif_lab.store import run_folder as store_module
from rlaif_lab.store.files import DiskError, write_atomically
from rlaif_lab.store.rows import read_metrics
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS, PAIRS

PROMPTS = [Prompt(f"task/{i}", f"{i}+{i}=") for i in range(10)]


def generation_for(prompt: Prompt) -> Generation:
    return Generation(
        prompt,
        (
            Response("ünï\n\"'\\,", (5, 6, 2), (-0.5, -0.25, -1.5), True),
            Response("", (2,), (-3.0,), True),
            Response("7" * 50, tuple(range(50)), (-0.125,) * 50, False),
        ),
    )


def generations(prompts: Sequence[Prompt]) -> list[Generation]:
    return [generation_for(prompt) for prompt in prompts]


COMPARISON = Comparison(PROMPTS[0], "a\n", "")
RECORDS: dict[str, tuple[Any, list[Any]]] = {
    "generations": (GENERATIONS, generations(PROMPTS)),
    "judgements": (
        JUDGEMENTS,
        [
            Judgement(COMPARISON, 0, 3, 0.1 + 0.2, 1 / 3, 0.26666666666666666, "ok", 0.001, 17, None),
            Judgement(COMPARISON, 1, 2, 0.5, 1.0, 0.0, "tie", 0.0, 0, ""),
            Judgement(COMPARISON, 0, 1, None, None, 0.25, "invalid", 1e-9, 3, "?\n---\nA"),
            Judgement(COMPARISON.swapped(), 0, 1, None, 0.25, None, "refused", 2.0, 3, None),
            Judgement(COMPARISON, 0, 1, None, None, None, "invalid", 2.0, 0, None),
        ],
    ),
    "pairs": (PAIRS, [PreferencePair(p, 3, 0, 0.5 + i / 30) for i, p in enumerate(PROMPTS)]),
}
every_stage = pytest.mark.parametrize("name", RECORDS)


def never(_: Any) -> Any:
    raise AssertionError("computed again")


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    return RoundStore(tmp_path / "run", part_seconds=0.0)  # every chunk is worth a part file


def hidden(store: RoundStore) -> list[Path]:
    return sorted(p for p in store.directory.rglob(".*") if p.is_file())


# --- stages -------------------------------------------------------------------------------------------------------
@every_stage
def test_records_come_back_equal_and_are_not_computed_again(store: RoundStore, name: str) -> None:
    stage, records = RECORDS[name]
    first = store.stage(3, stage, range(len(records)), lambda some: [records[i] for i in some], chunk=4)
    assert first.records == records
    again = RoundStore(store.directory).stage(3, stage, range(len(records)), never, chunk=4)
    assert again.records == records
    assert again.seconds == first.seconds > 0
    assert (store.directory / "round_003" / f"{name}.parquet").is_file()
    assert hidden(store) == []


@every_stage
def test_an_empty_stage_is_a_stage(store: RoundStore, name: str) -> None:
    stage, _ = RECORDS[name]
    for items, chunk in (([], 0), ([], 4)):
        assert store.stage(0, stage, items, lambda some: [], chunk=chunk).records == []
    assert store.stage(0, stage, [], never, chunk=4).records == []
    assert store.stage(1, stage, PROMPTS, lambda some: [], chunk=4).records == []


def test_what_the_sampler_makes_comes_back_bit_for_bit(store: RoundStore, untrained: Any) -> None:
    from rlaif_lab.sampling.config import SamplingConfig
    from rlaif_lab.sampling.exact import sample

    made = sample(untrained, PROMPTS, SamplingConfig(), 8, 0)
    for _ in range(2):
        assert store.stage(0, GENERATIONS, PROMPTS, lambda some: made, chunk=100).records == made


def test_rounds_do_not_meet(store: RoundStore) -> None:
    for index in (0, 1, 999, 1000):
        store.stage(index, PAIRS, [0], lambda some, i=index: [PreferencePair(PROMPTS[0], i, 0, 0.5)], chunk=1)
    assert store.stage(1, PAIRS, [0], never, chunk=1).records[0].sample_chosen == 1
    assert store.stage(1000, PAIRS, [0], never, chunk=1).records[0].sample_chosen == 1000


class CrashError(Exception):
    """In place of a kill."""


def crashing(at: int, seen: list[Prompt]) -> Callable[[Sequence[Prompt]], list[Generation]]:
    """Fails in call number ``at``; notes every prompt it computed."""
    calls = 0

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise CrashError
        seen.extend(some)
        return generations(some)

    return compute


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_killed_stage_goes_on_where_it_stopped(store: RoundStore, at: int) -> None:
    seen: list[Prompt] = []
    progressed: list[int] = []
    with pytest.raises(CrashError):
        store.stage(0, GENERATIONS, PROMPTS, crashing(at, seen), chunk=3)
    assert not (store.directory / "round_000" / "generations.parquet").exists()
    result = RoundStore(store.directory, 0.0).stage(
        0, GENERATIONS, PROMPTS, crashing(-1, seen), chunk=3, progress=progressed.append
    )
    assert result.records == generations(PROMPTS)
    assert seen == PROMPTS  # each exactly once, over both lives
    assert sum(progressed) == len(PROMPTS)
    assert hidden(store) == []


def test_a_stage_killed_again_and_again_still_ends_the_same(store: RoundStore) -> None:
    seen: list[Prompt] = []
    for _ in range(9):
        with pytest.raises(CrashError):
            store.stage(0, GENERATIONS, PROMPTS, crashing(2, seen), chunk=1)
    assert store.stage(0, GENERATIONS, PROMPTS, crashing(-1, seen), chunk=1).records == generations(PROMPTS)
    assert seen == PROMPTS


def test_a_stages_seconds_include_those_before_the_crash(store: RoundStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))  # every look at the clock is two seconds later
    monkeypatch.setattr(store_module.time, "perf_counter", lambda: next(clock))
    with pytest.raises(CrashError):
        store.stage(0, GENERATIONS, PROMPTS, crashing(3, []), chunk=3)
    assert store.stage(0, GENERATIONS, PROMPTS, generations, chunk=3).seconds == 8.0  # four chunks


def test_cheap_chunks_are_not_worth_a_file(tmp_path: Path) -> None:
    store = RoundStore(tmp_path, part_seconds=1000.0)
    with pytest.raises(CrashError):
        store.stage(0, GENERATIONS, PROMPTS, crashing(3, []), chunk=3)
    assert hidden(store) == []


@pytest.mark.parametrize("leftover", [".generations.parquet.tmp", "..generations.part_000000003.parquet.tmp"])
def test_temporary_files_of_a_kill_are_ignored(store: RoundStore, leftover: str) -> None:
    (store.directory / "round_000").mkdir(parents=True)
    (store.directory / "round_000" / leftover).write_bytes(b"half a fi")
    assert store.stage(0, GENERATIONS, PROMPTS, generations, chunk=3).records == generations(PROMPTS)


def test_part_files_of_a_whole_stage_are_ignored(store: RoundStore) -> None:
    """A kill between the rename and the deletion of the parts."""
    with pytest.raises(CrashError):
        store.stage(0, GENERATIONS, PROMPTS, crashing(3, []), chunk=3)
    parts = {part: part.read_bytes() for part in hidden(store)}
    assert len(parts) == 2
    store.stage(0, GENERATIONS, PROMPTS, generations, chunk=3)
    for part, content in parts.items():
        part.write_bytes(content)
    assert store.stage(0, GENERATIONS, PROMPTS, never, chunk=3).records == generations(PROMPTS)


# --- corruption ---------------------------------------------------------------------------------------------------
def stored(store: RoundStore, name: str) -> Path:
    stage, records = RECORDS[name]
    store.stage(0, stage, [0], lambda some: records, chunk=1)
    return store.directory / "round_000" / f"{name}.parquet"


@every_stage
@pytest.mark.parametrize("damage", ["empty", "half", "text", "tail", "other table"])
def test_a_corrupt_table_is_one_clear_error_that_names_the_file(store: RoundStore, name: str, damage: str) -> None:
    path = stored(store, name)
    content = path.read_bytes()
    other = stored(RoundStore(store.directory / "other"), "pairs" if name != "pairs" else "judgements").read_bytes()
    damaged = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "text": b"not a table",
        "tail": content[:-1],
        "other table": other,
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"corrupt .*delete that one file") as caught:
        store.stage(0, RECORDS[name][0], [0], never, chunk=1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert store.stage(0, RECORDS[name][0], [0], lambda some: RECORDS[name][1], chunk=1).records == RECORDS[name][1]


@every_stage
def test_flipped_bits_in_the_data_do_not_go_unnoticed(store: RoundStore, name: str) -> None:
    """Either the records are what they were, or the error names the file. (Checksums cover a table's pages but not
    the few bytes of their headers, hence one in a hundred.)"""
    path = stored(store, name)
    stage, records = RECORDS[name]
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    flipped = range(4, len(content) - 8 - footer, 5)
    wrong = []
    for at in flipped:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            if store.stage(0, stage, [0], never, chunk=1).records != records:
                wrong.append((at, "other records, silently"))
        except ValueError as error:
            if str(path) not in str(error):
                wrong.append((at, repr(error)))
    assert len(wrong) <= 0.01 * len(flipped), f"{len(wrong)} of {len(flipped)} flips, e.g. {wrong[:3]}"


def test_a_corrupt_part_file_is_named_too(store: RoundStore) -> None:
    with pytest.raises(CrashError):
        store.stage(0, GENERATIONS, PROMPTS, crashing(3, []), chunk=3)
    part = hidden(store)[0]
    part.write_bytes(b"half")
    with pytest.raises(ValueError, match=part.name):
        store.stage(0, GENERATIONS, PROMPTS, generations, chunk=3)


# --- objects ------------------------------------------------------------------------------------------------------
def test_an_object_is_computed_once_and_its_floats_survive_exactly(store: RoundStore) -> None:
    value = {"a": 0.1 + 0.2, "b": 1e-300, "c": -1 / 3, "d": 5, "e": math.inf}
    assert store.compute_once(2, "evaluation", lambda: value) == value
    assert RoundStore(store.directory).compute_once(2, "evaluation", lambda: never(None)) == value
    assert math.isnan(store.compute_once(2, "other", lambda: {"x": math.nan})["x"])


def test_what_was_computed_and_what_was_loaded_are_the_same_thing(store: RoundStore) -> None:
    """A tuple comes back as a list already the first time, so a resumed run cannot differ."""
    assert store.compute_once(0, "x", lambda: {"a": (1, 2)}) == store.compute_once(0, "x", dict) == {"a": [1, 2]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_a_corrupt_object_is_named(store: RoundStore, content: bytes) -> None:
    store.compute_once(0, "evaluation", lambda: {"a": 1})
    (store.directory / "round_000" / "evaluation.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"evaluation\.json' is corrupt"):
        store.compute_once(0, "evaluation", dict)


# --- whose store --------------------------------------------------------------------------------------------------
CONFIG = {"seed": "0", "learner.beta": "0.1", "policy weights": "abc"}


def test_a_directory_is_claimed_once_and_only_taken_up_again_on_purpose(store: RoundStore) -> None:
    store.claim(CONFIG, resume=False)
    with pytest.raises(ValueError, match="already holds this run; pass resume=true"):
        store.claim(CONFIG, resume=False)
    RoundStore(store.directory).claim(dict(CONFIG), resume=True)


def test_resuming_in_a_fresh_directory_begins_there(store: RoundStore) -> None:
    store.claim(CONFIG, resume=True)
    store.claim(CONFIG, resume=True)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**CONFIG, "learner.beta": "0.2"}, "learner.beta was '0.1', is '0.2'"),
        ({k: v for k, v in CONFIG.items() if k != "seed"}, "seed was '0', is None"),
        ({**CONFIG, "learner.clip": "0.2"}, "learner.clip was None, is '0.2'"),
        ({**CONFIG, "seed": "1", "learner.beta": "1"}, "learner.beta was '0.1', is '1'; seed was '0', is '1'"),
    ],
)
def test_another_config_is_refused_by_the_keys_that_differ(
    store: RoundStore, other: dict[str, str], message: str, resume: bool
) -> None:
    store.claim(CONFIG, resume=False)
    with pytest.raises(ValueError, match="another config") as caught:
        store.claim(other, resume=resume)
    assert message in str(caught.value)
    store.claim(CONFIG, resume=True)  # the refusal changed nothing


# --- metrics.jsonl ------------------------------------------------------------------------------------------------
def test_rows_come_back_in_order_and_nan_as_null(store: RoundStore) -> None:
    store.directory.mkdir()
    assert store.rows() == []
    rows = [{"round": 0, "x": 0.1 + 0.2}, {"round": 1, "x": math.nan}, {"round": 2, "x": None, "name": "ü"}]
    assert all(store.append_row(row) for row in rows)
    assert store.rows() == [rows[0], {"round": 1, "x": None}, rows[2]]
    lines = store.metrics_file.read_bytes()
    assert lines.count(b"\n") == 3
    assert b"NaN" not in lines


def test_an_infinite_metric_does_not_end_the_run(store: RoundStore) -> None:
    """JSON has no infinity; whatever stands for it, the row must be written and be readable."""
    store.directory.mkdir()
    assert store.append_row({"round": 0, "kl": math.inf, "x": 1.0})
    assert store.rows()[0]["x"] == 1.0


@pytest.mark.parametrize("cut", [1, 5, 10, 20, -2])
def test_a_half_written_line_is_left_out_and_cut_off_by_the_next(store: RoundStore, cut: int) -> None:
    store.directory.mkdir()
    store.append_row({"round": 0, "x": 1.0})
    store.append_row({"round": 1, "x": 2.0})
    lines = store.metrics_file.read_bytes().splitlines(keepends=True)
    store.metrics_file.write_bytes(lines[0] + lines[1][:cut])
    assert store.rows() == [{"round": 0, "x": 1.0}]
    assert store.append_row({"round": 1, "x": 2.5})
    assert store.rows() == [{"round": 0, "x": 1.0}, {"round": 1, "x": 2.5}]
    assert store.metrics_file.read_bytes().count(b"\n") == 2


def test_a_line_that_lacks_only_its_newline_is_not_lost(store: RoundStore) -> None:
    """The run, going on, appends its row again; then the next round's. No round may be missing in the end."""
    store.directory.mkdir()
    store.append_row({"round": 0, "x": 1.0})
    store.append_row({"round": 1, "x": 2.0})
    store.metrics_file.write_bytes(store.metrics_file.read_bytes()[:-1])
    store.append_row({"round": 1, "x": 2.0})
    store.append_row({"round": 2, "x": 3.0})
    assert [row["round"] for row in store.rows()] == [0, 1, 2]


def test_the_first_row_may_be_the_half_written_one(store: RoundStore) -> None:
    store.directory.mkdir()
    store.metrics_file.write_bytes(b'{"round": 0, "x"')
    assert store.rows() == []
    assert store.append_row({"round": 0, "x": 1.0})
    assert store.rows() == [{"round": 0, "x": 1.0}]


@pytest.mark.parametrize("line", [b"{broken", b"[]", b'{"x": 1}', b"3"])
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(store: RoundStore, line: bytes) -> None:
    store.directory.mkdir()
    store.metrics_file.write_bytes(b'{"round": 0}\n' + line + b'\n{"round": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        store.rows()


def test_a_round_is_logged_once_and_an_evaluation_gives_way_to_a_whole_row(store: RoundStore) -> None:
    store.directory.mkdir()
    whole = {"round": 0, "quality": 0.5, "loss": 0.1}
    assert store.append_row(whole)
    assert not store.append_row({**whole, "loss": 0.2})
    assert store.append_row({"round": 1, "quality": 0.6})  # the last round of a run: evaluated, not trained on
    assert store.append_row({"round": 1, "quality": 0.6, "loss": 0.3})  # the run was prolonged
    assert not store.append_row({"round": 1, "quality": 0.6})
    assert store.rows() == [whole, {"round": 1, "quality": 0.6, "loss": 0.3}]
    assert read_metrics(store.metrics_file) == store.rows()


# --- disk ---------------------------------------------------------------------------------------------------------
def test_a_write_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"old")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os if step == "fsync" else Path, step, killed)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(path, b"new" * 1000)
        assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


WRITES: dict[str, Callable[[RoundStore], Any]] = {
    "a stage": lambda store: store.stage(0, GENERATIONS, PROMPTS, generations, chunk=100),
    "a part": lambda store: store.stage(0, GENERATIONS, PROMPTS, generations, chunk=3),
    "an object": lambda store: store.compute_once(0, "evaluation", lambda: {"a": 1}),
    "a claim": lambda store: store.claim(CONFIG, resume=False),
    "a row": lambda store: (store.directory.mkdir(exist_ok=True), store.append_row({"round": 0}))[1],
}


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_is_one_clear_sentence_and_the_run_can_go_on(
    store: RoundStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=r"No space left on device.*is kept") as caught:
            WRITES[what](store)
    assert isinstance(caught.value, ValueError)
    assert str(store.directory) in str(caught.value)
    WRITES[what](store)  # there is space again


@pytest.mark.parametrize("what", ["a stage", "an object", "a claim"])
def test_a_disk_too_full_for_a_folder_says_so_too(
    store: RoundStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskError, match="No space left on device"):
        WRITES[what](store)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device on this system")
def test_a_truly_full_device(store: RoundStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.directory.mkdir()
    (store.directory / ".file.tmp").symlink_to("/dev/full")
    with pytest.raises(DiskError, match="No space left on device"):
        write_atomically(store.directory / "file", b"x" * 100_000)
    assert not (store.directory / "file").exists()
    store.metrics_file.symlink_to("/dev/full")
    monkeypatch.setattr(store, "rows", list)  # reading /dev/full never ends
    with pytest.raises(DiskError, match=r"metrics\.jsonl.*No space left"):
        store.append_row({"round": 0, "x": "y" * 100_000})


def test_what_was_stored_before_a_full_disk_is_kept(store: RoundStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.directory.mkdir()
    store.append_row({"round": 0, "x": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError):
            store.append_row({"round": 1, "x": 2.0})
    assert store.rows()[0] == {"round": 0, "x": 1.0}
    store.append_row({"round": 1, "x": 2.0})
    store.append_row({"round": 2, "x": 3.0})
    assert [row["round"] for row in store.rows()] == [0, 1, 2]


def test_records_are_frozen() -> None:
    generation = generation_for(PROMPTS[0])
    with pytest.raises(AttributeError):
        generation.prompt = PROMPTS[1]  # type: ignore[misc]
    assert replace(generation, prompt=PROMPTS[1]) != generation
