//! One run: a script played to a [`Reconcile`] in virtual time, with a client that folds what comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use opencode_relay::event::{Event, Origin, Place};
use opencode_relay::reconcile::{Count, Effect, Failure, Input, Now, Options, Past, Reconcile, Witness};
use serde_json::{Value, json};

use super::model::{AWAY, Change, EPOCH, HOME, Message, World};
use super::script::{Dice, Happening, Script};

/// How the witnesses behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) witness: Witness,
    pub(super) seed: u64,
    /// How late a line comes, at most.
    pub(super) line_delay: u64,
    /// How late a frame comes, at most.
    pub(super) frame_delay: u64,
    /// The stream breaks at the first time and is connected again at the second. What is on its way is lost.
    pub(super) cuts: Vec<(u64, u64)>,
    /// How long the break takes to be noticed.
    pub(super) notice_cut: u64,
    /// Frames, by number, that never come.
    pub(super) dropped: BTreeSet<usize>,
    /// Lines, by number, that never come.
    pub(super) lost: BTreeSet<usize>,
    /// Lines that come twice.
    pub(super) doubled: BTreeSet<usize>,
    /// Lines that come out of order, so much later than the others; negative is earlier.
    pub(super) shifted: BTreeMap<usize, i64>,
    /// Lines that nothing was published for.
    pub(super) forged: Vec<(u64, &'static str)>,
    /// When no question is answered.
    pub(super) outages: Vec<(u64, u64)>,
    /// The relay is killed at the first time and started again at the second.
    pub(super) kills: Vec<(u64, u64)>,
    /// opencode dies at the first time, with everything it was about to do, and is back at the second.
    pub(super) death: Option<(u64, u64)>,
    /// How often the relay looks at the newest sessions; 0 for never.
    pub(super) watch: u64,
    /// Sessions of which nothing is published: another process's.
    pub(super) foreign: fn(&str) -> bool,
    /// The stream is up and shows life, but brings no event, and there is no log.
    pub(super) is_mute: bool,
    /// opencode keeps its durable events and counts them.
    pub(super) has_history: bool,
    /// A session's object changes with each step of a turn, without an event (1.18.34: cost and tokens).
    pub(super) drifts: bool,
    /// How long to go on after the last happening.
    pub(super) quiet: u64,
}

impl Settings {
    pub(super) fn new(witness: Witness, seed: u64) -> Self {
        Self {
            witness,
            seed,
            line_delay: 5,
            frame_delay: 40,
            cuts: vec![],
            notice_cut: 0,
            dropped: BTreeSet::new(),
            lost: BTreeSet::new(),
            doubled: BTreeSet::new(),
            shifted: BTreeMap::new(),
            forged: vec![],
            outages: vec![],
            kills: vec![],
            death: None,
            watch: 2_000,
            foreign: |_| false,
            is_mute: false,
            has_history: false,
            drifts: false,
            quiet: 10_000,
        }
    }
}

impl Settings {
    /// Whether no witness tells of an event.
    fn is_silent(&self, properties: &Value) -> bool {
        self.is_mute || (self.foreign)(properties["sessionID"].as_str().unwrap_or_default())
    }
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What opencode holds at the end.
    pub(super) world: World,
    /// What the client holds at the end.
    pub(super) fold: World,
    /// Events made from the state, with their time.
    pub(super) emitted: Vec<(u64, Event)>,
    /// What must never happen.
    pub(super) wrong: Vec<String>,
    pub(super) counts: BTreeMap<String, Count>,
    /// Events that the client had of the stream and of the state, by type.
    pub(super) told: BTreeMap<String, [u64; 2]>,
    /// Lines given, by type.
    pub(super) lines: BTreeMap<String, u64>,
    pub(super) reads: u64,
    pub(super) most_in_flight: usize,
    pub(super) ticks: u64,
    /// The ids of durable events that the client never had, if opencode keeps them.
    pub(super) missing: Vec<String>,
    /// How often the relay was started again.
    pub(super) lives: u64,
    /// How often each question was asked.
    pub(super) asked: BTreeMap<String, u64>,
    /// How the session.idle of each session were told: by the stream or by us.
    pub(super) idles: BTreeMap<String, u64>,
    /// Everything in order, for a person who looks for the reason of a failure.
    pub(super) trace: String,
}

impl Outcome {
    /// Where the client differs from opencode.
    pub(super) fn difference(&self) -> Option<String> {
        let (world, fold) = (self.world.clone().bare(), self.fold.clone().bare());
        (world != fold).then(|| {
            let mut text = String::new();
            for (name, world, fold) in [
                ("sessions", json!(world.sessions), json!(fold.sessions)),
                ("statuses", json!(world.statuses), json!(fold.statuses)),
                ("todos", json!(world.todos), json!(fold.todos)),
                ("diffs", json!(world.diffs), json!(fold.diffs)),
                ("permissions", json!(world.permissions), json!(fold.permissions)),
                ("questions", json!(world.questions), json!(fold.questions)),
            ] {
                if world != fold {
                    let _ = writeln!(text, "{name}: opencode {world}\n{name}: client   {fold}");
                }
            }
            let sessions: BTreeSet<&String> = world.messages.keys().chain(fold.messages.keys()).collect();
            for session in sessions {
                let of = |all: &World| all.messages.get(session).cloned().unwrap_or_default();
                let (world, fold) = (of(&world), of(&fold));
                let ids: BTreeSet<&String> = world.keys().chain(fold.keys()).collect();
                for id in ids.into_iter().filter(|id| world.get(*id) != fold.get(*id)) {
                    let shown = |message: Option<&Message>| {
                        message.map_or(Value::Null, |message| json!([message.info, json!(message.parts)]))
                    };
                    let _ = writeln!(text, "{session} {id}: opencode {}", shown(world.get(id)));
                    let _ = writeln!(text, "{session} {id}: client   {}", shown(fold.get(id)));
                }
            }
            text
        })
    }
}

enum What {
    Happening(usize),
    Line(Line),
    Frame(usize),
    Up,
    Down,
    Alive,
    /// In which life of the relay the question was asked, its number, path and directory.
    Compute(u64, u64, String, String, Option<String>),
    Deliver(u64, u64, Result<Bytes, Failure>),
    Die,
    Revive,
    Kill,
    Start,
    Tick,
}

#[derive(Clone, Debug)]
enum Line {
    Notice(Arc<str>),
    Hint(Arc<str>),
    Started,
}

/// What survives a kill of the relay.
#[derive(Default)]
struct Disk {
    /// With the time of each.
    events: Vec<(u64, Event)>,
    snapshot: Option<String>,
    /// How many lines of the log were read.
    position: usize,
}

/// Plays the script.
pub(super) fn run(script: &Script, settings: &Settings) -> Outcome {
    let mut run = Run::new(script, settings);
    run.prepare();
    run.go();
    run.finish()
}

fn options(settings: &Settings) -> Options {
    Options { witness: settings.witness, grace: 2000, watch: settings.watch, emit_bare: false }
}

struct Run<'a> {
    script: &'a Script,
    settings: &'a Settings,
    dice: Dice,
    /// Says whether notes are kept with events, on which nothing but what comes after a kill depends.
    notes: Dice,
    queue: BTreeMap<(u64, u64), What>,
    queued: u64,
    frames: Vec<Event>,
    /// opencode's own record: when, session, number, and the row.
    record: Vec<(u64, String, u64, Value)>,
    /// The ids of all events that the client had.
    ids: BTreeSet<String>,
    reconcile: Reconcile,
    connected: bool,
    in_use: BTreeSet<String>,
    /// All lines that were written, and how many of them were read.
    log: Vec<Line>,
    read: usize,
    disk: Disk,
    /// Events of this step, and those of the stream that wait for what happened while the relay was away.
    events: Vec<Event>,
    deferred: VecDeque<Event>,
    is_running: bool,
    out: Outcome,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, settings: &'a Settings) -> Self {
        let options = options(settings);
        let out = Outcome { world: script.before.clone(), fold: script.before.clone(), ..Outcome::default() };
        Self {
            script,
            settings,
            dice: Dice::new(settings.seed),
            notes: Dice::new(settings.seed ^ 1),
            queue: BTreeMap::new(),
            queued: 0,
            frames: vec![],
            record: vec![],
            ids: BTreeSet::new(),
            reconcile: Reconcile::new(options, Now { steady: 0, wall: EPOCH }),
            connected: false,
            in_use: BTreeSet::from([HOME.to_owned()]),
            log: vec![],
            read: 0,
            disk: Disk::default(),
            events: vec![],
            deferred: VecDeque::new(),
            is_running: true,
            out,
        }
    }

    fn later(&mut self, at: u64, what: What) {
        self.queued += 1;
        self.queue.insert((at, self.queued), what);
    }

    fn has_stream(&self) -> bool {
        self.settings.witness != Witness::Log
    }

    fn prepare(&mut self) {
        let settings = self.settings;
        if self.has_stream() {
            self.later(1, What::Up);
            for (down, up) in &settings.cuts {
                self.later(down + settings.notice_cut, What::Down);
                self.later(*up, What::Up);
            }
        }
        for (down, up) in &settings.kills {
            self.later(*down, What::Kill);
            self.later(*up, What::Start);
        }
        if let Some((at, back)) = settings.death {
            self.later(at, What::Die);
            self.later(back, What::Revive);
        }
        let (mut line_clock, mut frame_clock, mut line) = (0, 0, 0);
        for (index, (at, happening)) in self.script.happenings.iter().enumerate() {
            if settings.death.is_some_and(|(death, _)| *at >= death) {
                break;
            }
            self.later(*at, What::Happening(index));
            match happening {
                Happening::Publish { properties, .. } if settings.is_silent(properties) => {}
                Happening::Publish { kind, directory, properties } => {
                    line_clock = line_clock.max(at + self.dice.roll(settings.line_delay + 1));
                    if settings.witness != Witness::Stream {
                        self.lines(line, line_clock, (*kind).into());
                    }
                    line += 1;
                    frame_clock = frame_clock.max(at + self.dice.roll(settings.frame_delay + 1));
                    self.frame(frame_clock, kind, directory, properties);
                    let is_durable = |kind: &str| {
                        [
                            "session.created",
                            "session.updated",
                            "message.updated",
                            "message.part.updated",
                            "message.removed",
                        ]
                        .contains(&kind)
                    };
                    if settings.has_history && is_durable(kind) {
                        self.durable(*at, frame_clock, kind, properties);
                    }
                }
                Happening::Hint(session, _)
                    if settings.witness != Witness::Stream && !settings.is_mute && !(settings.foreign)(session) =>
                {
                    line_clock = line_clock.max(*at);
                    self.later(line_clock, What::Line(Line::Hint(session.as_str().into())));
                }
                _ => {}
            }
        }
        for (at, kind) in &settings.forged {
            self.later(*at, What::Line(Line::Notice((*kind).into())));
        }
        if self.has_stream() {
            let mut at = 5_000;
            while at < self.end() {
                self.later(at, What::Alive);
                at += 10_000;
            }
        }
    }

    fn lines(&mut self, number: usize, at: u64, kind: Arc<str>) {
        let settings = self.settings;
        if settings.lost.contains(&number) {
            return;
        }
        let shift = settings.shifted.get(&number).copied().unwrap_or(0);
        let at = at.saturating_add_signed(shift).max(2);
        if settings.doubled.contains(&number) {
            let again = at + self.dice.roll(50);
            self.later(again, What::Line(Line::Notice(kind.clone())));
        }
        self.later(at, What::Line(Line::Notice(kind)));
    }

    fn frame(&mut self, at: u64, kind: &str, directory: &str, properties: &Value) {
        let number = self.frames.len();
        let place = Place { directory: Some(directory.into()), project: Some("p".into()) };
        let session = properties["sessionID"].as_str();
        let id = format!("evt_{number}");
        self.frames.push(Event::made(Origin::Stream, kind, &place, session, &id, &properties.to_string()));
        if self.has_stream() && !self.settings.dropped.contains(&number) {
            self.later(at, What::Frame(number));
        }
    }

    /// A durable event's record and twin.
    fn durable(&mut self, published: u64, at: u64, kind: &str, properties: &Value) {
        let id = format!("evt_{}", self.frames.len() - 1);
        let session = properties["sessionID"].as_str().unwrap().to_owned();
        let seq = self.record.iter().filter(|(_, of, ..)| *of == session).count() as u64;
        let kind = format!("{kind}.1");
        let row = json!({"id": id, "aggregate_id": session, "seq": seq, "type": kind, "data": properties});
        let twin = json!({"directory": HOME, "payload": {"type": "sync", "id": id, "syncEvent":
            {"type": kind, "id": id, "seq": seq, "aggregateID": session, "data": properties}}});
        self.record.push((published, session, seq, row));
        self.frames.push(Event::read(Bytes::from(twin.to_string())).unwrap());
        self.later(at, What::Frame(self.frames.len() - 1));
    }

    fn end(&self) -> u64 {
        let forged = self.settings.forged.last().map_or(0, |(at, _)| *at);
        let cuts = self.settings.cuts.last().map_or(0, |(_, up)| *up);
        let outages = self.settings.outages.last().map_or(0, |(_, up)| *up);
        let kills = self.settings.kills.last().map_or(0, |(_, up)| *up);
        let death = self.settings.death.map_or(0, |(_, back)| back);
        self.script.over.max(forged).max(cuts).max(outages).max(kills).max(death) + self.settings.quiet
    }

    fn go(&mut self) {
        self.disk.snapshot = Some(self.reconcile.snapshot(0));
        self.input(Input::Reachable(true), 0);
        self.input(Input::InUse(None), 0);
        self.input(Input::Listened(true), 0);
        let end = self.end();
        let mut tick = Some(0);
        loop {
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let at = [next, tick].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            let what = if next == Some(at) { self.queue.pop_first().unwrap().1 } else { What::Tick };
            // Events that waited for this tick may lead to questions of their own.
            let ticked = matches!(what, What::Tick) && self.deferred.is_empty();
            self.step(what, at);
            if !self.is_running {
                tick = None;
                continue;
            }
            self.deliver_deferred(at, false);
            self.commit(at);
            let now = Now { steady: at, wall: EPOCH + at };
            let _ = self.reconcile.pending(now);
            let due = self.reconcile.next_tick(now);
            if ticked && due.is_some_and(|due| due <= at) {
                self.out.wrong.push(format!("{at}: after a tick the next is due in the past: {due:?}"));
                break;
            }
            tick = due.map(|due| due.max(at));
        }
    }

    fn finish(mut self) -> Outcome {
        self.out.counts = self.reconcile.counts().map(|(kind, count)| (kind.to_string(), count.clone())).collect();
        let rows = self.record.iter().filter(|(_, session, ..)| self.out.world.sessions.contains_key(session));
        // What came before it is told in none of its twins that anybody saw: how far it was counted is not known.
        let rows = rows.filter(|(_, session, ..)| session != "ses_old");
        let missing = rows.filter(|(.., row)| !self.ids.contains(&format!("event {}", row["id"])));
        self.out.missing = missing.map(|(.., row)| format!("{} {}", row["id"], row["type"])).collect();
        self.out.reads = self.reconcile.reads().0;
        self.out
    }

    fn deliver_deferred(&mut self, at: u64, all: bool) {
        while (all || !self.reconcile.is_recovering())
            && let Some(event) = self.deferred.pop_front()
        {
            if self.reconcile.is_told(&event) {
                continue;
            }
            self.note(at, &format!("frame  {}", text(&event)));
            self.events.push(event.clone());
            self.input(Input::Event(event), at);
        }
    }

    /// What came out of a step is kept, then shown, as the pipeline does; what the next run needs besides is kept now and then.
    fn commit(&mut self, at: u64) {
        let events = std::mem::take(&mut self.events);
        let dice = if events.is_empty() { &mut self.dice } else { &mut self.notes };
        let is_due = dice.roll(8) == 0;
        for event in events {
            self.fold(&event, at);
            self.disk.events.push((EPOCH + at, event));
        }
        if is_due {
            self.disk.snapshot = Some(self.reconcile.snapshot(self.disk.events.len() as u64));
            self.disk.position = self.read;
        }
    }

    fn kill(&mut self) {
        self.is_running = false;
        self.connected = false;
        self.events.clear();
        self.deferred.clear();
    }

    /// Starts the relay again on what the last one left. Clients come back, which says what is in use.
    fn start(&mut self, at: u64) {
        self.is_running = true;
        self.out.lives += 1;
        let left = format!("left   {:?}", self.disk.snapshot);
        self.note(at, &left);
        let now = Now { steady: at, wall: EPOCH + at };
        let past = self.disk.events.iter().zip(1..).map(|((at, event), seq)| Past { seq, at: *at, event });
        self.reconcile = match &self.disk.snapshot {
            Some(snapshot) => Reconcile::restore(options(self.settings), snapshot, past, now).unwrap(),
            None => Reconcile::new(options(self.settings), now),
        };
        self.read = self.disk.position;
        let is_dead = self.settings.death.is_some_and(|(death, back)| (death..back).contains(&at));
        self.input(Input::Reachable(!is_dead), at);
        for directory in self.in_use.clone() {
            self.input(Input::InUse(Some(directory.into())), at);
        }
        self.input(Input::Listened(true), at);
        self.read_log(at);
        if self.has_stream() && !is_dead && !self.is_cut(at) {
            let up = at + 1 + self.dice.roll(60);
            self.later(up, What::Up);
        }
    }

    fn read_log(&mut self, at: u64) {
        while self.is_running
            && let Some(line) = self.log.get(self.read).cloned()
        {
            self.read += 1;
            self.note(at, &format!("line   {line:?}"));
            self.input(
                match line {
                    Line::Notice(kind) => Input::Notice(kind),
                    Line::Hint(session) => Input::Hint(session),
                    Line::Started => Input::LogBroke,
                },
                at,
            );
        }
    }

    fn is_cut(&self, at: u64) -> bool {
        self.settings.cuts.iter().any(|(down, up)| (*down..*up).contains(&at))
    }

    fn note(&mut self, at: u64, text: &str) {
        let _ = writeln!(self.out.trace, "{at:6} {text}");
    }

    fn step(&mut self, what: What, at: u64) {
        match what {
            What::Happening(index) => {
                let happening = self.script.happenings[index].1.clone();
                self.happening(happening, at);
            }
            What::Line(line) => {
                if let Line::Notice(kind) = &line {
                    *self.out.lines.entry(kind.to_string()).or_default() += 1;
                }
                self.log.push(line);
                self.read_log(at);
            }
            What::Frame(number) => {
                if self.connected && !self.is_cut(at) {
                    let event = self.frames[number].clone();
                    if self.reconcile.is_recovering() {
                        self.reconcile.foresee(&event);
                    }
                    self.deferred.push_back(event);
                    self.deliver_deferred(at, false);
                }
            }
            What::Up => {
                let is_dead = self.settings.death.is_some_and(|(death, back)| (death..back).contains(&at));
                if self.is_running && !is_dead {
                    self.note(at, "up");
                    self.connected = true;
                    self.input(Input::StreamUp, at);
                }
            }
            What::Down => {
                self.deliver_deferred(at, true);
                self.note(at, "down");
                self.connected = false;
                self.input(Input::StreamDown, at);
            }
            What::Die => {
                self.note(at, "DEATH");
                self.out.world.statuses.clear();
                self.out.world.permissions.clear();
                self.out.world.questions.clear();
                self.connected = false;
                self.deliver_deferred(at, true);
                if self.has_stream() {
                    self.input(Input::StreamDown, at);
                }
                self.input(Input::Reachable(false), at);
            }
            What::Revive => {
                self.note(at, "opencode is back");
                if self.settings.witness != Witness::Stream {
                    self.log.push(Line::Started);
                }
                self.input(Input::Reachable(true), at);
                self.read_log(at);
                if self.has_stream() {
                    self.later(at + 20, What::Up);
                }
            }
            What::Kill => {
                self.note(at, "KILL");
                self.kill();
            }
            What::Start => {
                self.note(at, "START");
                self.start(at);
            }
            What::Alive if self.connected && !self.is_cut(at) => self.input(Input::StreamAlive, at),
            What::Alive => {}
            What::Compute(life, number, path, directory, body) => {
                let is_dead = self.settings.death.is_some_and(|(death, back)| (death..back).contains(&at));
                let answer = if is_dead || self.settings.outages.iter().any(|(from, to)| (*from..*to).contains(&at)) {
                    Err(Failure::Unanswered)
                } else if let Some(body) = body {
                    Ok(self.recorded(&serde_json::from_str(&body).unwrap(), at))
                } else {
                    self.out.world.answer(&path, &directory)
                };
                let later = at + self.dice.roll(31);
                self.later(later, What::Deliver(life, number, answer));
            }
            What::Deliver(life, number, answer) => {
                if life == self.out.lives {
                    self.note(at, &format!("answer {number}"));
                    self.input(Input::Answer { number, answer }, at);
                }
            }
            What::Tick => {
                self.out.ticks += 1;
                self.input(Input::Tick, at);
            }
        }
    }

    /// What `POST /sync/history` answers: sessions that are not named come whole.
    fn recorded(&self, after: &Value, at: u64) -> Bytes {
        let wanted = self.record.iter().filter(|(published, session, seq, _)| {
            *published <= at
                && self.out.world.sessions.contains_key(session)
                && after[session].as_u64().is_none_or(|after| *seq > after)
        });
        let mut rows: Vec<&(u64, String, u64, Value)> = wanted.collect();
        rows.sort_by_key(|(_, _, seq, _)| *seq);
        Bytes::from(rows.into_iter().map(|(.., row)| row.clone()).collect::<Value>().to_string())
    }

    fn happening(&mut self, happening: Happening, at: u64) {
        match happening {
            // The server knows nothing of another process's turns and asks.
            Happening::Change(Change::Status(session, _)) if (self.settings.foreign)(&session) => {}
            Happening::Change(Change::Permission(_, ask) | Change::Question(_, ask))
                if (self.settings.foreign)(ask["sessionID"].as_str().unwrap()) => {}
            Happening::Change(change) => {
                if matches!(change, Change::Status(..) | Change::Part(..)) {
                    self.note(at, &format!("state  {change:?}"));
                }
                let step = match &change {
                    Change::Message(session, info) if self.settings.drifts && info["finish"].is_string() => {
                        Some(session.clone())
                    }
                    _ => None,
                };
                self.out.world.change(change);
                if let Some(info) = step.and_then(|session| self.out.world.sessions.get_mut(&session)) {
                    info["cost"] = at.into();
                }
            }
            Happening::Publish { properties, .. }
                if (self.settings.foreign)(properties["sessionID"].as_str().unwrap_or_default()) => {}
            // An instance that publishes runs.
            Happening::Publish { directory, .. } => {
                self.in_use.insert(directory);
            }
            // The prompt passed through the relay.
            Happening::Hint(session, directory) if self.settings.is_mute => {
                self.in_use.insert(directory.to_owned());
                self.input(Input::InUse(Some(directory.into())), at);
                self.input(Input::Write { path: format!("/session/{session}/prompt_async"), body: Bytes::new() }, at);
            }
            Happening::Hint(session, _) if (self.settings.foreign)(&session) => {}
            // Without a log, the request that began the turn tells where.
            Happening::Hint(_, directory) if self.settings.witness == Witness::Stream => {
                self.in_use.insert(directory.to_owned());
                self.input(Input::InUse(Some(directory.into())), at);
            }
            Happening::Hint(..) => {}
            Happening::InUse(directory) => {
                self.in_use.insert(directory.clone());
                self.input(Input::InUse(Some(directory.into())), at);
            }
            Happening::Write(path, body) => {
                self.input(Input::Write { path, body: Bytes::from(body.to_string()) }, at);
            }
        }
    }

    fn input(&mut self, input: Input, at: u64) {
        if !self.is_running {
            return;
        }
        let mut effects = Vec::new();
        self.reconcile.handle(input, Now { steady: at, wall: EPOCH + at }, &mut effects);
        for effect in effects {
            match effect {
                Effect::Emit(event) => {
                    self.note(at, &format!("EMIT   {}", text(&event)));
                    self.events.push(event.clone());
                    self.out.emitted.push((at, event));
                }
                Effect::Ask { number, path, directory, body } => {
                    self.note(at, &format!("ask    {number} {path} {directory:?}"));
                    if let Some(directory) = directory.as_deref().filter(|directory| !self.in_use.contains(*directory))
                    {
                        self.out.wrong.push(format!("{at}: asked {directory}, which is not in use"));
                    }
                    *self.out.asked.entry(path.clone()).or_default() += 1;
                    let directory = directory.as_deref().unwrap_or(HOME).to_owned();
                    let later = at + self.dice.roll(31);
                    let life = self.out.lives;
                    self.later(later, What::Compute(life, number, path, directory, body));
                }
                Effect::Misshapen(error) => self.out.wrong.push(format!("{at}: {error}")),
            }
        }
        self.out.most_in_flight = self.out.most_in_flight.max(self.reconcile.reads().1);
    }

    fn fold(&mut self, event: &Event, at: u64) {
        let payload: Value = serde_json::from_slice(&event.payload()).unwrap();
        let id = format!("{} {}", if &*event.kind == "sync" { "twin" } else { "event" }, payload["id"]);
        if !self.ids.insert(id.clone()) {
            self.out.wrong.push(format!("{at}: {id} twice"));
        }
        if &*event.kind == "sync" {
            return;
        }
        let [stream, state] = self.out.told.entry(event.kind.to_string()).or_default();
        if event.origin == Origin::Stream {
            *stream += 1;
        } else {
            *state += 1;
            self.check(event, at);
        }
        if let Err(error) = self.out.fold.fold(event, event.origin != Origin::Stream) {
            self.out.wrong.push(format!("{at}: {error}"));
        }
        if &*event.kind == "session.idle" {
            *self.out.idles.entry(event.session.as_deref().unwrap().to_owned()).or_default() += 1;
        }
    }

    /// Whether the state supports an event that was made.
    fn check(&mut self, event: &Event, at: u64) {
        let payload = event.parts().unwrap();
        let properties: Value = serde_json::from_str(payload.properties.unwrap().get()).unwrap();
        let session = properties["sessionID"].as_str().unwrap_or_default().to_owned();
        let content = match &*event.kind {
            "session.created" | "session.updated" | "message.updated" => &properties["info"],
            "message.part.updated" => &properties["part"],
            "session.error" => &properties["error"],
            "todo.updated" => &properties["todos"],
            "session.diff" => &properties["diff"],
            "permission.asked" | "question.asked" => &properties,
            _ => &Value::Null,
        };
        let is_empty = *content == json!([]);
        if !content.is_null() && !is_empty {
            let since = self.script.truths.get(&content.to_string());
            let is_drifted = self.settings.drifts && content["cost"].is_u64() && content["title"].is_string();
            if since.is_none_or(|since| *since > at) && !is_drifted {
                self.out.wrong.push(format!("{at}: invented {}", text(event)));
            }
        }
        if let Some(info) = self.script.before.sessions.get(&session).or(self.out.fold.sessions.get(&session))
            && info["directory"] != *event.directory.as_deref().unwrap_or_default()
        {
            self.out.wrong.push(format!("{at}: wrong directory {}", text(event)));
        }
        match &*event.kind {
            "session.deleted" if self.out.world.sessions.contains_key(&session) => {
                self.out.wrong.push(format!("{at}: not deleted {}", text(event)));
            }
            "message.removed"
                if self.out.world.messages.get(&session).is_some_and(|messages| {
                    messages.contains_key(properties["messageID"].as_str().unwrap_or_default())
                }) =>
            {
                self.out.wrong.push(format!("{at}: not removed {}", text(event)));
            }
            "session.idle" => self.check_idle(&session, at),
            _ => {}
        }
    }

    /// The end that is told now belongs to a turn that ended, and its texts were told before.
    fn check_idle(&mut self, session: &str, at: u64) {
        if self.settings.death.is_some_and(|(death, _)| at >= death) {
            // The script does not know how far the turn had come.
            return;
        }
        // With the log alone, an answer proves a turn, whoever ran it.
        if (self.settings.foreign)(session) {
            return;
        }
        let told = self.out.idles.get(session).copied().unwrap_or(0);
        let ended: Vec<_> =
            self.script.finished.iter().filter(|turn| turn.session == session && turn.ended <= at).collect();
        let Some(turn) = ended.get(usize::try_from(told).unwrap()) else {
            if self.settings.witness == Witness::Log {
                self.out.wrong.push(format!("{at}: {session}: an end more than the {} turns that ended", ended.len()));
            }
            return;
        };
        // With a stream, opencode's own repetitions of the end count, and not every end told is the next turn's.
        let texts = if self.settings.witness == Witness::Log { turn.texts.as_slice() } else { &[] };
        for (message, part, wanted) in texts {
            let exists = self.out.world.messages.get(session).is_some_and(|all| all.contains_key(message));
            let has = self.out.fold.messages.get(session).and_then(|all| all.get(message));
            let has = has.and_then(|message| message.parts.get(part)).and_then(|part| part["text"].as_str());
            if exists && has != Some(wanted) {
                self.out.wrong.push(format!("{at}: {session}: the end before its text {wanted:?}, has {has:?}"));
            }
        }
    }
}

fn text(event: &Event) -> String {
    let payload: Value = serde_json::from_slice(&event.payload()).unwrap();
    let away = if event.directory.as_deref() == Some(AWAY) { "away " } else { "" };
    format!("{} {away}{}", event.kind, payload["properties"])
}
