"""The page in a real browser: two people at once, a reload, a lost connection, hostile texts, keys, a phone."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, browser

from people.annotation import served
from rlaif_lab.people.queue import LabelQueue, item_of
from rlaif_lab.records import Comparison, Prompt

HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\x1b[31mred\x1b[0m \u202egnp.exe \u2067right to left\u2069 {{ 7 * 7 }} {% raw %}",
    "long " * 200_000,
    "العربية עברית \U0001f600 \ud800",
)


HEIGHT = "b.getBoundingClientRect().height"


def queue_at(path: Path, count: int, needed: int = 1) -> LabelQueue:
    queue = LabelQueue(path)
    queue.add(
        [
            replace(item_of(Comparison(Prompt(f"p{i}", f"question {i}"), f"one {i}", f"two {i}")), needed=needed)
            for i in range(count)
        ]
    )
    return queue


def until(what: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


PAINTED = (
    "(() => { window.asked ||= requestAnimationFrame(() => requestAnimationFrame(() => setTimeout("
    "() => { window.painted = true; }, 350))); return document.readyState === 'complete' && !!window.painted; })()"
)
"""The browser drops keys and clicks until it has painted a new page for the first time, and the page for 0.3 s more."""


def shown_item(page: Browser) -> str | None:
    """The item on the page, once it can be answered; None where nothing is left."""
    until(lambda: page.evaluate(PAINTED))
    found: str | None = page.evaluate("(document.querySelector('[name=item]') || {}).value")
    return found


def labelled(page: Browser, queue: LabelQueue, name: str, key: str) -> None:
    """Presses a key, and waits until the label is there and the next item is shown."""
    mine = [label for label in queue.labels() if label.annotator == name]
    shown = shown_item(page)
    page.press(key)
    until(lambda: len([label for label in queue.labels() if label.annotator == name]) > len(mine))
    until(lambda: shown_item(page) != shown)


def test_two_people_share_a_queue_through_a_reload_and_a_lost_connection(tmp_path: Path) -> None:
    queue = queue_at(tmp_path / "labels.sqlite", 12)
    with browser() as ada, browser() as ben:
        with served(tmp_path, "--annotators", "ada,ben") as page:
            ada.visit(page.links["ada"])
            ben.visit(page.links["ben"])
            assert ada.evaluate("location.pathname") == "/label", "the token does not stay in the address"
            for key in "12t":
                labelled(ada, queue, "ada", key)
                labelled(ben, queue, "ben", key)
            shown = ada.evaluate("document.querySelector('[name=item]').value")
            ada.visit(f"http://127.0.0.1:{page.port}/label")
            assert ada.evaluate("document.querySelector('[name=item]').value") == shown, "a reload gives the same item"
            before = len(queue.labels())
            assert before == 6
            shown_item(ben)
            page.process.kill()
            page.process.wait()
            ben.press("1")
            until(lambda: "No connection" in ben.evaluate("document.getElementById('status').textContent"))
            assert len(queue.labels()) == before
        with served(tmp_path, "--annotators", "ada,ben", port=page.port) as again:
            assert again.links == page.links, "links outlive a restart"
            until(lambda: len(queue.labels()) == before + 1)
            for _ in range(4):  # the fifth is the one that ben looks at
                labelled(ada, queue, "ada", "2")
            until(lambda: shown_item(ben))
            labelled(ben, queue, "ben", "1")
            assert queue.progress().missing == 0
            external = [a for a in ada.requests + ben.requests if not a.startswith("http://127.0.0.1:")]
            assert external == []
            assert not [e for e in ada.errors if "Failed to load" not in e], ada.errors
    by = Counter(label.annotator for label in queue.labels())
    assert by == {"ada": 7, "ben": 5}
    assert len({label.item for label in queue.labels()}) == 12, "nobody did another's work"
    assert all(label.seconds > 0.0 for label in queue.labels())


def test_the_order_is_drawn_per_person_and_recorded(tmp_path: Path) -> None:
    queue = queue_at(tmp_path / "labels.sqlite", 8, needed=2)
    with browser() as page, served(tmp_path, "--annotators", "ada,ben") as desk:
        for name in ("ada", "ben"):
            page.visit(desk.links[name])
            for _ in range(8):
                labelled(page, queue, name, "1")  # always the left one
    labels = queue.labels()
    assert {label.swapped for label in labels} == {True, False}
    assert all((label.choice == "second") == label.swapped for label in labels), "left is what was shown left"
    orders = {name: [label.swapped for label in labels if label.annotator == name] for name in ("ada", "ben")}
    assert orders["ada"] != orders["ben"]


def test_hostile_texts_are_shown_and_not_obeyed_also_on_a_phone(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "labels.sqlite")
    queue.add([item_of(Comparison(Prompt(f"p{i}", text), text, f"other {i}")) for i, text in enumerate(HOSTILE[:3])])
    surrogate = HOSTILE[3].encode("utf-8", "replace").decode()
    queue.add([item_of(Comparison(Prompt("p3", surrogate), surrogate, "other"))])
    with browser() as page, served(tmp_path) as desk:
        page.resize(390, 800, phone=True)
        page.visit(desk.links["me"])
        for _ in range(4):
            assert page.evaluate("document.title") != "owned"
            assert page.evaluate("document.querySelectorAll('.pair script, .pair img').length") == 0
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            text = page.evaluate("document.querySelector('main').textContent")
            assert "\x1b" not in text
            assert "\u202e" not in text
            buttons = "[...document.querySelectorAll('button:not([hidden])')]"
            assert page.evaluate(f"{buttons}.every(b => b.getBoundingClientRect().height >= 40)")
            labelled(page, queue, "me", "t")
        assert "Nothing left to label" in page.evaluate("document.body.textContent")
        assert not page.errors
        page.visit(desk.links["owner's page"])
        assert "Krippendorff" in page.evaluate("document.body.textContent")


def test_undo_skip_flag_pause_and_reasons(tmp_path: Path) -> None:
    queue = queue_at(tmp_path / "labels.sqlite", 3)
    with browser() as page, served(tmp_path) as desk:
        page.visit(desk.links["me"])
        first = shown_item(page)
        page.type("#reason", "because")
        page.click("button[value=left]")
        until(lambda: len(queue.labels()) == 1)
        assert queue.labels()[0].reason == "because"
        until(lambda: shown_item(page) != first)
        page.press("u")
        until(lambda: queue.labels() == [])
        until(lambda: shown_item(page) == first)
        page.click("#pause")
        until(lambda: page.evaluate("document.querySelector('#item').hidden"))
        page.press("1")
        time.sleep(0.3)
        assert queue.labels() == [], "keys are off while it pauses"
        page.click("#pause")
        labelled(page, queue, "me", "s")
        labelled(page, queue, "me", "f")
    assert [label.choice for label in queue.labels()] == ["skip", "flag"]


def test_every_control_has_a_name_and_every_text_a_language_free_direction(tmp_path: Path) -> None:
    queue_at(tmp_path / "labels.sqlite", 1)
    with browser() as page, served(tmp_path) as desk:
        page.visit(desk.links["me"])
        unnamed = (
            "[...document.querySelectorAll('button, input:not([type=hidden])')].filter(e => "
            "!(e.textContent.trim() || (e.labels && e.labels.length))).length"
        )
        assert page.evaluate(unnamed) == 0
        assert page.evaluate("[...document.querySelectorAll('pre')].every(e => e.dir === 'auto' && e.tabIndex === 0)")
        assert page.evaluate("!!document.querySelector('[role=status][aria-live]')")
        assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_either_scheme(tmp_path: Path, scheme: str) -> None:
    queue_at(tmp_path / "labels.sqlite", 1)
    with browser() as page, served(tmp_path) as desk:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.visit(desk.links["me"])
        colours = page.evaluate(
            "(() => { const c = getComputedStyle(document.body); return [c.color, c.backgroundColor]"
            ".map(t => t.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)); })()"
        )
        assert abs(colours[0] - colours[1]) > 400


def test_slips_of_mouse_and_keyboard_label_nothing_by_mistake(tmp_path: Path) -> None:
    queue = queue_at(tmp_path / "labels.sqlite", 4)
    with browser() as page, served(tmp_path) as desk:
        page.visit(desk.links["me"])
        first = shown_item(page)
        page.type("#reason", "so that")
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")
        time.sleep(0.5)
        assert queue.labels() == [], "Enter in the reason is no choice"
        assert page.evaluate("document.activeElement.id") == "reason"
        page.click("button[value=left]")
        page.click("button[value=left]")  # of a double click, wherever it lands
        until(lambda: shown_item(page) != first)
        assert len(queue.labels()) == 1
        page.evaluate("history.back()")
        time.sleep(0.5)
        assert page.evaluate("(document.querySelector('[name=item]') || {}).value") != first, (
            "back is not what was done"
        )
        page.visit(f"http://127.0.0.1:{desk.port}/label")
        labelled(page, queue, "me", "2")
        assert len({label.item for label in queue.labels()}) == 2
        # By keyboard alone: Tab goes through texts and controls, and the focus is seen.
        reached = []
        for _ in range(12):
            for kind in ("keyDown", "keyUp"):
                page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            told = "[e.tagName, e.value || e.id || '', getComputedStyle(e).outlineStyle]"
            reached.append(page.evaluate(f"(e => {told})(document.activeElement)"))
        names = [name for _, name, _ in reached]
        assert {"pause", "reason", "left", "right", "tie", "skip", "flag"} <= set(names), names
        assert all(outline == "solid" for tag, _, outline in reached if tag != "BODY"), reached


def test_two_tabs_of_one_person_and_a_form_of_another_site(tmp_path: Path) -> None:
    queue = queue_at(tmp_path / "labels.sqlite", 3)
    other_site = tmp_path / "site"
    other_site.mkdir()
    with browser() as page, served(tmp_path) as desk:
        page.visit(desk.links["me"])
        first = shown_item(page)
        # A second tab: the same item, labelled there while the first one still shows it.
        form = "new URLSearchParams(new FormData(document.getElementById('choices')))"
        post = "await fetch('/label', {method: 'POST', body: f})"
        page.evaluate(f"(async () => {{ const f = {form}; f.set('choice', 'left'); {post}; }})()")
        until(lambda: len(queue.labels()) == 1)
        page.press("t")
        until(lambda: "undo it first" in page.evaluate("document.getElementById('status').textContent"))
        assert [label.item for label in queue.labels()] == [first], "the first word counts, and nothing is lost"
        page.click("#status a")
        until(lambda: shown_item(page) not in (None, first))
        shown = shown_item(page)
        (other_site / "index.html").write_text(
            f"<form method=post action=http://127.0.0.1:{desk.port}/label><input name=item value={shown}>"
            "<input name=choice value=left><input name=csrf value=guess></form>"
            "<script>document.forms[0].submit()</script>"
        )
        with other_server(other_site) as address:
            page.visit(address)
            until(lambda: "Open your own link" in page.evaluate("document.body.textContent"))
        assert len(queue.labels()) == 1, "another site cannot label in somebody's name"
        page.visit(f"http://127.0.0.1:{desk.port}/enter/0123456789abcdef0123456789abcdef")
        assert "not valid" in page.evaluate("document.body.textContent"), "a wrong token is told"
        page.visit(f"http://127.0.0.1:{desk.port}/label")
        assert shown_item(page) == shown, "and does not end what was open"
    assert first is not None


@contextmanager
def other_server(folder: Path) -> Iterator[str]:
    """Serve another site, on a port of its own."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
