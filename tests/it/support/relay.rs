//! The relay as its users run it: a process with flags, known by what it prints and serves.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::http::Api;
use super::opencode::{Home, Opencode, free_port};
use super::process::{Cost, Lines, Process};

/// As the parent it listens only after opencode does, and that may take a cold start.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running relay; SIGTERM when dropped, SIGKILL if that takes too long.
pub(crate) struct Relay {
    process: Process,
    base: String,
    password: Option<String>,
    upstream: Option<String>,
}

impl Relay {
    /// Starts `opencode-relay run --listen 127.0.0.1:0 ARGUMENTS…` and waits until it listens.
    pub(crate) async fn start(arguments: &[&str], env: &[(String, String)], cwd: &Path) -> Self {
        Self::start_at(0, arguments, env, cwd).await
    }

    /// The same on a port of the test's choice.
    pub(crate) async fn start_at(port: u16, arguments: &[&str], env: &[(String, String)], cwd: &Path) -> Self {
        let mut process = Self::begin_at(port, arguments, env, cwd);
        let listening = |line: &str| line.strip_prefix("opencode-relay listening on ").map(|url| url.trim().to_owned());
        let found = process.stdout.wait(0, START_LIMIT, |line| listening(&line.text)).await;
        let Some(base) = found else {
            let exited = process.wait(Duration::from_millis(100)).await;
            panic!("the relay did not listen within {START_LIMIT:?} ({exited:?}): {arguments:?}\n{}", process.output());
        };
        let password = env.iter().find(|(name, _)| name == "OPENCODE_SERVER_PASSWORD").map(|(_, value)| value.clone());
        Self { process, base, password, upstream: None }
    }

    /// Starts it and waits for nothing.
    pub(crate) fn begin_at(port: u16, arguments: &[&str], env: &[(String, String)], cwd: &Path) -> Process {
        let listen = format!("127.0.0.1:{port}");
        let mut command = vec![env!("CARGO_BIN_EXE_opencode-relay").to_owned()];
        command.extend(["run", "--listen", &listen].map(str::to_owned));
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Process::start(&command, env, cwd, None).unwrap()
    }

    /// Beside a running opencode whose stderr is teed into a file. `log` is as on the command line, or
    /// [`Relay::TEE`] for that file.
    pub(crate) async fn beside(opencode: &Opencode, log: &str, witness: &str, more: &[&str]) -> Self {
        Self::beside_in(&opencode.home.env(), opencode, log, witness, more).await
    }

    /// The same in another environment than opencode's.
    pub(crate) async fn beside_in(
        env: &[(String, String)],
        opencode: &Opencode,
        log: &str,
        witness: &str,
        more: &[&str],
    ) -> Self {
        let tee = format!("file:{}", opencode.home.stderr_file().display());
        let log = if log == Self::TEE { tee.as_str() } else { log };
        let mut arguments = vec!["--upstream", opencode.base(), "--log", log, "--witness", witness];
        arguments.extend(more);
        Self::start(&arguments, env, &opencode.home.scratch()).await
    }

    /// Stands for the file into which the fixture tees opencode's stderr.
    pub(crate) const TEE: &str = "tee";

    /// As the parent of an opencode that it starts itself.
    pub(crate) async fn parent(home: &Home, witness: &str, more: &[&str]) -> Self {
        let port = free_port();
        let command = home.command(port);
        let mut arguments = vec!["--witness", witness];
        arguments.extend(more);
        arguments.push("--");
        arguments.extend(command.iter().map(String::as_str));
        let mut relay = Self::start(&arguments, &home.env(), Path::new(&home.project())).await;
        relay.upstream = Some(format!("http://127.0.0.1:{port}"));
        relay
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The API of the opencode it started itself.
    pub(crate) fn upstream(&self) -> Api {
        self.api_of(self.upstream.as_deref().unwrap())
    }

    /// Its API, with opencode's password if the environment has one.
    pub(crate) fn api(&self) -> Api {
        self.api_of(&self.base)
    }

    fn api_of(&self, base: &str) -> Api {
        match &self.password {
            Some(password) => Api::new(base).with_password(password),
            None => Api::new(base),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn cost(&self) -> Cost {
        self.process.cost()
    }

    pub(crate) fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    pub(crate) fn stdout(&self) -> &Lines {
        &self.process.stdout
    }

    /// Everything it printed, for a failure's message.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit).await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        if self.process.wait_blocking(STOP_LIMIT).is_none() {
            // No panic in a drop; a test about stopping waits for it itself.
            eprintln!("the relay did not stop within {STOP_LIMIT:?} after SIGTERM and is killed");
        }
    }
}
