"""The API judge against real servers over real sockets; and its pure parts against values worked out by hand."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.asking import comparisons, judge_at
from servers.proxy import Fault, FaultyProxy, faulty_proxy
from servers.rule_server import RuleServer, prob_first_wins, rule_server

from rlaif_lab.instructions.template import JudgeTemplate
from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.api.judge import ApiJudge
from rlaif_lab.judges.api.limits import Budget, Limits, Pace, backoff, retry_after
from rlaif_lab.judges.api.reading import GarbageError, Question, answer_of, completion_of, label_masses
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.verdict_store import Spent, VerdictStore
from rlaif_lab.records import Comparison, Prompt, Verdict
from rlaif_lab.seeding import seed_for

ROOT = Path(__file__).parents[3]


# --- reading, by hand -------------------------------------------------------------------------------------------------
def question(labels: tuple[str, ...] = ("A", "B"), **changes: Any) -> Question:
    template = JudgeTemplate("t", "", "", "Verdict:", 1000, (labels[0], labels[1]), *labels[2:])
    worth = {"first": 1.0, "second": 0.0, "tie": 0.5}

    def parse(words: str, form: str) -> float | None:
        label = template.stated(words, "verdict" if form == "json" else None)
        return None if label is None else worth[template.choice_of(label)]

    values = dict(zip(labels, worth.values(), strict=False))
    return Question([{"role": "user", "content": "?"}], values, parse, "verdict", "Verdict:", **changes)


def body(text: str | None, tokens: list[tuple[str, dict[str, float]]] | None = None, **choice: Any) -> str:
    """A chat completion; tokens: what was sampled, with the probabilities of what might have been."""
    content = [
        {
            "token": token,
            "logprob": math.log(top.get(token, 0.001)),
            "top_logprobs": [{"token": other, "logprob": math.log(p)} for other, p in top.items()],
        }
        for token, top in tokens or []
    ]
    logprobs = {"logprobs": {"content": content}} if tokens else {}
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop", **logprobs, **choice}]})


def read(content: str, asked: Question | None = None, form: Any = "text", minimum: float = 0.1) -> Any:
    return answer_of(completion_of(content), asked or question(), form, minimum)


def test_the_ways_to_write_a_label_add_up() -> None:
    top = [("A", math.log(0.3)), (" A", math.log(0.2)), ("**A", math.log(0.05)), ("A.", math.log(0.05))]
    top += [("B", math.log(0.1)), ("\n B", math.log(0.1)), ("An", math.log(0.1)), ("a", math.log(0.05)), ("  ", -3.0)]
    masses = label_masses(top, ["A", "B"])
    assert masses == pytest.approx({"A": 0.6, "B": 0.2})


def test_a_label_of_several_tokens_is_told_by_its_beginning_unless_two_share_it() -> None:
    top = [("first", math.log(0.5)), ("Sec", math.log(0.25)), ("f", math.log(0.125)), ("x", math.log(0.125))]
    assert label_masses(top, ["first", "second"]) == pytest.approx({"first": 0.625, "second": 0.25})
    top = [("answer_", math.log(0.5)), ("answer_1", math.log(0.25))]
    assert label_masses(top, ["answer_1", "answer_2"]) == pytest.approx({"answer_1": 0.25, "answer_2": 0.0})


def test_probabilities_are_normalised_over_the_labels_and_a_tie_counts_half() -> None:
    answer = read(body("The", [("The", {"A": 0.3, "B": 0.1, "The": 0.6})]))
    assert (answer.votes, answer.read) == ((pytest.approx(0.75),), "logprobs")
    assert answer.mass == pytest.approx(0.4)
    answer = read(body("C", [("C", {"A": 0.3, "B": 0.1, "C": 0.4})]), question(("A", "B", "C")))
    assert answer.votes == (pytest.approx((0.3 + 0.4 / 2) / 0.8),)


def test_blank_and_markdown_tokens_before_the_verdict_are_skipped() -> None:
    start = [(" ", {" ": 0.9, "B": 0.1}), ("**", {"**": 0.8, "B": 0.2})]
    answer = read(body(" **A", [*start, ("A", {"A": 0.75, "B": 0.25})]))
    assert answer.votes == (pytest.approx(0.75),)


def test_the_beginning_of_some_other_word_is_no_verdict() -> None:
    """``[`` begins ``[BEGIN``, whose second token looks like a B."""
    tokens = [("[", {"[": 0.9, "A": 0.001}), ("B", {"B": 0.9, "A": 0.001}), ("EGIN", {"EGIN": 1.0})]
    answer = read(body("[BEGIN", tokens))
    assert (answer.votes, answer.read) == (("invalid",), "text")


def test_without_enough_probability_on_the_labels_the_words_count() -> None:
    tokens = [("I", {"I": 0.9, "A": 0.02, "B": 0.01}), ("'m", {"'m": 1.0})]
    assert read(body("I'm sorry, but I cannot do that.", tokens)).votes == ("refused",)
    assert read(body("I think so.", tokens)).votes == ("invalid",)
    assert read(body("I think so.", tokens), minimum=0.01).votes == (pytest.approx(2 / 3),)
    later = read(body("I say: Verdict: B", [*tokens, (" Verdict:", {}), (" B", {" B": 0.8, " A": 0.2})]))
    assert (later.votes, later.read) == ((pytest.approx(0.2),), "logprobs")


def test_after_reasons_the_verdict_counts_and_not_the_first_word() -> None:
    reasons = [("A", {"A": 0.9, "B": 0.05}), (" is long.\n", {}), ("Verdict", {}), (":", {}), (" ", {})]
    text = "A is long.\nVerdict: B"
    tokens = [*reasons, ("B", {"B": 0.7, "A": 0.3})]
    asked = question(reasoning=True)
    assert read(body(text, tokens), asked).votes == (pytest.approx(0.3),)
    assert read(body(text, tokens), question(reasoning=True, clamp=(0.4, 0.6))).votes == (0.4,)
    cut_short = read(body("A is long.", reasons[:2]), asked)
    assert (cut_short.votes, cut_short.read) == (("invalid",), "text")


def test_in_json_the_value_counts_and_not_the_first_character() -> None:
    tokens = [('{"', {}), ("verdict", {}), ('":', {}), (' "', {}), ("A", {"A": 0.2, "B": 0.6}), ('"}', {})]
    answer = read(body('{"verdict": "A"}', tokens), form="json")
    assert (answer.votes, answer.read) == ((pytest.approx(0.25),), "logprobs")


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ('{"verdict": "A"}', 1.0),
        ('  {"verdict":"B"}\n', 0.0),
        ('{"verdict": "a"}', "invalid"),
        ('{"verdict": "A", "also": "B"}', "invalid"),
        ('{"verdict": "A"} {"verdict": "B"}', "invalid"),
        ('{"verdict": ["A"]}', "invalid"),
        ('{"verdict": 1}', "invalid"),
        ('{"verdict": "A", "confidence": 0.8}', 1.0),
        ('```json\n{"verdict": "A"}\n```', 1.0),
        ('["A"]', "invalid"),
        ("A", "invalid"),
        ("", "invalid"),
        ("[" * 100_000, "invalid"),
        ("I cannot help with that.", "refused"),
        ('<think>Surely {"verdict": "B"}.</think>{"verdict": "A"}', 1.0),
    ],
)
def test_json_is_read_strictly(text: str, vote: Any) -> None:
    assert read(body(text), form="json").votes == (vote,)


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("A", 1.0),
        (" B.", 0.0),
        ("Verdict: A", 1.0),
        ("A or B", "invalid"),
        ("Verdict: A\nVerdict: B", "invalid"),
        ("Both are good.", "invalid"),
        ("I'm sorry, I can't compare these.", "refused"),
        ("<think>Verdict: B</think>A", 1.0),
        ("<think>Verdict: B, I would say, but", "invalid"),
        (None, "invalid"),
    ],
)
def test_text_is_read_strictly(text: str | None, vote: Any) -> None:
    assert read(body(text)).votes == (vote,)


def test_a_servers_word_for_a_refusal_counts_whatever_the_text() -> None:
    tokens = [("A", {"A": 1.0})]
    assert read(body("A", tokens, finish_reason="content_filter")).votes == ("refused",)
    refused = read(body(None, message={"refusal": "That is not for me to say."}))
    assert (refused.votes, refused.raw) == (("refused",), "That is not for me to say.")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<html>Bad gateway</html>",
        "null",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": "A"}',
        '{"choices": [null]}',
        '{"choices": [{"message": "A"}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        '{"error": {"message": "overloaded"}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_completion_is_garbage(content: str) -> None:
    with pytest.raises(GarbageError):
        completion_of(content)


@pytest.mark.parametrize(
    "logprobs", [{}, {"content": None}, {"content": []}, {"content": [{"token": "A"}]}, {"content": "A"}, [], 7]
)
def test_half_given_log_probabilities_are_none(logprobs: Any) -> None:
    assert read(body("A", logprobs=logprobs)).read == "votes"


def test_odd_but_harmless_bodies_are_read() -> None:
    assert read(body([{"type": "text", "text": "A"}, {"type": "image"}])).votes == (1.0,)  # type: ignore[arg-type]
    assert read('{"choices": [{"message": {"content": "\\ud800"}}]}').raw == "\ufffd"  # a lone half of a character
    assert len(read(body("x" * 10**6)).raw) == 20_000
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert completion_of(body("A")[:-1] + f', "usage": {json.dumps(usage)}}}').usage == (3, 4)
    for bad in ({"prompt_tokens": -1, "completion_tokens": 4}, {"prompt_tokens": 1}, {"prompt_tokens": "1"}, 7):
        assert completion_of(body("A")[:-1] + f', "usage": {json.dumps(bad)}}}').usage is None


@pytest.mark.parametrize(
    ("complaint", "lost"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "token_limit"),
        ('{"detail": "logprobs are not supported"}', "logprobs"),
        ("This response_format type is unavailable now", "json"),
        ('{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}', "seed"),
        ("'n' must be 1", "many"),
        ("only n=1 is supported", "many"),
        ("the context is too long", None),
    ],
)
def test_what_a_server_complains_of_is_not_asked_for_again(complaint: str, lost: str | None) -> None:
    features = Features(logprobs=True, json=True, many=True)
    fewer = features.without(complaint)
    changed = fewer and {k for k, v in fewer.noted().items() if v != features.noted()[k]}
    assert changed == ({lost} if lost else None)


# --- limits -----------------------------------------------------------------------------------------------------------
def test_retry_after_in_all_its_forms() -> None:
    now = 1_700_000_000.0
    date = email.utils.formatdate(now + 90, usegmt=True)
    assert retry_after({"retry-after": "7"}, now) == 7
    assert retry_after({"retry-after": date}, now) == pytest.approx(90)
    assert retry_after({"retry-after": email.utils.formatdate(now - 90, usegmt=True)}, now) == 0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}, now) == 0.25
    for useless in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "nan"}, {"retry-after": ""}):
        assert retry_after(useless, now) is None


def test_back_off_is_exponential_with_full_jitter() -> None:
    draws = [seed_for("test", i) / 2**63 for i in range(4000)]
    for attempt in range(4):
        waits = np.array([backoff(attempt, u, longest=100.0) for u in draws])
        top = 0.5 * 2**attempt
        assert 0 <= waits.min() < 0.01 * top and 0.99 * top < waits.max() < top
        assert waits.mean() == pytest.approx(top / 2, rel=0.05)
    assert backoff(10_000, 0.5, longest=100.0) == 50.0


def test_requests_keep_to_their_rates() -> None:
    async def times(limits: Limits, tokens: float) -> list[float]:
        pace, start = Pace(limits), time.monotonic()

        async def one() -> float:
            await pace.turn(tokens, 0.0)
            return time.monotonic() - start

        return sorted(await asyncio.gather(*(one() for _ in range(11))))

    by_requests = asyncio.run(times(Limits(requests_per_minute=1200), 1.0))
    by_tokens = asyncio.run(times(Limits(tokens_per_minute=60_000), 50.0))
    for found in (by_requests, by_tokens):
        assert all(at >= 0.05 * i - 1e-3 for i, at in enumerate(found)), found
        assert found[-1] < 2.0
    unlimited = asyncio.run(times(Limits(), 1.0))
    assert unlimited[-1] < 0.2


def test_a_pause_holds_everybody_and_tokens_not_used_are_given_back() -> None:
    async def run() -> tuple[float, float]:
        pace, start = Pace(Limits(tokens_per_minute=6000)), time.monotonic()
        await pace.turn(1000, 0.0)  # the next would wait 10 s
        pace.correct(1000, 10)  # 0.1 s
        await pace.turn(1, 0.0)
        corrected = time.monotonic() - start
        pace.pause(0.3)
        await pace.turn(1, 0.9)
        return corrected, time.monotonic() - start - corrected

    corrected, paused = asyncio.run(run())
    assert 0.09 < corrected < 0.3
    assert 0.3 < paused < 0.9


def test_a_budget_is_used_up_and_never_exceeded() -> None:
    """Each request may take 100 tokens and takes 30: three go at once, and the others when it turns out."""

    async def run() -> tuple[list[bool], Spent, int]:
        budget = Budget(Limits(max_tokens_total=1000), Spent(5, 700, 0.0))
        most, actual = Spent(1, 100, 0.0), Spent(1, 30, 0.0)
        at_once = flying = 0

        async def one() -> bool:
            nonlocal at_once, flying
            if not await budget.reserve(most):
                return False
            flying += 1
            at_once = max(at_once, flying)
            await asyncio.sleep(0.01)
            flying -= 1
            await budget.settle(most, actual)
            return True

        return list(await asyncio.gather(*(one() for _ in range(20)))), budget.spent, at_once

    went, spent, at_once = asyncio.run(run())
    assert at_once == 3
    assert spent.tokens == 700 + 30 * sum(went) <= 1000
    assert 1000 - spent.tokens < 100, "it stops only when a request might not fit"


# --- what the config gets wrong ---------------------------------------------------------------------------------------
GOOD: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": None}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"base_url": "127.0.0.1:8000/v1"}, "base_url must be a URL like http://"),
        ({"base_url": "ftp://host/v1"}, "base_url must be a URL like http://"),
        ({"base_url": ""}, "base_url must be a URL like http://"),
        ({"base_url": "http://[::1/v1"}, "base_url must be a URL like http://"),
        ({"base_url": "http://host:99999/v1"}, "base_url must be a URL like http://"),
        ({"base_url": "https://user:s3cret@host/v1"}, "keys belong in the environment"),
        ({"base_url": "https://s3cret@host/v1"}, "keys belong in the environment"),
        ({"base_url": "ftp://user:s3cret@host/v1"}, "base_url must be a URL like http://"),
        ({"base_url": "https://host/v1?api-key=s3cret"}, "keys belong in the environment"),
        ({"model": ""}, "judge.model must name"),
        ({"api_key_env": "sk-s3cret"}, "must be the NAME of the environment variable"),
        ({"api_key_env": "s3cret"}, "must be the NAME of the environment variable"),
        ({"api_key_env": "RLAIF_LAB_NO_SUCH_KEY"}, "environment variable RLAIF_LAB_NO_SUCH_KEY is not set"),
        ({"reads": "logprob"}, "judge.reads must be one of auto, logprobs, votes"),
        ({"structured": "yes"}, "judge.structured must be one of auto, json, text"),
        ({"votes": 0}, "judge.votes and judge.max_tokens must be at least 1"),
        ({"temperature": 0, "reads": "votes"}, "judge.temperature must be positive for several votes"),
        ({"clamp": [0.6, 0.4]}, "judge.clamp must be null or an interval around 0.5"),
        ({"minimum_mass": 2}, r"judge.minimum_mass must lie in \[0, 1\]"),
        ({"max_concurrency": 0}, "judge.max_concurrency must be at least 1"),
        ({"timeout_s": 0}, "judge.timeout_s must be positive"),
        ({"retries": -1}, "judge.retries must not be negative"),
        ({"requests_per_minute": 0}, "judge.requests_per_minute must be positive"),
        ({"max_calls": -1}, "judge.max_calls must be positive, or null"),
        ({"max_calls": 0}, "judge.max_calls must be positive, or null"),
        ({"max_usd": 1.0}, "judge.max_usd needs judge.price_per_million_input"),
        ({"criteria": ""}, "judge.criteria is empty"),
        ({"template": "pairwize"}, "did you mean 'pairwise'"),
        ({"template": "principle"}, "asks for a {principle}"),
    ],
)
def test_mistakes_are_told_at_construction_and_secrets_not_repeated(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        ApiJudge(**{**GOOD, **wrong})
    assert "s3cret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_that_is_none_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-123\n", "sk 123", "sk–123"):
        monkeypatch.setenv("TEST_KEY", key)
        with pytest.raises(ValueError, match="TEST_KEY holds white space or other characters") as error:
            ApiJudge(**{**GOOD, "api_key_env": "TEST_KEY"})
        assert "123" not in str(error.value)


def test_nobody_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"judge.base_url: nothing answers at http://127.0.0.1:9/v1") as error:
        judge_at("http://127.0.0.1:9/v1", tmp_path)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 30  # it does not wait; a busy machine does


def test_a_model_or_page_that_is_not_there_is_told() -> None:
    with rule_server(RuleServer(models=("rule", "ruler"))) as url:
        with pytest.raises(ValueError, match=r"'rulez' is not among the models it lists \(did you mean 'rule"):
            judge_at(url, model="rulez")
        with pytest.raises(ValueError, match="refuses to answer: HTTP 404"):
            judge_at(f"{url}/nowhere")
    with rule_server(RuleServer(models=None)) as url:
        assert judge_at(url, model="anything").features is not None, "a server need not list its models"


# --- a real server ----------------------------------------------------------------------------------------------------
def test_verdicts_are_the_probabilities_of_the_labels_in_either_order() -> None:
    with rule_server(RuleServer()) as url:
        judge = judge_at(url, price_per_million_input=10.0, price_per_million_output=1000.0)
        asked = comparisons(5)
        verdicts = judge.verdicts([*asked, *(c.swapped() for c in asked)])
    for c, shown_first, shown_second in zip(asked, verdicts[:5], verdicts[5:], strict=True):
        assert shown_first.status == "ok"
        assert shown_first.prob_first_wins == pytest.approx(prob_first_wins(c.first, c.second))
        assert shown_second.prob_first_wins == pytest.approx(1 - prob_first_wins(c.first, c.second))
        assert shown_first.details is not None and shown_first.details["read"] == "logprobs"
        assert shown_first.details["mass"] == pytest.approx(0.9)
        assert shown_first.cost_usd == pytest.approx(((shown_first.tokens - 1) * 10 + 1 * 1000) / 1e6)
        assert shown_first.latency_s > 0 and shown_first.raw in ("A", "B", "The")
    assert judge.describe() == (
        f"api: rule at {url.split('/')[2]}, asked by template 'pairwise', read by log-probabilities"
    )


LACKING = [
    ({}, Features(logprobs=True), "logprobs", "text", 1),
    ({"lacks": {"logprobs"}}, Features(json=True, many=True), "votes", "json", 1),
    ({"lacks": {"logprobs", "n"}}, Features(json=True, many=True), "votes", "json", 5),
    ({"lacks": {"logprobs", "response_format"}}, Features(many=True), "votes", "text", 1),
    ({"refuses": {"logprobs"}, "lacks": {"n"}}, Features(json=True, many=True), "votes", "json", 5),
    (
        {"refuses": {"logprobs", "response_format", "n", "seed", "max_tokens"}},
        Features(seed=False, token_limit="max_completion_tokens"),
        "votes",
        "text",
        5,
    ),
]


@pytest.mark.parametrize(("server", "features", "reading", "form", "requests"), LACKING)
def test_what_a_server_lacks_is_seen_and_done_without(
    server: dict[str, Any], features: Features, reading: str, form: str, requests: int, capsys: Any
) -> None:
    real = RuleServer(**{key: frozenset(names) for key, names in server.items()})
    with rule_server(real) as url:
        judge = judge_at(url)
        assert judge.features == features
        said = capsys.readouterr().out
        assert ("gives no log-probabilities; 5 votes" in said) == (reading == "votes")
        before = len(real.requests)
        verdicts = judge.verdicts(comparisons(8))
        assert len(real.requests) - before == 8 * requests
        judge.verdicts(comparisons(8, start=8))
    assert capsys.readouterr().out == "", "it is said once"
    for verdict in verdicts:
        assert verdict.details is not None
        assert (verdict.details["read"], verdict.details["form"]) == (reading, form)
        assert verdict.details["requests"] == requests
        assert len(verdict.details["votes"]) == (1 if reading == "logprobs" else 5)
        assert verdict.status in ("ok", "tie")


def test_what_the_config_insists_on_and_a_server_lacks_is_told() -> None:
    with (
        rule_server(RuleServer(lacks=frozenset({"logprobs"}))) as url,
        pytest.raises(ValueError, match=r"judge.reads=logprobs: .* gives no log-probabilities"),
    ):
        judge_at(url, reads="logprobs")
    with rule_server(RuleServer(refuses=frozenset({"response_format"}))) as url:
        with pytest.raises(ValueError, match=r"judge.structured=json: .* takes no JSON schema"):
            judge_at(url, structured="json")
        assert judge_at(url).features == Features(logprobs=True), "auto has no need of it"


def test_votes_are_a_sample_of_the_judges_distribution_and_the_same_again_with_the_same_seed() -> None:
    """200 votes on each of 10 comparisons; standard error .035 at most, so that 5 of them are .18."""
    with rule_server(RuleServer()) as url:
        asked = comparisons(10)
        runs = [judge_at(url, reads="votes", votes=200, seed=seed).verdicts(asked) for seed in (0, 0, 1)]
    shares = [[v.prob_first_wins for v in run] for run in runs]
    assert shares[0] == shares[1] != shares[2]
    for c, share in zip(asked, shares[0], strict=True):
        assert share == pytest.approx(prob_first_wins(c.first, c.second), abs=0.18)


def test_votes_that_state_nothing_are_counted_out_and_kept() -> None:
    with rule_server(RuleServer()) as url:  # a tenth of its plain answers is "The"
        verdicts = judge_at(url, reads="votes", votes=7, structured="text").verdicts(comparisons(30))
    failed = 0
    for verdict in verdicts:
        assert verdict.details is not None and verdict.raw is not None
        votes = verdict.details["votes"]
        stated = [vote for vote in votes if vote != "invalid"]
        failed += len(votes) - len(stated)
        assert len(votes) == 7 == len(verdict.raw.split("\n---\n"))
        assert verdict.prob_first_wins == pytest.approx(sum(stated) / len(stated))
    assert 5 < failed < 60


@pytest.mark.parametrize("changes", [{}, {"structured": "json"}, {"reads": "votes", "votes": 2}], ids=str)
def test_a_server_that_drops_the_system_turn_in_silence_is_told_all_in_the_users(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for deaf in (False, True):
        server = RuleServer(deaf=deaf)
        with rule_server(server) as url:
            judge = judge_at(url, tmp_path / str(deaf), **changes)
            asked = len(server.requests)
            judge.verdicts(comparisons(1))
        roles = [[message["role"] for message in request["messages"]] for request in server.requests]
        told = capsys.readouterr().out
        assert judge.features is not None
        assert judge.features.system is not deaf
        assert ("drops the system turn without a word" in told) is deaf
        assert all(turns == (["user"] if deaf else ["system", "user"]) for turns in roles[asked:])
        assert len(server.requests) == sum(server.asked.values())
        spent = VerdictStore(tmp_path / str(deaf) / "verdicts.sqlite").spent()
        assert spent.requests == len(server.requests), "the question that told it is paid for, too"


def test_equal_comparisons_are_asked_once_and_stored_ones_never(tmp_path: Path) -> None:
    server = RuleServer()
    with rule_server(server) as url:
        judge = judge_at(url, tmp_path)
        asked = comparisons(6)
        first = judge.verdicts([*asked, *asked])
        assert first[:6] == first[6:]
        assert len(server.requests) == 1 + 6  # one to see what the server can do
        assert judge.verdicts(asked) == first[:6]
        again = judge_at(url, tmp_path)
        assert again.verdicts(asked) == first[:6]
        assert len(server.requests) == 1 + 6, "not even that one is asked again"
        other = Comparison(Prompt("another id", asked[0].prompt.text), asked[0].first, asked[0].second)
        assert again.verdicts([other]) == first[:1], "what is asked decides, not what it is called"
        assert len(server.requests) == 1 + 6
        for changes in ({"criteria": "shorter is better"}, {"temperature": 0.5}, {"template": "pairwise_tie"}):
            before = len(server.requests)
            judge_at(url, tmp_path, **changes).verdicts(asked)
            assert len(server.requests) == before + 1 + 6, changes
    assert len(VerdictStore(tmp_path / "verdicts.sqlite")) == 4 * 6


def test_nothing_to_ask_needs_no_server(tmp_path: Path) -> None:
    with rule_server(RuleServer()) as url:
        judge = judge_at(url, tmp_path)
        verdicts = judge.verdicts(comparisons(4))
    assert judge.verdicts([]) == []
    assert judge.verdicts(comparisons(4)) == verdicts


def test_it_works_where_a_loop_is_running_already() -> None:
    """As in a notebook."""

    async def cell() -> list[Verdict]:
        return judge_at(url).verdicts(comparisons(3))

    with rule_server(RuleServer()) as url:
        assert len(asyncio.run(cell())) == 3


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    server = RuleServer(hold_s=0.05)
    with rule_server(server) as url:
        judge_at(url, max_concurrency=3).verdicts(comparisons(20))
    assert server.most_at_once == 3


def test_generations_are_judged_in_both_orders() -> None:
    from helpers import generation

    with rule_server(RuleServer()) as url:
        judgements = judge_generations(judge_at(url), [generation("a question", "yes", "no", "perhaps")])
    assert len(judgements) == 3
    for j in judgements:
        assert j.prob_first_wins == pytest.approx(prob_first_wins(j.comparison.first, j.comparison.second))


def test_scores_are_the_mean_of_votes_where_one_begins_another_and_expectations_where_none_does(tmp_path: Path) -> None:
    responses = [(Prompt(str(i), "Question?"), f"answer {i}") for i in range(4)]
    server = RuleServer()
    with rule_server(server) as url:
        assert not judge_at(url).gives_scores
        judge = judge_at(url, tmp_path, score_template="score_1_to_10", votes=3)
        assert judge.gives_scores
        scores = judge.scores(responses)
        requests = len(server.requests)
        assert judge.scores(responses) == scores
        assert len(server.requests) == requests
        one_token = judge_at(url, score_template="score_additive_5").scores(responses)
    for score in scores:
        assert score.details is not None and score.value is not None
        assert len(score.details["votes"]) == 3
        assert score.value == pytest.approx(sum(score.details["votes"]) / 3)
        assert 1 <= score.value <= 3 and score.status == "ok"
    for score in one_token:
        assert score.details is not None and score.details["read"] == "logprobs"
        assert score.value in (1.0, 2.0, 3.0)


# --- budget -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("budget", "most"),
    [
        ({"max_calls": 13}, lambda spent: spent.requests),
        ({"max_tokens_total": 6000}, lambda spent: spent.tokens),
        ({"max_usd": 0.006}, lambda spent: spent.usd),
    ],
)
def test_a_budget_holds_for_a_run_and_its_resumption(
    budget: dict[str, Any], most: Callable[[Spent], float], tmp_path: Path, capsys: Any
) -> None:
    server = RuleServer()
    prices = {"price_per_million_input": 1.0, "price_per_million_output": 1.0}
    with rule_server(server) as url:
        judge = judge_at(url, tmp_path, **budget, **prices, max_concurrency=4)
        verdicts = judge.verdicts(comparisons(60))
        paid = [v for v in verdicts if v.status != "over_budget"]
        unpaid = [v for v in verdicts if v.status == "over_budget"]
        limit = next(iter(budget.values()))
        spent = judge.store.spent()
        assert most(spent) <= limit
        assert spent.requests == len(server.requests) == len(paid) + 1
        assert unpaid and all((v.prob_first_wins, v.tokens, v.cost_usd) == (None, 0, 0.0) for v in unpaid)
        assert capsys.readouterr().out.count("its budget is spent") == 1
        assert len(paid) >= 10
        again = judge_at(url, tmp_path, **budget, **prices)
        assert again.verdicts(comparisons(60)) == verdicts
        assert again.store.spent() == spent
        richer = judge_at(url, tmp_path)
        assert all(v.status == "ok" for v in richer.verdicts(comparisons(60))), "with more money it goes on"
    assert len(server.requests) == 1 + 60


def test_retries_count_as_calls(tmp_path: Path) -> None:
    with behind_proxy(lambda i, _: Fault("status", 500) if i > 0 else None) as (proxy, url):
        judge = judge_at(url, tmp_path, max_calls=4, retries=10, max_concurrency=1)
        verdicts = judge.verdicts(comparisons(3))
    assert len(proxy.seen) == 4
    assert [v.status for v in verdicts] == ["invalid", "over_budget", "over_budget"]
    assert judge.store.spent().requests == 4


# --- faults -----------------------------------------------------------------------------------------------------------
def once(fault: Fault, at: int = 1) -> Callable[[int, Any], Fault | None]:
    """The fault at one request, by default the first after the one that finds out what the server can do."""
    return lambda i, _: fault if i == at else None


def always(fault: Fault) -> Callable[[int, Any], Fault | None]:
    return lambda i, _: fault if i > 0 else None


@contextmanager
def behind_proxy(plan: Callable[[int, Any], Fault | None]) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy with such a plan before a server without faults."""
    with rule_server(RuleServer()) as upstream, faulty_proxy(upstream, plan) as found:
        yield found


def through(
    plan: Callable[[int, Any], Fault | None], directory: Path | None = None, count: int = 1, **options: Any
) -> tuple[list[Verdict], FaultyProxy, ApiJudge]:
    with behind_proxy(plan) as (proxy, url):
        judge = judge_at(url, directory, **{"timeout_s": 1.0, "max_concurrency": 1, **options})
        return judge.verdicts(comparisons(count)), proxy, judge


PASSING = {
    "too many requests": Fault("status", 429, {"Retry-After": "0"}),
    "server error": Fault("status", 500, body=b"oops"),
    "unavailable": Fault("status", 503),
    "hang": Fault("hang"),
    "cut": Fault("cut"),
    "cut in body": Fault("cut in body"),
    "garbage": Fault("garbage", body=b"<html>welcome to the hotel</html>"),
    "binary": Fault("garbage", body=b"\xff\xfe\x00\x80"),
    "empty": Fault("garbage", body=b""),
    "other JSON": Fault("garbage", body=b'{"error": {"message": "try again"}}'),
    "slow": Fault("slow", seconds=3.0),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_costs_one_more_request(fault: Fault) -> None:
    verdicts, proxy, _ = through(once(fault))
    assert len(proxy.seen) == 1 + 2
    assert verdicts[0].status == "ok"
    assert verdicts[0].prob_first_wins == pytest.approx(prob_first_wins("one 0", "two 0"))
    assert verdicts[0].details is not None and verdicts[0].details["requests"] == 2
    assert proxy.seen[1] == proxy.seen[2], "the same is asked again"


LASTING = {
    "too many requests": (Fault("status", 429, {"Retry-After": "0"}), "invalid", "HTTP 429", 0),
    "server error": (Fault("status", 500, body=b"oops"), "invalid", "HTTP 500: oops", 0),
    "hang": (Fault("hang"), "timed_out", "no answer within 0.3 s", 1),
    "slow": (Fault("slow", seconds=3.0), "timed_out", "no answer within 0.3 s", 1),
    "cut": (Fault("cut"), "invalid", "connection failed", 1),
    "cut in body": (Fault("cut in body"), "invalid", "connection failed", 1),
    "garbage": (Fault("garbage", body=b"<html>"), "invalid", "the body is no JSON: <html>", 1),
}


@pytest.mark.parametrize(("fault", "status", "raw", "charged"), LASTING.values(), ids=LASTING.keys())
def test_a_fault_that_stays_is_recorded_and_a_later_run_may_ask_again(
    fault: Fault, status: str, raw: str, charged: int, tmp_path: Path
) -> None:
    with rule_server(RuleServer()) as upstream:
        broken = True
        with faulty_proxy(upstream, lambda i, _: fault if broken and i > 0 else None) as (proxy, url):
            options = {"timeout_s": 0.3, "retries": 2, "max_concurrency": 1}
            judge = judge_at(url, tmp_path, **options)
            (verdict,) = judge.verdicts(comparisons(1))
            assert len(proxy.seen) == 1 + 3
            assert (verdict.prob_first_wins, verdict.status) == (None, status)
            assert verdict.raw is not None and verdict.raw.startswith(raw)
            assert verdict.details is not None and verdict.details["requests"] == 3
            assert bool(verdict.tokens) == bool(charged), "what the server may have done is counted as if it had"
            assert judge.store.spent().requests == 4
            assert len(judge.store) == 0
            broken = False
            (mended,) = judge_at(url, tmp_path, **options).verdicts(comparisons(1))
            assert mended.status == "ok"
            assert len(judge.store) == 1
            assert judge.store.spent().requests == 5


ANSWERS = {
    "no verdict": (Fault("rewrite", text="Both have their merits."), "invalid", "Both have their merits."),
    "two verdicts": (Fault("rewrite", text="Verdict: A. Verdict: B."), "invalid", "Verdict: A. Verdict: B."),
    "no words": (Fault("rewrite", text=""), "invalid", ""),
    "declined": (Fault("rewrite", text="I'm sorry, I can't judge that."), "refused", "I'm sorry, I can't judge that."),
    "filtered": (Fault("rewrite", text="A", change={"finish_reason": "content_filter"}), "refused", "A"),
    "refusal field": (Fault("rewrite", change={"message": {"content": None, "refusal": "No."}}), "refused", "No."),
    "too long": (Fault("status", 400, body=b"context too long"), "invalid", "HTTP 400: context too long"),
    "policy": (Fault("status", 400, body=b'{"error": {"code": "content_filter"}}'), "refused", None),
}


@pytest.mark.parametrize(("fault", "status", "raw"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_without_a_verdict_is_an_answer(fault: Fault, status: str, raw: str | None, tmp_path: Path) -> None:
    """It is not asked for again, neither by a retry nor by a later run."""
    verdicts, proxy, judge = through(always(fault), tmp_path, votes=1)
    assert len(proxy.seen) == 2
    assert (verdicts[0].prob_first_wins, verdicts[0].status) == (None, status)
    assert raw is None or verdicts[0].raw == raw
    assert len(judge.store) == 1
    assert judge.verdicts(comparisons(1)) == verdicts, "the server is gone"


def test_an_answer_that_lacks_log_probabilities_all_of_a_sudden_is_a_vote() -> None:
    verdicts, proxy, _ = through(always(Fault("rewrite", text="B")), votes=3)
    assert len(proxy.seen) == 1 + 3
    assert verdicts[0].prob_first_wins == 0.0
    assert verdicts[0].details is not None and verdicts[0].details["votes"] == [0.0, 0.0, 0.0]


def test_what_a_server_asks_to_wait_is_waited_by_all() -> None:
    limited = Fault("status", 429, {"Retry-After": "1"})
    _, proxy, _ = through(once(limited), count=6, max_concurrency=3)
    since = [at - proxy.times[1] for at in proxy.times[1:]]
    early = [at for at in since if at < 1.0]
    assert len(early) <= 3, "those in flight, and none after them"
    assert len(proxy.seen) == 1 + 6 + 1


def test_a_server_that_asks_for_too_long_a_wait_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    limited = Fault("status", 429, {"Retry-After": "3600"}, b"come back later")
    with behind_proxy(lambda i, _: limited if i == 4 else None) as (proxy, url):
        judge = judge_at(url, tmp_path, max_concurrency=1)
        with pytest.raises(ValueError, match=r"asks to wait 3600 s .*come back later.* goes on") as error:
            judge.verdicts(comparisons(6))
        assert "\n" not in str(error.value)
        assert len(judge.store) == 3
        judge.verdicts(comparisons(6))
        assert len(proxy.seen) == 5 + 3


@pytest.mark.parametrize(
    ("status", "text"),
    [(401, "bad key"), (402, "no money"), (403, "not you"), (404, "no such model"), (429, "insufficient_quota")],
)
def test_what_would_meet_every_request_ends_the_run(status: int, text: str, tmp_path: Path) -> None:
    fault = Fault("status", status, body=text.encode())
    with behind_proxy(lambda i, _: fault if i == 3 else None) as (proxy, url):
        judge = judge_at(url, tmp_path, max_concurrency=1)
        with pytest.raises(ValueError, match=text):
            judge.verdicts(comparisons(6))
        assert len(proxy.seen) == 4
        assert len(judge.store) == 2


def test_many_faults_at_once_leave_every_verdict_stored_once(tmp_path: Path) -> None:
    """Every third request meets some fault."""
    faults = list(PASSING.values())[:7]
    _, _, judge = through(
        lambda i, _: faults[i // 3 % 7] if i > 0 and i % 3 == 0 else None,
        tmp_path,
        count=60,
        max_concurrency=20,
        retries=8,
        timeout_s=2.0,
    )
    assert len(judge.store) == 60


# --- secrets ----------------------------------------------------------------------------------------------------------
KEY = "sk-test-0123456789abcdef"


def test_the_key_is_sent_and_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(0)
    server = RuleServer(key=KEY)
    echo = Fault("rewrite", text=f"Your key is {KEY}.")
    error = Fault("status", 500, body=f"Bearer {KEY} failed".encode())
    with rule_server(server) as upstream:
        plan = lambda i, _: {2: echo, 3: error, 4: error}.get(i)  # noqa: E731
        with faulty_proxy(upstream, plan) as (_, url):
            judge = judge_at(url, tmp_path, api_key_env="TEST_KEY", votes=1, retries=1, max_concurrency=1)
            verdicts = judge.verdicts(comparisons(3))
    assert [v.status for v in verdicts] == ["ok", "invalid", "invalid"]
    assert verdicts[1].raw == "Your key is [the key]."
    assert verdicts[2].raw == "HTTP 500: Bearer [the key] failed"
    seen = [repr(judge), judge.describe(), judge.identity(), repr(vars(judge)), repr(verdicts), caplog.text]
    assert not any(KEY in text for text in seen)
    assert any("TEST_KEY" in text for text in seen)
    judge.store.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files and not any(KEY.encode() in file.read_bytes() for file in files)


def test_a_key_that_does_not_fit_is_told_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with rule_server(RuleServer(key="another")) as url:
        with pytest.raises(ValueError, match=r"does not accept the key in TEST_KEY \(HTTP 401\)") as error:
            judge_at(url, api_key_env="TEST_KEY")
        assert KEY not in str(error.value)
        with pytest.raises(ValueError, match="does not accept requests without a key"):
            judge_at(url)


def test_without_a_key_none_is_sent_whatever_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = RuleServer()
    with rule_server(server) as url:
        judge_at(url).verdicts(comparisons(1))
    assert server.headers and not any("authorization" in headers for headers in server.headers)


# --- killed -----------------------------------------------------------------------------------------------------------
JUDGING = """
    import sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {tests!r}]
    from servers.asking import comparisons, judge_at

    url, directory, count, concurrency = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    judge = judge_at(url, directory, max_concurrency=concurrency, timeout_s=60)
    print("asking", flush=True)
    judge.verdicts(comparisons(count))
    print("done", flush=True)
"""


def judging(url: str, directory: Path, count: int, concurrency: int) -> subprocess.Popen[str]:
    program = textwrap.dedent(JUDGING).format(root=str(ROOT), tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", program, url, str(directory), str(count), str(concurrency)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started from a shell's background job it would inherit that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_200_at_once_and_killed_in_the_middle_every_verdict_is_stored_once_and_none_paid_again(tmp_path: Path) -> None:
    server, count = RuleServer(hold_s=0.3), 1200
    with rule_server(server) as url:
        judge_at(url, tmp_path)  # sees what the server can do, so that a crowd can be asked for from now on
        server.crowd = 200
        process = judging(url, tmp_path, count, 200)
        wait_for(lambda: len(server.requests) > 600 and server.at_once > 0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert server.most_at_once == 200
        store = VerdictStore(tmp_path / "verdicts.sqlite")
        stored = len(store)
        assert 200 < stored < 1000, "the kill came in the middle"
        wait_for(lambda: server.at_once == 0)
        asked_before, at_kill = dict(server.asked), len(server.requests)
        start = time.perf_counter()
        process = judging(url, tmp_path, count, 200)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        seconds = time.perf_counter() - start
    assert output.splitlines()[-1] == "done"
    assert len(store) == count
    assert len(server.requests) - at_kill == count - stored, "what was stored is not asked again"
    again = sum(asked_before.get(text, 0) > 0 for text, times in server.asked.items() if times > 1)
    assert again == sum(times > 1 for times in server.asked.values()) <= 200, "only what was in flight is"
    assert max(server.asked.values()) <= 2
    print(f"\n{count - stored} verdicts in {seconds:.1f} s, start of the process included")


@pytest.mark.slow
def test_interrupted_it_stops_at_once_and_keeps_what_arrived(tmp_path: Path) -> None:
    server = RuleServer(hold_s=0.2)
    with rule_server(server) as url:
        process = judging(url, tmp_path, 2000, 4)
        wait_for(lambda: len(server.requests) > 20)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - start < 10
        assert "KeyboardInterrupt" in errors
        assert "never retrieved" not in errors and "was destroyed" not in errors
    assert len(VerdictStore(tmp_path / "verdicts.sqlite")) >= len(server.requests) - 1 - 4


# --- real models ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_transformers_serve_ignores_logprobs_and_n_in_silence_and_is_asked_for_votes(tmp_path: Path) -> None:
    from servers.tiny_judge import CRITERIA, comparison, make_tiny_judge, transformers_serve

    folder = make_tiny_judge(tmp_path / "model")
    options = {"model": str(folder), "template": str(folder / "template.yaml"), "criteria": CRITERIA, "max_tokens": 4}
    asked = [comparison(10_000 + i) for i in range(6)]
    with transformers_serve(folder, tmp_path / "server.log") as upstream:
        with faulty_proxy(upstream, lambda i, _: None) as (proxy, url):
            judge = judge_at(url, tmp_path, **options, timeout_s=120, max_concurrency=4, votes=4)
            assert judge.features == Features(many=True), "it says yes to n, and gives one"
            assert proxy.seen[0]["logprobs"] is True, "what it lacks was asked for"
            before = len(proxy.seen)
            verdicts = judge.verdicts(asked)
            assert len(proxy.seen) - before == 6 * 4, "so every vote is a request"
        with pytest.raises(ValueError, match="Server is pinned to"):
            judge_at(upstream, **{**options, "model": "another"})
    votes = [vote for v in verdicts if v.details is not None for vote in v.details["votes"]]
    assert len(votes) == 24
    assert {1.0, 0.0} <= set(votes) <= {1.0, 0.0, "invalid"}, "it has learnt to say A or B, by a coin"
    for verdict in verdicts:
        assert verdict.details is not None and verdict.details["read"] == "votes"
        stated = [vote for vote in verdict.details["votes"] if vote != "invalid"]
        assert verdict.prob_first_wins == (pytest.approx(sum(stated) / len(stated)) if stated else None)
        assert verdict.tokens > 4 * 50
