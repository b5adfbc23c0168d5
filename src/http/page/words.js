"use strict";
// What the page computes. Nothing here knows a document: tests/clients/page/words.test.mjs runs it without a browser.

// Characters that show nothing or turn the text around them, lone halves of pairs among them.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff0-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\u{e0001}|[\u{e0020}-\u{e007f}]/gu;

// The same without the line break, for text that has lines.
const UNSEEN_IN_LINES = new RegExp(UNSEEN.source.replace("\\u0000-\\u001f", "\\u0000-\\u0009\\u000b-\\u001f"), "gu");

const escaped = (letter) =>
  letter === "\n" ? "\\n" : letter === "\t" ? "\\t" : `\\u{${letter.codePointAt(0).toString(16)}}`;

// A text as it may stand in a line: nothing hidden, not longer than `limit` letters.
function plain(text, limit = 300) {
  const whole = String(text ?? "");
  const letters = whole.length > limit ? [...whole.slice(0, 2 * limit + 2)] : null;
  const cut = letters && letters.length > limit ? letters.slice(0, limit).join("") + "…" : whole;
  return cut.replace(UNSEEN, escaped);
}

// An event's whole JSON, in lines. More than `limit` is cut: nobody reads it, and laying it out takes seconds.
function pretty(raw, limit = 200000) {
  let text = raw;
  try {
    text = JSON.stringify(JSON.parse(raw), null, 2);
  } catch {
    // Shown as it came.
  }
  const cut = text.length > limit ? `${text.slice(0, limit)}\n… ${count(text.length - limit)} more characters` : text;
  return cut.replace(UNSEEN_IN_LINES, escaped);
}

// A filter over types: words with `*` for anything, separated by commas; `!` before a word takes what it names away.
function types(pattern) {
  const words = pattern.split(",").map((word) => word.trim()).filter((word) => word !== "" && word !== "!");
  const taken = words.filter((word) => !word.startsWith("!"));
  const away = words.filter((word) => word.startsWith("!")).map((word) => word.slice(1));
  return (type) =>
    (taken.length === 0 || taken.some((word) => matches(word, type))) && !away.some((word) => matches(word, type));
}

// No regular expression: a pattern of many stars would take for ever.
function matches(pattern, text) {
  const parts = pattern.split("*");
  if (parts.length === 1) return pattern === text;
  const first = parts.shift();
  const last = parts.pop();
  if (!text.startsWith(first) || text.length < first.length + last.length || !text.endsWith(last)) return false;
  let from = first.length;
  const end = text.length - last.length;
  for (const part of parts) {
    const at = text.indexOf(part, from);
    if (at < 0 || at + part.length > end) return false;
    from = at + part.length;
  }
  return true;
}

const isObject = (value) => typeof value === "object" && value !== null;

// A field of a field; nothing where something else than an object stands in the way.
function at(value, ...names) {
  for (const name of names) {
    if (!isObject(value) || !Object.hasOwn(value, name)) return undefined;
    value = value[name];
  }
  return value;
}

const text = (value) => (typeof value === "string" ? value : undefined);

// One frame's data: what a row shows of it.
function read(raw, id, now) {
  let data;
  try {
    data = JSON.parse(raw);
  } catch {
    data = undefined;
  }
  const payload = at(data, "payload") ?? data;
  const time = at(data, "relay", "at");
  return {
    id,
    raw,
    at: typeof time === "number" ? time : now,
    origin: text(at(data, "relay", "origin")) ?? "",
    type: text(at(payload, "type")) ?? "",
    session: session(payload),
    what: summary(payload),
    gap: at(payload, "type") === "server.connected" && isObject(at(payload, "properties", "gap")),
  };
}

// Whose event it is; an id where opencode's types have one.
function session(payload) {
  const properties = at(payload, "properties") ?? at(payload, "syncEvent", "data");
  const known = [
    at(properties, "sessionID"),
    at(properties, "info", "sessionID"),
    at(properties, "part", "sessionID"),
  ];
  const found = known.find((id) => typeof id === "string");
  if (found !== undefined) return found;
  const type = text(at(payload, "type")) ?? "";
  return type.startsWith("session.") ? (text(at(properties, "info", "id")) ?? "") : "";
}

// What an event says, in a few words.
function summary(payload) {
  const type = text(at(payload, "type")) ?? "";
  const properties = at(payload, "properties");
  const line = (...words) => words.filter((word) => word !== undefined && word !== "").join(" · ").slice(0, 600);
  const info = at(properties, "info");
  const part = at(properties, "part");
  switch (type) {
    case "server.connected":
      return greeting(properties);
    case "session.created":
    case "session.updated":
    case "session.deleted":
      return line(text(at(info, "title")));
    case "session.status":
      return line(text(at(properties, "status", "type")), text(at(properties, "status", "message")));
    case "session.error":
      return line(text(at(properties, "error", "name")), text(at(properties, "error", "data", "message")));
    case "message.updated":
      return line(
        text(at(info, "role")),
        text(at(info, "modelID")),
        at(info, "time", "completed") === undefined ? undefined : "completed",
        text(at(info, "error", "name")),
      );
    case "message.part.updated":
      return line(
        text(at(part, "type")),
        text(at(part, "tool")),
        text(at(part, "state", "status")),
        text(at(part, "state", "title")) ?? text(at(part, "text")),
      );
    case "message.part.delta":
      return line(text(at(properties, "field")), text(at(properties, "delta")));
    case "permission.asked":
    case "permission.updated":
      return line(text(at(properties, "permission")) ?? text(at(properties, "title")), list(at(properties, "patterns")));
    case "permission.replied":
      return line(text(at(properties, "reply")) ?? text(at(properties, "response")));
    case "todo.updated": {
      const todos = at(properties, "todos");
      if (!Array.isArray(todos)) return "";
      const done = todos.filter((todo) => at(todo, "status") === "completed").length;
      return `${done} of ${todos.length} done`;
    }
    case "sync":
      return line(text(at(payload, "syncEvent", "type")));
    default:
      return line(...scalars(properties));
  }
}

const list = (value) => (Array.isArray(value) ? value.filter((one) => typeof one === "string").join(" ") : undefined);

// For types that this page does not know: their first simple values.
function scalars(properties) {
  if (!isObject(properties)) return [];
  const simple = Object.entries(properties).filter(
    ([name, value]) => !["sessionID", "messageID"].includes(name) && ["string", "number", "boolean"].includes(typeof value),
  );
  return simple.slice(0, 4).map(([name, value]) => `${name} ${String(value).slice(0, 200)}`);
}

function greeting(properties) {
  const gap = at(properties, "gap");
  if (isObject(gap)) {
    const missed = at(gap, "missed");
    const many = typeof missed === "number" ? `${count(missed)} events are missing here` : "some events may be missing here";
    const why = { expired: "the journal no longer holds them", restarted: "the relay began a new journal", unknown: "the position is not known to this journal" };
    return `Gap: ${many}; ${why[at(gap, "reason")] ?? at(gap, "reason")}`;
  }
  return at(properties, "resumed") === true ? "The stream goes on where it broke off; nothing is missing" : "Live from here on";
}

// Numbers and times for people.
const count = (number) => Math.round(number).toLocaleString("en-US");

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const two = (number) => String(number).padStart(2, "0");

function clock(ms, fine = false) {
  const time = new Date(ms);
  if (Number.isNaN(time.getTime())) return "";
  const minute = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return fine ? `${minute}:${two(time.getSeconds())}.${String(time.getMilliseconds()).padStart(3, "0")}` : minute;
}

const lost = (row) => row.unrecoverable.overwritten + row.unrecoverable.no_source;

// The ledger's rows, what needs a look first, and their sum.
function ledger(status) {
  const rows = Object.entries(status.ledger ?? {}).map(([type, row]) => ({ type, ...row, lost: lost(row) }));
  rows.sort((a, b) => b.lost - a.lost || b.pending - a.pending || b.published - a.published || (a.type < b.type ? -1 : 1));
  const sum = { type: "all", published: 0, delivered: 0, recovered: 0, lost: 0, pending: 0, unrecoverable: { overwritten: 0, no_source: 0 } };
  for (const row of rows) {
    for (const name of ["published", "delivered", "recovered", "lost", "pending"]) sum[name] += row[name];
    for (const name of ["overwritten", "no_source"]) sum.unrecoverable[name] += row.unrecoverable[name];
  }
  return { rows, sum };
}

// The one sentence: a level for colour, a word for the title, the sentence, and what belongs to it.
// `away` is what to say instead where the relay did not tell its status.
function verdict(status, away) {
  const told = (level, word, sentence, more = "") => ({ level, word, sentence, more });
  if (away) return told("bad", away.word, away.sentence, `${away.more} This page asks again by itself.`);
  if (!status) return told("wait", "Asking", "Asking the relay how it is …");
  const { rows, sum } = ledger(status);
  const types = rows.filter((row) => row.lost > 0).map((row) => plain(row.type, 60));
  const named = types.length > 4 ? `${types.slice(0, 4).join(", ")} and ${many(types.length - 4, "more type")}` : types.join(", ");
  const kept = status.journal?.form === "disk" ? "since the journal began" : "since the relay started";
  const missing = sum.lost === 0 ? "" : `${many(sum.lost, "event")} could not be recovered ${kept} (${named}).`;
  const reason = (value) => (value ? plain(value, 300).replace(/\.$/, "") : "");
  const { upstream, witnesses } = status;
  if (upstream.state === "starting") {
    return told("wait", "Starting", "opencode is starting.", `Clients stay connected. ${missing}`.trim());
  }
  if (upstream.state === "down") {
    return told("bad", "opencode down", "opencode is down.", `${reason(upstream.reason) && `${reason(upstream.reason)}. `}Clients stay connected; the stream goes on when it is back. ${missing}`.trim());
  }
  if (!status.ready) {
    return told("bad", "Not ready", "The relay is not ready.", `${reason(status.reason) && `${reason(status.reason)}. `}${missing}`.trim());
  }
  const { stream, state } = witnesses;
  const asked = status.history?.changes.findLast((change) => change.what === "state");
  if (stream.state === "down" && asked?.state === "failing") {
    return told("bad", "opencode down", "opencode does not answer.", `${reason(asked.reason) && `${reason(asked.reason)}. `}Clients stay connected; the stream goes on when it is back. ${missing}`.trim());
  }
  if (status.witness !== "log" && stream.state !== "connected") {
    const because = reason(stream.error) || "opencode’s own stream is not connected yet";
    return told("warn", "Rebuilding", "The stream is being rebuilt from the state", `because opencode’s own stream is ${stream.state}: ${because}. ${missing}`.trim());
  }
  if (state.in_flight > 0 && sum.pending > 0) {
    return told("warn", "Rebuilding", "The stream is being rebuilt from the state", `because ${many(sum.pending, "announced event")} did not come on opencode’s own stream. ${missing}`.trim());
  }
  if (sum.lost > 0) return told("warn", `${count(sum.lost)} lost`, missing, "All else was delivered.");
  if (status.journal?.state === "degraded") {
    return told("warn", "Journal degraded", "The stream can be trusted, but not over a restart of the relay.", `The journal is degraded: ${reason(status.journal.reason)}.`);
  }
  const log = status.witness === "log" ? "It is rebuilt from the log and the state, as this relay is told to (witness log)." : "";
  return told("ok", "Trusted", "The stream can be trusted.", log || "Everything that opencode published was delivered.");
}

// What to say when a question for the status was answered with something else. `body` is the answer's text.
function refused(code, body) {
  if (code === 401) return { word: "Locked", sentence: "The password is not accepted any more.", more: "Load this page again to be asked for it." };
  let message;
  try {
    message = text(at(JSON.parse(body), "data", "message"));
  } catch {
    // No answer of the relay's own.
  }
  if (message === undefined || ![502, 503, 504].includes(code)) {
    return { word: "No answer", sentence: "The relay does not answer.", more: `Something answered with status ${code}.` };
  }
  // Without opencode the relay does not know whom it may tell more.
  return { word: "opencode down", sentence: "opencode does not answer.", more: `The relay says: ${plain(message).replace(/\.$/, "")}. Open streams stay open.` };
}

const unreachable = (why) => ({ word: "No answer", sentence: "The relay does not answer.", more: why });

const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// The states of one witness as stretches of time, from its changes. What was before the first is not known.
function stretches(changes, what, from, to) {
  const own = changes.filter((change) => change.what === what);
  return own
    .map((change, index) => ({
      from: Math.max(from, change.at),
      to: Math.min(to, own[index + 1]?.at ?? to),
      state: change.state,
      reason: change.reason,
    }))
    .filter((stretch) => stretch.to > stretch.from);
}

// Whether a state is a good one, for colour.
function level(state) {
  if (["up", "following", "connected", "answering"].includes(state)) return "ok";
  return ["waiting", "connecting", "starting"].includes(state) ? "warn" : "bad";
}

// Buckets added up into `columns` columns of the same length, for a chart that has fewer points than buckets.
function columns(buckets, from, to, columns) {
  const width = (to - from) / columns;
  const sums = Array.from({ length: columns }, (_, index) => ({ at: from + index * width, notices: 0, events: 0, made: 0, lost: 0 }));
  for (const [at, notices, events, made, lost] of buckets) {
    // A bucket that began before the hour and reaches into it counts for the first column.
    const column = sums[Math.min(columns - 1, Math.max(0, Math.floor((at - from) / width)))];
    if (at > to || at + width < from) continue;
    column.notices += notices;
    column.events += events;
    column.made += made;
    column.lost += lost;
  }
  return sums;
}
