"""One judge server for all jobs: several jobs ask a real ``transformers serve`` the same and different questions, the
server is killed in the middle and started again.

    python experiments/scale/one_judge_server.py --jobs 8 --questions 40

Right: every verdict paid once over all jobs, none missing in any, though the server was gone for a while. The judge is
a tiny instruct model that is trained first (some 20 s of a quiet core). Prints one line of figures, and exits with code
1 where something is not right.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def job(number: int, url: str, folder: Path, questions: int) -> None:
    """What one job asks: three quarters of it is what all others ask, in an order of its own."""
    from servers.tiny_judge import CRITERIA, comparison

    from rlaif_lab.judges.api.judge import ApiJudge
    from rlaif_lab.judges.wrappers.cached import CachedJudge
    from rlaif_lab.models.access import JudgeContext

    template = str(folder / "model" / "template.yaml")
    options = {"api_key_env": None, "template": template, "criteria": CRITERIA, "max_tokens": 4, "votes": 1}
    served = ApiJudge(
        url, str(folder / "model"), reads="votes", structured="text", max_concurrency=4, wait_s=600.0, **options
    )
    judge = CachedJudge(served, str(folder / "shared.sqlite"), save_every=8)

    def none(_: object) -> object:
        raise AssertionError("this judge needs no weights")

    judge.attach(JudgeContext(0, none, none, None, folder / f"job_{number}"))
    common = [(i + number * 5) % (3 * questions // 4) for i in range(3 * questions // 4)]
    own = range(1000 * (number + 1), 1000 * (number + 1) + questions - len(common))
    print("asking", flush=True)
    verdicts = judge.verdicts([comparison(i) for i in (*common, *own)])
    print("statuses", *(v.status for v in verdicts), flush=True)


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder / "model")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=log,
            stderr=log,
            env={**os.environ, **offline},
        )


def answers(folder: Path) -> Counter[str]:
    """How often each question was answered, over the stores of all jobs."""
    import sqlite3

    found: Counter[str] = Counter()
    for store in folder.glob("job_*/verdicts.sqlite"):
        with suppress(sqlite3.OperationalError), sqlite3.connect(store) as database:  # one that is just being made
            found.update(key for (key,) in database.execute("SELECT key FROM answers"))
    return found


def study(jobs: int, questions: int) -> bool:
    from servers.processes import free_port
    from servers.tiny_judge import make_tiny_judge

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny_judge(folder / "model")
        port = free_port()
        begun = time.perf_counter()
        command = [sys.executable, __file__, "--url", f"http://127.0.0.1:{port}/v1", "--folder", name]
        asking = [
            subprocess.Popen(
                [*command, "--job", str(i), "--questions", str(questions)], stdout=subprocess.PIPE, text=True
            )
            for i in range(jobs)
        ]
        server = serve(folder, port)  # after the jobs: they wait for it
        distinct = 3 * questions // 4 + jobs * (questions - 3 * questions // 4)
        while sum(answers(folder).values()) < distinct // 3 and any(one.poll() is None for one in asking):
            time.sleep(0.1)
        server.send_signal(signal.SIGKILL)
        server.wait()
        at_kill = sum(answers(folder).values())
        time.sleep(3.0)
        server = serve(folder, port)
        try:
            outputs = [one.communicate()[0] for one in asking]
        finally:
            server.terminate()
            server.wait()
        seconds = time.perf_counter() - begun
        statuses = Counter(status for output in outputs for status in output.split("statuses")[-1].split())
        paid = answers(folder)
    codes = [one.returncode for one in asking]
    twice = sum(times - 1 for times in paid.values())
    labels = statuses["ok"] + statuses["tie"] + statuses["invalid"] + statuses["refused"]
    print(
        f"{jobs} jobs, {jobs * questions} verdicts wanted, {distinct} different: {sum(paid.values())} paid, {twice} of "
        f"them twice, {labels} answers received ({dict(statuses)}); server killed after {at_kill}; exit codes {codes}; "
        f"{seconds:.0f} s"
    )
    return twice == 0 and len(paid) == distinct and labels == jobs * questions and not any(codes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--job", type=int)
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.job is not None:
        job(given.job, given.url, given.folder, given.questions)
    else:
        sys.exit(0 if study(given.jobs, given.questions) else 1)
