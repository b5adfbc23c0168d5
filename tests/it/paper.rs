//! What packages install beside the program: bash takes the completions, and readers of manual pages the page.

use std::fs;
use std::process::{Command, Output};

const RELAY: &str = env!("CARGO_BIN_EXE_opencode-relay");

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(RELAY).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that this machine may not have.
fn try_run(command: &mut Command) -> Option<Output> {
    command.output().ok()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completions");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let (last, before) = (words.last().unwrap(), words[words.len() - 2]);
        let script = r#"source "$1"; cur=$2; prev=$3; shift 3; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            function=$(complete -p opencode-relay | sed 's/.*-F \([^ ]*\).*/\1/')
            "$function" opencode-relay "$cur" "$prev"; echo "${COMPREPLY[*]}""#;
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", script, "bash"]).arg(&file).args([last, before]).args(words);
        String::from_utf8(try_run(&mut command).unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["opencode-relay", "ta"]), "tail");
    assert_eq!(complete(&["opencode-relay", "tail", "--s"]), "--session --since");
    assert_eq!(complete(&["opencode-relay", "tail", "--color", "a"]), "auto always");
    assert_eq!(complete(&["opencode-relay", "run", "--max-s"]), "--max-sockets");
    assert_eq!(complete(&["opencode-relay", "completions", "z"]), "zsh");
}

#[test]
fn other_shells_take_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("zsh", &["-n"][..]), ("fish", &["--no-config", "--no-execute"])] {
        let file = folder.path().join(shell);
        fs::write(&file, printed(&["completions", shell])).unwrap();
        match try_run(Command::new(shell).args(check).arg(&file)) {
            Some(output) => assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}"),
            None => println!("{shell} is not here"),
        }
    }
    let output = Command::new(RELAY).args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_page_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("opencode-relay.1");
    fs::write(&file, printed(&["man"])).unwrap();
    if let Some(output) = try_run(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-cbou"]).arg(&file)) {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("EXIT STATUS"));
    } else {
        println!("groff is not here");
    }
    if let Some(output) = try_run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&file)) {
        // It has no date on purpose.
        let said = String::from_utf8(output.stdout).unwrap();
        let wrong: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    } else {
        println!("mandoc is not here");
    }
}
