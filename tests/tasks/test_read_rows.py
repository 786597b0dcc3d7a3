"""One reader: whatever a text holds, every kind of file gives it back; what is broken is told by its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif_lab.audit.bank import FileBank
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.prompts_file import PromptsFile
from rlaif_lab.tasks.read_rows import read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), min_size=1, max_size=4)
KINDS = ("jsonl", "ascii.jsonl", "crlf.jsonl", "bom.JSONL", "jsonl.gz", "json", "lines.json", "csv", "CSV", "parquet")


def write(path: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    file = path / f"rows.{kind}"
    lines = [json.dumps(row, ensure_ascii="ascii" in kind) for row in rows]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind.lower() == "csv":
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "jsonl.gz":
        file.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    else:
        end = "\r\n" if "crlf" in kind else "\n"
        file.write_bytes((b"\xef\xbb\xbf" if "bom" in kind else b"") + end.join([*lines, ""]).encode())
    return file


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_text_comes_back_from_any_kind_of_file(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    if len(rows) == 1 and kind == "lines.json":
        rows = rows * 2  # one object alone may be anything's wrapping
    assert [row.values for row in read_rows(write(tmp_path, kind, rows))] == rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=TEXT, first=TEXT, second=TEXT)
def test_any_text_is_put_to_a_judge_as_it_stands(prompt: str, first: str, second: str, tmp_path: Path) -> None:
    """Also one that looks like messages, a list or a label."""
    if not prompt.strip():
        return
    for shape in (
        lambda text: text,
        lambda text: json.dumps([text]),
        lambda text: json.dumps([{"role": "user", "content": text}]),
    ):
        row = {"prompt": "Repeat: " + shape(prompt), "first": shape(first), "second": shape(second), "label": "first"}
        for kind in ("jsonl", "parquet"):
            (pair,) = FileBank(str(write(tmp_path, kind, [row]))).load(Addition())
            comparison = pair.comparison
            assert comparison.prompt.text == row["prompt"]
            assert (comparison.first, comparison.second) == (row["first"], row["second"])
            assert comparison.prompt.turns == ()


@given(text=st.text(max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_half_characters_become_replacement_characters_and_nothing_else_does(text: str, tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, "ascii.jsonl", [{"a": {"b": [text]}, text: 1}]))
    expected = json.loads(json.dumps(text))  # two halves that meet are one character
    expected = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in expected)
    if expected != "a":
        assert row.values["a"] == {"b": [expected]}
        assert expected in row.values
    json.dumps(row.values, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a" 2}\n', "line 2: not valid JSON (Expecting"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}\n", "line 1: not valid JSON (Exceeds the limit"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"}\n", "line 1: not valid JSON (nested too deeply)"),
        ("a.json", b"[" * 100_000, "not valid JSON (nested too deeply)"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n3\n', "line 3: must be an object of named columns; it is a int"),
        ("a.json", b"[1]", "item 1: must be an object"),
        ("a.csv", b"a,a\n1,2\n", "line 1: two columns are called 'a'"),
        ("a.csv", b'a,b\n1,"2"x\n', "line 2: not valid CSV"),
        ("a.csv", b"a,b\n1\n", "line 2: 2 columns are needed, as in the first line; there are 1"),
        ("a.jsonl.gz", b"no", "is not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-12], "is not a whole gzip file"),
        ("a.parquet", b"PAR1", "is not a Parquet file"),
        ("a.ndjson", b"{}", "call a file of JSON lines .jsonl"),
        ("a.xlsx", b"", "path: the name of a file must end in one of"),
    ],
)  # fmt: skip
def test_what_is_broken_is_told_in_one_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        list(read_rows(tmp_path / name))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_stops_reading(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\nbroken\n')
    assert [row.values["a"] for row in read_rows(tmp_path / "a.jsonl", limit=2)] == [1, 2]
    assert list(read_rows(tmp_path / "a.jsonl", limit=0)) == []


def test_a_csv_cell_is_a_list_only_where_it_has_the_shape_of_messages(tmp_path: Path) -> None:
    cells = ['[{"role": "user", "content": "x"}]', '["x"]', '[{"role": "user"}]', "[{", "[]", '[{"from": "human"}]']
    out = io.StringIO()
    csv.writer(out).writerows([["a"], *([cell] for cell in cells)])
    (tmp_path / "a.csv").write_text(out.getvalue())
    assert [row.values["a"] for row in read_rows(tmp_path / "a.csv")] == [
        [{"role": "user", "content": "x"}],
        *cells[1:],
    ]


def test_banks_and_prompts_read_a_files_context_alike(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    answers = ({"role": "assistant", "content": text} for text in "45")
    good, bad = ([*asked, answer] for answer in answers)
    for row in (
        {"prompt": asked, "chosen": "4", "rejected": "5"},
        {"prompt": "2 + 2?", "system": "Be brief.", "chosen": "4", "rejected": "5"},
        {"prompt": "2 + 2?", "chosen": good, "rejected": bad},
        {"prompt": asked, "chosen": good, "rejected": bad},
        {"prompt": asked, "chosen": good[2:], "rejected": bad[2:]},
    ):
        path = write(tmp_path, "jsonl", [row])
        (pair,) = FileBank(str(path)).load(Addition())
        task = PromptsFile(str(path), 8)
        (prompt,) = [p for split in ("rounds", "evaluation") for p in task.prompts(split, 0, task.available(split), 0)]  # type: ignore[arg-type]
        assert prompt.turns == pair.comparison.prompt.turns == (("system", "Be brief."), ("user", "2 + 2?"))
