"""The page in a real browser, opened from the disk as a reader would: what is there, what the filters do, a phone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser

from report.synthetic import SHAPES, Shape, asked, rows, sums, write_round, write_run, write_study
from rlaif_lab.cli.report import read, report
from rlaif_lab.report.page import page

HOSTILE = "</script><script>document.title = 'taken over'</script><img src=x onerror=\"document.title='taken over'\">"
WITHOUT_GOLD = {
    "_target_": "rlaif_lab.tasks.prompts_file.PromptsFile",
    "name": "open_prompts",
    "path": None,
    "columns": {"id": "id"},
    "max_response_tokens": 64,
}
SECTIONS = ("overview", "values", "why", "progress", "judge", "self_score", "bias", "cost", "coverage", "optimisation")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self, stronger and random, three seeds; seed 0 of each with samples. Another arm does its worst."""
    folder = tmp_path_factory.mktemp("study")
    shapes = {name: SHAPES[name] for name in ("self", "stronger", "random")}
    write_study(folder, shapes, range(3), 5, prompts=40, stored_seeds=1)
    hostile = folder / "hostile"
    write_run(hostile, f"arm {HOSTILE}", 0, rows(Shape(0.5, 2.0, 0.7), 0, 5), task=WITHOUT_GOLD)
    worst = asked(f"prompt {HOSTILE}", f"answer {HOSTILE}", "x" * 5000, "\u2028 <!-- ")
    write_round(hostile, 0, [worst, *sums(3, "another")], graded=False, words=f"judge {HOSTILE}")
    (folder / "report.html").write_text(page(read(folder)), encoding="utf-8")
    return folder


@pytest.fixture
def opened(chromium: Browser, study: Path) -> Browser:
    chromium.resize(1280, 900)
    chromium.open(study / "report.html")
    return chromium


def shown(opened: Browser) -> list[str]:
    """The text of the samples that are there to be read."""
    found: list[str] = opened.evaluate("[...document.querySelectorAll('#samples .sample')].map(e => e.innerText)")
    return found


def counted(opened: Browser) -> int:
    """How many prompts the browser says fit the filters."""
    said: str = opened.evaluate("document.querySelector('#samples .count').textContent")
    return int(said.split(" of ")[1].split()[0]) if " of " in said else 0


# --- what is there ----------------------------------------------------------------------------------------------------
def test_nothing_is_fetched_and_nothing_goes_wrong(opened: Browser, study: Path) -> None:
    assert opened.errors == []
    assert opened.requests == [(study / "report.html").resolve().as_uri()]


def test_every_section_and_figure_can_be_seen(opened: Browser) -> None:
    for name in (*SECTIONS, "samples", "problems", "provenance"):
        assert opened.evaluate(f"document.getElementById({name!r}).getBoundingClientRect().height") > 20, name
    charts = "[...document.querySelectorAll('figure .chart')]"
    sizes = opened.evaluate(f"{charts}.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])")
    assert len(sizes) > 25
    assert all(width > 200 and height > 100 for width, height in sizes)
    assert min(opened.evaluate(f"{charts}.map(e => e.querySelectorAll('.line').length)")) >= 1


def test_headline_tells_the_result(opened: Browser) -> None:
    said = opened.evaluate("document.querySelector('.headline').innerText")
    assert said.startswith("self reaches 0.")
    assert "; stronger reaches 0." in said
    assert "paired over 3 seeds" in said


def test_an_arm_can_be_hidden_in_all_charts(opened: Browser) -> None:
    """By style alone, so that it works without JavaScript."""
    label = "document.querySelector('.arms label:nth-child(2)')"
    key = opened.evaluate(f"{label}.querySelector('input').id").removeprefix("show-")
    drawn = f"[...document.querySelectorAll('figure .{key}')]"
    visible = f"{drawn}.filter(e => getComputedStyle(e).display !== 'none').length"
    assert opened.evaluate(visible) > 20
    opened.click(".arms label:nth-child(2)")
    assert opened.evaluate(visible) == 0
    opened.click(".arms label:nth-child(2)")
    assert opened.evaluate(visible) > 20


# --- the sample browser -----------------------------------------------------------------------------------------------
def test_samples_begin_with_the_baseline(opened: Browser) -> None:
    cards = shown(opened)
    assert cards
    assert all(card.startswith("self\nseed 0\nround 4") for card in cards)
    assert "gold 1.00" in "".join(cards)
    assert "judge: wins" in "".join(cards)


def test_disagreements_only(opened: Browser) -> None:
    everything = counted(opened)
    opened.click("#samples .switch")
    cards = shown(opened)
    assert 0 < counted(opened) < everything
    assert all("the judge disagrees with gold" in card and "gold: the opposite" in card for card in cards)


def test_lists_choose_arm_and_round(opened: Browser) -> None:
    opened.choose("#samples [name=arm]", "")
    every_arm = counted(opened)
    assert {card.split("\n")[0] for card in shown(opened)} >= {"self", "stronger", "random"}
    opened.choose("#samples [name=round]", "")
    assert counted(opened) > every_arm
    position = opened.evaluate("[...document.querySelector('[name=arm]').options].find(o => o.text === 'random').value")
    opened.choose("#samples [name=arm]", position)
    opened.choose("#samples [name=round]", "2")
    assert all(card.startswith("random\nseed 0\nround 2") for card in shown(opened))


def test_more_are_shown_on_demand(opened: Browser) -> None:
    before = len(shown(opened))
    assert before < counted(opened)
    opened.click("#samples .more")
    assert len(shown(opened)) > before


def test_typing_filters_and_the_same_prompt_of_every_arm(opened: Browser) -> None:
    prompt = opened.evaluate("document.querySelector('#samples .asked .verbatim').textContent")
    opened.type("#samples [name=text]", prompt)
    assert counted(opened) == 1
    opened.evaluate("document.querySelector('#samples [name=text]').value = ''")
    opened.choose("#samples [name=arm]", opened.evaluate("document.querySelector('[name=arm]').value"))
    assert counted(opened) > 1
    opened.click("#samples .sample .linklike")
    assert {card.split("\n")[0] for card in shown(opened)} == {"self", "stronger", "random"}
    assert all(prompt in card for card in shown(opened))
    opened.type("#samples [name=text]", "no such words")
    assert shown(opened) == []
    assert "No prompt fits" in opened.evaluate("document.querySelector('#samples .count').textContent")


def test_hostile_text_stays_text(opened: Browser) -> None:
    opened.choose("#samples [name=arm]", "")
    opened.choose("#samples [name=seed]", "")
    opened.choose("#samples [name=round]", "")
    opened.type("#samples [name=text]", "prompt </script>")
    (card,) = shown(opened)
    assert f"prompt {HOSTILE}" in card
    assert f"answer {HOSTILE}" in card
    assert f"arm {HOSTILE}" in card
    assert f"judge {HOSTILE}" in card
    assert "3500 more characters" in card
    assert opened.evaluate("document.title") == "synthetic"
    assert opened.evaluate("document.querySelectorAll('img, script').length") == 2  # the data, and our own
    assert opened.errors == []
    assert len(opened.requests) == 1


@pytest.mark.parametrize(
    ("element", "directive"),
    [
        ("Object.assign(document.createElement('script'), {text: 'document.title = 1'})", "script-src-elem"),
        ("Object.assign(new Image(), {src: 'http://example.invalid/x.png'})", "img-src"),
    ],
)
def test_policy_forbids_what_is_not_ours(opened: Browser, element: str, directive: str) -> None:
    """If something did slip through the escaping, the browser would not run or load it."""
    violated = opened.evaluate(
        "new Promise(told => { document.addEventListener('securitypolicyviolation', e => told(e.violatedDirective));"
        f" document.body.append({element}); }})"
    )
    assert violated == directive
    assert opened.evaluate("document.title") == "synthetic"


# --- on a phone, in the dark, without JavaScript ----------------------------------------------------------------------
def test_phone(chromium: Browser, study: Path) -> None:
    chromium.resize(360, 740, phone=True)
    chromium.open(study / "report.html")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
    chromium.choose("#samples [name=arm]", "")
    chromium.choose("#samples [name=round]", "")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
    small = chromium.evaluate(
        "[...document.querySelectorAll('select, input[type=search], button, .arms label, .switch')]"
        ".filter(e => e.getBoundingClientRect().height > 0 && e.getBoundingClientRect().height < 36).length"
    )
    assert small == 0, "controls that are too small for a finger"
    texts = chromium.evaluate(
        "[...document.querySelectorAll('figure .chart text')].map(e => parseFloat(getComputedStyle(e).fontSize)"
        " * e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert min(texts) > 10, "text in charts must stay readable (CSS pixels)"
    wide = chromium.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.getBoundingClientRect().width <= 360)"
    )
    assert wide, "tables scroll within their box"


CONTRAST = """(() => {
  const part = x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(x => part(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.endsWith(', 0)')) return c;
    }
    throw Error('no background');
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('script, noscript, title, option') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${e.textContent.trim().slice(0, 40)}: ${ink} on ${ground(e)}`);
  }
  return low;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(chromium: Browser, study: Path, scheme: str) -> None:
    """WCAG AA, 4.5 to 1, for every piece of text."""
    chromium.resize(1280, 900)
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    chromium.open(study / "report.html")
    try:
        assert chromium.evaluate(CONTRAST) == []
    finally:
        chromium.call("Emulation.setEmulatedMedia", features=[])


def test_without_javascript(chromium: Browser, study: Path) -> None:
    """All but the sample browser is there, and that says why it is not."""
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(study / "report.html")
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "needs JavaScript" in chromium.evaluate("document.querySelector('#samples').innerText")
    assert chromium.evaluate("document.querySelector('#samples .controls').getClientRects().length") == 0
    assert chromium.evaluate("document.querySelectorAll('figure .chart').length") > 25


# --- few and many -----------------------------------------------------------------------------------------------------
def test_one_seed_of_one_arm_of_an_old_run_without_gold(chromium: Browser, tmp_path: Path) -> None:
    """Metrics as they were before there was a detector, an audit or coverage; nothing that needs gold."""
    content = [{"round": i, "quality/sampled": None, "judge/win_rate_vs_round_0": 0.5 + 0.1 * i} for i in range(3)]
    write_run(tmp_path / "run", "helpful", 0, content)
    (tmp_path / "report.html").write_text(page(read(tmp_path)), encoding="utf-8")
    chromium.resize(360, 740, phone=True)
    chromium.open(tmp_path / "report.html")
    assert chromium.errors == []
    assert "no gold quality here" in chromium.evaluate("document.querySelector('.headline').innerText")
    assert chromium.evaluate("document.querySelectorAll('figure .chart').length") == 1
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_a_hundred_runs_in_time_and_size(chromium: Browser, tmp_path: Path) -> None:
    """Ten arms of ten seeds, twenty rounds, a thousand prompts each: 20 s of one core, 5 MB."""
    shapes = {f"arm {i}": Shape(0.4 + 0.05 * i, 1.0 + i, 0.5 + 0.05 * i) for i in range(9)} | {"self": SHAPES["self"]}
    write_study(tmp_path, shapes, range(10), 20, prompts=1000)
    begun = time.process_time()
    report(tmp_path)
    assert time.process_time() - begun < 20
    assert (tmp_path / "report" / "report.html").stat().st_size < 5e6
    chromium.resize(1280, 900)
    chromium.open(tmp_path / "report" / "report.html")
    assert chromium.errors == []
    assert counted(chromium) > 0


@pytest.mark.slow
def test_a_hundred_arms_are_not_all_drawn(chromium: Browser, tmp_path: Path) -> None:
    """Two dozen from the best to the worst, the baseline and the best among them; the tables have them all."""
    shapes = {f"arm {i}": Shape(0.4 + 0.005 * i, 3.0, 0.7) for i in range(99)} | {"self": SHAPES["self"]}
    write_study(tmp_path, shapes, range(1), 20)
    (tmp_path / "report.html").write_text(page(read(tmp_path)), encoding="utf-8")
    assert (tmp_path / "report.html").stat().st_size < 5e6
    chromium.resize(1280, 900)
    chromium.open(tmp_path / "report.html")
    assert chromium.evaluate("document.querySelectorAll('.arms label').length") == 24
    assert chromium.evaluate("document.querySelector('figure .chart').querySelectorAll('.line').length") == 24
    assert "76 of 100 arms are not in the charts" in chromium.evaluate("document.querySelector('main').innerText")
    assert chromium.evaluate("document.querySelector('#values ~ .scroll').querySelectorAll('tbody tr').length") == 100
