"""Asking an OpenAI-compatible endpoint: one request with its retries, and which of its features an endpoint has."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.api.ledger import Ledger
from rlaif_lab.judges.api.limits import Budget, Limits, Pace, backoff, retry_after
from rlaif_lab.judges.api.reading import Completion, Form, GarbageError, Question, completion_of, printable
from rlaif_lab.judges.verdict_store import Spent
from rlaif_lab.records import Status
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.files import TryLaterError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

T = TypeVar("T")

RETRIED = (408, 409, 425, 429)
"""HTTP statuses worth another attempt, besides all from 500 on."""
ABOUT_THIS_REQUEST = (400, 413, 415, 422)
"""HTTP statuses that say something of one request; any other refusal would meet every request, and ends the run."""
TOP_LOGPROBS = 20
ABSENCE_S = 2.0
"""Between two looks for a server that is awaited, at most."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask whom, and how answers are sampled. The key itself is nowhere but in the environment."""

    base_urls: tuple[str, ...]
    model: str
    api_key_env: str | None
    temperature: float
    max_tokens: int

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise ValueError("judge.base_url must name at least one server; got an empty list")
        if len(set(self.base_urls)) < len(self.base_urls):
            raise ValueError(f"judge.base_url must name each server once; got {', '.join(self.base_urls)}")
        for url in self.base_urls:
            _check_url(url)
        if not self.model:
            raise ValueError("judge.model must name the model to ask")
        if self.api_key_env is not None:
            if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):  # it may be a key: not to be repeated
                raise ValueError(
                    "judge.api_key_env must be the NAME of the environment variable that holds the key, in capitals "
                    "like OPENAI_API_KEY, or null; got something else (if that was a key, take it out of the command)"
                )
            key = os.environ.get(self.api_key_env, "")
            if not key:
                raise ValueError(
                    f"judge.api_key_env: the environment variable {self.api_key_env} is not set; put the key there, "
                    "or set judge.api_key_env=null for a server without keys"
                )
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise ValueError(
                    f"judge.api_key_env: the environment variable {self.api_key_env} holds white space or other "
                    "characters that no key has"
                )

    @property
    def base_url(self) -> str:
        """Return all servers in one text, for people and for the identity of answers, whatever their order."""
        # Sorted, so that the same servers in another order give the same answers' keys.
        return ", ".join(sorted(self.base_urls))

    @property
    def host(self) -> str:
        return ", ".join(urlsplit(url).netloc for url in self.base_urls)

    def key(self) -> str:
        return "" if self.api_key_env is None else os.environ.get(self.api_key_env, "")

    def redacted(self, text: str) -> str:
        """Return a server's words as they may be kept: some repeat the key they were given."""
        key = self.key()
        # Servers that refuse a key may repeat it.
        return text.replace(key, "[the key]") if key else text


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # `port` raises ValueError for anything that is not a port.
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:
        host = None
    if not host:
        # It may be a key or a password.
        shown = url if "@" not in url else "one with an @"
        raise ValueError(f"judge.base_url must be a URL like http://127.0.0.1:8000/v1; got {shown!r}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            f"judge.base_url must be scheme, host and path alone: it is written into configs and logs, and keys "
            f"belong in the environment (judge.api_key_env); got more than that for host {host!r}"
        )


class UnusableError(ValueError):
    """The endpoint will answer no request of this judge. What was paid for is kept."""


class ServerGoneError(UnusableError, TryLaterError):
    """The server answers no more; the run can go on when it is back."""


class RejectedError(Exception):
    """The server will not take this request, whenever it is sent."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class FailedError(Exception):
    """This attempt brought no answer, but another one may. maybe_paid: the server may have done the work."""

    def __init__(
        self, status: Status, text: str, maybe_paid: bool, wait: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(text)
        self.status, self.text, self.maybe_paid, self.wait = status, text, maybe_paid, wait
        self.unreachable = unreachable


@dataclass(frozen=True)
class Reply:
    """What became of one question after all attempts.

    completion: None: there is none, and ``status`` and ``text`` say why. lasting: the same question would meet the
    same; else it may be asked again. spent: all attempts. usage: whether the server gave it, or it is a bound.
    reserved: what the ledger has for it, until its record is kept.
    """

    completion: Completion | None
    status: Status
    text: str
    lasting: bool
    latency_s: float = 0.0
    spent: Spent = field(default_factory=Spent)
    usage_given: bool = True
    reserved: tuple[int, ...] = ()


class Asker:
    """Asks an endpoint within limits. Lives within one event loop; ``pace`` outlives it.

    clients: one per server. Each question goes to one of them, decided by what is asked, and to the next where that
    one does not answer. ledger: where a request is written down before it is sent.
    """

    def __init__(
        self,
        clients: Sequence[AsyncOpenAI],
        endpoint: Endpoint,
        limits: Limits,
        pace: Pace,
        budget: Budget,
        seed: int,
        ledger: Ledger | None = None,
    ) -> None:
        self.clients, self.endpoint, self.limits = list(clients), endpoint, limits
        self.pace, self.budget, self.seed = pace, budget, seed
        self.ledger = ledger
        self.failed_in_a_row = 0
        self.absent_since: float | None = None

    async def ask(
        self,
        key: str,
        question: Question,
        form: Form,
        features: Features,
        choices: int = 1,
        probing: bool = False,
    ) -> Reply:
        """Ask one question, with its retries. ``key`` is its identity, which decides seeds and jitter. probing: a
        complaint about one of the features is not worth another attempt with it.

        Raises UnusableError when the endpoint is none for this judge.
        """
        body = self._body(key, question, form, features, choices)
        # Bytes: no tokenizer makes more tokens than bytes, so that this bounds the prompt's tokens from above.
        letters = sum(len(message["content"].encode()) for message in body["messages"])
        written = self.endpoint.max_tokens * body.get("n", 1)
        # By what is asked, without the vote's number: a server that caches prompts then gets all votes on a question.
        home = seed_for("api server", key.rpartition("/")[0]) % len(self.clients)
        most = self.limits.cost(letters + 64 * (1 + len(body["messages"])), written)  # no token is less than a byte
        # About four letters a token; only for the pace, which is corrected afterwards.
        expected = letters / 4 + written
        latency, spent = 0.0, Spent()
        reserved: list[int] = []
        reply = Reply(None, "over_budget", "", lasting=False)
        attempt = turned = 0
        while attempt <= self.limits.retries:
            # First the budget of this process, then that of all (the ledger): the cheaper check comes first.
            if not await self.budget.reserve(most):
                return reply
            # Until something else is known, the request may have cost its most: an interruption books that.
            cost, ticket = most, None
            try:
                if self.ledger is not None:
                    ticket = await self.ledger.reserve(most)
                    if ticket is None:
                        cost = Spent()
                        return reply
                    reserved.append(ticket)
                jitter = self._draw(key, "turn", attempt)
                await self.pace.turn(expected, jitter)
                # Time in the queue is not the server's.
                start = time.perf_counter()
                try:
                    completion = await self._post(self.clients[(home + turned) % len(self.clients)], body)
                    cost = most if completion.usage is None else self.limits.cost(*completion.usage)
                    outcome: Completion | RejectedError | FailedError = completion
                except RejectedError as error:
                    # One request, without tokens: servers do not charge for what they refuse.
                    cost, outcome = Spent(1), error
                except UnusableError:
                    cost = Spent(1)
                    raise
                except FailedError as error:
                    # A time-out may have been paid: the server may have written all of it.
                    cost, outcome = most if error.maybe_paid else Spent(1), error
                latency += time.perf_counter() - start
            finally:
                # In every case, interruptions included: a reservation must not stay at its bound.
                if self.ledger is not None and ticket is not None and cost != most:
                    await self.ledger.correct(ticket, cost)
                await self.budget.settle(most, cost)
                self.pace.correct(expected, cost.tokens)
            spent = Spent(spent.requests + 1, spent.tokens + cost.tokens, spent.usd + cost.usd)
            tickets = tuple(reserved)
            if not isinstance(outcome, FailedError):
                # Any answer, a refusal too, shows that the server is there.
                self.failed_in_a_row, self.absent_since = 0, None
            if isinstance(outcome, Completion):
                return Reply(
                    outcome,
                    "ok",
                    "",
                    lasting=True,
                    latency_s=latency,
                    spent=spent,
                    usage_given=outcome.usage is not None,
                    reserved=tickets,
                )
            if isinstance(outcome, RejectedError):
                return Reply(
                    None, outcome.status, outcome.text, lasting=True, latency_s=latency, spent=spent, reserved=tickets
                )
            reply = Reply(
                None,
                outcome.status,
                outcome.text,
                lasting=False,
                latency_s=latency,
                spent=spent,
                usage_given=False,
                reserved=tickets,
            )
            # The probe asks again without that feature; the same request would meet the same.
            if probing and features.without(outcome.text) is not None:
                return reply
            turned += 1
            if outcome.unreachable and turned % len(self.clients):
                continue  # another server may be there: that is no further attempt
            # Nor is waiting for a server that is away: it costs no attempt.
            if outcome.unreachable and await self._is_awaited(self._draw(key, "absent", turned)):
                continue
            if attempt < self.limits.retries:
                await self._wait(outcome, attempt, self._draw(key, "backoff", attempt))
            attempt += 1
        self.failed_in_a_row += 1
        # A server that fails many questions in a row is gone: going on would spend the rest of the round on failures.
        if not probing and self.failed_in_a_row >= self.limits.failures_in_row:
            raise self.gone(f"it failed to answer {self.failed_in_a_row} questions in a row", reply.text)
        return reply

    def gone(self, what: str, last: str) -> ServerGoneError:
        """Return the error that ends a run whose server does not answer."""
        return ServerGoneError(
            f"judge: {self.endpoint.base_url} is gone: {what} (last: {last}); every verdict so far is kept and paid "
            "once, and the run goes on from there with resume=true when the server is back"
        )

    async def _is_awaited(self, jitter: float) -> bool:
        """Return whether to try a server again that cannot be reached, after a wait: for ``wait_s`` from its first
        absence."""
        now = time.monotonic()
        if self.absent_since is None:
            self.absent_since = now
        if now - self.absent_since >= self.limits.wait_s:
            return False
        await asyncio.sleep(min(0.2 + jitter * ABSENCE_S, self.limits.wait_s))
        return True

    def _body(self, key: str, question: Question, form: Form, features: Features, choices: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": question.asked(form, features.system),
            "temperature": self.endpoint.temperature,
            features.token_limit: self.endpoint.max_tokens,
        }
        if features.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if form == "json" and features.json:
            body["response_format"] = question.schema()
        if features.many and choices > 1:
            body["n"] = choices
        if features.seed:
            # 31 bits: some servers take no more.
            body["seed"] = seed_for("api sample", self.seed, key) % 2**31
        return body

    def _draw(self, key: str, purpose: str, attempt: int) -> float:
        return seed_for("api", purpose, self.seed, key, attempt) / 2**63

    async def _wait(self, failure: FailedError, attempt: int, jitter: float) -> None:
        if failure.wait is None:
            await asyncio.sleep(backoff(attempt, jitter, self.limits.max_wait_s))
            return
        if failure.wait > self.limits.max_wait_s:
            raise UnusableError(
                f"judge: {self.endpoint.host} asks to wait {failure.wait:.0f} s ({failure.text}), and judge.max_wait_s "
                f"is {self.limits.max_wait_s:.0f}; every verdict so far is kept, and the run goes on from there with "
                "resume=true"
            )
        self.pace.pause(failure.wait)  # the limit is everybody's: none of the others need run into it

    async def _post(self, client: AsyncOpenAI, body: dict[str, Any]) -> Completion:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        slow = f"no answer within {self.limits.timeout_s:g} s"
        try:
            # The library's own limit is for parts of a request; this one is for all of it.
            async with asyncio.timeout(self.limits.timeout_s):
                response = await client.chat.completions.with_raw_response.create(
                    **body, extra_headers=authorization(self.endpoint)
                )
                text = response.text
        except (APITimeoutError, TimeoutError):
            raise FailedError("timed_out", slow, maybe_paid=True) from None
        except APIConnectionError as error:
            cause = error.__cause__
            # Not connected means not paid; a connection that broke may have carried the whole answer.
            reached = not type(cause).__name__.startswith("Connect")
            text = f"connection failed: {self._told(cause)}"
            raise FailedError("invalid", text, maybe_paid=reached, unreachable=not reached) from None
        except APIStatusError as error:
            raise self._failure(error) from None
        except UnicodeDecodeError as error:
            raise FailedError("invalid", f"not UTF-8: {error.reason}", maybe_paid=True) from None
        try:
            return completion_of(text)
        except GarbageError as error:
            raise FailedError("invalid", f"{error}: {self._told(text)}", maybe_paid=True) from None

    def _failure(self, error: APIStatusError) -> Exception:
        """Return what an HTTP status means."""
        status, headers = error.response.status_code, error.response.headers
        if 300 <= status < 400:
            return redirected(self.endpoint, error)
        text = self._told(f"HTTP {status}: {error.response.text}")
        told = text.lower()
        if status in RETRIED or status >= 500:
            # 429 means "later" by itself, but not this one.
            if "insufficient_quota" in told:
                return UnusableError(f"judge: {self.endpoint.host} will answer no more: {text}")
            return FailedError("invalid", text, maybe_paid=False, wait=retry_after(headers, time.time()))
        if status in ABOUT_THIS_REQUEST:
            filtered = re.search("content_filter|content_policy|content policy|responsibleai", told)
            return RejectedError("refused" if filtered else "invalid", text)
        whose = f" (key from {self.endpoint.api_key_env})" if status in (401, 403) and self.endpoint.api_key_env else ""
        return UnusableError(f"judge: {self.endpoint.base_url} refuses to answer{whose}: {text}")

    def _told(self, cause: object) -> str:
        """Return an error in a server's or library's words, on one line."""
        words = str(cause) or type(cause).__name__
        return printable(self.endpoint.redacted(" ".join(words.split())))[:500]


def redirected(endpoint: Endpoint, error: APIStatusError) -> UnusableError:
    """Return the error for a server that sends its questions elsewhere: nobody has said that they may go there."""
    target = endpoint.redacted(error.response.headers.get("location", "an address that it does not name"))[:200]
    return UnusableError(
        f"judge.base_url: {error.request.url.host} answers with a redirect (HTTP {error.response.status_code}) to "
        f"{printable(target)!r}, which is not followed, since prompts and key would go there; give that address as "
        "judge.base_url if it is meant"
    )


@asynccontextmanager
async def open_clients(endpoint: Endpoint, limits: Limits) -> AsyncIterator[list[AsyncOpenAI]]:
    """Yield one client per server; they are closed afterwards."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_client(url, endpoint, limits)) for url in endpoint.base_urls]


def open_client(url: str, endpoint: Endpoint, limits: Limits) -> AsyncOpenAI:
    """Open a client without the library's own retries, which would not be counted, with a connection per request in
    flight, and without following redirects."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    for name in ("httpx2", "httpcore2"):  # they log every request
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
    connections = httpx2.Limits(
        max_connections=limits.max_concurrency, max_keepalive_connections=limits.max_concurrency
    )
    return AsyncOpenAI(
        base_url=url,
        api_key=endpoint.key() or "none",  # the library insists on one, and would take OPENAI_API_KEY by itself
        max_retries=0,
        timeout=limits.timeout_s,
        http_client=DefaultAsyncHttpxClient(limits=connections, timeout=limits.timeout_s, follow_redirects=False),
    )


def authorization(endpoint: Endpoint) -> dict[str, Any]:
    """Return what takes the library's made-up key off a request to a server without keys."""
    from openai import Omit

    return {} if endpoint.key() else {"Authorization": Omit()}


# --- asyncio from code that has none, or has one of its own -----------------------------------------------------------
def run_apart(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own, so that it does not matter whether the caller is within a running loop
    (Jupyter). Interrupted, it cancels the coroutine, lets it clean up, and goes on with the interruption."""
    outcome: Future[T] = Future()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def body() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await main()

    def work() -> None:
        try:
            outcome.set_result(asyncio.run(body()))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="api judge", daemon=True)
    thread.start()
    try:
        return outcome.result()
    # KeyboardInterrupt reaches the main thread only: the coroutine is told, so that it stores what it has.
    except BaseException:
        if not outcome.done() and running:
            loop, task = running[0]
            loop.call_soon_threadsafe(task.cancel)
        raise
    # Even when interrupted: until then, requests of unknown cost may be in flight.
    finally:
        thread.join()
