"""A stand-in for W&B's GraphQL endpoint over real HTTP: it answers the queries that saving and reading need in W&B's
shapes, and remembers what it was sent. It keeps views that are saved, and has the runs that it is given."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlaif_lab.tracking.wandb_files import WandbRun

KEY = "0123456789" * 4
VIEWER = {"id": "VXNlcjox", "entity": "somebody", "username": "somebody", "email": "", "flags": "{}"}


@dataclass
class WandbServer:
    """key: the only one that it lets in. refuses: text of a GraphQL error that a view to be saved gets. entity: of the
    key's owner. runs: of any project, with their histories. views: what was saved, by its internal name.
    """

    key: str = KEY
    refuses: str | None = None
    entity: str | None = "somebody"
    runs: Sequence[WandbRun] = ()
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            if self.refuses:
                return {"errors": [{"message": self.refuses}], "data": None}
            self.views[variables["name"]] = variables
            return {"data": {"upsertView": {"view": {"id": "Vmlldzox", "name": variables["name"]}, "inserted": True}}}
        if "allViews" in query:
            view = self.views[variables["viewName"]]
            node = {"id": "Vmlldzox", "displayName": view["displayName"], "spec": view["spec"]}
            return {"data": {"project": {"allViews": {"edges": [{"node": node}]}}}}
        if "RunHistoryKeys" in query:
            keys = {"lastStep": len(self._run(variables["name"]).history) - 1, "sets": [], "keys": {}}
            return {"data": {"project": {"run": {"historyKeys": keys}}}}
        if "RunParquetHistory" in query:
            return {"data": {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}}
        if "HistoryPage" in query:
            history = self._run(variables["run"]).history[variables["minStep"] : variables["maxStep"]]
            lines = [json.dumps({"_step": variables["minStep"] + i, **item}) for i, item in enumerate(history)]
            return {"data": {"project": {"run": {"history": lines}}}}
        if "query Runs" in query:
            group = json.loads(variables["filters"]).get("group")
            edges = [{"node": _node(run), "cursor": run.id} for run in self.runs if group in (None, run.group)]
            page = {"endCursor": None, "hasNextPage": False}
            found = {
                "internalId": "1",
                "runCount": len(edges),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": page},
            }
            return {"data": {"project": found}}
        if "viewer" in query:
            return {"data": {"viewer": VIEWER | {"entity": self.entity, "teams": {"edges": []}}}}
        return {"errors": [{"message": f"this stand-in has no answer to {query[:200]}"}], "data": None}

    def _run(self, name: str) -> WandbRun:
        return next(run for run in self.runs if run.id == name)


def _node(run: WandbRun) -> dict[str, Any]:
    """A run as W&B describes it: config and summary are JSON within JSON."""
    return {
        "id": f"Run:{run.id}",
        "name": run.id,
        "displayName": run.name,
        "sweepName": None,
        "state": "finished",
        "group": run.group,
        "jobType": run.job_type,
        "commit": None,
        "readOnly": True,
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "description": "",
        "notes": "",
        "tags": [],
        "user": {"name": "somebody", "username": "somebody"},
        "projectId": "1",
        "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
        "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": "{}",
        "historyLineCount": len(run.history),
        "historyKeys": {"lastStep": len(run.history) - 1, "sets": [], "keys": {}},
    }


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
