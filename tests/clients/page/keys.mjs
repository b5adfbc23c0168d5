// The page by keyboard alone, and behind a proxy that adds a prefix: node keys.mjs URL FOLDER
import http from "node:http";
import { equal, look, ok, say } from "./page.mjs";

// A front that serves everything under /tools/opencode/.
function front(upstream) {
  const server = http.createServer((request, answer) => {
    const inner = request.url.replace(/^\/tools\/opencode\//, "/");
    const asked = http.request(new URL(inner, upstream), { method: request.method, headers: { ...request.headers, host: new URL(upstream).host } }, (told) => {
      answer.writeHead(told.statusCode, told.headers);
      told.pipe(answer);
    });
    asked.on("error", () => answer.destroy());
    answer.on("close", () => asked.destroy());
    request.pipe(asked);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

await look(async (it) => {
  const { page } = it;
  const server = await front(it.url);
  it.url = `http://127.0.0.1:${server.address().port}/tools/opencode/_relay/`;
  // Without the slash, as people type it.
  await page.goto(it.url.slice(0, -1));
  equal(page.url(), it.url);
  it.asked.shift();
  await it.judges(/^The stream can be trusted\./);
  await it.says("link", /^live$/);
  say("open");
  await it.shows("events", (row) => row.what === "number 49");

  // All that can be used is reached, is seen to be reached, and has a name.
  const reached = [];
  for (let steps = 0; steps < 40; steps += 1) {
    await page.keyboard.press("Tab");
    const now = await page.evaluate(() => {
      const on = document.activeElement;
      if (on === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(on);
      const name = on.getAttribute("aria-label") ?? document.getElementById(on.getAttribute("aria-labelledby"))?.textContent ?? on.labels?.[0]?.textContent ?? on.textContent;
      return { id: on.id || on.className || on.tagName, seen: outlineStyle !== "none" && outlineWidth !== "0px", name: name.trim() };
    });
    if (now === null) break;
    ok(now.seen, `the focus on ${now.id} is not seen`);
    ok(now.name !== "", `${now.id} has no name`);
    reached.push(now.id);
  }
  equal(reached, ["skip", "help-open", "chart", "pause", "clear", "search", "types", "session", "origin", "sync", "grid", "scroll", "scroll"]);

  // A moment of the chart.
  await page.focus("#chart");
  await page.keyboard.press("ArrowLeft");
  ok(/stream: \d+ carried, connected/.test(await it.text("tip")), await it.text("tip"));
  await page.keyboard.press("Escape");
  ok(await page.isHidden("#tip"), "the tip stays");

  // Choose, open, close.
  const chosen = () => page.evaluate(() => document.getElementById(document.getElementById("grid").getAttribute("aria-activedescendant"))?.querySelector(".what").textContent);
  await page.keyboard.press("e");
  await page.keyboard.press("ArrowUp");
  await it.until("the newest", async () => (await chosen()) === "number 49");
  await page.keyboard.press("ArrowUp");
  await it.until("the one before", async () => (await chosen()) === "number 48");
  await page.keyboard.press("Enter");
  await it.until("its JSON", async () => (await page.isVisible(".detail pre")) && /"number": 48\n/.test(await page.textContent(".detail pre")));
  await it.shot("open");
  // From the list into what is open, and back.
  await page.keyboard.press("Tab");
  await page.keyboard.press("Escape");
  await it.until("closed", () => page.isHidden(".detail"));
  equal(await page.evaluate(() => document.activeElement.id), "grid");
  await page.keyboard.press("Home");
  await it.until("the first", async () => (await it.rows()).some((row) => row.index === 2));
  ok(await page.isVisible("#newest"), "no way back to the newest");
  await page.keyboard.press("End");
  await it.until("the last again", async () => (await chosen()) === "number 49");
  await it.until("it follows", () => page.isHidden("#newest"));

  // Fields and their keys: what is typed there is no command.
  await page.keyboard.press("/");
  await page.keyboard.type("pc?");
  equal(await page.evaluate(() => [document.activeElement.id, document.activeElement.value, document.getElementById("pause").getAttribute("aria-pressed")]), ["search", "pc?", "false"]);
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.press("Delete");
  await page.keyboard.press("Escape");
  await page.keyboard.press("t");
  equal(await page.evaluate(() => document.activeElement.id), "types");
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  ok(await page.isVisible("#help"), "no help");
  await it.shot("help");
  await page.keyboard.press("Escape");
  ok(await page.isHidden("#help"), "the help stays");
  await page.keyboard.press("p");
  equal(await page.getAttribute("#pause", "aria-pressed"), "true");
  await page.keyboard.press("p");
  await page.keyboard.press("c");
  await it.says("counts", /^0 shown$/);

  // A tab that nobody sees asks for nothing, and lets its stream go; what comes meanwhile is there when it is seen again.
  const see = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await see(true);
  const asked = it.asked.length;
  await it.says("link", /^resting while hidden$/);
  equal(it.asked.length, asked, "a hidden page asks");
  say("hidden");
  await it.until("the relay to have more", async () => {
    const [path, options] = ["status", { cache: "no-store" }];
    return page.evaluate(async ([path, options]) => (await (await fetch(path, options)).json()).journal.events >= 60, [path, options]);
  });
  await see(false);
  await it.shows("what came meanwhile", (row) => row.what === "number 59");
  equal((await it.all()).filter((row) => row.type !== "test.numbered").map((row) => row.what), ["The stream goes on where it broke off; nothing is missing"]);
  equal((await it.all()).filter((row) => row.type === "test.numbered").map((row) => row.what), Array.from({ length: 10 }, (_, index) => `number ${50 + index}`));
  server.closeAllConnections();
  server.close();
}, { reducedMotion: "reduce", bears: /ERR_/ });
