//! The relay as a process: several places to listen, what it says at start, and SIGHUP.

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::situations::until;

async fn until_said(relay: &Relay, words: &str) {
    let found = relay.stderr().wait(0, SOON, |line| line.text.contains(words).then_some(())).await;
    assert!(found.is_some(), "{words:?} was not said: {}", relay.output());
}

async fn get(mut stream: UnixStream, path: &str) -> String {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// What a relay says that does not start.
async fn failure(arguments: &[&str]) -> String {
    let standin = StandIn::start("1.14.48").await;
    let (url, folder) = (standin.url(), std::env::temp_dir());
    let all = [&["--journal", "memory", "--upstream", &url], arguments].concat();
    let mut process: Process = Relay::begin_at(0, &all, &[], &folder);
    let exit = process.wait(SOON).await.unwrap_or_else(|| panic!("it runs: {}", process.output()));
    assert_eq!(exit.code(), Some(1), "{}", process.output());
    // What it said last may still be read.
    assert!(process.stderr.wait_closed(SOON).await);
    process.output()
}

#[tokio::test]
async fn several_places_are_one_relay_and_sighup_ends_nothing() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let (url, unix) = (standin.url(), format!("unix:{}", path.display()));
        let arguments = ["--journal", "memory", "--upstream", &url, "--listen", &unix, "--socket-mode", "666"];
        let mut relay = Relay::start(&arguments, &[], &std::env::temp_dir()).await;
        until_said(&relay, "can be reached by every user of this machine").await;
        relay.signal(Signal::HUP);
        until_said(&relay, "there is nothing to read again").await;
        let text = get(UnixStream::connect(&path).await.unwrap(), "/_relay/status").await;
        assert!(text.contains(r#""connections":{"open":1,"refused":0}"#), "{text}");
        // Nobody takes its place.
        let error = failure(&["--listen", &unix]).await;
        assert!(error.contains("another relay listens there"), "{error}");
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(0), "{}", relay.output());
        assert!(!path.exists());
    })
    .await;
}

/// As in a container: with few descriptors, fewer clients are let in than were asked for, and that is said.
#[tokio::test]
async fn there_are_not_more_places_than_descriptors() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let script = r#"ulimit -n 200; exec "$0" run --listen 127.0.0.1:0 --journal memory --upstream "$1""#;
        let command = ["sh", "-c", script, env!("CARGO_BIN_EXE_opencode-relay"), &standin.url()].map(str::to_owned);
        let env = [("PATH".to_owned(), std::env::var("PATH").unwrap())];
        let process = Process::start(&command, &env, &std::env::temp_dir(), None).unwrap();
        let said =
            process.stderr.wait(0, SOON, |line| line.text.contains("at most 68").then(|| line.text.clone())).await;
        let line = said.unwrap_or_else(|| panic!("{}", process.output()));
        assert!(line.contains("16384") && line.contains("200 open files"), "{line}");
    })
    .await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn sighup_reads_the_certificate_again() {
    use crate::listen::certificates::Files;
    use crate::listen::fixture::{connect, talk};

    const HEALTH: &str = "GET /_relay/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let (files, shown) = Files::new();
        let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
        let url = standin.url();
        let files_given = ["--tls-certificate", certificate, "--tls-key", key];
        let arguments = ["--journal", "memory", "--upstream", &url, "--listen", "https://127.0.0.1:0"];
        let mut relay = Relay::start(&[&arguments[..], &files_given].concat(), &[], &std::env::temp_dir()).await;
        let listening = |text: &str| text.strip_prefix("opencode-relay listening on https://").map(str::to_owned);
        let address = relay.stdout().wait(0, SOON, |line| listening(&line.text)).await.unwrap().parse().unwrap();
        assert!(talk(connect(address, &shown, "http/1.1").await.unwrap(), HEALTH).await.contains("200 OK"));
        let renewed = files.renew();
        relay.signal(Signal::HUP);
        until_said(&relay, "the certificate and its key were read again").await;
        assert!(talk(connect(address, &renewed, "http/1.1").await.unwrap(), HEALTH).await.contains("200 OK"));
        std::fs::remove_file(&files.key).unwrap();
        relay.signal(Signal::HUP);
        until_said(&relay, "the certificate from before is used on").await;
        assert!(relay.output().contains(key), "{}", relay.output());
        assert!(talk(connect(address, &renewed, "http/1.1").await.unwrap(), HEALTH).await.contains("200 OK"));
        // At start there is nothing from before.
        let error = failure(&[&["--listen", "https://127.0.0.1:0"][..], &files_given].concat()).await;
        assert!(error.contains(&format!("failed to read {key}")), "{error}");
    })
    .await;
}

/// The relay in a terminal leads a session of its own there, so it is not in the terminal's group.
struct InTerminal(Pid);

impl Drop for InTerminal {
    fn drop(&mut self) {
        // Usually it has ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[tokio::test]
async fn a_terminal_that_is_closed_takes_the_relay_along() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let folder = tempfile::tempdir().unwrap();
        let [path, id, screen] = ["relay.sock", "id", "screen"].map(|name| folder.path().join(name));
        let relay = format!(
            "echo $$ >'{}'; exec '{}' run --journal memory --upstream {} --listen unix:{}",
            id.display(),
            env!("CARGO_BIN_EXE_opencode-relay"),
            standin.url(),
            path.display()
        );
        let command = ["script", "-qefc", &relay, screen.to_str().unwrap()].map(str::to_owned);
        let env = [("PATH".to_owned(), std::env::var("PATH").unwrap())];
        let mut terminal = Process::start(&command, &env, folder.path(), None).unwrap();
        until("it to listen", || async { UnixStream::connect(&path).await.ok() }).await;
        let pid = std::fs::read_to_string(&id).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        let relay = InTerminal(pid);

        kill_process(relay.0, Signal::HUP).unwrap();
        let shown = || async { std::fs::read_to_string(&screen).ok()?.contains("nothing to read again").then_some(()) };
        until("it to read again", shown).await;
        terminal.signal(Signal::KILL);
        until("its end in order", || async { (!path.exists()).then_some(()) }).await;
    })
    .await;
}
