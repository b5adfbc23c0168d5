//! `--log journald:UNIT`: what a unit wrote to systemd's journal is read to its last line, once.

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::standin::StandIn;
use crate::support::bounded;
use crate::support::journald::{Entry, Journalctl, Journald, UNIT, write};
use crate::support::ledger::Ledger;
use crate::support::relay::Relay;
use crate::support::situations::until;

/// journald tells of new entries four times a second.
const QUIET: Duration = Duration::from_millis(800);

/// The relay counts so many types by name, and no more.
const KINDS: u64 = 50;

const KILL_LIMIT: Duration = Duration::from_secs(10);

fn line(number: u64) -> String {
    format!("INFO  2026-11-23T00:39:15 +{number}ms service=bus type=n{} publishing", number % KINDS)
}

fn say(output: &mut UnixStream, numbers: Range<u64>) {
    let text: String = numbers.map(|number| line(number) + "\n").collect();
    output.write_all(text.as_bytes()).unwrap();
}

/// A relay that has nothing but the journal.
struct Following {
    relay: Relay,
    state: tempfile::TempDir,
    journalctl: Journalctl,
    url: String,
}

impl Following {
    async fn start(standin: &StandIn, journalctl: Journalctl) -> Self {
        let state = tempfile::tempdir().unwrap();
        let url = standin.url();
        let relay = Self::begin(&url, state.path(), &journalctl).await;
        Self { relay, state, journalctl, url }
    }

    async fn begin(url: &str, state: &Path, journalctl: &Journalctl) -> Relay {
        let source = format!("journald:{UNIT}");
        let arguments =
            ["--witness", "log", "--log", &source, "--upstream", url, "--state-dir", state.to_str().unwrap()];
        Relay::start(&arguments, &journalctl.env(), state).await
    }

    async fn kill(&mut self) {
        self.relay.signal(Signal::KILL);
        self.relay.wait(KILL_LIMIT).await.unwrap();
    }

    async fn start_again(&mut self) {
        self.relay = Self::begin(&self.url, self.state.path(), &self.journalctl).await;
    }

    async fn log(&self) -> Value {
        self.relay.api().get("/_relay/status").await["witnesses"]["log"].clone()
    }

    /// Waits for what the log's state is.
    async fn until_state(&self, state: &str) -> String {
        let look = || async {
            let log = self.log().await;
            // Shown when the test fails.
            eprintln!("the log: {log}");
            (log["state"] == state).then(|| log["source"].as_str().unwrap_or_default().to_owned())
        };
        until(state, look).await
    }

    /// The first lines that were not said twice; each is counted once. Says how many gaps there were since the start.
    async fn has_read(&self, lines: u64) -> u64 {
        let published = async || Ledger::read(&self.relay.api()).await.total().published;
        until("all lines", || async { (published().await as u64 >= lines).then_some(()) }).await;
        sleep(QUIET).await;
        assert_eq!(published().await as u64, lines, "{}", self.relay.output());
        self.log().await["gaps"].as_u64().unwrap()
    }

    fn warns_of(&self, words: &str) -> bool {
        self.relay.output().contains(words)
    }
}

/// Whether any process was started with this word in its command line.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    processes.filter_map(|path| fs::read(path).ok()).any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[tokio::test]
async fn a_unit_is_followed_through_rotation_and_kills() {
    bounded(async {
        let (standin, mut journald) = (StandIn::start("1.14.48").await, Journald::start("RateLimitBurst=0").await);
        let mut output = journald.output(UNIT);
        say(&mut output, 0..100);
        sleep(QUIET).await;
        // What was there before anybody listened is not told.
        let mut following = Following::start(&standin, journald.journalctl()).await;
        assert_eq!(following.until_state("following").await, format!("journald:{UNIT}"));

        say(&mut output, 0..1_000);
        // What is no line of its own.
        let long = "x".repeat(200_000);
        output.write_all(format!("{long}\n{long} {}\n", line(0)).as_bytes()).unwrap();
        output.write_all(b"\x1b[1m not \xff text\n").unwrap();
        say(&mut output, 0..1_000);
        assert_eq!(following.has_read(2_000).await, 0);

        for round in 0..4 {
            say(&mut output, 0..500);
            journald.rotate();
            say(&mut output, 0..500);
            if round % 2 == 1 {
                following.kill().await;
                say(&mut output, 0..500);
                journald.rotate();
                say(&mut output, 0..500);
                following.start_again().await;
            }
        }
        assert_eq!(following.has_read(2_000 + 4 * 1_000 + 2 * 1_000).await, 0);

        // No journalctl is left by a relay that was killed.
        let journal = journald.folder().display().to_string();
        assert!(runs(&journal));
        following.kill().await;
        until("journalctl to end", || async { (!runs(&journal)).then_some(()) }).await;
    })
    .await;
}

#[tokio::test]
async fn what_the_journal_lost_is_told() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        // The less is free on the disk, the fewer lines pass: at least so many.
        let mut journald = Journald::start("RateLimitIntervalSec=2s\nRateLimitBurst=100").await;
        let mut output = journald.output(UNIT);
        say(&mut output, 0..1);
        sleep(QUIET).await;
        let mut following = Following::start(&standin, journald.journalctl()).await;
        following.until_state("following").await;

        say(&mut output, 0..20_000);
        // It says that it dropped something when it lets the next line pass.
        sleep(Duration::from_millis(2_500)).await;
        say(&mut output, 0..1);
        let gaps = || async { (following.log().await["gaps"] == 1).then_some(()) };
        until("the gap", gaps).await;
        assert!(following.warns_of("rate-limited") && following.warns_of("LogRateLimitIntervalSec=0"));

        // What it removed while nobody read.
        following.kill().await;
        sleep(Duration::from_millis(2_500)).await;
        for number in 0..3 {
            say(&mut output, number..number + 1);
            sleep(QUIET).await;
            journald.rotate();
            sleep(QUIET).await;
        }
        say(&mut output, 3..4);
        sleep(QUIET).await;
        journald.vacuum();
        following.start_again().await;
        until("the gap", || async { (following.log().await["gaps"] == 1).then_some(()) }).await;
        assert!(following.warns_of("rotated-away"), "{}", following.relay.output());
    })
    .await;
}

#[tokio::test]
async fn a_journal_of_other_boots_and_machines_is_read() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let journal = tempfile::tempdir().unwrap();
        let file = journal.path().join("test.journal");
        let machine = fs::read_to_string("/etc/machine-id").unwrap().trim().to_owned();
        let (boots, another) = (["1", "2"].map(|digit| digit.repeat(32)), "a".repeat(32));
        let messages = Vec::from_iter((0..KINDS).map(line));
        let entries = |boot: usize, machine| {
            Vec::from_iter(messages.iter().map(|message| Entry {
                boot: &boots[boot],
                machine,
                unit: UNIT,
                message: message.as_bytes(),
            }))
        };
        write(&file, 0, &entries(0, &machine));
        let journalctl = Journalctl::of(journal.path(), "");
        let mut following = Following::start(&standin, journalctl).await;
        following.until_state("following").await;
        write(&file, 100, &entries(0, &machine)[..1]);
        following.has_read(1).await;
        following.kill().await;

        // Two boots, none of them ours; and what another machine sent here.
        write(&file, 101, &entries(0, &machine)[1..]);
        write(&file, 200, &entries(1, &machine));
        write(&file, 300, &entries(1, &another));
        following.start_again().await;
        assert_eq!(following.has_read(2 * KINDS).await, 0);
        // And on, while it follows: a field beyond 4 KiB, and one that is no text.
        let long = format!("{} {}", "x".repeat(10_000), line(0));
        let strange = [b"\xff\x00\n", line(0).as_bytes()].concat();
        let mut more = entries(1, &machine);
        for message in [long.as_bytes(), &strange[..]] {
            more.push(Entry { boot: &boots[1], machine: &machine, unit: UNIT, message });
        }
        write(&file, 400, &more);
        assert_eq!(following.has_read(3 * KINDS + 1).await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_missing_is_told_with_its_remedy() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let journal = tempfile::tempdir().unwrap();
        let file = journal.path().join("test.journal");
        let machine = fs::read_to_string("/etc/machine-id").unwrap().trim().to_owned();
        let message = line(0);
        let entry =
            Entry { boot: &"1".repeat(32), machine: &machine, unit: "other.service", message: message.as_bytes() };
        write(&file, 0, &[entry]);

        let begin = Instant::now();
        let journalctl = Journalctl::of(journal.path(), "");
        let following = Following::start(&standin, journalctl).await;
        let reason = following.until_state("waiting").await;
        assert!(reason.contains(UNIT) && reason.contains("--print-logs"), "{reason} after {:?}", begin.elapsed());
        // It begins all the same when something comes.
        let entry = Entry { boot: &"1".repeat(32), machine: &machine, unit: UNIT, message: message.as_bytes() };
        write(&file, 1, &[entry]);
        following.until_state("following").await;
        following.has_read(1).await;
        // A journalctl that is no good for a while is told, and that it is good again.
        let good = fs::read_to_string(following.journalctl.path()).unwrap();
        following.journalctl.becomes("echo cannot read >&2; exit 3");
        let entry = Entry { boot: &"1".repeat(32), machine: &machine, unit: UNIT, message: message.as_bytes() };
        write(&file, 2, &[entry]);
        assert_eq!(following.until_state("waiting").await, "journalctl says: cannot read");
        following.journalctl.becomes(&good);
        following.until_state("following").await;
        following.has_read(2).await;

        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        let following = Following::start(&standin, Journalctl::of(journal.path(), nobody)).await;
        let reason = following.until_state("waiting").await;
        assert!(reason.contains("SupplementaryGroups=systemd-journal"), "{reason}");

        let following = Following::start(&standin, Journalctl::missing()).await;
        let reason = following.until_state("waiting").await;
        assert!(reason.contains("there is no journalctl in PATH"), "{reason}");
    })
    .await;
}
