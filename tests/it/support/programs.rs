//! Programs of others that the tests drive: `scripts/fetch-clients` installs them.

use std::path::{Path, PathBuf};

use super::process::Process;

/// Starts an installed program; it finds nothing of the test's environment but `PATH`.
pub(crate) fn tool(program: &str, arguments: &[&str], home: &Path) -> Process {
    tool_with(program, arguments, home, &[])
}

/// The same with more in its environment.
pub(crate) fn tool_with(program: &str, arguments: &[&str], home: &Path, more: &[(&str, &str)]) -> Process {
    let mut command = vec![find(program).to_str().unwrap().to_owned()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let (path, home_text) = (std::env::var("PATH").unwrap(), home.to_str().unwrap());
    let mut env = vec![("PATH", path.as_str()), ("HOME", home_text), ("TMPDIR", home_text)];
    env.extend(more);
    let env = Vec::from_iter(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    Process::start(&command, &env, home, None).unwrap()
}

/// Where a program is installed; the test fails with the way to get it where it is not.
pub(crate) fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are installed for the administrator, and an ordinary user may start them too.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed; get what these tests need with: scripts/fetch-clients"))
}

/// A file of the clients' sources.
pub(crate) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

/// The same for one that `scripts/fetch-clients` puts there.
pub(crate) fn fetched(path: &str) -> PathBuf {
    let path = source(path);
    assert!(path.exists(), "{} is not there; get it with: scripts/fetch-clients", path.display());
    path
}
