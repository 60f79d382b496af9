// The service's API: JSON, and answers as server-sent events, which are read from a POST by hand.

const KEY = "ragqa-key";

// What went wrong, in a form the page can show.
export class Problem extends Error {
  constructor(kind, { status = 0, title = "", detail = "", wait = null } = {}) {
    super(detail || title || kind);
    Object.assign(this, { kind, status, title, detail, wait });
  }
}

const KINDS = { 401: "key", 403: "key", 429: "often", 503: "busy" };

const kindOf = (status) => KINDS[status] ?? (status >= 500 ? "failed" : "refused");

function fromDocument(found, status, wait) {
  return new Problem(kindOf(status), { status, title: found.title ?? "", detail: found.detail ?? "", wait });
}

export function keepKey(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // Without storage it lasts as long as the page.
  }
  held = key;
}

let held = null;

function headers(more) {
  try {
    held ??= sessionStorage.getItem(KEY);
  } catch {
    // As above.
  }
  return held ? { ...more, Authorization: `Bearer ${held}` } : more;
}

export const hasKey = () => Boolean(headers({}).Authorization);

async function send(path, body, signal, accept) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: headers(body === undefined ? { Accept: accept } : { Accept: accept, "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem("gone");
  }
  if (response.ok) return response;
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  let found = {};
  try {
    found = await response.json();
  } catch {
    // Whatever stands before the server may answer in HTML; the status says enough.
  }
  throw fromDocument(found, response.status, Number.isFinite(wait) ? wait : null);
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem("broken");
  }
}

export const about = async () => read(await send("v1/about", undefined, undefined, "application/json"));

// Ask, with what was found given to `found` and each piece of the answer's text to `piece`; resolves to the whole answer.
export const ask = (question, { found, piece }, signal) =>
  streamed("v1/ask", { question, candidates: true }, "answer", { found, piece: (data) => piece(data.text) }, signal);

// Let every way of answering answer, each given to `arm` as it is done; resolves to all of them.
export const compare = (question, arm, signal) => streamed("v1/compare", { question }, "compared", { arm }, signal);

async function streamed(path, asked, last, handlers, signal) {
  const response = await send(path, { ...asked, stream: true }, signal, "text/event-stream");
  try {
    for await (const { event, data } of events(response.body)) {
      if (event === last) return data;
      if (event === "error") throw fromDocument(data, data.status ?? 500, data.retry_after ?? null);
      handlers[event]?.(data);
    }
  } catch (error) {
    throw error instanceof Problem || error.name === "AbortError" ? error : new Problem("broken");
  }
  throw new Problem("broken");
}

// Server-sent events with JSON data, as they come.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (let end; (end = /\r\n\r\n|\n\n|\r\r/.exec(rest)); ) {
        const block = rest.slice(0, end.index);
        rest = rest.slice(end.index + end[0].length);
        const found = parse(block);
        if (found) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
