"""A run on two ranks is the run on one: the same samples and pairs, the same numbers up to rounding; whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytorch_lightning
from chat_model import make_chat_model
from safetensors.torch import load_file

from loop.test_run import TINY, made
from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.loop.run import Run
from rlaif_lab.records import Comparison, Verdict
from rlaif_lab.sampling import serve
from rlaif_lab.store.children import RankDiedError
from rlaif_lab.store.outcome import read_failure

SMALL = (*TINY, "export=false", "gate.force=true", "bank.pairs=4", "evaluation.prompts=17", "evaluation.samples=2")
ODD = (*SMALL, "trainer.batch_size=9", "trainer.accumulate=2")  # a batch of 5 is left, which two ranks share unevenly
SIGNS = ("train/reward_accuracy", "train/clip_fraction")  # they count on which side of a bound rounding falls


class PaidJudge(RandomJudge):
    """Notes each process that asks it."""

    def verdicts(self, comparisons: list[Comparison]) -> list[Verdict]:  # type: ignore[override]
        with Path(os.environ["ASKED_BY"]).open("a") as file:
            file.write(f"{os.environ.get('LOCAL_RANK', '-')}\n")
        return super().verdicts(comparisons)


class Killer(pytorch_lightning.Callback):
    """Kills rank 1 in its second round, once."""

    def on_train_batch_start(self, trainer: pytorch_lightning.Trainer, *_: Any) -> None:
        once = Path(os.environ["KILLED_ONCE"])
        if trainer.global_rank == 1 and trainer.current_epoch == 1 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def assert_alike(one: Run, other: Run) -> None:
    """Equal but for rounding, and for how long it took."""
    for row, again in zip(one.store.rows(), other.store.rows(), strict=True):
        assert row.keys() == again.keys()
        for name, value in row.items():
            if not name.startswith("time/") and name not in SIGNS:
                expected = None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)
                assert again[name] == expected, (row["round"], name)
    files = sorted(path.relative_to(one.directory) for path in one.directory.glob("round_*/*.parquet"))
    assert files == sorted(path.relative_to(other.directory) for path in other.directory.glob("round_*/*.parquet"))
    for file in files:
        table, again = (pq.read_table(run.directory / file) for run in (one, other))
        for column in (
            "prompt_id",
            "token_ids",
            "text",
            "sample_chosen",
            "sample_rejected",
            "first",
            "second",
            "status",
        ):
            if column in table.column_names:
                assert table[column].to_pylist() == again[column].to_pylist(), (file, column)
    assert_same_weights(one.directory, other.directory)


def assert_same_weights(one: Path, other: Path) -> None:
    known, again = (load_file(folder / "policy" / "model.safetensors") for folder in (one, other))
    assert known.keys() == again.keys()
    assert max(float((known[name] - again[name]).abs().max()) for name in known) < 1e-5


def ran(folder: Path, *overrides: str) -> Run:
    run = made(folder, *overrides)
    run.run()
    return run


LEARNERS = {
    "rloo": ("judge=self", *ODD),
    "ppo": ("learner=ppo", "learner.reward=reward_model", "judge=random", "learner.whiten=true", *ODD, "rounds=1"),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_two_ranks_train_what_one_trains(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    one = ran(tmp_path / "one", *LEARNERS[name])
    capfd.readouterr()
    two = ran(tmp_path / "two", *LEARNERS[name], "trainer.devices=2", "trainer.strategy=ddp")
    rows = [line for line in capfd.readouterr().out.splitlines() if ", seed 0  " in line]
    assert len(rows) == len(two.store.rows())  # rank 0 alone has a table
    assert_alike(one, two)


def test_an_adapter_is_trained_on_two_ranks_and_the_judge_asked_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_chat_model(tmp_path / "model")
    overrides = (
        *("policy=hf", f"policy.path={model}", "policy.lora.r=4", "learner=dpo", "rounds=1", "prompts_per_round=10"),
        *("evaluation.prompts=5", "evaluation.samples=2", "evaluation.final_samples=0", "sampler.k=2", "bank.pairs=4"),
        *("trainer.batch_size=7", "trainer.learning_rate=1e-3", "gate.force=true", "export=false"),
        f"judge._target_={PaidJudge.__module__}.PaidJudge",
    )
    monkeypatch.setenv("ASKED_BY", str(tmp_path / "asked"))
    one = ran(tmp_path / "one", "judge=random", *overrides)
    (tmp_path / "asked").unlink()
    two = ran(tmp_path / "two", "judge=random", *overrides, "trainer.devices=2")
    assert set((tmp_path / "asked").read_text().split()) == {"0"}
    assert_alike(one, two)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A tiny chat model, and the address of a server that samples from it."""
    model, announced = make_chat_model(tmp_path / "model"), tmp_path / "port"
    command = [sys.executable, serve.__file__, str(model), "--backend", "transformers", "--port", "0"]
    process = subprocess.Popen([*command, "--dtype", "float32", "--announce", str(announced)])
    while not announced.exists() and process.poll() is None:
        time.sleep(0.05)
    yield model, f"http://127.0.0.1:{announced.read_text()}"
    process.terminate()
    process.wait()


def test_sharded_weights_are_trained_as_whole_ones_and_gone_on_with_by_one_rank(
    tmp_path: Path, served: tuple[Path, str]
) -> None:
    """An engine samples; each rank trains a part of the weights; a checkpoint holds the whole."""
    model, address = served
    overrides = (
        *("policy=hf", f"policy.path={model}", "learner=dpo", "judge=random", "prompts_per_round=5", "sampler.k=2"),
        *("evaluation.prompts=3", "evaluation.samples=2", "evaluation.final_samples=0", "bank.pairs=2"),
        *("trainer.batch_size=2", "trainer.learning_rate=1e-3", "gate.force=true", "export=false", "resume=true"),
        *("engine=vllm_server", f"engine.base_url={address}", f"engine.folder={tmp_path / 'weights'}"),
    )
    two = ("trainer.devices=2", "trainer.strategy=fsdp2")
    one = ran(tmp_path / "one", *overrides, "rounds=2")  # the second step of a round has one pair: a rank has none
    ran(tmp_path / "two", *overrides, "rounds=1", *two)
    assert_alike(one, ran(tmp_path / "two", *overrides, "rounds=2"))
    ran(tmp_path / "three", *overrides, "rounds=1")
    assert_alike(one, ran(tmp_path / "three", *overrides, "rounds=2", *two))  # and ranks with that of one


def test_a_killed_rank_ends_the_others_and_the_run_goes_on_with_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "once"))
    killer = f"+callbacks.killer._target_={Killer.__module__}.Killer"
    overrides = ("judge=random", *ODD, killer)
    broken = made(tmp_path / "broken", *overrides, "trainer.devices=2")
    begun = time.monotonic()
    with pytest.raises(RankDiedError, match="rank 1 of 2 was killed by SIGKILL, so the others were ended"):
        broken.run()
    since = (tmp_path / "once").stat().st_mtime
    assert time.time() - since < 15 and time.monotonic() > begun
    failed = read_failure(broken.directory)
    assert failed is not None and "rank 1" in failed.sentence
    assert [row["round"] for row in broken.store.rows()] == [0]
    resumed = ran(tmp_path / "broken", *overrides, "resume=true")  # on one rank
    assert_alike(ran(tmp_path / "straight", *overrides), resumed)
    assert json.loads((tmp_path / "broken" / "finished.json").read_text())["rounds"] == 2


TOGETHER = """
import sys
from pathlib import Path
import torch
from rlaif_lab import ranks
from rlaif_lab.training.devices import add_up_gradients, check_alike, join, over_rows
from rlaif_lab.training.settings import TrainerConfig
from rlaif_lab.models.packing import pack

rank, world, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
join(TrainerConfig(devices=world), rank, world, "file://" + place)
assert ranks.first() == (rank == 0) and ranks.world() == world
for count in (1, 2, 5):
    packed = pack([[i + 1] for i in range(count)], [[[i + 2]] for i in range(count)], 0)
    scale = torch.nn.Parameter(torch.tensor(2.0))
    unused = torch.nn.Parameter(torch.zeros(3))
    read = lambda rows: scale * rows.prompt_ids.float()[:, None]
    values = over_rows(read, packed)
    assert values.squeeze(1, 2).tolist() == [2.0 * (i + 1) for i in range(count)], values
    (values.std(unbiased=False) + values.sum() ** 2).backward()
    add_up_gradients([scale, unused])
    ids = torch.arange(1.0, count + 1)
    right = ids.std(unbiased=False) + 2 * 2 * ids.sum() ** 2
    assert abs(float(scale.grad) - float(right)) < 1e-3, (scale.grad, right)
    assert unused.grad.tolist() == [0, 0, 0]
    shared = ranks.shared_out(list(range(count)), lambda some: [(i, ranks.rank()) for i in some])
    assert [i for i, _ in shared] == list(range(count)) and len({r for _, r in shared}) == min(count, world)
assert ranks.on_first(lambda: (ranks.rank(), ranks.world())) == (0, 1)
check_alike([scale])
try:
    check_alike([torch.nn.Parameter(torch.tensor(float(rank)))])
except RuntimeError as error:
    assert "no longer equal" in str(error)
else:
    raise AssertionError
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # its threads, left to the interpreter's end, sometimes abort it
"""


def test_rows_gradients_and_records_are_shared_out_exactly(tmp_path: Path) -> None:
    """The loss is that of the whole batch, also where it normalises over it (a standard deviation, a square)."""
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
    command = [sys.executable, str(script)]
    started = [
        subprocess.Popen([*command, str(rank), "3", str(tmp_path / "place")], env=environment) for rank in range(3)
    ]
    assert [process.wait(120) for process in started] == [0, 0, 0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.accelerator=gpu",), "trainer.accelerator=gpu: there is no such device here"),
        (("trainer.devices=0",), "trainer.devices must be at least 1; got 0"),
        (("trainer.strategy=fsdp",), "trainer.strategy=fsdp is not among the lab's; use trainer.strategy=fsdp2"),
        (("trainer.strategy=fsdp2",), "trainer.strategy=fsdp2 needs an engine that samples beside the sharded"),
        (("trainer.strategy=fsdp2", "engine=continuous", "learner=ppo"), "fsdp2 cannot train a critic"),
        (("trainer.strategy=dp",), "trainer.strategy must be one of auto, ddp, fsdp2; got 'dp'"),
        (("trainer.num_nodes=2",), "trainer.num_nodes=2: start one process for each device of each node by torchrun"),
    ],
)
def test_devices_that_are_not_there_are_refused_before_weights_load(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    if "gpu" in message:
        import torch

        if torch.cuda.is_available() or torch.backends.mps.is_available():
            pytest.skip("there is one")
    with pytest.raises(ValueError, match=message):
        made(tmp_path, *overrides)


def test_another_number_of_processes_than_the_config_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"4 processes were started for this run, but trainer.devices=2 times"):
        made(tmp_path, "trainer.devices=2")
