"""Prompts of one's own: every format, disjoint splits, repetition, and mistakes told with file and line."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.prompts_file import SHIPPED, PromptsFile

TEXTS = [f"What is {i} good for?" for i in range(200)]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Who are you?"},
]


def made(path: Path | str, **options: Any) -> PromptsFile:
    return PromptsFile(str(path), **({"max_response_tokens": 8} | options))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def texts(path: Path, count: int = 200, column: str = "prompt") -> Path:
    return lines(path, *({column: text} for text in TEXTS[:count]))


def everything(task: PromptsFile) -> list[Prompt]:
    splits = ("rounds", "evaluation")
    return [p for split in splits for p in task.prompts(split, 0, task.available(split), 0)]  # type: ignore[arg-type]


def error_of(path: Path | str, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        made(path, **options).available("rounds")
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- formats --------------------------------------------------------------------------------------------------------
def write_jsonl(folder: Path) -> Path:
    return texts(folder / "p.jsonl")


def write_json(folder: Path) -> Path:
    (folder / "p.json").write_text(json.dumps([{"prompt": text} for text in TEXTS]))
    return folder / "p.json"


def write_csv(folder: Path) -> Path:
    with (folder / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["n", "prompt"], *([i, text] for i, text in enumerate(TEXTS))])
    return folder / "p.csv"


def write_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"prompt": TEXTS}), folder / "p.parquet")
    return folder / "p.parquet"


def write_saved_dataset(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"prompt": TEXTS}).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def write_dataset_of_splits(folder: Path) -> Path:
    import datasets

    splits = {
        "train": datasets.Dataset.from_dict({"prompt": TEXTS}),
        "test": datasets.Dataset.from_dict({"prompt": ["x"]}),
    }
    datasets.DatasetDict(splits).save_to_disk(str(folder / "splits"))
    return folder / "splits"


def write_folder_of_files(folder: Path) -> Path:
    (folder / "files").mkdir()
    texts(folder / "files" / "train.jsonl")
    return folder / "files"


@pytest.mark.parametrize(
    "write",
    [
        write_jsonl,
        write_json,
        write_csv,
        write_parquet,
        write_saved_dataset,
        write_dataset_of_splits,
        write_folder_of_files,
    ],
)
def test_every_format_gives_the_same_prompts(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    task, reference = made(write(tmp_path)), made(write_jsonl(tmp_path))
    assert {p.text for p in everything(task)} == set(TEXTS)
    assert everything(task) == everything(reference)
    assert task.identity() == reference.identity()


def test_a_column_by_another_name_and_ids_of_ones_own(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", *({"question": text, "number": i} for i, text in enumerate(TEXTS)))
    task = made(path, columns={"prompt": "question", "id": "number"}, name="mine")
    assert {(p.id, p.text) for p in everything(task)} == {(f"mine/{i}", text) for i, text in enumerate(TEXTS)}


def test_conversations_keep_their_turns_and_lose_the_answer(tmp_path: Path) -> None:
    answered = [*TALK, {"role": "assistant", "content": "Nobody."}]
    more = [[{"role": "user", "content": text}] for text in TEXTS[:20]]
    path = lines(tmp_path / "p.jsonl", *({"messages": talk} for talk in (answered, *more)))
    found = {p.text: p for p in everything(made(path, columns={"prompt": "messages"}))}
    assert found["Who are you?"].turns == tuple((turn["role"], turn["content"]) for turn in TALK)
    assert found[TEXTS[3]].turns == (("user", TEXTS[3]),)
    pq.write_table(pa.table({"messages": [answered, *more]}), tmp_path / "p.parquet")
    assert everything(made(tmp_path / "p.parquet", columns={"prompt": "messages"})) == everything(
        made(path, columns={"prompt": "messages"})
    )


# --- splits ---------------------------------------------------------------------------------------------------------
def test_splits_are_disjoint_whole_and_of_the_stated_share(tmp_path: Path) -> None:
    many = lines(tmp_path / "p.jsonl", *({"prompt": f"prompt {i}"} for i in range(4000)))
    task = made(many, evaluation_share=0.25)
    rounds, evaluation = (
        {p.text for p in task.prompts(split, 0, task.available(split), seed=3)} for split in ("rounds", "evaluation")
    )
    assert not rounds & evaluation
    assert len(rounds | evaluation) == 4000
    assert len(evaluation) / 4000 == pytest.approx(0.25, abs=0.025)
    assert task.available("policy_pretraining") == task.available("judge_pretraining") == 0


def test_a_prompts_split_does_not_depend_on_the_rest_of_the_file(tmp_path: Path) -> None:
    few, all_of_them = made(texts(tmp_path / "few.jsonl", 50)), made(texts(tmp_path / "all.jsonl"))

    def held(task: PromptsFile) -> set[str]:
        return {p.text for p in task.prompts("evaluation", 0, task.available("evaluation"), 0)}

    assert held(few) == held(all_of_them) & set(TEXTS[:50])


def test_the_order_is_the_seeds_and_slices_follow_each_other(tmp_path: Path) -> None:
    path = texts(tmp_path / "p.jsonl")
    task = made(path)
    whole = task.prompts("rounds", 0, 100, seed=0)
    assert task.prompts("rounds", 30, 20, seed=0) == whole[30:50]
    assert made(path).prompts("rounds", 0, 100, seed=0) == whole
    assert task.prompts("rounds", 0, 100, seed=1) != whole
    assert len({p.id for p in whole}) == 100


def test_without_repetition_a_run_cannot_ask_for_more_than_there_is(tmp_path: Path) -> None:
    task = made(texts(tmp_path / "p.jsonl"))
    held = task.available("rounds")
    assert 0 < held < 200
    with pytest.raises(ValueError, match=rf"has {held} prompts, but positions .* task\.repeat=true"):
        task.prompts("rounds", held - 1, 2, 0)


def test_repetition_goes_through_all_again_in_another_order_under_other_ids(tmp_path: Path) -> None:
    task = made(texts(tmp_path / "p.jsonl", 40), repeat=True)
    held = len({p.text for p in task.prompts("rounds", 0, 40, 0)})
    passes = [task.prompts("rounds", i * held, held, 0) for i in range(3)]
    assert all({p.text for p in one} == {p.text for p in passes[0]} for one in passes)
    assert [p.text for p in passes[0]] != [p.text for p in passes[1]]
    assert len({p.id for one in passes for p in one}) == 3 * held
    assert task.prompts("rounds", held - 2, 4, 0) == [*passes[0][-2:], *passes[1][:2]]
    assert task.available("rounds") > 10**9


def test_duplicates_and_overlong_prompts_are_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", *({"prompt": text} for text in [*TEXTS, *TEXTS[:50], "x" * 500]))
    assert len(everything(made(path))) == 201
    assert {p.text for p in everything(made(path, max_characters=100))} == set(TEXTS)


def test_there_is_no_gold(tmp_path: Path) -> None:
    task = made(texts(tmp_path / "p.jsonl"))
    assert task.has_gold is False
    assert math.isnan(task.quality(Prompt("a", "b"), "c"))


def test_identity_is_the_content(tmp_path: Path) -> None:
    task = made(texts(tmp_path / "a.jsonl"))
    assert task.identity() == made(texts(tmp_path / "b.jsonl")).identity()
    assert task.identity() != made(texts(tmp_path / "c.jsonl", 199)).identity()
    assert task.identity() != made(tmp_path / "a.jsonl", evaluation_share=0.5).identity()


# --- mistakes -------------------------------------------------------------------------------------------------------
GOOD = {"prompt": "good"}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([GOOD, '{"prompt": "half'], ["line 2: not valid JSON (", "column 12"]),
        ([GOOD, "", "[1]"], ["line 3: must be an object", "it is a list"]),
        ([GOOD, {"prompt": "  \n"}], ["line 2: the prompt is empty"]),
        ([GOOD, {"prompt": 7}], ["line 2: column 'prompt' must be a text or a list of turns; it is a int"]),
        ([GOOD, {"prompt": None}], ["line 2: column 'prompt' must be a text", "NoneType"]),
        ([{"promt": "a", "answer": "b"}], ["line 1: no column 'prompt'", "did you mean 'promt'?", "promt, answer"]),
        ([{"prompt": []}], ["line 1: a conversation must end with a user's turn"]),
        ([{"prompt": TALK[:1]}], ["line 1: a conversation must end with a user's turn"]),
        ([{"prompt": [{"role": "user", "content": None}]}], ["line 1: turn 0 of 'prompt' has no text as its content"]),
        (
            [{"prompt": [{"role": "tool", "content": "x"}]}],
            ["line 1: turn 0 of 'prompt' has the role 'tool'; it must be one of system, user"],
        ),
        ([], ["no prompts in"]),
    ],
)
def test_a_bad_row_is_told_with_file_and_line(rows: list[Any], parts: list[str], tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", *rows)
    message = error_of(path)
    assert "p.jsonl" in message
    assert all(part in message for part in parts), message


def test_ids_are_unique(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", {"prompt": "a", "n": 1}, {"prompt": "b", "n": 1})
    assert "line 2: id 'prompts/1' has been given to another prompt" in error_of(path, columns={"id": "n"})
    assert "no column 'm' (task.columns.id)" in error_of(path, columns={"id": "m"})


def test_other_files_that_cannot_be_read(tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "line 2: not valid JSON (Expecting" in error_of(file("lines.json", b'{"prompt": "a"}\n{"prompt": }'))
    assert "must hold a list of objects, or an object on each line; it holds a dict" in error_of(
        file("object.json", b'{"prompt": "a"}')
    )
    assert "is not a Parquet file" in error_of(file("no.parquet", b"nonsense"))
    assert "line 2: 1 columns are needed, as in the first line; there are 2" in error_of(
        file("wide.csv", b"prompt\na,b\n")
    )
    assert "not written in UTF-8" in error_of(file("latin.jsonl", '{"prompt": "é"}'.encode("latin-1")))


@pytest.mark.parametrize("path", ["nowhere.jsonl", "/nowhere/at/all", "a/b/c", "../up", ""])
def test_a_path_that_is_nothing_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValueError, match="does not exist, and is no hub id"):
        made(path)


def test_arguments_are_checked_at_once(tmp_path: Path) -> None:
    path = texts(tmp_path / "p.jsonl")
    (tmp_path / "p.txt").write_text("a")
    for options, message in (
        ({"path": tmp_path / "p.txt"}, "the name of a file must end in one of .jsonl, .json, .csv, .parquet"),
        ({"max_response_tokens": 0}, "max_response_tokens must be at least 1"),
        ({"evaluation_share": 1.0}, "evaluation_share must lie in"),
        ({"max_characters": 0}, "max_characters must be at least 1"),
        ({"columns": {"promt": "a"}}, "task.columns has no 'promt' (did you mean 'prompt'?)"),
    ):
        with pytest.raises(ValueError) as caught:
            made(**({"path": path} | options))  # type: ignore[arg-type]
        assert message in str(caught.value)


def test_a_split_that_a_dataset_lacks_is_told_with_those_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    message = error_of(write_dataset_of_splits(tmp_path), split="validation")
    assert "has no split 'validation'; it has train, test" in message
    assert "train" in error_of(write_folder_of_files(tmp_path), split="validation")


def test_a_hub_dataset_that_cannot_be_had_is_told_in_one_sentence() -> None:
    script = (
        "from rlaif_lab.tasks.prompts_file import PromptsFile\n"
        "PromptsFile('nobody/no-such-dataset', 8).available('rounds')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere"},
    )
    assert (
        "ValueError: task.path: cannot load 'nobody/no-such-dataset', split 'train': " in done.stderr.splitlines()[-1]
    ), done.stderr


# --- what comes with the lab ----------------------------------------------------------------------------------------
def test_the_shipped_prompts() -> None:
    rows = [json.loads(line) for line in SHIPPED.read_text().splitlines()]
    assert len(rows) == len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == 120
    kinds = {row["kind"] for row in rows}
    assert kinds == {"explain", "advise", "write", "summarise", "rewrite", "plan", "dilemma", "decline"}
    task = PromptsFile(None, 64, columns={"id": "id"}, repeat=True)
    for split in ("rounds", "evaluation"):
        assert {p.id.split("/")[1].split("-")[0] for p in task.prompts(split, 0, 120, 0)} == kinds  # type: ignore[arg-type]
