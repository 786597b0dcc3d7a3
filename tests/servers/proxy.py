"""A reverse proxy that makes faults: between a real client and a real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["status", "hang", "cut", "cut in body", "garbage", "rewrite", "slow"]


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    status: answered with ``status``, ``headers`` and ``body`` before it gets to the server. hang: never answered.
    cut: the connection closes without a word. cut in body: in the middle of the server's answer. garbage: 200, and
    ``body``. rewrite: the server's answer, with ``text`` as what the model said (and without log-probabilities), and
    ``change`` made to its first choice. slow: the server's answer, a byte at a time, for ``seconds``.
    """

    kind: Kind
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    text: str | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


Plan = Callable[[int, dict[str, Any]], Fault | None]
"""What happens to chat request number i (from 0) with this body; None: it goes through."""


@dataclass
class FaultyProxy:
    """seen: every chat request that arrived, in order. models_fault: what happens to a request for the list of models;
    loading: so many of these are first answered that the server is not ready."""

    upstream: str
    plan: Plan
    seen: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models_fault: Fault | None = None
    loading: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await read_message(reader):
                head, body = request
                fault = self.models_fault if head.startswith(b"GET") else None
                if head.startswith(b"GET") and self.loading > 0:
                    self.loading -= 1
                    fault = Fault("status", 503, body=b"loading")
                if b"/chat/completions" in head.split(b"\r\n")[0]:
                    content = json.loads(body)
                    self.seen.append(content)
                    self.times.append(asyncio.get_running_loop().time())
                    fault = self.plan(len(self.seen) - 1, content)
                if not await self.respond(fault, head, body, writer):
                    break
                await writer.drain()
        writer.close()

    async def respond(self, fault: Fault | None, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if fault is not None and fault.kind == "hang":
            await asyncio.sleep(3600)
        if fault is not None and fault.kind == "cut":
            return False
        if fault is not None and fault.kind in ("status", "garbage"):
            writer.write(message(fault.status, fault.headers, fault.body))
            return True
        status, answer = await self.forward(head, body)
        if fault is not None and fault.kind == "cut in body":
            whole = message(status, {}, answer)
            writer.write(whole[: len(whole) - len(answer) // 2])
            await writer.drain()
            return False
        if fault is not None and fault.kind == "slow":
            whole = message(status, {}, answer)
            for byte in whole:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(fault.seconds / len(whole))
            return True
        if fault is not None and fault.kind == "rewrite":
            content = json.loads(answer)
            for choice in content["choices"]:
                choice.pop("logprobs", None)
                if fault.text is not None:
                    choice["message"]["content"] = fault.text
            content["choices"][0].update(fault.change)
            answer = json.dumps(content).encode()
        writer.write(message(status, {}, answer))
        return True

    async def forward(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(self.upstream)
        assert parts.hostname is not None and parts.port is not None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        writer.write(b"\r\n".join(lines).rstrip(b"\r\n") + b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        reply = await read_message(reader)
        writer.close()
        assert reply is not None
        return int(reply[0].split(b" ")[1]), reply[1]


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """(head, body) of an HTTP message; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return head, body
    if b"content-length" in fields:
        return head, await reader.readexactly(int(fields[b"content-length"]))
    return head, b"" if head.startswith((b"GET", b"POST")) else await reader.read()


def message(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + b"\r\n" + body


@contextmanager
def faulty_proxy(upstream: str, plan: Plan) -> Iterator[tuple[FaultyProxy, str]]:
    """Runs in a thread until the block ends; yields the proxy and its base URL."""
    proxy = FaultyProxy(upstream, plan)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.handle, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, f"http://127.0.0.1:{port}{urlsplit(upstream).path}"
    finally:

        async def stop() -> None:
            server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
