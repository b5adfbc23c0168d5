//! What systemd is told and what it hands over, with the test in systemd's place.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::time::{Instant, timeout};

use crate::standin::capture::frames;
use crate::standin::{Mode, SOON, StandIn};
use crate::support::bounded;
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::situations::until;

/// The watchdog's limit in the tests.
const LIMIT: Duration = Duration::from_millis(400);

/// Where the relay's words arrive.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder, heard: Vec::new() }
    }

    fn env(&self) -> Vec<(String, String)> {
        let socket = self.folder.path().join("notify").display().to_string();
        let variables = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("NOTIFY_SOCKET", socket),
            ("WATCHDOG_USEC", LIMIT.as_micros().to_string()),
            // Sockets of somebody else.
            ("LISTEN_FDS", "1".to_owned()),
            ("LISTEN_PID", "1".to_owned()),
            ("LISTEN_FDNAMES", "another".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    async fn word(&mut self) -> String {
        let mut bytes = [0; 2_000];
        let read = timeout(SOON, self.socket.recv(&mut bytes)).await.expect("a word").unwrap();
        let word = String::from_utf8(bytes[..read].to_vec()).unwrap();
        self.heard.push((Instant::now(), word.clone()));
        word
    }

    /// The first word like this from now on.
    async fn hear(&mut self, is_meant: impl Fn(&str) -> bool) -> String {
        loop {
            let word = self.word().await;
            if is_meant(&word) {
                return word;
            }
        }
    }

    /// The words that say how things are, without the signs of life.
    fn told(&self) -> Vec<&str> {
        self.heard.iter().map(|(_, word)| word.as_str()).filter(|word| *word != "WATCHDOG=1").collect()
    }
}

#[tokio::test]
async fn the_manager_hears_how_the_relay_is() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let mut manager = Manager::new();
        let arguments = ["--journal", "memory", "--upstream", &standin.url()];
        let mut relay = Relay::start(&arguments, &manager.env(), &std::env::temp_dir()).await;
        let ready = manager.word().await;
        assert!(ready.starts_with("READY=1\nSTATUS="), "{ready}");
        relay.api().get("/_relay/health").await;
        let words = format!("STATUS=opencode 1.14.48 at {}, stream connected", standin.url());
        manager.hear(|word| word.starts_with(&words)).await;

        // Twice in each limit, and nothing else while nothing changes.
        let from = manager.heard.len();
        for _ in 0..6 {
            manager.hear(|word| word == "WATCHDOG=1").await;
        }
        let took = manager.heard[manager.heard.len() - 1].0 - manager.heard[from].0;
        assert!(took > LIMIT && took < LIMIT * 6, "five halves of {LIMIT:?} took {took:?}");
        let again = manager.told().windows(2).any(|words| words[0] == words[1]);
        assert!(!again, "{:?}", manager.told());

        relay.signal(Signal::HUP);
        let word = manager.hear(|word| word != "WATCHDOG=1").await;
        let microseconds =
            word.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&word).trim().parse::<u64>().unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime = uptime.split('.').next().unwrap().parse::<u64>().unwrap();
        assert!(
            microseconds / 1_000_000 <= uptime + 1 && microseconds / 1_000_000 + 60 > uptime,
            "{word}, up {uptime} s"
        );
        assert_eq!(manager.hear(|word| word != "WATCHDOG=1").await, "READY=1");

        standin.set_mode(Mode::Refuse(500));
        standin.cut();
        manager.hear(|word| word.starts_with("STATUS=") && word.contains("stream down")).await;
        relay.signal(Signal::TERM);
        manager.hear(|word| word.starts_with("STOPPING=1\n")).await;
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(0), "{}", relay.output());
        let mut rest = [0; 100];
        assert!(manager.socket.try_recv(&mut rest).is_err(), "a word after the last one: {rest:?}");
    })
    .await;
}

/// Somebody has to see it: clients lose their place if the relay ends now.
#[tokio::test]
async fn the_manager_hears_that_the_journal_is_in_memory_only() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let mut manager = Manager::new();
        let state = manager.folder.path().join("state").display().to_string();
        // What would exceed the limit below is to fail, not to kill.
        let (script, url) = ("trap '' XFSZ; exec \"$0\" \"$@\"", standin.url());
        let relay = env!("CARGO_BIN_EXE_opencode-relay");
        let command =
            ["sh", "-c", script, relay, "run", "--listen", "127.0.0.1:0", "--upstream", &url, "--state-dir", &state];
        let command = command.map(str::to_owned);
        let relay = Process::start(&command, &manager.env(), manager.folder.path(), None).unwrap();
        let words = format!("STATUS=opencode 1.14.48 at {url}, stream connected");
        let is_well = |word: &str| word.starts_with(&words) && !word.contains("journal");
        manager.hear(is_well).await;

        let pid = Pid::from_raw(relay.id().try_into().unwrap());
        let free =
            prlimit(pid, Resource::Fsize, Rlimit { current: Some(4_096), ..getrlimit(Resource::Fsize) }).unwrap();
        for data in frames("1.14.48", "d_crud") {
            assert!(standin.publish(&data));
        }
        let word = manager.hear(|word| word.contains("journal")).await;
        assert!(word.starts_with(&words) && word.ends_with(", journal degraded: in memory only"), "{word}");

        prlimit(pid, Resource::Fsize, free).unwrap();
        for data in frames("1.14.48", "d_crud") {
            assert!(standin.publish(&data));
        }
        manager.hear(is_well).await;
    })
    .await;
}

/// The service is ready while opencode is not: whoever comes now waits for it.
#[tokio::test]
async fn opencode_hears_nothing_of_the_manager() {
    bounded(async {
        let mut manager = Manager::new();
        let file = manager.folder.path().join("environment");
        let script = format!("env >'{}.new'; mv '{0}.new' '{0}'; exec sleep 1000", file.display());
        let arguments = ["--journal", "memory", "--", "sh", "-c", &script, "serve"];
        let _relay = Relay::start(&arguments, &manager.env(), &std::env::temp_dir()).await;
        assert_eq!(manager.word().await, "READY=1\nSTATUS=waiting for opencode");
        let environment = until("opencode's environment", || async { fs::read_to_string(&file).ok() }).await;
        assert!(environment.contains("PATH="), "{environment}");
        for line in environment.lines() {
            assert!(!["NOTIFY_", "WATCHDOG_", "LISTEN_"].iter().any(|name| line.starts_with(name)), "{line}");
        }
    })
    .await;
}

/// A relay with what listens as its descriptor 3, as systemd starts it.
struct Activated {
    standin: StandIn,
    folder: TempDir,
}

impl Activated {
    async fn new() -> Self {
        Self { standin: StandIn::start("1.14.48").await, folder: tempfile::tempdir().unwrap() }
    }

    fn start(&self, socket: impl Into<OwnedFd>, name: &str, arguments: &[&str]) -> Process {
        // The shell becomes the relay, and so has its number.
        let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ exec "$0" "$@""#;
        let url = self.standin.url();
        let mut command = vec!["sh", "-c", script, env!("CARGO_BIN_EXE_opencode-relay"), "run", "--upstream", &url];
        command.extend(arguments);
        let command: Vec<_> = command.into_iter().map(str::to_owned).collect();
        let env = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("STATE_DIRECTORY", self.folder.path().join("state").display().to_string()),
            ("LISTEN_FDS", "1".to_owned()),
            ("LISTEN_FDNAMES", name.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        Process::start_with(Stdio::from(socket.into()), &command, &env, self.folder.path(), None).unwrap()
    }

    async fn fails(&self, socket: impl Into<OwnedFd>, arguments: &[&str]) -> String {
        let mut process = self.start(socket, "x", arguments);
        let found = |text: &str| text.contains("failed to").then(|| text.to_owned());
        let said = process.stderr.wait(0, SOON, |line| found(&line.text)).await;
        let code = process.wait(SOON).await.and_then(|exit| exit.code());
        assert_eq!(code, Some(1), "{}", process.output());
        said.unwrap_or_else(|| panic!("{}", process.output()))
    }
}

async fn listens(process: &Process) -> Vec<String> {
    let listening = |text: &str| text.contains("listening on").then_some(());
    let found = process.stdout.wait(0, SOON, |line| listening(&line.text)).await;
    assert!(found.is_some(), "{}", process.output());
    let lines = process.stdout.from(0);
    lines.iter().filter_map(|line| line.text.strip_prefix("opencode-relay listening on ").map(str::to_owned)).collect()
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin)) {
    let request = b"GET /_relay/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
}

async fn answer(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text)).await.expect("an answer").unwrap();
    text
}

#[tokio::test]
async fn a_restart_refuses_nobody() {
    bounded(async {
        let activated = Activated::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody has the default address then; a test must not, either.
        let mut relay = activated.start(listener.try_clone().unwrap(), "relay", &[]);
        assert_eq!(listens(&relay).await, [format!("http://{address}")]);
        for signal in [Signal::KILL, Signal::TERM] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream).await;
            assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
            relay.signal(signal);
            assert!(relay.wait(SOON).await.is_some());
            let mut waiting = Vec::new();
            for _ in 0..20 {
                let mut stream = TcpStream::connect(address).await.expect("nobody is refused");
                ask(&mut stream).await;
                waiting.push(stream);
            }
            relay = activated.start(listener.try_clone().unwrap(), "relay", &[]);
            for stream in waiting {
                assert!(answer(stream).await.starts_with("HTTP/1.1 200"), "{}", relay.output());
            }
        }
    })
    .await;
}

/// Whoever was let in right before a stop is not sent away without having been heard.
#[tokio::test]
async fn a_first_request_is_waited_for() {
    bounded(async {
        let activated = Activated::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut relay = activated.start(listener, "relay", &[]);
        listens(&relay).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let told = until("it to be let in", || async {
            let mut other = TcpStream::connect(address).await.unwrap();
            let request = b"GET /_relay/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            other.write_all(request).await.unwrap();
            answer(other).await.contains(r#""connections":{"open":2,"#).then_some(())
        });
        told.await;
        relay.signal(Signal::TERM);
        // The test holds the socket no longer, so it is closed with the relay's.
        until("it to let nobody in", || async { TcpStream::connect(address).await.is_err().then_some(()) }).await;
        ask(&mut stream).await;
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"), "{}", relay.output());
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(0), "{}", relay.output());
    })
    .await;
}

#[tokio::test]
async fn a_passed_unix_socket_keeps_its_file() {
    bounded(async {
        let activated = Activated::new().await;
        let path = activated.folder.path().join("relay.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let more = ["--listen", "127.0.0.1:0"];
        let mut relay = activated.start(listener.try_clone().unwrap(), "relay", &more);
        let listening = until("both to be told", || async {
            let all = listens(&relay).await;
            (all.len() == 2).then_some(all)
        });
        let listening = listening.await;
        assert_eq!(listening[0], format!("unix:{}", path.display()));
        // What is written besides is served as well.
        let mut stream = TcpStream::connect(listening[1].trim_start_matches("http://")).await.unwrap();
        ask(&mut stream).await;
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        ask(&mut stream).await;
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(0), "{}", relay.output());
        assert!(path.exists());
        // The same place written as well is the same place.
        let same = format!("unix:{}", path.display());
        let relay = activated.start(listener, "relay", &["--listen", &same]);
        assert_eq!(listens(&relay).await, [same]);
    })
    .await;
}

#[tokio::test]
async fn what_is_passed_by_mistake_is_named() {
    bounded(async {
        let activated = Activated::new().await;
        let error = activated.fails(fs::File::open("/dev/null").unwrap(), &[]).await;
        assert!(error.contains("descriptor 3") && error.contains("LISTEN_FDS"), "{error}");
        let (connected, _other) = UnixStream::pair().unwrap();
        let error = activated.fails(connected, &[]).await;
        assert!(error.contains("passed socket 3"), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let error = activated.fails(connected, &[]).await;
        assert!(error.contains("Accept=no"), "{error}");
    })
    .await;
}

/// The name of a socket says what is spoken there.
#[cfg(feature = "tls")]
#[tokio::test]
async fn a_socket_named_https_speaks_tls() {
    use crate::listen::certificates::Files;
    use crate::listen::fixture::{connect, talk};

    bounded(async {
        let activated = Activated::new().await;
        let (files, shown) = Files::new();
        let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let given = ["--tls-certificate", certificate, "--tls-key", key];
        let relay = activated.start(listener.try_clone().unwrap(), "https", &given);
        assert_eq!(listens(&relay).await, [format!("https://{address}")]);
        let request = "GET /_relay/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert!(talk(connect(address, &shown, "http/1.1").await.unwrap(), request).await.contains("200 OK"));
        drop(relay);
        // Without a certificate the mistake is one of the settings.
        let mut relay = activated.start(listener, "https", &[]);
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(2), "{}", relay.output());
    })
    .await;
}

/// A settings file that is changed while the relay runs.
struct Changing {
    relay: Relay,
    file: PathBuf,
    seen: usize,
}

impl Changing {
    /// Writes the file, and hears what the relay says to it up to these words.
    async fn reload(&mut self, text: &str, last: &str) -> String {
        fs::write(&self.file, text).unwrap();
        self.relay.signal(Signal::HUP);
        let stderr = self.relay.stderr();
        let found = stderr.wait(self.seen, SOON, |line| line.text.contains(last).then_some(())).await;
        assert!(found.is_some(), "{last:?} was not said: {}", self.relay.output());
        let lines = stderr.from(self.seen);
        self.seen += lines.len();
        lines.into_iter().map(|line| line.text + "\n").collect()
    }
}

#[tokio::test]
async fn sighup_reads_the_settings_again() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        let text = |rest: &str| format!("upstream = {:?}\njournal = \"memory\"\n{rest}", standin.url());
        fs::write(&file, text("log_level = \"warn\"\ngrace = \"2s\"")).unwrap();
        let arguments = ["--config", file.to_str().unwrap()];
        let relay = Relay::start(&arguments, &[], Path::new("/")).await;
        let mut changing = Changing { relay, file, seen: 0 };
        let said = changing
            .reload(
                &text("log_level = \"info\"\ngrace = \"3s\"\nmax_body = \"1MiB\""),
                "grace changed to \"3s\"; it takes effect at the next restart",
            )
            .await;
        assert!(said.contains("log_level is \"info\" now") && said.contains("max_body changed to \"1MiB\""), "{said}");
        let said = changing
            .reload(&text("log_level = \"info\"\ngrace = \"3s\""), "grace changed to \"3s\"; it takes effect")
            .await;
        assert!(!said.contains("max_body"), "{said}");
        let said = changing
            .reload("grace = 3\nlisten = [\"x\"]\nlog_level = \"error\"", "those from before are used on")
            .await;
        for expected in ["grace = \"3\"", "upstream: neither"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        // The level of the broken file is not used: this is heard.
        changing
            .reload(&text("log_level = \"info\"\ngrace = \"2s\""), "the settings were read again: nothing changed")
            .await;
        changing.relay.api().get("/_relay/health").await;
    })
    .await;
}
