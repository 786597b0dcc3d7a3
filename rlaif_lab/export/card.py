"""The policy's model card: how it was made, the curve as a table and a figure, what it cannot do, how to load it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rlaif_lab.export.markdown import code, escape, fenced, front_matter, number, table
from rlaif_lab.export.provenance import how_it_was_made, run_config, starting_point
from rlaif_lab.store.files import write_atomically
from rlaif_lab.store.rows import MetricRow, read_metrics


@dataclass(frozen=True)
class CardColumn:
    """A column of the curve's table: the metric's key in metrics.jsonl, and its title. error: key of its standard
    error."""

    key: str
    title: str
    error: str | None = None


QUALITY = CardColumn("quality/sampled", "true quality, sampled", "quality/sampled_stderr")
WIN_RATE = CardColumn("judge/win_rate_vs_round_0", "judge's win rate against round 0")
CURVE = (
    QUALITY,
    CardColumn("quality/greedy", "true quality, greedy"),
    WIN_RATE,
    CardColumn("judge/accuracy", "judge accuracy"),
)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(run_directory: Path) -> Path:
    """Write policy/README.md and policy/curve.png from the run's config, metrics.jsonl and data sets (which must have
    been exported). Returns the card. Raises ValueError where there is no run."""
    config = run_config(run_directory)
    rows = read_metrics(run_directory / "metrics.jsonl")
    folder = run_directory / "policy"
    write_atomically(folder / "curve.png", curve_png(rows))
    card = folder / "README.md"
    example = shortest_prompt(run_directory / "export" / "generations.parquet")
    text = model_card(config, rows, example)
    write_atomically(card, text.encode())
    return card


def model_card(config: dict[str, Any], rows: Sequence[MetricRow], example: Any) -> str:
    """Return the card's text. rows: of metrics.jsonl. example: a prompt, as text or as messages."""
    name = f"{config['policy']['name']} under {config['judge']['name']}"
    base = hub_name(config["policy"])
    head = front_matter(
        {
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            **({"base_model": base} if base else {}),
            "tags": ["rlaif", "rlaif-lab", config["learner"]["name"]],
        }
    )
    return "\n\n".join(
        [
            head,
            f"# {escape(name)}",
            f"A language model trained on AI feedback with rlaif_lab: it wrote answers, the judge "
            f"{code(config['judge']['name'])} compared them, and {code(config['learner']['name'])} trained it on those "
            f"preferences, {config['rounds']} round{'' if config['rounds'] == 1 else 's'} long. {headline(rows)}",
            "## The curve",
            "![True quality and the judge's win rate by round](curve.png)",
            curve_table(rows),
            legend(rows),
            "## How it was made",
            how_it_was_made(config),
            "## The policy at the end",
            final_metrics(rows),
            "## Limits",
            "\n".join(f"- {limit}" for limit in limits(config, rows)),
            "## How to load it",
            loading_code(example),
            f"<details><summary>The whole config</summary>\n\n{fenced(json.dumps(config, indent=1), 'json')}\n\n"
            "</details>\n",
        ]
    )


def headline(rows: Sequence[MetricRow]) -> str:
    """Return what came of it, in one sentence."""
    values = [(row["round"], row[QUALITY.key]) for row in rows if row.get(QUALITY.key) is not None]
    if values:
        (first, before), (last, after) = values[0], values[-1]
        return f"Its true quality was {before:.3f} before round {first} and {after:.3f} at round {last}."
    wins = [(row["round"], row[WIN_RATE.key]) for row in rows if row.get(WIN_RATE.key) is not None]
    if wins:
        return (
            f"This run had no gold answers, so its true quality is not known; at round {wins[-1][0]} the judge "
            f"preferred it to the model it started from in {wins[-1][1]:.1%} of comparisons."
        )
    return "No round was evaluated."


def curve_table(rows: Sequence[MetricRow]) -> str:
    """Return one line per round; n/a where a run has no such number, as without gold answers."""
    body = [[str(row["round"]), *(cell(row, metric) for metric in CURVE)] for row in rows]
    return table(["round", *(metric.title for metric in CURVE)], body)


def cell(row: MetricRow, metric: CardColumn) -> str:
    error = row.get(metric.error) if metric.error else None
    return number(row.get(metric.key)) + (f" ± {error:.3f}" if error is not None else "")


def legend(rows: Sequence[MetricRow]) -> str:
    gold = any(row.get(QUALITY.key) is not None for row in rows)
    known = "mean gold quality of fresh held-out prompts, ± its standard error" if gold else "not known without gold"
    return (
        f"Round r is the policy after r rounds of training. True quality: {known}. The win rate is what the training "
        "judge believes, ties count one half; where it climbs while quality stands still, the judge is pleased and "
        "nothing else. Judge accuracy: how often it picks the better of two samples of that round."
    )


def final_metrics(rows: Sequence[MetricRow]) -> str:
    if not rows:
        return "n/a"
    # Times and token counts describe the machine, not the policy.
    shown = {k: v for k, v in rows[-1].items() if k != "round" and not k.startswith(("time/", "tokens/"))}
    # A bar ends a table's cell, even within code.
    return table(
        ["metric", f"round {rows[-1]['round']}"], [[code(k).replace("|", "\\|"), number(v)] for k, v in shown.items()]
    )


def limits(config: dict[str, Any], rows: Sequence[MetricRow]) -> list[str]:
    found = [
        "It was trained to please one judge. What that judge cannot see or is wrong about, it may have learnt as well.",
        "One run with one seed: a claim about this method needs several.",
    ]
    if str(starting_point(config["policy"]).get("_target_", "")).endswith(".Organism"):
        found.append(
            "It is a model organism: a tiny network that knows this one task, its alphabet and nothing else. It is for "
            "studying the loop, not for use."
        )
    else:
        found.append("Whatever limits, biases and licence its base model has, it has too.")
    if any(row.get(QUALITY.key) is not None for row in rows):
        found.append("Quality was measured on fresh prompts of the same task, and says nothing of others.")
    else:
        found.append(
            "Without gold answers nothing here is evidence of quality: the win rate is the judge's own opinion."
        )
    return found


def loading_code(example: Any) -> str:
    """Return Python code that loads the policy and has it answer ``example``; runs as it is in the run's folder."""
    if isinstance(example, str):
        inputs = f'inputs = tokenizer({example!r}, return_tensors="pt", return_token_type_ids=False)'
    else:
        inputs = (
            f"messages = {example!r}\n"
            "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, "
            'return_tensors="pt")'
        )
    code = "\n".join(
        [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'folder = "policy"  # this folder, or its name on the Hub',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            "model = AutoModelForCausalLM.from_pretrained(folder)",
            inputs,
            "output = model.generate(**inputs, max_new_tokens=64)",
            'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    )
    return fenced(code, "python")


def hub_name(policy: Mapping[str, Any]) -> str | None:
    """Return the Hub id that the policy started from, if it was one and no local folder."""
    path = starting_point(policy).get("path")
    # A folder of that name would have been loaded instead of the Hub's model.
    return path if isinstance(path, str) and HUB_NAME.fullmatch(path) and not Path(path).exists() else None


def shortest_prompt(generations: Path) -> Any:
    """Return the shortest prompt of the run, as text or as messages."""
    prompts = pq.read_table(generations, columns=["prompt"])["prompt"].to_pylist()
    return min(prompts, key=lambda prompt: len(str(prompt)))


def curve_png(rows: Sequence[MetricRow]) -> bytes:
    """Draw true quality and the judge's win rate by round; the same rows give the same bytes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    ax = figure.add_subplot()
    # Okabe and Ito's blue and vermilion, which colour-blind readers can tell apart.
    for metric, colour, marker in ((QUALITY, "#0072B2", "o"), (WIN_RATE, "#D55E00", "s")):
        points = [row for row in rows if row.get(metric.key) is not None]
        if not points:
            ax.plot([], [], color=colour, marker=marker, label=f"{metric.title}: n/a")
            continue
        errors = [row.get(metric.error) or 0.0 for row in points] if metric.error else None
        rounds, values = [row["round"] for row in points], [row[metric.key] for row in points]
        ax.errorbar(rounds, values, yerr=errors, color=colour, marker=marker, capsize=2, label=metric.title)
    # Half of the comparisons: no better than round 0.
    ax.axhline(0.5, color="#777", linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="best")
    buffer = io.BytesIO()
    # Without matplotlib's version, so that equal rows give equal bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
