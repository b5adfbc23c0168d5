//! `opencode attach`: the terminal program in a terminal of its own, with what appears on its screen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

use super::fixture::{SOON, Served, bounded, create, find, prompt};
use crate::support::opencode::binary;
use crate::support::process::Process;
use crate::support::situations;

const END_LIMIT: Duration = Duration::from_secs(5);

/// A program in a pseudo terminal of 120 by 40; it ends with this value.
struct Screen {
    terminal: Process,
    /// Everything it wrote, control sequences and all.
    output: PathBuf,
    /// It leads a session of its own, so the terminal's group does not hold it.
    program: Pid,
}

impl Screen {
    async fn start(served: &Served, program: &[&str]) -> Self {
        let folder = served.home.scratch();
        let [keys, output, id] = ["keys", "screen", "id"].map(|name| folder.join(name));
        // A pipe without an end for a keyboard: at the end of its input `script` presses Ctrl-D.
        let made = Command::new("mkfifo").arg(&keys).status().unwrap();
        assert!(made.success());
        let inside = format!("stty rows 40 cols 120; echo $$ >'{}'; exec {}", id.display(), program.join(" "));
        let outside = format!("exec \"$0\" -qefc \"$1\" '{}' <>'{}'", output.display(), keys.display());
        let command = ["/bin/sh", "-c", &outside, find("script").to_str().unwrap(), &inside].map(str::to_owned);
        let mut env = served.home.env();
        env.push(("TERM".to_owned(), "xterm-256color".to_owned()));
        let terminal = Process::start(&command, &env, Path::new(&served.home.project()), None).unwrap();
        let program = situations::until("the terminal", || async {
            fs::read_to_string(&id).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?))
        })
        .await;
        Self { terminal, output, program }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until these words were written somewhere on it.
    async fn shows(&self, words: &str) {
        let deadline = Instant::now() + SOON;
        while !self.text().contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} within {SOON:?}: {:?}", self.text());
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.program.as_raw_nonzero())).unwrap_or_default();
        // Whoever adopted it may not have looked at its end yet.
        stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Without its terminal the program gets SIGHUP.
        self.terminal.kill_group();
        let deadline = Instant::now() + END_LIMIT;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.is_running() {
            let _ = kill_process_group(self.program, Signal::KILL);
        }
    }
}

/// It reads `/global/event`, which is whole on this release also without the relay: what is shown here is that the relay's
/// is as good.
#[tokio::test]
async fn attach_shows_a_turn_that_began_elsewhere() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let api = served.relay.api();
        let session = create(&api).await;
        assert_eq!(prompt(&api, &session, "WORDS=2").await, StatusCode::NO_CONTENT);
        situations::until_idle(&api, &session, 1).await;

        let binary = binary("1.14.48");
        let attach = [binary.to_str().unwrap(), "attach", served.relay.base(), "--session", &session];
        let screen = Screen::start(&served, &attach).await;
        // The first turn is read over REST; what comes now can only come from the stream.
        screen.shows("word1").await;
        assert_eq!(prompt(&api, &session, "WORDS=8 DELAY=50").await, StatusCode::NO_CONTENT);
        screen.shows("word7").await;
        assert!(screen.text().contains("word3"));
        assert!(screen.is_running(), "{}", screen.terminal.output());
    })
    .await;
}
