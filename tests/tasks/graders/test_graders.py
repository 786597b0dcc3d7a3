"""Graders on answers written by hand: what a person would call right is right, and what fails is told, not counted."""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.tasks.graders import GraderError, graded, grader_of, named_option
from rlaif_lab.tasks.graders.extract import extract, final_statement, last_boxed
from rlaif_lab.tasks.graders.numbers import last_number, numbers_in, written


@pytest.mark.parametrize(
    ("key", "response", "right"),
    [
        ("42", "42", True),
        ("42", "The answer is 42.", True),
        ("42", "42.0", True),
        ("42", "forty-two", False),
        ("42", "#### 42", True),
        ("42", "\\boxed{42}", True),
        ("42", "$42", True),
        ("42", "42 apples", True),
        ("42", "It is 41, no, 42", True),
        ("42", "The answer is 42. That took 3 steps.", True),
        ("42", "420", False),
        ("42", "the answer is: **42**", True),
        ("42", "x42", False),
        ("42", "", False),
        ("42", "4,2", False),
        ("42", "The answer is 40 + 2 = 42.", True),
        ("42", "<answer>42</answer> of 100", True),
        ("42", "-42", False),
        ("72", "She sold 48/2 = 24 in May.\n#### 72", True),
        ("42", "42kg", True),
        ("42", "1e400", False),
        ("1234", "1,234", True),
        ("1234", "1 234", True),
        ("1234", "$1,234.00", True),
        ("1234", "1.234e3", True),
        ("1234", "12,34", False),
        ("1234", "1{,}234", True),
        ("1,234", "1234", True),
        ("1234567", "1,234,567", True),
        ("-0", "0", True),
        ("0", "-0", True),
        ("0", "-0.0", True),
        ("-5", "−5", True),
        ("-5", "- 5", True),
        ("-5", "5", False),
        ("-5", "10-5", False),
        ("-5", "$-5$", True),
        ("1/2", "0.5", True),
        ("1/2", "\\frac{1}{2}", True),
        ("1/2", "-\\frac{1}{2}", False),
        ("1/2", ".5", True),
        ("0.5", "1/2", True),
        ("1/2", "1/0", False),
        ("1/3", "0.333", False),
        ("1/3", "0.33333333", True),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50%", "50 percent", True),
        ("50%", "5", False),
        ("0.5", "50%", True),
        ("50", "50\\%", True),
        ("8.5", "8,5", False),
        ("3", "\\boxed{\\text{about } 3}", True),
        ("18", "It costs \\$18.", True),
    ],
)
def test_numbers(key: str, response: str, right: bool) -> None:
    grader = grader_of("number")
    assert grader.grade(response, grader.key(key)) == float(right)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("72", "72"),
        ("48/2 = 24, and 24 + 48 = 72.\n#### 72", "72"),
        ("so $\\boxed{-\\frac{3}{6}}$.", "-0.5"),
        ("1,000", "1000"),
    ],
)
def test_the_right_number_is_found_behind_the_way_to_it(answer: str, key: str) -> None:
    assert grader_of("number").key(answer) == key


@pytest.mark.parametrize("answer", ["abc", "", "1 and 2", "8,5", "about"])
def test_an_answer_that_is_no_number_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        grader_of("number").key(answer)


@given(st.fractions(max_denominator=999).filter(lambda value: abs(value) < 10**9))
def test_a_number_that_is_written_is_read_again(value: Fraction) -> None:
    found = last_number(written(value))
    assert found is not None
    assert abs(found[0] - value) <= abs(value) * Fraction(1, 10**9)
    assert grader_of("number").grade(f"The answer is {written(value)}.", written(value)) == 1.0


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_change_nothing(value: int) -> None:
    assert numbers_in(f"{value:,}") == numbers_in(str(value)) == [(Fraction(value), False)]


@given(st.text(max_size=60))
def test_any_response_is_graded_without_failing(text: str) -> None:
    for name, key in (("number", "42"), ("choice", "B"), ("exact", "x"), ("regex", "x+")):
        assert grader_of(name).grade(text, key) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("B) dog", "B"),
        ("**B**", "B"),
        ("\\boxed{B}", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B) because A is wrong.", "B"),
        ("Answer: b", "B"),
        ("I think B", "B"),
        ("A cat is nice, so option B", "B"),
        ("A dog and B", "B"),
        ("<answer>B</answer>", "B"),
        ("A or B", None),
        ("A, B", None),
        ("", None),
        ("answer is a dog", None),
        ("None of them", None),
        ("E", None),
    ],
)
def test_choices(response: str, label: str | None) -> None:
    assert named_option(response, "ABCD") == label


def test_choice_keys() -> None:
    grader = grader_of("choice")
    assert [grader.key(answer) for answer in ("B", "(b)", " c. ", "3")] == ["B", "B", "C", "3"]
    with pytest.raises(ValueError, match="is no letter or number"):
        grader.key("the second")


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        ("\\frac{1}{2}", "$\\frac12$", True),
        ("\\frac{1}{2}", "The answer is 1/2.", True),
        ("\\frac{1}{2}", "1/3", False),
        ("x^2+2x+1", "\\boxed{(x+1)^2}", True),
        ("\\{1,2\\}", "$\\{2,1\\}$", True),
        ("(0,1]", "$[0,1]$", False),
        ("so $\\boxed{\\sqrt{2}}$.", "\\boxed{\\sqrt 2}", True),
        ("-0", "0", True),
        ("42", "The answer is 42.", True),
        ("1,234", "$1234$", True),
        ("42", "no idea", False),
        ("42", "", False),
    ],
)
def test_mathematics(answer: str, response: str, right: bool) -> None:
    pytest.importorskip("math_verify")
    grader = grader_of("math")
    key = grader.key(answer)
    grader.check(key)
    assert grader.grade(response, key) == float(right)


def test_mathematics_outside_the_main_thread() -> None:
    """Where no alarm can be set."""
    pytest.importorskip("math_verify")
    grader, found = grader_of("math"), []
    thread = threading.Thread(target=lambda: found.append(grader.grade("$\\frac{2}{4}$", "\\frac{1}{2}")))
    thread.start()
    thread.join()
    assert found == [1.0]


def test_exact_and_patterns() -> None:
    assert grader_of("exact").grade("  Bonn \n", "Bonn") == 1.0
    assert grader_of("exact").grade("bonn", "Bonn") == 0.0
    assert grader_of("exact", "tag").grade("I say <answer> Bonn </answer>.", "Bonn") == 1.0
    assert grader_of("exact", "last_line").grade("Hm.\nBonn\n\n", "Bonn") == 1.0
    assert grader_of("regex").grade("the year 1990", r"\b19\d\d\b") == 1.0
    with pytest.raises(ValueError, match="is no regular expression"):
        grader_of("regex").key("(")


@pytest.mark.parametrize(
    ("response", "where", "answer"),
    [
        ("  a b ", "whole", "a b"),
        ("", "whole", None),
        ("x\ny \n", "last_line", "y"),
        ("3 then 1,042.", "last_number", "1042"),
        ("none", "last_number", None),
        ("-0", "last_number", "0"),
        ("<answer>1</answer><answer> 2 </answer>", "tag", "2"),
        ("2", "tag", None),
    ],
)
def test_where_an_answer_is_found(response: str, where: Any, answer: str | None) -> None:
    assert extract(response, where) == answer


def test_boxes_may_hold_braces() -> None:
    assert last_boxed("\\boxed{1} or \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert last_boxed("\\boxed{1") is None
    assert final_statement("\\boxed{\\{1\\}}") == "\\{1\\}"


# --- functions of one's own -----------------------------------------------------------------------------------------
def half(response: str, answer: str) -> float:
    return 0.5


def broken(response: str, answer: str) -> float:
    raise KeyError("no such\nthing")


def not_a_number(response: str, answer: str) -> float:
    return math.nan


def test_a_function_of_ones_own_gives_partial_credit() -> None:
    assert grader_of(f"python:{__name__}.half").grade("x", "y") == 0.5


@pytest.mark.parametrize("path", ["nowhere.f", "math.nothing", "", "math", "math.pi"])
def test_a_function_that_is_none_is_told_before_the_run(path: str) -> None:
    with pytest.raises(ValueError, match=r"task\.grader: "):
        grader_of(f"python:{path}")


def test_an_unknown_grader_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"must be one of exact, .*did you mean 'number'.*got 'numbr'"):
        grader_of("numbr")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (broken, "KeyError: 'no such"),
        (not_a_number, "returned nan, which is no quality"),
        (lambda r, a: 2, "returned 2"),
        (lambda r, a: None, "returned None"),
        (lambda r, a: "x", "returned 'x'"),
    ],
)
def test_what_fails_is_told_with_grader_prompt_and_response(function: Any, reason: str) -> None:
    with pytest.raises(GraderError) as caught:
        graded("python:mine.f", "What is it?", "no idea " * 50, lambda: function("x", "y"))
    message = str(caught.value)
    assert reason in message and "python:mine.f" in message and "'What is it?'" in message and "'no idea" in message
    assert "\n" not in message and len(message) < 600


@pytest.mark.parametrize(("value", "quality"), [(True, 1.0), (False, 0.0), (0.25, 0.25), (1, 1.0)])
def test_what_is_a_quality(value: Any, quality: float) -> None:
    assert graded("g", "p", "r", lambda: value) == quality
