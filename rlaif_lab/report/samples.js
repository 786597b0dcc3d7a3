"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const box = document.getElementById("samples");
  const find = (name) => box.querySelector(`[name="${name}"]`);
  const fields = { arm: find("arm"), seed: find("seed"), round: find("round"), left: find("left"), wrong: find("wrong"), text: find("text") };
  const list = box.querySelector(".found");
  const count = box.querySelector(".count");
  const more = box.querySelector(".more");
  const PAGE = 8;
  let limit = PAGE;

  // One entry per prompt of a round of a run; the same prompt of several arms side by side, later rounds after earlier.
  const entries = data.cells.flatMap((cell) => cell.items.map((item) => ({ ...cell, item,
    wrong: item.verdicts.some((v) => v[7]),
    searched: [item.prompt, ...(item.shown || []), ...item.responses.map((r) => r[1]), ...item.verdicts.map((v) => v[6] || "")].join("\n").toLowerCase() })));
  const order = new Map();
  for (const e of entries) { const key = `${e.seed} ${e.round} ${e.item.id}`; if (!order.has(key)) order.set(key, order.size); }
  entries.sort((a, b) => a.round - b.round || a.seed - b.seed
    || order.get(`${a.seed} ${a.round} ${a.item.id}`) - order.get(`${b.seed} ${b.round} ${b.item.id}`) || a.arm - b.arm);

  // Model output only ever becomes text: nothing here parses HTML.
  const make = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children);
    return element;
  };
  const fixed = (value) => value === null || value === undefined ? "n/a" : value.toFixed(2);
  const span = (text, name = "") => make("span", name, text);

  // What a person reads first, and below it, where the two differ, what the policy really wrote.
  function texts(name, shown, text) {
    const parts = [make("div", name, shown === "" ? "(empty)" : shown)];
    if (shown !== text) parts.push(make("div", "raw soft", "as written: ", make("code", "", text)));
    return parts;
  }

  function response([alike, text, gold, rate], shown) {
    const kind = gold === null ? "" : gold >= 0.999 ? " right" : gold <= 0.001 ? " wrong" : "";
    const mark = kind === " right" ? "✓ " : kind === " wrong" ? "✗ " : "";
    const facts = make("div", "facts", span(`${alike.length > 1 ? "samples" : "sample"} ${alike.join(", ")}`),
      span(`${mark}gold ${fixed(gold)}`, "gold"));
    const parts = [facts, ...texts("verbatim", shown, text)];
    if (rate !== null) {
      const meter = make("div", "meter", make("i"));
      meter.firstChild.style.width = `${rate * 100}%`;
      parts.push(make("div", "facts", span(`judge: wins ${Math.round(rate * 100)} %`), meter));
    }
    return make("div", `response${kind}`, ...parts);
  }

  function verdict([first, second, p, shownFirst, shownSecond, status, words, wrong]) {
    const line = make("li");
    if (p === null) {
      line.append(`${first} or ${second}: no verdict (${status})`);
    } else if (p === 0.5) {
      line.append(`${first} and ${second}: a tie`);
    } else {
      const [better, worse, sure] = p > 0.5 ? [first, second, p] : [second, first, 1 - p];
      const [one, two] = p > 0.5 ? [shownFirst, shownSecond] : [shownFirst === null ? null : 1 - shownFirst, shownSecond === null ? null : 1 - shownSecond];
      line.append(make("b", "", `${better} over ${worse}`), `, P = ${fixed(sure)}`);
      if (one !== null && two !== null && Math.abs(one - two) >= 0.005) line.append(span(` (${fixed(one)}, swapped ${fixed(two)})`, "soft"));
      if (wrong) line.append(" ", span("✗ gold: the opposite", "flag"));
    }
    if (words) line.append(make("div", "verbatim soft", words));
    return line;
  }

  function card(entry) {
    const { item } = entry;
    const same = make("button", "linklike", "this prompt under every arm");
    same.type = "button";
    same.addEventListener("click", () => {
      fields.arm.value = ""; fields.wrong.checked = false; if (fields.left) fields.left.value = ""; fields.text.value = item.prompt;
      fields.seed.value = String(entry.seed); fields.round.value = String(entry.round);
      show(PAGE);
    });
    const head = make("header", "", make("b", "", data.arms[entry.arm]), span(`seed ${entry.seed}`), span(`round ${entry.round}`));
    if (entry.wrong) head.append(span("✗ the judge disagrees with gold", "flag"));
    if (item.left) head.append(span(item.left, "soft"));
    if (data.arms.length > 1) head.append(same);
    const shown = item.shown || [item.prompt, ...item.responses.map((r) => r[1])];
    const asked = texts("verbatim", shown[0], item.prompt);
    if (item.right !== undefined) asked.push(make("div", "right", "right answer: ", make("b", "verbatim", item.right)));
    const parts = [head, make("div", "asked", ...asked),
      make("div", "responses", ...item.responses.map((given, i) => response(given, shown[i + 1])))];
    if (item.verdicts.length) parts.push(make("ul", "said", ...item.verdicts.map(verdict)));
    else parts.push(make("p", "soft", "No verdicts: all responses are the same, or the judge was not asked."));
    return make("article", "sample", ...parts);
  }

  function show(upTo) {
    limit = upTo;
    const text = fields.text.value.trim().toLowerCase();
    const found = entries.filter((e) => (fields.arm.value === "" || e.arm === Number(fields.arm.value))
      && (fields.seed.value === "" || e.seed === Number(fields.seed.value))
      && (fields.round.value === "" || e.round === Number(fields.round.value))
      && (!fields.left || fields.left.value === "" || e.item.left === fields.left.value)
      && (!fields.wrong.checked || e.wrong) && (text === "" || e.searched.includes(text)));
    list.replaceChildren(...found.slice(0, limit).map(card));
    const shown = Math.min(limit, found.length);
    count.textContent = found.length ? `${shown} of ${found.length} prompts` : "No prompt fits these filters.";
    more.hidden = shown >= found.length;
  }

  for (const field of [fields.arm, fields.seed, fields.round, fields.left, fields.wrong].filter(Boolean)) field.addEventListener("change", () => show(PAGE));
  fields.text.addEventListener("input", () => show(PAGE));
  more.addEventListener("click", () => show(limit + 2 * PAGE));
  box.querySelector(".needs-script").hidden = false;
  show(PAGE);
})();
