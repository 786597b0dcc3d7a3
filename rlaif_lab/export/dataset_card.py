"""The card of an export's data sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rlaif_lab.export.markdown import code, escape, fenced, front_matter, table
from rlaif_lab.export.provenance import how_it_was_made, run_config
from rlaif_lab.store.files import write_atomically

DATA_SETS = {
    "preferences": "The pairs drawn from the verdicts: what a learner that reads pairs was trained on.",
    "reward_data": "Every preference the judge gave, also those no pair was made of; with what it said in each order.",
    "unpaired": "The responses of the training pairs one by one, labelled true (chosen) or false (rejected), for KTO.",
    "generations": "Every response, with its tokens, their log-probabilities and its score.",
    "revisions": "Responses that their author rewrote (chosen), against the originals (rejected).",
    "demonstrations": "The judge's own answers to the prompts.",
}
ASIDE = {
    "ties": "Verdicts that call two responses equal; they label nothing.",
    "failures": "Verdicts that failed, with what the judge said and why it counts as failed; they label nothing.",
}
COLUMNS = {
    "prompt, chosen, rejected": "text, or in a conversational export lists of `{role, content}`",
    "prob_chosen_wins": "the judge's probability that chosen is the better one, both orders averaged; at least 0.5",
    "prob_chosen_wins_shown_first, _shown_second": "the same as judged with chosen in slot one, in slot two",
    "chosen_finished, rejected_finished, finished": "false: the length limit cut the response off (see below)",
    "run, arm, judge, seed, round, prompt_id": "where a row comes from",
    "sample_chosen, sample_rejected, sample": "which of the prompt's responses of that round it is",
    "status": "`ok`: the judge preferred one of the two; `revised`: the policy rewrote rejected into chosen, unjudged",
}


def write_dataset_card(run_directory: Path) -> Path:
    """Write export/README.md, from the run's config and the exported files. Returns it."""
    config = run_config(run_directory)
    folder = run_directory / "export"
    rounds = {name: Counter(rounds_in(folder / f"{name}.parquet")) for name in DATA_SETS if has(folder, name)}
    rounds |= {name: Counter(rounds_in(folder / f"{name}.jsonl")) for name in ASIDE}
    direct = any((run_directory / f"round_{index:03d}" / "scores.parquet").is_file() for index in rounds["generations"])
    card = folder / "README.md"
    write_atomically(card, dataset_card(config, rounds, direct).encode())
    return card


def dataset_card(config: dict[str, Any], rounds: Mapping[str, Mapping[int, int]], direct_scores: bool) -> str:
    """Return the card's text. rounds: rows by data set and round."""
    names = [name for name in DATA_SETS if name in rounds]
    head = front_matter(
        {
            "task_categories": ["text-generation"],
            "tags": ["rlaif", "rlaif-lab", "preference"],
            "configs": [
                {"config_name": name, "data_files": f"{name}.parquet", "default": name == "preferences"}
                for name in names
            ],
        }
    )
    score = (
        "the judge's direct score of the response, on the judge's own scale"
        if direct_scores
        else "its win rate: the judge's mean probability that it beats each of the prompt's other responses"
    )
    indices = sorted({index for counts in rounds.values() for index in counts})
    by_round = [[str(i), *(str(counts.get(i, 0)) for counts in rounds.values())] for i in indices]
    total = ["all", *(str(sum(counts.values())) for counts in rounds.values())]
    columns = COLUMNS | {"score_chosen, score_rejected, score": score}
    what = [[f"`{name}`", text] for name, text in (DATA_SETS | ASIDE).items() if name in rounds]
    return "\n\n".join(
        [
            head,
            f"# AI preferences: {escape(config['judge']['name'])} on {escape(config['policy']['name'])}",
            f"The judge {code(config['judge']['name'])} compared what the policy {code(config['policy']['name'])} "
            "wrote, round by round, while the policy was trained on those preferences (rlaif_lab). The labels are that "
            "judge's, who may be wrong.",
            table(["data set", "what it holds"], what),
            "## Rows",
            table(["round", *rounds], [*by_round, total]),
            "## Columns",
            table(["column", "meaning"], [[f"`{name}`", text] for name, text in columns.items()]),
            "## How it was made",
            how_it_was_made(config),
            "## How to load it",
            fenced(LOADING, "python"),
            "A response that was cut off has no end, and the lab teaches none. A trainer that reads texts puts an end "
            "behind every one of them, so leave cut-off responses out, as above, or the model learns to stop there. "
            "`unpaired` (KTO) and `demonstrations` (SFT) have the column `finished` for that, `reward_data` the same "
            "two.",
            "",
        ]
    )


LOADING = """\
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

pairs = load_dataset("export", "preferences", split="train")  # this folder, or its name on the Hub
pairs = pairs.filter(lambda row: row["chosen_finished"] and row["rejected_finished"])
tokenizer = AutoTokenizer.from_pretrained("policy")  # or any other model
model = AutoModelForCausalLM.from_pretrained("policy")
args = DPOConfig(output_dir="dpo", bf16=torch.cuda.is_available())
trainer = DPOTrainer(model, args=args, train_dataset=pairs, processing_class=tokenizer)
trainer.train()"""


def has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.parquet").is_file()


def rounds_in(path: Path) -> list[int]:
    """Return the round of every row of an exported file."""
    if path.suffix == ".parquet":
        found: list[int] = pq.read_table(path, columns=["round"])["round"].to_pylist()
        return found
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["round"] for line in file]
