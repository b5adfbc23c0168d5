// What the live page computes, without a browser: node --test tests/clients/page
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

// A script, not a module: what it declares is there when it has run.
const source = readFileSync(new URL("../../../src/http/page/words.js", import.meta.url), "utf8");
const page = vm.runInNewContext(`${source};({ plain, pretty, refused, unreachable, types, matches, read, summary, session, verdict, ledger, stretches, columns, bytes, span, level })`);
// What comes from there has prototypes of its own.
const same = (value, expected) => assert.deepEqual(JSON.parse(JSON.stringify(value)), expected);

test("text of others shows what it hides, and is cut", () => {
  assert.equal(page.plain("a\u202eb\u0000c\nd\u200b\ufeff"), "a\\u{202e}b\\u{0}c\\nd\\u{200b}\\u{feff}");
  assert.equal(page.plain("\u2066x\u2069\u061c\u{e0041}\u00ad"), "\\u{2066}x\\u{2069}\\u{61c}\\u{e0041}\\u{ad}");
  assert.equal(page.plain("half \ud83d of a pair, whole 😀"), "half \\u{d83d} of a pair, whole 😀");
  assert.equal(page.plain("x".repeat(65536), 10), "xxxxxxxxxx…");
  assert.equal(page.plain("😀😀😀", 2), "😀😀…", "a pair is not cut apart");
  assert.equal(page.plain("<b>&amp;"), "<b>&amp;", "markup is text like any other");
  assert.equal(page.plain(null), "");
});

test("JSON keeps its lines and nothing else unseen", () => {
  assert.equal(page.pretty('{"a":[1,"\u202e"]}'), '{\n  "a": [\n    1,\n    "\\u{202e}"\n  ]\n}');
  assert.equal(page.pretty("no json\u0007"), "no json\\u{7}");
  assert.match(page.pretty(JSON.stringify("x".repeat(300000))), /… 100,002 more characters$/);
});

test("types are chosen by words with stars", () => {
  const chosen = (pattern, type) => page.types(pattern)(type);
  for (const pattern of ["", " ", "message.*", "*.updated", "message.updated", "m*e.*d", "a, message.*", "!session.*", "message*d", "*"]) {
    assert.ok(chosen(pattern, "message.updated"), pattern);
  }
  for (const pattern of ["message", "Message.*", "!message.*", "message.*, !*.updated", "*updated.", "message.updated*d", "session.*"]) {
    assert.ok(!chosen(pattern, "message.updated"), pattern);
  }
  assert.ok(!page.matches("aa*aa", "aaa"), "the two ends do not overlap");
  const start = performance.now();
  page.matches(`${"*a".repeat(5000)}b`, "a".repeat(60000));
  assert.ok(performance.now() - start < 1000, "many stars take no time");
});

const frame = (payload, relay) => JSON.stringify({ ...(relay && { relay }), directory: "/d", payload });

test("a frame is read, whatever it is", () => {
  const row = page.read(frame({ id: "evt_1", type: "session.status", properties: { sessionID: "ses_1", status: { type: "busy" } } }, { origin: "state", at: 5 }), "a-1", 9);
  assert.deepEqual([row.id, row.at, row.origin, row.type, row.session, row.what, row.gap], ["a-1", 5, "state", "session.status", "ses_1", "busy", false]);
  for (const odd of ["", "null", "7", "[]", '"x"', '{"payload":null}', '{"payload":{"type":7,"properties":[]}}', '{"payload":{"type":"session.updated","properties":{"info":"x"}}}', '{"relay":{"origin":{},"at":"x"},"payload":{}}', '{"payload":{"type":"todo.updated","properties":{"todos":7}}}']) {
    const row = page.read(odd, "", 9);
    assert.deepEqual([row.at, row.origin, row.session, row.gap].map(String), ["9", "", "", "false"], odd);
  }
  assert.equal(page.read('{"payload":{"type":"message.updated","properties":{"__proto__":{"sessionID":"no"}}}}', "", 0).session, "");
});

test("an event is said in a few words", () => {
  const words = (type, properties) => page.summary({ type, properties });
  assert.equal(words("session.updated", { info: { title: "A title" } }), "A title");
  assert.equal(words("message.part.updated", { part: { type: "tool", tool: "bash", state: { status: "running", title: "ls" } } }), "tool · bash · running · ls");
  assert.equal(words("message.part.delta", { field: "text", delta: "more" }), "text · more");
  assert.equal(words("todo.updated", { todos: [{ status: "completed" }, { status: "pending" }] }), "1 of 2 done");
  assert.equal(words("vcs.branch.updated", { branch: "main", sessionID: "ses_1" }), "branch main");
  assert.equal(words("x", { a: { b: 1 } }), "");
  assert.match(words("server.connected", { gap: { reason: "expired", missed: 1200 } }), /^Gap: 1,200 events are missing here; the journal/);
  assert.match(words("server.connected", { gap: { reason: "unknown", missed: null } }), /^Gap: some events may be missing/);
  assert.match(words("server.connected", { resumed: true }), /nothing is missing/);
  assert.ok(words("x", { a: "y".repeat(100000) }).length < 700);
});

const count = (published, delivered, recovered, overwritten, no_source, pending) => ({ published, delivered, recovered, pending, unrecoverable: { overwritten, no_source } });

function status(more = {}) {
  return {
    ready: true, reason: null, witness: "auto", upstream: { state: "up", reason: null },
    witnesses: { log: { state: "following" }, stream: { state: "connected", error: null }, state: { in_flight: 0 } },
    ledger: { "session.idle": count(3, 3, 0, 0, 0, 0) }, journal: { form: "disk" }, ...more,
  };
}

test("the verdict is one sentence about what matters most", () => {
  const level = (status, away) => page.verdict(status, away).level;
  const says = (status, away) => { const told = page.verdict(status, away); return `${told.sentence} ${told.more}`; };
  assert.equal(page.verdict(null, "").level, "wait");
  assert.match(says(status(), ""), /^The stream can be trusted\. Everything/);
  assert.match(says(status({ witness: "log" }), ""), /trusted.*witness log/);
  assert.match(says(status(), page.unreachable("It cannot be reached.")), /^The relay does not answer\. It cannot be reached\. This page asks again/);
  const refused = (code, body) => page.verdict(null, page.refused(code, body));
  assert.match(refused(503, '{"data":{"message":"opencode is gone."}}').more, /^The relay says: opencode is gone\. Open streams/);
  assert.deepEqual([refused(503, '{"data":{"message":"x"}}').word, refused(503, "<html>").word, refused(404, '{"data":{"message":"x"}}').word, refused(401, "").word], ["opencode down", "No answer", "No answer", "Locked"]);
  assert.match(says(status({ journal: { state: "degraded", reason: "no space." } }), ""), /^The stream can be trusted, but not over a restart of the relay\. The journal is degraded: no space\.$/);
  assert.match(says(status({ upstream: { state: "down", reason: "killed by signal 9" } }), ""), /^opencode is down\. killed by signal 9\. Clients stay/);
  assert.match(says(status({ upstream: { state: "starting" } }), ""), /^opencode is starting/);
  assert.match(says(status({ ready: false, reason: "opencode has not answered yet" }), ""), /not ready\. opencode has not answered yet\./);
  const down = { log: {}, stream: { state: "down", error: "refused" }, state: { in_flight: 0 } };
  assert.match(says(status({ witnesses: down }), ""), /^The stream is being rebuilt from the state because .* down: refused\./);
  const failing = { changes: [{ what: "state", state: "answering" }, { what: "state", state: "failing", reason: "no route" }, { what: "stream", state: "down" }] };
  assert.match(says(status({ witnesses: down, history: failing }), ""), /^opencode does not answer\. no route\./);
  assert.equal(level(status({ witnesses: down, witness: "log" }), ""), "ok", "this relay is told not to open it");
  const reading = { log: {}, stream: { state: "connected" }, state: { in_flight: 1 } };
  assert.match(says(status({ witnesses: reading, ledger: { a: count(2, 1, 0, 0, 0, 1) } }), ""), /because 1 announced event did not come/);
  assert.equal(level(status({ witnesses: reading }), ""), "ok", "a look at the state that is due is no doubt");
  const lost = Object.fromEntries(["a", "b", "c", "d", "e"].map((type) => [type, count(2, 0, 0, 1, 1, 0)]));
  const told = page.verdict(status({ ledger: lost }), "");
  assert.deepEqual([told.level, told.word], ["warn", "10 lost"]);
  assert.equal(told.sentence, "10 events could not be recovered since the journal began (a, b, c, d and 1 more type).");
  assert.match(says(status({ ledger: { "\u202e": count(1, 0, 0, 1, 0, 0) }, journal: { form: "memory" } }), ""), /1 event could not be recovered since the relay started \(\\u\{202e\}\)/);
});

test("the ledger begins with what needs a look, and is summed up", () => {
  const { rows, sum } = page.ledger({ ledger: { quiet: count(9, 9, 0, 0, 0, 0), waits: count(2, 1, 0, 0, 0, 1), gone: count(3, 1, 1, 1, 0, 0), less: count(1, 1, 0, 0, 0, 0) } });
  same(rows.map((row) => row.type), ["gone", "waits", "quiet", "less"]);
  same([sum.published, sum.delivered, sum.recovered, sum.lost, sum.pending, sum.unrecoverable], [15, 12, 1, 1, 1, { overwritten: 1, no_source: 0 }]);
});

test("states are stretches of time", () => {
  const changes = [{ at: 5, what: "log", state: "x" }, { at: 10, what: "stream", state: "connected" }, { at: 20, what: "stream", state: "down", reason: "r" }, { at: 30, what: "stream", state: "connected" }];
  const seen = (from, to) => page.stretches(changes, "stream", from, to).map((one) => [one.from, one.to, one.state]);
  same(seen(0, 40), [[10, 20, "connected"], [20, 30, "down"], [30, 40, "connected"]]);
  same(seen(25, 40), [[25, 30, "down"], [30, 40, "connected"]]);
  same(seen(0, 5), []);
  assert.deepEqual(["up", "waiting", "down", "failing", "ended", "odd"].map(page.level), ["ok", "warn", "bad", "bad", "bad", "bad"]);
});

test("buckets add up in columns", () => {
  const sums = page.columns([[100, 1, 2, 3, 4], [110, 1, 1, 1, 1], [199, 5, 0, 0, 0]], 100, 200, 5);
  same(sums.map((sum) => sum.notices), [2, 0, 0, 0, 5]);
  assert.deepEqual([sums[0].events, sums[0].made, sums[0].lost, sums[1].at], [3, 4, 5, 120]);
  assert.ok(page.columns([[50, 1, 1, 1, 1], [300, 1, 1, 1, 1]], 100, 200, 5).every((sum) => sum.notices === 0), "neither before nor after");
});

test("sizes and times are for people", () => {
  assert.deepEqual([0, 1023, 1536, 5 << 20, 200 << 20].map(page.bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "200 MiB"]);
  assert.deepEqual([0, 59.9, 61, 3700, 90000].map(page.span), ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
});
