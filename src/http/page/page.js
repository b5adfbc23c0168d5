// Drives the page: asks for the status, follows the stream, and hears the keys.

// While the page is seen; a hidden one asks for nothing.
const POLL = 2000;
const POLL_LIMIT = 10000;
// After an answer that failed: twice as long each time, up to this.
const RETRY_MOST = 30000;
// A relay that answers is asked sooner: it costs little, and no stream that opens tells that opencode is back.
const ANSWERED_MOST = 4000;
// How long the stream stays open in a tab that nobody sees.
const HIDDEN = 5000;
// What may come between two pictures before it is read without one: a hidden tab has no pictures.
const INBOX = 512;

const find = (id) => document.getElementById(id);

// The password may have come with the page's own address. Nothing shows it.
const token = new URLSearchParams(location.search).get("auth_token");

function address(path, query = {}) {
  const url = new URL(path, location.href);
  // Browsers refuse to fetch what names a user; they send the password by themselves.
  url.username = url.password = "";
  url.search = "";
  url.hash = "";
  for (const [name, value] of Object.entries({ ...query, auth_token: token })) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

const icon = (color) =>
  `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#1b242c"/><path d="M2 8h3l2-4 2 8 2-4h3" fill="none" stroke="${color}" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round"/></svg>`)}`;
const COLORS = { ok: "#4cc38a", warn: "#f0b040", bad: "#ff6b61", wait: "#9aa7b3" };

const chart = new Chart(find("chart"), find("hour-title"), find("lane-names"), find("plot"), find("tip"));
const events = new Events(find);

const poll = { status: null, at: 0, away: null, failures: 0, most: RETRY_MOST, timer: 0, asking: null };

function showVerdict() {
  const told = verdict(poll.status, poll.away);
  const title = `${told.word} · opencode-relay`;
  if (document.title !== title) document.title = title;
  const place = find("verdict");
  if (place.dataset.level !== told.level) {
    place.dataset.level = told.level;
    find("icon").href = icon(COLORS[told.level]);
  }
  const more = poll.away && poll.status ? `${told.more} What is shown is from ${clock(poll.at, true).slice(0, 8)}.` : told.more;
  // A screen reader says what changes: only what differs may.
  if (find("verdict-text").textContent !== told.sentence) find("verdict-text").textContent = told.sentence;
  if (find("verdict-more").textContent !== more) find("verdict-more").textContent = more;
  document.body.classList.toggle("stale", Boolean(poll.away));
}

function show(status) {
  for (const part of [showFacts, showLedger, showStreams, showWitnesses, showJournal, showBreakages]) part(find, status);
  chart.show(status, Date.now());
}

async function ask() {
  clearTimeout(poll.timer);
  if (document.hidden || poll.asking) return;
  poll.asking = new AbortController();
  const limit = setTimeout(() => poll.asking?.abort(), POLL_LIMIT);
  try {
    const answer = await fetch(address("status"), { signal: poll.asking.signal, cache: "no-store", credentials: "same-origin" });
    if (answer.ok) {
      const status = await answer.json();
      Object.assign(poll, { status, at: Date.now(), away: null, failures: 0, most: RETRY_MOST });
      show(status);
    } else {
      Object.assign(poll, { away: refused(answer.status, await answer.text()), failures: poll.failures + 1, most: ANSWERED_MOST });
    }
  } catch (error) {
    const why = error.name === "AbortError" ? `No answer came within ${POLL_LIMIT / 1000} s.` : "It cannot be reached.";
    Object.assign(poll, { away: unreachable(why), failures: poll.failures + 1, most: RETRY_MOST });
  } finally {
    clearTimeout(limit);
    poll.asking = null;
  }
  showVerdict();
  // Not all pages that wait for the same relay come back at once.
  const pause = poll.failures === 0 ? POLL : Math.min(poll.most, 1000 * 2 ** Math.min(poll.failures - 1, 6)) * (0.75 + Math.random() / 2);
  poll.timer = setTimeout(ask, pause);
}

const stream = { source: null, last: null, inbox: [], due: false, failures: 0, timer: 0, hidden: 0, broken: false };

function showLink(level, words) {
  find("link-lamp").dataset.level = level;
  if (find("link").textContent !== words) find("link").textContent = words;
}

function openStream() {
  clearTimeout(stream.timer);
  if (stream.source) return;
  const source = new EventSource(address("../global/event", { origin: "1", lastEventId: stream.last }));
  stream.source = source;
  source.addEventListener("open", () => {
    showLink("ok", "live");
    // The relay is back, perhaps as another one.
    if (poll.failures > 0 || stream.broken) ask();
    stream.failures = 0;
    stream.broken = false;
  });
  source.addEventListener("message", (event) => {
    stream.last = event.lastEventId || stream.last;
    stream.inbox.push(event.data, event.lastEventId);
    if (stream.inbox.length >= 2 * INBOX) takeInbox();
    else if (!stream.due) {
      stream.due = true;
      requestAnimationFrame(takeInbox);
    }
  });
  source.addEventListener("error", () => {
    takeInbox();
    if (!stream.broken) {
      stream.broken = true;
      events.push([mark("The stream to this page broke off; it comes back by itself")]);
      ask();
    }
    showLink("warn", "reconnecting");
    if (source.readyState !== EventSource.CLOSED) return;
    // The browser gives up after an answer that is no stream, such as 503 while opencode starts. This page does not.
    stream.source = null;
    stream.failures += 1;
    const pause = Math.min(RETRY_MOST, 500 * 2 ** Math.min(stream.failures - 1, 6)) * (0.75 + Math.random() / 2);
    stream.timer = setTimeout(openStream, pause);
  });
}

function closeStream() {
  clearTimeout(stream.timer);
  takeInbox();
  stream.source?.close();
  stream.source = null;
  showLink("wait", "resting while hidden");
}

// A row of the page's own, with nothing to open.
const mark = (what) => ({ id: "", raw: "", at: Date.now(), origin: "", type: "", session: "", what, gap: true });

function takeInbox() {
  stream.due = false;
  const { inbox } = stream;
  stream.inbox = [];
  const [rows, now] = [[], Date.now()];
  for (let index = 0; index < inbox.length; index += 2) {
    const row = read(inbox[index], inbox[index + 1], now);
    if (row.type !== "server.heartbeat") rows.push(row);
  }
  if (rows.length > 0) events.push(rows);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stream.hidden);
  if (document.hidden) {
    clearTimeout(poll.timer);
    stream.hidden = setTimeout(closeStream, HIDDEN);
  } else {
    ask();
    openStream();
  }
});

const inField = (element) => element.matches("input:not([type=checkbox]), select, textarea");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || find("help").open) return;
  if (inField(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const focus = (id) => () => find(id).focus();
  const act = {
    "/": focus("search"),
    t: focus("types"),
    s: focus("session"),
    e: focus("grid"),
    p: () => events.pause(),
    c: () => events.clear(),
    "?": () => find("help").showModal(),
  }[event.key];
  if (!act || event.defaultPrevented) return;
  event.preventDefault();
  act();
});

find("pause").addEventListener("click", () => events.pause());
find("clear").addEventListener("click", () => events.clear());
find("help-open").addEventListener("click", () => find("help").showModal());

new ResizeObserver(([header]) => document.documentElement.style.setProperty("--head", `${Math.ceil(header.borderBoxSize[0].blockSize)}px`)).observe(document.querySelector("header"));

showVerdict();
// A tab that was opened behind others begins when it is seen.
if (!document.hidden) {
  ask();
  openStream();
}
