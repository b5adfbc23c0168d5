// The browser's EventSource on a page of another origin, an event a line: node eventsource.mjs URL USER PASSWORD
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

import { browse } from "./browser.mjs";

const html = await readFile(new URL("eventsource.html", import.meta.url));
const server = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(html));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

await browse(async ({ page, args: [url, user, password] }) => {
  await page.exposeFunction("seen", (data) => void process.stdout.write(`${data}\n`));
  await page.exposeFunction("broken", (how) => void process.stderr.write(`broken: ${how}\n`));
  const order = encodeURIComponent(JSON.stringify({ url, user, password }));
  await page.goto(`http://127.0.0.1:${server.address().port}/#${order}`);
  await new Promise(() => {});
});
