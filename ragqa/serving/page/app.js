// The page: a question, its answer as it is written, and its address.

import { about, ask, hasKey, keepKey, Problem } from "./api.js";
import * as answers from "./answer.js";
import * as comparison from "./compare.js";
import { make } from "./marks.js";
import { choose as chooseLanguage, current, fill, number, say } from "./words.js";

const at = (id) => document.getElementById(id);
const question = at("question");

let running = null; // the AbortController of what is being asked
let last = null; // { answer, candidates }, to be shown again in another language
let told = null; // what /v1/about said
let problem = null;
let status = "";
let view = "answer";

function tellStatus(name) {
  status = name;
  // That it is done is seen; it is said to those who do not see it.
  at("status").replaceChildren(make("span", { class: name === "done" || name === "compared" ? "hidden" : "" }, name ? say(name) : ""));
}

function busy(on) {
  at("send").hidden = on;
  at("stop").hidden = !on;
  document.body.classList.toggle("busy", on);
}

// Ask what stands in the box, in the view that is open.
async function submit({ remember = true } = {}) {
  const text = question.value.trim();
  stop(false);
  showProblem(null);
  if (!text) {
    tellStatus("question_empty");
    question.focus();
    return;
  }
  if (remember) history.pushState(null, "", address(text));
  document.title = `${text} · ragqa`;
  const own = new AbortController();
  running = own;
  busy(true);
  try {
    await (view === "compare" ? compared(text, own.signal) : answered(text, own.signal));
  } catch (error) {
    if (running !== own) return; // another question took its place
    if (error.name === "AbortError") tellStatus("stopped");
    else {
      tellStatus("");
      showProblem(error instanceof Problem ? error : new Problem("failed", { detail: String(error) }));
    }
    at("text").setAttribute("aria-busy", "false");
  } finally {
    if (running === own) {
      running = null;
      busy(false);
    }
  }
}

async function answered(text, signal) {
  last = null;
  at("empty").hidden = true;
  at("result").hidden = false;
  answers.reset(text);
  tellStatus("asking");
  let candidates = [];
  const found = (reply) => {
    candidates = reply.candidates ?? [];
    answers.showCandidates(candidates, choose);
  };
  const piece = (text) => { tellStatus("writing"); answers.addPiece(text); };
  const answer = await ask(text, { found, piece }, signal);
  if (signal.aborted) throw signal.reason;
  last = { answer, candidates };
  answers.showAnswer(answer, candidates, choose);
  tellStatus("done");
}

async function compared(text, signal) {
  tellStatus("comparing");
  const there = await comparison.run(text, signal);
  tellStatus(there ? "compared" : "");
}

function choose(title) {
  question.value = title;
  question.focus();
  submit();
}

function stop(tell = true) {
  const one = running;
  if (!tell) running = null;
  one?.abort();
}

function address(text) {
  const fields = new URLSearchParams();
  if (text) fields.set("q", text);
  if (view === "compare") fields.set("view", "compare");
  const query = fields.toString();
  return query ? `?${query}` : location.pathname;
}

const TITLES = { gone: "gone_title", broken: "broken_title", busy: "busy_title", often: "often_title", key: "key_title", refused: "refused_title", failed: "failed_title" };

// What went wrong, and what to do.
function showProblem(error) {
  problem = error;
  const box = at("problem");
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  const { kind } = error;
  box.append(make("h2", {}, say(TITLES[kind])));
  const say_ = (text) => text && box.append(make("p", { dir: "auto" }, text));
  if (kind === "key") {
    say_(hasKey() ? say("key_wrong") : say("key"));
    const input = make("input", { id: "key", type: "password", autocomplete: "off", required: true, pattern: "[!-~]+" });
    const form = make("form", { class: "field" }, make("label", { for: "key" }, say("key_label")), input, make("button", { type: "submit" }, say("key_send")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      keepKey(input.value);
      learn();
      submit({ remember: false });
    });
    box.append(form);
    input.focus();
    return;
  }
  if (["gone", "broken", "busy", "often"].includes(kind)) say_(say(kind));
  if (kind === "busy" || kind === "often") say_(error.wait === null ? say("wait_some") : say("wait", error.wait));
  if (kind === "refused" || kind === "failed") say_(error.detail || error.title);
  if (kind === "failed") say_(say("failed"));
  if (kind !== "refused") box.append(make("button", { type: "button", onclick: () => submit({ remember: false }) }, say("again")));
}

async function learn() {
  try {
    told = await about();
  } catch {
    return; // the question that is asked will tell what is wrong
  }
  tellAbout();
}

function tellAbout() {
  if (told) at("about").textContent = say("about", told.index.name, number(told.index.products));
}

function open(name) {
  view = name;
  for (const one of ["answer", "compare"]) {
    const chosen = one === name;
    at(`tab-${one}`).setAttribute("aria-selected", String(chosen));
    at(`tab-${one}`).tabIndex = chosen ? 0 : -1;
    at(`view-${one}`).hidden = !chosen;
  }
}

// A tab that was chosen by hand asks the question that stands there, unless it has its answer.
function turn(name) {
  if (name === view) return;
  stop(false);
  busy(false);
  open(name);
  tellStatus("");
  showProblem(null);
  const text = question.value.trim();
  history.pushState(null, "", address(text));
  const has = name === "compare" ? comparison.shownQuestion() : last?.answer.question;
  if (text && has !== text) submit({ remember: false });
}

function translate() {
  fill(document);
  tellAbout();
  for (const button of document.querySelectorAll(".languages button")) {
    button.setAttribute("aria-pressed", String(button.value === current()));
  }
  if (last && !running) answers.showAnswer(last.answer, last.candidates, choose);
  if (!running) comparison.show();
  tellStatus(status);
  if (problem) showProblem(problem);
}

// What the address says.
function follow() {
  const fields = new URLSearchParams(location.search);
  open(fields.get("view") === "compare" ? "compare" : "answer");
  question.value = fields.get("q") ?? "";
  if (question.value.trim()) submit({ remember: false });
  else {
    stop(false);
    busy(false);
    at("result").hidden = true;
    at("empty").hidden = false;
    document.title = "ragqa";
    tellStatus("");
    showProblem(null);
    question.focus();
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("stop").addEventListener("click", () => stop());
addEventListener("popstate", follow);
for (const button of document.querySelectorAll(".languages button")) {
  button.addEventListener("click", () => {
    chooseLanguage(button.value);
    translate();
  });
}
for (const name of ["answer", "compare"]) at(`tab-${name}`).addEventListener("click", () => turn(name));

addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape" && running) {
    event.preventDefault();
    stop();
  } else if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    question.focus();
    question.select();
  } else if (event.target.getAttribute?.("role") === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    turn(view === "answer" ? "compare" : "answer");
    at(`tab-${view}`).focus();
  } else {
    answers.walk(event);
  }
});

translate();
learn();
follow();
