"""The sample browser: filters, and the place where the script shows what fits them."""

from __future__ import annotations

from html import escape

from rlaif_lab.plateau.cause import KINDS
from rlaif_lab.report.sections.view import View, count
from rlaif_lab.tasks.reading import BACKWARDS

NAMED = {
    "coverage": "coverage: in no sample",
    "judge prefers wrong": "judge prefers wrong",
    "not taken up": "preferred, not taken up",
    "judge cannot tell": "judge cannot tell",
    "solved": "solved",
}
"""Kinds of what is left of a prompt, as the browser's filter names them."""


def browser(view: View) -> str:
    found = view.samples
    if found is None:
        return ""
    cells = found.content["cells"]
    arms = sorted({cell["arm"] for cell in cells})
    seeds = sorted({cell["seed"] for cell in cells})
    rounds = sorted({cell["round"] for cell in cells})
    labels = [row.label for row in view.rows]
    # Shown first: an arm that the overview is about, its first seed, its last round.
    first = labels.index(view.strong[0]) if view.strong else 0
    chosen = first if first in arms else arms[0]
    seed = min(cell["seed"] for cell in cells if cell["arm"] == chosen)
    last = max(cell["round"] for cell in cells if (cell["arm"], cell["seed"]) == (chosen, seed))
    kept = [item["left"] for cell in cells for item in cell["items"] if "left" in item]
    kinds: list[tuple[str, str]] = [(kind, f"{NAMED[kind]} ({kept.count(kind)})") for kind in KINDS if kind in kept]
    about = (
        f"{count(found.shown, 'prompt')} of {count(len(cells), 'round')} of runs are in this page, the same ones for "
        "every arm of a seed, and beside them some on which the judge prefers what gold calls worse "
        f"({found.disagreeing} of them) and some of each kind of what is left: the share of those is no estimate of "
        "anything. Every round asks fresh prompts."
    )
    if any("shown" in item for cell in cells for item in cell["items"]):
        about += f" {BACKWARDS}"
    notes = "".join(f'<p class="notice">{escape(note)}</p>' for note in found.notes)
    return f"""<section id="samples"><h2>What do the samples look like?</h2><p>{about}</p>{notes}
<noscript><p class="notice">The sample browser needs JavaScript, which is off here; everything else on this page works
without. The responses are in each run's export/ folder and round_*/generations.parquet as well.</p></noscript>
<div class="needs-script" hidden>
<div class="controls">
{_choice("arm", "Arm", [(str(i), labels[i]) for i in arms], str(chosen), "all arms")}
{_choice("seed", "Seed", [(str(s), str(s)) for s in seeds], str(seed), "all seeds")}
{_choice("round", "Round", [(str(r), str(r)) for r in rounds], str(last), "all rounds")}
{_choice("left", "What is left, and why", kinds, "", "all prompts") if kinds else ""}
<label class="field wide">Prompt, response or the judge's words contain
<input type="search" name="text" autocomplete="off"></label>
<label class="switch"><input type="checkbox" name="wrong" autocomplete="off">judge disagrees with gold</label>
</div>
<p class="count soft" aria-live="polite"></p>
<div class="found"></div>
<button type="button" class="more">Show more</button>
</div></section>"""


def _choice(name: str, title: str, options: list[tuple[str, str]], chosen: str, everything: str) -> str:
    listed = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in [("", everything), *options]
    )
    wide = " wide" if name == "arm" else ""
    return f'<label class="field{wide}">{title}<select name="{name}" autocomplete="off">{listed}</select></label>'
