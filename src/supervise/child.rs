//! One life of the command: from its start by a guardian to the end of everything in its group.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lifeline::{Ending, Report};
use super::output::{self, Backlog};
use super::pass_on::PassOn;
use super::{Error, Options, Parts, Phase};

/// How long the command's output is still read after its end: a process that left the group can keep the pipe open forever.
const DRAIN: Duration = Duration::from_secs(1);

/// What systemd tells the relay alone. An opencode that knew them, or a tool that it runs, could speak in the relay's name,
/// and take descriptors for sockets that are none.
const MANAGERS: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// How a life went.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) ending: Ending,
    /// How long it took connections; `None` if it never did.
    pub(super) listened_for: Option<Duration>,
}

/// A guardian that was started, and through it the command.
#[derive(Debug)]
pub(super) struct Child {
    guardian: tokio::process::Child,
    /// The guardian leads the group, so its process id is the group's.
    group: Pid,
    /// The guardian's reports; dropping it makes the guardian end the group.
    reports: Lines<BufReader<UnixStream>>,
    program: String,
}

impl Child {
    /// Starts a guardian for the command.
    pub(super) fn start(options: &Options, command: &[OsString]) -> Result<Self, Error> {
        let guardian = match &options.guardian {
            Some(path) => path.as_path(),
            // Also after an upgrade replaced the file: the kernel keeps this link to the program that runs.
            None => Path::new("/proc/self/exe"),
        };
        let failed = |reason| Error::Guardian { program: guardian.display().to_string(), reason };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = theirs.into_std().map_err(failed)?;
        let mut command_line = tokio::process::Command::new(guardian);
        for variable in MANAGERS {
            command_line.env_remove(variable);
        }
        let child = command_line
            .arg0("opencode-relay")
            .args(["guard", "--"])
            .args(command)
            .envs(options.environment.0.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| failed(io::Error::other("it has no process id")))?;
        let program = command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { guardian: child, group, reports: BufReader::new(ours).lines(), program })
    }

    /// Accompanies the command to its end.
    pub(super) async fn live(
        mut self,
        options: &Options,
        parts: &Parts,
        pass_on: &PassOn,
        swallow_bus_lines: bool,
    ) -> Result<Life, Error> {
        // Nothing is lost meanwhile: the pipes hold what the command says until the readers start.
        let pid = match self.reports.next_line().await {
            Ok(Some(line)) => match line.parse() {
                Ok(Report::Started { pid }) => Some(pid),
                Ok(Report::Failed { errno }) => {
                    let _ = self.guardian.wait().await;
                    return Err(self.not_started(errno));
                }
                Ok(Report::Ended(_)) | Err(()) => None,
            },
            Ok(None) | Err(_) => None,
        };
        let Some(pid) = pid else {
            // The guardian ended before it could start anything: a stop came first, or somebody killed it.
            let status = self.guardian.wait().await;
            self.signal(Signal::KILL);
            return Ok(Life { ending: ending_of(status), listened_for: None });
        };
        let (address, listening) = oneshot::channel();
        let readers = self.start_readers(parts, pass_on, swallow_bus_lines, address, pid);
        let life = self.watch(options, parts, listening, pid).await;
        // Whatever the guardian could not end. The group is ours until it is empty; after that there is nothing to hit.
        self.signal(Signal::KILL);
        let drained = async {
            for reader in readers {
                let stop = reader.abort_handle();
                if tokio::time::timeout(DRAIN, reader).await.is_err() {
                    stop.abort();
                }
            }
        };
        drained.await;
        Ok(life)
    }

    /// Waits for the end, publishes the address, and passes a stop on.
    async fn watch(
        &mut self,
        options: &Options,
        parts: &Parts,
        mut listening: oneshot::Receiver<String>,
        pid: u32,
    ) -> Life {
        let mut reported = None;
        let mut listening_since = None;
        let mut address_open = true;
        let mut reports_open = true;
        let mut kill_at: Option<Instant> = None;
        let mut killed = false;
        let status = loop {
            let overdue = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The end first: nothing matters after it.
                biased;
                status = self.guardian.wait() => break status,
                report = self.reports.next_line(), if reports_open => match report {
                    Ok(Some(line)) => {
                        if let Ok(Report::Ended(how)) = line.parse() {
                            reported = Some(how);
                        }
                    }
                    Ok(None) | Err(_) => reports_open = false,
                },
                () = parts.stop.pulled(), if kill_at.is_none() => {
                    tracing::debug!(pid, "ending `{}`", self.program);
                    kill_at = Some(Instant::now() + options.stop_grace);
                    self.signal(Signal::TERM);
                }
                () = overdue, if !killed => {
                    tracing::warn!(pid, "`{}` did not end within {:?} and is killed", self.program, options.stop_grace);
                    killed = true;
                    self.signal(Signal::KILL);
                }
                url = &mut listening, if address_open => {
                    address_open = false;
                    if let Ok(url) = url {
                        tracing::info!(pid, %url, "`{}` listens", self.program);
                        listening_since = Some(Instant::now());
                        parts.phase.send_replace(Phase::Listening { url, pid });
                    }
                }
            }
        };
        // The report may still lie in the socket: `biased` prefers the end.
        while reports_open && let Ok(Some(line)) = self.reports.next_line().await {
            if let Ok(Report::Ended(how)) = line.parse() {
                reported = Some(how);
            }
        }
        Life {
            ending: reported.unwrap_or_else(|| ending_of(status)),
            listened_for: listening_since.map(|since| since.elapsed()),
        }
    }

    fn start_readers(
        &mut self,
        parts: &Parts,
        pass_on: &PassOn,
        swallow_bus_lines: bool,
        address: oneshot::Sender<String>,
        pid: u32,
    ) -> Vec<JoinHandle<()>> {
        let mut readers = Vec::new();
        if let Some(stdout) = self.guardian.stdout.take() {
            readers.push(parts.tasks.spawn("child-stdout", output::read_stdout(stdout, address, pass_on.clone())));
        }
        if let Some(stderr) = self.guardian.stderr.take() {
            let reader = match parts.log.clone() {
                Some(log) => {
                    let backlog = Backlog::new(log, format!("stderr of pid {pid}"));
                    let reader = output::read_stderr(stderr, backlog, pass_on.clone(), swallow_bus_lines);
                    parts.tasks.spawn("child-stderr", reader)
                }
                None => parts.tasks.spawn("child-stderr", output::read_rest(stderr, pass_on.clone())),
            };
            readers.push(reader);
        }
        readers
    }

    /// Signals everything in the command's group. It fails when the group is gone, which is what the signal was for.
    fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.group, signal);
    }

    fn not_started(&self, errno: i32) -> Error {
        let reason = io::Error::from_raw_os_error(errno);
        let remedy = match reason.kind() {
            io::ErrorKind::NotFound if self.program.contains('/') => "Check the path",
            io::ErrorKind::NotFound => {
                "It is not in PATH: install it (`npm install -g opencode-ai`), or give its whole path"
            }
            io::ErrorKind::PermissionDenied => "Make it executable (`chmod +x`), or give another one",
            _ => "Check that it is a program for this machine",
        };
        Error::Start { command: self.program.clone(), reason, remedy }
    }
}

/// How the guardian ended, for when it could not report how the command did.
fn ending_of(status: io::Result<std::process::ExitStatus>) -> Ending {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match status.signal() {
            Some(signal) => Ending::Signaled(signal),
            None => Ending::Exited(status.code().unwrap_or(1)),
        },
        Err(_) => Ending::Exited(1),
    }
}
