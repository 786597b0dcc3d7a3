"""Every command that a signal or a disk ends says so in one sentence, with what goes on, and by its exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_lab.cli import audit, export, prepare, report, workspace
from rlaif_lab.cli.endings import of_the_disk, told


def interrupted(program: str, name: str, note: str | None = None) -> None:
    with told(program):
        try:
            os.kill(os.getpid(), signal.Signals[name])
            signal.pause()
        except BaseException as error:
            if note is not None:
                error.add_note(note)
            raise


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_told_with_the_command_that_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rlaif-report", "my runs", "--floor", "self"])
    before = signal.getsignal(signal.Signals[name])
    with pytest.raises(SystemExit) as ended:
        interrupted("rlaif-report", name)
    assert ended.value.code == 128 + signal.Signals[name]
    assert capsys.readouterr().err == (
        f"rlaif-report: interrupted by {name}; run it again: rlaif-report 'my runs' --floor self\n"
    )
    assert signal.getsignal(signal.Signals[name]) == before


def test_what_the_command_knows_better_is_said_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        interrupted("rlaif-audit", "SIGTERM", "continue with: rlaif-audit hydra.run.dir=kept")
    assert capsys.readouterr().err.endswith("; continue with: rlaif-audit hydra.run.dir=kept\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ELOOP])
def test_a_disk_that_takes_no_more_is_one_sentence(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, told("rlaif-export"):
        raise OSError(number, os.strerror(number), "table.csv")
    assert ended.value.code == 2
    said = f"rlaif-export: cannot read or write 'table.csv': {os.strerror(number)}\n"
    assert capsys.readouterr().err == said


def test_a_full_disk_need_not_name_the_file() -> None:
    assert (
        of_the_disk(OSError(errno.ENOSPC, "No space left on device")) == "cannot write a file: No space left on device"
    )
    assert of_the_disk(OSError(errno.EACCES, "Permission denied")) is None, "which is always about a file"


def test_a_fault_of_the_programs_own_is_not_hidden() -> None:
    with pytest.raises(OSError, match="socket"), told("rlaif-report"):
        raise OSError(errno.ENOTSOCK, "no socket")


def test_a_reader_that_has_gone_is_no_fault() -> None:
    program = (
        "from rlaif_lab.cli.endings import told\n"
        "with told('rlaif-report'):\n"
        "    for _ in range(100_000): print('a line', flush=True)\n"
    )
    command = f'{sys.executable} -c "{program}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("a line\n", "")
    assert done.returncode == 141


def test_a_folder_whose_link_leads_in_a_circle_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for command in (report, export):
        with pytest.raises(SystemExit) as ended:
            command.main([str(tmp_path / "circle")])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "circle") in line


@pytest.mark.parametrize("command", [audit, export, prepare, report, workspace])
def test_every_command_ends_so(command: object) -> None:
    assert "with told(" in Path(str(command.__file__)).read_text()  # type: ignore[attr-defined]
