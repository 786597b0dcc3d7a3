"""A store of verdicts that several processes share and that SIGKILL does not hurt."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from pathlib import Path

import pytest

from rlaif_lab.judges.verdict_store import Spent, VerdictStore
from rlaif_lab.records import Score, Verdict
from rlaif_lab.store.files import DiskError

EVERY_KIND = {
    "plain": Verdict(0.1 + 0.2),  # a float that no short decimal holds
    "zero": Verdict(0.0),
    "tie": Verdict(0.5, "tie", 0.25, 17, "C", 0.00123, {"votes": ["tie", "first"], "nested": {"a": [1, None, 1e-300]}}),
    "refused": Verdict(None, "refused", raw="No.\n\u0000 – 判断 🙂"),
    "over": Verdict(None, "over_budget", raw=""),
    "timed out": Verdict(None, "timed_out", 30.0),
    "invalid": Verdict(None, "invalid", raw="' OR 1=1; --", details={}),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "verdicts.sqlite"


def test_verdicts_come_back_as_they_were_also_after_reopening(path: Path) -> None:
    store = VerdictStore(path)
    store.put(EVERY_KIND)
    assert store.get([*EVERY_KIND, "never put"]) == EVERY_KIND
    store.close()
    again = VerdictStore(path)
    assert again.get(list(EVERY_KIND)) == EVERY_KIND
    assert again.get(["tie", "tie"]) == {"tie": EVERY_KIND["tie"]}
    assert again.get([]) == {}
    assert len(again) == len(EVERY_KIND)


def test_memory_will_do_where_nothing_has_to_last() -> None:
    store = VerdictStore(None)
    store.put(EVERY_KIND)
    assert store.get(list(EVERY_KIND)) == EVERY_KIND
    assert len(VerdictStore(None)) == 0


def test_the_first_write_of_a_key_stands(path: Path) -> None:
    store, other = VerdictStore(path), VerdictStore(path)
    store.put({"k": Verdict(0.9)})
    other.put({"k": Verdict(0.1), "new": Verdict(0.2)})
    assert store.get(["k", "new"]) == other.get(["k", "new"]) == {"k": Verdict(0.9), "new": Verdict(0.2)}
    assert len(store) == 2


def test_scores_have_keys_of_their_own(path: Path) -> None:
    store = VerdictStore(path)
    scores = {"k": Score(-7.25, details={"votes": [7]}), "bad": Score(None, "invalid", raw="ten")}
    store.put({"k": Verdict(0.9)})
    store.put_scores(scores)
    store.put_scores({"k": Score(1.0)})
    assert store.get_scores(["k", "bad"]) == scores
    assert store.get(["k", "bad"]) == {"k": Verdict(0.9)}
    assert len(store) == 3


def test_many_keys_in_one_call(path: Path) -> None:
    store = VerdictStore(path)
    verdicts = {f"key {i}": Verdict(i / 50_000) for i in range(50_000)}
    store.put(verdicts)
    assert store.get(list(verdicts)) == verdicts


def test_what_was_spent_counts_answers_failures_and_repeats_of_failures(path: Path) -> None:
    store = VerdictStore(path)
    assert store.spent() == Spent(0, 0, 0.0)
    store.put(
        {"a/1": Verdict(0.9, tokens=10, cost_usd=0.5), "a/2": Verdict(0.5, "tie", 0, 20, None, 0.25, {"requests": 3})}
    )
    store.put({"a/1": Verdict(0.9, tokens=1000, cost_usd=50.0)})  # not taken, so not counted
    for _ in range(2):
        store.put_failures({"a/3": Verdict(None, "timed_out", tokens=100, cost_usd=1.0, details={"requests": 2})})
    store.put({"b/1": Verdict(None, "refused", tokens=7)})
    assert store.spent("a/") == Spent(1 + 3 + 2 * 2, 10 + 20 + 2 * 100, 0.5 + 0.25 + 2 * 1.0)
    assert store.spent() == Spent(9, 237, 2.75)
    assert store.get(["a/3"]) == {}, "a failure is no answer"
    assert VerdictStore(path).spent() == store.spent()


def test_threads_share_a_store(path: Path) -> None:
    store = VerdictStore(path)

    def write(start: int) -> None:
        for i in range(start, start + 50):
            store.put({str(i): Verdict(0.5, "tie")})
            assert str(i) in store.get([str(i)])

    threads = [threading.Thread(target=write, args=(25 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 125


WRITER = """
    import sys
    from pathlib import Path
    from rlaif_lab.judges.verdict_store import VerdictStore
    from rlaif_lab.records import Verdict

    who, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    store = VerdictStore(path)
    print("open", flush=True)
    for i in range(count):
        store.put({str(i): Verdict(1.0, raw=who), f"{i} by {who}": Verdict(0.0)})
        print(i, flush=True)
"""


def writer(who: str, path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), who, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


def test_processes_that_make_and_fill_one_file_together(path: Path) -> None:
    writers = [writer(who, path, 60) for who in ("ann", "bob", "cyd")]
    for process in writers:
        process.communicate(timeout=120)
        assert process.returncode == 0
    store = VerdictStore(path)
    assert len(store) == 60 * 4  # each number once, by whoever came first, and each writer's own
    assert {v.raw for v in store.get([str(i) for i in range(60)]).values()} <= {"ann", "bob", "cyd"}


def test_what_put_returned_for_survives_sigkill_and_nothing_is_half_there(path: Path) -> None:
    acknowledged = -1
    for _ in range(3):
        process = writer("ann", path, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for line in process.stdout:
            acknowledged = max(acknowledged, int(line))
            if int(line) >= acknowledged and int(line) % 40 == 39:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = VerdictStore(path)
    keys = [str(i) for i in range(acknowledged + 1)]
    assert len(store.get(keys)) == acknowledged + 1
    assert len(store) % 2 == 0, "a put is all or nothing"


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, foreign = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("These are no verdicts. " * 500)
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE answers (x)")
    database.close()
    for file, complaint in ((text, "is no store of verdicts"), (foreign, "is a database of something else")):
        before = file.read_bytes()
        with pytest.raises(ValueError, match=complaint) as error:
            VerdictStore(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
        assert file.read_bytes() == before


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    """A process that was killed while it made the file leaves one."""
    file = tmp_path / "verdicts.sqlite"
    file.touch()
    VerdictStore(file).put({"k": Verdict(1.0)})
    assert len(VerdictStore(file)) == 1


def test_a_corrupt_store_is_told(path: Path) -> None:
    store = VerdictStore(path)
    store.put({str(i): Verdict(0.5, "tie", raw="x" * 500) for i in range(500)})
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="corrupt"):
        VerdictStore(path).get(["1", "499"])


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="unable to open"):
        VerdictStore(tmp_path)


def fill(store: VerdictStore) -> int:
    """Puts verdicts until the disk is full; how many went in."""
    for number in range(10_000):
        try:
            store.put({str(number): Verdict(0.5, "tie", raw="x" * 2000)})
        except DiskError as error:
            if "database or disk is full" not in str(error):
                raise
            return number
    raise AssertionError("the disk never filled up")


def put_once(place: Path) -> None:
    with closing(VerdictStore(place)) as store:
        store.put({"new": Verdict(1.0)})


def test_a_full_or_read_only_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    """On a real file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        store = VerdictStore(disk / "verdicts.sqlite")
        kept = fill(store)
        assert kept > 10
        assert len(store) == kept
        store.close()
        subprocess.run(["mount", "-o", "remount,size=50M,ro", disk], check=True)
        for place in (disk / "verdicts.sqlite", disk / "new.sqlite", disk / "folder" / "new.sqlite"):
            with pytest.raises(DiskError, match="cannot write"):
                put_once(place)
        subprocess.run(["mount", "-o", "remount,size=50M,rw", disk], check=True)
        mended = VerdictStore(disk / "verdicts.sqlite")
        mended.put({"new": Verdict(1.0)})
        assert len(mended) == kept + 1
        mended.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
