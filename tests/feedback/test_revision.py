"""Critique and revision by a tiny chat model: what is asked, what is kept, and that identity alone decides it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
from chat_model import chat_model

from rlaif_lab.feedback.revision import RevisionConfig, critique_and_revise
from rlaif_lab.instructions.constitution import Constitution
from rlaif_lab.records import Generation, Prompt, Response
from rlaif_lab.sampling import exact as sampler
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.store.tables import REVISIONS

CONFIG = RevisionConfig(passes=2, critique_tokens=12, revision_tokens=16)
revise = functools.partial(critique_and_revise, engine=Exact())


def answered(count: int = 6) -> list[Generation]:
    texts = ["the baker likes bread.", "no idea"]
    responses = tuple(Response(text, (5, 6, 2), (-1.0, -2.0, -0.5), True) for text in texts)
    return [Generation(Prompt(f"t/{i}", f"Say what number {i} likes."), responses) for i in range(count)]


def test_every_first_sample_is_criticised_and_rewritten_n_times() -> None:
    generations = answered()
    revisions = revise(chat_model(steps=150), generations, CONFIG, seed=0, round_index=3)
    ids = {principle.id for principle in Constitution.load("general").principles}
    for revision, g in zip(revisions, generations, strict=True):
        assert revision.prompt == g.prompt
        assert revision.original == g.responses[0]
        assert len(revision.steps) == 2
        assert all(principle in ids for principle, _, _ in revision.steps)
        assert revision.revised.logps == ()
        last = [new for _, _, new in revision.steps if new.strip()]
        assert revision.revised.text == (last[-1] if last else g.responses[0].text)
        assert len(revision.revised.token_ids) <= 16
    assert len({principle for r in revisions for principle, _, _ in r.steps}) > 3, "principles are drawn anew"
    assert REVISIONS.decode(REVISIONS.encode(revisions)) == revisions


def test_it_is_decided_by_seed_round_and_prompt_alone() -> None:
    model, generations = chat_model(steps=150), answered()
    revisions = revise(model, generations, CONFIG, seed=0, round_index=1)
    small = replace(CONFIG, batch_size=2)
    assert revise(model, generations[::-1], small, seed=0, round_index=1)[::-1] == revisions
    assert revise(model, generations[:2], CONFIG, seed=0, round_index=1) == revisions[:2]
    assert revise(model, generations, CONFIG, seed=0, round_index=2) != revisions
    assert revise(model, generations, CONFIG, seed=1, round_index=1) != revisions


def test_the_conversation_is_prompt_answer_critique_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Prompt] = []
    real = sampler.sample

    def listening(model: Any, prompts: Any, *rest: Any) -> Any:
        asked.extend(prompts)
        return real(model, prompts, *rest)

    monkeypatch.setattr(sampler, "sample", listening)
    turns = (("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Say what the cat likes."))
    generation = Generation(Prompt("c", turns[-1][1], turns), answered()[0].responses)
    (revision,) = revise(chat_model(steps=150), [generation], CONFIG, seed=0, round_index=0)
    critique, rewriting, second_critique, _ = asked
    principles = {p.id: p for p in Constitution.load("general").principles}
    (first, said, new), (second, _, _) = revision.steps
    assert critique.turns == (
        *turns,
        ("assistant", "the baker likes bread."),
        ("user", f"{principles[first].critique} {CONFIG.critique_form}"),
    )
    assert rewriting.turns == (
        *critique.turns,
        ("assistant", said),
        ("user", f"{principles[first].revise} {CONFIG.revision_form}"),
    )
    answer = new if new.strip() else "the baker likes bread."
    request = f"{principles[second].critique} {CONFIG.critique_form}"
    assert second_critique.turns == (*turns, ("assistant", answer), ("user", request)), "on the rewritten answer"


def test_an_empty_rewriting_leaves_the_answer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Response("", (2,), (-1.0,), True)
    monkeypatch.setattr(sampler, "sample", lambda model, prompts, *rest: [Generation(p, (nothing,)) for p in prompts])
    (revision,) = revise(chat_model(), answered(1), CONFIG, seed=0, round_index=0)
    assert revision.revised == replace(revision.original, logps=())
    assert [new for _, _, new in revision.steps] == ["", ""]


def test_a_model_without_chat_template_is_refused() -> None:
    with pytest.raises(ValueError, match="conversation"):
        revise(replace(chat_model(), chat=False), answered(1), CONFIG, seed=0, round_index=0)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"constitution": "nope"}, "no constitution 'nope'"),
        ({"passes": 0}, r"revision\.passes"),
        ({"critique_tokens": 0}, r"revision\.critique_tokens"),
        ({"temperature": -1}, r"revision\.temperature"),
        ({"top_p": 0}, r"revision\.top_p"),
        ({"batch_size": 0}, r"revision\.batch_size"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        RevisionConfig(**settings)
