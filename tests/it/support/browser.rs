//! Chromium without a window, driven by a script in `tests/clients/browser` that is written with `browser.mjs`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::process::Process;
use super::programs::{fetched, find, source, tool_with};

/// How long the browser may take to notice that its script is gone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A script with its browser; both are gone when it is dropped.
pub(crate) struct Browser {
    /// The script: what it says comes line by line.
    pub(crate) script: Process,
    profile: String,
}

impl Browser {
    /// Runs `tests/clients/browser/SCRIPT ARGUMENTS…` with a fresh profile in `scratch`.
    pub(crate) fn start(script: &str, arguments: &[&str], scratch: &Path) -> Self {
        fetched("browser/node_modules/playwright-core");
        let profile = tempfile::Builder::new().prefix("chromium-").tempdir_in(scratch).unwrap().keep();
        let (profile, chromium) = (profile.to_str().unwrap().to_owned(), find("chromium"));
        let script = source("browser").join(script);
        let mut command = vec![script.to_str().unwrap()];
        command.extend(arguments);
        let env = [("CHROMIUM", chromium.to_str().unwrap()), ("PROFILE", &profile)];
        let script = tool_with("node", &command, scratch, &env);
        Self { script, profile }
    }

    /// The processes that work with the profile.
    fn processes(&self) -> Vec<Pid> {
        let ids = fs::read_dir("/proc").unwrap().flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let names_profile = |id: &i32| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default())
                .contains(&self.profile)
        };
        ids.filter(names_profile).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser reads its orders from a pipe of the script's and ends with it.
        self.script.kill_group();
        let deadline = Instant::now() + END_LIMIT;
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for process in self.processes() {
            eprintln!("Chromium did not end within {END_LIMIT:?} after its script and is killed");
            let _ = kill_process(process, Signal::KILL);
        }
    }
}
