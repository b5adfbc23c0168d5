//! The relay as the parent of opencode: nothing is left behind, nothing that it says is lost, and its end is the relay's.
//!
//! The commands are shell scripts that say what opencode says.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use opencode_relay::ingest::{Message, log};
use opencode_relay::stop::{Stop, Tasks};
use opencode_relay::supervise::{self, Error, Exit, Options, Parts, Phase};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// What a test waits for at most.
const LIMIT: Duration = Duration::from_secs(30);

const RELAY: &str = env!("CARGO_BIN_EXE_opencode-relay");

/// Says where it listens; nothing is there, which is all the same to the supervisor.
const LISTEN: &str = "echo 'opencode server listening on http://127.0.0.1:9'\n";

/// A folder with a script, and a relay that runs it. Both are gone with it.
struct Run {
    folder: TempDir,
    relay: Child,
}

impl Run {
    /// Starts a relay with `sh SCRIPT ARGUMENTS…` as its command. The script finds its folder in `$FOLDER`.
    fn start(script: &str, arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = write_script(&folder, script);
        let relay = Command::new(RELAY)
            .env("OPENCODE_RELAY_JOURNAL", "memory")
            .args(["run", "--listen", "127.0.0.1:0", "--", "sh"])
            .arg(path)
            .args(arguments)
            .env("FOLDER", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { folder, relay }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.relay), signal).unwrap();
    }

    /// What the script wrote to a file of its folder, once it is a whole line or more.
    fn wait_for_file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        wait_until(&format!("the script wrote {name}"), || {
            fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
        })
    }

    /// Waits for the end: the code and standard error.
    fn finish(mut self) -> (Option<i32>, String) {
        let status = wait_until("the relay ends", || self.relay.try_wait().unwrap());
        let mut text = String::new();
        self.relay.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code(), text)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

fn write_script(folder: &TempDir, script: &str) -> PathBuf {
    let path = folder.path().join("opencode.sh");
    fs::write(&path, script).unwrap();
    path
}

fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let polls = LIMIT.as_millis() / 20;
    for _ in 0..polls {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited {LIMIT:?} in vain until {what}");
}

/// Whether a process is gone. A zombie is: it only waits to be counted by an init that does not care.
fn is_gone(pid: &str) -> bool {
    match fs::read_to_string(Path::new("/proc").join(pid).join("stat")) {
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

fn wait_until_gone(pids: &str) {
    for pid in pids.split_whitespace() {
        wait_until(&format!("process {pid} is gone"), || is_gone(pid).then_some(()));
    }
}

#[test]
fn a_password_from_a_file_guards_the_command_too() {
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "from the file\n").unwrap();
    let script = write_script(&folder, "echo \"$OPENCODE_SERVER_USERNAME:$OPENCODE_SERVER_PASSWORD\" >&2\n");
    let output = Command::new(RELAY)
        .env("OPENCODE_RELAY_JOURNAL", "memory")
        .args(["run", "--listen", "127.0.0.1:0", "--username", "me", "--password-file"])
        .arg(&password)
        .args(["--", "sh"])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().any(|line| line == "me:from the file"), "{said}");
}

#[test]
fn killing_the_relay_leaves_no_orphan() {
    // A wrapper with a child that has a child, as npm's opencode is.
    let script = format!(
        "sh -c 'sleep 1000 & echo $! >>$FOLDER/all; echo $$ >>$FOLDER/all; wait' &\n\
         while [ \"$(wc -l <$FOLDER/all)\" != 2 ]; do sleep 0.02; done\n\
         echo $$ >>$FOLDER/all\n{LISTEN}cp $FOLDER/all $FOLDER/pids\nwait\n"
    );
    let mut run = Run::start(&script, &["serve"]);
    let pids = run.wait_for_file("pids");
    assert_eq!(pids.lines().count(), 3, "{pids}");
    run.relay.kill().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn killing_the_relay_leaves_no_orphan_that_ignores_signals() {
    let script = format!(
        "trap '' TERM HUP INT\nsh -c 'echo $$ >$FOLDER/child; while :; do sleep 0.1; done' &\n\
         while [ ! -s $FOLDER/child ]; do sleep 0.02; done\n\
         {LISTEN}echo $$ $(cat $FOLDER/child) >$FOLDER/pids\nwhile :; do sleep 0.1; done\n"
    );
    let mut run = Run::start(&script, &["serve"]);
    let pids = run.wait_for_file("pids");
    run.relay.kill().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn stopping_the_relay_stops_all_and_is_a_good_end() {
    let script = format!("sleep 1000 &\n{LISTEN}echo $$ $! >$FOLDER/pids\nwait\n");
    for signal in [Signal::TERM, Signal::INT] {
        let run = Run::start(&script, &["serve"]);
        let pids = run.wait_for_file("pids");
        run.signal(signal);
        let (code, output) = run.finish();
        assert_eq!(code, Some(0), "{output}");
        wait_until_gone(&pids);
    }
}

#[test]
fn a_wrapper_that_dies_takes_its_server_along() {
    let script = format!(
        "[ -e $FOLDER/pids ] && {{ echo again >$FOLDER/again; exec sleep 1000; }}\n\
         sleep 1000 &\n{LISTEN}echo $! >$FOLDER/pids\nkill -9 $$\n"
    );
    let run = Run::start(&script, &["serve"]);
    let pids = run.wait_for_file("pids");
    wait_until_gone(&pids);
    run.wait_for_file("again");
    run.signal(Signal::TERM);
    assert_eq!(run.finish().0, Some(0));
}

#[test]
fn a_good_end_of_the_command_is_the_end() {
    let (code, output) = Run::start(&format!("{LISTEN}exit 0\n"), &["serve"]).finish();
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn a_command_that_never_listens_is_given_up_with_its_code() {
    let run = Run::start("echo x >>$FOLDER/starts\nexit 7\n", &["serve"]);
    let starts = run.folder.path().join("starts");
    let mut run = run;
    wait_until("the relay gives up", || run.relay.try_wait().unwrap());
    assert_eq!(fs::read_to_string(starts).unwrap().lines().count(), 5);
    let (code, output) = run.finish();
    assert_eq!(code, Some(7), "{output}");
}

#[test]
fn a_crash_is_followed_by_a_new_start() {
    let script = format!(
        "{LISTEN}if [ -e $FOLDER/once ]; then echo yes >$FOLDER/twice; exec sleep 1000; fi\ntouch $FOLDER/once\nexit 3\n"
    );
    let run = Run::start(&script, &["serve"]);
    run.wait_for_file("twice");
    run.signal(Signal::TERM);
    let (code, output) = run.finish();
    assert_eq!(code, Some(0));
    assert!(output.contains("ended with code 3"), "{output}");
}

#[test]
fn print_logs_is_added_once() {
    let script = "echo \"$*\" >$FOLDER/arguments\n";
    for (arguments, expected) in [
        (&["serve", "--port", "0"][..], "serve --print-logs --port 0\n"),
        (&["serve", "--print-logs"], "serve --print-logs\n"),
        (&["other"], "other\n"),
    ] {
        let run = Run::start(script, arguments);
        assert_eq!(run.wait_for_file("arguments"), expected);
        assert_eq!(run.finish().0, Some(0));
    }
}

#[test]
fn what_the_command_says_is_passed_on() {
    let bus = "INFO  2026-11-23T00:39:15 +38ms service=bus type=session.idle publishing";
    let script = format!("{LISTEN}echo on stdout\necho on stderr >&2\necho '{bus}' >&2\nprintf unfinished >&2\n");
    for (arguments, shows_bus) in [(&["serve"][..], false), (&["serve", "--print-logs"], true)] {
        let (code, output) = Run::start(&script, arguments).finish();
        assert_eq!(code, Some(0), "{output}");
        for expected in ["opencode server listening on http://127.0.0.1:9", "on stdout", "on stderr", "unfinished"] {
            assert!(output.lines().any(|line| line == expected), "{expected:?} is not in\n{output}");
        }
        assert_eq!(output.lines().any(|line| line == bus), shows_bus, "{output}");
    }
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let output = |command: &str| -> Output {
        Command::new(RELAY)
            .env("OPENCODE_RELAY_JOURNAL", "memory")
            .args(["run", "--listen", "127.0.0.1:0", "--", command, "serve"])
            .output()
            .unwrap()
    };
    let missing = output("opencode-that-is-not-there");
    let text = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{text}");
    assert!(text.contains("opencode-that-is-not-there") && text.contains("not in PATH"), "{text}");
    let folder = TempDir::new().unwrap();
    let not_executable = output(write_script(&folder, "exit 0\n").to_str().unwrap());
    let text = String::from_utf8_lossy(&not_executable.stderr);
    assert_eq!(not_executable.status.code(), Some(1), "{text}");
    assert!(text.contains("chmod +x"), "{text}");
}

#[test]
fn the_guardian_is_not_for_people() {
    let output = Command::new(RELAY).args(["guard", "--", "true"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not by hand"));
}

/// The supervisor alone, with everything that it talks to.
struct Alone {
    folder: TempDir,
    options: Options,
    parts: Parts,
    phase: watch::Receiver<Phase>,
    log: mpsc::Receiver<Message>,
    stop: Stop,
}

fn alone(script: &str) -> Alone {
    let folder = TempDir::new().unwrap();
    let path = write_script(&folder, &format!("FOLDER={}\n{script}", folder.path().display()));
    let mut options = Options::new(vec!["sh".to_owned(), path.display().to_string(), "serve".to_owned()]);
    options.guardian = Some(RELAY.into());
    options.stop_grace = Duration::from_millis(300);
    let (sender, phase) = watch::channel(Phase::Starting);
    let (out, log) = mpsc::channel(100);
    let stop = Stop::new();
    let parts = Parts { phase: sender, log: Some(out), stop: stop.clone(), tasks: Tasks::new() };
    Alone { folder, options, parts, phase, log, stop }
}

#[tokio::test]
async fn tells_the_address_and_the_bus_log() {
    let bus = "INFO  2026-11-23T00:39:15 +38ms service=bus type=session.idle publishing";
    let mut alone = alone(&format!("echo '{bus}' >&2\n{LISTEN}exec sleep 1000\n"));
    let running = supervise::run(alone.options, alone.parts);
    let test = async {
        let listening = |phase: &Phase| matches!(phase, Phase::Listening { .. });
        let phase = tokio::time::timeout(LIMIT, alone.phase.wait_for(listening)).await.unwrap().unwrap().clone();
        let Phase::Listening { url, pid } = phase else { panic!("{phase:?}") };
        assert_eq!(url, "http://127.0.0.1:9");
        let Some(Message::Log(log::Message::Following { source })) = alone.log.recv().await else {
            panic!("no source")
        };
        assert_eq!(source, format!("stderr of pid {pid}"));
        let mut items = Vec::new();
        while items.len() < 2 {
            let Some(Message::Log(log::Message::Lines { items: more, .. })) = alone.log.recv().await else {
                panic!("no lines")
            };
            items.extend(more);
        }
        assert_eq!(items, [log::Item::Started, log::Item::Notice { kind: "session.idle".into() }]);
        alone.stop.pull();
        let Some(Message::Log(log::Message::Ended)) = alone.log.recv().await else { panic!("no end") };
    };
    let (exit, ()) = tokio::join!(running, test);
    assert_eq!(exit.unwrap(), Exit(0));
    assert_eq!(*alone.phase.borrow(), Phase::Ended);
}

#[tokio::test]
async fn a_stubborn_command_is_killed_after_the_grace() {
    let mut alone = alone(&format!("trap '' TERM\n{LISTEN}while :; do sleep 0.1; done\n"));
    let running = supervise::run(alone.options, alone.parts);
    let test = async {
        let listening = |phase: &Phase| matches!(phase, Phase::Listening { .. });
        tokio::time::timeout(LIMIT, alone.phase.wait_for(listening)).await.unwrap().unwrap();
        alone.stop.pull();
    };
    let (exit, ()) = tokio::join!(running, test);
    assert_eq!(exit.unwrap(), Exit(0));
}

#[tokio::test]
async fn a_stop_while_waiting_for_the_next_start_ends_at_once() {
    let mut alone = alone("exit 3\n");
    let running = supervise::run(alone.options, alone.parts);
    let test = async {
        let waiting = |phase: &Phase| matches!(phase, Phase::Restarting { .. });
        tokio::time::timeout(LIMIT, alone.phase.wait_for(waiting)).await.unwrap().unwrap();
        alone.stop.pull();
    };
    let (exit, ()) = tokio::join!(running, test);
    assert_eq!(exit.unwrap(), Exit(0));
    drop(alone.folder);
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_an_error() {
    let mut alone = alone("");
    alone.options.command = vec!["/nowhere/opencode".to_owned()];
    let error = supervise::run(alone.options, alone.parts).await.unwrap_err();
    assert!(matches!(&error, Error::Start { command, .. } if command == "/nowhere/opencode"), "{error}");
    assert_eq!(*alone.phase.borrow(), Phase::Ended);
}
