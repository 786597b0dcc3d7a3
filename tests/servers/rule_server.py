"""An OpenAI-compatible server over real HTTP whose model is a rule: it likes responses by their text, and says so with
a probability. What a server may lack can be switched off, loudly (HTTP 400) or, as some do, in silence."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from rlaif_lab.seeding import seed_for

Message = MutableMapping[str, Any]
RESPONSES = re.compile(r"\[BEGIN RESPONSE (\w+) (\w+)\]\n(.*?)\n\[END RESPONSE \1 \2\]", re.DOTALL)


def liking(response: str) -> float:
    """Between -2 and 2, for ever the same for a text."""
    return seed_for("liking", response) / 2**63 * 4 - 2


def prob_first_wins(first: str, second: str) -> float:
    """What the rule server says of two responses."""
    return 1.0 / (1.0 + math.exp(liking(second) - liking(first)))


@dataclass
class RuleServer:
    """hold_s: how long each answer takes; the first ones also wait until ``crowd`` requests are there, a minute at
    most. deaf: drops system turns in silence. lacks: fields of a request that it ignores in silence. refuses: fields it
    answers with HTTP 400. key: what it wants as a bearer token. models: what it lists (None: it has no such page).

    Counts what it was asked: ``asked`` by question (the last message), ``requests`` in order, ``most_at_once``.
    """

    hold_s: float = 0.0
    crowd: int = 1
    lacks: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    key: str | None = None
    models: tuple[str, ...] | None = ("rule",)
    deaf: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return  # the client died while it was speaking
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.headers.append(headers)
        status, answer = await self.answer(scope["path"], headers, body)
        content = json.dumps(answer).encode()
        start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        await send(start)
        await send({"type": "http.response.body", "body": content})

    async def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return 401, error(f"Incorrect API key provided: {headers.get('authorization')}")  # as bad servers do
        if path == "/v1/models" and self.models is not None:
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        if path != "/v1/chat/completions":
            return 404, error("no such page")
        request = json.loads(body)
        if self.models is not None and request["model"] not in self.models:
            return 404, error(f"The model {request['model']!r} does not exist")
        for name in sorted(self.refuses & request.keys()):
            return 400, error(f"Unsupported parameter: '{name}' is not supported with this model.")
        self.requests.append(request)
        self.asked[request["messages"][-1]["content"]] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.hold_s)
            for _ in range(600):
                if self.most_at_once >= self.crowd:
                    break
                await asyncio.sleep(0.1)
        finally:
            self.at_once -= 1
        return 200, self.completion({key: value for key, value in request.items() if key not in self.lacks})

    def completion(self, request: dict[str, Any]) -> dict[str, Any]:
        text = request["messages"][-1]["content"]
        responses = [found[2] for found in RESPONSES.findall(text)]
        schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
        choices = []
        for i in range(request.get("n", 1)):
            if len(responses) == 2:
                first = prob_first_wins(*responses)
                draw = (
                    seed_for("choice", request.get("seed", len(self.requests)), text, i)
                    / 2**63
                    * (0.9 if schema else 1.0)
                )
                said, field_name = "A" if draw < first * 0.9 else "B" if draw < 0.9 else "The", "verdict"
                top = {"A": 0.6 * first, " A": 0.3 * first, "B": 0.6 * (1 - first), " B": 0.3 * (1 - first), "The": 0.1}
            else:
                grade = 1 + seed_for("grade", text, request.get("seed", len(self.requests)), i) % 3
                said, field_name, top = str(grade), "score", {str(grade): 1.0}
            tokens = ['{"', field_name, '": "', said.strip(" ."), '"}'] if field_name in schema else [said]
            choice: dict[str, Any] = {
                "index": i,
                "message": {"role": "assistant", "content": "".join(tokens)},
                "finish_reason": "stop",
            }
            if request.get("logprobs"):
                ranked = [{"token": token, "logprob": math.log(p)} for token, p in top.items() if p > 0]
                choice["logprobs"] = {
                    "content": [
                        {"token": token, "logprob": math.log(top.get(token, 1.0)), "top_logprobs": ranked}
                        if token.strip(" .") == said.strip(" .")
                        else {"token": token, "logprob": 0.0, "top_logprobs": [{"token": token, "logprob": 0.0}]}
                        for token in tokens
                    ]
                }
            choices.append(choice)
        heard = [m for m in request["messages"] if not (self.deaf and m["role"] == "system")]
        prompt_tokens = sum(len(m["content"]) for m in heard) // 4
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": choices,
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(choices), "total_tokens": 0},
        }


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


@contextmanager
def rule_server(server: RuleServer, port: int = 0) -> Iterator[str]:
    """Serves in a thread until the block ends, on any free port by default; yields the base URL."""
    uvicorn_server = uvicorn.Server(
        uvicorn.Config(server, host="127.0.0.1", port=port, log_level="warning", lifespan="off", backlog=1024)
    )
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    thread.start()
    while not uvicorn_server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        uvicorn_server.should_exit = uvicorn_server.force_exit = True
        thread.join()
