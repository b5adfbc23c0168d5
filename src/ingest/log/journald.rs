//! Following a unit in systemd's journal, by children `journalctl`.
//!
//! One follows (`--follow`) and rings whenever there is something new; what it is, is read by another one that begins at
//! the last entry and ends. For a `journalctl` that follows leaves entries out now and then when journald begins a new file,
//! and never gives them later (seen with systemd 252, a few rotations one soon after the other).
//!
//! What else systemd 252 (Rocky Linux 9) does that one would not expect, and what is done about it:
//!
//! * `--after-cursor` together with a filter leaves out the first entry where the one at the cursor is gone: `--cursor` is
//!   used, the entry at it is recognised, and another in its place is a gap.
//! * `--follow` shows the current boot only, and fails where that has no entry; not so with `--merge`. That would show what
//!   other machines sent here, too, so entries have to be of this machine.
//! * Without `--all` a field beyond 4 KiB is `null`.
//! * journald tells readers of new entries four times a second at most. So this witness is that much later than a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::follow::{Closed, send};
use super::{Item, Message, Position, Start};
use crate::ingest::Sender;

mod entry;
mod journalctl;

use entry::{Entries, Found};
use journalctl::{Journalctl, READ, Reason};

/// How much may be read without saying anything before the position is told all the same, in bytes of output.
const FAR: usize = 1024 * 1024;

/// How long to rest after a read: so many times what it took, for a journal of many files takes its time; at least and at
/// most so long.
const SHARE: u32 = 20;
const REST: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// How long after a ring it is looked whether there was another that was not heard, and how long after that.
const CHECKS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];

/// How long after its start a bell that is broken is hung up again.
const BELL: Duration = Duration::from_secs(5);

/// How long after a read that did not find its place it is tried again: perhaps journald was renaming a file just then.
const RENAMING: Duration = Duration::from_millis(200);

/// How long to wait before a `journalctl` that failed is started again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];

/// The version of a position's text. One of another version is not understood.
const VERSION: u32 = 1;

const FIELDS: &str = "--output-fields=MESSAGE,_LINE_BREAK,_STREAM_ID,_TRANSPORT,N_DROPPED";

/// A [`Position`], read: after which entry of which source.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    version: u32,
    source: String,
    journald: String,
}

/// Follows a unit in the journal.
struct Follower<'a> {
    /// The source as a person writes it; a position is good for this one only.
    source: &'a str,
    unit: &'a str,
    /// Where to begin is yet to be found: at the end of what is there.
    at_end: bool,
    /// After which entry to go on; without one at the first that there is.
    cursor: Option<String>,
    /// What is to be told with the next message.
    early: Vec<Item>,
    /// How much was read since the position was told, in bytes of output; the first one is told at once.
    untold: usize,
    is_following: bool,
    last_reason: Option<Reason>,
    out: &'a Sender,
}

/// How reading what is new ended.
enum Reading {
    /// All is read; whether there was anything.
    Done(bool),
    /// The entry that was read last is not where it was.
    Lost,
    Failed(Reason),
}

/// Follows until nobody takes the messages.
pub(super) async fn follow_unit(unit: &str, source: &str, start: Start, out: &Sender) -> Result<(), Closed> {
    let mut follower = Follower::new(unit, source, start, out);
    let mut bell = Bell::new(unit);
    let mut pause = PAUSES[0];
    loop {
        let begun = Instant::now();
        match follower.read_on().await? {
            Ok(news) => {
                pause = PAUSES[0];
                sleep((begun.elapsed() * SHARE).clamp(REST[0], REST[1])).await;
                let _ = timeout(CHECKS[usize::from(!news)], bell.ring()).await;
            }
            Err(reason) => {
                follower.wait_for(reason).await?;
                sleep(pause).await;
                pause = PAUSES[1].min(pause * 2);
            }
        }
    }
}

impl<'a> Follower<'a> {
    fn new(unit: &'a str, source: &'a str, start: Start, out: &'a Sender) -> Self {
        let mut early = Vec::new();
        let (at_end, cursor) = match start {
            Start::End => (true, None),
            Start::Beginning => (false, None),
            Start::After(position) => match Saved::read(&position, source) {
                Some(cursor) => (false, Some(cursor)),
                None => {
                    early.push(Item::Gap { reason: "position-unknown" });
                    (true, None)
                }
            },
        };
        Self { source, unit, at_end, cursor, early, untold: FAR, is_following: false, last_reason: None, out }
    }

    /// Reads what is new; says whether there was anything, or why it cannot be read.
    async fn read_on(&mut self) -> Result<Result<bool, Reason>, Closed> {
        if self.at_end {
            match last_printed(self.unit).await {
                Ok(cursor) => (self.at_end, self.cursor) = (false, cursor),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let mut reading = self.read(Entries::after(self.cursor.clone())).await?;
        if let Reading::Lost = reading {
            sleep(RENAMING).await;
            reading = self.read(Entries::after_if_there(self.cursor.clone())).await?;
        }
        Ok(match reading {
            Reading::Done(news) => Ok(news),
            Reading::Lost => Ok(false),
            Reading::Failed(reason) => {
                if reason.contains("seek to cursor") {
                    // Nothing that journalctl would know.
                    self.early.push(Item::Gap { reason: "position-unknown" });
                    self.at_end = true;
                }
                Err(reason)
            }
        })
    }

    /// Reads with one `journalctl` to its end.
    async fn read(&mut self, mut entries: Entries) -> Result<Reading, Closed> {
        let cursor = self.cursor.as_ref().map(|cursor| format!("--cursor={cursor}"));
        let arguments = cursor.as_deref().into_iter().chain([FIELDS, "--output=json"]);
        let mut journalctl = match Journalctl::start(self.unit, arguments) {
            Ok(journalctl) => journalctl,
            Err(reason) => return Ok(Reading::Failed(reason)),
        };
        let mut buffer = vec![0; READ];
        let mut news = false;
        loop {
            let count = journalctl.read(&mut buffer).await;
            if count == 0 {
                break;
            }
            let mut found = Found { items: std::mem::take(&mut self.early), ..Found::default() };
            entries.push(&buffer[..count], &mut found);
            if entries.is_lost() {
                self.early = found.items;
                return Ok(Reading::Lost);
            }
            self.untold += count;
            self.tell(&entries, &mut news, found).await?;
        }
        if let Err(reason) = journalctl.end().await {
            return Ok(Reading::Failed(reason));
        }
        if !self.is_following {
            let reason = journalctl.complaint().unwrap_or_else(|| nothing_of(self.unit));
            self.wait_for(reason).await?;
        }
        Ok(Reading::Done(news))
    }

    async fn tell(&mut self, entries: &Entries, news: &mut bool, found: Found) -> Result<(), Closed> {
        if found.any && !self.is_following {
            self.is_following = true;
            self.last_reason = None;
            send(self.out, Message::Following { source: self.source.to_owned() }).await?;
        }
        if found.dropped > 0 {
            tracing::warn!(
                "systemd's journal dropped {} lines of {}, which wrote more than its rate limit lets pass; put \
                 LogRateLimitIntervalSec=0 into its [Service]",
                found.dropped,
                self.unit
            );
        }
        *news |= entries.cursor() != self.cursor.as_deref();
        self.cursor = entries.cursor().map(str::to_owned);
        if !found.items.is_empty() || self.untold >= FAR {
            self.untold = 0;
            send(self.out, Message::Lines { items: found.items, position: self.position() }).await?;
        }
        Ok(())
    }

    async fn wait_for(&mut self, reason: Reason) -> Result<(), Closed> {
        self.is_following = false;
        if self.last_reason.as_ref() != Some(&reason) {
            send(self.out, Message::Waiting { reason: reason.clone() }).await?;
            self.last_reason = Some(reason);
        }
        Ok(())
    }

    fn position(&self) -> Option<Position> {
        let saved =
            Saved { version: VERSION, source: self.source.to_owned(), journald: self.cursor.as_ref()?.to_owned() };
        Some(Position(serde_json::to_string(&saved).unwrap_or_default()))
    }
}

impl Saved {
    /// Reads the cursor in a position of this source; `None` if it is of another, or of a release that we do not know.
    fn read(position: &Position, source: &str) -> Option<String> {
        let saved: Self = serde_json::from_str(&position.0).ok()?;
        (saved.version == VERSION && saved.source == source).then_some(saved.journald)
    }
}

/// Rings when the unit has written something.
struct Bell<'a> {
    unit: &'a str,
    journalctl: Option<Journalctl>,
    /// When a new one may be started.
    again: Instant,
    buffer: Vec<u8>,
}

impl<'a> Bell<'a> {
    fn new(unit: &'a str) -> Self {
        let mut bell = Self { unit, journalctl: None, again: Instant::now(), buffer: vec![0; READ] };
        bell.hang();
        bell
    }

    fn hang(&mut self) {
        let arguments = ["--follow", "--lines=0", "--output=cat", "--output-fields=_TRANSPORT"];
        // Where none can be started, whoever reads has the reason.
        self.journalctl = Journalctl::start(self.unit, arguments).ok();
        self.again = Instant::now() + BELL;
    }

    /// Returns when it rings, which it may do without a reason. May be given up.
    async fn ring(&mut self) {
        let Some(journalctl) = &mut self.journalctl else {
            sleep_until(self.again).await;
            return self.hang();
        };
        if journalctl.read(&mut self.buffer).await == 0 {
            self.journalctl = None;
        }
    }
}

/// Which entry the unit wrote last; `None` where there is none.
///
/// # Errors
///
/// Why the journal cannot be read, and what to do about it.
pub async fn last_printed(unit: &str) -> Result<Option<String>, String> {
    let journalctl = Journalctl::start(unit, ["--lines=1", "--output=json", "--output-fields=_TRANSPORT"])?;
    let mut output = Vec::new();
    journalctl.read_to_end(|chunk| output.extend_from_slice(chunk)).await?;
    Ok(entry::last_cursor(&output))
}

/// What the unit wrote after an entry, or all that there is. Nothing of it is told to anybody else.
///
/// # Errors
///
/// Why the journal cannot be read, and what to do about it.
pub async fn printed_since(unit: &str, entry: Option<String>) -> Result<Vec<Item>, String> {
    let cursor = entry.as_ref().map(|entry| format!("--cursor={entry}"));
    let arguments = cursor.as_deref().into_iter().chain([FIELDS, "--output=json"]);
    let (mut entries, mut found) = (Entries::after_if_there(entry.clone()), Found::default());
    Journalctl::start(unit, arguments)?.read_to_end(|chunk| entries.push(chunk, &mut found)).await?;
    Ok(found.items)
}

fn nothing_of(unit: &str) -> Reason {
    format!(
        "systemd's journal has nothing that {unit} wrote; check the unit's name, that opencode runs in it with \
         --print-logs, and that its standard error goes to the journal"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_good_for_its_source_only() {
        let saved = |version| format!(r#"{{"version":{version},"source":"journald:a.service","journald":"s=1;i=2"}}"#);
        let read = |text: String, source| Saved::read(&Position(text), source);
        assert_eq!(read(saved(1), "journald:a.service").as_deref(), Some("s=1;i=2"));
        assert_eq!(read(saved(1), "journald:b.service"), None);
        assert_eq!(read(saved(2), "journald:a.service"), None);
        assert_eq!(read("{}".to_owned(), "journald:a.service"), None);
    }
}
