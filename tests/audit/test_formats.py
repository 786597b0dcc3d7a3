"""Every format of labelled pairs, from every kind of file; and what is wrong with a file, by file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif_lab.audit.bank import FileBank, HubBank
from rlaif_lab.audit.formats import parse
from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.read_rows import read_rows

LABELLED = {"prompt": "2 + 2?", "first": "5", "second": "4", "label": "second", "subset": "sums"}
REWARDBENCH = {
    "prompt": "2 + 2?",
    "chosen": "4",
    "rejected": "5",
    "chosen_model": "human",
    "rejected_model": "gpt",
    "subset": "math",
    "id": 7,
}
JUDGEBENCH = {
    "pair_id": "x",
    "original_id": "1",
    "source": "mmlu-pro-math",
    "question": "2 + 2?",
    "response_model": "gpt",
    "response_A": "5",
    "response_B": "4",
    "label": "B>A",
}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def load(path: Path, **options: Any) -> list[LabelledPair]:
    return FileBank(str(path), **options).load(Addition())


def better(pair: LabelledPair) -> str:
    assert pair.prob_first_is_better != 0.5
    return pair.comparison.first if pair.prob_first_is_better == 1.0 else pair.comparison.second


# --- the formats --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", [LABELLED, REWARDBENCH, JUDGEBENCH], ids=["labelled", "rewardbench", "judgebench"])
def test_each_format_is_told_by_its_columns(tmp_path: Path, row: dict[str, Any]) -> None:
    (pair,) = load(jsonl(tmp_path / "bank.jsonl", row))
    assert better(pair) == "4"
    assert {pair.comparison.first, pair.comparison.second} == {"4", "5"}
    assert pair.comparison.prompt.text == "2 + 2?"
    assert (
        pair.subset
        == {"label": "sums", "id": "math", "source": "mmlu-pro-math"}[
            next(key for key in ("id", "source", "label") if key in row)
        ]
    )
    assert pair.source == f"{tmp_path / 'bank.jsonl'}, line 1"


def test_given_slots_are_kept_and_authors_go_with_their_texts(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", LABELLED | {"author_first": "me", "author_second": "you"})
    (pair,) = load(path)
    assert (pair.comparison.first, pair.comparison.second) == ("5", "4")
    assert (pair.author_first, pair.author_second) == ("me", "you")
    assert pair.prob_first_is_better == 0.0
    (judged,) = load(jsonl(tmp_path / "b.jsonl", JUDGEBENCH))
    assert (judged.comparison.first, judged.author_first, judged.author_second) == ("5", "gpt", "gpt")
    (placed,) = load(jsonl(tmp_path / "c.jsonl", REWARDBENCH))
    authors = {placed.comparison.first: placed.author_first, placed.comparison.second: placed.author_second}
    assert authors == {"4": "human", "5": "gpt"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("first", 1.0), ("A", 1.0), (" First ", 1.0), ("second", 0.0), ("B", 0.0), (2, 0.0), ("2", 0.0), (2.0, 0.0),
        ("tie", 0.5), (0.5, 0.5), ("0.50", 0.5),
    ],
)  # fmt: skip
def test_spellings_of_a_label(tmp_path: Path, label: Any, expected: float) -> None:
    (pair,) = load(jsonl(tmp_path / "bank.jsonl", LABELLED | {"label": label}))
    assert pair.prob_first_is_better == expected


def test_chat_messages_with_and_without_a_prompt(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    good, bad = ({"role": "assistant", "content": text} for text in "45")
    rows = [
        {"prompt": asked, "chosen": [good], "rejected": [bad]},
        {"chosen": [*asked, good], "rejected": [*asked, bad]},
        {"prompt": "2 + 2?", "system": "Be brief.", "chosen": "4", "rejected": "5"},
    ]
    one, two, three = load(jsonl(tmp_path / "bank.jsonl", *rows))
    for pair in (one, two, three):
        assert better(pair) == "4"
        assert pair.comparison.prompt.text == "2 + 2?"
        assert pair.comparison.prompt.turns == (("system", "Be brief."), ("user", "2 + 2?"))
    assert one.comparison.prompt.id == two.comparison.prompt.id == three.comparison.prompt.id
    alone = [{"role": "user", "content": "2 + 2?"}]
    (plain,) = load(jsonl(tmp_path / "plain.jsonl", {"prompt": alone, "chosen": "4", "rejected": "5"}))
    assert plain.comparison.prompt.turns == ()


def test_several_responses_make_all_pairs_of_one_prompt(tmp_path: Path) -> None:
    row = {"prompt": "2 + 2?", "chosen": ["4"], "rejected": ["5", "3", "22"], "subset": "math"}
    pairs = load(jsonl(tmp_path / "bank.jsonl", row))
    assert [better(pair) for pair in pairs] == ["4"] * 3
    assert len({pair.comparison.prompt.id for pair in pairs}) == 1


def test_scores_make_ties(tmp_path: Path) -> None:
    row = {"prompt": "2 + 2?", "chosen": "4", "rejected": "four"}
    rows = [row | {"score_chosen": 8, "score_rejected": 8.0}, row | {"chosen_score": "9", "rejected_score": "2"}]
    tie, clear = load(jsonl(tmp_path / "bank.jsonl", *rows))
    assert tie.prob_first_is_better == 0.5
    assert better(clear) == "4"


def test_a_pair_of_one_text_is_a_tie_whatever_its_label(tmp_path: Path) -> None:
    (pair,) = load(jsonl(tmp_path / "bank.jsonl", LABELLED | {"second": "5"}))
    assert pair.prob_first_is_better == 0.5


def test_columns_of_other_names(tmp_path: Path) -> None:
    row = {"instruction": "2 + 2?", "good": "4", "bad": "5"}
    path = jsonl(tmp_path / "bank.jsonl", row)
    (pair,) = load(path, columns={"prompt": "instruction", "chosen": "good", "rejected": "bad"})
    assert better(pair) == "4"


# --- the slots ----------------------------------------------------------------------------------------------------
def test_the_slot_is_decided_by_the_texts_and_not_by_the_label() -> None:
    prompt = Prompt("p", "?")
    pairs = [(f"answer {i}", f"reply {i}") for i in range(400)]
    forward = [better_and_worse(prompt, a, b) for a, b in pairs]
    backward = [better_and_worse(prompt, b, a) for a, b in pairs]
    assert [p.comparison for p in forward] == [p.comparison for p in backward]
    assert all(p.prob_first_is_better + q.prob_first_is_better == 1.0 for p, q in zip(forward, backward, strict=True))
    first = sum(p.prob_first_is_better for p in forward)
    assert 160 < first < 240  # 200 +- 4 standard deviations


def test_the_order_of_the_file_moves_no_slot(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} + 1?", "chosen": str(i + 1), "rejected": str(i)} for i in range(20)]
    straight = load(jsonl(tmp_path / "a.jsonl", *rows))
    reverse = load(jsonl(tmp_path / "b.jsonl", *reversed(rows)))
    assert [p.comparison for p in straight] == [p.comparison for p in reversed(reverse)]


# --- the files ----------------------------------------------------------------------------------------------------
def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} + 1?", "chosen": str(i + 1), "rejected": str(i), "subset": "sums"} for i in range(5)]
    jsonl(tmp_path / "bank.jsonl", *rows)
    (tmp_path / "bank.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bank.parquet")
    with (tmp_path / "bank.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    loaded = [load(tmp_path / f"bank.{ending}") for ending in ("jsonl", "json", "parquet", "csv")]
    for other in loaded[1:]:
        assert [p.comparison for p in other] == [p.comparison for p in loaded[0]]
        assert [p.prob_first_is_better for p in other] == [p.prob_first_is_better for p in loaded[0]]
    assert loaded[3][0].source.endswith("bank.csv, line 2")
    assert loaded[2][4].source.endswith("bank.parquet, row 5")
    assert len(load(tmp_path / "bank.jsonl", limit=2)) == 2


def test_chat_messages_survive_parquet_and_csv(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "2 + 2?"}]
    row = {"chosen": [*asked, {"role": "assistant", "content": "4"}]}
    row["rejected"] = [*asked, {"role": "assistant", "content": "5"}]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "bank.parquet")
    with (tmp_path / "bank.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["chosen", "rejected"], [json.dumps(row["chosen"]), json.dumps(row["rejected"])]])
    for ending in ("parquet", "csv"):
        (pair,) = load(tmp_path / f"bank.{ending}")
        assert (better(pair), pair.comparison.prompt.text) == ("4", "2 + 2?")


def test_a_data_set_in_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "train.jsonl", REWARDBENCH, REWARDBENCH | {"prompt": "1 + 3?"})
    pairs = HubBank(str(tmp_path / "set"), limit=1).load(Addition())
    assert [better(pair) for pair in pairs] == ["4"]
    assert pairs[0].source == f"{tmp_path / 'set'}, split train, row 1"
    with pytest.raises(ValueError, match=r"bank\.dataset: cannot load .* split 'test'"):
        HubBank(str(tmp_path / "set"), split="test").load(Addition())


# --- mistakes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a", '], "bank.jsonl, line 1: not valid JSON (Expecting property name"),
        ([LABELLED, "[1, 2]"], "bank.jsonl, line 2: must be an object of named columns; it is a list"),
        ([LABELLED, "", LABELLED | {"label": "C"}], "bank.jsonl, line 3: label must be first, second or tie"),
        ([JUDGEBENCH | {"label": "A>>B"}], "bank.jsonl, line 1: label must be one of a>b, b>a, a=b; "),
        ([LABELLED, {"prompt": "a", "frist": "b", "second": "c", "label": 1}],
         "bank.jsonl, line 2: column 'first' of format labelled is missing (did you mean 'frist'?)"),
        ([{"question": "a", "answer": "b"}], "line 1: the columns question, answer belong to no known format"),
        ([REWARDBENCH | {"prompt": None}], "column 'prompt' is missing, which only chat messages can do without"),
        ([REWARDBENCH | {"chosen": 4}], "line 1: chosen must be a text or chat messages"),
        ([REWARDBENCH | {"score_chosen": 1, "score_rejected": 2}], "score_chosen is 1, less than score_rejected"),
        ([REWARDBENCH | {"score_chosen": "x", "score_rejected": 2}], "score_chosen and score_rejected must be numbers"),
        ([{"chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "y"}]}],
         "line 1: the messages of 'chosen' must end with the assistant's turn"),
        ([{"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"}],
         "line 1: the messages of 'prompt' must end the prompt with a user's turn"),
        ([], "bank 'file' holds no pairs"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(jsonl(tmp_path / "bank.jsonl", *lines))
    assert message in str(caught.value)


def test_files_that_are_not_what_they_seem(tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text('{"prompt": 1}')
    with pytest.raises(ValueError, match=r"bank\.json must hold a list of objects"):
        load(tmp_path / "bank.json")
    (tmp_path / "broken.json").write_text('[{"prompt": 1},\n {"prompt" 2}]')
    with pytest.raises(ValueError, match=r"broken\.json, line 2: not valid JSON"):
        load(tmp_path / "broken.json")
    (tmp_path / "bank.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"bank\.parquet is not a Parquet file"):
        load(tmp_path / "bank.parquet")
    (tmp_path / "bank.csv").write_text("prompt,chosen,rejected\na,b,c\na,b\n")
    with pytest.raises(ValueError, match=r"bank\.csv, line 3: 3 columns are needed"):
        load(tmp_path / "bank.csv")
    (tmp_path / "bank.txt").write_text("x")
    with pytest.raises(ValueError, match=r"must end in one of \.jsonl, \.json, \.csv, \.parquet"):
        load(tmp_path / "bank.txt")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="is not written in UTF-8"):
        load(tmp_path / "latin.jsonl")


def test_mistakes_in_the_config(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "bank.jsonl", LABELLED)
    with pytest.raises(ValueError, match=r"bank\.path: there is no file 'nowhere.jsonl'; shipped banks are .*general"):
        FileBank("nowhere.jsonl")
    with pytest.raises(
        ValueError, match=r"bank\.format must be one of auto, labelled, judgebench, preference, .*sharegpt; got 'x'"
    ):
        FileBank(str(path), format="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bank\.limit must be at least 1 or null; got 0"):
        FileBank(str(path), limit=0)
    with pytest.raises(
        ValueError, match=r"bank\.columns\.prompt: .* has no column 'promt' \(did you mean 'prompt'\?\)"
    ):
        load(path, columns={"prompt": "promt"})


def test_rows_of_a_stated_format_must_have_its_columns(tmp_path: Path) -> None:
    rows = list(read_rows(jsonl(tmp_path / "bank.jsonl", REWARDBENCH)))
    with pytest.raises(ValueError, match="column 'first' of format labelled is missing"):
        parse(rows, "labelled", {}, "bank")
