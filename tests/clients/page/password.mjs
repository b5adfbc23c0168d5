// opencode has a password: node password.mjs URL FOLDER USER PASSWORD TOKEN
import { equal, look, ok, say } from "./page.mjs";

await look(async (it) => {
  const { page } = it;
  const [, , user, password, token] = it.args;

  // By token: it goes along to status and stream, and is nowhere on the page.
  await page.goto(`${it.url.slice(0, -1)}?auth_token=${encodeURIComponent(token)}`);
  await it.judges(/^The stream can be trusted\./);
  await it.says("link", /^live$/);
  const shown = await page.evaluate(() => [document.documentElement.outerHTML, document.title, document.referrer].join("\n"));
  ok(![token, encodeURIComponent(token), password].some((secret) => shown.includes(secret)), "the page shows the token");
  it.asked.shift();
  await page.goto("about:blank");

  // Without it, in another tab: nobody is there to be asked, so that Chromium shows the refusal or gives up.
  const other = await it.context.newPage();
  const refused = await other.goto(it.url).catch((error) => error);
  ok(refused instanceof Error || refused.status() === 401, `not refused: ${refused}`);
  await other.close();

  // What the browser was told once it sends by itself; a URL that names the user is no obstacle.
  await page.goto(it.url.replace("//", `//${user}:${password}@`));
  await it.judges(/^The stream can be trusted\./);
  await it.says("link", /^live$/);
  say("open");
  await it.shows("the turn's end", (row) => row.type === "session.idle" && row.origin === "stream");
  await it.shows("the words", (row) => row.type === "message.part.delta" && row.what.startsWith("text · "));
  await it.says("breakages", /ends right after server\.connected/);
  await it.shot("real-turn");
  equal(it.asked.filter((url) => !url.endsWith("/_relay/") && url.includes(password)), [], "the script asks with the password in a URL");
}, { bears: /status of 401/ });
