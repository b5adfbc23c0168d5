//! A real opencode release in a home of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::http::Api;
use super::model::{MODEL, ScriptedModel};
use super::process::{Cost, Lines, Process};

const START_LIMIT: Duration = Duration::from_secs(30);
const START_ATTEMPTS: usize = 3;
/// Between two looks at the log.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What a release needs to run: folders, environment, project, configuration. Gone with everything in it when dropped.
pub(crate) struct Home {
    root: TempDir,
    version: String,
    config: Value,
    password: Option<String>,
    logs_to_stderr: bool,
}

impl Home {
    /// A home for a release that talks to the scripted model.
    pub(crate) fn new(version: &str, model: &ScriptedModel) -> Self {
        let root = tempfile::Builder::new().prefix("opencode-").tempdir().unwrap();
        let config = json!({
            "$schema": "https://opencode.ai/config.json",
            "autoupdate": false,
            "share": "disabled",
            "model": format!("scripted/{MODEL}"),
            "small_model": format!("scripted/{MODEL}"),
            "provider": {"scripted": {
                "name": "Scripted", "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": model.base_url(), "apiKey": "none"},
                "models": {MODEL: {"name": "Scripted", "tool_call": true, "limit": {"context": 200_000, "output": 32_000}}},
            }},
            "permission": {"bash": {"touch *": "ask", "*": "allow"}},
        });
        let home = Self { root, version: version.to_owned(), config, password: None, logs_to_stderr: true };
        for folder in ["home", "data", "config", "state", "cache", "tmp"] {
            fs::create_dir_all(home.root().join(folder)).unwrap();
        }
        home.add_project("project");
        home
    }

    /// With `OPENCODE_SERVER_PASSWORD`.
    pub(crate) fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Without `--print-logs`: the log goes to a file in [`Home::log_folder`].
    pub(crate) fn with_log_file(mut self) -> Self {
        self.logs_to_stderr = false;
        self
    }

    fn root(&self) -> PathBuf {
        // opencode tells resolved paths; so does this.
        self.root.path().canonicalize().unwrap()
    }

    /// The directory the server runs in.
    pub(crate) fn project(&self) -> String {
        self.root().join("project").to_str().unwrap().to_owned()
    }

    /// Makes one more git repository with the same configuration and returns its path.
    pub(crate) fn add_project(&self, name: &str) -> String {
        let path = self.root().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("opencode.json"), format!("{:#}\n", self.config)).unwrap();
        fs::write(path.join("README.md"), format!("# {name}\n")).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        git(&path, &["add", "."]);
        // opencode tells projects apart by their first commit: no two may be alike.
        git(&path, &["commit", "--quiet", "--message", &format!("Start {}", path.display())]);
        path.to_str().unwrap().to_owned()
    }

    /// Where opencode puts its log when it does not print it.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.root().join("data/opencode/log")
    }

    /// The file that gets every line of stderr.
    pub(crate) fn stderr_file(&self) -> PathBuf {
        self.root().join("stderr.log")
    }

    /// A place for a test's own files.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// The whole environment opencode runs in; nothing of the test's own but `PATH`.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let folder = |name: &str| self.root().join(name).to_str().unwrap().to_owned();
        let mut env = vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("SHELL", "/bin/sh".to_owned()),
            ("TMPDIR", folder("tmp")),
            ("HOME", folder("home")),
            ("XDG_DATA_HOME", folder("data")),
            ("XDG_CONFIG_HOME", folder("config")),
            ("XDG_STATE_HOME", folder("state")),
            ("XDG_CACHE_HOME", folder("cache")),
            // opencode takes its directory from here, not from where it runs.
            ("PWD", self.project()),
        ];
        for name in [
            "OPENCODE_DISABLE_AUTOUPDATE",
            "OPENCODE_DISABLE_MODELS_FETCH",
            "OPENCODE_DISABLE_LSP_DOWNLOAD",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS",
        ] {
            env.push((name, "1".to_owned()));
        }
        if let Some(password) = &self.password {
            env.push(("OPENCODE_SERVER_PASSWORD", password.clone()));
        }
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// `opencode serve …` for this port, to start it oneself or have the relay do it.
    pub(crate) fn command(&self, port: u16) -> Vec<String> {
        let binary = binary(&self.version);
        let mut command = vec![binary.to_str().unwrap().to_owned()];
        command.extend(["serve", "--hostname", "127.0.0.1", "--port"].map(str::to_owned));
        command.push(port.to_string());
        if self.logs_to_stderr {
            command.push("--print-logs".to_owned());
        }
        command.extend(["--log-level", "INFO"].map(str::to_owned));
        command
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> Opencode {
        let (process, base) = self.launch(None).await;
        Opencode { process, base, home: self }
    }

    async fn launch(&self, port: Option<u16>) -> (Process, String) {
        let mut outputs = String::new();
        for _ in 0..START_ATTEMPTS {
            // `--port 0` would mean 4096 if that is free, and two tests would fight for it.
            let port = port.unwrap_or_else(free_port);
            let tee = File::options().create(true).append(true).open(self.stderr_file()).unwrap();
            let mut process =
                Process::start(&self.command(port), &self.env(), Path::new(&self.project()), Some(tee)).unwrap();
            let listening =
                |line: &str| line.split_once("opencode server listening on ").map(|(_, url)| url.trim().to_owned());
            if let Some(base) = process.stdout.wait(0, START_LIMIT, |line| listening(&line.text)).await {
                return (process, base);
            }
            outputs = format!("{:?}\n{}", process.try_wait(), process.output());
        }
        panic!("opencode {} did not listen, {START_ATTEMPTS} times tried: {outputs}", self.version);
    }
}

/// A running opencode; the process group is killed when dropped.
pub(crate) struct Opencode {
    process: Process,
    base: String,
    // After the process: its folders must outlive it.
    pub(crate) home: Home,
}

impl Opencode {
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Its API, with the password if there is one.
    pub(crate) fn api(&self) -> Api {
        let api = Api::new(&self.base);
        match &self.home.password {
            Some(password) => api.with_password(password),
            None => api,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn cost(&self) -> Cost {
        self.process.cost()
    }

    /// The lines of its stderr so far, the log among them.
    pub(crate) fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    /// The lines of its log so far, wherever they go; with a log file, those since the last start.
    pub(crate) fn log(&self) -> Vec<String> {
        if self.home.logs_to_stderr {
            return self.stderr().from(0).into_iter().map(|line| line.text).collect();
        }
        let entries = fs::read_dir(self.home.log_folder()).into_iter().flatten().flatten();
        let newest = entries.map(|entry| entry.path()).max();
        let text = newest.map(|path| fs::read(path).unwrap()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// The types of the bus log so far, in order.
    pub(crate) fn published(&self) -> Vec<String> {
        self.log().iter().filter_map(|line| published_type(line)).collect()
    }

    /// Waits until no bus line came for `span`; other lines do not count, reading the state makes some.
    pub(crate) async fn settle(&self, span: Duration) {
        let deadline = Instant::now() + START_LIMIT;
        let (mut lines, mut since) = (self.published().len(), Instant::now());
        while since.elapsed() < span {
            assert!(Instant::now() < deadline, "opencode publishes without end");
            sleep(LOOK_PAUSE).await;
            let now = self.published().len();
            if now != lines {
                (lines, since) = (now, Instant::now());
            }
        }
    }

    /// Kills it and starts it again on the same port and data.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let port = self.base.rsplit(':').next().and_then(|port| port.parse().ok());
        (self.process, self.base) = self.home.launch(port).await;
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill_group();
        self.process.wait_blocking(Duration::from_secs(5));
    }
}

/// The type a line of the bus log announces.
pub(crate) fn published_type(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("service=bus type=")?;
    let (kind, rest) = rest.split_once(' ')?;
    (rest.trim_end() == "publishing").then(|| kind.to_owned())
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).unwrap().port()
}

/// The executable of a fetched release.
pub(crate) fn binary(version: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/opencode").join(version).join("opencode");
    assert!(path.is_file(), "opencode {version} is not here; fetch it with: scripts/fetch-opencode {version}");
    path
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
