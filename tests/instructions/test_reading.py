"""From words to verdicts and scores: what a person reads as one without doubt, and nothing else."""

from __future__ import annotations

import json
import math
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlaif_lab.instructions.reading import (
    final_words,
    label_in_json,
    plain_characters,
    score_in_json,
    stated_label,
    stated_score,
)
from rlaif_lab.instructions.template import JudgeTemplate, ScoreTemplate
from rlaif_lab.instructions.thoughts import open_thought, without_thoughts

CASES = Path(__file__).parent / "cases"
PAIRWISE, TIE = JudgeTemplate.load("pairwise"), JudgeTemplate.load("pairwise_tie")
TEN, FIVE = ScoreTemplate.load("score_1_to_10"), ScoreTemplate.load("score_additive_5")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", rows("J_judge_answers.jsonl") + rows("L_local_votes.jsonl"), ids=lambda c: c["id"])
def test_answers_that_judges_gave(case: dict[str, Any]) -> None:
    words = final_words(case["text"], cut=case.get("finish_reason") == "length")
    if "json" in case.get("judge_options", ""):
        label = None if words is None else label_in_json(words, PAIRWISE.all_labels(), "verdict")
    else:
        label = None if words is None else stated_label(words, PAIRWISE.all_labels(), PAIRWISE.cue)
    said = "none" if label is None else PAIRWISE.choice_of(label)
    assert said in case["want"].split(" or "), case["text"]


SCORE_CASES = {"S01": (None, 10.0), "S02": (None, 7.5), "S03": (None, 8.5), "S04": (None,), "S04b": (9.0,)}


@pytest.mark.parametrize("case", rows("S_scores.jsonl"), ids=lambda c: c["id"])
def test_scores_that_judges_gave(case: dict[str, Any]) -> None:
    assert case["maximum"] == TEN.maximum
    assert TEN.parse_score(case["text"]) in SCORE_CASES[case["id"]]


# --- verdicts ---------------------------------------------------------------------------------------------------------
FIRST = [
    "A",
    "**A**",
    "[[A]]",
    "(A)",
    "'A'",
    "```\nA\n```",
    '"Verdict: A"',
    "A.",
    "Response A",
    "Assistant A.",
    "the first response is longer\n\nA",
    "A\n\nIt is shorter.",
    "A. It is shorter and right.",
    "Verdict: A",
    "verdict - A",
    "Verdict：A",
    "Verdict = A",
    "Verdict: **Response A**",
    "**Verdict:** A",
    "## Verdict\n\nA",
    "**Final Verdict:**\n\n**A**",
    "Final verdict: [[A]]",
    "My final verdict is: [[A]].",
    "Since B does not answer the question, my final verdict is: [[A]]",
    "[[A>B]]",
    "[[A>>B]]",
    "My final verdict is: [[A>B]]",
    "<answer>[[A>B]]</answer>",
    "<answer>A</answer>",
    "The better response is A.",
    "The better response is Response A.",
    "The better response is therefore A.",
    "Overall, Response A is the better one.",
    "Therefore, the best answer is A",
    "I choose A.",
    "I prefer Response A.",
    "I prefer Response A over Response B.",
    "So I would go with Response A.",
    "Response A wins.",
    "Winner: A",
    "🏆 Winner: A",
    "- Winner: A",
    "The winner is Response A!",
    "Answer: A",
    "The answer is A.",
    "The correct answer is B in the prompt, which A gives.\n\nVerdict: A",
    r"\boxed{A}",
    r"$\boxed{\text{A}}$",
    r"The final answer is $\boxed{A}$.",
    "Response A is better.",
    "Response A is better because it is right.",
    "Response A is better than Response B.",
    "Therefore [[A]] is better than [[B]].",
    "Although Response B is more detailed, Response A is better.",
    "Response A is clearly the better response overall.",
    "A is better.",
    "Verdict: A is better.",
    "I think Response A is better.",
    "Comparing A and B, the better response is A.",
    'I must end with "Verdict: A" or "Verdict: B".\n\nVerdict: A',
    "I must end with Verdict: A or Verdict: B.\n\nVerdict: A",
    "Should it be Verdict: B? No, the sum is wrong there.\n\nVerdict: A",
    "Initial impression: B\n\nFinal verdict: A",
    "Verdict: A ... as I said, Verdict: A",
    "A: well written\nB: badly argued\n\nVerdict: A",
    "Response A:\nIt is right.\n\nResponse B:\nIt is wrong.\n\nVerdict: A",
    "Verdict：【A】",
    "「A」",
    "<final>A</final>",
    "<winner>Response A</winner>",
    "<choice>A</choice>",
    '{"verdict": "A"}',
    '```json\n{"winner": "A", "confidence": 0.7}\n```',
    'Here is what I think.\n```json\n{"verdict": "A"}\n```',
    '{"reasoning": "B says \\"Verdict: B\\".", "verdict": "Response A"}',
    "[BEGIN RESPONSE B QXYZ]\nVerdict: B\n[END RESPONSE B QXYZ]\nVerdict: A",
    "> Verdict: B\n\nThat was a quotation.\n\nVerdict: A",
]
NONE = [
    "",
    "C",
    "a",
    "AB",
    "Both.",
    "A tie",
    "A tie.",
    "Verdict: A tie. Neither is better.",
    "Verdict: A tie",
    "Verdict: a tie",
    "Verdict: A draw",
    "Verdict: Tie",
    "Verdict: Neither",
    "Verdict: Both A and B",
    "Verdict: A and B are equally good",
    "Verdict: A and B",
    "Verdict: A or B",
    "Verdict: A/B",
    "Verdict: A, B",
    "Verdict: A & B",
    "Verdict: A < B",
    "Verdict: A > B",
    "Verdict: A = B",
    "Verdict: A vs B",
    "Verdict: A >= B",
    "A > B",
    "A < B",
    "A = B",
    "A vs. B",
    "[[A=B]]",
    "[[A]] [[B]]",
    "[[C]]",
    "Verdict: A?",
    "A?",
    "Verdict: A\nVerdict: B",
    "Verdict: A. Verdict: B.",
    "A\nB",
    "A. It is short.\nB. It is long.",
    "1. It is short.",
    "Verdict: A good answer needs more.",
    "Verdict: A bit of both",
    "Verdict: A few points speak for each",
    "A good answer would be shorter.",
    "A few things are wrong with both.",
    "A response should be short.",
    "A\n\nActually, both are equally good.",
    "Verdict: A\n\nWait, that is wrong.",
    "Verdict: A\n\nHowever, Response B is better.",
    "Response A:",
    "Response A: It gives the right number.",
    "**Response A:**\nIt gives the right number.",
    "Response A\nIt gives the right number.",
    "### Response A\n\nIt gives the right number.",
    "A: well written\nB: well argued",
    "Verdict:",
    "Verdict: not A",
    "The verdict is not A.",
    "Response A is not better.",
    "I do not choose A.",
    "I would not choose A.",
    "It would be wrong to choose A.",
    "It is not the case that the verdict is A",
    "If the number were right, the verdict would be A",
    "If it were shorter, Response A is better.",
    "Neither Response A is better nor Response B.",
    "Both A and B are better.",
    "Response A and Response B are better.",
    "Response A is worse.",
    "Response A is better in style.",
    "Response A is better at sums but Response B is better at words.",
    "Response A is better because it is short, but Response B is right.",
    'It says "Verdict: A".',
    "It says “Verdict: A”.",
    "It says 'Verdict: A'.",
    "It says `Verdict: A`.",
    "It says Verdict: A",
    "Response B tells me to answer with A",
    "Response B claims that Response A is better.",
    "> Verdict: A",
    "```python\nVerdict: A\n```\nis what one of them says.",
    "I must end with Verdict: A",
    'Answer with "A" or "B".',
    "Which is better, A or B?",
    "I cannot decide between A and B",
    "I'm sorry, I cannot help with that.",
    '{"verdict": "A"} {"verdict": "B"}',
    '{"verdict": "A", "winner": "B"}',
    '{"verdict": "A", "verdict": "B"}',
    '{"verdict": "A or B"}',
    '{"verdict": null}',
    '{"verdict": ["A"]}',
    '{"verdict": {"winner": "A"}}',
    '```json\n{"verdict": "A"}\n```\n```json\n{"verdict": "B"}\n```',
    '{"verdict": "A"',
    "Verdict: Apples are better",
    "Verdict: A-",
    "Grade A",
    "Vitamin A",
    "Plan A",
]


@pytest.mark.parametrize("text", FIRST)
def test_one_verdict_without_doubt_is_read_whichever_it_is(text: str) -> None:
    assert PAIRWISE.parse(text) == "first", text
    assert PAIRWISE.parse(_swapped(text)) == "second", _swapped(text)
    assert TIE.parse(text) == "first", "a label for ties changes nothing"
    assert PAIRWISE.parse(text, cut=True) is None, "cut off, it might have gone on"


@pytest.mark.parametrize("text", NONE)
def test_where_there_is_doubt_nothing_is_read(text: str) -> None:
    assert PAIRWISE.parse(text) is None, text
    assert PAIRWISE.parse(_swapped(text)) is None, _swapped(text)


@pytest.mark.parametrize(
    "text", ["C", "Verdict: C", "[[C]]", "Verdict: A tie", "Verdict: tie", "It's a tie.", "[[A=B]]", "Verdict: Neither"]
)
def test_a_tie_is_one_where_the_template_has_a_word_for_it(text: str) -> None:
    assert TIE.parse(text) == "tie"
    assert PAIRWISE.parse(text) is None


def _swapped(text: str) -> str:
    """A for B and B for A, where they are labels."""
    marked = text.replace("A", "\0").replace("B", "A").replace("\0", "B")
    for word in ("Answer", "Although", "Apples", "Actually", "Assistant", "And", "BEGIN", "Both", "Because"):
        other = word.replace("A", "\0").replace("B", "A").replace("\0", "B")
        marked = marked.replace(other, word)
    return marked


def test_full_width_letters_are_letters() -> None:
    assert PAIRWISE.parse("Ｂ") == "second" and PAIRWISE.parse("Verdict：Ａ") == "first"


LABELS = [
    (("1", "2"), "Verdict: 1", "Response 1 is better."),
    (("first", "second"), "Verdict: FIRST", "The better response is first."),
    (("[[A]]", "[[B]]"), "My final verdict is: [[A]]", "A"),
    (("Response A", "Response B"), "Verdict: Response A", "Verdict: A"),
    (("Assistant 1", "Assistant 2"), "Winner: Assistant 1", "Assistant 1 is better."),
    (("answer_1", "answer_2"), "Best: answer_1", '{"winner": "answer_1"}'),
    (("left", "right"), "I choose left.", "Left"),
    (("x.1", "x.2"), "Verdict: x.1", "x.1"),
    (("甲", "乙"), "Verdict: 甲", "甲"),
]


@pytest.mark.parametrize(("labels", *"ab"), LABELS)
def test_labels_of_any_kind(labels: tuple[str, str], a: str, b: str) -> None:
    for text in (a, b):
        assert stated_label(text, labels, "Verdict:") == labels[0], text
    assert stated_label(f"{labels[0]} and {labels[1]}", labels, "Verdict:") is None
    assert stated_label(f"Verdict: {labels[0]}\nVerdict: {labels[1]}", labels, "Verdict:") is None


# --- thoughts ---------------------------------------------------------------------------------------------------------
THOUGHTS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<Think>", "</Think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think_start|>", "<|think_end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("Here is my thought process: ", "Here is my response: "),
]
MUSED = st.sampled_from(
    ["", "A", "Verdict: A", "Verdict: A? No.\nVerdict: A", '{"verdict": "A"}', "Score: 2", "[[A]]", "\n\n", "A tie."]
)


@pytest.mark.parametrize(("opens", "closes"), THOUGHTS)
@settings(max_examples=15)
@given(thought=MUSED, before=st.sampled_from(["", "\n", "  "]))
def test_thoughts_of_every_form_are_taken_out_and_one_cut_off_leaves_nothing(
    opens: str, closes: str, thought: str, before: str
) -> None:
    whole = f"{before}{opens}{thought}{closes}\n\nVerdict: B"
    assert PAIRWISE.parse(whole) == "second"
    assert TEN.parse_score(f"{before}{opens}{thought}{closes}\n\nScore: 9") == 9.0
    for end in (opens + thought, opens + thought + "\nVerdict: B", f"Verdict: B\n{opens}{thought}"):
        assert PAIRWISE.parse(before + end) is None, end
        assert TEN.parse_score(before + end) is None, end


@pytest.mark.parametrize(
    ("opens", "closes"), [pair for pair in THOUGHTS if pair[0][0] in "<◁[" and "channel" not in pair[0]]
)
def test_a_thought_that_the_template_opened_ends_where_it_is_closed(opens: str, closes: str) -> None:
    assert PAIRWISE.parse(f"Verdict: A? No.{closes}\nB") == "second"
    assert PAIRWISE.parse("Verdict: A", opened=True) is None
    assert PAIRWISE.parse(f"Verdict: A{closes}Verdict: B", opened=True) == "second"
    assert open_thought(f"<|im_start|>assistant\n{opens}\n") == closes
    assert open_thought(f"<|im_start|>assistant\n{opens}\n\n{closes}\n\n") is None


def test_channels_without_their_control_tokens() -> None:
    assert PAIRWISE.parse("analysisWe compare. Verdict: A? No.assistantfinalVerdict: B") == "second"
    assert PAIRWISE.parse("analysisWe compare. Verdict: A") is None
    assert without_thoughts("Analysis of both: fine.") == "Analysis of both: fine."


@pytest.mark.parametrize("text", ["a < b", "<b>bold</b>", "I think so.", "[think] about it later"[8:], "x <thin> y"])
def test_what_is_no_thought_is_left_alone(text: str) -> None:
    assert without_thoughts(text) == text.strip()
    assert open_thought(text) is None


# --- scores -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("7", 7.0),
        ("７", 7.0),
        ("7.", 7.0),
        ("[[7]]", 7.0),
        ("Rating: [[7]]", 7.0),
        ("[RESULT] 7", 7.0),
        (r"\boxed{7}", 7.0),
        ("7/10", 7.0),
        ("7 out of 10", 7.0),
        ("Score: 7 / 10.", 7.0),
        ("Score: **7**", 7.0),
        ("**Score:** 7.5", 7.5),
        ("Score: 7,5", 7.5),
        ("Score: 7 points", 7.0),
        ("It is decent.\n\n7", 7.0),
        ("It is decent.\nScore: 7", 7.0),
        ("Score:\n7", 7.0),
        ("The score is 7.", 7.0),
        ("I give it a 7.", 7.0),
        ("I would rate this response 7/10.", 7.0),
        ("This response deserves a score of 7.", 7.0),
        ("Accuracy: 9\nStyle: 5\nScore: 7", 7.0),
        ("Accuracy score: 9\nStyle score: 5\nFinal score: 7", 7.0),
        ("Score: ７/１０", 7.0),
        ("Score: ٧", 7.0),
        ("<score>7</score>", 7.0),
        ('{"score": "७"}', 7.0),
        ("Score: ²", None),
        ("²", None),
        ("Score: 7³", None),
        ("Score: 7½", None),
        ("Score: ⑦", None),
        ('{"score": 7}', 7.0),
        ('{"score": "7/10", "why": "short"}', 7.0),
        ('```json\n{"rating": 7}\n```', 7.0),
        ('I must end with "Score: 3".\n\nScore: 7', 7.0),
        ("Score: 5 out of 5", None),
        ("Score: 4/5", None),
        ("Score: 70%", None),
        ("Score: 70/100", None),
        ("Score: 7-8", None),
        ("Score: 7–8", None),
        ("Score: 7 - 8", None),
        ("Score: 7 to 8", None),
        ("Score: between 7 and 8", None),
        ("Score: 7 or 8", None),
        ("Score: 7, 8", None),
        ("Score: 1,000", None),
        ("Score: 7.5.1", None),
        ("Score: 7+", None),
        ("Score: ~7", None),
        ("Score: -7", None),
        ("Score: 7 stars", None),
        ("Score: 7?", None),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: 1e1", None),
        ("Score: nan", None),
        ("Score: inf", None),
        ("Score: 7\nScore: 8", None),
        ("Score: 7-8\nScore: 7", None),
        ('It says "Score: 10".', None),
        ("It says Score: 10", None),
        ("Score: 10 would be too much", None),
        ("I would not give it a 10.", None),
        ("1. short\n2. wrong", None),
        ("In 2024, 7 people", None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": Infinity}', None),
        ('{"score": [7]}', None),
        ('{"score": 7, "rating": 8}', None),
        ('{"score": 11}', None),
        ("Score: " + "9" * 5000, None),
    ],
)
def test_a_score_is_a_number_on_the_templates_scale_or_none(text: str, score: float | None) -> None:
    assert TEN.parse_score(text) == score
    assert TEN.parse_score(text, cut=True) is None


def test_a_scale_is_the_templates_own() -> None:
    assert FIVE.parse_score("Score: 4 out of 5") == 4.0
    assert FIVE.parse_score("Score: 4/10") is None
    assert FIVE.parse_score("Score: 0") == 0.0
    assert score_in_json('{"score": 0.5, "n": 3}', 0, 5, "score") == 0.5


# --- every text -------------------------------------------------------------------------------------------------------
PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "A",
                "B",
                "Verdict:",
                "Response",
                "is better",
                "and",
                "or",
                "tie",
                '"',
                "'",
                "`",
                "\n",
                ". ",
                "? ",
                "<",
                ">",
            ),
            *("[", "]", "<think>", "</think>", "{", "}", "```", ":", "not", "If", "Score:", "7", "/10", ",", "-", "**"),
            "\\boxed{",
        ]
    ),
    max_size=30,
).map(" ".join)


@given(text=st.one_of(PIECES, st.text(max_size=200)))
@example("[" * 5000)
@example("{" * 5000)
@example('"' * 999)
@example("Verdict: " * 300)
@example("Verdict: A and " * 200)
@example("I choose " * 300)
@example("I think that so thus " * 300)
@example("<think>" * 2000)
def test_every_text_is_read_quickly_and_to_an_allowed_value_and_thoughts_before_it_change_nothing(text: str) -> None:
    start = time.perf_counter()
    said, score = PAIRWISE.parse(text), TEN.parse_score(text)
    assert time.perf_counter() - start < 2.0
    assert said in ("first", "second", None)
    assert score is None or (math.isfinite(score) and 1 <= score <= 10)
    if without_thoughts(text) == text.strip():
        assert PAIRWISE.parse(f"<think>Verdict: A\nVerdict: B</think>{text}") == said
    assert PAIRWISE.parse(text, cut=True) is None
    assert stated_score(text, 20, 30, "Score:") is None or "2" in text or "3" in text


@given(text=PIECES)
def test_two_different_verdicts_at_the_end_are_none(text: str) -> None:
    assert PAIRWISE.parse(f"{text}\nVerdict: A\nVerdict: B") is None
    assert TEN.parse_score(f"{text}\nScore: 3\nScore: 4") is None


def test_full_width_letters_are_read_in_json_too() -> None:
    assert label_in_json('{"verdict": "Ｂ"}', ("A", "B"), "verdict") == "B"


@given(st.text())
def test_plain_characters_change_nothing_twice_and_make_no_digits_of_notes(text: str) -> None:
    plain = plain_characters(text)
    assert plain_characters(plain) == plain
    assert sum(c.isdecimal() for c in plain) == sum(c.isdecimal() for c in plain if c.isascii())
    if not any(c.isdecimal() for c in text):
        assert not any(c.isdecimal() for c in plain) or any(
            any(d.isdecimal() for d in unicodedata.normalize("NFKC", c)) for c in text if not c.isnumeric()
        )
