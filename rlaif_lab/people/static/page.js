"use strict";
// Keys, the timer, and a label that is held on to while the connection is gone. Without this file the page still works.
(() => {
  const form = document.getElementById("choices");
  const undo = document.getElementById("undo");
  const pause = document.getElementById("pause");
  const item = document.getElementById("item");
  const status = document.getElementById("status");
  const SETTLED_MS = 300;
  const shown = performance.now();
  const key = `spent ${form.elements.namedItem("item").value}`;
  let spent = Number(sessionStorage.getItem(key)) || 0;  // of before a reload
  let since = performance.now();
  let running = true;
  let sending = false;

  const stop = () => { if (running) { spent += performance.now() - since; running = false; } };
  const go = () => { if (!running) { since = performance.now(); running = true; } };
  const paused = () => pause.getAttribute("aria-pressed") === "true";
  const say = (text) => { status.textContent = text; };
  const controls = () => document.querySelectorAll("button[data-key], #pause");
  // The second half of a double click, or of a key that was hit twice, is not meant for the item that has just come.
  const settled = () => performance.now() - shown >= SETTLED_MS;

  window.addEventListener("pagehide", () => {
    if (sending) { return; }
    stop();
    sessionStorage.setItem(key, String(spent));
  });
  document.addEventListener("click", (event) => {
    if (event.isTrusted && !settled() && event.target.closest("button[data-key]")) { event.preventDefault(); }
  }, true);

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
        if (answer.ok) { sessionStorage.removeItem(key); window.location.replace("/label"); return; }
        say(`Not saved: ${await answer.text()} `);
        const on = document.createElement("a");
        on.href = "/label";
        on.textContent = "Go on with the next item";
        status.append(on);
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
    for (const button of controls()) { button.disabled = true; }
    await send(source.getAttribute("action"), body);
    sending = false;
    for (const button of controls()) { button.disabled = false; }
    go();
  };
  form.addEventListener("submit", submit);
  undo.addEventListener("submit", submit);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || paused()) { return; }
    if (event.target instanceof HTMLInputElement || !settled()) { return; }
    const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (button && !button.disabled) { event.preventDefault(); button.form.requestSubmit(button); }
  });
})();
