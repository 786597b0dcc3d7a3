"""The pages of metrics and of configuration, made from the catalogue and from conf/ whenever the site is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File, Files

from rlaif_lab.metrics.base import FAMILIES, Row
from rlaif_lab.metrics.catalogue import sections
from rlaif_lab.metrics.labellers import in_words

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
BETTER = {"up": "higher", "down": "lower", "zero": "nearer to 0", "neither": "-"}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the generated pages to the site (mkdocs calls this)."""
    for name, text in (("metrics.md", metrics_page()), ("configuration.md", configuration_page())):
        files.append(File.generated(config, name, content=text))
    return files


def metrics_page() -> str:
    """Return the page of metrics: one table for each section of the catalogue."""
    lines = [
        "# Metrics",
        "",
        "Every name in `metrics.jsonl` and in W&B, one row each. **Bold** names are headlines, which are charted",
        'first. "Judged by" names roles; who has which role in a run stands in its `config.json` (`labellers`), in the',
        "report and in W&B's config, where it also says whether people are real or simulated. Nothing there: it is",
        "counted. Placeholders stand for a family of names:",
        "",
        *(f"- `{{{name}}}`: {words}" for name, (_, words) in FAMILIES.items()),
    ]
    for title, rows in sections().items():
        lines += [
            "",
            f"## {title}",
            "",
            "| name | unit | range | better | meaning | judged by | gold |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_metric(row) for row in rows]
    return "\n".join(lines) + "\n"


def _metric(row: Row) -> str:
    name = f"**`{row.name}`**" if row.level == "headline" else f"`{row.name}`"
    gold = "needs gold" if row.needs_gold else ""
    judged = in_words(row.by, row.name)
    return f"| {name} | {row.unit} | {row.range} | {BETTER[row.better]} | {row.meaning} | {judged} | {gold} |"


def configuration_page() -> str:
    """Return the page of configuration: the main file, then each group's choices with their first comment."""
    lines = [
        "# Configuration",
        "",
        "`rlaif-lab --cfg job` prints the configuration of a run. Choose from a group with `judge=stronger`, set a",
        "value with `judge.batch_size=64`, sweep over values with `-m seed=0,1,2`. This is `conf/config.yaml`:",
        "",
        "```yaml",
        (CONF / "config.yaml").read_text().rstrip(),
        "```",
        "",
        "## Groups",
    ]
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        choices = list(_choices(group))
        if choices:
            lines += ["", f"### {group.name}", "", "| choice | what it is | settings |", "|---|---|---|", *choices]
    return "\n".join(lines) + "\n"


def _choices(group: Path) -> Iterator[str]:
    for path in sorted(group.rglob("*.yaml")):
        text = path.read_text()
        about = " ".join(line[1:].strip() for line in _first_comment(text))
        content = yaml.safe_load(text) or {}
        keys = [key for key in content if key not in ("_target_", "defaults", "name", "hydra")]
        name = path.relative_to(group).with_suffix("").as_posix()
        yield f"| `{name}` | {_cell(about)} | {', '.join(f'`{key}`' for key in keys)} |"


def _first_comment(text: str) -> Iterator[str]:
    """Yield the comment lines that a file opens with."""
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            return
        yield line


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
