import { say } from "./words.js";
// Texts with their copied parts marked. Everything from outside goes in as text nodes, never as HTML.

// An element with properties and children; strings become text.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const COLOURS = 6;
const SPOKEN = /[\p{L}\p{N}]/u;

// The class that colours the source of a number from 1.
export const colour = (number) => `s${((number - 1) % COLOURS) + 1}`;

// Lengths in the API are of code points, those of JavaScript's strings of UTF-16 units.
export const characters = (text) => Array.from(text);

// The number of a source after what was copied from it: what can be pressed, and read aloud.
export function reference(number, title, action) {
  const name = say("from_source", number, title);
  const inside = action
    ? make("button", { type: "button", "aria-label": name, title: name, "aria-pressed": "false", onclick: (event) => { event.stopPropagation(); action(); } }, `${number}`)
    : make("span", { role: "img", "aria-label": name, title: name }, `${number}`);
  return make("sup", { class: colour(number) }, inside);
}

// The same where there is none.
export function unsourced() {
  return make("sup", {}, make("span", { role: "img", "aria-label": say("no_source"), title: say("no_source") }, "?"));
}

// White space at either end of a part stays outside of its mark.
function trimmed(part) {
  const inside = part.trim();
  const before = part.slice(0, part.length - part.trimStart().length);
  return inside ? [before, inside, part.slice(before.length + inside.length)] : [part, "", ""];
}

// The answer's text; `named(id)` gives a source's number and title, `mark(part, index, number, title)` its element.
export function marked(text, spans, named, mark) {
  const letters = characters(text);
  const fragment = document.createDocumentFragment();
  if (!spans.length) fragment.append(text);
  spans.forEach((span, index) => {
    const [before, inside, after] = trimmed(letters.slice(span.start, span.stop).join(""));
    fragment.append(before);
    if (inside && (span.source !== null || SPOKEN.test(inside))) {
      const { number, title } = span.source === null ? {} : named(span.source);
      fragment.append(mark(inside, index, number, title));
    } else {
      fragment.append(inside);
    }
    fragment.append(after);
  });
  return fragment;
}

// A description with the parts that spans were copied from; parts that overlap are cut at each other's ends.
export function copiedParts(description, spans, mark) {
  const letters = characters(description);
  const own = spans.filter(({ span }) => span.source_start !== null);
  const cuts = new Set([0, letters.length]);
  for (const { span } of own) {
    cuts.add(Math.min(span.source_start, letters.length));
    cuts.add(Math.min(span.source_stop, letters.length));
  }
  const ends = [...cuts].sort((a, b) => a - b);
  const fragment = document.createDocumentFragment();
  ends.slice(0, -1).forEach((start, place) => {
    const stop = ends[place + 1];
    const over = own.filter(({ span }) => span.source_start <= start && stop <= span.source_stop);
    const [before, inside, after] = trimmed(letters.slice(start, stop).join(""));
    fragment.append(before);
    fragment.append(inside && over.length ? mark(inside, over.map(({ index }) => index)) : inside);
    fragment.append(after);
  });
  return fragment;
}
