"""What a finished run hands on: data sets that TRL trains on, a policy that loads anywhere, a card with its curve."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from end_to_end.lab import SMALL, environment, lab, rows

from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS, PAIRS


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds, each sampled anew after half of its steps."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    overrides = (*SMALL, "rounds=2", "sync_every=3", "judge=self", "learner=dpo", "export=true")
    done = lab(cache, *overrides, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_pair_and_every_preference_of_the_run_is_exported(run: Path, tmp_path: Path) -> None:
    store = RoundStore(run)
    segments = [(index, segment) for index in (0, 1) for segment in (0, 1)]
    stored = {name: [store.read_stage(i, stage, s) for i, s in segments] for name, stage in STAGES.items()}
    data = {
        name: load_dataset(str(run / "export"), name, split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("preferences", "reward_data", "generations")
    }
    assert len(data["generations"]) == sum(len(g.responses) for part in stored["generations"] for g in part)
    assert len(data["reward_data"]) == sum(j.status == "ok" for part in stored["judgements"] for j in part)
    texts = {
        (g.prompt.id, i): r.text for part in stored["generations"] for g in part for i, r in enumerate(g.responses)
    }
    expected = [
        (p.prompt.text, texts[p.prompt.id, p.sample_chosen], texts[p.prompt.id, p.sample_rejected], p.prob_chosen_wins)
        for part in stored["pairs"]
        for p in part
    ]
    found = [(r["prompt"], r["chosen"], r["rejected"], r["prob_chosen_wins"]) for r in data["preferences"]]
    assert found == expected and len(found) > 100
    assert {(r["arm"], r["judge"], r["seed"], r["run"]) for r in data["preferences"]} == {("self", "self", 0, "run")}


STAGES: dict[str, Any] = {"generations": GENERATIONS, "judgements": JUDGEMENTS, "pairs": PAIRS}


@pytest.mark.slow
def test_the_cards_curve_is_that_of_the_run(run: Path) -> None:
    card = (run / "policy" / "README.md").read_text()
    lines = re.findall(
        r"^\| (\d+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \| ([\d.]+|n/a) \| ([\d.]+|n/a) \|$", card, re.MULTILINE
    )
    for line, row in zip(lines, rows(run), strict=True):
        keys = ("quality/sampled", "quality/greedy", "judge/win_rate_vs_round_0", "judge/accuracy")
        assert line == (str(row["round"]), *("n/a" if row.get(k) is None else f"{row[k]:.3f}" for k in keys))
    assert (run / "policy" / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_cards_code_loads_the_policy_in_a_fresh_process(run: Path, cache: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (run / "policy" / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=run, env=environment(cache), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exporting_again_changes_nothing(run: Path, cache: Path) -> None:
    folders = (run / "export", run / "policy")
    before = {file: file.read_bytes() for folder in folders for file in folder.iterdir()}
    command = [sys.executable, "-c", "from rlaif_lab.cli.export import main; main()", str(run)]
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {file: file.read_bytes() for folder in folders for file in folder.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preferences", "reward_data"])
def test_trl_goes_on_with_the_runs_policy(run: Path, name: str, tmp_path: Path) -> None:
    """One optimiser step of DPO or of a reward model, from the run's folder and nothing else."""
    pytest.importorskip("trl", reason="TRL IS NOT INSTALLED: that it trains on exports WAS NOT TESTED")
    script = TRAIN.format(name=name, policy=str(run / "policy"), export=str(run / "export"), out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"steps": 1, "changed": True, "finite": True}


TRAIN = """
import json, math
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

data = load_dataset("{export}", "{name}", split="train", cache_dir="{out}/cache")
tokenizer = AutoTokenizer.from_pretrained("{policy}")
settings = dict(output_dir="{out}", max_steps=1, learning_rate=1e-3, use_cpu=True, bf16=False, report_to="none",
                save_strategy="no", gradient_checkpointing=False, disable_tqdm=True)
if "{name}" == "preferences":
    model = AutoModelForCausalLM.from_pretrained("{policy}")
    trainer = DPOTrainer(model, args=DPOConfig(**settings), train_dataset=data, processing_class=tokenizer)
else:
    model = AutoModelForSequenceClassification.from_pretrained("{policy}", num_labels=1)
    trainer = RewardTrainer(model, args=RewardConfig(**settings), train_dataset=data, processing_class=tokenizer)
before = [p.detach().clone() for p in model.parameters()]
done = trainer.train()
changed = any(bool((a != b).any()) for a, b in zip(before, model.parameters()))
print(json.dumps(dict(steps=done.global_step, changed=changed, finite=math.isfinite(done.training_loss))))
"""
