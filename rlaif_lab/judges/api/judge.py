"""A judge behind an OpenAI-compatible endpoint: hosted, vLLM, Ollama, llama.cpp, ``transformers serve``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from typing import get_args

from rlaif_lab.instructions.criteria import criteria_text
from rlaif_lab.instructions.template import JudgeTemplate, ScoreTemplate
from rlaif_lab.judges.api.answers import Record, Tally
from rlaif_lab.judges.api.asking import Asking
from rlaif_lab.judges.api.client import Endpoint, open_clients, run_apart
from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.api.limits import Limits
from rlaif_lab.judges.api.probe import Reads, Structured, Wanted, find_features, meet
from rlaif_lab.judges.api.questions import score_question, verdict_question
from rlaif_lab.judges.api.reading import Question, printable
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.verdict_store import VerdictStore
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Score, Verdict

# Small, with one right answer: it is asked to see what the endpoint can do, not what it thinks.
PROBE = Comparison(Prompt("probe", "How much is two and two?"), "Four.", "Five.")


class ApiJudge(Judge):
    """Asks a served model which response is better, by a template, in both orders like every judge.

    base_url, model: whom to ask; of several servers with the same model each question goes to one, by what is asked,
        and to the next where that one does not answer. api_key_env: the NAME of the environment variable with the key,
        None for servers without. The key is read when a request is sent and kept nowhere.
    criteria, template: as in PromptedJudge. score_template: how a single response is scored (``scores``), None: not.
    reads: ``logprobs``: probabilities of the verdict's tokens, normalised over the labels. ``votes``: the share of
        ``votes`` sampled answers. ``auto``: log-probabilities if the endpoint is seen to give them, else votes.
    structured: ``json``: answers are JSON objects held to a schema; ``text``: plain words; ``auto``: JSON for votes if
        the endpoint is seen to keep to it, else text. An answer that is not exactly one verdict in the form asked for
        is ``invalid``.
    max_tokens: length of an answer, at most. reasoning, clamp, minimum_mass: as in PromptedJudge; a reasoning judge
        wants a template that asks for reasons, and room for them.
    The rest: see Limits.

    What the endpoint can do is found out in ``attach`` with one or two small requests. Every answer is in
    ``<context.directory>/verdicts.sqlite`` before anything is made of it, by its content, and is never asked for again;
    so are refusals and unreadable answers, since they are answers. What brought no answer after all retries (timeout,
    lost connection, server error) is a failure of this call; it is on record there, with what it may have cost, and a
    resumed run may ask again. ``status`` is then ``timed_out`` or ``invalid``; ``over_budget`` was never sent. A server
    that answers no more ends the run instead (``failures_in_row``), to be resumed when it is back.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        api_key_env: str | None = "OPENAI_API_KEY",
        criteria: str = "helpful_honest_harmless",
        template: str = "pairwise",
        score_template: str | None = None,
        reads: Reads = "auto",
        votes: int = 5,
        structured: Structured = "auto",
        temperature: float = 1.0,
        max_tokens: int = 32,
        reasoning: bool = False,
        clamp: Sequence[float] | None = (0.4, 0.6),
        minimum_mass: float = 0.1,
        max_concurrency: int = 16,
        timeout_s: float = 60.0,
        retries: int = 5,
        max_wait_s: float = 120.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_calls: int | None = None,
        max_tokens_total: int | None = None,
        max_usd: float | None = None,
        price_per_million_input: float | None = None,
        price_per_million_output: float | None = None,
        wait_s: float = 0.0,
        failures_in_row: int = 8,
        name: str = "api",
    ) -> None:
        # Before a run starts: the library is needed only here.
        if importlib.util.find_spec("openai") is None:
            raise ValueError(
                "judge=api needs the package openai, which is missing from this environment: pip install openai"
            )
        if reads not in get_args(Reads):
            raise ValueError(f"judge.reads must be one of {', '.join(get_args(Reads))}; got {reads!r}")
        if structured not in get_args(Structured):
            raise ValueError(f"judge.structured must be one of {', '.join(get_args(Structured))}; got {structured!r}")
        if votes < 1 or max_tokens < 1:
            raise ValueError(f"judge.votes and judge.max_tokens must be at least 1; got {votes} and {max_tokens}")
        if temperature < 0 or (temperature == 0 and reads == "votes" and votes > 1):
            raise ValueError(f"judge.temperature must be positive for several votes to differ; got {temperature}")
        if clamp is not None and not (len(clamp) == 2 and 0 <= clamp[0] <= 0.5 <= clamp[1] <= 1):
            raise ValueError(f"judge.clamp must be null or an interval around 0.5, e.g. [0.4, 0.6]; got {clamp}")
        if not 0 <= minimum_mass <= 1:
            raise ValueError(f"judge.minimum_mass must lie in [0, 1]; got {minimum_mass}")
        urls = (base_url,) if isinstance(base_url, str) else tuple(base_url)
        self.endpoint = Endpoint(urls, model, api_key_env, float(temperature), max_tokens)
        self.limits = Limits(
            max_concurrency,
            timeout_s,
            retries,
            max_wait_s=max_wait_s,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_calls=max_calls,
            max_tokens_total=max_tokens_total,
            max_usd=max_usd,
            price_per_million_input=price_per_million_input,
            price_per_million_output=price_per_million_output,
            wait_s=wait_s,
            failures_in_row=failures_in_row,
        )
        self.wanted = Wanted(reads, structured, votes)
        self.criteria, self.template = criteria_text(criteria), JudgeTemplate.load(template)
        if self.template.takes_principle:
            raise ValueError(f"judge.template {self.template.name!r} asks for a {{principle}}, which judge=api has not")
        self.score_template = None if score_template is None else ScoreTemplate.load(score_template)
        self.gives_scores = self.score_template is not None
        self.reasoning, self.clamp = reasoning, None if clamp is None else (float(clamp[0]), float(clamp[1]))
        self.minimum_mass, self.name = minimum_mass, name
        # Found out in `attach`, or read from the store, where an earlier run has left it.
        self.features: Features | None = None
        self.told_spent = False

    # --- the run ------------------------------------------------------------------------------------------------
    def attach(self, context: JudgeContext) -> None:
        """See that the endpoint is there and what it can do, which is noted with the verdicts. Needs no weights."""
        self.store = VerdictStore(None if context.directory is None else context.directory / "verdicts.sqlite")
        self.asking = Asking(self.endpoint, self.limits, self.store, prefix=self._prefix, seed=context.seed)
        # Noted with the verdicts: a resumed run must read answers as the run before did.
        note = self.store.note(f"{self._prefix}features")
        self.features = None if note is None else Features.of(note)
        run_apart(self._meet)
        print(printable(f"judge {self.name}: {self._reading()}"), flush=True)

    async def _meet(self) -> None:
        async with open_clients(self.endpoint, self.limits) as clients:
            # Is it there? Asked even if all is known, so that a run does not start with a server that is away.
            models = await meet(clients, self.endpoint, self.limits)
            if self.features is not None:
                return
            asker = self.asking.asker(clients)
            found = await find_features(asker, self._verdict_question(PROBE), self.wanted, models)
            if found is None:
                return
            self.features, spent = found.features, found.spent
            cost = Verdict(
                None,
                "invalid",
                0.0,
                tokens=spent.tokens,
                raw="(probe)",
                cost_usd=spent.usd,
                details={"requests": spent.requests},
            )
            # The probe has cost something: it counts against the budget, and is not a verdict.
            self.store.put_failures({f"{self._prefix}probe": cost}, found.reserved)
            # After the cost: a crash in between pays for another probe, but hides nothing.
            self.store.put_note(f"{self._prefix}features", self.features.noted())

    def _reading(self) -> str:
        if self.features is None:
            return "nothing left of its budget to ask with"
        if self.features.logprobs:
            return f"{self.endpoint.host} gives log-probabilities; the verdict's are read"
        form = "held to a JSON schema" if self.features.json else "in plain words"
        absent = "" if self.wanted.reads == "votes" else f"{self.endpoint.host} gives no log-probabilities; "
        return f"{absent}{self.wanted.votes} votes per comparison, {form}"

    def describe(self) -> str:
        budget = [
            f"{key}={value}"
            for key in ("max_calls", "max_tokens_total", "max_usd")
            if (value := getattr(self.limits, key)) is not None
        ]
        read = self.wanted.reads if self.features is None else "logprobs" if self.features.logprobs else "votes"
        how = f"{self.wanted.votes} votes" if read == "votes" else "log-probabilities" if read == "logprobs" else read
        return (
            f"{self.name}: {self.endpoint.model} at {self.endpoint.host}, asked by template {self.template.name!r}, "
            f"read by {how}{', ' if budget else ''}{', '.join(budget)}"
        )

    def identity(self) -> str:
        return f"{self._prefix}{self.features.noted() if self.features else None}"

    @cached_property
    def _prefix(self) -> str:
        """Return what all keys of this judge begin with: what decides its answers, apart from the question."""
        # Everything that decides an answer but the question. Not the limits: they decide whether it is asked.
        parts = [
            self.endpoint.base_url,
            self.endpoint.model,
            self.endpoint.temperature,
            self.endpoint.max_tokens,
            self.criteria,
            self.template.identity(),
            self.score_template and self.score_template.identity(),
            [self.wanted.reads, self.wanted.structured, self.wanted.votes],
            [self.reasoning, self.clamp, self.minimum_mass],
        ]
        # "/" ends the prefix, so that none begins another.
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] + "/"

    # --- questions ----------------------------------------------------------------------------------------------
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return self._answers(Verdict, [self._verdict_question(comparison) for comparison in comparisons])

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Return one direct score per response. Where one score begins another (1 and 10), they are read from votes."""
        if self.score_template is None:
            return super().scores(responses)
        return self._answers(Score, [self._score_question(prompt, response) for prompt, response in responses])

    def _verdict_question(self, comparison: Comparison) -> Question:
        return verdict_question(comparison, self.template, self.criteria, reasoning=self.reasoning, clamp=self.clamp)

    def _score_question(self, prompt: Prompt, response: str) -> Question:
        assert self.score_template is not None
        return score_question(prompt, response, self.score_template, criteria=self.criteria, reasoning=self.reasoning)

    def _answers(self, kind: type[Record], questions: Sequence[Question]) -> list[Record]:
        tally = Tally(kind, self.wanted.votes, self.minimum_mass)
        found = self.asking.answers(tally, questions, self.features or Features())
        unpaid = sum(result.status == "over_budget" for result in found.values())
        if unpaid and not self.told_spent:
            # Reported once: it holds from here on.
            self.told_spent = True
            print(
                f"judge {self.name}: its budget is spent; {unpaid} questions, and all new ones, go unasked", flush=True
            )
        return [found[self.asking.key(question)] for question in questions]
