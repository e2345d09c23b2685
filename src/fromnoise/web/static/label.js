// The label page. Every vote goes into localStorage before it is sent and leaves it when the server says that it is on disk;
// it carries a key made here, so sending it again counts once. Whatever a model wrote becomes a text node, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const KEYS = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", t: "tie", b: "both_bad", s: "skip" };
const RETRY_MS = [400, 800, 1500, 3000, 5000]; // the last one again and again
const SHOW_CHOICE_MS = 140; // long enough to see what was chosen, short enough not to wait for

let rater = null;
let run = null; // the file of votes that the server writes to
let token = null;
let state = null; // what the server said last
let shownAt = 0;
let sending = false;
let tries = 0;
let retry = 0; // the timer of the next try

// -- what survives a closed window --------------------------------------------------------------------------------

const memory = new Map(); // where localStorage is forbidden the page still works, until it is closed

function recall(name) {
  try { return JSON.parse(localStorage.getItem(name)) ?? null; } catch { return memory.get(name) ?? null; }
}

function keep(name, value) {
  memory.set(name, value);
  try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* kept in memory */ }
}

// Each entry has a place of its own, so that two windows of one rater cannot write over each other's. Another run may be served at this
// address tomorrow: what was meant for one is never sent to another.
const prefix = () => `fromnoise/unsent/${run}/${encodeURIComponent(rater)}/`;

function unsent() {
  if (!run) return [];
  const found = new Map([...memory].filter(([name, value]) => name.startsWith(prefix()) && value !== null));
  try {
    for (let i = 0; i < localStorage.length; i++) {
      const name = localStorage.key(i);
      if (name.startsWith(prefix())) found.set(name, recall(name));
    }
  } catch { /* memory alone */ }
  return [...found.values()].filter(Boolean).sort((a, b) => a.order - b.order);
}

function enqueue(entry) {
  entry.body.run = run;
  entry.order = Date.now() + performance.now() / 1e6;
  keep(prefix() + entry.id, entry);
}

function dequeue(entry) {
  memory.delete(prefix() + entry.id);
  try { localStorage.removeItem(prefix() + entry.id); } catch { /* nothing was stored */ }
}

// -- talking to the server ----------------------------------------------------------------------------------------

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify({ ...body, rater }), signal: AbortSignal.timeout(15000) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.error || `the server answered ${response.status}`), { status: response.status, ours: Boolean(answer.error) });
  return answer;
}

// What the vote itself is to blame for. Anything else may pass: a proxy's own 404 while the server starts again, a name the server was not told of (421).
const isFinal = (error) => error.ours && [400, 404, 409, 413, 422].includes(error.status);

async function meet() {
  state = await call("/api/state", {});
  run = state.run;
}

// Send what is unsent, oldest first, then show what the server says comes next. One at a time; a failure is tried again for ever.
async function flush() {
  if (sending) return;
  sending = true;
  clearTimeout(retry);
  const mine = rater;
  try {
    if (!run) await meet();
    for (let waiting = unsent(); waiting.length; waiting = unsent()) {
      const entry = waiting[0];
      try {
        state = await call(entry.path, entry.body);
        dequeue(entry);
      } catch (error) {
        if (error.status === 412) { await meet(); continue; } // another run is served here now: the entry stays for its own
        if (!isFinal(error)) throw error;
        dequeue(entry); // it can never be taken: voted on in another window, or undone
        state = null;
        say(error.message);
      }
    }
    if (!state) state = await call("/api/state", {});
    if (rater !== mine) return; // another rater's link was opened meanwhile
    tries = 0;
    if ($("notice").dataset.kind === "offline") say("");
    show();
  } catch (error) {
    if (error.status === 401 || error.status === 403) { lock(error.message); return; }
    if (error.status === 422) { leave(error.message); return; }
    const count = unsent().length;
    say(`${count ? "Not sent yet: your vote is kept in this browser." : "The server does not answer."} Trying again…`, "offline");
    hold(true);
    retry = setTimeout(flush, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  } finally {
    sending = false;
    if (rater && rater !== mine) { state = null; flush(); }
  }
}

// -- voting -------------------------------------------------------------------------------------------------------

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function vote(choice) {
  if (!state?.showing) return;
  const key = newKey();
  const reason = $("reason").value.trim() || null;
  const seconds = Math.round((performance.now() - shownAt) / 10) / 100;
  enqueue({ id: key, path: "/api/vote", body: { key, showing: state.showing.id, choice, reason, seconds } });
  mark(choice);
  state = null; // nothing can be chosen until the next pair is here
  hold(true);
  setTimeout(flush, choice === "skip" ? 0 : SHOW_CHOICE_MS);
}

function undo() {
  const waiting = unsent();
  const key = waiting.length ? waiting.filter((entry) => entry.path === "/api/vote").at(-1)?.id : state?.undo;
  if (!key || waiting.some((entry) => entry.path === "/api/undo")) return;
  enqueue({ id: `undo-${key}`, path: "/api/undo", body: { key } });
  state = null;
  hold(true);
  flush();
}

// -- showing ------------------------------------------------------------------------------------------------------

function only(id) {
  for (const other of ["enter", "locked", "done", "pair"]) $(other).hidden = other !== id;
  document.querySelector("header").hidden = id === "enter" || id === "locked";
  $("controls").hidden = id !== "pair" && id !== "done";
  $("choices").hidden = id !== "pair";
  $("add-reason").hidden = $("more").querySelector("[data-choice=skip]").hidden = id !== "pair";
}

function hold(held) {
  $("pair").classList.toggle("held", held && tries > 0);
  for (const button of document.querySelectorAll("[data-choice]")) button.disabled = held;
  $("undo").disabled = held ? !unsent().some((entry) => entry.path === "/api/vote") : !state?.undo;
}

function mark(choice) {
  for (const side of ["left", "right"]) {
    $(side).classList.toggle("chosen", choice === side || choice === "tie");
    $(side).classList.toggle("passed", choice !== "tie" && choice !== side);
  }
}

function fill(element, text) {
  element.textContent = text || "(an empty answer)";
  element.classList.toggle("empty", !text);
}

function turn(message, alone) {
  const box = document.createElement("div");
  box.className = "turn";
  if (!alone) {
    const speaker = document.createElement("small");
    speaker.textContent = { user: "Person", assistant: "Model", system: "Instructions" }[message.role] || message.role;
    box.append(speaker);
  }
  const text = document.createElement("div");
  text.className = "text";
  text.dir = "auto";
  text.textContent = message.content;
  box.append(text);
  return box;
}

function show() {
  const { progress, showing } = state;
  const { labelled, wanted, mine, skipped } = progress;
  $("count").textContent = `${labelled.toLocaleString("en")} of ${wanted.toLocaleString("en")} pairs`;
  $("bar").firstElementChild.style.width = `${Math.min(100, (100 * labelled) / Math.max(wanted, 1))}%`;
  $("bar").setAttribute("aria-valuemax", wanted);
  $("bar").setAttribute("aria-valuenow", Math.min(labelled, wanted));
  $("who").textContent = `${rater}, ${mine.toLocaleString("en")} by you`;
  if (!showing) {
    only("done");
    const all = labelled >= wanted;
    $("done-title").textContent = all ? "All done. Thank you." : "Nothing more for you. Thank you.";
    $("done-text").textContent = `${labelled.toLocaleString("en")} of ${wanted.toLocaleString("en")} pairs are labelled; ${mine === 1 ? "1 vote is" : `${mine.toLocaleString("en")} votes are`} yours. `
      + (all ? "You can close this page." : skipped ? `You skipped ${skipped.toLocaleString("en")}.` : "The others are for other raters: you can close this page.");
    $("unskip").hidden = all || !skipped;
    hold(false);
    return;
  }
  only("pair");
  $("prompt").replaceChildren(...showing.messages.map((message) => turn(message, showing.messages.length === 1)));
  for (const side of ["left", "right"]) {
    $(side).classList.remove("chosen", "passed");
    fill($(side).querySelector(".text"), showing[side]);
  }
  $("reason").value = "";
  openReason(false);
  hold(false);
  scrollTo(0, 0);
  $("prompt").focus({ preventScroll: true }); // a screen reader begins at the question; keys go to the page
  shownAt = performance.now();
}

function say(text, kind = "") {
  $("notice").textContent = text;
  $("notice").dataset.kind = kind;
  $("notice").hidden = !text;
  if (text && !kind) setTimeout(() => { if ($("notice").textContent === text) say(""); }, 6000);
}

function openReason(open) {
  $("why").hidden = !open;
  $("add-reason").setAttribute("aria-expanded", String(open));
  if (open) $("reason").focus();
}

function lock(why) {
  only("locked");
  $("locked-why").textContent = `${why[0].toUpperCase()}${why.slice(1)}. Ask whoever runs this page for it.${unsent().length ? " Your unsent vote is kept here." : ""}`;
}

// -- coming in ----------------------------------------------------------------------------------------------------

// A link is /#rater=ann&token=...: what follows # never leaves the browser, so it stands in no log and no Referer header.
function enter(name, secret) {
  rater = name.normalize("NFC").split(/\s+/).filter(Boolean).join(" ");
  token = secret;
  state = null;
  flush();
}

function leave(why) {
  rater = null;
  only("enter");
  $("enter-problem").textContent = why || "";
  $("name").focus();
}

function start() {
  const link = new URLSearchParams(location.hash.slice(1));
  if (link.get("rater")) enter(link.get("rater"), link.get("token"));
  else leave();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = new URLSearchParams({ rater: $("name").value }).toString(); // a reload, or a bookmark, comes back to the same rater
});
addEventListener("hashchange", start);
addEventListener("online", () => { if (rater && !state) flush(); }); // what is shown stays: a reason may be half written
$("controls").addEventListener("click", (event) => {
  const choice = event.target.closest("[data-choice]")?.dataset.choice;
  if (choice) vote(choice);
});
$("undo").addEventListener("click", undo);
$("unskip").addEventListener("click", () => {
  enqueue({ id: newKey(), path: "/api/unskip", body: {} });
  flush();
});
$("add-reason").addEventListener("click", () => openReason($("why").hidden));
$("reason").addEventListener("keydown", (event) => {
  if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey && !event.isComposing)) {
    event.preventDefault();
    event.stopPropagation();
    $("prompt").focus({ preventScroll: true });
    if (!$("reason").value.trim()) openReason(false);
  }
});
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea") || !rater) return;
  const key = event.key > "~" && /^Key.$/.test(event.code) ? event.code.at(-1) : event.key; // a keyboard of another script: the Latin letter of that place
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (KEYS[name]) vote(KEYS[name]);
  else if (name === "u") undo();
  else if (name === "r" && state?.showing) openReason(true);
  else return;
  event.preventDefault();
});
start();
