"""The cards: numbers are the run's own, metadata is what the Hub reads, the code in them runs."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from export.conftest import CONFIG, METRICS
from rlaif_lab.export import export_run
from rlaif_lab.export.card import curve_png, model_card, shortest_prompt
from rlaif_lab.export.markdown import code, escape, table
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import FAILURES
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS, PAIRS


def tables(card: str) -> list[list[list[str]]]:
    """The cells of every table, as a Markdown renderer sees them."""
    rendered = MarkdownIt("commonmark").enable("table").render(ModelCard(card).text)
    found = []
    for body in re.findall(r"<table>(.*?)</table>", rendered, flags=re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
        found.append([re.findall(r"<t[hd]>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows])
    return found


def code_block(card: str) -> str:
    (code,) = re.findall(r"^(`{3,})python\n(.*?)^\1$", card, flags=re.DOTALL | re.MULTILINE)
    return code[1]


# --- the model card ---------------------------------------------------------------------------------------------------
def test_the_curve_is_that_of_metrics_jsonl() -> None:
    card = model_card(CONFIG, METRICS, "12+34=")
    header, *rows = tables(card)[0]
    assert header[:2] == ["round", "true quality, sampled"]
    for cells, metrics in zip(rows, METRICS, strict=True):
        assert int(cells[0]) == metrics["round"]
        quality, error = cells[1].split(" ± ")
        assert quality == f"{metrics['quality/sampled']:.3f}" and error == f"{metrics['quality/sampled_stderr']:.3f}"
        assert cells[2] == f"{metrics['quality/greedy']:.3f}"
    assert [row[3] for row in rows] == ["0.492", "n/a", "n/a"]  # one that is None, one that is missing
    assert "0.369 before round 0 and 0.500 at round 2" in card


def test_final_metrics_are_the_last_rounds() -> None:
    final = next(t for t in tables(model_card(CONFIG, METRICS, "1=")) if t[0] == ["metric", "round 2"])
    assert final[1:] == [
        ["<code>quality/sampled</code>", "0.500"],
        ["<code>quality/sampled_stderr</code>", "0.013"],
        ["<code>quality/greedy</code>", "0.750"],
        ["<code>pairs/count</code>", "31"],
    ]


def test_how_it_was_made_names_every_part() -> None:
    made = dict(next(t for t in tables(model_card(CONFIG, METRICS, "1=")) if t[0] == ["part", "what it is"])[1:])
    assert made["policy"] == "tiny (Organism): skill [slip 0.3, misconception 0.5], split policy_pretraining"
    assert made["judge"] == "later (ScriptedJudge)"
    assert made["learner"] == "dpo (DPO): beta 0.1"
    assert made["rounds"] == "2, of 32 fresh prompts each"
    assert made["seed"] == "7" and made["code"] == "commit 0123abc"
    assert made["experiment, arm"] == "study|one, later"


def test_without_gold_quality_is_not_applicable(chat_run: Path, chat_model: LanguageModel) -> None:
    chat_model.save(chat_run / "policy")
    export_run(chat_run)
    card = (chat_run / "policy" / "README.md").read_text()
    assert [row[1:] for row in tables(card)[0][1:]] == [["n/a", "n/a", "0.492", "n/a"], ["n/a", "n/a", "0.625", "n/a"]]
    assert "had no gold answers" in card and "62.5%" in card
    assert "organism" not in card.partition("## How it was made")[0]


def test_metadata_is_read_by_the_hub(addition_run: Path, chat_run: Path, chat_model: LanguageModel) -> None:
    chat_model.save(chat_run / "policy")
    for run in (addition_run, chat_run):
        export_run(run)
    organism, hub = (ModelCard.load(run / "policy" / "README.md").data for run in (addition_run, chat_run))
    assert organism.library_name == hub.library_name == "transformers"
    assert organism.tags == ["rlaif", "rlaif-lab", "dpo"]
    assert (organism.base_model, hub.base_model) == (None, "org/some-lm")
    data = DatasetCard.load(addition_run / "export" / "README.md").data.to_dict()
    assert [c["config_name"] for c in data["configs"]] == ["preferences", "reward_data", "unpaired", "generations"]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["addition_run", "chat_run"])
def test_the_code_in_the_card_runs_in_a_fresh_process(
    run: str, request: pytest.FixtureRequest, organism: LanguageModel, chat_model: LanguageModel
) -> None:
    """It says there, without the lab, what the policy says here."""
    directory: Path = request.getfixturevalue(run)
    model = organism if run == "addition_run" else chat_model
    model.save(directory / "policy")
    export_run(directory)
    code = code_block((directory / "policy" / "README.md").read_text())
    code += "import sys\nassert 'rlaif_lab' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    prompt = shortest_prompt(directory / "export" / "generations.parquet")
    if isinstance(prompt, list):
        prompt = model.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids
    output = model.network.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :]
    assert len(output) > 0
    assert done.stdout == model.tokenizer.decode(output, skip_special_tokens=True) + "\n"


def test_a_fine_tuned_policy_is_known_by_what_it_was_tuned_from() -> None:
    source = {"_target_": "rlaif_lab.models.hf.HFModel", "name": "hf", "path": "org/some-lm"}
    config = CONFIG | {"policy": {"_target_": "rlaif_lab.models.fine_tuned.FineTuned", "name": "tuned", "of": source}}
    assert ModelCard(model_card(config, METRICS, "1=")).data.base_model == "org/some-lm"
    config["policy"] = config["policy"] | {"of": CONFIG["policy"]}
    card = model_card(config, METRICS, "1=")
    assert ModelCard(card).data.base_model is None and "It is a model organism" in card


def test_curve_png(tmp_path: Path) -> None:
    for rows in (METRICS, METRICS[:1], ()):
        picture = tmp_path / "curve.png"
        picture.write_bytes(curve_png(rows))
        with Image.open(picture) as image:
            assert image.size[0] > 600 and len(image.convert("RGB").getcolors(1 << 20)) > 3
        assert curve_png(rows) == picture.read_bytes()  # the same rows, the same bytes
    assert curve_png(METRICS) != curve_png(METRICS[:2])


def test_names_cannot_break_the_card() -> None:
    config = CONFIG | {"judge": {"name": "a|b`c` *d* <script>", "_target_": "x.Y", "text": "line\n| 1 | 2 |\n```"}}
    card = model_card(config, METRICS, "a prompt with ``` in it\nand \u2028 lines")
    made = dict(next(t for t in tables(card) if t[0] == ["part", "what it is"])[1:])
    assert made["judge"] == "a|b`c` *d* &lt;script&gt; (Y): text line | 1 | 2 | ```"
    assert json.loads(re.findall(r"^(`{3,})json\n(.*?)^\1$", card, re.DOTALL | re.MULTILINE)[0][1]) == config
    compile(code_block(card), "card", "exec")


@pytest.mark.parametrize(
    "text", ["a|b", "\\|", "`x`", "&lt;", "&#42;", "~~x~~", "$x$", "_a_ *b*", "[x](http://y)", "<b>"]
)
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    rendered = MarkdownIt("commonmark").enable("table").render(table(["h"], [[escape(text)]]))
    cell = re.findall(r"<td>(.*?)</td>", rendered)[0]
    assert html.unescape(cell) == text


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\x00b", "a\u202eb", "two\nlines\r| x |", "`", "``a`", "|"])
def test_text_of_strangers_is_inert(text: str) -> None:
    """Neither escape sequences, nor a new line, nor a mark that turns the direction, nor an open code span."""
    for shown in (escape(text), code(text), code(text).replace("|", "\\|")):
        assert shown.isprintable()
        rendered = MarkdownIt("commonmark").enable("table").render(table(["h"], [[shown]]))
        assert rendered.count("<td>") == 1
    assert MarkdownIt("commonmark").render(code(text)).count("<code>") == 1


# --- the data sets' card ----------------------------------------------------------------------------------------------
def test_the_data_set_card_counts_what_is_there(addition_run: Path) -> None:
    folder = export_run(addition_run)
    card = (folder / "README.md").read_text()
    header, *rows = next(t for t in tables(card) if t[0][0] == "round")
    assert [row[0] for row in rows] == ["0", "1", "all"]
    store = RoundStore(addition_run)
    for index in (0, 1):
        judged = [j.status for j in store.read_stage(index, JUDGEMENTS)]
        expected = {
            "preferences": len(store.read_stage(index, PAIRS)),
            "reward_data": judged.count("ok"),
            "unpaired": len(
                {
                    (p.prompt.id, s, label)
                    for p in store.read_stage(index, PAIRS)
                    for s, label in ((p.sample_chosen, True), (p.sample_rejected, False))
                }
            ),
            "generations": sum(len(g.responses) for g in store.read_stage(index, GENERATIONS)),
            "ties": judged.count("tie"),
            "failures": sum(status in FAILURES for status in judged),
        }
        assert dict(zip(header[1:], map(int, rows[index][1:]), strict=True)) == expected
    totals = [int(a) + int(b) for a, b in zip(rows[0][1:], rows[1][1:], strict=True)]
    assert list(map(int, rows[2][1:])) == totals


def test_the_data_set_card_makes_the_folder_load_as_a_whole(addition_run: Path, tmp_path: Path) -> None:
    folder = export_run(addition_run)
    for name in ("preferences", "reward_data", "unpaired", "generations"):
        data = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(data) == len(pq.read_table(folder / f"{name}.parquet"))
    default = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(default) == len(pq.read_table(folder / "preferences.parquet"))


def test_every_column_is_explained(addition_run: Path) -> None:
    folder = export_run(addition_run)
    explained: dict[str, Any] = dict(next(t for t in tables((folder / "README.md").read_text()) if t[0][0] == "column"))
    known = {name for names in explained for name in re.sub(r"</?code>", "", names).split(", ")}
    known |= {"prob_chosen_wins_shown_second"}  # written as _shown_second after its sibling
    for name in ("preferences", "reward_data"):
        assert set(pq.read_table(folder / f"{name}.parquet").column_names) <= known


@pytest.mark.slow
@pytest.mark.parametrize("run", ["addition_run", "chat_run"])
def test_the_code_in_the_data_set_card_trains(
    run: str,
    request: pytest.FixtureRequest,
    organism: LanguageModel,
    chat_model: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it stands, line by line, with the pinned TRL; without the pairs of which a response was cut off."""
    pytest.importorskip("trl", reason="TRL IS NOT INSTALLED: that the card's code runs WAS NOT TESTED")
    import datasets

    directory: Path = request.getfixturevalue(run)
    (organism if run == "addition_run" else chat_model).save(directory / "policy")
    export_run(directory)
    monkeypatch.chdir(directory)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    held: dict[str, Any] = {}
    exec(code_block((directory / "export" / "README.md").read_text()), held)
    assert held["trainer"].state.global_step > 0
    rows = pq.read_table(directory / "export" / "preferences.parquet").to_pylist()
    assert len(held["pairs"]) == sum(row["chosen_finished"] and row["rejected_finished"] for row in rows)
