// Chromium for the tests, driven by playwright-core: `await browse(async ({ page, context, args }) => …)`.
//
// tests/it/support/browser.rs runs a script with it and gives it CHROMIUM, the program, and PROFILE, a folder of its own.
// `args` is what the script was started with. The browser ends with the function, with the script, or when the script is
// killed: it hangs on a pipe of the script's.
import { chromium } from "playwright-core";

// Nothing that a browser does by itself: no first run, no looking for updates, no syncing.
const quiet = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// `options` are those of Playwright's launchPersistentContext: viewport, colorScheme, reducedMotion and so on.
export async function browse(act, options = {}) {
  const { CHROMIUM, PROFILE } = process.env;
  const context = await chromium.launchPersistentContext(PROFILE, {
    executablePath: CHROMIUM,
    headless: true,
    chromiumSandbox: false,
    args: quiet,
    ...options,
  });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    // A mistake in a page is a mistake of the test: it ends with the script's failure.
    const broken = new Promise((_, fail) => page.on("pageerror", fail));
    await Promise.race([act({ page, context, args: process.argv.slice(2) }), broken]);
  } finally {
    await context.close();
  }
}

// A line of JSON on standard output, for the test to wait for.
export function say(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
