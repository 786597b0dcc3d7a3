"""A run that a real vLLM samples for, killed and resumed. Give RLAIF_LAB_VLLM_PYTHON; minutes on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_model import make_chat_model
from end_to_end.lab import environment, rows, weights

PYTHON = os.environ.get("RLAIF_LAB_VLLM_PYTHON")
OPTIONS = [f"+engine.options.{one}" for one in ("enforce_eager=true", "max_model_len=512", "max_num_seqs=64")]
ON_A_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


@pytest.mark.vllm
@pytest.mark.skipif(PYTHON is None, reason="RLAIF_LAB_VLLM_PYTHON is not set")
def test_a_run_is_killed_in_its_second_round_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    model = make_chat_model(tmp_path / "model", width=128)  # vLLM's attention on a CPU takes no heads of 16
    overrides = (
        *("policy=hf", f"policy.path={model}", "learner=dpo", "judge=random", "task.digits=2", "rounds=2"),
        *("prompts_per_round=32", "sampler.k=2", "evaluation.prompts=16", "evaluation.samples=2", "bank.pairs=4"),
        *("evaluation.final_samples=0", "trainer.batch_size=16", "gate.force=true", "export=false", "logger=none"),
        *("engine=vllm", f"engine.python={PYTHON}", "engine.dtype=float32", *OPTIONS),
    )
    own = environment(tmp_path / "cache") | ON_A_CPU

    def begun(folder: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rlaif_lab", *overrides, f"hydra.run.dir={folder}", *more]
        return subprocess.Popen(command, env=own, cwd=tmp_path)

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert begun(straight).wait() == 0
    process = begun(broken)
    while not (broken / "round_001" / "generations.parquet").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert begun(broken, "resume=true").wait() == 0
    assert rows(straight) == rows(broken)
    assert weights(straight) == weights(broken)
    for file in straight.glob("round_*/generations.parquet"):
        assert pq.read_table(file).equals(pq.read_table(broken / file.relative_to(straight)))
    assert json.loads((broken / "run.json").read_text())["engine determinism"] == "item"
