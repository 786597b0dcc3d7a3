"use strict";
// Keys, the timer, and a label that is held on to while the connection is gone. Without this file the page still works.
(() => {
  const form = document.getElementById("choices");
  const undo = document.getElementById("undo");
  const pause = document.getElementById("pause");
  const item = document.getElementById("item");
  const status = document.getElementById("status");
  let spent = 0;
  let since = performance.now();
  let running = true;
  let sending = false;

  const stop = () => { if (running) { spent += performance.now() - since; running = false; } };
  const go = () => { if (!running) { since = performance.now(); running = true; } };
  const paused = () => pause.getAttribute("aria-pressed") === "true";
  const say = (text) => { status.textContent = text; };

  pause.addEventListener("click", () => {
    const now = !paused();
    pause.setAttribute("aria-pressed", String(now));
    pause.textContent = now ? "Go on" : "Pause";
    item.hidden = now;
    say(now ? "Paused: no time is counted." : "");
    if (now) { stop(); } else { go(); }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stop(); } else if (!paused()) { go(); }
  });

  const send = async (target, body) => {
    // The server keeps one label per person and item, so sending it again is safe.
    for (let wait = 1000; ; wait = Math.min(wait * 2, 10000)) {
      try {
        const answer = await fetch(target, { method: "POST", body, redirect: "follow", credentials: "same-origin" });
        if (answer.ok) { window.location.replace("/label"); return; }
        say(`Not saved: ${await answer.text()}`);
        return;
      } catch {
        say("No connection: your label is kept here and is sent again as soon as the connection is back.");
        await new Promise((done) => { setTimeout(done, wait); });
      }
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    if (sending) { return; }
    sending = true;
    stop();
    const source = event.target;
    source.elements.namedItem("seconds")?.setAttribute("value", (spent / 1000).toFixed(2));
    const body = new URLSearchParams(new FormData(source, event.submitter));
    for (const button of document.querySelectorAll("button")) { button.disabled = true; }
    await send(source.getAttribute("action"), body);
    sending = false;
    for (const button of document.querySelectorAll("button")) { button.disabled = false; }
    go();
  };
  form.addEventListener("submit", submit);
  undo.addEventListener("submit", submit);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || paused()) { return; }
    if (event.target instanceof HTMLInputElement) { return; }
    const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (button && !button.disabled) { event.preventDefault(); button.form.requestSubmit(button); }
  });
})();
