//! Load for the relay and its rivals, and what it costs them: `benches/side-by-side` runs this.
//!
//! One thread and one epoll per command, so that the tool takes little of what it measures; only the bare servers, which
//! are measured themselves, can have more. Each command that is no server ends by itself and prints one line of JSON:
//! figures by name, with their unit in the name.

mod arguments;
mod bare;
mod catch_up;
mod clock;
mod connection;
mod cost;
mod events;
mod figures;
mod histogram;
mod idle;
mod notices;
mod origin;
mod outbox;
mod poll;
mod reader;
mod rest;
mod streams;
mod sustained;

use std::io;
use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
load origin [--publish URL] [--log FILE]
    An opencode that has nothing, for the relay, and an upstream for proxies: GET /bytes/N answers N bytes.
    POST /emit?events=N&rate=R&sessions=S sends N events to every GET /global/event, R a second (0: as fast as they
    are taken), and posts the same events to URL. POST /announce writes a line to FILE, and is answered when the state
    is asked for, with the nanoseconds in between. Prints where it listens; ends with its standard input.
load bare-events URL --threads N
    A server that writes what it reads from an event stream to every client, and nothing else.
load bare-proxy URL --threads N
    A server that copies bytes between clients and the upstream, and nothing else.
load bare-hyper URL --threads N
    The same by hyper's server and client. All three say where they listen and end like the origin.
load streams URL --clients N --seconds T [--origin URL --rate R [--sessions S]] [--cost PID]
    N clients on an event stream; events are ordered from the origin.
load rest URL --connections N --seconds T [--rate R] [--cost PID]
    Requests one after the other on each connection, or R a second over all of them.
load catch-up URL --origin URL --events N [--cost PID]
    Has N events journaled, then one client comes back for all of them.
load sustained URL --origin URL --seconds T [--cost PID]
    One client that gets all that comes in, as fast as it is taken.
load notices ORIGIN --lines N
    How long a relay needs from a line in the origin's log to its question.
load idle PID --seconds T
    What a process does and holds while nobody asks anything of it.
load start ADDRESS -- COMMAND…
    How long a command takes until it accepts connections; it is killed then.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    match run(&command, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            eprintln!("load: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("load {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, words: impl Iterator<Item = String>) -> io::Result<()> {
    if command == "start" {
        return idle::start(words);
    }
    let arguments = Arguments::read(words)?;
    match command {
        "origin" => origin::run(&arguments),
        "bare-events" => bare::run::<bare::Events>(&arguments),
        "bare-hyper" => bare::hyper::run(&arguments),
        "bare-proxy" => bare::run::<bare::Proxy>(&arguments),
        "streams" => streams::run(&arguments),
        "rest" => rest::run(&arguments),
        "catch-up" => catch_up::run(&arguments),
        "sustained" => sustained::run(&arguments),
        "idle" => idle::run(&arguments),
        "notices" => notices::run(&arguments),
        _ => Err(arguments::mistake(format!("there is no command {command:?}"))),
    }
}
