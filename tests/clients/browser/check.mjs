// Says what a page at a URL holds: node check.mjs URL
import { browse, say } from "./browser.mjs";

await browse(async ({ page, args: [url] }) => {
  await page.goto(url);
  say({ title: await page.title(), agent: await page.evaluate(() => navigator.userAgent) });
});
