// The list of live events: bounded, filtered, and only as many rows in the document as are seen.

// What the list keeps, and what waits while it is paused: the oldest go first.
const KEPT = { rows: 2000, characters: 5000000 };
// The height of what Enter opens.
const OPEN = 300;
// Rows beyond the edges, so that scrolling shows none that are empty.
const SPARE = 6;

// A queue of events with a bound.
class Kept {
  constructor() {
    this.rows = [];
    this.characters = 0;
    this.dropped = 0;
  }

  push(rows) {
    for (const row of rows) {
      this.rows.push(row);
      this.characters += row.raw.length;
    }
    let gone = 0;
    while (this.rows.length - gone > KEPT.rows || (this.characters > KEPT.characters && this.rows.length - gone > 1)) {
      this.characters -= this.rows[gone].raw.length;
      gone += 1;
    }
    this.rows.splice(0, gone);
    this.dropped += gone;
  }

  take() {
    const { rows } = this;
    this.rows = [];
    this.characters = 0;
    return rows;
  }
}

class Events {
  constructor(find) {
    this.find = find;
    this.kept = new Kept();
    this.waiting = new Kept();
    // What the filter lets through, oldest first.
    this.shown = [];
    this.number = 0;
    this.arrived = 0;
    this.paused = false;
    this.follows = true;
    this.active = null;
    this.open = null;
    this.pool = [];
    this.due = false;
    this.admits = () => true;
    this.box = find("rows");
    this.space = find("space");
    this.grid = find("grid");
    this.detail = this.makeDetail();
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("focus", () => this.grid.classList.add("focused"));
    this.grid.addEventListener("blur", () => this.grid.classList.remove("focused"));
    this.space.addEventListener("click", (event) => this.clicked(event));
    find("newest").addEventListener("click", () => this.newest());
    new ResizeObserver(() => this.measure()).observe(this.box);
    let typing;
    const later = () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.refilter(), 120);
    };
    find("filters").addEventListener("input", later);
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    this.refilter();
  }

  // Takes what has come since the last picture.
  push(rows) {
    for (const row of rows) row.number = ++this.number;
    this.arrived += rows.length;
    if (this.paused) this.waiting.push(rows);
    else this.add(rows);
    this.wish();
  }

  add(rows) {
    this.kept.push(rows);
    for (const row of rows) if (this.admits(row)) this.shown.push(row);
    const oldest = this.kept.rows[0]?.number ?? Infinity;
    const gone = this.shown.findIndex((row) => row.number >= oldest);
    const cut = gone < 0 ? this.shown.length : gone;
    if (cut > 0) {
      const before = this.top(cut);
      this.shown.splice(0, cut);
      if (this.open !== null && this.open < oldest) this.close();
      if (this.active !== null && this.active < oldest) this.active = null;
      // Who reads further up goes on reading the same rows.
      if (!this.follows) this.shift = (this.shift ?? 0) - before;
    }
  }

  pause(paused = !this.paused) {
    this.paused = paused;
    const button = this.find("pause");
    button.setAttribute("aria-pressed", paused);
    button.firstChild.data = paused ? "Go on " : "Pause ";
    if (!paused) {
      this.kept.dropped += this.waiting.dropped;
      this.waiting.dropped = 0;
      this.add(this.waiting.take());
    }
    this.wish();
  }

  clear() {
    this.kept.take();
    this.waiting.take();
    this.kept.dropped = this.waiting.dropped = 0;
    this.arrived = 0;
    this.shown = [];
    this.active = null;
    this.close();
    this.newest();
  }

  refilter() {
    const value = (id) => this.find(id).value.trim();
    const [search, session, origin] = [value("search").toLowerCase(), value("session"), value("origin")];
    const [byType, sync] = [types(value("types")), this.find("sync").checked];
    this.filtered = Boolean(search || session || origin || value("types"));
    this.admits = (row) =>
      (sync || row.type !== "sync") &&
      byType(row.type) &&
      (session === "" || row.session.includes(session)) &&
      (origin === "" || row.origin === origin) &&
      (search === "" || row.raw.toLowerCase().includes(search) || row.what.toLowerCase().includes(search));
    this.shown = this.kept.rows.filter(this.admits);
    if (this.open !== null && !this.shown.some((row) => row.number === this.open)) this.close();
    if (this.active !== null && !this.shown.some((row) => row.number === this.active)) this.active = null;
    this.follows = this.open === null;
    this.wish();
  }

  // A picture at the browser's next one; a hidden page has none.
  wish() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw();
    });
  }

  measure() {
    this.rowHeight = parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")) || 28;
    this.height = this.box.clientHeight;
    this.wish();
  }

  index(number) {
    let [low, high] = [0, this.shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].number < number) low = middle + 1;
      else high = middle;
    }
    return this.shown[low]?.number === number ? low : -1;
  }

  // Where the row at an index begins.
  top(index) {
    const open = this.open === null ? -1 : this.index(this.open);
    return index * this.rowHeight + (open >= 0 && index > open ? OPEN : 0);
  }

  draw() {
    if (!this.rowHeight) this.measure();
    const total = this.top(this.shown.length);
    if (this.space.tall !== total) this.space.style.height = `${(this.space.tall = total)}px`;
    if (this.follows) this.box.scrollTop = total;
    else if (this.shift) this.box.scrollTop += this.shift;
    this.shift = 0;
    const from = this.box.scrollTop;
    const open = this.open === null ? -1 : this.index(this.open);
    const before = open >= 0 && from > this.top(open) + OPEN ? OPEN : 0;
    let index = Math.max(0, Math.floor((from - before) / this.rowHeight) - SPARE);
    if (open >= 0 && !before) index = Math.min(index, Math.max(0, open - SPARE));
    const slots = Math.ceil(this.height / this.rowHeight) + 2 * SPARE;
    while (this.pool.length < slots) this.pool.push(this.makeRow());
    for (const element of this.pool) {
      const row = index < this.shown.length && this.top(index) < from + this.height + SPARE * this.rowHeight ? this.shown[index] : null;
      this.fill(element, row, index);
      index += 1;
    }
    this.detail.hidden = open < 0;
    if (open >= 0) this.detail.style.transform = `translateY(${this.top(open) + this.rowHeight}px)`;
    const active = this.pool.find((element) => element.row !== null && element.row.number === this.active);
    if (active) this.grid.setAttribute("aria-activedescendant", active.id);
    else this.grid.removeAttribute("aria-activedescendant");
    this.tell();
  }

  fill(element, row, index) {
    if (row === null) {
      if (element.row !== null) element.hidden = true;
      element.row = null;
      return;
    }
    element.style.transform = `translateY(${this.top(index)}px)`;
    element.setAttribute("aria-rowindex", index + 2);
    element.classList.toggle("active", row.number === this.active);
    element.setAttribute("aria-selected", row.number === this.active);
    element.setAttribute("aria-expanded", row.number === this.open);
    if (element.row === row) return;
    element.row = row;
    element.hidden = false;
    element.dataset.origin = row.origin;
    element.classList.toggle("gap", row.gap);
    element.classList.toggle("mark", row.type === "");
    const [time, origin, type, session, what] = element.children;
    time.textContent = clock(row.at, true);
    origin.firstChild.textContent = plain(row.origin, 12);
    type.firstChild.textContent = plain(row.type, 80);
    session.firstChild.textContent = plain(row.session.replace(/^ses_/, ""), 40);
    session.title = plain(row.session, 100);
    what.firstChild.textContent = plain(row.what, 300);
    what.title = row.gap ? row.what : "";
  }

  tell() {
    const [kept, shown] = [this.kept.rows.length, this.shown.length];
    const words = [`${count(shown)} shown`];
    if (kept > shown) words.push(this.filtered ? `${count(kept - shown)} hidden by the filter` : `${count(kept - shown)} sync copies hidden`);
    if (this.paused) words.push(`${count(this.waiting.rows.length + this.waiting.dropped)} waiting`);
    const dropped = this.kept.dropped + this.waiting.dropped;
    if (dropped > 0) words.push(`${count(dropped)} older no longer kept`);
    const text = words.join(" · ");
    const counts = this.find("counts");
    if (counts.textContent !== text) counts.textContent = text;
    const empty = this.find("empty");
    empty.hidden = shown > 0;
    const word = kept > 0 ? "No event here fits the filter." : "Nothing yet. Events show here as soon as opencode publishes some.";
    if (empty.textContent !== word) empty.textContent = word;
    this.find("newest").hidden = this.follows || shown === 0;
    this.grid.classList.toggle("paused", this.paused);
  }

  scrolled() {
    this.follows = this.box.scrollTop + this.height >= this.space.tall - 4;
    this.wish();
  }

  newest() {
    this.follows = true;
    this.wish();
  }

  clicked(event) {
    const element = event.target.closest(".row");
    if (!element?.row || String(getSelection()) !== "") return;
    this.active = element.row.number;
    this.toggle();
  }

  toggle() {
    if (this.active === null) return;
    if (this.open === this.active) this.close();
    else this.reveal(this.active);
    this.wish();
  }

  reveal(number) {
    const index = this.index(number);
    if (index < 0) return;
    const row = this.shown[index];
    if (row.raw === "") return;
    this.open = number;
    this.detail.json.textContent = pretty(row.raw);
    this.detail.json.scrollTop = 0;
    this.detail.only.forEach(([button, field]) => {
      button.hidden = row[field] === "";
      button.onclick = () => this.narrow(field === "type" ? "types" : field, row[field]);
    });
    this.detail.id_.textContent = row.id ? `id ${plain(row.id, 60)}` : "";
    this.follows = false;
    this.look(index, this.rowHeight + OPEN);
  }

  narrow(field, value) {
    this.find(field).value = value;
    this.refilter();
    this.grid.focus();
  }

  close() {
    this.open = null;
    this.detail.hidden = true;
  }

  // Scrolls no further than needed to show a row.
  look(index, height = this.rowHeight) {
    const [top, view] = [this.top(index), this.box.scrollTop];
    this.space.style.height = `${(this.space.tall = this.top(this.shown.length))}px`;
    if (top < view) this.box.scrollTop = top;
    else if (top + height > view + this.height) this.box.scrollTop = Math.min(top, top + height - this.height);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target !== this.grid) return;
    const last = this.shown.length - 1;
    const at = this.active === null ? -1 : this.index(this.active);
    const page = Math.max(1, Math.floor(this.height / this.rowHeight) - 1);
    const from = at < 0 ? last + 1 : at;
    const to = { ArrowUp: from - 1, ArrowDown: at < 0 ? last : at + 1, PageUp: from - page, PageDown: from + page, Home: 0, End: last }[event.key];
    if (to !== undefined) {
      if (last < 0) return;
      const next = Math.min(last, Math.max(0, to));
      this.active = this.shown[next].number;
      this.follows = event.key === "End";
      if (!this.follows) this.look(next);
    } else if (event.key === "Enter") this.toggle();
    else if (event.key === "Escape" && this.open !== null) this.close();
    else return;
    event.preventDefault();
    this.wish();
  }

  makeRow() {
    const row = document.createElement("div");
    row.className = "row";
    row.id = `row-${this.pool.length}`;
    row.row = null;
    row.hidden = true;
    row.setAttribute("role", "row");
    for (const name of ["time", "origin", "type", "session", "what"]) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.setAttribute("role", "gridcell");
      // What others wrote stays in its own place, whichever way it runs.
      if (name !== "time") cell.append(document.createElement("bdi"));
      row.append(cell);
    }
    this.space.append(row);
    return row;
  }

  makeDetail() {
    const detail = document.createElement("div");
    detail.className = "detail";
    detail.hidden = true;
    detail.style.height = `${OPEN}px`;
    detail.setAttribute("role", "row");
    const cell = document.createElement("div");
    cell.setAttribute("role", "gridcell");
    const bar = document.createElement("p");
    detail.id_ = document.createElement("span");
    detail.only = [["Only this type", "type"], ["Only this session", "session"]].map(([words, field]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words;
      return [button, field];
    });
    bar.append(...detail.only.map(([button]) => button), detail.id_);
    detail.json = document.createElement("pre");
    detail.json.tabIndex = 0;
    detail.json.setAttribute("aria-label", "The event’s JSON");
    detail.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.close();
      this.grid.focus();
      this.wish();
    });
    cell.append(bar, detail.json);
    detail.append(cell);
    this.space.append(detail);
    return detail;
  }
}
