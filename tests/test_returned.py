"""What a judge, task, learner or engine of the user's returns is checked where it returns it, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.wrappers.order import ShorterOnTie
from rlaif_lab.learners.base import Learner
from rlaif_lab.records import Comparison, Generation, Prompt, Response, Score, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import sample
from rlaif_lab.tasks.base import Split, Task

PROMPT = Prompt("p/1", "Name a fruit.")
COMPARISONS = [Comparison(PROMPT, "plum", "pear"), Comparison(PROMPT, "pear", "plum")]
ODD = [
    None,
    "A",
    3,
    0.7,
    True,
    {"verdict": "A"},
    object(),
    np.array([0.2, 0.8]),
    iter(()),
    [],
    [None, None],
    ["A", "B"],
]
ODD += [[0.2, 0.8], [Verdict(0.5, "tie")], [Verdict(0.5, "tie")] * 3, [Verdict(0.5, "tie"), 0.5], [np.float64(0.2)] * 2]


class Told(Judge):
    """A judge that returns what it is given."""

    def __init__(self, said: Any) -> None:
        self.name, self.said = "told", said

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return self.said

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return self.said


@pytest.mark.parametrize("said", ODD, ids=lambda said: str(said)[:20])
def test_a_judge_returns_a_verdict_for_each_comparison_or_is_told(said: Any) -> None:
    with pytest.raises(ValueError, match=r"^\S*Told\.verdicts must return a list of 2 Verdicts; ") as told:
        Told(said).verdicts(COMPARISONS)
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match=r"^\S*Told\.scores must return a list of 2 Scores; "):
        Told(said).scores([(PROMPT, "plum"), (PROMPT, "pear")])


def test_who_wraps_a_judge_is_told_which_one_it_was() -> None:
    with pytest.raises(ValueError, match=r"Told\.verdicts must return a list of 2 Verdicts; it returned None"):
        ShorterOnTie(Told(None)).verdicts(COMPARISONS)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none(), st.lists(st.floats(0, 1))))
def test_a_verdict_holds_a_probability_or_is_none(probability: Any) -> None:
    fine = isinstance(probability, (int, float)) and not isinstance(probability, bool) and 0 <= probability <= 1
    if fine:
        made = Verdict(probability, "ok")
        assert type(made.prob_first_wins) is float
        assert made.prob_first_wins == probability
    else:
        with pytest.raises(ValueError, match=r"^a Verdict"):
            Verdict(probability, "ok")


def test_numbers_of_other_libraries_become_pythons_own() -> None:
    numbers: dict[str, Any] = {"prob_first_wins": np.float32(0.25), "latency_s": np.float64(2), "tokens": np.int64(3)}
    made = Verdict(**numbers)
    assert (made.prob_first_wins, made.latency_s, made.tokens) == (0.25, 2.0, 3)
    assert {type(made.prob_first_wins), type(made.latency_s)} == {float}
    assert type(made.tokens) is int
    assert type(Score(np.float64(7)).value) is float


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"status": "great"}, "status must be one of ok, tie"),
        ({"tokens": "3"}, "tokens must be a count; got '3'"),
        ({"tokens": 1.5}, "tokens must be a count; got 1.5"),
        ({"latency_s": None}, "latency_s must be a number; got None"),
        ({"raw": ["A"]}, "raw must be a text or None; got a list of 1"),
        ({"details": "votes"}, "details must be a mapping or None; got 'votes'"),
    ],
)
def test_every_field_of_an_answer_is_of_its_type(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^a Verdict's {told}"):
        Verdict(**({"prob_first_wins": 0.7} | wrong))


def test_details_that_no_file_can_hold_are_told() -> None:
    details = {"logits": np.zeros(2)}
    with pytest.raises(ValueError, match=r"Told\.verdicts: the details of a Verdict must be JSON"):
        Told([Verdict(0.7, details=details)] * 2).verdicts(COMPARISONS)


# --- tasks ------------------------------------------------------------------------------------------------------------
class Asked(Task):
    """A task whose prompts and qualities are what it is given."""

    name, max_response_tokens = "asked", 4

    def __init__(self, found: Any, quality: Any = 0.5) -> None:
        self.found, self.said = found, quality

    def available(self, split: Split) -> int:
        return 2

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        return self.found

    def quality(self, prompt: Prompt, response: str) -> float:
        return self.said


OTHER = Prompt("p/2", "Name a tree.")


def changed(record: Any, **fields: Any) -> Any:
    return replace(record, **fields)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "must return a list of 2 Prompts; it returned None"),
        (["Name a fruit.", "Name a tree."], "number 0 of them is 'Name a fruit.'"),
        ([PROMPT, None], "number 1 of them is None"),
        ([PROMPT], "it returned 1$"),
        ([PROMPT, OTHER, OTHER], "it returned 3$"),
        ([PROMPT, PROMPT], "the id 'p/1' is given twice"),
        ([PROMPT, changed(OTHER, id="p/1")], "the id 'p/1' is given to two different prompts"),
        ([PROMPT, changed(OTHER, text="")], "prompt 'p/2' of split 'rounds' has no text"),
        ([PROMPT, changed(OTHER, text=None)], "id and text must be texts; got None"),
        ([PROMPT, changed(OTHER, id=7)], "id and text must be texts; got 7"),
    ],
)
def test_a_task_gives_as_many_different_prompts_as_it_is_asked_for(found: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^\S*Asked\.prompts.*{told}"):
        Asked(found).prompts("rounds", 0, 2, 0)


@pytest.mark.parametrize("quality", [None, "1", float("nan"), float("inf"), -0.1, 1.1, [1.0], np.array([1.0])], ids=str)
def test_a_quality_is_a_number_between_0_and_1(quality: Any) -> None:
    with pytest.raises(
        ValueError, match=r"Asked\.quality must return a number in \[0, 1\]; it returned .* prompt 'p/1'"
    ):
        Asked([], quality).quality(PROMPT, "plum")


@pytest.mark.parametrize("quality", [True, np.bool_(True), 1, 1.0, np.float32(1)])
def test_a_quality_may_be_a_number_of_any_kind(quality: Any) -> None:
    assert Asked([], quality).quality(PROMPT, "plum") == 1.0


# --- learners ---------------------------------------------------------------------------------------------------------
class Learnt(Learner):
    """A learner that returns what it is given."""

    def __init__(self, loss: Callable[[torch.Tensor], Any], examples: Any = (), weight: Any = 1.0) -> None:
        super().__init__()
        self.name, self.of, self.drawn, self.counts = "learnt", loss, examples, weight

    def examples(self, feedback: Feedback) -> list[Example]:
        return self.drawn

    def loss(self, logps: torch.Tensor, batch: Any, values: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.of(logps)

    def weight(self, batch: Any) -> float:
        return self.counts


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda logps: None, "the loss and a mapping of statistics; it returned None"),
        (lambda logps: logps.mean(), "the loss and a mapping of statistics; it returned a Tensor"),
        (lambda logps: (logps, {}), r"one number, as a Tensor; it returned a Tensor of shape \(2,\)"),
        (lambda logps: (0.5, {}), "one number, as a Tensor; it returned 0.5"),
        (lambda logps: (logps.mean().detach(), {}), "has no gradient"),
        (lambda logps: (torch.tensor(1), {}), "one number, as a Tensor"),
        (lambda logps: (logps.mean(), {"margin": "large"}), "statistic 'margin' must be one number; got 'large'"),
        (lambda logps: (logps.mean(), {"margin": logps}), r"statistic 'margin' .* Tensor of shape \(2,\)"),
    ],
)
def test_a_loss_is_one_number_that_depends_on_the_policy(loss: Callable[[torch.Tensor], Any], told: str) -> None:
    logps = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match=rf"^\S*Learnt\.loss.*{told}"):
        Learnt(loss).loss(logps, None)


def test_statistics_may_be_plain_numbers() -> None:
    logps = torch.zeros(2, requires_grad=True)
    _, statistics = Learnt(lambda logps: (logps.mean(), {"margin": 0.5})).loss(logps, None)
    assert float(statistics["margin"]) == 0.5


@pytest.mark.parametrize("weight", [None, "1", float("nan"), float("inf"), -1.0])
def test_a_batch_weighs_a_finite_number(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"Learnt\.weight must return a finite number, 0 or more"):
        Learnt(lambda logps: None, weight=weight).weight(None)


RESPONSE = Response("plum", (1, 2), (-0.5, -0.25), finished=True)


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (None, "must return a list of Examples; it returned None"),
        ([PROMPT], "number 0 of them is a Prompt"),
        ([Example(PROMPT, (RESPONSE,), (1.0, 0.0), 0)], "has 1 and 2, the first Example 1"),
        ([Example(PROMPT, (), (), 0)], "has 0 and 0"),
        (
            [Example(PROMPT, (RESPONSE,), (1.0,), 0), Example(PROMPT, (RESPONSE, RESPONSE), (1.0, 0.0), 0)],
            "has 2 and 2, the first Example 1",
        ),
        ([Example(PROMPT, (RESPONSE,), (float("nan"),), 0)], "the signals of prompt 'p/1' must be finite"),
        ([Example(PROMPT, (RESPONSE,), (None,), 0)], "the signals of prompt 'p/1' must be finite"),  # type: ignore
        ([Example(PROMPT, ("plum",), (1.0,), 0)], "an Example has a Prompt and Responses"),  # type: ignore
    ],
)
def test_examples_are_alike_and_their_signals_finite(examples: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^\S*Learnt\.examples.*{told}"):
        Learnt(lambda logps: None, examples).examples(Feedback(0, [], np.zeros((0, 1, 1))))


# --- engines ----------------------------------------------------------------------------------------------------------
class Drawn:
    """An engine that returns what it is given."""

    determinism = "item"

    def __init__(self, found: Any, recorded: bool = True) -> None:
        self.found, self.recorded = found, recorded

    def generate(self, *arguments: Any) -> Any:
        return self.found


def drawn(found: Any, recorded: bool = True) -> list[Generation]:
    config = SamplingConfig(k=1)
    return sample(Drawn(found, recorded), None, [PROMPT], config=config, limit=4, identity=())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "must return a list of 1 Generations; it returned None"),
        ([], "it returned 0"),
        ([Generation(OTHER, (RESPONSE,))], "prompt 'p/2' came back in its place"),
        ([Generation(PROMPT, ())], "must return a list of 1 Responses; it returned 0"),
        ([Generation(PROMPT, (RESPONSE, RESPONSE))], "must return a list of 1 Responses; it returned 2"),
        ([Generation(PROMPT, ("plum",))], "number 0 of them is 'plum'"),  # type: ignore
        ([Generation(PROMPT, (changed(RESPONSE, logps=(-0.5, float("nan"))),))], "log-probabilities must be finite"),
        ([Generation(PROMPT, (changed(RESPONSE, logps=(-0.5, -float("inf"))),))], "log-probabilities must be finite"),
        ([Generation(PROMPT, (changed(RESPONSE, logps=(-0.5,)),))], "of 2 tokens has 1 log-probabilities"),
        ([Generation(PROMPT, (changed(RESPONSE, logps=()),))], "of 2 tokens has 0 log-probabilities"),
        ([Generation(PROMPT, (changed(RESPONSE, text=None),))], "a response's text must be a text; got None"),
    ],
)
def test_an_engine_answers_what_it_was_asked_in_finite_numbers(found: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^\S*Drawn\.generate.*{told}"):
        drawn(found)


def test_an_engine_that_records_no_log_probabilities_need_not_give_any() -> None:
    found = [Generation(PROMPT, (changed(RESPONSE, logps=()),))]
    assert drawn(found, recorded=False) == found
