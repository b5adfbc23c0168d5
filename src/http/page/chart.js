// The chart of the last hour: one lane each for opencode and the witnesses, with what each told above its state.

const MINUTE = 60000;
// How much is shown, in minutes: no more than the relay tells about, and never more than its hour.
const WINDOWS = [5, 15, 30, 60];

// From top to bottom. `counted` names the column of the history that stands above the lane's band.
const LANES = [
  { what: "opencode", name: "opencode", height: 40 },
  { what: "log", name: "log", counted: "notices", says: "announced", height: 56 },
  { what: "stream", name: "stream", counted: "events", says: "carried", height: 56 },
  { what: "state", name: "state", counted: "made", says: "made", height: 56 },
  { what: "lost", name: "lost", counted: "lost", says: "lost", height: 40 },
];
// The band of a state that is not good; a good one's is half as high.
const BAND = 12;
const AXIS = 20;

function svg(name, attributes, children = []) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class Chart {
  constructor(box, title, names, plot, tip) {
    Object.assign(this, { box, title, names, plot, tip });
    this.status = null;
    this.point = null;
    this.labels = LANES.map((lane) => {
      const [name, state] = [document.createElement("strong"), document.createElement("span")];
      name.textContent = lane.name;
      const label = document.createElement("p");
      label.className = "lane";
      label.dataset.lane = lane.what;
      label.style.height = `${lane.height}px`;
      label.append(name, state);
      names.append(label);
      return state;
    });
    new ResizeObserver(() => this.draw()).observe(plot);
    plot.addEventListener("pointermove", (event) => this.aim(event.clientX - plot.getBoundingClientRect().left));
    plot.addEventListener("pointerleave", () => this.aim(null));
    box.addEventListener("blur", () => this.aim(null));
    box.addEventListener("keydown", (event) => this.key(event));
  }

  show(status, now) {
    this.status = status;
    this.now = now;
    this.draw();
  }

  draw() {
    const width = Math.floor(this.plot.clientWidth);
    if (!this.status || width < 40) return;
    const { changes, buckets } = this.status.history;
    this.width = width;
    this.to = this.now;
    const first = Math.min(this.to, changes[0]?.at ?? this.to, buckets[0]?.[0] ?? this.to);
    const minutes = WINDOWS.find((minutes) => this.to - first <= minutes * MINUTE) ?? WINDOWS.at(-1);
    const title = minutes === 60 ? "The last hour" : `The last ${minutes} minutes`;
    if (this.title.textContent !== title) this.title.textContent = title;
    this.length = minutes * MINUTE;
    // A column is some buckets long and never thinner than three points. It keeps its buckets while time goes on, so that
    // bars move and do not change.
    const bucket = this.status.history.bucket_ms;
    const column = bucket * Math.ceil(this.length / bucket / Math.max(1, Math.floor(width / 3)));
    const number = Math.ceil(this.length / column);
    this.length = number * column;
    this.to = Math.ceil(this.now / column) * column;
    this.from = this.to - this.length;
    const x = (time) => ((time - this.from) / this.length) * width;
    const sums = columns(buckets, this.from, this.to, number);
    this.sums = sums;
    // What was announced and what came are measured alike, so that they can be compared.
    const most = (name) => Math.max(1, ...sums.map((column) => column[name]));
    const shared = Math.max(most("notices"), most("events"));
    const scale = { notices: shared, events: shared, made: most("made") };
    const height = LANES.reduce((sum, lane) => sum + lane.height, 0) + AXIS;
    const parts = this.axis(x, height);
    let top = 0;
    LANES.forEach((lane, index) => {
      const bottom = top + lane.height;
      const total = lane.counted ? sums.reduce((sum, column) => sum + column[lane.counted], 0) : 0;
      parts.push(svg("line", { class: "rule", x1: 0, x2: width, y1: bottom - 0.5, y2: bottom - 0.5 }));
      if (lane.what === "lost") {
        parts.push(...this.marks(sums, x, top, bottom));
      } else {
        const stretched = stretches(changes, lane.what, this.from, this.now);
        parts.push(...stretched.map((stretch) => band(stretch, x, bottom)));
        if (lane.counted) parts.push(this.bars(lane, sums, scale[lane.counted], top, bottom, width / sums.length));
      }
      this.labels[index].textContent = this.label(lane, total);
      top = bottom;
    });
    this.line = svg("line", { class: "aim", y1: 0, y2: top, x1: -9, x2: -9 });
    const image = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": this.words(sums) }, [...parts, this.line]);
    this.plot.replaceChildren(image);
    if (this.point !== null) this.aim(this.point);
  }

  axis(x, height) {
    // At most six labels, fewer where there is little room.
    const step = (this.length / (this.width < 420 ? 3 : 6)) * (this.length < 10 * MINUTE && this.width >= 420 ? 1.2 : 1);
    const round = Math.max(MINUTE, Math.round(step / MINUTE) * MINUTE);
    const first = Math.ceil(this.from / round) * round;
    const parts = [];
    for (let time = first; time <= this.to; time += round) {
      parts.push(svg("line", { class: "tick", x1: x(time), x2: x(time), y1: 0, y2: height - AXIS }));
      if (x(time) > 16 && x(time) < this.width - 16) {
        const label = svg("text", { x: x(time), y: height - 5, "text-anchor": "middle" });
        label.textContent = clock(time);
        parts.push(label);
      }
    }
    return parts;
  }

  bars(lane, sums, most, top, bottom, width) {
    const [floor, room] = [bottom - BAND - 3, bottom - top - BAND - 8];
    let path = "";
    sums.forEach((column, index) => {
      const number = column[lane.counted];
      // Even one event among thousands is seen.
      if (number > 0) path += `M${(index * width).toFixed(1)} ${floor}v${-Math.max(2, (number / most) * room).toFixed(1)}h${Math.max(2, width - 0.6).toFixed(1)}V${floor}z`;
    });
    return svg("path", { class: `bars ${lane.counted}`, d: path });
  }

  marks(sums, x, top, bottom) {
    const middle = (top + bottom) / 2;
    return sums.filter((column) => column.lost > 0).flatMap((column) => {
      const at = x(column.at + this.length / sums.length / 2);
      const isLeft = at < this.width - 60;
      const number = svg("text", { class: "lost", x: isLeft ? at + 10 : at - 10, y: middle + 4, "text-anchor": isLeft ? "start" : "end" });
      number.textContent = count(column.lost);
      return [svg("path", { class: "lost", d: `M${at} ${middle - 7}l7 7l-7 7l-7-7z` }), number];
    });
  }

  label(lane, total) {
    if (lane.what === "lost") return total === 0 ? "nothing" : many(total, "event");
    const last = this.status.history.changes.findLast((change) => change.what === lane.what);
    const witness = this.status.witnesses[lane.what];
    const state = lane.what === "opencode" ? this.status.upstream.state : (witness?.state ?? last?.state ?? "not asked yet");
    return lane.counted ? `${state} · ${count(total)}` : state;
  }

  words(sums) {
    const total = (name) => count(sums.reduce((sum, column) => sum + column[name], 0));
    return `${this.title.textContent}: ${total("notices")} events announced by the log, ${total("events")} carried by the stream, ${total("made")} made from the state, ${total("lost")} lost`;
  }

  // Shows what was at a point; `null` shows nothing.
  aim(point) {
    this.point = point;
    if (point === null || !this.sums) {
      this.tip.hidden = true;
      this.line?.setAttribute("x1", -9);
      this.line?.setAttribute("x2", -9);
      return;
    }
    const inside = Math.min(this.width - 1, Math.max(0, point));
    const column = this.sums[Math.floor((inside / this.width) * this.sums.length)];
    const length = this.length / this.sums.length;
    const lines = [document.createElement("strong")];
    lines[0].textContent = `${clock(column.at, true).slice(0, 8)} – ${clock(column.at + length, true).slice(0, 8)}`;
    for (const lane of LANES) {
      const line = document.createElement("span");
      const states = lane.what === "lost" ? [] : stretches(this.status.history.changes, lane.what, column.at, Math.min(this.now, column.at + length));
      const state = states.at(-1);
      const number = lane.counted ? `${count(column[lane.counted])} ${lane.says}` : "";
      const words = state ? `${state.state}${state.reason ? ` (${plain(state.reason, 120)})` : ""}` : lane.what === "lost" ? "" : "no record";
      line.textContent = [`${lane.name}:`, [number, words].filter((word) => word !== "").join(", ")].join(" ");
      line.dataset.level = lane.what === "lost" ? (column.lost > 0 ? "bad" : "") : state ? level(state.state) : "";
      lines.push(line);
    }
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    this.line.setAttribute("x1", inside);
    this.line.setAttribute("x2", inside);
    const left = this.plot.offsetLeft + inside;
    const room = this.box.clientWidth;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room - wide, left + 14 + wide > room ? left - wide - 14 : left + 14))}px`;
  }

  key(event) {
    if (!this.sums || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = (this.width / this.sums.length) * (event.shiftKey ? 10 : 1);
    // The first key shows the present.
    const present = ((this.now - this.from) / this.length) * this.width - 1;
    const [left, right] = this.point === null ? [present, present] : [this.point - step, this.point + step];
    const to = { ArrowLeft: left, ArrowRight: right, Home: 0, End: this.width - 1, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.aim(to === null ? null : Math.min(this.width - 1, Math.max(0, to)));
  }
}

function band(stretch, x, bottom) {
  const kind = level(stretch.state);
  // What is wrong is also taller, for those who do not tell the colours apart.
  const height = kind === "ok" ? BAND / 2 : BAND;
  return svg("rect", {
    class: `band ${kind}`,
    x: x(stretch.from).toFixed(1),
    width: Math.max(2, x(stretch.to) - x(stretch.from)).toFixed(1),
    y: bottom - 1 - height,
    height,
  });
}
