// One answer: its text with marks, the products beside it, and what leads from one to the other.

import { colour, copiedParts, make, marked, reference, unsourced } from "./marks.js";
import { number, percent, say, seconds } from "./words.js";

const LEAST = 0.0005; // seconds of a stage that is worth telling

const at = (id) => document.getElementById(id);
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function reset(question) {
  at("answer-heading").textContent = question;
  at("verdict").replaceChildren();
  at("text").replaceChildren();
  at("text").setAttribute("aria-busy", "true");
  at("facts").replaceChildren();
  at("cards").replaceChildren();
  at("sources-heading").textContent = "";
  at("sources-note").textContent = "";
}

export function addPiece(text) {
  at("text").append(text);
}

// What the search found, while the answer is not there yet.
export function showCandidates(candidates, choose) {
  at("sources-heading").textContent = say("candidates");
  at("sources-note").textContent = "";
  at("cards").replaceChildren(...candidates.map((found, place) => card(productOf(found), place + 1, found, [], { choose })));
}

// A candidate of the search carries its product in itself or beside its scores.
const productOf = (found) => ({ ...found, ...(found.product ?? {}) });

// `candidates` are those of the search, for the reasons why a source was found.
export function showAnswer(answer, candidates, choose) {
  const why = new Map(candidates.map((found) => [productOf(found).id, found]));
  const numbers = new Map(answer.sources.map((source, place) => [source.id, place + 1]));
  const titles = new Map(answer.sources.map((source) => [source.id, source.title]));
  const spans = answer.spans ?? [];

  at("verdict").replaceChildren();
  if (answer.abstained) {
    at("verdict").append(make("strong", { class: answer.several ? "several" : "none" }, say(answer.several ? "several_title" : "none_title")));
  }
  const text = at("text");
  text.lang = answer.language;
  text.replaceChildren(
    marked(
      answer.text,
      spans,
      (id) => ({ number: numbers.get(id), title: titles.get(id) }),
      (part, index, number, title) => {
        if (number === undefined) {
          return make("span", { class: "unsourced" }, part, unsourced());
        }
        const show = () => select(spans[index].source, [index], "card");
        const span = make("span", { class: `copied ${colour(number)}`, "data-span": index }, part);
        span.append(reference(number, title, show));
        span.addEventListener("click", () => String(getSelection()) || show());
        return span;
      },
    ),
  );
  text.setAttribute("aria-busy", "false");
  at("facts").replaceChildren(facts(answer, spans));

  const heading = answer.abstained ? (answer.several ? "fitting" : "near") : "sources";
  at("sources-heading").textContent = say(heading);
  const copied = spans.some((span) => span.source !== null);
  at("sources-note").textContent = answer.abstained ? say(`${heading}_note`) : copied ? say("sources_note") : "";
  at("cards").replaceChildren(
    ...answer.sources.map((source, place) => {
      const own = spans.map((span, index) => ({ span, index })).filter(({ span }) => span.source === source.id);
      return card(source, place + 1, why.get(source.id), own, { choose, offered: answer.abstained });
    }),
  );
}

function facts(answer, spans) {
  const list = make("dl", { class: "facts" });
  const add = (name, value, help) => list.append(make("div", { title: help }, make("dt", {}, name), make("dd", {}, value)));
  add(say("confidence"), percent(answer.confidence), say("confidence_help"));
  if (spans.length) add(say("grounded"), percent(answer.grounded), say("grounded_help"));
  const total = answer.timings?.total;
  if (total !== undefined) add(say("time"), seconds(total));
  const href = `?${new URLSearchParams({ q: answer.question })}`;
  const link = make("a", { href, class: "link" }, say("link"));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    navigator.clipboard?.writeText(new URL(href, location.href).href).then(() => { link.textContent = say("copied_link"); }, () => {});
  });
  return make("div", { class: "below" }, legend(spans), list, times(answer.timings ?? {}), make("p", {}, link));
}

function legend(spans) {
  const without = spans.some((span) => span.source === null) && at("text").querySelector(".unsourced");
  return without ? make("p", { class: "legend" }, make("span", { class: "unsourced" }, say("legend_none"))) : null;
}

// Time by stage, as a bar and in words.
function times(timings) {
  const stages = Object.entries(timings).filter(([name, value]) => name !== "total" && value >= LEAST);
  if (!stages.length) return null;
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  const list = make("ul", { class: "stages" });
  stages.forEach(([name, value], place) => {
    const part = make("span", { class: `part p${(place % 4) + 1}` });
    part.style.flexGrow = value;
    bar.append(part);
    list.append(make("li", {}, make("span", { class: `dot p${(place % 4) + 1}`, "aria-hidden": "true" }), `${say("stages")[name] ?? name} ${seconds(value)}`));
  });
  return make("div", { class: "times" }, bar, list);
}

function card(source, place, found, own, { choose, offered = false }) {
  const head = make(
    "h3",
    {},
    make("button", { type: "button", class: "title", dir: "auto", "aria-pressed": "false", onclick: () => select(source.id, own.map(({ index }) => index), "answer") }, make("bdi", {}, source.title)),
  );
  const description = make("p", { class: "description", dir: "auto" });
  description.append(
    copiedParts(source.description, own, (part, indices) =>
      make("mark", { class: `copied ${colour(place)}`, "data-spans": indices.join(" "), title: say("part_of_answer"), onclick: () => String(getSelection()) || select(source.id, indices, "answer") }, part),
    ),
  );
  const element = make(
    "li",
    { class: `card ${own.length ? colour(place) : ""} ${source.cited ? "cited" : ""}`, "data-id": source.id },
    make("div", { class: "row" }, make("span", { class: `badge ${colour(place)}`, "aria-hidden": "true" }, `${place}`), head),
    reasons(source, found),
    description,
    offered ? make("button", { type: "button", class: "choose", onclick: () => choose(source.title) }, say("choose"), make("span", { class: "hidden" }, `: ${source.title}`)) : null,
  );
  element.addEventListener("click", (event) => {
    if (!event.target.closest("button, mark") && !String(getSelection())) select(source.id, own.map(({ index }) => index), null);
  });
  return element;
}

// Why a product was found: its exact title, its words, its likeness.
function reasons(source, found) {
  const list = make("ul", { class: "why" });
  const add = (text, help, kind = "") => list.append(make("li", { title: help, class: kind }, text));
  if (source.cited) add(say("cited"), undefined, "cited");
  if (source.exact) add(say("exact"), undefined, "exact");
  add(`${say("score")} ${number(source.score, 2)}`, say("score_help"));
  if (found) {
    add(`${say("words")} ${percent(found.coverage)}`, say("words_help"));
    add(`${say("similarity")} ${number(found.cosine, 2)}`, say("similarity_help"));
  }
  return list;
}

// Mark a product and what was copied from it, here and there; `towards` is what is brought into view.
function select(id, indices, towards) {
  for (const one of document.querySelectorAll("#cards .card")) {
    const chosen = one.dataset.id === id;
    one.classList.toggle("selected", chosen);
    one.querySelector(".title").setAttribute("aria-pressed", String(chosen));
    for (const mark of one.querySelectorAll("mark")) {
      mark.classList.toggle("active", chosen && mark.dataset.spans.split(" ").some((index) => indices.includes(Number(index))));
    }
  }
  for (const one of document.querySelectorAll("#text [data-span]")) {
    const active = indices.includes(Number(one.dataset.span));
    one.classList.toggle("active", active);
    one.querySelector("button").setAttribute("aria-pressed", String(active));
  }
  const goal = towards === "card" ? document.querySelector("#cards .card.selected mark.active") ?? document.querySelector("#cards .card.selected") : towards === "answer" ? document.querySelector("#text .active") : null;
  goal?.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
}

// Arrow keys go from product to product.
export function walk(event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const here = event.target.closest?.("#cards .card");
  if (!step || !here || event.altKey || event.ctrlKey || event.metaKey) return;
  const titles = [...document.querySelectorAll("#cards .card .title")];
  const next = titles[titles.indexOf(here.querySelector(".title")) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}
