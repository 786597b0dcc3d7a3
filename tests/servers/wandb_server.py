"""A stand-in for W&B's GraphQL endpoint over real HTTP: it answers the queries that saving and reading need in W&B's
shapes, and remembers what it was sent. It holds views that were saved, and the runs that it is given."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
VIEWER = {"id": "VXNlcjox", "entity": "somebody", "username": "somebody", "email": "", "flags": "{}"}


@dataclass
class WandbServer:
    """key: the only one that it lets in. refuses: text of a GraphQL error that a view to be saved gets.
    views: what was saved, by its internal name. operations: every query's first line and variables, in order."""

    key: str = KEY
    refuses: str | None = None
    entity: str | None = "somebody"
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.operations.append((" ".join(query.split()), variables))
        if "upsertView" in query:
            if self.refuses:
                return {"errors": [{"message": self.refuses}], "data": None}
            self.views[variables["name"]] = variables
            return {"data": {"upsertView": {"view": {"id": "Vmlldzox", "name": variables["name"]}, "inserted": True}}}
        if "allViews" in query:
            view = self.views[variables["viewName"]]
            node = {"id": "Vmlldzox", "displayName": view["displayName"], "spec": view["spec"]}
            return {"data": {"project": {"allViews": {"edges": [{"node": node}]}}}}
        if "viewer" in query:
            return {"data": {"viewer": VIEWER | {"entity": self.entity, "teams": {"edges": []}}}}
        return {"errors": [{"message": f"this stand-in has no answer to {query[:200]}"}], "data": None}


@contextmanager
def wandb_server(server: WandbServer) -> Iterator[str]:
    """Serves until the block ends; yields its address, for WANDB_BASE_URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/graphql":  # the client's telemetry
                self.reply(404, {})
            elif self.headers.get("Authorization") != f"Basic {_basic(server.key)}":
                self.reply(401, {"errors": [{"message": "not logged in"}]})
            else:
                asked = json.loads(body)
                self.reply(200, server.answer(asked["query"], asked.get("variables") or {}))

        def reply(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _basic(key: str) -> str:
    import base64

    return base64.b64encode(f"api:{key}".encode()).decode()
