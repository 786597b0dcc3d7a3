"""A whole run under a judge behind a real server: judged, killed, resumed, over budget, and never a word of the key."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from end_to_end.lab import SMALL, environment, lab, rows
from servers.proxy import Fault, faulty_proxy
from servers.rule_server import RuleServer, prob_first_wins, rule_server

from rlaif_lab.instructions.template import neutralised

KEY = "sk-end-to-end-0123456789abcdef"
API = ("judge=api", "judge.model=rule", "rounds=1", "prompts_per_round=32", "evaluation.prompts=16", "gate.force=true")
"""The rule knows no sums, so the gate would refuse to train under it."""


def api(url: str, *more: str) -> tuple[str, ...]:
    known = [o for o in SMALL if o.split("=")[0] not in {a.split("=")[0] for a in (*API, *more)}]
    return (*known, *API, f"judge.base_url={url}", *more)


@pytest.mark.slow
def test_a_run_under_a_served_judge_and_its_key(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server, run = RuleServer(key=KEY), tmp_path / "run"
    with rule_server(server) as url:
        done = lab(cache, *api(url, "logger=wandb", f"hydra.run.dir={run}"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        host = url.split("/")[2]
        assert f"judge:   api: rule at {host}, asked by template 'pairwise', read by log-probabilities" in done.stdout
        assert done.stdout.count("gives log-probabilities") == 1
        assert "HTTP Request" not in done.stdout + done.stderr, "requests are not logged one by one"
        assert max(server.asked.values()) == 1
        judged = pq.read_table(run / "round_000" / "judgements.parquet").to_pylist()
        assert len(judged) > 30
        for row in judged:
            shown = (neutralised(row[slot], 8000) for slot in ("first", "second"))
            assert row["prob_first_wins"] == pytest.approx(prob_first_wins(*shown))
            assert row["tokens"] > 100
        assert (run / "judge" / "verdicts.sqlite").is_file()

        asked = len(server.requests)
        again = lab(cache, *api(url, "logger=wandb", f"hydra.run.dir={run}", "resume=true", "rounds=2"), cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert len(server.requests) > asked
        assert max(server.asked.values()) == 1, "what was paid for once is not asked again"
    for shown in (done.stdout, done.stderr, again.stdout, again.stderr):
        assert KEY not in shown
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert any(file.name == "config.yaml" for file in files)
    holders = [file for file in files if KEY.encode() in file.read_bytes()]
    assert holders == []


@pytest.mark.slow
def test_a_run_killed_while_it_is_judging_pays_nothing_twice(cache: Path, tmp_path: Path) -> None:
    server, run = RuleServer(hold_s=0.1), tmp_path / "run"
    with rule_server(server) as url:
        overrides = api(url, "judge.api_key_env=null", "judge.max_concurrency=8", f"hydra.run.dir={run}")
        command = [sys.executable, "-m", "rlaif_lab", *overrides]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 300
        while len(server.requests) < 60:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.5)
        before = len(server.requests)
        resumed = lab(cache, *overrides, "resume=true", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
    twice = sum(times > 1 for times in server.asked.values())
    assert twice <= 8, "only what was in flight when it died"
    assert len(server.requests) > before
    assert len(rows(run)) == 2


@pytest.mark.slow
def test_a_budget_that_runs_out_leaves_failures_and_no_labels(cache: Path, tmp_path: Path) -> None:
    server, run = RuleServer(), tmp_path / "run"
    with rule_server(server) as url:
        overrides = api(url, "judge.api_key_env=null", "judge.max_calls=100", f"hydra.run.dir={run}")
        done = lab(cache, *overrides, cwd=tmp_path)
        # The budget goes into one order of each comparison, so that no label is left: such a run is not finished.
        assert done.returncode == 2, done.stderr
        assert "no example was left to train on in any round" in done.stderr
    assert len(server.requests) == 100
    assert done.stdout.count("its budget is spent") == 1
    judged = pq.read_table(run / "round_000" / "judgements.parquet").to_pylist()
    unpaid = [row for row in judged if row["status"] == "over_budget"]
    assert unpaid and all(row["prob_first_wins"] is None for row in unpaid)
    paid = {row["prompt_id"] for row in judged if row["prob_first_wins"] is not None}
    pairs = pq.read_table(run / "round_000" / "pairs.parquet").to_pylist()
    assert {pair["prompt_id"] for pair in pairs} <= paid


@pytest.mark.slow
def test_a_judge_that_cannot_work_is_told_before_anything_is_generated(cache: Path, tmp_path: Path) -> None:
    with rule_server(RuleServer(models=("another",))) as url:
        mistakes = {
            (url, "judge.api_key_env=RLAIF_LAB_NO_SUCH_KEY"): "environment variable RLAIF_LAB_NO_SUCH_KEY is not set",
            ("127.0.0.1:1/v1", "judge.api_key_env=null"): "judge.base_url must be a URL like http://",
            ("http://127.0.0.1:9/v1", "judge.api_key_env=null"): "nothing answers at http://127.0.0.1:9/v1",
            (url, "judge.api_key_env=null"): "judge.model='rule' is not among the models it lists: another",
        }
        for i, ((base, more), complaint) in enumerate(mistakes.items()):
            run = tmp_path / str(i)
            refused = lab(cache, *api(base, more, f"hydra.run.dir={run}"), cwd=tmp_path)
            assert refused.returncode == 2, refused.stderr
            last = refused.stderr.strip().splitlines()[-1]
            assert last.startswith("rlaif-lab: ") and complaint in last, last
            assert "Traceback" not in refused.stderr
            assert not list(run.glob("round_*/*.parquet"))


@pytest.mark.slow
def test_a_server_that_dies_leaves_the_stage_open_and_the_resumption_pays_for_the_rest(
    cache: Path, tmp_path: Path
) -> None:
    server, run = RuleServer(), tmp_path / "run"
    with rule_server(server) as upstream:
        gone = True
        with faulty_proxy(upstream, lambda i, _: Fault("cut") if gone and i > 60 else None) as (_, url):
            overrides = api(
                url, "judge.api_key_env=null", "judge.retries=0", "judge.timeout_s=5", f"hydra.run.dir={run}"
            )
            died = lab(cache, *overrides, cwd=tmp_path)
            assert died.returncode != 0
            last = died.stderr.strip().splitlines()[-1]
            assert "is gone" in last and "continue with: rlaif-resume run" in last, last
            assert "Traceback" not in died.stderr
            assert not (run / "round_000" / "judgements.parquet").exists(), "what the server did not say is no verdict"
            assert not (run / "finished.json").exists()
            gone = False
            resumed = lab(cache, *overrides, "resume=true", cwd=tmp_path)
            assert resumed.returncode == 0, resumed.stderr
    assert max(server.asked.values()) == 1, "nothing was paid twice"
    judged = pq.read_table(run / "round_000" / "judgements.parquet").to_pylist()
    assert judged and all(row["prob_first_wins"] is not None for row in judged)
