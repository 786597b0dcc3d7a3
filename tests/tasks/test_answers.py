"""Questions with right answers from a file: well-known layouts, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.answers import Answers

GSM = [
    {"question": f"What is {i} + 1?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(40)
]


def made(path: Path, rows: list[Any], grader: str = "number", **options: Any) -> Answers:
    file = path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Answers(str(file), **({"max_response_tokens": 8, "grader": grader} | options))


def everything(task: Answers) -> list[Prompt]:
    return [p for split in ("rounds", "evaluation") for p in task.prompts(split, 0, task.distinct(split), 0)]  # type: ignore[arg-type]


def refusal(path: Path, rows: list[Any], **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        made(path, rows, **options).available("rounds")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gsm8k(tmp_path: Path) -> None:
    task = made(tmp_path, GSM, columns={"prompt": "question"}, suffix=" Reply with the number only.")
    prompts = everything(task)
    assert len(prompts) == 40
    assert task.has_gold
    for prompt in prompts:
        number = int(prompt.text.split()[2]) + 1
        assert prompt.text.endswith("? Reply with the number only.")
        assert task.gold_answer(prompt) == str(number)
        assert task.quality(prompt, f"The answer is {number}.") == 1.0
        assert task.quality(prompt, f"{number + 1}") == 0.0
    rounds = {p.text for p in task.prompts("rounds", 0, task.available("rounds"), 0)}
    assert not rounds & {p.text for p in task.prompts("evaluation", 0, task.available("evaluation"), 0)}


def test_math(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    row = {"problem": "Half of 1?", "level": "Level 1", "solution": "It is $\\boxed{\\frac{1}{2}}$."}
    columns = {"prompt": "problem", "answer": "solution", "difficulty": "level"}
    task = made(tmp_path, [row], grader="math", columns=columns)
    (prompt,) = everything(task)
    assert [task.quality(prompt, said) for said in ("$0.5$", "\\boxed{2}")] == [1.0, 0.0]
    assert task.gold_answer(prompt) == "$\\boxed{\\frac{1}{2}}$"
    assert task.difficulty(prompt) == "Level 1"


@pytest.mark.parametrize(
    ("choices", "answer", "gold"),
    [
        (["cat", "dog"], "B", "B"),
        (["cat", "dog"], 1, "B"),
        (["cat", "dog"], "dog", "B"),
        (["cat", "dog"], "0", "A"),
        ({"text": ["cat", "dog"], "label": ["1", "2"]}, "2", "2"),
        ({"text": ["cat", "dog"], "label": ["A", "B"]}, "a", "A"),
    ],
)
def test_multiple_choice(choices: Any, answer: Any, gold: str, tmp_path: Path) -> None:
    row = {"prompt": "Which barks?", "choices": choices, "answer": answer}
    task = made(tmp_path, [row], grader="choice", columns={"choices": "choices"})
    (prompt,) = everything(task)
    labels = ("1", "2") if gold == "2" else ("A", "B")
    assert prompt.text == f"Which barks?\n{labels[0]}. cat\n{labels[1]}. dog"
    assert task.gold_answer(prompt) == gold
    assert sum(task.quality(prompt, label) for label in labels) == 1.0


def test_conversations_keep_their_turns(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    task = made(tmp_path, [{"prompt": talk, "answer": 4}], suffix=" Number only.")
    (prompt,) = everything(task)
    assert prompt.turns == (("system", "Be brief."), ("user", "2 + 2? Number only."))
    assert task.quality(prompt, "4") == 1.0


def test_prompts_that_come_again_have_the_same_answers(tmp_path: Path) -> None:
    task = made(tmp_path, GSM, columns={"prompt": "question"}, repeat=True)
    held = task.distinct("evaluation")
    assert task.repeats and task.available("evaluation") > 10**6
    again = task.prompts("evaluation", held, held, 0)
    assert {task.gold_answer(p) for p in again} == {task.gold_answer(p) for p in task.prompts("evaluation", 0, held, 0)}
    assert not made(tmp_path, GSM, columns={"prompt": "question"}).repeats


def test_identity_holds_the_answers(tmp_path: Path) -> None:
    one = made(tmp_path, [{"prompt": "p", "answer": 1}]).identity()
    assert one != made(tmp_path, [{"prompt": "p", "answer": 2}]).identity()
    assert one != made(tmp_path, [{"prompt": "p", "answer": 1}], grader="exact").identity()


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        (
            [{"prompt": "p", "anwser": "1"}],
            {},
            "line 1: no column 'answer' (task.columns.answer) (did you mean 'anwser'?)",
        ),
        ([{"prompt": "p", "answer": " "}], {}, "line 1: the answer in column 'answer' is empty"),
        (
            [{"prompt": "p", "answer": None}],
            {},
            "line 1: the answer in column 'answer' must be a text or a number; got None",
        ),
        ([{"prompt": "p", "answer": "1"}, {"prompt": "q", "answer": "x"}], {}, "line 2: the answer 'x' is no number"),
        ([{"prompt": "p", "answer": "("}], {"grader": "regex"}, "line 1: the answer '(' is no regular expression"),
        (
            [{"prompt": "p", "answer": "C", "o": ["x", "y"]}],
            {"grader": "choice", "columns": {"choices": "o"}},
            "line 1: the answer 'C' is none of the options A, B",
        ),
        (
            [{"prompt": "p", "answer": "A", "o": "x, y"}],
            {"grader": "choice", "columns": {"choices": "o"}},
            "line 1: column 'o' (task.columns.choices) must be a list of 2 to 26 texts",
        ),
        ([{"prompt": "p", "answer": "A", "o": ["x"]}], {"columns": {"choices": "o"}}, "needs task.grader=choice"),
        (
            [{"prompt": "p", "answer": "1"}],
            {"columns": {"difficulty": "level"}},
            "column 'level' (task.columns.difficulty) is empty",
        ),
        (
            [{"prompt": "p", "answer": "1"}],
            {"columns": {"answers": "x"}},
            "task.columns has no 'answers' (did you mean 'answer'?)",
        ),
        ([{"prompt": "p", "answer": "1"}], {"grader": "python:nowhere.f"}, "there is no function 'nowhere.f'"),
        ([{"prompt": "p", "answer": "1"}], {"answer": "end"}, "task.answer must be one of whole, last_line"),
    ],
)
def test_what_is_wrong_is_told_before_the_run(
    rows: list[Any], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert reason in refusal(tmp_path, rows, **options)


def test_an_answer_that_is_no_mathematics_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    message = refusal(tmp_path, [{"prompt": "p", "answer": "$"}], grader="math")
    assert "line 1: the answer '$' cannot be read as mathematics (task.grader=math)" in message


def test_a_prompt_of_another_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none of task 'answers', or its file has changed"):
        made(tmp_path, GSM, columns={"prompt": "question"}).quality(Prompt("answers/0", "?"), "1")
