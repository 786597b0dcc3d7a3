"""What the server refuses, and what it tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rlaif_lab.people.app import HIDDEN, Desk, application, choice_of, printable, seconds_of
from rlaif_lab.people.queue import LabelQueue, Limits, check_of, item_of
from rlaif_lab.records import Comparison, Prompt


def desk(tmp_path: Path, count: int = 3) -> Desk:
    queue = LabelQueue(tmp_path / "labels.sqlite")
    queue.add([item_of(Comparison(Prompt(f"p{i}", f"q{i}"), f"a{i}", f"b{i}")) for i in range(count)])
    return Desk([queue], b"secret", ["ada", "ben"])


def client(found: Desk, name: str | None = "ada") -> TestClient:
    made = TestClient(application(found), follow_redirects=False)
    if name is not None:
        made.get(f"/enter/{found.token(name)}")
    return made


def form(found: Desk, item: str, name: str = "ada", **changes: str) -> dict[str, str]:
    return {"csrf": found.csrf(name), "item": item, "choice": "left", "seconds": "2.5", **changes}


def test_nobody_gets_in_without_a_link_and_tokens_are_of_one_person(tmp_path: Path) -> None:
    found = desk(tmp_path)
    stranger = client(found, None)
    assert stranger.get("/label").status_code == 403
    assert stranger.get("/owner").status_code == 403
    assert stranger.get("/enter/00000000").status_code == 403
    assert client(found, "ada").get("/owner").status_code == 403
    assert client(found, "").get("/owner").status_code == 200
    assert len({found.token(name) for name in ("ada", "ben", "")}) == 3


def test_a_form_of_another_site_or_person_is_refused(tmp_path: Path) -> None:
    found = desk(tmp_path)
    (queue,), page = found.queues, client(found)
    item = queue.items()[0].id
    assert page.post("/label", data=form(found, item, csrf="")).status_code == 403
    assert page.post("/label", data=form(found, item, "ben")).status_code == 403
    assert page.post("/undo", data={}).status_code == 403
    assert queue.labels() == []
    assert page.post("/label", data=form(found, item)).status_code == 303
    assert len(queue.labels()) == 1
    answer = TestClient(application(found), follow_redirects=False).get(f"/enter/{found.token('ada')}")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_every_answer_carries_the_policy_and_is_kept_by_nobody(tmp_path: Path) -> None:
    page = client(desk(tmp_path))
    for address in ("/", "/label", "/static/page.css", "/nowhere"):
        headers = page.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"choice": "best"}, 400),
        ({"choice": ""}, 400),
        ({"item": "nowhere"}, 404),
        ({"seconds": "nan"}, 303),
        ({"seconds": "-1"}, 303),
        ({"seconds": "x"}, 303),
        ({"seconds": "1e99"}, 303),
    ],
)
def test_forms_that_are_not_the_pages(tmp_path: Path, changes: dict[str, str], status: int) -> None:
    found = desk(tmp_path)
    (queue,) = found.queues
    data = {**form(found, queue.items()[0].id), **changes}
    assert client(found).post("/label", data=data).status_code == status
    assert all(0.0 <= label.seconds <= 86400.0 for label in queue.labels())


def test_the_same_form_twice_is_one_label_and_another_choice_is_a_conflict(tmp_path: Path) -> None:
    found = desk(tmp_path)
    (queue,), page = found.queues, client(found)
    item = queue.items()[0].id
    assert [page.post("/label", data=form(found, item)).status_code for _ in range(2)] == [303, 303]
    assert page.post("/label", data=form(found, item, choice="tie")).status_code == 409
    assert len(queue.labels()) == 1


def test_the_owner_sees_cost_agreement_and_disagreements(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "labels.sqlite")
    item = replace(item_of(Comparison(Prompt("p", "what?"), "a", "b")), needed=2, ai=0.9)
    queue.add([item])
    queue.limit(Limits(labels=7, seconds=600.0, usd_per_hour=3600.0))
    found = Desk([queue], b"s", ["ada", "ben"])
    for name, choice in (("ada", "tie"), ("ben", "left")):
        client(found, name).post("/label", data=form(found, item.id, name, choice=choice, seconds="2"))
    text = client(found, "").get("/owner").text
    assert "$4.00" in text
    assert "on 1 items with two or more labels" in text
    assert "7 labels, 10 minutes" in text
    assert "what?" in text


def test_nothing_invisible_is_left_in_a_text() -> None:
    assert printable("a\x1b[31m\u202eb\n\tc") == "a⟨U+001B⟩[31m⟨U+202E⟩b\n\tc"
    assert printable("\ud800") == "?"
    assert not HIDDEN.search(printable("".join(map(chr, range(0x20)))).replace("\n", "").replace("\t", ""))


def test_choices_are_in_the_items_own_order() -> None:
    assert choice_of("left", turned=False) == choice_of("right", turned=True) == "first"
    assert choice_of("right", turned=False) == choice_of("left", turned=True) == "second"
    assert choice_of("tie", turned=True) == "tie"
    assert choice_of("first", turned=False) is None
    assert seconds_of("inf") == seconds_of("nan") == seconds_of("-3") == 0.0


def test_when_the_time_is_spent_the_page_gives_nothing_out(tmp_path: Path) -> None:
    found = desk(tmp_path)
    (queue,), page = found.queues, client(found)
    queue.limit(Limits(usd=2.0, usd_per_hour=3600.0))
    assert "Left is better" in page.get("/label").text
    page.post("/label", data=form(found, queue.items()[0].id, seconds="2"))
    assert "is spent" in page.get("/label").text


def test_principles_are_shown_and_checks_look_like_any_other_item(tmp_path: Path) -> None:
    found = desk(tmp_path, 1)
    (queue,), page = found.queues, client(found)
    queue.limit(Limits(guidelines="honest: which <b>?"))
    asked = page.get("/label").text
    assert "honest: which &lt;b&gt;?" in asked
    page.post("/label", data=form(found, queue.items()[0].id))
    check = check_of(Comparison(Prompt("p0", "q0"), "a0", "b0"), 0.0)
    queue.add([check])
    every = Desk([queue], b"secret", ["ada"], check_every=1)
    shown = client(every).get("/label").text
    assert check.id in shown

    def looks(text: str, item: str) -> str:  # left and right are drawn for each item
        return text.replace(item, "").replace("b0", "a0").replace("0 labelled, 1", "1 labelled, 0")

    assert looks(shown, check.id) == looks(asked, queue.items()[0].id)


def test_a_huge_disagreement_does_not_make_a_huge_owners_page(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "labels.sqlite")
    item = replace(item_of(Comparison(Prompt("p", "q" * 1_000_000), "a" * 1_000_000, "b")), needed=2)
    queue.add([item])
    found = Desk([queue], b"s", ["ada", "ben"])
    for name, choice in (("ada", "tie"), ("ben", "flag")):
        client(found, name).post("/label", data=form(found, item.id, name, choice=choice))
    text = client(found, "").get("/owner").text
    assert len(text) < 20_000
    assert "1,000,000 characters in all" in text


def test_what_runs_of_a_sweep_ask_in_common_is_labelled_once_and_undone_in_each(tmp_path: Path) -> None:
    """Both queues have the first two items; each has one of its own."""
    queues = [LabelQueue(tmp_path / name / "labels.sqlite") for name in "ab"]
    for number, queue in enumerate(queues):
        pairs = [Comparison(Prompt(f"p{i}", "q"), f"a{i}", f"b{i}") for i in (0, 1, 2 + number)]
        queue.add([item_of(pair) for pair in pairs])
    found = Desk(queues, b"secret", ["ada", "ben"])
    page = client(found)
    shown = []
    while (due := found.next("ada")) is not None:
        shown.append(due[1].id)
        assert page.post("/label", data=form(found, due[1].id)).status_code == 303
    assert len(shown) == len(set(shown)) == 4
    assert [queue.progress().missing for queue in queues] == [0, 0]
    assert sum(queue.progress().seconds for queue in queues) == 4 * 2.5, "paid once"
    assert found.next("ben") is None
    found.undo("ada")
    assert sum(queue.progress().missing for queue in queues) == 1, "the last one was of the second queue alone"


def test_a_second_tab_is_told_and_can_go_on(tmp_path: Path) -> None:
    found = desk(tmp_path)
    page, item = client(found), found.queues[0].items()[0].id
    assert page.post("/label", data=form(found, item)).status_code == 303
    other = page.post("/label", data=form(found, item, choice="right"), headers={"accept": "text/html"})
    assert other.status_code == 409
    assert "undo it first" in other.text and 'href="/label"' in other.text
    assert len(found.queues[0].labels()) == 1


def test_a_huge_form_is_not_read(tmp_path: Path) -> None:
    found = desk(tmp_path)
    item = found.queues[0].items()[0].id
    assert client(found).post("/label", data=form(found, item, reason="x" * 200_000)).status_code == 403
    assert client(found).post("/label", data=form(found, item, csrf="\u00e9")).status_code == 403
    assert found.queues[0].labels() == []


def test_what_has_no_width_is_shown() -> None:
    assert printable("a\u200bb\u2060\ufeff\u00ad") == "a⟨U+200B⟩b⟨U+2060⟩⟨U+FEFF⟩⟨U+00AD⟩"
    family = "\U0001f468\u200d\U0001f469"
    assert printable(family) == family
