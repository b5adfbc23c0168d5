//! A child `journalctl` for what one unit wrote: how it is started, what it prints, and what it complains of.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// How much of the output is read at once, in bytes.
pub(super) const READ: usize = 64 * 1024;

/// How much of what `journalctl` complains of is kept, in bytes.
const COMPLAINT: usize = 2048;

/// The message by which journald tells what it dropped (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED: &str = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e";

/// Why a `journalctl` is no good, and what to do about it.
pub(super) type Reason = String;

/// A child `journalctl`; killed when dropped.
pub(super) struct Journalctl {
    child: Child,
    output: ChildStdout,
    errors: Option<ChildStderr>,
    said: Vec<u8>,
}

impl Journalctl {
    pub(super) fn start<'a>(unit: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, Reason> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "there is no journalctl in PATH; `--log journald:` needs systemd's".to_owned(),
            _ => format!("journalctl cannot be started: {error}"),
        };
        let mut command = Command::new("journalctl");
        command.args(["--all", "--merge", "--no-pager"]).args(arguments).args(matches(unit));
        // The relay's own environment holds a password. What it complains of is read, so it has to be in one language.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the relay.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| failed(io::Error::other("it has no standard output")))?;
        let errors = child.stderr.take();
        Ok(Self { child, output, errors, said: Vec::new() })
    }

    /// Reads what it prints; 0 at its end. Takes in what it complains of meanwhile. May be given up and called again.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut complaint = [0; 512];
        loop {
            let errors = async {
                match &mut self.errors {
                    Some(errors) => errors.read(&mut complaint).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.output.read(buffer) => return read.unwrap_or(0),
                read = errors => match read {
                    Ok(count) if count > 0 => {
                        let room = COMPLAINT.saturating_sub(self.said.len());
                        self.said.extend_from_slice(&complaint[..count.min(room)]);
                    }
                    _ => self.errors = None,
                },
            }
        }
    }

    /// What it complained of, with what to do about it.
    pub(super) fn complaint(&self) -> Option<Reason> {
        complaint(&String::from_utf8_lossy(&self.said))
    }

    /// Reads all that it prints.
    pub(super) async fn read_to_end(mut self, mut each: impl FnMut(&[u8])) -> Result<(), Reason> {
        let mut buffer = vec![0; READ];
        loop {
            match self.read(&mut buffer).await {
                0 => return self.end().await,
                count => each(&buffer[..count]),
            }
        }
    }

    /// It has closed its output: fails with what it says of itself if that was too early.
    pub(super) async fn end(&mut self) -> Result<(), Reason> {
        let status = self.child.wait().await;
        if let Some(errors) = self.errors.take() {
            let mut rest = Vec::new();
            let _ = errors.take(COMPLAINT as u64).read_to_end(&mut rest).await;
            self.said.extend(rest);
        }
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.complaint().unwrap_or_else(|| format!("journalctl failed: {status}"))),
            Err(error) => Err(format!("journalctl failed: {error}")),
        }
    }
}

fn complaint(said: &str) -> Option<Reason> {
    // The second where some of the journal may be read, as the user's own.
    if said.contains("insufficient permissions") || said.contains("not seeing messages from other users") {
        return Some(
            "this user may not read systemd's journal; put SupplementaryGroups=systemd-journal into the relay's unit, or \
             add the user to that group"
                .to_owned(),
        );
    }
    said.lines().map(str::trim).find(|line| !line.is_empty()).map(|line| format!("journalctl says: {line}"))
}

/// Which entries are asked for, as `journalctl` takes it: groups of fields that all have to fit, with `+` between them.
///
/// What the unit's processes wrote to their standard output, no more: what else is filed under the unit was perhaps told
/// by others. A unit of the user's own service manager, too, if it is the same user's.
fn matches(unit: &str) -> Vec<String> {
    let machine = std::fs::read_to_string("/etc/machine-id").ok().map(|id| format!("_MACHINE_ID={}", id.trim()));
    let user = std::fs::metadata("/proc/self").map(|own| format!("_UID={}", own.uid()));
    let stdout = "_TRANSPORT=stdout".to_owned();
    let mut groups = vec![
        vec![format!("_SYSTEMD_UNIT={unit}"), stdout.clone()],
        vec![format!("OBJECT_SYSTEMD_UNIT={unit}"), "_TRANSPORT=driver".to_owned(), DROPPED.to_owned()],
    ];
    if let Ok(user) = user {
        groups.push(vec![format!("_SYSTEMD_USER_UNIT={unit}"), stdout, user]);
    }
    for group in &mut groups {
        group.extend(machine.clone());
    }
    groups.join(&"+".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_journalctl_complains_of_has_a_remedy() {
        // As systemd 252 words them.
        let hint = "Hint: You are currently not seeing messages from other users and the system.\n      Users in groups \
                    'adm', 'systemd-journal' can see all messages.\n      Pass -q to turn off this notice.\n";
        for said in [hint, "No journal files were opened due to insufficient permissions.\n"] {
            assert!(
                complaint(said).is_some_and(|reason| reason.contains("SupplementaryGroups=systemd-journal")),
                "{said}"
            );
        }
        assert_eq!(
            complaint("\nNo journal files were found.\n").as_deref(),
            Some("journalctl says: No journal files were found.")
        );
        assert_eq!(complaint(""), None);
    }
}
