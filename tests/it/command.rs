//! The command line from outside: exit codes, what is printed where, and a standard error that nobody takes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const RELAY: &str = env!("CARGO_BIN_EXE_opencode-relay");

fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(RELAY);
    // No test may write into a real home.
    command.args(arguments).env("OPENCODE_RELAY_JOURNAL", "memory").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_and_wrong_settings_are_2() {
    for arguments in
        [&["run"][..], &["run", "--colour"], &["run", "--grace", "2", "--", "x"], &["no-such-command"], &[]]
    {
        let output = relay(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn all_wrong_settings_are_told_at_once() {
    let output = relay(&["run", "--grace", "soon", "--upstream", "https://h:1"])
        .env("OPENCODE_RELAY_JOURNAL_BYTE", "1MiB")
        .env("OPENCODE_SERVER_PASSWORD", "very-secret")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    for expected in
        ["3 settings are wrong", "flag --grace", "flag --upstream", "Did you mean OPENCODE_RELAY_JOURNAL_BYTES?"]
    {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    assert!(!said.contains("very-secret"), "{said}");
}

#[test]
fn help_and_version_are_good_ends() {
    let pages = [&["completions", "bash"][..], &["man"], &["tail", "--help"], &["healthcheck", "--help"]];
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["decode", "-h"]].into_iter().chain(pages) {
        let output = relay(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
        assert!(!text(&output.stdout).contains("guard"), "{arguments:?}");
    }
}

fn decode(arguments: &[&str], log: &str) -> Output {
    let mut command = relay(&[&["decode"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn decode_reads_standard_input_and_files() {
    let log = "banner\nINFO  2026-11-23T00:39:15 +38ms service=bus type=session.idle publishing\n";
    let expected = "{\"time\":\"2026-11-23T00:39:15.000Z\",\"type\":\"session.idle\",\"line\":2}\n";
    for arguments in [&[][..], &["-"]] {
        let output = decode(arguments, log);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), log).unwrap();
    let output = relay(&["decode"]).arg(file.path()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected));

    let output = relay(&["decode", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("failed to open /nowhere"), "{}", text(&output.stderr));
}

#[test]
fn decode_ends_well_when_its_reader_has_seen_enough() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = "INFO  2026-11-23T00:39:15 +1ms service=bus type=session.idle publishing\n";
    fs::write(file.path(), line.repeat(100_000)).unwrap();
    let mut child = relay(&["decode"]).arg(file.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert!(first.starts_with("{\"time\":"), "{first}");
}

/// A relay whose standard error has no reader keeps serving: it neither panics nor ends.
#[test]
fn a_standard_error_that_nobody_takes_harms_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        relay(&["run", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9", "--log-level", "trace"])
            .stdout(Stdio::piped())
            .stderr(writer)
            .spawn()
            .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("opencode-relay listening on http://").unwrap().to_owned();
    let mut socket = std::net::TcpStream::connect(&address).unwrap();
    write!(socket, "GET /_relay/health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut status = String::new();
    BufReader::new(socket).read_line(&mut status).unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
