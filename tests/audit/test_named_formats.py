"""Well-known data sets by the names of their formats: every layout, and what is refused in it. What labels mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.audit.bank import FileBank
from rlaif_lab.audit.labels import codes_of, label_text, stated_codes
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.formats import BY_COLUMNS, FORMATS
from rlaif_lab.tasks.formats.plain import LABELLED

Turns = tuple[tuple[str, str], ...]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(path: Path, form: str, *rows: dict[str, Any], **options: Any) -> list[tuple[Turns, str, str, float]]:
    """Return (conversation, better, worse, probability that the first is better) for every pair."""
    (path / "bank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = []
    for pair in FileBank(str(path / "bank.jsonl"), format=form, **options).load(Addition()):
        prompt, texts = pair.comparison.prompt, [pair.comparison.first, pair.comparison.second]
        if pair.prob_first_is_better == 0:
            texts.reverse()
        found.append((prompt.turns or (("user", prompt.text),), texts[0], texts[1], pair.prob_first_is_better))
    return found


Q: Turns = (("user", "q"),)
TALK: Turns = (("user", "a"), ("assistant", "b"), ("user", "q"))
HH = "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant:"
STEER = "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nq"


@pytest.mark.parametrize(
    ("form", "row", "turns", "pairs"),
    [
        ("hh", {"chosen": f"{HH} good", "rejected": f"{HH} bad"}, TALK, [("good", "bad")]),
        ("hh", {"prompt": HH, "chosen": " good", "rejected": " bad"}, TALK, [("good", "bad")]),
        ("hh", {"chosen": f"{HH} good", "rejected": HH}, TALK, [("good", "")]),
        ("hh", {"chosen": f"{HH} say Human: x", "rejected": f"{HH} bad"}, TALK, [("say Human: x", "bad")]),
        (
            "helpsteer2",
            {"prompt": STEER, "response_1": "bad", "response_2": "good", "preference_strength": 3},
            TALK,
            [("good", "bad")],
        ),
        (
            "helpsteer2",
            {"prompt": "q", "response_1": "good", "response_2": "bad", "preference_strength": "-1"},
            Q,
            [("good", "bad")],
        ),
        (
            "helpsteer3",
            {
                "context": [user("a"), assistant("b"), user("q")],
                "response1": "good",
                "response2": "bad",
                "overall_preference": -2,
            },
            TALK,
            [("good", "bad")],
        ),
        (
            "nectar",
            {
                "prompt": HH,
                "answers": [
                    {"answer": "worst", "model": "m", "rank": 3.0},
                    {"answer": "good", "model": "m", "rank": 1},
                ],
            },
            TALK,
            [("good", "worst")],
        ),
        (
            "nectar",
            {
                "prompt": "\n\nHuman: q\n\nAssistant: ",
                "answers": json.dumps([{"answer": "good", "rank": 1}, {"answer": "bad", "rank": 2}]),
            },
            Q,
            [("good", "bad")],
        ),
        (
            "ultrafeedback",
            {
                "instruction": "q",
                "source": "s",
                "completions": [
                    {"response": "bad", "overall_score": 3.5, "model": "m"},
                    {"response": "good", "overall_score": 7, "model": "n"},
                ],
            },
            Q,
            [("good", "bad")],
        ),
        (
            "pku_saferlhf",
            {"prompt": "q", "response_0": "bad", "response_1": "good", "better_response_id": 1},
            Q,
            [("good", "bad")],
        ),
        (
            "alpaca_eval",
            {"instruction": "q", "output_1": "good", "output_2": "bad", "preference": 1.02},
            Q,
            [("good", "bad")],
        ),
        (
            "alpaca_eval",
            {"instruction": "q", "output_1": "bad", "output_2": "good", "preference": 2},
            Q,
            [("good", "bad")],
        ),
        (
            "alpaca_eval",
            {"instruction": "q", "input": "x", "output_1": "bad", "output_2": "good", "preference": 2},
            (("user", "q\n\nx"),),
            [("good", "bad")],
        ),
        (
            "alpaca",
            {"instruction": "q", "input": "", "history": [["a", "b"]], "chosen": "good", "rejected": "bad"},
            TALK,
            [("good", "bad")],
        ),
        (
            "alpaca",
            {"instruction": "q", "input": "x", "system": "s", "chosen": "good", "rejected": "bad"},
            (("system", "s"), ("user", "q\n\nx")),
            [("good", "bad")],
        ),
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            Q,
            [("good", "bad")],
        ),
        (
            "rewardbench2",
            {"prompt": "q", "chosen": ["good"], "rejected": ["x", "y", "z"], "subset": "Math"},
            Q,
            [("good", "x"), ("good", "y"), ("good", "z")],
        ),
        (
            "rewardbench",
            {"prompt": [user("a"), assistant("b"), user("q")], "chosen": "good", "rejected": "bad"},
            TALK,
            [("good", "bad")],
        ),
        (
            "trl",
            {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
            Q,
            [("good", "bad")],
        ),
        (
            "judgebench",
            {"question": "q", "response_A": "bad", "response_B": "good", "label": "B > A"},
            Q,
            [("good", "bad")],
        ),
        (
            "arena",
            {
                "winner": "model_b",
                "conversation_a": [user("a"), assistant("b"), user("q"), assistant("bad")],
                "conversation_b": [user("a"), assistant("b"), user("q"), assistant("good")],
            },
            TALK,
            [("good", "bad")],
        ),
        (
            "mt_bench",
            {
                "winner": "model_a",
                "turn": 1,
                "conversation_a": [user("q"), assistant("good"), user("x"), assistant("y")],
                "conversation_b": [user("q"), assistant("bad"), user("x"), assistant("y")],
            },
            Q,
            [("good", "bad")],
        ),
    ],
)
def test_layouts(form: str, row: dict[str, Any], turns: Turns, pairs: list[tuple[str, str]], tmp_path: Path) -> None:
    found = read(tmp_path, form, row)
    assert [(better, worse) for _, better, worse, _ in found] == pairs
    assert all(held == turns for held, *_ in found)
    assert all(prob in (0.0, 1.0) for *_, prob in found)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("helpsteer2", {"prompt": "q", "response_1": "x", "response_2": "y", "preference_strength": 0}),
        (
            "nectar",
            {
                "prompt": "\n\nHuman: q\n\nAssistant:",
                "answers": [{"answer": "x", "rank": 1}, {"answer": "y", "rank": 1}],
            },
        ),
        ("ultrafeedback", {"instruction": "q", "completions": [{"response": "x", "overall_score": 4}] * 2}),
        ("alpaca_eval", {"instruction": "q", "output_1": "x", "output_2": "y", "preference": 1.5}),
        ("alpaca_eval", {"instruction": "q", "output_1": "x", "output_2": "y", "preference": 0}),
        (
            "arena55k",
            {
                "prompt": ["q"],
                "response_a": ["x"],
                "response_b": ["y"],
                "winner_model_a": 0,
                "winner_model_b": 0,
                "winner_tie": 1,
            },
        ),
        (
            "arena",
            {
                "winner": "tie (bothbad)",
                "conversation_a": [user("q"), assistant("x")],
                "conversation_b": [user("q"), assistant("y")],
            },
        ),
        ("labelled", {"prompt": "q", "first": "x", "second": "y", "label": "tie"}),
    ],
)
def test_ties(form: str, row: dict[str, Any], tmp_path: Path) -> None:
    assert [prob for *_, prob in read(tmp_path, form, row)] == [0.5]


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("hh", {"chosen": "no transcript", "rejected": HH}, "chosen must be a transcript that begins with 'Human:'"),
        (
            "hh",
            {"chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": "\n\nHuman: z\n\nAssistant: y"},
            "do not begin with the same",
        ),
        (
            "helpsteer2",
            {"prompt": "q", "response_1": "x", "response_2": "y", "preference_strength": 4},
            "must lie in [-3, 3]; got 4",
        ),
        ("nectar", {"prompt": HH, "answers": "none"}, "answers must be a list; got 'none'"),
        (
            "nectar",
            {"prompt": HH, "answers": [{"answer": "x", "rank": float("nan")}]},
            "rank 0 must be a number; got nan",
        ),
        ("nectar", {"prompt": HH, "answers": [{"answer": "x"}]}, "item 0 of answers must be an object with rank"),
        (
            "pku_saferlhf",
            {"prompt": "q", "response_0": "x", "response_1": "y", "better_response_id": 2},
            "label must be one of 0, 1",
        ),
        (
            "alpaca_eval",
            {"instruction": "q", "output_1": "x", "output_2": "y", "preference": 3},
            "must be 0 or lie in [1, 2]",
        ),
        (
            "alpaca_eval",
            {"instruction": "q", "output_1": "x", "output_2": "y", "preference": None},
            "'preference' of format alpaca_eval is null",
        ),
        ("alpaca", {"instruction": "q"}, "no column 'chosen'"),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "q"}, {"from": "observation", "value": "x"}]},
            "the from 'observation'",
        ),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}], "tools": "[...]"}, "has tools"),
        (
            "arena",
            {
                "winner": "model_c",
                "conversation_a": [user("q"), assistant("x")],
                "conversation_b": [user("q"), assistant("y")],
            },
            "label must be one of model_a, model_b",
        ),
        (
            "arena55k",
            {
                "prompt": ["q"],
                "response_a": ["x"],
                "response_b": ["y"],
                "winner_model_a": 1,
                "winner_model_b": 1,
                "winner_tie": 0,
            },
            "exactly one of winner_model_a",
        ),
        ("rewardbench2", {"prompt": "q", "chosen": "x", "rejected": ["y"]}, "chosen must be a list; got 'x'"),
        (
            "preference",
            {"prompt": "q", "passage": "p", "chosen": "x", "rejected": "y"},
            "bank.columns.input=passage, or say",
        ),
        (
            "preference",
            {"prompt": "q", "system_prompt": "p", "chosen": "x", "rejected": "y"},
            "bank.columns.system=system_prompt",
        ),
        (
            "preference",
            {"prompt": "q", "history": [["a", "b"]], "chosen": "x", "rejected": "y"},
            "bank.ignore=[history]",
        ),
        (
            "preference",
            {"prompt": [user("a"), assistant("prefill")], "chosen": "x", "rejected": "y"},
            "must end the prompt with a user's turn",
        ),
        (
            "preference",
            {
                "system": "s",
                "chosen": [{"role": "system", "content": "t"}, user("q"), assistant("x")],
                "rejected": [{"role": "system", "content": "t"}, user("q"), assistant("y")],
            },
            "says something else",
        ),
        (
            "preference",
            {
                "prompt": "q",
                "chosen": [{"role": "assistant", "content": [{"type": "image", "image": "x"}]}],
                "rejected": [assistant("y")],
            },
            "has no text as its content",
        ),
    ],
)
def test_refusals(form: str, row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        read(tmp_path, form, row)
    assert "bank.jsonl, line 1: " in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_beside_the_prompt_can_be_added_or_left_out(tmp_path: Path) -> None:
    row = {"prompt": "q", "passage": "p", "context": "c", "chosen": "x", "rejected": "y"}
    ((turns, *_),) = read(tmp_path, "auto", row, columns={"input": "passage"}, ignore=["context"])
    assert turns == (("user", "q\n\np"),)
    ((turns, *_),) = read(tmp_path, "auto", row, ignore=["context", "passage"])
    assert turns == Q


def test_a_column_named_for_ours_takes_the_place_of_one_called_so(tmp_path: Path) -> None:
    row = {"prompt": "wrong", "question": "q", "chosen": "x", "rejected": "y"}
    ((turns, *_),) = read(tmp_path, "auto", row, columns={"prompt": "question"})
    assert turns == Q


def test_every_format_says_what_it_is() -> None:
    assert set(BY_COLUMNS) <= set(FORMATS)
    assert all(form.about and form.pairs is not None for form in FORMATS.values())


# --- labels ---------------------------------------------------------------------------------------------------------
def codes(*labels: Any, column: str = "label") -> list[float]:
    located = [(f"line {i}", label) for i, label in enumerate(labels)]
    found = codes_of(located, LABELLED, stated=None, column=column, key="bank.labels")
    return [found[label_text(label)] for label in labels]


@pytest.mark.parametrize(
    ("labels", "meanings"),
    [
        ((1, 2), [1.0, 0.0]),
        (("2", "1.0"), [0.0, 1.0]),
        ((2, "tie", 1), [0.0, 0.5, 1.0]),
        ((1, 0, 0.5), [1.0, 0.0, 0.5]),
        ((0.5, 1), [0.5, 1.0]),
        (("A", "b", "Tie"), [1.0, 0.0, 0.5]),
    ],
)
def test_codes_that_can_be_read_in_one_way_only(labels: tuple[Any, ...], meanings: list[float]) -> None:
    assert codes(*labels) == meanings


@pytest.mark.parametrize(
    "labels", [(0,), (1,), (0, 1), (1, 0), (0, 1, 2), (0, 2), ("0", "tie"), (0, 1, "A"), (0.5, 1, 2)]
)
def test_codes_that_can_be_read_in_several_ways_are_refused(labels: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"can be read in more than one way .*bank\.labels"):
        codes(*labels)


@given(st.lists(st.sampled_from([0, 1, 2, 0.5, "0", "1.0", 2.0, "first", "second", "tie", "A", "b"]), min_size=1))
def test_what_labels_mean_does_not_depend_on_their_order(labels: list[Any]) -> None:
    def outcome(values: list[Any]) -> Any:
        try:
            return dict(zip(map(label_text, values), codes(*values), strict=True))
        except ValueError:
            return None

    assert outcome(labels) == outcome(labels[::-1]) == outcome(labels + labels)


@pytest.mark.parametrize("label", [True, False, -1, 3, 0.7, float("nan"), float("inf"), None, "", "C", [1], {}])
def test_labels_without_a_meaning_are_told_by_their_line(label: Any) -> None:
    with pytest.raises(ValueError, match=r"line 1: label must be first, second or tie .*bank\.labels"):
        codes("first", label)


def test_named_codes_are_not_read_as_labels() -> None:
    with pytest.raises(ValueError, match=r"line 0: column 'preference_strength' .*bank\.format=helpsteer2"):
        codes(1, 2, column="preference_strength")


def test_stated_codes() -> None:
    assert stated_codes({0: "second", "Draw": "tie", True: "first"}, "bank.labels") == {
        "0": 0.0,
        "draw": 0.5,
        "true": 1.0,
    }
    with pytest.raises(ValueError, match=r"bank\.labels: 'x' must mean one of first, second, tie; got 'best'"):
        stated_codes({"x": "best"}, "bank.labels")
