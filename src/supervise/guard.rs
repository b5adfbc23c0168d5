//! The guardian: stands between the relay and opencode, and outlives the relay by seconds.
//!
//! It is this same program, started by [`run`](super::run) as `opencode-relay guard -- COMMAND…` in a process group of its
//! own. Its standard input is the lifeline. It starts the command in the same group, and
//!
//! 1. when the lifeline closes, whatever the relay died of, sends SIGTERM to the group, and SIGKILL five seconds later;
//! 2. when the command ends, ends what it left behind in the group, and ends with the command's code.
//!
//! The group gets the relay's signals directly, so the guardian gets them too. It *handles* them, without doing anything:
//! ignored signals would stay ignored in the command, and without a handler the guardian would be gone before it could tell
//! how the command ended.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{self, Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::lifeline::{Ending, Report};

/// How long the group may take to end after the relay died; then it is killed.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// How long what the command left behind may take to end after SIGTERM; then the relay kills the group.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

/// A program that is not there or cannot be run, as shells say it.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// Guards `command` (the program and its arguments) until it ends. Called by `main` for the hidden subcommand `guard`,
/// before anything else is set up: no telemetry, no settings.
#[must_use]
pub fn main(command: &[OsString]) -> ExitCode {
    match guard(command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "opencode-relay guard: {error}");
            ExitCode::from(2)
        }
    }
}

fn guard(command: &[OsString]) -> io::Result<ExitCode> {
    let lifeline = lifeline()?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no command was given"));
    };
    // The relay started us as the leader of a group. Signals below go to "the current group", which must not be another's.
    if process::getpgrp() != process::getpid() {
        process::setpgid(None, None)?;
    }
    // Grandchildren whose parent dies become ours, so that "no child left in the group" is exact, and no zombie stays.
    let _ = process::set_child_subreaper(Some(process::getpid()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(lifeline, program, arguments))
}

/// The relay's end of the lifeline is the other one of a pair of sockets; anything else means that a person called us.
fn lifeline() -> io::Result<UnixStream> {
    let by_hand = || io::Error::other("this is started by `opencode-relay run`, not by hand");
    let lifeline = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    lifeline.local_addr().map_err(|_| by_hand())?;
    lifeline.set_nonblocking(true)?;
    Ok(lifeline)
}

async fn watch(lifeline: UnixStream, program: &OsString, arguments: &[OsString]) -> io::Result<ExitCode> {
    // Handlers before the start: from here on a signal to the group cannot end the guardian.
    let mut ended = signal(SignalKind::child())?;
    let _handled = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    // Two handles: tokio's would not write before it was polled once.
    let reports = lifeline.try_clone()?;
    let mut lifeline = tokio::net::UnixStream::from_std(lifeline)?;

    let child = match Command::new(program).args(arguments).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            report(&reports, Report::Failed { errno: error.raw_os_error().unwrap_or(0) });
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            return Ok(ExitCode::from(code));
        }
    };
    report(&reports, Report::Started { pid: child.id() });
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);

    let mut ending = None;
    let mut relay_died = false;
    let mut deadline = None;
    let mut byte = [0];
    loop {
        let overdue = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The relay never writes: whatever comes, even an error, means that it is gone.
            _ = lifeline.read(&mut byte), if !relay_died => {
                relay_died = true;
                deadline = Some(Instant::now() + ORPHAN_GRACE);
                end_group(Signal::TERM);
            }
            () = overdue => {
                if relay_died {
                    // This ends the guardian as well.
                    end_group(Signal::KILL);
                }
                return Ok(exit_code(ending.unwrap_or(Ending::Exited(1))));
            }
            _ = ended.recv() => {}
        }
        // Signals that come together are told once, so all that ended are taken. One that ends meanwhile is told again, and so
        // is one that had ended before it became ours: what is here can be waited for without a clock.
        while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
            if Some(pid) != child {
                continue;
            }
            let how = match status.terminating_signal() {
                Some(signal) => Ending::Signaled(signal),
                None => Ending::Exited(status.exit_status().unwrap_or(1)),
            };
            ending = Some(how);
            report(&reports, Report::Ended(how));
            if !is_group_empty() && !relay_died {
                deadline = Some(Instant::now() + LEFTOVER_GRACE);
                end_group(Signal::TERM);
            }
        }
        if let Some(ending) = ending
            && is_group_empty()
        {
            return Ok(exit_code(ending));
        }
    }
}

/// Whether nothing but the guardian is left in its group.
fn is_group_empty() -> bool {
    // Looks without reaping: the loop above must not miss how the command ended.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(process::waitid(WaitId::Pgid(Some(process::getpgrp())), look), Err(rustix::io::Errno::CHILD))
}

/// Sends a signal to the group. There is nobody to tell when that fails, and it fails only when the group is gone.
fn end_group(signal: Signal) {
    let _ = process::kill_current_process_group(signal);
}

/// Tells the relay. A relay that is gone, or that has not read a few bytes yet, does not matter.
fn report(mut lifeline: &UnixStream, report: Report) {
    let _ = lifeline.write_all(format!("{report}\n").as_bytes());
}

fn exit_code(ending: Ending) -> ExitCode {
    ending.exit().into()
}
