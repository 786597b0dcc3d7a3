"""Before the first comparison: is the endpoint there, does it know the model, and what can it do?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rlaif_lab.config import did_you_mean
from rlaif_lab.judges.api.client import Asker, Endpoint, Reply, UnusableError, authorization, redirected
from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.api.limits import Limits, total
from rlaif_lab.judges.api.reading import Form, Question
from rlaif_lab.judges.verdict_store import Spent

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Reads = Literal["auto", "logprobs", "votes"]
Structured = Literal["auto", "json", "text"]

LONG_TOKEN, LONGEST_TOKEN = 5, 12
"""Characters of a token: more than English text has on average, and more than any text."""


@dataclass(frozen=True)
class Wanted:
    """What the judge's config asks for."""

    reads: Reads
    structured: Structured
    votes: int


async def meet(clients: Sequence[AsyncOpenAI], endpoint: Endpoint, limits: Limits) -> list[str]:
    """Wait until one of the servers is there, up to ``wait_s``, and ask it for the names of its models.

    UnusableError when nobody is there by then, or the key does not fit.
    """
    since, told = time.monotonic(), False
    while True:
        found, absent = None, None
        # All servers are asked: a key that one of them refuses is an error at once.
        for client in clients:
            try:
                models = await list_models(client, endpoint, limits.timeout_s)
                found = models if found is None else found
            except AbsentError as error:
                absent = error
        if found is not None:
            return found
        assert absent is not None
        if time.monotonic() - since >= limits.wait_s:
            raise absent
        if not told:
            print(f"judge: waiting for {endpoint.host}, up to {limits.wait_s:g} s ({absent.reason})", flush=True)
            told = True
        await asyncio.sleep(min(2.0, limits.wait_s))


class AbsentError(UnusableError):
    """Nobody is there, or it is still loading. reason: in words of the library or of the server."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


async def list_models(client: AsyncOpenAI, endpoint: Endpoint, timeout_s: float) -> list[str]:
    """Return the names of the models an endpoint says it has; none where it does not say, as many do not.

    AbsentError when nobody is there; UnusableError when the key does not fit, or it sends its questions elsewhere.
    """
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    try:
        async with asyncio.timeout(timeout_s):
            response = await client.models.with_raw_response.list(extra_headers=authorization(endpoint))
        return [str(model["id"]) for model in json.loads(response.text)["data"]]
    except (APITimeoutError, TimeoutError):
        # Slow is not absent, and many servers list no models.
        return []  # a question will tell
    except APIConnectionError as error:
        reason = endpoint.redacted(str(error.__cause__ or error))
        url = str(client.base_url).rstrip("/")
        raise AbsentError(f"judge.base_url: nothing answers at {url} ({reason})", reason) from None
    except APIStatusError as error:
        if error.status_code in (401, 403):
            key = f"the key in {endpoint.api_key_env}" if endpoint.api_key_env else "requests without a key"
            raise UnusableError(
                f"judge.api_key_env: {endpoint.base_url} does not accept {key} (HTTP {error.status_code})"
            ) from None
        if 300 <= error.status_code < 400:
            raise redirected(endpoint, error) from None
        # Model servers say 503 while they load their weights.
        if error.status_code == 503:
            reason = "it says that it is not ready (HTTP 503)"
            raise AbsentError(f"judge.base_url: {endpoint.host}: {reason}", reason) from None
        return []
    except (ValueError, TypeError, KeyError, RecursionError):  # some other JSON, or none
        return []


@dataclass(frozen=True)
class Found:
    """What an endpoint can do, what it cost to find out, and the reservations that were made for that."""

    features: Features
    spent: Spent
    reserved: tuple[int, ...]


async def find_features(asker: Asker, question: Question, wanted: Wanted, models: list[str]) -> Found | None:
    """Return what the endpoint can do of what is wanted, seen from its answers to ``question``, and what they cost.
    None when the budget has nothing left to ask with.

    UnusableError when it cannot do what the config insists on, or answers nothing.
    """
    probe = _Probe(asker, question, models)
    features = Features()
    # Log-probabilities first: one request with them says more than votes.
    if wanted.reads != "votes" and question.one_token_tells:
        form: Form = "json" if wanted.structured == "json" else "text"
        features = await probe.ask(replace(features, logprobs=True, json=form == "json"), form)
        # Some servers take the parameter and ignore it: only what is in the answer counts.
        if features.logprobs and (probe.reply.completion is None or probe.reply.completion.choices[0].tokens is None):
            features = replace(features, logprobs=False)
        if wanted.reads == "logprobs" and not features.logprobs and not probe.penniless:
            raise UnusableError(
                f"judge.reads=logprobs: {asker.endpoint.host} gives no log-probabilities of its tokens; use "
                "judge.reads=auto or votes"
            )
    if not features.logprobs and not probe.penniless:
        # JSON is tried even in `auto`, since an answer held to a schema is never misread.
        form = "text" if wanted.structured == "text" else "json"
        features = await probe.ask(replace(features, json=form == "json", many=wanted.votes > 1), form, wanted.votes)
        # Seen to be kept, not promised: a server may ignore the schema.
        if wanted.structured == "auto" and features.json and not probe.kept_to_json():
            features = replace(features, json=False)
    if probe.penniless:
        return None
    if wanted.structured == "json" and not features.json:
        raise UnusableError(
            f"judge.structured=json: {asker.endpoint.host} takes no JSON schema; use judge.structured=auto or text"
        )
    features = await probe.heard(features)
    return Found(features, probe.spent, tuple(probe.reserved))


class _Probe:
    """Asks one question until the endpoint takes it, giving up features one by one."""

    def __init__(self, asker: Asker, question: Question, models: list[str]) -> None:
        self.asker, self.question, self.models = asker, question, models
        self.spent = Spent()
        self.asked = 0
        self.reserved: list[int] = []
        self.merged = False
        self.form: Form = "text"
        self.reply: Reply

    @property
    def penniless(self) -> bool:
        return self.asked > 0 and self.reply.status == "over_budget"

    async def ask(self, features: Features, form: Form, votes: int = 1) -> Features:
        """Return the features with which the endpoint answered; ``reply`` is its answer."""
        self.form = form
        while True:
            name = f"probe/{self.asked}"
            try:
                # Two at once are enough to see whether `n` is kept.
                self.reply = await self.asker.ask(name, self.question, form, features, min(2, votes), probing=True)
            except UnusableError as error:
                raise UnusableError(f"{error}{self._hint()}") from None
            # A name of its own for each attempt: its cost is recorded by it.
            self.asked += 1
            self.spent = total(self.spent, self.reply.spent)
            self.reserved += self.reply.reserved
            if self.reply.completion is not None or self.penniless:
                return features
            fewer = features.without(self.reply.text)  # some servers call it an error of their own (HTTP 500)
            if fewer is None and features.system and self.reply.text.startswith("HTTP "):
                fewer = replace(features, system=False)  # whatever the words are: this is refused most often
            # A server that is away is not a server that refuses.
            if fewer is None and not self.reply.lasting:
                raise UnusableError(self._failure("did not answer a first, small question"))
            # All optional features at once, where the complaint names none.
            if fewer is None and features != features.bare():
                fewer = replace(features.bare(), system=not self.merged)
                self.merged = True
            if fewer is None:
                raise UnusableError(self._failure("refuses a first, small question"))
            features = fewer

    async def heard(self, features: Features) -> Features:
        """Return the features without a system turn where the endpoint drops it in silence.

        Told by the prompt tokens that it counts, where it counts them: too few for all that was sent, and more once the
        instructions stand in the user's turn. The second question is only asked where the first count is too low.
        """
        sent = self.question.asked(self.form, features.system)
        counted = self._prompt_tokens()
        told = len(sent[0]["content"]) if features.system and sent[0]["role"] == "system" else 0
        whole = sum(len(message["content"]) for message in sent)
        if not told or counted is None or counted * LONG_TOKEN >= whole:
            return features
        held = self.reply
        merged = await self.ask(replace(features, system=False), self.form)
        again = self._prompt_tokens()
        if self.reply.completion is None or again is None or again - counted < told / LONGEST_TOKEN:
            self.reply = held
            return features
        print(
            f"judge: {self.asker.endpoint.host} drops the system turn without a word ({counted} prompt tokens of "
            f"{again}); the instructions are put in front of the user's turn",
            flush=True,
        )
        return merged

    def _prompt_tokens(self) -> int | None:
        completion = self.reply.completion
        return None if completion is None or completion.usage is None else completion.usage[0]

    def kept_to_json(self) -> bool:
        """Return whether the answer is the JSON object asked for; one that was cut short or withheld is no sign of
        that."""
        assert self.reply.completion is not None
        choices = self.reply.completion.choices
        return all(self.question.read(choice, "json") is not None for choice in choices)

    def _failure(self, what: str) -> str:
        endpoint = self.asker.endpoint
        return f"judge: {endpoint.model!r} at {endpoint.base_url} {what} ({self.reply.text}){self._hint()}"

    def _hint(self) -> str:
        """Return what may be wrong, if the endpoint says which models it has."""
        model = self.asker.endpoint.model
        if not self.models or model in self.models:
            return ""
        listed = ", ".join(self.models[:5]) + (", ..." if len(self.models) > 5 else "")
        return f"; judge.model={model!r} is not among the models it lists{did_you_mean(model, self.models)}: {listed}"
