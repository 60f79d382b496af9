// One question, answered in every way that the benchmark compares.

import { compare, Problem } from "./api.js";
import { colour, make, marked, reference, unsourced } from "./marks.js";
import { number, percent, say, seconds } from "./words.js";

const at = (id) => document.getElementById(id);

let shown = null;

export function forget() {
  shown = null;
  at("arms").replaceChildren();
  at("missing").hidden = true;
}

// The question whose comparison is shown.
export const shownQuestion = () => shown?.question ?? null;

// Whether the server compares; each arm's answer is shown as it comes.
export async function run(question, signal) {
  forget();
  const arms = at("arms");
  arms.setAttribute("aria-busy", "true");
  try {
    shown = await compare(question, (arm) => arms.append(armCard(arm)), signal);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 404) throw error;
    shown = { question, arms: [], missing: [], off: true };
  } finally {
    arms.setAttribute("aria-busy", "false");
  }
  show();
  return !shown.off;
}

// Again, in another language.
export function show() {
  if (!shown) return;
  at("arms").replaceChildren(...shown.arms.map(armCard));
  const box = at("missing");
  box.hidden = !shown.off && !shown.missing.length;
  if (shown.off) {
    const command = "ragqa serve INDEX --compare --compare-plain ADAPTER --compare-retrieval ADAPTER";
    box.replaceChildren(make("p", {}, say("compare_off")), make("pre", {}, make("code", {}, command)));
    return;
  }
  box.replaceChildren(
    make("h2", {}, say("missing_title")),
    make("p", {}, say("missing")),
    ...shown.missing.map((arm) => {
      const [label, about] = named(arm);
      return make("div", {}, make("h3", {}, label), make("p", { class: "quiet" }, about), make("pre", {}, make("code", {}, arm.how.join("\n"))));
    }),
  );
}

const named = (arm) => say("arms")[arm.name] ?? [arm.label, arm.about];

function armCard(arm) {
  const [label, about] = named(arm);
  const numbers = new Map(arm.candidates.map((one, place) => [one.id, place + 1]));
  const titles = new Map(arm.candidates.map((one) => [one.id, one.title]));
  const text = make("p", { class: "text", dir: "auto" });
  text.append(
    marked(
      arm.answer,
      arm.spans,
      (id) => ({ number: numbers.get(id), title: titles.get(id) }),
      (part, index, place, title) =>
        place === undefined
          ? make("span", { class: "unsourced" }, part, unsourced())
          : make("span", { class: `copied ${colour(place)}` }, part, reference(place, title)),
    ),
  );
  const facts = make("dl", { class: "facts" });
  const add = (name, value, help) => facts.append(make("div", { title: help }, make("dt", {}, name), make("dd", {}, value)));
  add(say("grounded"), percent(arm.grounded), say("grounded_help"));
  if (arm.confidence !== null) add(say("confidence"), percent(arm.confidence), say("confidence_help"));
  if (arm.f1 !== null) add(say("arm_f1"), arm.exact_match ? `${number(arm.f1, 2)}, ${say("arm_exact")}` : number(arm.f1, 2), say("arm_f1_help"));
  add(say("arm_seconds"), seconds(arm.seconds));
  const source = arm.source
    ? make("p", { class: "from" }, `${say("arm_source")}: `, make("bdi", {}, arm.source.title))
    : make("p", { class: "from quiet" }, say("no_product"));
  return make("article", { class: "arm", "data-arm": arm.name }, make("h2", {}, label), make("p", { class: "quiet" }, about), text, source, facts);
}
