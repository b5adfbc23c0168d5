// The relay is killed and comes back: node restart.mjs URL FOLDER LAST
import { equal, look, ok, say } from "./page.mjs";

await look(async (it) => {
  const last = Number(it.args[2]);
  await it.page.goto(it.url);
  await it.says("link", /^live$/);
  say("open");
  await it.shows("events", (row) => row.what === "number 99");
  say("kill");
  await it.judges(/^The relay does not answer\..*What is shown is from \d\d:/);
  await it.says("link", /^reconnecting$/);
  ok((await it.page.title()).startsWith("No answer"), "the title does not say so");
  await it.shot("no-answer");
  say("gone");
  await it.says("link", /^live$/);
  await it.judges(/^The stream can be trusted\./);
  say("back");
  await it.shows("the last event", (row) => row.what === `number ${last}`);
  const rows = await it.all();
  const numbers = rows.filter((row) => row.type === "test.numbered").map((row) => Number(row.what.split(" ")[1]));
  equal(numbers, Array.from({ length: last + 1 }, (_, number) => number), "each event once, in order");
  const others = rows.filter((row) => row.type !== "test.numbered").map((row) => row.what);
  equal(others, ["Live from here on", "The stream to this page broke off; it comes back by itself", "The stream goes on where it broke off; nothing is missing"]);

  // A position that the journal no longer knows.
  say("forget");
  await it.shows("the gap", (row) => /^Gap: some events may be missing here/.test(row.what));
  equal(await it.page.locator("#space > .row.gap:not([hidden])").count() > 0, true);
  await it.shot("gap");
}, { bears: /ERR_|status of 50\d/ });
