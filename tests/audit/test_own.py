"""Pairs of the judge's own mistakes and of others', with real (tiny) models."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from rlaif_lab.audit.bank import TaskBank
from rlaif_lab.audit.own import own_answer_pairs
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.audit.sampled import SampledBank
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.tasks.arithmetic import Addition


@pytest.mark.parametrize("other", ["demonstrators", "a model"])
def test_one_right_answer_and_two_equally_wrong_ones(
    task: Addition, organism: LanguageModel, untrained: LanguageModel, other: str
) -> None:
    bank = TaskBank(pairs=40).load(task)
    somebody = None if other == "demonstrators" else untrained
    pairs = own_answer_pairs(organism, somebody, task, bank, 30, 4, seed=0, own_name="me", engine=Exact())
    groups: dict[str, list[LabelledPair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.comparison.prompt.id].append(pair)
    assert 15 <= len(groups) <= 30  # the organism has learnt nothing but the form: nearly every prompt gives a group
    for own, others in groups.values():
        wrong = {}
        for pair in (own, others):
            c = pair.comparison
            texts = {pair.author_first: c.first, pair.author_second: c.second}
            assert task.quality(c.prompt, texts.pop("the key")) == 1.0
            ((author, text),) = texts.items()
            assert task.quality(c.prompt, text) == 0.0
            wrong[author] = text
        assert set(wrong) == {"me", "demonstrator" if somebody is None else "untrained"}
        assert len(set(wrong.values())) == 2
    assert own_answer_pairs(organism, somebody, task, bank, 30, 4, seed=0, own_name="me", engine=Exact()) == pairs


class Noting(Exact):
    """Notes what it draws for."""

    def __init__(self) -> None:
        self.purposes: list[str] = []

    def generate(self, model: Any, prompts: Any, config: Any, limit: int, identity: Any) -> list[Generation]:
        self.purposes.append(identity[1])
        return super().generate(model, prompts, config, limit, identity)


def test_what_an_audit_samples_is_sampled_by_the_engine(
    task: Addition, organism: LanguageModel, untrained: LanguageModel
) -> None:
    engine = Noting()
    bank = TaskBank(pairs=4).load(task)
    own_answer_pairs(organism, untrained, task, bank, 2, 2, seed=0, own_name="me", engine=engine)
    assert engine.purposes == ["own answers", "others' answers"]
    SampledBank(pairs=2, samples=2).of_policy(task, organism, engine)
    assert set(engine.purposes[2:]) == {"graded bank"}
