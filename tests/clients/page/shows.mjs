// What the relay does is on the page: node shows.mjs URL FOLDER
import { equal, look, ok, say } from "./page.mjs";

await look(async (it) => {
  const { page } = it;
  await page.goto(it.url);
  await it.judges(/^The stream can be trusted\./);
  await it.says("link", /^live$/);
  await it.says("version", /^\d/);
  say("open");

  // A turn of which one event came by the state alone.
  await it.shows("a made event", (row) => row.origin === "state" && row.type === "session.idle");
  await it.shows("an event of the stream", (row) => row.origin === "stream" && row.type === "session.status");
  await it.until("recovered in the ledger", async () => (await it.cells("ledger")).find((row) => row[0] === "session.idle" && row[3] === "1"));
  const made = await it.page.getAttribute("#plot .bars.made", "d");
  ok(made.length > 0, "no bar of what was made from the state");
  ok((await it.rows()).every((row) => row.type !== "sync"), "sync copies are shown unasked");
  await page.check("#sync");
  await it.shows("sync copies", (row) => row.type === "sync");
  await page.uncheck("#sync");
  await it.shot("trusted-light");

  // Filters: type, session, text, origin.
  await it.type("types", "message.*, !*.updated");
  await it.until("filtered by type", async () => {
    const rows = await it.rows();
    return rows.length > 0 && rows.every((row) => row.type === "message.part.delta");
  });
  await it.says("counts", /hidden by the filter/);
  await it.type("types", "");
  await page.selectOption("#origin", "state");
  await it.until("filtered by origin", async () => (await it.rows()).every((row) => row.origin === "state"));
  await page.selectOption("#origin", "");
  await it.type("session", "ses_nobody");
  await it.says("empty", /No event here fits the filter/);
  await it.type("session", "");
  await it.type("search", "SESSION.IDLE");
  await it.until("filtered by text", async () => {
    const rows = await it.rows();
    return rows.length === 1 && rows[0].type === "session.idle";
  });
  await it.type("search", "");
  await it.until("all of them again", async () => (await it.rows()).length > 10);

  // Paused: what comes waits, and is counted.
  const before = await it.text("counts");
  await page.click("#pause");
  say("paused");
  await it.says("counts", /\b30 waiting/);
  ok(before.split(" ")[0] === (await it.text("counts")).split(" ")[0], "the list changed while it was paused");
  await page.click("#pause");
  await it.shows("what waited", (row) => row.what === "number 29");
  say("resumed");

  // What no witness could tell, and a client that takes nothing.
  await it.judges(/^2 events could not be recovered .*\(tui\.toast\.show\)/);
  equal(await page.title(), "2 lost · opencode-relay");
  await it.until("lost in the ledger", async () => (await it.cells("ledger"))[0].join("|").match(/^tui\.toast\.show\s+lost: 2 told by no witness\|2\|0\|0\|2\|0$/));
  await it.until("a mark in the chart", async () => (await page.textContent("#plot")).includes("2"));
  await it.until("a slow client", async () => (await it.cells("streams")).find((row) => /slow-client/.test(row[0]) && Number(row[3].replaceAll(",", "")) > 100));
  // Thousands came within moments: only the newest are kept, and only what is seen is in the document.
  await it.says("counts", /2,000 shown.*older no longer kept/);
  const drawn = await page.evaluate(() => document.querySelectorAll("#space > .row").length);
  ok(drawn < 80, `${drawn} rows in the document`);
  await it.contrasts();
  await it.shot("lost-light");

  // A second of a thousand events, and more: how long is the longest time without a picture?
  const longest = page.evaluate(
    () =>
      new Promise((done) => {
        let [start, last, most, pictures] = [performance.now(), performance.now(), 0, 0];
        const next = (now) => {
          most = Math.max(most, now - last);
          last = now;
          pictures += 1;
          if (now - start < 3000) requestAnimationFrame(next);
          else done({ most: Math.round(most), pictures });
        };
        requestAnimationFrame(next);
      }),
  );
  say("watching");
  say({ smooth: await longest });
  await it.shows("the last of them", (row) => row.what === "number 5999");
  await it.page.click("#clear");
  await it.says("counts", /^0 shown$/);

  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  ok(dark !== (await page.evaluate(() => getComputedStyle(document.body).backgroundColor)), "dark is light");
  say("down");
  await it.judges(/^opencode does not answer\..*What is shown is from/);
  ok((await page.title()).startsWith("opencode down"), "the title does not say so");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.hover("#plot", { position: { x: 300, y: 60 } });
  // Colours fade for a moment.
  await it.until("colours that are easy to read", () => it.contrasts().then(() => true, () => false), 2000).catch(() => it.contrasts());
  await it.shot("down-dark");
  say("up");
  await it.judges(/^2 events could not be recovered/);
  await it.until("the history of the outage", async () => (await page.locator("#plot .band.bad").count()) > 0);

  for (const [width, height] of [[360, 740], [768, 1024], [1100, 800], [1920, 1080]]) {
    await page.setViewportSize({ width, height });
    await it.until("drawn anew", () => page.evaluate(() => document.querySelector("#plot svg").getBoundingClientRect().right <= innerWidth));
    await it.fits();
    await it.shot(`width-${width}`);
  }
}, { bears: /status of 503/ });
