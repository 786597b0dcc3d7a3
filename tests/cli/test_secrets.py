"""A key in the wrong place is refused before anything is written, and is repeated nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_lab.cli.api import compose
from rlaif_lab.config.secrets import check_arguments, check_config, check_files

KEY = "sk-Zx81hTq20LmWv94RkPb7"
WRONG_PLACES = [
    f"judge.api_key_env={KEY}",
    "judge.api_key_env=Zx81hTq20LmWv94RkPb7cD55",
    f"+judge.api_key={KEY}",
    "+judge.api_key=plain",
    f"judge.base_url=http://user:{KEY}@host/v1",
    "judge.base_url=http://user:hunter2@host/v1",
    "judge.base_url=http://host/v1?key=hunter2",
    f"+judge.headers={{Authorization: Bearer {KEY}}}",
    f"judge.model={KEY}",
    f"judge.criteria='use {KEY}'",
    f"arm={KEY}",
    f"experiment_name={KEY}",
    f"hydra.run.dir=outputs/{KEY}",
    f"judge@heldout_judge={KEY}",
    "logger.entity=" + "0123456789abcdef" * 2 + "01234567",
    "arm=${oc.env:OPENAI_API_KEY}",
    f"policy.path=hf_{KEY[3:]}",
    KEY,
    f"OPENAI_API_KEY={KEY}",
    "judge.api_key_env=hunter2hunter2",
    "judge.base_url=https://host/v1#token=hunter2",
    "+judge.headers=[{Authorization: hunter2hunter2}]",
    "+judge.headers={Cookie: session=hunter2}",
    f"bank.path=/data/{KEY}/pairs.jsonl",
    "hydra.job.env_set={OPENAI_API_KEY: hunter2hunter2}",
    "judge.model=xoxb-hunter2-hunter2-hunter2",
    "judge.model=sk_0123456789abcdefhunter2",
]


@pytest.mark.parametrize("override", WRONG_PLACES, ids=range(len(WRONG_PLACES)))
def test_is_refused_without_being_repeated(override: str) -> None:
    with pytest.raises(ValueError, match="keys belong in an environment variable") as caught:
        check_arguments(["judge=api", override])
    assert KEY not in str(caught.value)
    assert KEY[3:] not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "judge.api_key_env=OPENAI_API_KEY",
        "judge.api_key_env=my_key_2",
        "judge.api_key_env=null",
        "judge.base_url=https://api.openai.com/v1",
        "policy.revision=0123456789abcdef0123456789abcdef01234567",
        "judge.reads=verdict",
        "policy.path=task-skill/desk-lamp",
        "judge.max_tokens=5",
        "judge.base_url=https://host/v1#answers",
        "judge.model=sk_learn/key-value",
        "task.columns={prompt: question, id: key_column}",
    ],
)
def test_what_is_no_key_passes(override: str) -> None:
    check_arguments([override])


def test_the_content_of_a_variable_is_known_whatever_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_TOKEN", "correct horse battery")
    with pytest.raises(ValueError, match="arm holds what looks like a key"):
        check_arguments(["arm='correct horse battery'"])
    monkeypatch.setenv("OPENAI_API_KEY", "correct horse")
    with pytest.raises(ValueError, match=r"judge\.name"):
        check_config({"judge": {"name": "correct horse"}})


def test_a_file_of_ones_own_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "mine.yaml").write_text(f"name: x\napi_key_env: {KEY}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 2") as caught:
        check_files([tmp_path])
    assert KEY not in str(caught.value)


def test_from_python_too() -> None:
    with pytest.raises(ValueError, match="keys belong"):
        compose(["judge=api", f"judge.api_key_env={KEY}"])


@pytest.mark.slow
def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    for i, override in enumerate(WRONG_PLACES[::4]):
        command = [sys.executable, "-m", "rlaif_lab", *["-m"] * (i % 2), "judge=api", override]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert KEY not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
