//! `opencode attach`: the terminal program under tmux, with keys pressed and what is then on its screen.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use super::comeback::Beside;
use super::fixture::{SOON, Served, create, find, prompt};
use crate::support::bounded;
use crate::support::opencode::{Home, binary};
use crate::support::process::Process;
use crate::support::situations;

const END_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at the screen.
const PAUSE: Duration = Duration::from_millis(60);
/// What the terminal program says instead of starting when its own modules were loaded in the wrong order.
const BROKEN_START: &str = "before initialization";

/// A program in a terminal of 120 by 40; it ends with this value.
struct Screen {
    socket: String,
    program: Pid,
    /// tmux itself. The program leads a session of its own.
    server: Process,
}

impl Screen {
    async fn start(home: &Home, program: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tmux-").tempdir_in(home.scratch()).unwrap().keep();
        let socket = folder.join("socket").to_str().unwrap().to_owned();
        let tmux = find("tmux");
        // What a program that ended left on its screen says why.
        let settings = folder.join("settings");
        fs::write(&settings, "set-option -g remain-on-exit on\n").unwrap();
        // In the foreground, so that it ends with the test.
        let command =
            [tmux.to_str().unwrap(), "-S", &socket, "-f", settings.to_str().unwrap(), "-D"].map(str::to_owned);
        let mut env = home.env();
        env.extend(
            [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")].map(|(name, value)| (name.into(), value.into())),
        );
        let server = Process::start(&command, &env, Path::new(&home.project()), None).unwrap();
        let open = ["new-session", "-d", "-x", "120", "-y", "40", "-P", "-F", "#{pane_pid}", "--"];
        let id = situations::until("tmux to listen", || async {
            let output = ask(&socket, &[&open[..], program].concat());
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        })
        .await;
        Self { socket, program: Pid::from_raw(id.trim().parse().unwrap()).unwrap(), server }
    }

    /// `opencode attach` of 1.14.48 in a session. Once in a while it ends at its start, before it has shown anything (once in
    /// 15 runs, and not told why), or stops there with an error of JavaScript's (seen once: "Cannot access 'B' before
    /// initialization"); it is started again then, as somebody at a terminal would.
    async fn attach(home: &Home, base: &str, session: &str) -> Self {
        let binary = binary("1.14.48");
        let program = [binary.to_str().unwrap(), "attach", base, "--session", session];
        for _ in 0..2 {
            let screen = Self::start(home, &program).await;
            let deadline = Instant::now() + SOON;
            while screen.is_running() && Instant::now() < deadline {
                let text = screen.text();
                if text.contains(BROKEN_START) {
                    break;
                }
                if !text.trim().is_empty() {
                    return screen;
                }
                sleep(PAUSE).await;
            }
            println!("opencode attach showed nothing, or ended: {}:\n{}", !screen.is_running(), screen.text());
        }
        Self::start(home, &program).await
    }

    /// What stands on it now.
    fn text(&self) -> String {
        String::from_utf8_lossy(&ask(&self.socket, &["capture-pane", "-p"]).stdout).into_owned()
    }

    fn press(&self, keys: &[&str]) {
        let output = ask(&self.socket, &[&["send-keys"], keys].concat());
        assert!(output.status.success(), "{output:?}");
    }

    /// Types a prompt and sends it off once it is there.
    async fn type_in(&self, text: &str) {
        self.press(&["-l", text]);
        self.shows(text).await;
        self.press(&["Enter"]);
    }

    /// Waits until these whole words stand on it, wherever its lines break.
    async fn shows(&self, words: &str) {
        let deadline = Instant::now() + SOON;
        let words = format!(" {words} ");
        while !format!(" {} ", Vec::from_iter(self.text().split_whitespace()).join(" ")).contains(&words) {
            assert!(Instant::now() < deadline, "no {words:?} within {SOON:?}:\n{}", self.text());
            sleep(PAUSE).await;
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
        self.server.kill_group();
        let deadline = Instant::now() + END_LIMIT;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.is_running() {
            let _ = kill_process_group(self.program, Signal::KILL);
        }
    }
}

fn ask(socket: &str, arguments: &[&str]) -> Output {
    Command::new(find("tmux")).args(["-S", socket]).args(arguments).env_remove("TMUX").output().unwrap()
}

/// It reads `/global/event`, which is whole on this release also without the relay: what is shown here is that the
/// relay's is as good.
#[tokio::test]
async fn attach_answers_what_is_typed() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let api = served.relay.api();
        for base in [served.relay.base(), served.relay.upstream().base()] {
            let session = create(&api).await;
            assert_eq!(prompt(&api, &session, "WORDS=2").await, StatusCode::NO_CONTENT);
            situations::until_idle(&api, &session, 1).await;
            let screen = Screen::attach(&served.home, base, &session).await;
            // The first turn is read over REST; what comes now can only come from the stream.
            screen.shows("word1").await;
            screen.type_in("WORDS=8 DELAY=50").await;
            screen.shows("word7").await;
            assert!(screen.text().contains("word3"), "{}", screen.text());
        }
    })
    .await;
}

#[tokio::test]
async fn attach_comes_back_after_a_kill() {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let session = create(&beside.api()).await;
        assert_eq!(prompt(&beside.api(), &session, "WORDS=2").await, StatusCode::NO_CONTENT);
        situations::until_idle(&beside.api(), &session, 1).await;
        let screen = Screen::attach(&beside.opencode.home, &beside.url(""), &session).await;
        screen.shows("word1").await;
        screen.type_in("WORDS=80 DELAY=60").await;
        screen.shows("word5").await;

        beside.kill_relay().await;
        beside.words(5).await;
        beside.start_relay().await;

        screen.shows("word79").await;
        situations::until_idle(&beside.api(), &session, 2).await;
        // The words of the outage too: the text comes whole at its end.
        for number in 0..80 {
            screen.shows(&format!("word{number}")).await;
        }
        // And it still takes what is typed.
        screen.type_in("WORDS=85").await;
        screen.shows("word84").await;
    })
    .await;
}
