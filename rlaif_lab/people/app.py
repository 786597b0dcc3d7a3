"""The page on which people label: one small web application over one or more queues.

Every annotator has a link of their own. Its token is exchanged for a cookie at once, so that it stays out of addresses,
logs and screenshots. The page works without scripts; with them it has keys, a timer, and holds on to a label while the
connection is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from rlaif_lab.people.agreement import agreement, disagreements, noise
from rlaif_lab.people.queue import LABELS, Choice, Item, Label, LabelQueue, Limits
from rlaif_lab.seeding import seed_for

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).parent
COOKIE = "rlaif_annotate"
# Nothing from elsewhere and no inline code: HTML in a response cannot act, even if it were not escaped.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
KEYS: tuple[tuple[str, str, str], ...] = (
    ("left", "1", "Left is better"),
    ("right", "2", "Right is better"),
    ("tie", "t", "Equally good"),
    ("skip", "s", "Skip"),
    ("flag", "f", "Flag"),
)
SHOWN = 50
"""Disagreements, and flags, on the owner's page."""
EXCERPT = 2000
"""Characters of each text there."""
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Control characters, terminal escapes among them, marks that change the direction of what follows, and characters of
no width. The two joiners (U+200C, U+200D) stay: scripts and emoji need them."""
LARGEST_FORM = 100_000
"""Bytes; a reason has at most 2,000 characters."""


def printable(text: str) -> str:
    """Return a text in which invisible characters are shown by their code, so that none can act or mislead."""
    # Half of a surrogate pair cannot be sent.
    return HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text).encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class Desk:
    """What the page is over.

    Attributes:
        queues: Served in this order: the next one when nothing is left in the one before.
        secret: Decides the tokens; kept beside the queues.
        annotators: Their names.
        check_every: An attention check comes once in so many labels; 0 for none.
        usd_per_hour: What people are paid, for the owner's page; None: what each queue says.
    """

    queues: Sequence[LabelQueue]
    secret: bytes
    annotators: Sequence[str]
    check_every: int = 10
    usd_per_hour: float | None = None

    def token(self, name: str) -> str:
        """Return the token of an annotator's link; the owner's name is the empty text."""
        return hmac.new(self.secret, b"token:" + name.encode(), hashlib.sha256).hexdigest()[:32]

    def who(self, token: str | None) -> str | None:
        """Return the name that a token belongs to; None for none. The owner's is the empty text."""
        names = [*self.annotators, ""]
        # Takes as long for every wrong token, so that none can be guessed bit by bit.
        return next(
            (name for name in names if hmac.compare_digest(self.token(name).encode(), (token or "").encode())), None
        )

    def csrf(self, name: str) -> str:
        """Return what a form of this person must hold, which no other site can know."""
        # Another text under the secret than the token's: a page that shows this one does not give the link away.
        return hmac.new(self.secret, b"form:" + name.encode(), hashlib.sha256).hexdigest()[:32]

    def next(self, annotator: str) -> tuple[LabelQueue, Item] | None:
        """Return the next item for this person, and its queue. What has been labelled in another queue, as where the
        runs of a sweep ask the same, is taken over and not asked again."""
        for queue in self.queues:
            while (item := queue.next_item(annotator, self.check_every)) is not None:
                if item.gold is not None or not self._taken_over(queue, item):
                    return queue, item
        return None

    def _taken_over(self, queue: LabelQueue, item: Item) -> bool:
        """Give a queue the labels that the others have of an item; return whether there were any that it lacked. Their
        time is paid for where they were given."""
        held = {label.annotator for label in queue.labels_of(item.id)}
        others = [other for other in self.queues if other is not queue]
        found = {label.annotator: label for other in others for label in other.labels_of(item.id)}
        new = [label for name, label in found.items() if name not in held and label.choice != "skip"]
        for label in new[: item.needed - item.done]:
            queue.label(replace(label, seconds=0.0))
        return bool(new)

    def queue_of(self, item_id: str, annotator: str | None = None) -> LabelQueue | None:
        """Return the queue that an item is in; of several the one in which this person has not labelled it."""
        held = [queue for queue in self.queues if queue.item(item_id) is not None]
        mine = [queue for queue in held if annotator not in {label.annotator for label in queue.labels_of(item_id)}]
        return next(iter([*mine, *held]), None)

    def undo(self, annotator: str) -> None:
        """Take this person's last label back, in every queue that has it."""
        newest = max(self.queues, key=lambda queue: queue.last_at(annotator))
        taken = newest.undo(annotator)
        if taken is not None:
            for queue in self.queues:
                if queue is not newest and queue.last_item(annotator) == taken:
                    queue.undo(annotator)


def swapped(annotator: str, item: Item) -> bool:
    """Return whether this person sees the second response on the left: drawn anew for every person and item."""
    return seed_for("annotation order", annotator, item.id) % 2 == 1


def application(desk: Desk) -> Starlette:
    """Return the web application."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    page = Page(desk)
    return Starlette(
        routes=[
            Route("/", page.home),
            Route("/enter/{token}", page.enter),
            Route("/label", page.show, methods=["GET"]),
            Route("/label", page.take, methods=["POST"]),
            Route("/undo", page.undo, methods=["POST"]),
            Route("/owner", page.owner),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Headers)],
    )


class Headers:
    """Sets the security headers of every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Page:
    """The handlers. Each asks who is there first."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
        )
        self.templates.filters["printable"] = printable

    async def home(self, request: Request) -> Response:
        return self.answer("closed.html", 200, message="This page is opened by a link of your own.")

    async def enter(self, request: Request) -> Response:
        """Exchange a link's token for a cookie."""
        from starlette.responses import RedirectResponse

        token = request.path_params["token"]
        name = self.desk.who(token)
        if name is None:
            return self.answer("closed.html", 403, message="This link is not valid (any more). Ask for a new one.")
        answer = RedirectResponse("/owner" if name == "" else "/label", status_code=303)
        # strict: the cookie does not go with a request that another site starts.
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=14 * 24 * 3600)
        return answer

    async def show(self, request: Request) -> Response:
        """Show the next item."""
        name = self._annotator(request)
        if name is None:
            return self.answer("closed.html", 403, message="Open your own link first.")
        found = self.desk.next(name)
        done = sum(queue.done_by(name) for queue in self.desk.queues)
        missing = sum(queue.progress().missing for queue in self.desk.queues)
        common = {"name": name, "done": done, "missing": missing, "csrf": self.desk.csrf(name)}
        if found is None:
            spent = any(queue.spent_out() for queue in self.desk.queues)
            return self.answer("done.html", 200, spent=spent, **common)
        queue, item = found
        turned = swapped(name, item)
        left, right = (item.second, item.first) if turned else (item.first, item.second)
        turns = item.prompt.turns or (("user", item.prompt.text),)
        return self.answer(
            "label.html",
            200,
            item=item,
            left=left,
            right=right,
            turns=turns,
            keys=KEYS,
            guidelines=queue.limits().guidelines,
            **common,
        )

    async def take(self, request: Request) -> Response:
        """Keep a label. It is on disk before the answer goes out."""
        from starlette.responses import RedirectResponse

        name, form = await self._form(request)
        if name is None or form is None:
            return self._told(request, "Open your own link again.", 403)
        item_id = str(form.get("item", ""))
        queue = self.desk.queue_of(item_id, name)
        item = queue.item(item_id) if queue is not None else None
        if queue is None or item is None:
            return self._told(request, "This item is not in the queue.", 404)
        # Drawn once more, to the same result, instead of taken from the form, which anybody can change.
        turned = swapped(name, item)
        choice = choice_of(str(form.get("choice", "")), turned)
        if choice is None:
            return self._told(request, "There is no such choice.", 400)
        label = Label(
            item=item_id,
            annotator=name,
            choice=choice,
            swapped=turned,
            seconds=seconds_of(str(form.get("seconds", "0"))),
            reason=str(form.get("reason", "")).strip()[:2000] or None,
        )
        try:
            queue.label(label)
        except ValueError as error:
            return self._told(request, f"{error}.", 409)
        return RedirectResponse("/label", status_code=303)

    async def undo(self, request: Request) -> Response:
        """Take the last label back."""
        from starlette.responses import RedirectResponse

        name, form = await self._form(request)
        if name is None or form is None:
            return self._told(request, "Open your own link again.", 403)
        self.desk.undo(name)
        return RedirectResponse("/label", status_code=303)

    async def _form(self, request: Request) -> tuple[str | None, FormData | None]:
        """Return who sent a form, and the form; None for somebody unknown, a form that is not of the page, or a huge
        one, which is not read."""
        name = self._annotator(request)
        length = request.headers.get("content-length", "")
        if name is None or not length.isdecimal() or int(length) > LARGEST_FORM:
            return name, None
        form = await request.form(max_fields=10)
        known = hmac.compare_digest(str(form.get("csrf", "")).encode(), self.desk.csrf(name).encode())
        return name, form if known else None

    def _told(self, request: Request, message: str, status: int) -> Response:
        """Return what went wrong: a page with the way on for a browser's form, a line for the page's script."""
        from starlette.responses import PlainTextResponse

        if "text/html" in request.headers.get("accept", ""):
            return self.answer("closed.html", status, message=message, go_on=True)
        return PlainTextResponse(message, status_code=status)

    async def owner(self, request: Request) -> Response:
        """Show the owner how far it is, who agrees with whom, and what it costs."""
        if self.desk.who(request.cookies.get(COOKIE)) != "":
            return self.answer("closed.html", 403, message="This page is the owner's.")
        queues = self.desk.queues
        progress, limits = [queue.progress() for queue in queues], [queue.limits() for queue in queues]
        said = [one for queue in queues for one in queue.said()]
        found, shared = agreement(said), noise(said)
        apart = disagreements(said)
        flags = sorted((flag for queue in queues for flag in queue.flags(SHOWN)), key=lambda flag: -flag.at)[:SHOWN]
        paid = [limit.usd_per_hour if self.desk.usd_per_hour is None else self.desk.usd_per_hour for limit in limits]
        return self.answer(
            "owner.html",
            200,
            labels=sum(p.labels for p in progress),
            missing=sum(p.missing for p in progress),
            minutes=sum(p.seconds for p in progress) / 60.0,
            usd=sum(p.seconds / 3600.0 * rate for p, rate in zip(progress, paid, strict=True)),
            budgets=budgets(limits),
            alpha=_number(found.alpha),
            alpha_with_ai=_number(found.alpha_with_ai),
            twice=found.items,
            noise=_number(shared),
            people=_people(queues),
            apart=len(apart),
            disagreements=[(self._excerpt(i), self._said_of(i)) for i in apart[:SHOWN]],
            flagged=[(self._excerpt(flag.item), flag) for flag in flags],
            flags=sum(p.flagged for p in progress),
        )

    def _excerpt(self, item_id: str) -> dict[str, str]:
        """Return an item's texts, none longer than the page can show many of."""
        queue = self.desk.queue_of(item_id)
        item = queue.item(item_id) if queue is not None else None
        assert item is not None
        return {"prompt": cut(item.prompt.text), "first": cut(item.first), "second": cut(item.second)}

    def _said_of(self, item_id: str) -> list[Label]:
        labels = [label for queue in self.desk.queues for label in queue.labels_of(item_id)]
        return [label for label in labels if label.choice in LABELS]

    def _annotator(self, request: Request) -> str | None:
        # The owner, whose name is the empty text, is not an annotator.
        return self.desk.who(request.cookies.get(COOKIE)) or None

    def answer(self, template: str, status: int, **values: Any) -> Response:
        """Return a page; every value is escaped."""
        from starlette.responses import HTMLResponse

        content = self.templates.get_template(template).render({"go_on": False, **values})
        return HTMLResponse(content, status_code=status)


def choice_of(pressed: str, turned: bool) -> Choice | None:
    """Return the choice in the item's own order; None for something that is no choice."""
    named: dict[str, Choice] = {"tie": "tie", "skip": "skip", "flag": "flag"}
    named |= {"left": "second", "right": "first"} if turned else {"left": "first", "right": "second"}
    return named.get(pressed)


def seconds_of(text: str) -> float:
    """Return the seconds that a form says, within a day; 0 for anything else."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(value, 86400.0) if math.isfinite(value) and value >= 0.0 else 0.0


def budgets(limits: Sequence[Limits]) -> list[str]:
    """Return the budgets that there are, in words: of all queues together, where every queue has one."""
    found = []
    for what, each in (
        ("labels", [limit.labels for limit in limits]),
        ("minutes", [None if limit.seconds is None else limit.seconds / 60.0 for limit in limits]),
        ("dollars", [limit.usd for limit in limits]),
    ):
        known = [value for value in each if value is not None]
        if known and len(known) == len(each):
            found.append(f"{sum(known):g} {what}")
    return found


def cut(text: str) -> str:
    """Return a text of at most EXCERPT characters, and how long it is where it is longer."""
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]} [... {len(text):,} characters in all]"


def _people(queues: Sequence[LabelQueue]) -> list[dict[str, Any]]:
    """Return one row for each annotator."""
    counts, passed = [queue.counts() for queue in queues], [queue.checks() for queue in queues]
    rows = []
    for name in sorted({name for count in counts for name in count}):
        mine = [count.get(name, {}) for count in counts]
        # With several queues the median of their medians is shown.
        seconds = [queue.median_seconds(name) for queue, own in zip(queues, mine, strict=True) if own]
        right, of = (sum(check.get(name, (0, 0))[side] for check in passed) for side in (0, 1))
        rows.append(
            {
                "name": name,
                "labels": sum(own.get(choice, 0) for own in mine for choice in LABELS),
                "skips": sum(own.get("skip", 0) for own in mine),
                "median": f"{statistics.median(seconds):.0f} s",
                "checks": f"{right} of {of}" if of else "none yet",
            }
        )
    return rows


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
