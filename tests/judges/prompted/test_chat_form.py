"""What chat templates make of a judge's question: turns left out in silence, thoughts opened for the assistant."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from chat_model import CHAT_TEMPLATE, COMPARISONS, attached_to_chat, trained

from rlaif_lab.judges.prompted.base import Words
from rlaif_lab.judges.prompted.chat_form import ChatForm
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.judges.prompted.pointwise import PointwiseJudge
from rlaif_lab.models.language_model import LanguageModel

START, END = "<|im_start|>", "<|im_end|>"
TURN = f"{{{{ '{START}' + m['role'] + '\\n' + m['content'] + '{END}\\n' }}}}"
ASSISTANT = f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
DROPS = f"{{% for m in messages %}}{{% if m['role'] != 'system' %}}{TURN}{{% endif %}}{{% endfor %}}{ASSISTANT}"
THINKS = CHAT_TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
CLOSES = CHAT_TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
SILENT = f"{ASSISTANT}"


def with_template(template: str) -> LanguageModel:
    tokenizer = copy.deepcopy(trained().tokenizer)
    tokenizer.chat_template = template
    return replace(trained(), tokenizer=tokenizer)


def test_a_template_that_leaves_out_the_system_turn_gets_it_in_the_users() -> None:
    model = with_template(DROPS)
    assert ChatForm.of(trained()).system and not ChatForm.of(model).system
    for judge in (PromptedJudge("live"), PointwiseJudge("live")):
        attached_to_chat(judge, model)
        question = (
            judge.question(COMPARISONS[0])
            if isinstance(judge, PromptedJudge)
            else PromptedJudge("live").question(COMPARISONS[0])
        )
        (prompt,) = judge.prompts(model, [question])
        written = model.tokenizer.decode(model.encode_prompts([prompt])[0])
        for _, text in question.messages:
            assert text.split("\n")[0] in written


def test_a_template_that_writes_no_question_is_refused() -> None:
    with pytest.raises(ValueError, match="does not write what the user says"):
        attached_to_chat(PromptedJudge("live"), with_template(SILENT)).verdicts(COMPARISONS[:1])


def test_a_thought_that_the_template_opens_is_closed_before_the_cue() -> None:
    model = with_template(THINKS)
    assert ChatForm.of(model).closing == "\n</think>\n\n"
    assert ChatForm.of(with_template(CLOSES)).closing == ""
    judge = attached_to_chat(PromptedJudge("live"), model)
    encoded = model.encode_prompts(judge.prompts(model, [judge.question(COMPARISONS[0])]))
    (row,) = judge.begun(model, encoded)
    assert model.tokenizer.decode(row).endswith("<think>\n\n</think>\n\n")
    assert judge.begun(trained(), encoded) != encoded, "it is the judge's own template that counts"
    said = ["I compare.", "I compare.</think>Well.", "x<think>y"]
    texts = [model.tokenizer.decode(row) for row in judge.begun(model, encoded * 3, said)]
    assert texts[0].endswith("I compare.\n\n</think>\n\n")
    assert texts[1].endswith("I compare.</think>Well.\n\n")
    assert texts[2].endswith("x<think>y\n\n</think>\n\n")
    plain = attached_to_chat(PromptedJudge("live"), trained())
    assert plain.begun(trained(), encoded) == encoded


def test_votes_are_read_out_of_no_thought_and_of_no_answer_that_was_cut_off() -> None:
    judge = PromptedJudge("live", reads="votes", votes=4)
    texts = ["Verdict: A", "Verdict: A? No.</think>Verdict: B", "<think>Verdict: A", "<think>A</think>B"]
    votes = judge._count(Words(texts, [False] * 4))
    assert votes.details == {"first": 1, "second": 2, "unread": 1}
    assert judge._count(Words(texts, [False] * 4, opened=True)).details == {"second": 2, "unread": 2}
    assert judge._count(Words(texts, [True] * 4)).status == "invalid"
    grades = PointwiseJudge("live", reads="sampled", votes=3)
    assert grades._mean(Words(["<think>Score: 2</think>Score: 9", "<think>Score: 2", "7"], [False] * 3)).value == 8.0
    assert grades._mean(Words(["7", "8"], [True, False])).value == 8.0
