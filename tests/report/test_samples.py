"""Which samples a page holds, and that they stay within bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import judgement, response

from report.synthetic import SHAPES, TASK, sums, write_round, write_run, write_study
from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.report.arms import Arm, study
from rlaif_lab.report.load import load
from rlaif_lab.report.samples import Bounds, Samples, disagrees, of_each_kind, samples, spread, to_json
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS
from rlaif_lab.tasks.arithmetic import Addition


def read(folder: Path, bounds: Bounds | None = None) -> Samples:
    found = samples(study(load(folder), "study").arms, bounds)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_study(folder, {name: SHAPES[name] for name in ("self", "oracle")}, range(3), 6, prompts=60)
    return folder


def test_an_item_by_hand(tmp_path: Path) -> None:
    """Samples 0 and 2 say the same and are right, 1 is wrong; the judge prefers the wrong one in one order."""
    run = tmp_path / "run"
    write_run(run, "self", 0, [{"round": 0, "quality/sampled": 0.5}])
    prompt = Prompt("addition2/12+34=", "12+34=")
    answer = Addition(digits=2).gold_answer(prompt)
    given = Generation(prompt, (response(answer), response("999"), response(answer)))
    verdict = judgement(Comparison(prompt, answer, "999"), 0, 1, 0.25)
    verdict = replace(verdict, prob_first_wins_shown_first=0.6, prob_first_wins_shown_second=-0.1, raw="B")
    store = RoundStore(run)
    store.stage(0, GENERATIONS, [given], list, 1)
    store.stage(0, JUDGEMENTS, [verdict], list, 1)
    (cell,) = read(tmp_path).content["cells"]
    assert (cell["arm"], cell["seed"], cell["round"]) == (0, 0, 0)
    (item,) = cell["items"]
    assert item["prompt"] == prompt.text
    assert item["responses"] == [[[0, 2], answer, 1.0, 0.0], [[1], "999", 0.0, 1.0]]
    assert item["verdicts"] == [[0, 1, 0.25, 0.6, -0.1, "ok", "B", 1]]
    assert disagrees(item)
    assert item["left"] == "judge prefers wrong"


def test_every_kind_of_what_is_left_has_examples() -> None:
    """In turns: of each kind one before a second of any."""
    items = [
        {"id": str(place), "verdicts": [[0, 1, 0.2, 1]] if kind == "judge prefers wrong" else [], "left": kind}
        for place, kind in enumerate(["solved"] * 4 + ["coverage"] * 2 + ["judge prefers wrong"] + ["not taken up"])
    ]
    first = of_each_kind(items)[:5]
    assert {item["left"] for item in first} == {"solved", "coverage", "judge prefers wrong", "not taken up"}


def test_the_same_prompts_for_every_arm(sweep: Path) -> None:
    """Those that were chosen by identity; those with a disagreement are each judge's own."""
    found = read(sweep).content
    ids: dict[tuple[int, int], dict[int, list[str]]] = {}
    for cell in found["cells"]:
        ids.setdefault((cell["seed"], cell["round"]), {})[cell["arm"]] = [item["id"] for item in cell["items"]]
    assert all(len(set.intersection(*map(set, by_arm.values()))) >= 6 for by_arm in ids.values())
    assert read(sweep).content == found, "every time the same"


def test_disagreements_are_sought(sweep: Path) -> None:
    found = read(sweep)
    labels = found.content["arms"]
    wrong = {
        label: [disagrees(i) for c in found.content["cells"] if labels[c["arm"]] == label for i in c["items"]]
        for label in labels
    }
    assert not any(wrong["oracle"])
    assert sum(wrong["self"]) > 0.2 * len(wrong["self"])
    assert found.disagreeing == sum(wrong["self"])


def test_bounds_hold(sweep: Path) -> None:
    everything = read(sweep)
    assert {(c["arm"], c["seed"], c["round"]) for c in everything.content["cells"]} == {
        (arm, seed, index) for arm in range(2) for seed in range(2) for index in range(6)
    }
    few = read(sweep, Bounds(cells=6))
    assert len(few.content["cells"]) == 6
    assert {c["round"] for c in few.content["cells"]} >= {0, 5}, "the first and the last round"
    assert {c["seed"] for c in few.content["cells"]} == {0}
    small = read(sweep, Bounds(size=20_000))
    assert len(to_json(small.content).encode()) < 22_000
    assert len(small.content["cells"]) == 24, "some of every round"
    short = read(sweep, Bounds(text=2, samples=2))
    texts = [response[1] for cell in short.content["cells"] for item in cell["items"] for response in item["responses"]]
    assert all(text.endswith("more characters)") for text in texts)
    assert max(s for c in short.content["cells"] for i in c["items"] for r in i["responses"] for s in r[0]) == 1


def test_a_broken_or_missing_file_costs_that_round_only(tmp_path: Path) -> None:
    write_study(tmp_path, {"self": SHAPES["self"]}, [0], 3, prompts=5)
    run = tmp_path / "judge=self,seed=0"
    (run / "round_000" / "generations.parquet").write_bytes(b"PAR1 and no more")
    (run / "round_001" / "judgements.parquet").unlink()
    found = {cell["round"]: cell["items"] for cell in read(tmp_path).content["cells"]}
    assert set(found) == {1, 2}
    assert all(item["verdicts"] == [] for item in found[1]), "generated, not judged yet"


def test_a_task_that_is_not_here(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "self", 0, [{"round": 0}], task=TASK | {"_target_": "somewhere.else.Task"})
    write_round(tmp_path / "run", 0, sums(3, "x"))
    found = read(tmp_path)
    assert "cannot be built here" in found.notes[0]
    assert found.content["cells"][0]["items"][0]["responses"][0][2] is None


def test_no_samples_at_all(tmp_path: Path) -> None:
    write_study(tmp_path, {"self": SHAPES["self"]}, [0], 3)
    arms: list[Arm] = study(load(tmp_path), "study").arms
    assert samples(arms) is None


def test_json_cannot_leave_its_element() -> None:
    text = '</script><!-- & \u2028 \u2029 \x00 \\ " ü'
    written = to_json({"text": text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"text": text}


def test_spread() -> None:
    assert spread([0, 1, 2], 5) == [0, 1, 2]
    assert spread(list(range(11)), 3) == [0, 5, 10]
    assert spread([4, 7], 1) == [7]
