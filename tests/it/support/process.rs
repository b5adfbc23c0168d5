//! A child process whose output is recorded line by line, and which does not outlive its test.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

use super::record::Record;

/// One line a process printed.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

pub(crate) type Lines = Arc<Record<Line>>;

/// What a process has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Time on any CPU, user and system.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Cost {
    /// Of a running process, threads included, children not.
    pub(crate) fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // Behind the name, which may hold anything: state is the first field, utime the 12th, stime the 13th.
        let fields = Vec::from_iter(stat.rsplit(')').next().unwrap().split_whitespace());
        let ticks: u64 = fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        // A tick is 10 ms on every Linux there is.
        Self { cpu: Duration::from_millis(ticks * 10), resident: kib * 1_024 }
    }
}

/// A running child, leader of its own process group.
pub(crate) struct Process {
    child: Child,
    exited: Option<ExitStatus>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Process {
    /// Starts a command line with exactly this environment. `tee` gets every line of stderr the moment it is there.
    ///
    /// Must be called from the thread that runs the test: the kernel kills the child when that thread is gone,
    /// so that a test that was itself killed leaves nothing behind.
    pub(crate) fn start(
        command: &[String],
        env: &[(String, String)],
        cwd: &Path,
        tee: Option<File>,
    ) -> std::io::Result<Self> {
        Self::start_with(Stdio::null(), command, env, cwd, tee)
    }

    /// The same with something to read.
    pub(crate) fn start_with(
        stdin: Stdio,
        command: &[String],
        env: &[(String, String)],
        cwd: &Path,
        tee: Option<File>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(cwd)
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = record(child.stdout.take(), None);
        let stderr = record(child.stderr.take(), tee);
        Ok(Self { child, exited: None, stdout, stderr })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it costs at this moment.
    pub(crate) fn cost(&self) -> Cost {
        Cost::of(self.child.id())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_none()
            && let Some(pid) = self.pid()
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the whole group at once.
    pub(crate) fn kill_group(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)));
        }
        self.exited
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let exited = self.try_wait();
            if exited.is_some() || Instant::now() > deadline {
                return exited;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The same for `Drop`, where nothing can be awaited.
    pub(crate) fn wait_blocking(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let exited = self.try_wait();
            if exited.is_some() || Instant::now() > deadline {
                return exited;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything it printed, for a failure's message.
    pub(crate) fn output(&self) -> String {
        let mut text = String::new();
        for (name, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            text.push_str(&format!("--- {name}\n"));
            for line in lines.from(0) {
                text.push_str(&line.text);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        self.wait_blocking(Duration::from_secs(5));
    }
}

/// Reads lines on a thread of its own, so that a busy test never holds the process back.
fn record(pipe: Option<impl Read + Send + 'static>, mut tee: Option<File>) -> Lines {
    let lines: Lines = Arc::new(Record::new());
    let Some(pipe) = pipe else { return lines };
    let sink = Arc::clone(&lines);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            if let Some(tee) = &mut tee {
                let _ = tee.write_all(&bytes);
            }
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            sink.push(Line { at: Instant::now(), text });
            bytes.clear();
        }
        sink.close();
    });
    lines
}
