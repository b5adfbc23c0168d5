//! A real systemd-journald with a `/run` of its own, and a `journalctl` that reads its journal or another.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::programs::find;
use super::situations::until;

/// The unit that the tests follow.
pub(crate) const UNIT: &str = "opencode.service";

/// Where systemd keeps the programs that nobody starts by hand.
const FOLDER: &str = "/usr/lib/systemd";

/// A `PATH` with a `journalctl` that reads the journal in a folder.
pub(crate) struct Journalctl {
    folder: TempDir,
    /// Where everything else is.
    rest: String,
}

impl Journalctl {
    /// `as_whom` is what stands before `journalctl` in its command line.
    pub(crate) fn of(journal: &Path, as_whom: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap(), rest: std::env::var("PATH").unwrap() };
        this.becomes(&format!(
            "exec {as_whom} {} --directory={} \"$@\"",
            find("journalctl").display(),
            journal.display()
        ));
        this
    }

    /// Replaces it by another script, at once and whole.
    pub(crate) fn becomes(&self, script: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    /// None is installed.
    pub(crate) fn missing() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // What the relay is started with.
        std::os::unix::fs::symlink(find("setpriv"), folder.path().join("setpriv")).unwrap();
        Self { folder, rest: String::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("journalctl")
    }

    /// An environment in which it is the `journalctl`.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let path = format!("{}:{}", self.folder.path().display(), self.rest);
        vec![("PATH".to_owned(), path)]
    }
}

/// A running journald; ends when dropped.
pub(crate) struct Journald {
    process: Process,
    // After the process, which writes into it.
    run: TempDir,
}

impl Journald {
    /// Starts it with these lines more in its `[Journal]`.
    pub(crate) async fn start(settings: &str) -> Self {
        let run = tempfile::tempdir().unwrap();
        let configuration = run.path().join("systemd/journald.conf.d");
        fs::create_dir_all(&configuration).unwrap();
        fs::create_dir_all(run.path().join("log/journal")).unwrap();
        // Nothing of this machine: neither its kernel's log nor its audit.
        let text = format!("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n{settings}\n");
        fs::write(configuration.join("test.conf"), text).unwrap();
        let program = Path::new(FOLDER).join("systemd-journald");
        assert!(program.is_file(), "there is no {}; install systemd", program.display());
        let script = format!("mount --bind {} /run && exec {}", run.path().display(), program.display());
        let command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script].map(str::to_owned);
        let path = vec![("PATH".to_owned(), std::env::var("PATH").unwrap())];
        let process = Process::start(&command, &path, run.path(), None).unwrap();
        let journald = Self { process, run };
        until("systemd-journald to listen, which needs root", || async { journald.connect().ok() }).await;
        journald
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.run.path().join("systemd/journal/stdout"))
    }

    /// The standard output of a unit, as systemd makes it. The header is journald's own protocol: identifier, unit,
    /// priority, whether lines have a priority of their own, and where else they shall go.
    pub(crate) fn output(&self, unit: &str) -> UnixStream {
        let mut output = self.connect().unwrap();
        output.write_all(format!("test\n{unit}\n6\n0\n0\n0\n0\n").as_bytes()).unwrap();
        output
    }

    /// Everything that is written to a file becomes the unit's output.
    pub(crate) fn tail(&self, file: &Path, unit: &str) -> Tail {
        let output = Stdio::from(OwnedFd::from(self.output(unit)));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "tail", "--bytes=+1", "--sleep-interval=0.01", "--follow"]);
        Tail(command.arg(file).stdin(Stdio::null()).stdout(output).spawn().unwrap())
    }

    /// Begins a new journal file.
    pub(crate) fn rotate(&mut self) {
        self.process.signal(Signal::USR2);
    }

    pub(crate) fn journalctl(&self) -> Journalctl {
        Journalctl::of(&self.folder(), "")
    }

    /// Where its journal is.
    pub(crate) fn folder(&self) -> PathBuf {
        self.run.path().join("log/journal")
    }

    /// Removes what is in files that it does not write to any more.
    pub(crate) fn vacuum(&self) {
        let folder = format!("--directory={}", self.folder().display());
        let done = Command::new(find("journalctl")).args([&folder, "--vacuum-size=1", "--quiet"]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        let _ = self.process.wait_blocking(Duration::from_secs(5));
    }
}

/// A running `tail`; ends when dropped.
pub(crate) struct Tail(std::process::Child);

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An entry for a journal file; nothing of it needs a journald.
pub(crate) struct Entry<'a> {
    pub(crate) boot: &'a str,
    pub(crate) machine: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) message: &'a [u8],
}

/// Writes a journal file, by systemd-journal-remote; the entries come after any of this machine's clock.
pub(crate) fn write(file: &Path, first: u64, entries: &[Entry<'_>]) {
    let program = Path::new(FOLDER).join("systemd-journal-remote");
    assert!(program.is_file(), "there is no {}; get it with: scripts/fetch-clients", program.display());
    let mut text = Vec::new();
    for (number, entry) in (first..).zip(entries) {
        let fields = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}\n_MACHINE_ID={}\n_SYSTEMD_UNIT={}\n\
             _TRANSPORT=stdout\n_STREAM_ID=1\nMESSAGE\n",
            2_000_000_000_000_000 + number * 1_000,
            number * 1_000,
            entry.boot,
            entry.machine,
            entry.unit
        );
        text.extend_from_slice(fields.as_bytes());
        // The export format's form for bytes: a length, and they themselves.
        text.extend_from_slice(&(entry.message.len() as u64).to_le_bytes());
        text.extend_from_slice(entry.message);
        text.extend_from_slice(b"\n\n");
    }
    let mut child = Command::new(program)
        .arg(format!("--output={}", file.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&text).unwrap();
    assert!(child.wait().unwrap().success());
}
