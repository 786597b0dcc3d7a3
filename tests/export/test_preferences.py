"""Runs as data sets: nothing lost, nothing turned around, and read by datasets and TRL as they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from helpers import judgement, response

from export.conftest import CHAT, ODD_TEXTS, PLAIN, put, write_odd_round
from rlaif_lab.export import export_run
from rlaif_lab.export.preferences import export_preferences
from rlaif_lab.feedback.matrices import preference_matrices, win_rates
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Generation, PreferencePair, Response, Revision, Score
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import DEMONSTRATIONS, GENERATIONS, JUDGEMENTS, PAIRS, REVISIONS, SCORES

STANDARD = {"prompt", "chosen", "rejected"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def loaded(path: Path, cache: Path) -> Dataset:
    kind = "json" if path.suffix == ".jsonl" else "parquet"
    return load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache))


# --- what is in it ----------------------------------------------------------------------------------------------------
def test_every_training_pair_is_there_with_its_texts_scores_and_provenance(addition_run: Path) -> None:
    folder = export_preferences(addition_run)
    rows = pq.read_table(folder / "preferences.parquet").to_pylist()
    store = RoundStore(addition_run)
    expected = [(index, pair) for index in (0, 1) for pair in store.read_stage(index, PAIRS)]
    assert len(rows) == len(expected) > 10
    for row, (index, pair) in zip(rows, expected, strict=True):
        generations = store.read_stage(index, GENERATIONS)
        judgements = store.read_stage(index, JUDGEMENTS)
        at = [g.prompt.id for g in generations].index(pair.prompt.id)
        rates = win_rates(preference_matrices(generations, judgements))[at]
        said = generations[at].responses
        assert row == {
            "prompt": pair.prompt.text,
            "chosen": said[pair.sample_chosen].text,
            "rejected": said[pair.sample_rejected].text,
            "score_chosen": rates[pair.sample_chosen],
            "score_rejected": rates[pair.sample_rejected],
            "prob_chosen_wins": pair.prob_chosen_wins,
            "run": "addition",
            "arm": "later",
            "judge": "later",
            "seed": 7,
            "round": index,
            "prompt_id": pair.prompt.id,
            "sample_chosen": pair.sample_chosen,
            "sample_rejected": pair.sample_rejected,
            "chosen_finished": said[pair.sample_chosen].finished,
            "rejected_finished": said[pair.sample_rejected].finished,
            "status": "ok",
        }
        assert row["score_chosen"] > row["score_rejected"]


def test_what_was_cut_off_is_marked_in_every_set_that_is_trained_on(odd_run: Path) -> None:
    cut = replace(response("cut"), finished=False)
    texts = ("whole", "cut")
    put(odd_run, 1, GENERATIONS, [Generation(PLAIN, (response("whole"), cut))])
    put(odd_run, 1, JUDGEMENTS, [judgement(Comparison(PLAIN, *texts), 0, 1, 0.25)])
    put(odd_run, 1, PAIRS, [PreferencePair(PLAIN, 1, 0, 0.75)])
    put(odd_run, 1, DEMONSTRATIONS, [Generation(PLAIN, (cut,))])
    put(odd_run, 1, REVISIONS, [Revision(PLAIN, cut, (("p", "c", "whole"),), response("whole"))])
    folder = export_preferences(odd_run)

    def last(name: str) -> dict[str, Any]:
        return pq.read_table(folder / f"{name}.parquet").to_pylist()[-1]

    for name in ("preferences", "reward_data"):
        row = last(name)
        assert (row["chosen"], row["chosen_finished"]) == ("cut", False)
        assert (row["rejected"], row["rejected_finished"]) == ("whole", True)
    rows = [row for row in pq.read_table(folder / "unpaired.parquet").to_pylist() if row["round"] == 1]
    assert [(row["completion"], row["label"], row["finished"]) for row in rows] == [
        ("cut", True, False),
        ("whole", False, True),
    ]
    assert last("demonstrations")["finished"] is False
    assert (last("revisions")["chosen_finished"], last("revisions")["rejected_finished"]) == (True, False)


def test_what_the_judge_likes_is_what_is_called_chosen(addition_run: Path) -> None:
    """Independent of the pairing code: the export itself must not turn a pair around."""
    folder = export_preferences(addition_run)
    for name in ("preferences", "reward_data"):
        rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
        assert len(rows) > 50
        for row in rows:
            assert row["chosen"] > row["rejected"] and row["prob_chosen_wins"] == pytest.approx(0.9)


def test_reward_data_turns_both_orders_with_the_winner(odd_run: Path) -> None:
    first_won, second_won = lines(export_preferences(odd_run) / "reward_data.jsonl")
    assert (first_won["chosen"], first_won["rejected"]) == (ODD_TEXTS[0], ODD_TEXTS[1])
    assert first_won["prob_chosen_wins"] == 0.75
    assert (first_won["prob_chosen_wins_shown_first"], first_won["prob_chosen_wins_shown_second"]) == (0.9, 0.6)
    # Sample 2 won against sample 0 with 0.875: in slot two with 1 - 0.25, in slot one with 1 - 0.
    assert (second_won["chosen"], second_won["rejected"]) == (ODD_TEXTS[2], ODD_TEXTS[0])
    assert (second_won["sample_chosen"], second_won["sample_rejected"]) == (2, 0)
    assert second_won["prob_chosen_wins"] == 0.875
    assert (second_won["prob_chosen_wins_shown_first"], second_won["prob_chosen_wins_shown_second"]) == (1.0, 0.75)


def test_ties_and_failures_are_kept_apart_with_the_judges_words(odd_run: Path) -> None:
    folder = export_preferences(odd_run)
    (tie,) = lines(folder / "ties.jsonl")
    assert (tie["first"], tie["second"], tie["status"]) == (ODD_TEXTS[1], ODD_TEXTS[2], "tie")
    invalid, late = lines(folder / "failures.jsonl")
    assert (invalid["status"], invalid["raw"]) == ("invalid", "what? 🙂\n---\nA")
    assert (invalid["prob_first_wins_shown_first"], invalid["prob_first_wins_shown_second"]) == (0.5, None)
    assert (late["status"], late["raw"], late["sample_second"]) == ("timed_out", None, 3)
    labelled = [row for name in ("preferences", "reward_data") for row in lines(folder / f"{name}.jsonl")]
    assert {row["status"] for row in labelled} == {"ok"}


def test_generations_of_all_rounds_with_tokens_and_scores(addition_run: Path) -> None:
    rows = pq.read_table(export_preferences(addition_run) / "generations.parquet").to_pylist()
    store = RoundStore(addition_run)
    stored = [(i, g, s, r) for i in (0, 1) for g in store.read_stage(i, GENERATIONS) for s, r in enumerate(g.responses)]
    assert len(rows) == len(stored) == 2 * 32 * 4
    for row, (index, g, sample, said) in zip(rows, stored, strict=True):
        assert (row["round"], row["prompt_id"], row["sample"]) == (index, g.prompt.id, sample)
        assert (row["prompt"], row["response"], row["finished"]) == (g.prompt.text, said.text, said.finished)
        assert (tuple(row["token_ids"]), tuple(row["logps"])) == (said.token_ids, said.logps)
        assert row["score"] is None or 0 <= row["score"] <= 1


def test_direct_scores_where_the_run_has_them(odd_run: Path) -> None:
    scores = [Score(7.5), Score(None, "invalid", raw="?"), Score(-2.0), Score(1.0)]
    put(odd_run, 0, SCORES, scores)
    folder = export_preferences(odd_run)
    (row,) = lines(folder / "preferences.jsonl")
    assert (row["score_chosen"], row["score_rejected"]) == (7.5, None)
    assert pq.read_table(folder / "generations.parquet")["score"].to_pylist() == [7.5, None, -2.0, 1.0]


def test_a_response_no_verdict_compared_has_no_score(odd_run: Path) -> None:
    """Sample 3 was only in comparisons that failed."""
    scores = pq.read_table(export_preferences(odd_run) / "generations.parquet")["score"].to_pylist()
    assert scores[3] is None
    assert scores[0] == pytest.approx((0.75 + 0.125) / 2)


def test_rounds_that_sample_anew_while_they_train(odd_run: Path) -> None:
    write_odd_round(odd_run, [PLAIN], index=10)
    write_odd_round(odd_run, [PLAIN], index=2)
    write_odd_round(odd_run, [PLAIN], index=2, segment=1)
    rows = lines(export_preferences(odd_run) / "preferences.jsonl")
    assert [row["round"] for row in rows] == [0, 2, 2, 10]


def test_revisions_and_demonstrations_where_the_run_has_them(odd_run: Path) -> None:
    assert not (export_preferences(odd_run) / "revisions.parquet").exists()
    before, after = Response("rude", (1,), (-1.0,), True), Response("polite 🙂", (2,), (), True)
    put(odd_run, 0, REVISIONS, [Revision(PLAIN, before, (("be kind", "it is rude", "polite 🙂"),), after)])
    put(odd_run, 0, DEMONSTRATIONS, [Generation(PLAIN, (after,))])
    folder = export_preferences(odd_run)
    (revision,) = pq.read_table(folder / "revisions.parquet").to_pylist()
    assert (revision["prompt"], revision["chosen"], revision["rejected"]) == (PLAIN.text, "polite 🙂", "rude")
    assert revision["steps"] == [{"principle": "be kind", "critique": "it is rude", "revision": "polite 🙂"}]
    (shown,) = pq.read_table(folder / "demonstrations.parquet").to_pylist()
    assert (shown["prompt"], shown["completion"]) == (PLAIN.text, "polite 🙂")


def test_a_run_that_trained_on_revisions_exports_those_as_its_preferences(odd_run: Path, tmp_path: Path) -> None:
    config = json.loads((odd_run / "config.json").read_text())
    config["pairing"]["source"] = "revisions"
    (odd_run / "config.json").write_text(json.dumps(config))
    before, after = Response("rude", (1,), (-1.0,), True), Response("polite", (2,), (), True)
    steps = (("be kind", "it is rude", "polite"),)
    put(odd_run, 0, REVISIONS, [Revision(PLAIN, before, steps, after), Revision(PLAIN, before, steps, before)])
    folder = export_preferences(odd_run)
    (row,) = loaded(folder / "preferences.parquet", tmp_path / "cache").to_list()  # not the one that changed nothing
    assert (row["prompt"], row["chosen"], row["rejected"]) == (PLAIN.text, "polite", "rude")
    assert (row["status"], row["prob_chosen_wins"], row["score_chosen"]) == ("revised", None, None)
    assert (row["round"], row["prompt_id"], row["run"]) == (0, PLAIN.id, odd_run.name)
    assert len(lines(folder / "reward_data.jsonl")) == 2  # the judge's preferences, as ever


def test_conversations_are_lists_of_messages(chat_run: Path) -> None:
    conversation, single = lines(export_preferences(chat_run) / "preferences.jsonl")
    assert conversation["prompt"] == [{"role": role, "content": said} for role, said in CHAT.turns]
    assert conversation["chosen"] == [{"role": "assistant", "content": ODD_TEXTS[0]}]
    assert single["prompt"] == [{"role": "user", "content": PLAIN.text}]


def test_a_policy_with_a_chat_template_makes_plain_prompts_conversations(
    odd_run: Path, chat_model: LanguageModel
) -> None:
    chat_model.save(odd_run / "policy")
    (row,) = lines(export_preferences(odd_run) / "preferences.jsonl")
    assert row["prompt"] == [{"role": "user", "content": PLAIN.text}]


def test_what_the_policy_was_told_first_is_part_of_its_prompts(chat_run: Path) -> None:
    config = json.loads((chat_run / "config.json").read_text())
    config["policy"]["system"] = "Be kind."
    (chat_run / "config.json").write_text(json.dumps(config))
    conversation, single = lines(export_preferences(chat_run) / "preferences.jsonl")
    assert conversation["prompt"][0] == {"role": "system", "content": "Be brief."}  # its own
    assert single["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert [len(row["prompt"]) for row in (conversation, single)] == [4, 2]


def test_exporting_again_gives_the_same_bytes(addition_run: Path) -> None:
    folder = export_preferences(addition_run)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert export_preferences(addition_run) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# --- as others read it ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("run", ["odd_run", "chat_run"])
def test_datasets_loads_it_with_every_text_as_it_was(
    run: str, ending: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    directory: Path = request.getfixturevalue(run)
    folder = export_preferences(directory)
    for name in ("preferences", "reward_data"):
        data = loaded(folder / f"{name}.{ending}", tmp_path / "cache")
        assert set(data.column_names) >= STANDARD
        assert data.to_list() == lines(folder / f"{name}.jsonl")  # which the tests above have compared with the store
    texts = {row["response"] for row in loaded(folder / "generations.parquet", tmp_path / "cache")}
    assert texts == set(ODD_TEXTS)


@pytest.mark.parametrize("name", ["ties", "failures"])
def test_datasets_loads_ties_and_failures(name: str, chat_run: Path, tmp_path: Path) -> None:
    file = export_preferences(chat_run) / f"{name}.jsonl"
    assert loaded(file, tmp_path / "cache").to_list() == lines(file)


def test_a_run_without_pairs_exports_none_and_the_rest_loads(odd_run: Path, tmp_path: Path) -> None:
    """``datasets`` itself refuses a split without rows."""
    (odd_run / "round_000" / "pairs.parquet").unlink()
    folder = export_run(odd_run)
    assert set(pq.read_table(folder / "preferences.parquet").column_names) >= STANDARD
    assert (folder / "preferences.jsonl").read_bytes() == b""
    assert len(load_dataset(str(folder), "reward_data", split="train", cache_dir=str(tmp_path / "cache"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["DPO", "Reward"])
@pytest.mark.parametrize("run", ["addition_run", "chat_run"])
def test_trl_trains_on_it(
    run: str,
    trainer: str,
    request: pytest.FixtureRequest,
    organism: LanguageModel,
    chat_model: LanguageModel,
    tmp_path: Path,
) -> None:
    """One real optimiser step on the files as they are, with the run's own policy or a chat model of its format."""
    trl = pytest.importorskip("trl", reason="TRL IS NOT INSTALLED: that it trains on exports WAS NOT TESTED")
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    model = organism if run == "addition_run" else chat_model
    folder = export_preferences(request.getfixturevalue(run))
    model.save(tmp_path / "model")
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    if trainer == "DPO":
        data = loaded(folder / "preferences.parquet", tmp_path / "cache")
        network = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="float32")
        training = trl.DPOTrainer(
            network, args=trl.DPOConfig(**settings), train_dataset=data, processing_class=model.tokenizer
        )
    else:
        data = loaded(folder / "reward_data.jsonl", tmp_path / "cache")
        network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=1, dtype="float32")
        training = trl.RewardTrainer(
            network, args=trl.RewardConfig(**settings), train_dataset=data, processing_class=model.tokenizer
        )
    assert len(training.train_dataset) == len(data)  # no row was filtered away
    before = [p.detach().clone() for p in network.parameters()]
    outcome = training.train()
    assert outcome.global_step == 1 and math.isfinite(outcome.training_loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    tokens = training.train_dataset[0]["chosen_ids"]
    assert model.eos_id in tokens[-2:]  # the template writes a newline after the end of a turn
    if run == "addition_run":  # TRL's tokens of prompt and answer are those that the policy sampled
        row = data[0]
        prompt = model.tokenizer(row["prompt"])["input_ids"] if trainer == "Reward" else []
        assert tokens == [*prompt, *model.encode_responses([row["chosen"]])[0]]
