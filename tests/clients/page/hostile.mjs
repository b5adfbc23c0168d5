// Values of others that want to be more than text: node hostile.mjs URL FOLDER
import { look, ok, say } from "./page.mjs";

await look(async (it) => {
  const { page } = it;
  await page.goto(it.url);
  await it.says("link", /^live$/);
  const before = await page.evaluate(() => ["script", "img", "iframe", "style", "a", "svg", "input"].map((name) => document.querySelectorAll(name).length).join());
  say("open");
  await it.shows("the last of them", (row) => row.type === "test.end");
  await it.until("a hostile client", async () => (await it.cells("streams")).find((row) => row[0].includes("<img")));
  await it.until("a hostile type in the ledger", async () => (await it.cells("ledger")).find((row) => row[0].includes("<script>")));
  const rows = await it.all();
  const text = JSON.stringify(rows);
  ok(text.includes("<img src=x onerror=alert(1)>"), "the title is not shown as it is");
  ok(text.includes("\\\\u{202e}") && !/[\u202a-\u202e\u2066-\u2069\u0000-\u001f]/.test(await page.innerText("#rows").then((all) => all.replaceAll("\n", ""))), "something hidden is not shown");
  ok(rows.every((row) => row.what.length < 2500 && row.type.length < 400), "something long is not cut");

  // Opened, one by one.
  await page.keyboard.press("e");
  await page.keyboard.press("Home");
  for (let index = 0; index < rows.length; index += 1) {
    await page.keyboard.press("Enter");
    await it.until("open", () => page.isVisible(".detail pre"));
    ok(!/[\u202a-\u202e\u2066-\u2069]/.test(await page.textContent(".detail pre")), "something hidden is in the JSON");
    if (index === 2) await it.shot("hostile");
    await page.keyboard.press("Enter");
    await page.keyboard.press("ArrowDown");
  }
  await it.fits();
  await page.setViewportSize({ width: 360, height: 740 });
  await it.until("drawn anew", () => page.evaluate(() => document.querySelector("#plot svg").getBoundingClientRect().right <= innerWidth));
  await it.fits();
  await it.shot("hostile-phone");
  await page.evaluate(() => document.getElementById("events").scrollIntoView());
  await it.shot("hostile-phone-events");

  // A status that says the worst, with an hour of history: what others wrote into it is text as well.
  const evil = "<img src=x onerror=alert(5)>\u202e";
  await page.route("**/_relay/status*", async (route) => {
    const answer = await route.fetch();
    const status = await answer.json();
    const now = Date.now();
    const minutes = (count) => now - count * 60000;
    const change = (at, what, state, reason = null) => ({ at: minutes(at), what, state, reason });
    Object.assign(status.journal, { state: "degraded", form: "memory", reason: `the disk is full ${evil}` });
    Object.assign(status.upstream, { version: evil, url: `http://${evil}`, directories: [evil], breakages: [evil] });
    status.version = evil;
    status.witnesses.log = { ...status.witnesses.log, state: "waiting", source: evil, gaps: 2 };
    status.history.changes = [
      change(58, "opencode", "up"), change(58, "log", "following"), change(57.9, "stream", "connected"), change(57, "state", "answering"),
      change(40, "stream", "down", evil), change(36, "stream", "connected"), change(20, "opencode", "down"), change(20, "state", "failing", evil),
      change(20, "stream", "down", evil), change(17, "opencode", "up"), change(17, "stream", "connected"), change(16.5, "state", "answering"), change(6, "log", "waiting", evil),
    ];
    status.history.buckets = Array.from({ length: 340 }, (_, index) => {
      const away = (index > 105 && index < 130) || (index > 226 && index < 245);
      const busy = Math.max(0, Math.round(60 * Math.abs(Math.sin(index / 19)) + 25 * Math.sin(index * 1.7)));
      return [minutes(57) + index * 10000, busy, away ? 0 : busy, index === 131 ? 14 : index === 246 ? 40 : 0, index === 247 ? 3 : 0];
    });
    await route.fulfill({ json: status });
  });
  await page.setViewportSize({ width: 1440, height: 1400 });
  await it.says("journal", /degraded: the disk is full <img/);
  await it.says("journal", /in memory only/);
  await it.judges(/^The stream can be trusted, but not over a restart/);
  await it.says("hour-title", /^The last hour$/);
  await it.says("plot", /3/);
  const red = await page.evaluate(() => getComputedStyle(document.querySelector('#journal [data-level="bad"] dd')).color);
  ok(red !== (await page.evaluate(() => getComputedStyle(document.body).color)), "a degraded journal does not stand out");
  ok((await page.locator("#plot .band.bad").count()) === 4, "not every bad time has its band");
  const { width } = await page.locator("#plot").boundingBox();
  await page.hover("#plot", { position: { x: (width * 22) / 60, y: 100 } });
  await it.says("tip", /stream: 0 carried, down \(<img src=x onerror=alert\(5\)>\\u\{202e\}\)/);
  await it.contrasts();
  await it.shot("hostile-hour");
  await it.fits();
  const after = await page.evaluate(() => ["script", "img", "iframe", "style", "a", "svg", "input"].map((name) => document.querySelectorAll(name).length).join());
  ok(before === after, `elements came from values: ${before}, then ${after}`);
});
