"""What the experiments' READMEs assert is recomputed from their CSV files, and the tests that do it are right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_claims", ROOT / "experiments" / "check_claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_claims"] = module
    spec.loader.exec_module(module)
    return module


claims = load()
STUDIES = list(claims.studies())


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_every_claim_holds_and_every_table_is_the_csvs(folder: Path) -> None:
    findings, readme, anew = claims.examined(folder)
    assert findings
    assert [f.claim.says for f in findings if not f.holds] == []
    assert anew == readme, "run: python experiments/check_claims.py --write"
    assert "<!-- table:" in readme


def cells(values: dict[str, list[float]]) -> dict[tuple[str, int, int], dict[str, str]]:
    """Round 1 of each arm, one value per seed; round 0 is 0."""
    return {
        (arm, seed, index): {"q": str(value if index else 0.0)}
        for arm, found in values.items()
        for seed, value in enumerate(found)
        for index in (0, 1)
    }


def claim(test: str, target: str, **quantity: object) -> object:
    planned = bool(quantity.pop("planned", False))
    entry = {"says": "s", "planned": planned, test: target, "of": {"metric": "q", **quantity}}
    return claims._claim(entry, "here")


def test_quantities_are_paired_by_seed_and_by_round() -> None:
    table = cells({"a": [0.5, 0.7, 0.6], "b": [0.1, 0.2]})
    assert claims.values(table, {"metric": "q", "arm": "a", "minus_arm": "b"}) == pytest.approx({0: 0.4, 1: 0.5})
    assert claims.values(table, {"metric": "q", "arm": "a", "minus_round": 0}) == {0: 0.5, 1: 0.7, 2: 0.6}
    assert claims.values(table, {"metric": "q", "arm": "a", "minus_round": 0, "seeds": [2, 0]}) == {2: 0.6, 0: 0.5}
    assert claims.values(table, {"metric": "q", "arm": "a", "round": "mean"}) == {0: 0.25, 1: 0.35, 2: 0.3}
    with pytest.raises(ValueError, match="no seed has"):
        claims.values(table, {"metric": "absent", "arm": "a"})


def test_a_difference_of_noise_is_claimed_in_one_of_twenty_and_an_equivalence_too() -> None:
    rng = np.random.default_rng(0)
    above = within = 0
    for _ in range(2000):
        null = cells({"a": rng.normal(0.0, 1.0, 6).tolist()})
        edge = cells({"a": rng.normal(0.5, 1.0, 6).tolist()})  # as far from 0 as the margin
        above += claims.examine([claim("above", "0", arm="a")], null)[0].holds
        within += claims.examine([claim("within", "0.5", arm="a")], edge)[0].holds
    assert above / 2000 == pytest.approx(0.05, abs=0.015)
    assert within / 2000 <= 0.05


def test_planned_claims_share_their_error() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    planned = [claim("above", "0", arm=arm, planned=True) for arm in "abcde"]
    for _ in range(500):
        null = cells({arm: rng.normal(0.0, 1.0, 6).tolist() for arm in "abcde"})
        wrong += any(f.holds for f in claims.examine(planned, null))
    assert wrong / 500 <= 0.08


def test_the_minimum_detectable_difference_is_found_as_often_as_it_says() -> None:
    rng, n, sd = np.random.default_rng(2), 8, 1.0
    size = claims.minimum_detectable(sd / np.sqrt(n), n)
    found = 0
    for _ in range(2000):
        interval = claims.t_interval(rng.normal(size, sd, n).tolist())
        found += interval.low > 0.0
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_an_entry_without_a_test_or_with_two_is_refused() -> None:
    with pytest.raises(ValueError, match="claim 3: needs says, planned, of and one of"):
        claims._claim({"says": "s", "planned": True, "of": {}}, "claims.yaml, claim 3")
    with pytest.raises(ValueError, match="got"):
        claims._claim({"says": "s", "planned": True, "of": {}, "is": 1, "above": 0}, "claims.yaml, claim 3")


def test_a_number_is_right_to_the_digits_it_is_written_with() -> None:
    table = cells({"a": [0.1230, 0.1236]})
    assert claims.examine([claim("is", "0.12", arm="a")], table)[0].holds
    assert claims.examine([claim("is", "0.124", arm="a")], table)[0].holds is False
    assert claims.examine([claim("is", "0.13", arm="a")], table)[0].holds is False


def test_a_table_takes_the_place_between_its_own_marks_and_nothing_else() -> None:
    spec = {"t": {"rows": ["a"], "columns": [{"title": "q", "metric": "q", "round": 1}]}}
    found = {"results.csv": cells({"a": [0.25, 0.25]})}
    begin, end = "<!-- table: t -->\n", "<!-- end of table -->"
    table = "| arm | q |\n| --- | --- |\n| a | 0.250 |\n"
    for before in ("", "old\n", "old\nlines\n"):
        text = f"{begin}{before}{end}\nbetween\n{begin}{before}{end}\nafter\n"
        anew = claims.with_tables(text, spec, found)
        assert anew == f"{begin}{table}{end}\nbetween\n{begin}{table}{end}\nafter\n"
        assert claims.with_tables(anew, spec, found) == anew
