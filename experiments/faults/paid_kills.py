"""Kill -9 amid paid questions: does a budget hold, and what is asked twice?

    python experiments/faults/paid_kills.py --kills 100 --calls 600

One run's judge is asked by a real process against a real local server, killed at drawn instants and started again on
the same folder, until the budget is spent. Prints what the server saw and what the books say; exits with code 1 where
more was asked than the budget has.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def ask(url: str, folder: Path, calls: int) -> None:
    """In a child: ask until killed, or until the budget is spent."""
    from servers.asking import comparisons, judge_at

    judge = judge_at(url, folder, max_concurrency=8, timeout_s=60, max_calls=calls, retries=1)
    judge.verdicts(comparisons(10 * calls))


def study(kills: int, calls: int, seed: int) -> bool:
    import openai  # noqa: F401  (before the forks, so that each child need not)
    from servers.rule_server import RuleServer, rule_server

    from rlaif_lab.judges.api.judge import ApiJudge  # noqa: F401
    from rlaif_lab.judges.verdict_store import VerdictStore
    from rlaif_lab.seeding import rng_for

    counted = mmap.mmap(-1, 8)  # what the server has seen, for all processes
    reading, writing = os.pipe()
    if (server_process := os.fork()) == 0:  # a process of its own: forks of one with threads would be unsafe
        server = RuleServer(hold_s=0.02)
        with rule_server(server) as url:
            os.write(writing, f"{url}\n".encode())
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            try:
                while True:
                    counted[:8] = len(server.requests).to_bytes(8, "big")
                    time.sleep(0.005)
            finally:
                twice = sum(n - 1 for n in server.asked.values())
                os.write(writing, f"{len(server.requests)} {twice}\n".encode())
    with os.fdopen(reading) as told:
        url, rng, done = told.readline().strip(), rng_for("paid kills", seed), 0
        with tempfile.TemporaryDirectory() as name:
            while done < kills:
                if (child := os.fork()) == 0:
                    ask(url, Path(name), calls)
                    os._exit(0)
                target = int.from_bytes(counted[:8], "big") + int(rng.integers(1, max(2, calls // (2 * kills))))
                deadline = time.monotonic() + 20
                while int.from_bytes(counted[:8], "big") < target and time.monotonic() < deadline:
                    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                        break  # its budget is spent
                    time.sleep(0.002)
                os.kill(child, signal.SIGKILL)
                if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                    break
                done += 1
            if (child := os.fork()) == 0:
                ask(url, Path(name), calls)
                os._exit(0)
            os.waitpid(child, 0)
            store = VerdictStore(Path(name) / "verdicts.sqlite")
            spent, held = store.spent(), len(store)
        os.kill(server_process, signal.SIGTERM)
        seen, twice = map(int, told.readline().split())
        os.waitpid(server_process, 0)
    print(
        f"budget {calls} calls, {done} kills: the server saw {seen} requests, {twice} of them again; on the books "
        f"{spent.requests}, verdicts kept {held}; exceeded by {max(0, seen - calls)}"
    )
    return seen <= calls and spent.requests <= calls


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(0 if study(given.kills, given.calls, given.seed) else 1)
