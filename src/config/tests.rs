//! Whole settings: what wins, what is refused, and that the example file shows the defaults.

use std::io::Write;

use super::*;

fn input(command: &str, flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Input {
    Input {
        command: command.split_whitespace().map(str::to_owned).collect(),
        flags: flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect(),
        environment: [("HOME", "/home/me")]
            .iter()
            .chain(environment)
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        file: None,
        ..Input::default()
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn mistakes(input: &Input) -> String {
    load(input).unwrap_err().to_string()
}

#[test]
fn the_example_file_shows_exactly_the_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/opencode-relay.toml");
    let defaults = load(&input("opencode serve", &[], &[])).unwrap();
    let mut from_file = input("opencode serve", &[], &[]);
    from_file.file = Some(path.into());
    assert_eq!(load(&from_file).unwrap(), defaults);
    assert!(defaults.warnings.is_empty());

    // All keys are there, the ones without a default as comments, and with those put in it is still a good file.
    let text = std::fs::read_to_string(path).unwrap();
    for key in keys::KEYS {
        let shown = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(shown, "{key} is not in the example file");
    }
    let full = text.replace("# upstream", "upstream").replace("# log =", "log =").replace("# username", "username");
    let full = file(&full);
    let mut beside = input("", &[], &[]);
    beside.file = Some(full.path().to_owned());
    assert!(matches!(load(&beside).unwrap().shape, Shape::Beside { .. }));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = file("grace = \"1s\"\nstall_timeout = \"1s\"\njournal_age = \"1s\"\nlisten = \"127.0.0.1:1\"");
    let mut input = input(
        "opencode serve",
        &[("grace", "3s")],
        &[
            ("OPENCODE_RELAY_GRACE", "2s"),
            ("OPENCODE_RELAY_STALL_TIMEOUT", "2s"),
            ("OPENCODE_RELAY_LISTEN", "[::1]:2, [::1]:3"),
        ],
    );
    input.file = Some(file.path().to_owned());
    let config = load(&input).unwrap();
    assert_eq!(config.grace, Duration::from_secs(3));
    assert_eq!(config.stall_timeout, Duration::from_secs(2));
    assert_eq!(config.journal_age, Duration::from_secs(1));
    assert_eq!(config.listen, ["http://[::1]:2".parse().unwrap(), "[::1]:3".parse().unwrap()]);
}

#[test]
fn the_environment_can_name_the_file() {
    let file = file("grace = \"1s\"");
    let path = file.path().to_str().unwrap();
    let config = load(&input("opencode serve", &[], &[("OPENCODE_RELAY_CONFIG", path)])).unwrap();
    assert_eq!(config.grace, Duration::from_secs(1));
}

#[test]
fn all_mistakes_are_reported_together() {
    let file = file("lisen = \"127.0.0.1:1\"\ngrace = 2\nemit_bare = [true]\nwitness = \"all\"");
    let mut input = input(
        "",
        &[("journal_bytes", "many")],
        &[("OPENCODE_RELAY_STAL_TIMEOUT", "1s"), ("OPENCODE_RELAY_LOG", "journald:")],
    );
    input.file = Some(file.path().to_owned());
    let text = mistakes(&input);
    let path = file.path().display();
    for expected in [
        "8 settings are wrong:",
        &format!("lisen (file {path}): there is no such setting. Did you mean listen?"),
        &format!("grace = \"2\" (file {path}): a number without a unit. Write a number with its unit, as 250ms"),
        &format!("emit_bare (file {path}): a value of the wrong kind."),
        &format!("witness = \"all\" (file {path}): not a witness. Write auto, log or stream."),
        "journal_bytes = \"many\" (flag --journal-bytes): not a size.",
        "(environment, OPENCODE_RELAY_STAL_TIMEOUT): there is no such setting. Did you mean OPENCODE_RELAY_STALL_TIMEOUT?",
        "log = \"journald:\" (environment, OPENCODE_RELAY_LOG): `journald:` needs the name of one systemd unit",
        "upstream: neither a running opencode nor a command",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn contradictions_are_reported() {
    for (command, flags, expected) in [
        (
            "x serve",
            &[("upstream", "http://h:1")][..],
            "upstream = \"http://h:1\" (flag --upstream): a command behind `--`",
        ),
        ("x serve", &[("log", "stdin")], "log = \"stdin\" (flag --log): the log of a command that the relay starts"),
        ("x serve", &[("log", "none"), ("witness", "log")], "log = \"none\" (flag --log): the witness is the log"),
        (
            "",
            &[("upstream", "http://h:1"), ("log", "none"), ("witness", "log")],
            "log = \"none\" (flag --log): the witness is the log",
        ),
        ("", &[("upstream", "http://h:1"), ("witness", "log")], "log: the witness is the log, and no log was given"),
        ("", &[("upstream", "http://h")], "upstream = \"http://h\" (flag --upstream): it has no port"),
        ("x serve", &[("username", "a:b")], "username = \"a:b\" (flag --username): empty, or with a colon in it"),
        (
            "x serve",
            &[("journal", "sqlite")],
            "journal = \"sqlite\" (flag --journal): not a place for the journal. Write disk or memory",
        ),
    ] {
        let text = mistakes(&input(command, flags, &[]));
        assert!(text.starts_with("one setting is wrong:") && text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let mut twice = input("x serve", &[], &[]);
    twice.flags.push(("listen", vec!["[::1]:1".to_owned(), "[::1]:1".to_owned()]));
    assert!(mistakes(&twice).contains("listen = \"http://[::1]:1\" (flag --listen): it is there twice"));
}

#[test]
fn knows_which_log_to_read() {
    let bus_log = |flags: &[(&'static str, &str)]| match load(&input("x serve", flags, &[])).unwrap().shape {
        Shape::Parent { bus_log, .. } => bus_log,
        Shape::Beside { .. } => panic!("not beside"),
    };
    assert!(bus_log(&[]));
    assert!(bus_log(&[("witness", "log")]));
    assert!(!bus_log(&[("witness", "stream")]));
    assert!(!bus_log(&[("log", "none")]));

    let beside = |flags: &[(&'static str, &str)]| {
        let mut input = input("", flags, &[]);
        input.flags.push(("upstream", vec!["http://h:1".to_owned()]));
        let config = load(&input).unwrap();
        (config.log, config.warnings.len())
    };
    assert_eq!(beside(&[]), (Source::None, 1));
    assert_eq!(beside(&[("log", "none")]), (Source::None, 0));
    assert_eq!(beside(&[("log", "stdin")]), (Source::Stdin, 0));
    assert_eq!(beside(&[("witness", "stream")]), (Source::None, 0));
    assert_eq!(beside(&[("witness", "stream"), ("log", "stdin")]), (Source::None, 1));
    assert_eq!(beside(&[("witness", "log"), ("log", "dir:/x")]), (Source::Directory("/x".into()), 0));
}

#[test]
fn finds_a_folder_for_the_journal() {
    let journal = |flags: &[(&'static str, &str)], environment: &[(&str, &str)]| {
        load(&input("x serve", flags, environment)).unwrap().journal
    };
    let disk = |path: &str| Journal::Disk { state_dir: path.into() };
    assert_eq!(journal(&[], &[]), disk("/home/me/.local/state/opencode-relay"));
    let xdg = ("XDG_STATE_HOME", "/x");
    assert_eq!(journal(&[], &[xdg]), disk("/x/opencode-relay"));
    assert_eq!(journal(&[], &[("XDG_STATE_HOME", "not/absolute")]), disk("/home/me/.local/state/opencode-relay"));
    assert_eq!(journal(&[], &[xdg, ("STATE_DIRECTORY", "/s/one:/s/two")]), disk("/s/one"));
    assert_eq!(journal(&[], &[xdg, ("OPENCODE_RELAY_STATE_DIR", "/e")]), disk("/e"));
    assert_eq!(journal(&[("state_dir", "/f")], &[("OPENCODE_RELAY_STATE_DIR", "/e")]), disk("/f"));
    assert_eq!(journal(&[("journal", "memory"), ("state_dir", "/f")], &[]), Journal::Memory);
    let nowhere = |flags: &[(&'static str, &str)]| load(&input("x serve", flags, &[("HOME", "")]));
    let text = nowhere(&[]).unwrap_err().to_string();
    assert!(text.contains("state_dir: nothing says where") && text.contains("--journal memory"), "{text}");
    assert_eq!(nowhere(&[("journal", "memory")]).unwrap().journal, Journal::Memory);
}

#[test]
fn finds_the_credentials_and_never_shows_them() {
    let credentials = |flags: &[(&'static str, &str)], environment: &[(&str, &str)]| {
        load(&input("x serve", flags, environment)).unwrap().credentials
    };
    let variable = ("OPENCODE_SERVER_PASSWORD", "from-variable");
    assert_eq!(credentials(&[], &[]), None);
    assert_eq!(credentials(&[], &[("OPENCODE_SERVER_PASSWORD", "")]), None);
    let found = credentials(&[], &[variable]).unwrap();
    assert_eq!((found.username.as_str(), found.password.reveal()), ("opencode", "from-variable"));
    assert!(!format!("{found:?}").contains("from-variable"), "{found:?}");
    let found = credentials(&[], &[variable, ("OPENCODE_SERVER_USERNAME", "me")]).unwrap();
    assert_eq!(found.username, "me");

    let file = file("from-file\nsecond line\n");
    let path = file.path().to_str().unwrap();
    let found = credentials(&[("password_file", path), ("username", "you")], &[variable]).unwrap();
    assert_eq!((found.username.as_str(), found.password.reveal()), ("you", "from-file"));
}

#[test]
fn a_bad_password_file_is_a_mistake_that_does_not_show_it() {
    let empty = file("\nsecret\n");
    let path = empty.path().to_str().unwrap();
    let text = mistakes(&input("x serve", &[("password_file", path)], &[]));
    assert!(text.contains("its first line is empty") && !text.contains("secret"), "{text}");
    let text = mistakes(&input("x serve", &[("password_file", "/nowhere/at all")], &[]));
    assert!(text.contains("it cannot be read"), "{text}");
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let broken = file("# one\ngrace = \"1s\"\nx y\n");
    let mut input = input("x serve", &[], &[]);
    input.file = Some(broken.path().to_owned());
    assert!(mistakes(&input).contains("line 3 is not TOML"), "{}", mistakes(&input));
    input.file = Some("/nowhere/relay.toml".into());
    assert!(mistakes(&input).contains("config (file /nowhere/relay.toml): the file cannot be read"));
}
