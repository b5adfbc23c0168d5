// Writes what the fuzzers begin with, from the captures of real runs: node fuzz/seeds.mjs. The folder is not committed.

import { createHash } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const here = dirname(fileURLToPath(import.meta.url))
const captures = join(here, "../tests/fixtures/captures")

// How an input is cut into pieces stands in its first four bytes (fuzz_targets/pieces.rs).
const cut = (text) => Buffer.concat([Buffer.from([64, 1, 7, 31]), Buffer.from(text)])

function add(target, bytes) {
  const folder = join(here, "corpus", target)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, createHash("sha1").update(bytes).digest("hex")), bytes)
}

function* files(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (statSync(path).isDirectory()) yield* files(path)
    else yield path
  }
}

// Small inputs are tried more often per second: short runs of lines, and of each type only the shortest frame.
const shortest = new Map()
for (const path of files(captures)) {
  const lines = readFileSync(path, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line).line)
  if (basename(path) === "stderr.jsonl") {
    for (let at = 0; at < lines.length; at += 12) add("log", cut(lines.slice(at, at + 6).join("\n") + "\n"))
    continue
  }
  for (const line of lines) {
    if (!line.startsWith("data: ")) continue
    const data = line.slice("data: ".length)
    const event = JSON.parse(data)
    const kind = `${basename(path)} ${(event.payload ?? event).type} ${event.payload?.syncEvent?.type ?? ""}`
    if (!shortest.has(kind) || shortest.get(kind).length > data.length) shortest.set(kind, data)
  }
}
for (const data of shortest.values()) {
  add("event", Buffer.from(data))
  add("sse", cut(`data: ${data}\n\n`))
}
add("sse", cut("\ufeffdata: a\r\ndata:b\rdata\n\n: comment\n\nid: 1\nevent: x\nretry: 5\ndata:  c\n\n"))

const log = "INFO  2026-11-23T00:39:15 +38ms service="
for (const line of [
  "bus type=message.part.delta publishing",
  "bus type=* subscribing",
  "session id=ses_1 slug=x directory=/a title=b created",
  "session.prompt session.id=ses_1 step=0 loop",
  "llm providerID=a session.id=ses_1 stream",
  'default version=1.14.48 args=["serve","--port","0"] opencode',
]) {
  add("log", cut(`${log}${line}\n`))
}
for (const end of ["1234567", "12345678", "123456789"]) {
  add("log_long", cut(`${end}\n${log}bus type=session.idle publishing\n`))
}

for (const text of [
  "00d1ce5eed5eed00-42",
  "ffffffffffffffff-18446744073709551615",
  "lastEventId=00d1ce5eed5eed00-42&types=session.idle,message.*&ids=1",
  "directory=%2Fhome%2Fa%20b+c&session=ses_1&since=00d1ce5eed5eed00-0&&x",
  "auth_token=b3BlbmNvZGU6c2VjcmV0&last_event_id=%30",
]) {
  add("query", Buffer.from(text))
}

for (const place of [16, 100, 4096, 5000, 20000, 40000, 60000, 80000]) {
  for (const how of [0, 255]) {
    add("journal", Buffer.from([place & 255, (place >> 8) & 255, place >> 16, how, 0]))
  }
}

add(
  "snapshot",
  Buffer.from(
    JSON.stringify({
      version: 1,
      seq: 5,
      seen: 1795000000000,
      ledger: { "session.idle": [3, 1, 1, 0, 0, 1, 0] },
      turns: { ses_1: { directory: "/p", project: "1", status: '{"type":"busy"}' }, ses_2: { directory: "/p", project: null, status: null } },
      instances: {
        "/p": {
          project: "1",
          permissions: { per_1: { session: "ses_1", text: '{"id":"per_1","sessionID":"ses_1"}', told: true } },
          questions: {},
          terminals: { pty_1: 7 },
          branch: 1,
          servers: null,
        },
      },
    }),
  ),
)
