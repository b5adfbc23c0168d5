// The tables and lists beside the chart. What others wrote goes through `plain` and into text only.

function make(name, words, settings = {}) {
  const element = document.createElement(name);
  if (words !== undefined) element.textContent = words;
  Object.assign(element, settings);
  return element;
}

// Text of others, cut; the title has more of it.
function foreign(name, words, limit) {
  const short = plain(words, limit);
  const element = make(name, short);
  element.dir = "auto";
  if (short.length < String(words).length) element.title = plain(words, 1000);
  return element;
}

// Puts elements in place of others only where something differs: a selection and a scroll position survive.
function put(place, elements) {
  const old = [...place.children];
  if (old.length !== elements.length) place.replaceChildren(...elements);
  else elements.forEach((element, index) => element.isEqualNode(old[index]) || old[index].replaceWith(element));
}

const pairs = (entries) =>
  entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value, kind]) => {
    const pair = make("div");
    pair.append(make("dt", name), value instanceof Node ? value : foreign("dd", value, 240));
    if (kind) pair.dataset.level = kind;
    return pair;
  });

function definition(...children) {
  const element = make("dd");
  element.append(...children);
  return element;
}

function showFacts(find, status) {
  const { upstream, journal, connections } = status;
  const state = upstream.state === "up" && upstream.seconds !== null ? `up for ${span(upstream.seconds)}` : upstream.state;
  const open = Object.values(status.clients).reduce((sum, number) => sum + number, 0);
  const ready = status.ready ? "yes" : `no: ${plain(status.reason ?? "it does not say why", 160)}`;
  find("version").textContent = plain(status.version, 40);
  put(find("facts"), pairs([
    ["opencode", definition(foreign("bdi", upstream.version ?? "not known yet", 60), ` ${state}`), upstream.state === "up" ? "ok" : upstream.state === "down" ? "bad" : "warn"],
    ["At", upstream.url ?? "no address yet"],
    ["Ready", ready, status.ready ? "ok" : "bad"],
    ["Witness", status.witness],
    ["Streams", `${count(open)} open`],
    ["Connections", `${count(connections.open)} open${connections.refused > 0 ? `, ${count(connections.refused)} refused` : ""}`],
    ["Journal", `${count(journal.events)} events, ${bytes(journal.bytes)}`, journal.state === "ok" ? "" : "bad"],
  ]));
}

function showLedger(find, status) {
  const { rows, sum } = ledger(status);
  const table = find("ledger");
  const cells = (row) => {
    const lostCell = make("td", count(row.lost));
    if (row.lost > 0) lostCell.dataset.level = "bad";
    const pending = make("td", count(row.pending));
    if (row.pending > 0) pending.dataset.level = "warn";
    const recovered = make("td", count(row.recovered));
    if (row.recovered > 0) recovered.dataset.level = "made";
    // What the log never announces is published all the same.
    const isAnnounced = row.published > 0 || row.delivered === 0;
    const published = make("td", isAnnounced ? count(row.published) : "–");
    if (!isAnnounced) published.title = "not announced by opencode’s log";
    return [published, make("td", count(row.delivered)), recovered, lostCell, pending];
  };
  const line = (row, name) => {
    const line = make("tr");
    const reasons = [[row.unrecoverable.overwritten, "overwritten by a later change"], [row.unrecoverable.no_source, "told by no witness"]];
    const why = reasons.filter(([number]) => number > 0).map(([number, words]) => `${count(number)} ${words}`).join(", ");
    if (why) name.append(make("small", `lost: ${why}`));
    line.append(name, ...cells(row));
    return line;
  };
  const head = (words) => {
    const cell = foreign("th", words, 80);
    // Long names break behind a dot first.
    cell.replaceChildren(...cell.textContent.split(/(?<=\.)/).flatMap((part) => [part, make("wbr")]));
    cell.scope = "row";
    return cell;
  };
  if (rows.length === 0) put(table.tBodies[0], [note("Nothing was published yet.", 6)]);
  else put(table.tBodies[0], rows.map((row) => line(row, head(row.type))));
  put(table.tFoot, rows.length > 1 ? [line(sum, head(`all ${count(rows.length)} types`))] : []);
}

function note(words, columns) {
  const row = make("tr");
  row.append(make("td", words, { colSpan: columns, className: "note" }));
  return row;
}

function showStreams(find, status) {
  const { clients, streams } = status;
  const names = { event: "/event", session: "/session/…/event", global: "/global/event", api: "/api/event" };
  const told = Object.entries(clients).filter(([, number]) => number > 0).map(([name, number]) => `${count(number)} on ${names[name] ?? name}`);
  const all = Object.values(clients).reduce((sum, number) => sum + number, 0);
  const more = all > streams.length ? ` The ${count(streams.length)} furthest behind are shown.` : "";
  find("clients").textContent = told.length > 0 ? `${told.join(", ")}.${more}` : "";
  const rows = streams.map((stream) => {
    const row = make("tr");
    const client = make("th", undefined, { scope: "row" });
    // Every browser's name begins so, and the rest of it names three others.
    const agent = foreign("bdi", stream.agent?.startsWith("Mozilla/5.0 ") ? "a browser" : (stream.agent ?? "no name"), 60);
    agent.title = plain(stream.agent ?? "", 200);
    client.append(agent, make("small", plain(stream.peer, 60)));
    const what = make("td", names[stream.stream] ?? plain(stream.stream, 40));
    const scope = [stream.directory, stream.session].filter((word) => word);
    for (const word of scope) what.append(foreign("small", word, 80));
    const behind = make("td", stream.behind === 0 ? "0" : count(stream.behind));
    if (stream.behind > 0) behind.dataset.level = stream.behind >= 1000 ? "bad" : "warn";
    row.append(client, what, make("td", span(stream.seconds)), behind);
    return row;
  });
  put(find("streams").tBodies[0], rows.length > 0 ? rows : [note("No stream is open.", 4)]);
}

function showWitnesses(find, status) {
  const { log, stream, state } = status.witnesses;
  const { directories } = status.upstream;
  put(find("witnesses"), pairs([
    ["Log", `${log.state}, ${many(log.notices, "event")} announced`, level(log.state) === "bad" && log.state !== "none" ? "bad" : ""],
    ["Log source", log.source],
    ["Log gaps", log.gaps > 0 ? count(log.gaps) : "", "bad"],
    ["Stream", `${stream.state}, ${many(stream.events, "event")} in ${many(stream.connects, "connection")}`, stream.state === "down" ? "bad" : ""],
    ["Stream’s last error", stream.state === "connected" ? "" : stream.error, "bad"],
    ["Frames not readable", stream.lost > 0 ? count(stream.lost) : "", "bad"],
    ["State", `${many(state.reads, "read")}, ${count(state.in_flight)} under way, ${many(state.events, "event")} made`],
    ["Reads that failed", state.failed > 0 ? count(state.failed) : "", "warn"],
    ["Directories in use", directories.length > 0 ? directories.slice(0, 8).map((one) => plain(one, 80)).join(", ") + (directories.length > 8 ? ` and ${directories.length - 8} more` : "") : ""],
  ]));
}

function showJournal(find, status) {
  const { journal } = status;
  const newest = journal.events > 0 ? `${count(journal.oldest)} to ${count(journal.newest)}` : "none yet";
  put(find("journal"), pairs([
    ["State", journal.state === "ok" ? "ok" : `${journal.state}: ${plain(journal.reason ?? "", 300)}`, journal.state === "ok" ? "ok" : "bad"],
    ["Kept", journal.form === "disk" ? "on disk" : "in memory only; a restart of the relay forgets it"],
    ["Events", `${count(journal.events)}, ${bytes(journal.bytes)}`],
    ["Numbers", newest],
    ["Epoch", journal.epoch],
    ["File", journal.path],
  ]));
}

function showBreakages(find, status) {
  const { breakages, version } = status.upstream;
  const lines = breakages.map((words) => foreign("li", words, 240));
  put(find("breakages"), lines.length > 0 ? lines : [make("li", version ? "Nothing is known to be broken in this release." : "opencode has not said its version yet.")]);
}
