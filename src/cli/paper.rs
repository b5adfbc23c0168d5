//! `completions` and `man`: what a package installs beside the program.

use std::io::{self, Write};

use clap::CommandFactory as _;
use clap_complete::Shell;
use roff::{Inline, Roff, bold, italic, roman};

use crate::cli::Cli;

const NAME: &str = "opencode-relay";

/// What can be written behind `completions`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "`--help` shows examples.",
    after_long_help = "\
EXAMPLES
  opencode-relay completions bash >~/.local/share/bash-completion/completions/opencode-relay
  opencode-relay completions zsh >\"${fpath[1]}/_opencode-relay\"
  opencode-relay completions fish >~/.config/fish/completions/opencode-relay.fish"
)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Writes the completions of a shell to standard output.
///
/// # Errors
///
/// When it takes nothing more. A reader that goes away is a good end.
pub fn completions(wanted: &Completions) -> io::Result<()> {
    print(completion(wanted.shell).as_bytes())
}

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut public(), NAME, &mut text);
    // clap_complete 4.6 takes the dash in the name for one between two commands, in one of the two places where it writes
    // the names of bash's states; so none of ours would be found.
    String::from_utf8_lossy(&text).replace("opencode__subcmd__relay", "opencode__relay")
}

/// Writes the manual page to standard output.
///
/// # Errors
///
/// As [`completions`].
pub fn man() -> io::Result<()> {
    print(ascii(&page().render()).as_bytes())
}

/// The page with every other letter as roff spells it: not every reader of pages knows an encoding.
fn ascii(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for letter in page.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            text.push_str(&format!("\\[u{:04X}]", u32::from(letter)));
        }
    }
    text
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The command line without what is not meant for people.
fn public() -> clap::Command {
    let all = Cli::command();
    let mut command = clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    let texts = (all.get_about(), all.get_long_about(), all.get_after_help());
    command = command.about(texts.0.cloned().unwrap_or_default());
    command = command.long_about(texts.1.cloned().unwrap_or_default());
    command.after_help(texts.2.cloned().unwrap_or_default())
}

/// One page with all commands: who looks for an option searches one place.
fn page() -> Roff {
    let mut command = public();
    command.build();
    let version = format!("opencode-relay {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    // No date: the page of a release is the same whenever it is made.
    page.control("TH", ["OPENCODE-RELAY", "1", "\"\"", &version]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("opencode-relay - {}", command.get_about().cloned().unwrap_or_default()))]);
    page.control("SH", ["SYNOPSIS"]);
    let commands = || command.get_subcommands().filter(|one| one.get_name() != "help");
    for (at, one) in commands().enumerate() {
        if at > 0 {
            page.control("br", []);
        }
        synopsis(&mut page, one);
    }
    page.control("SH", ["DESCRIPTION"]);
    let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    paragraphs(&mut page, about.split_once("\n\n").map_or(&*about, |(_, rest)| rest));
    page.control("SH", ["COMMANDS"]);
    for one in commands() {
        page.control("SS", [&*format!("opencode-relay {}", one.get_name())]);
        section(&mut page, one);
    }
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "A good end."),
        ("1", "It failed; standard error says at what, and what to do."),
        ("2", "Wrong usage or settings."),
    ] {
        page.control("TP", ["4"]);
        page.text([bold(code)]);
        page.text([roman(meaning)]);
    }
    page.control("PP", []);
    page.text([bold("run"), roman(" hands on the code of the command it started.")]);
    page.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in [
        ("OPENCODE_SERVER_PASSWORD", "The password of opencode, and so of the relay."),
        ("OPENCODE_SERVER_USERNAME", "The user of that password; opencode if it is not set."),
        ("OPENCODE_RELAY_…", "The settings of run, each named beside its option."),
        ("SSL_CERT_FILE", "The certificates that are trusted when a command asks an https:// address, in PEM."),
        ("NO_COLOR", "No colours in the output of tail and in the log."),
    ] {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text([roman(meaning)]);
    }
    page
}

fn synopsis(page: &mut Roff, command: &clap::Command) {
    let mut line = vec![bold(format!("opencode-relay {}", command.get_name()))];
    if command.get_opts().next().is_some() {
        line.extend([roman(" ["), italic("OPTIONS"), roman("]")]);
    }
    for argument in command.get_positionals() {
        let (open, close) = if argument.is_required_set() { (" ", "") } else { (" [", "]") };
        let dashes = if argument.is_last_set() { "-- " } else { "" };
        line.extend([roman(format!("{open}{dashes}")), italic(value(argument)), roman(close)]);
    }
    page.text(line);
}

fn section(page: &mut Roff, command: &clap::Command) {
    let about = command.get_long_about().or(command.get_about());
    paragraphs(page, &about.map(ToString::to_string).unwrap_or_default());
    let is_ours = |argument: &&clap::Arg| !argument.is_hide_set() && argument.get_id() != "help";
    for argument in command.get_arguments().filter(is_ours) {
        page.control("TP", []);
        page.text(term(argument));
        let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut help: Vec<String> = help.split("\n\n").map(joined).filter(|text| !text.is_empty()).collect();
        help.extend(possible(argument));
        for (at, text) in help.iter().enumerate() {
            if at > 0 {
                page.control("br", []);
            }
            page.text([roman(text)]);
        }
    }
    if let Some(after) = command.get_after_long_help() {
        rest(page, &after.to_string());
    }
}

/// An option as it is written.
fn term(argument: &clap::Arg) -> Vec<Inline> {
    if argument.is_positional() {
        return vec![italic(value(argument))];
    }
    let mut names = Vec::new();
    if let Some(short) = argument.get_short() {
        names.push(format!("-{short}"));
    }
    names.extend(argument.get_long().map(|long| format!("--{long}")));
    let mut term = vec![bold(names.join(", "))];
    if argument.get_action().takes_values() {
        let optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
        let (open, close) = if optional { ("[=", "]") } else { (" ", "") };
        term.extend([roman(open), italic(value(argument)), roman(close)]);
    }
    term
}

fn value(argument: &clap::Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string)
}

/// The default and the words that can be written, which clap adds to its own help as well.
fn possible(argument: &clap::Arg) -> Option<String> {
    if !argument.get_action().takes_values() {
        return None;
    }
    let values = argument.get_possible_values();
    let words: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
    let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let one_of = (!words.is_empty()).then(|| format!("[possible values: {}]", words.join(", ")));
    let default = default.map(|default| format!("[default: {default}]"));
    let said: Vec<String> = one_of.into_iter().chain(default).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

fn paragraphs(page: &mut Roff, text: &str) {
    for (at, paragraph) in text.split("\n\n").map(joined).filter(|text| !text.is_empty()).enumerate() {
        if at > 0 {
            page.control("PP", []);
        }
        page.text([roman(paragraph)]);
    }
}

/// What stands behind the options: headings in capitals, examples whose lines stay as they are, and prose.
fn rest(page: &mut Roff, text: &str) {
    let mut is_example = false;
    for block in text.trim_end().split("\n\n") {
        let (heading, body) = match block.split_once('\n') {
            Some((first, body)) if is_heading(first) => (Some(first), body),
            _ => (None, block),
        };
        page.control("PP", []);
        if let Some(heading) = heading {
            is_example = heading.starts_with("EXAMPLES");
            page.text([bold(heading)]);
        }
        page.control("RS", ["2"]);
        if is_example && body.starts_with(' ') {
            page.control("nf", []);
            for line in body.lines() {
                page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            page.control("fi", []);
        } else {
            page.text([roman(joined(body))]);
        }
        page.control("RE", []);
    }
}

fn is_heading(line: &str) -> bool {
    let word = line.split([' ', ',']).next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// The commands and flags that people may know.
    fn words() -> Vec<String> {
        let mut words = Vec::new();
        for command in public().get_subcommands() {
            words.push(command.get_name().to_owned());
            words.extend(
                command.get_arguments().filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")),
            );
        }
        assert!(words.len() > 40 && words.contains(&"--watch-state".to_owned()), "{words:?}");
        words
    }

    #[test]
    fn the_page_has_everything_but_the_guardian() {
        let page = ascii(&page().render());
        for word in words() {
            let word = word.replace('-', "\\-");
            assert!(page.contains(&word), "{word}");
        }
        assert!(!page.contains("guard") && page.is_ascii());
        assert!(page.contains("\n.SH \"EXIT STATUS\"\n") && page.contains("\\[u2026]"));
    }

    #[test]
    fn completions_have_everything_but_the_guardian() {
        for shell in Shell::value_variants() {
            let text = completion(*shell);
            for word in words() {
                // fish has the dashes apart.
                assert!(text.contains(word.trim_start_matches('-')), "{shell}: {word}");
            }
            assert!(!text.contains("guard"), "{shell}");
        }
    }

    #[test]
    fn prose_and_examples_are_told_apart() {
        let mut page = Roff::new();
        rest(
            &mut page,
            "EXAMPLES\n  Say a:\n      a --b\n\n  c\n\nOUTPUT, each line\n  Prose\n  goes on.\n\nAt the end.\n",
        );
        let text = page.render();
        for expected in [
            ".nf\nSay a:\n    a \\-\\-b\n.fi",
            "\\fBOUTPUT, each line",
            ".RS 2\nProse goes on.\n.RE",
            "\nAt the end.\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
