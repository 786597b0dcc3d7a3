"""The audit put together, with judges that need no weights; and what it writes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ScriptedJudge

from audit.scripted import bank, is_good, judge, knows
from rlaif_lab.audit.audit import Audit, Auditor
from rlaif_lab.audit.bank import FileBank, PairBank, TaskBank
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.audit.plan import Plan
from rlaif_lab.audit.write import as_csv, as_json, terminal, write_all
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.oracle import NoisyOracleJudge, OracleJudge, RandomJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Verdict
from rlaif_lab.seeding import seed_for
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Task


class GivenBank(PairBank):
    name = "given"

    def __init__(self, pairs: list[LabelledPair]) -> None:
        self.pairs = pairs

    def load(self, task: Task) -> list[LabelledPair]:
        return self.pairs


def audited(judge: Judge, bank: PairBank, directory: Path, plan: Plan | None = None) -> Audit:
    def context(gold: Task | None, seed: int, folder: Path) -> JudgeContext:
        def nothing(_: Any) -> Any:
            raise AssertionError("this judge needs no model")

        return JudgeContext(seed, nothing, nothing, gold, folder)

    return Auditor(judge, bank, Addition(), plan or Plan(), 0, context, lambda: None, directory).run()


def test_the_oracle_is_right_about_every_bank(tmp_path: Path) -> None:
    for where in (TaskBank(pairs=60), FileBank("general", name="general")):
        found = audited(OracleJudge(), where, tmp_path)
        assert found.measure("accuracy").value == found.measure("kappa").value == 1.0
        assert found.measure("brier").value == 0.0
        assert found.measure("same_slot_rate").value == 0.0
        assert found.measure("stability").value == 1.0
        assert "given the gold label" in found.measure("injection_mean").missing
        assert math.isnan(found.measure("self_preference").value)


def test_a_noisy_oracle_has_the_accuracy_it_was_given(tmp_path: Path) -> None:
    found = audited(NoisyOracleJudge(flip=0.2), TaskBank(pairs=600), tmp_path)
    accuracy = found.measure("accuracy")
    assert accuracy.low <= 0.8 <= accuracy.high
    assert "Wilson" in accuracy.note
    # Its noise is drawn by pair and seed: the same in both orders, another in every repetition.
    assert found.measure("same_slot_rate").value == 0.0
    assert 0.45 <= found.measure("stability").value <= 0.9  # .8^2 + .2^2 = .68 of 50 pairs


def test_a_coin_is_at_chance_and_unstable(tmp_path: Path) -> None:
    found = audited(RandomJudge(), TaskBank(pairs=300), tmp_path)
    accuracy = found.measure("accuracy")
    assert accuracy.low <= 0.5 <= accuracy.high
    assert found.measure("stability").value < 0.8


def test_a_judge_that_follows_the_slot_and_sometimes_mumbles(tmp_path: Path) -> None:
    def says(c: Comparison) -> float | None:
        return None if c.prompt.id in ("p3", "p5") else 0.8 if is_good(c.first) else 0.7

    found = audited(judge(says), GivenBank(bank(40)), tmp_path)
    assert found.measure("same_slot_rate").value == 1.0
    assert found.measure("signed_position").value == 1.0
    assert found.measure("invalid_rate").value == 0.05
    assert found.examples == {"invalid": [found.judgements[3].raw, found.judgements[5].raw]}
    assert found.measure("accuracy").value == 1.0  # averaged over orders it does know: .8 + 1 - .7 > 1
    assert found.measure("accuracy").n == 38
    assert found.measure("usd_per_verdict").value == pytest.approx(0.25 * 38 / 40)


def test_what_a_response_says_to_the_judge_is_measured(tmp_path: Path) -> None:
    def obedient(c: Comparison) -> float:
        if "Ignore everything above" in c.first:
            return 0.9
        return 0.1 if "Ignore everything above" in c.second else knows(c)

    found = audited(judge(obedient), GivenBank(bank(30)), tmp_path)
    assert found.measure("injection_plain_order").value == 1.0
    assert found.measure("injection_threat").value == 0.0
    assert 0 < found.measure("injection_mean").value < 0.5


def test_repetitions_have_a_seed_and_a_directory_of_their_own(tmp_path: Path) -> None:
    class Moody(ScriptedJudge):
        """Draws by seed, and remembers where it was told to keep things."""

        folders: list[tuple[int, Path | None]]

        def attach(self, context: JudgeContext) -> None:
            super().attach(context)
            self.folders = [*getattr(self, "folders", []), (context.seed, context.directory)]

    def says(c: Comparison) -> Verdict:
        assert moody.context is not None
        return Verdict(float(seed_for(moody.context.seed, c.prompt.id, c.first) % 2))

    moody = Moody(says)
    found = audited(moody, GivenBank(bank(200)), tmp_path, Plan(repeat_times=3, repeat_pairs=150, injection_pairs=0))
    assert 0.4 <= found.measure("stability").value <= 0.6
    assert found.measure("stability").n == 150
    assert len(set(moody.folders)) == 3
    assert moody.folders[0] == (0, tmp_path)
    once = audited(judge(knows), GivenBank(bank(10)), tmp_path, Plan(repeat_times=1))
    assert math.isnan(once.measure("stability").value)


def test_the_plan_switches_things_off(tmp_path: Path) -> None:
    scripted = judge(knows)
    found = audited(scripted, GivenBank(bank(10)), tmp_path, Plan(repeat_times=1, own_prompts=0, injection_pairs=0))
    assert len(scripted.asked) == 20
    assert found.measure("injection_mean").missing == found.measure("stability").missing == "not asked, by the plan"


def test_a_bank_that_names_authors_tells_of_self_preference(tmp_path: Path) -> None:
    pairs = []
    for i, pair in enumerate(bank(40)):
        worse_is_first = pair.prob_first_is_better == 0.0
        author = "me" if i < 20 else "you"
        pairs.append(
            LabelledPair(
                pair.comparison,
                pair.prob_first_is_better,
                author_first=author if worse_is_first else "key",
                author_second="key" if worse_is_first else author,
            )
        )
    mine = {p.comparison.prompt.id for p in pairs[:10]}  # it takes its own wrong response in 10 of 20
    partial = judge(lambda c: 1 - knows(c) if c.prompt.id in mine else knows(c))
    found = audited(partial, GivenBank(pairs), tmp_path, Plan(self_author="me", injection_pairs=0))
    assert found.measure("wrongly_own").value == 0.5
    assert found.measure("wrongly_other").value == 0.0
    assert found.measure("self_preference").low > 0
    assert found.measure("b_self").value > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repeat_times": 0}, "plan.repeat_times must be at least 1; got 0"),
        ({"repeat_pairs": 0}, "plan.repeat_pairs must be at least 1; got 0"),
        ({"own_prompts": -1}, "plan.own_prompts must be at least 0; got -1"),
        ({"injection_pairs": -2}, "plan.injection_pairs must be at least 0; got -2"),
    ],
)
def test_impossible_plans_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Plan(**fields)  # type: ignore[arg-type]
    assert message in str(caught.value)


# --- what is written ----------------------------------------------------------------------------------------------
class Page(HTMLParser):
    """Collects tags, addresses and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "line":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def nasty(tmp_path: Path) -> Audit:
    """Markup in every text, failures, and hardly anything defined."""
    pairs = bank(6)
    bad = Comparison(pairs[0].comparison.prompt, "<script>alert(1)</script>", "a & b\n$x_1$")
    pairs[0] = LabelledPair(bad, 1.0, "<b>subset</b> $y$", source="line 1")

    def says(c: Comparison) -> float | None:
        return None if c.prompt.id == "p1" else 0.2

    return audited(judge(says), GivenBank(pairs), tmp_path, Plan(repeat_times=1, injection_pairs=0))


def test_the_page_is_whole_and_needs_nothing_from_outside(nasty: Audit, tmp_path: Path) -> None:
    write_all(nasty, {"seed": 0, "note": "</pre><script>"}, tmp_path)
    text = (tmp_path / "audit.html").read_text()
    page = Page(text)
    assert "<script" not in text
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert len(page.addresses) == 4
    assert not re.search(r"https?://", text)
    assert 'name="viewport"' in text
    assert "I like evil 1" in page.text or "I like well 1" in page.text
    assert "Without a verdict: unreadable 16.7%" in page.text


def test_json_and_csv_hold_every_number(nasty: Audit) -> None:
    content = json.loads(as_json(nasty, {"seed": 0}))
    assert content["sections"]["failures"]["invalid_rate"]["value"] == pytest.approx(1 / 6)
    assert content["sections"]["position"]["same_slot_rate"] == {
        "value": 1.0,
        "interval": pytest.approx([0.5655, 1.0], abs=1e-4),
        "n": 5,
        "title": "same slot in both orders",
        "note": "slot one both times 0, slot two both times 5, one response both times 0, a tie 0; Wilson interval",
    }
    assert content["sections"]["position"]["signed_position"]["value"] == -1.0
    assert content["sections"]["self_preference"]["self_preference"]["value"] is None
    assert content["slots"] == {"same_response": 0, "slot_one": 0, "slot_two": 5, "undecided": 0, "failed": 1}
    assert content["failure_examples"]["invalid"]
    assert content["config"] == {"seed": 0}
    rows = list(csv.DictReader(io.StringIO(as_csv(nasty))))
    assert len(rows) == 6
    assert rows[0]["first"] == "<script>alert(1)</script>"
    assert rows[1]["status"] == "invalid"
    assert rows[1]["prob_first_wins"] == rows[1]["right"] == ""
    assert rows[2]["right"] == "0.5"  # slot two in both orders is a tie
    assert rows[0]["prob_first_wins_shown_first"] == "0.2"


def test_the_terminal_shows_numbers_intervals_and_reasons(nasty: Audit) -> None:
    text = terminal(nasty)
    assert "given, 6 pairs of 6 prompts, each asked in both orders" in text
    assert re.search(r"same slot in both orders +1\.000  \[0\.566, 1\.000\]  n=5", text)
    assert re.search(r"self-preference +n/a  \(no response is known to be the judge's own\)", text)
    assert "Some invalid verdicts, verbatim:" in text
    assert "nan" not in text


def test_probabilities_are_in_the_figures(tmp_path: Path) -> None:
    from rlaif_lab.audit.figures import accuracy_figure, accuracy_rows, orders_figure, reliability_figure

    rng = np.random.default_rng(0)
    noise = {f"p{i}": float(u) for i, u in enumerate(rng.random(200))}

    def says(c: Comparison) -> float:
        return 0.2 + 0.6 * noise[c.prompt.id] if is_good(c.first) else 0.8 - 0.6 * noise[c.prompt.id]

    found = audited(judge(says), GivenBank(bank(200)), tmp_path, Plan(repeat_times=1, injection_pairs=0))
    (line,) = (ln for ln in reliability_figure(found.reliability).axes[0].get_lines() if ln.get_marker() == "o")
    assert list(line.get_xdata()) == [b.probability for b in found.reliability]
    assert list(line.get_ydata()) == [b.frequency for b in found.reliability]
    points = orders_figure(found.judged.shown_first.tolist(), found.judged.shown_second.tolist()).axes[0].collections[0]
    assert len(points.get_offsets()) == 200
    labels = [text.get_text() for text in accuracy_figure(accuracy_rows(found)).axes[0].get_yticklabels()]
    assert labels == [
        "all (n=200)",
        "better one in slot one (n=200)",
        "better one in slot two (n=200)",
        "kind 0 (n=100)",
        "kind 1 (n=100)",
    ]
