// The live page as a person meets it, for the scripts beside this: `await look(async (it) => { … })`.
import { browse, say } from "../browser/browser.mjs";
export { say };

const SOON = 20000;

// Fails when the page complained, broke its own policy, or asked anybody but the relay for something else than its
// status and stream. `bears` names complaints that a script provokes.
export async function look(act, { bears = /^$/, ...options } = {}) {
  await browse(async ({ page, context, args }) => {
    const it = new Look(page, context, args);
    await it.watch();
    await act(it);
    await it.check(bears);
  }, { viewport: { width: 1440, height: 900 }, ...options });
}

export class Look {
  constructor(page, context, args) {
    Object.assign(this, { page, context, args, complaints: [], asked: [] });
    [this.url, this.folder] = args;
  }

  async watch() {
    this.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.complaints.push(message.text());
    });
    this.page.on("pageerror", (error) => this.complaints.push(error.stack));
    this.page.on("dialog", (dialog) => this.complaints.push(`a dialog: ${dialog.message()}`));
    this.page.on("request", (request) => this.asked.push(request.url()));
    await this.page.addInitScript(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) =>
        window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`),
      );
    });
  }

  async check(bears) {
    const complaints = [...this.complaints.filter((words) => !bears.test(words)), ...(await this.page.evaluate(() => window.violations))];
    if (complaints.length > 0) throw new Error(`the page complained: ${complaints.join("\n")}`);
    const base = new URL(this.url);
    const prefix = base.pathname.replace(/_relay\/$/, "");
    const allowed = new Set([`${prefix}_relay/`, `${prefix}_relay/status`, `${prefix}global/event`]);
    const strange = this.asked.map((url) => new URL(url)).filter((url) => url.protocol !== "data:" && !(url.host === base.host && allowed.has(url.pathname)));
    if (strange.length > 0) throw new Error(`the page asked for ${strange.join(", ")}`);
  }

  // Waits for something to be true, and gives it. A page with this policy runs no text, so that it is asked again and again.
  async until(what, see, limit = SOON) {
    const end = Date.now() + limit;
    for (;;) {
      const found = await see();
      if (found) return found;
      if (Date.now() > end) {
        await this.shot("failed").catch(() => {});
        throw new Error(`not ${what} within ${limit} ms; the page says: ${await this.page.innerText("body")}`);
      }
      await new Promise((done) => setTimeout(done, 40));
    }
  }

  text(id) {
    return this.page.evaluate((id) => document.getElementById(id).textContent, id);
  }

  async says(id, pattern) {
    await this.until(`${id} ${pattern}`, async () => pattern.test(await this.text(id)));
  }

  verdict() {
    return this.page.evaluate(() => ["verdict-text", "verdict-more"].map((id) => document.getElementById(id).textContent).join(" "));
  }

  async judges(pattern) {
    await this.until(`the verdict ${pattern}`, async () => pattern.test(await this.verdict()));
  }

  // The rows that are in the document, from top to bottom.
  rows() {
    return this.page.evaluate(() =>
      [...document.querySelectorAll("#space > .row:not([hidden])")]
        .map((row) => ({
          index: Number(row.getAttribute("aria-rowindex")),
          ...Object.fromEntries([...row.children].map((cell) => [cell.className, cell.textContent])),
        }))
        .sort((a, b) => a.index - b.index),
    );
  }

  async shows(what, fits) {
    return this.until(what, async () => (await this.rows()).find(fits));
  }

  // The whole list, by scrolling through it.
  async all() {
    const seen = new Map();
    for (let top = 0; ; top += 400) {
      const more = await this.page.evaluate(async (top) => {
        const rows = document.getElementById("rows");
        rows.scrollTop = top;
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))));
        return top < rows.scrollHeight;
      }, top);
      for (const row of await this.rows()) seen.set(row.index, row);
      if (!more) return [...seen.values()].sort((a, b) => a.index - b.index);
    }
  }

  async type(id, words) {
    await this.page.fill(`#${id}`, words);
  }

  cells(table) {
    return this.page.evaluate(
      (table) => [...document.querySelectorAll(`#${table} tbody tr, #${table} tfoot tr`)].map((row) => [...row.cells].map((cell) => cell.innerText)),
      table,
    );
  }

  // Anything that sticks out to the right makes the whole page scroll.
  async fits() {
    const [wide, room] = await this.page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    if (wide > room) throw new Error(`the page is ${wide} wide, the window ${room}`);
  }

  // Text against what is behind it, as WCAG counts it: AA wants 4.5.
  async contrasts() {
    const poor = await this.page.evaluate(() => {
      const channels = (color) => color.match(/[\d.]+/g).map(Number);
      const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
      };
      const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const [r, g, b, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
          if (alpha === 1) return [r, g, b];
        }
        return [255, 255, 255];
      };
      const holds = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "");
      const seen = (element) => element.checkVisibility() && !element.closest("dialog, noscript, .skip");
      return [...document.body.querySelectorAll("*")].filter((element) => holds(element) && seen(element)).flatMap((element) => {
        const style = getComputedStyle(element);
        const [a, b] = [light(channels(element instanceof SVGElement ? style.fill : style.color)), light(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        return ratio < 4.5 ? [`${element.tagName}.${element.className} "${element.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`] : [];
      });
    });
    if (poor.length > 0) throw new Error(`hard to read: ${poor.join("\n")}`);
  }

  async shot(name) {
    await this.page.screenshot({ path: `${this.folder}/${name}.png` });
  }
}

export function equal(seen, expected, what = "") {
  const [left, right] = [seen, expected].map((value) => JSON.stringify(value));
  if (left !== right) throw new Error(`${what}: ${left} instead of ${right}`);
}

export function ok(value, what) {
  if (!value) throw new Error(what);
}
