"""A paid judge: budgets over kills, servers that go, redirect, load or refuse a system turn."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from servers.asking import comparisons, judge_at
from servers.processes import free_port
from servers.proxy import Fault, faulty_proxy
from servers.rule_server import RuleServer, rule_server

from rlaif_lab.judges.api.client import ServerGoneError, UnusableError
from rlaif_lab.judges.api.reading import completion_of
from rlaif_lab.judges.verdict_store import Spent, VerdictStore
from rlaif_lab.records import Verdict
from rlaif_lab.store.network import on_network

ROOT = Path(__file__).parents[3]


# --- what is reserved -------------------------------------------------------------------------------------------------
def test_what_is_reserved_counts_as_spent_until_its_record_takes_its_place(tmp_path: Path) -> None:
    store, other = (VerdictStore(tmp_path / "v.sqlite") for _ in range(2))
    allow = lambda spent: spent.requests <= 5 and spent.tokens <= 1000  # noqa: E731
    first, second, third = store.reserve("a/", [Spent(1, 400, 0.0)] * 3, allow)
    assert first is not None and second is not None and third is None
    assert store.spent("a/") == other.spent("a/") == Spent(2, 800, 0.0)
    assert other.spent("b/") == Spent()
    assert other.reserve("a/", [Spent(1, 201, 0.0)], allow) == [None], "another process knows of it"
    store.correct(first, Spent(1, 100, 0.0))
    assert other.spent("a/") == Spent(2, 500, 0.0)
    store.put_records({"a/x": Verdict(1.0, tokens=100, details={"requests": 1})}, {}, [first])
    assert store.spent("a/") == other.spent("a/") == Spent(2, 500, 0.0)
    store.close()
    assert VerdictStore(tmp_path / "v.sqlite").spent("a/") == Spent(2, 500, 0.0), "and so for ever, if it was killed"


def test_a_store_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    import sqlite3

    store = VerdictStore(tmp_path / "v.sqlite")
    store.put({"a/x": Verdict(1.0, tokens=7)})
    store.close()
    with sqlite3.connect(tmp_path / "v.sqlite") as database:
        database.executescript("DROP TABLE reservations; DROP TABLE claims;")
    store = VerdictStore(tmp_path / "v.sqlite")
    assert store.spent("a/") == Spent(1, 7, 0.0)
    assert store.reserve("a/", [Spent(1, 1, 0.0)], lambda spent: True) == [1]


def test_over_thirty_kills_no_more_is_asked_than_the_budget_has() -> None:
    """Real processes against a real server, killed while up to 8 questions are under way."""
    script = ROOT / "experiments" / "faults" / "paid_kills.py"
    command = [sys.executable, str(script), "--kills", "30", "--calls", "600"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exceeded by 0" in done.stdout and "30 kills" in done.stdout, done.stdout


# --- a server that goes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["no connection", "500", "hang"])
def test_a_server_that_goes_stops_the_stage_and_only_the_rest_is_paid_afterwards(kind: str, tmp_path: Path) -> None:
    server = RuleServer()
    faults = {"no connection": Fault("cut"), "500": Fault("status", 500), "hang": Fault("hang")}
    with rule_server(server) as upstream:
        gone = True
        with faulty_proxy(upstream, lambda i, _: faults[kind] if gone and i > 12 else None) as (_, url):
            options: dict[str, Any] = {"retries": 0, "timeout_s": 1.0, "max_concurrency": 2, "failures_in_row": 4}
            judge = judge_at(url, tmp_path, **options)
            with pytest.raises(ServerGoneError, match="is gone: it failed to answer 4 questions in a row") as error:
                judge.verdicts(comparisons(40))
            assert "\n" not in str(error.value)
            assert len(judge.store) == 12
            gone = False
            assert all(v.status == "ok" for v in judge_at(url, tmp_path, **options).verdicts(comparisons(40)))
    assert len(server.requests) == 1 + 40 and max(server.asked.values()) == 1, "nothing was paid twice"


def test_the_last_questions_are_no_verdicts_either_when_nobody_is_there_any_more(tmp_path: Path) -> None:
    with rule_server(RuleServer()) as url:
        judge = judge_at(url, tmp_path, retries=0)
        judge.verdicts(comparisons(3))
    with pytest.raises(ServerGoneError, match="nothing answers there"):
        judge.verdicts(comparisons(4))
    assert len(judge.store) == 3


def test_one_question_that_a_server_cannot_answer_does_not_stop_the_others(tmp_path: Path) -> None:
    with rule_server(RuleServer()) as upstream:
        plan = lambda i, body: Fault("status", 500) if "Question 5?" in str(body["messages"]) else None  # noqa: E731
        with faulty_proxy(upstream, plan) as (_, url):
            verdicts = judge_at(url, tmp_path, retries=1, failures_in_row=2, max_concurrency=1).verdicts(comparisons(9))
    assert [v.status for v in verdicts] == ["ok"] * 5 + ["invalid"] + ["ok"] * 3


def test_a_server_that_is_loading_is_waited_for_and_so_is_one_that_starts_again(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(ValueError, match="nothing answers"):
        judge_at(f"http://127.0.0.1:{free_port()}/v1", wait_s=0.3)
    server = RuleServer()
    with rule_server(server) as upstream, faulty_proxy(upstream, lambda i, _: None) as (proxy, url):
        proxy.loading = 3
        judge_at(url, tmp_path, wait_s=30.0)
    assert "waiting for" in capsys.readouterr().out


def test_of_several_servers_each_question_goes_to_one_and_to_another_when_that_is_gone(tmp_path: Path) -> None:
    first, second = RuleServer(), RuleServer()
    with rule_server(first) as a:
        with rule_server(second) as b:
            judge = judge_at([a, b], tmp_path)  # type: ignore[arg-type]
            judge.verdicts(comparisons(30))
            counts = len(first.requests), len(second.requests)
            assert sum(counts) == 31 and min(counts) > 5
            again = judge_at([b, a], tmp_path)  # type: ignore[arg-type]
            again.verdicts(comparisons(30))
            assert len(first.requests) + len(second.requests) == 31, "their order does not matter"
        assert all(v.status == "ok" for v in again.verdicts(comparisons(60))), "one of them is gone"
    for wrong in ([], [a, a]):
        with pytest.raises(ValueError, match=r"judge\.base_url"):
            judge_at(wrong)  # type: ignore[arg-type]


# --- what servers say -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("where", ["models", "questions"])
def test_a_redirect_is_told_and_not_followed(status: int, where: str, tmp_path: Path) -> None:
    elsewhere, server = RuleServer(), RuleServer()
    with rule_server(elsewhere) as target, rule_server(server) as upstream:
        fault = Fault("status", status, {"Location": f"{target}/chat/completions"})
        with faulty_proxy(upstream, lambda i, _: fault if where == "questions" else None) as (proxy, url):
            proxy.models_fault = fault if where == "models" else None
            with pytest.raises(UnusableError, match=rf"redirect \(HTTP {status}\) to .{target}") as error:
                judge_at(url, tmp_path)
    assert "\n" not in str(error.value)
    assert not elsewhere.requests and not elsewhere.headers


@pytest.mark.parametrize(
    "words", ["System role not supported", "roles must alternate user/assistant", "bad request", "Regel 7 verletzt"]
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_refuses_a_system_turn_is_told_all_in_the_users(words: str, status: int, tmp_path: Path) -> None:
    server = RuleServer()
    with rule_server(server) as upstream:
        refusal = Fault("status", status, body=json.dumps({"error": {"message": words}}).encode())

        def plan(_: int, body: dict[str, Any]) -> Fault | None:
            return refusal if any(turn["role"] == "system" for turn in body["messages"]) else None

        with faulty_proxy(upstream, plan) as (_, url):
            judge = judge_at(url, tmp_path, retries=0)
            assert judge.features is not None and not judge.features.system and judge.features.logprobs
            assert {v.status for v in judge.verdicts(comparisons(3))} == {"ok"}
            again = judge_at(url, tmp_path)
            assert again.features == judge.features
    for request in server.requests:
        assert [turn["role"] for turn in request["messages"]] == ["user"]
        assert request["messages"][0]["content"].startswith("You compare two responses")


@pytest.mark.parametrize("tokens", [10**30, 10**18, 1e30, -1, "7", True, [1], None])
def test_no_count_of_tokens_breaks_the_books(tokens: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1}
    message = {"role": "assistant", "content": "A"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    assert completion_of(body).usage is None
    with rule_server(RuleServer()) as upstream:
        fault = Fault("garbage", body=body.encode())
        with faulty_proxy(upstream, lambda i, _: fault if i > 0 else None) as (_, url):
            (verdict,) = judge_at(url, tmp_path, votes=1, max_tokens_total=100_000).verdicts(comparisons(1))
    assert verdict.prob_first_wins == 1.0 and verdict.tokens > 0
    assert verdict.details is not None and verdict.details["usage"] == "an upper bound"


def test_a_deeply_nested_list_of_models_is_no_list(tmp_path: Path) -> None:
    with rule_server(RuleServer()) as upstream, faulty_proxy(upstream, lambda i, _: None) as (proxy, url):
        proxy.models_fault = Fault("garbage", body=b'{"data":' + b"[" * 100_000)
        assert judge_at(url, tmp_path).features is not None


# --- the store on network file systems --------------------------------------------------------------------------------
def test_a_network_file_system_is_told_from_a_local_one_and_gets_a_plain_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path}/far nfs4 rw 0 0\nhost:/y {tmp_path}/far/near ext4 rw 0 0\n"
    )
    (tmp_path / "far" / "near").mkdir(parents=True)
    assert on_network(tmp_path / "far", mounts) and on_network(tmp_path / "far" / "a", mounts)
    assert not on_network(tmp_path / "far" / "near", mounts) and not on_network(tmp_path, mounts)
    assert not on_network(tmp_path, tmp_path / "nowhere")

    def journal(store: VerdictStore) -> str:
        return str(store._database.execute("PRAGMA journal_mode").fetchone()[0])

    local = VerdictStore(tmp_path / "local.sqlite")
    assert journal(local) == "wal"
    local.close()
    monkeypatch.setattr("rlaif_lab.judges.verdict_file.on_network", lambda folder: True)
    store = VerdictStore(tmp_path / "remote.sqlite")
    store.put({"x": Verdict(1.0)})
    assert journal(store) == "delete" and journal(VerdictStore(tmp_path / "local.sqlite")) == "delete"
    threads = [
        threading.Thread(target=VerdictStore(tmp_path / "remote.sqlite").put, args=({f"{i}": Verdict(0.0)},))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 9
