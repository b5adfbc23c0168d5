//! A process that nobody asks anything: what it does and holds, and how long it takes to be there.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::arguments::{Arguments, mistake};
use crate::clock::{nanoseconds, now};
use crate::cost::Processes;
use crate::figures::Figures;

/// How often it is asked whether somebody listens: far less than what is measured.
const TRY: Duration = Duration::from_micros(100);

/// How long a start may take.
const START: Duration = Duration::from_secs(10);

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let time = arguments.seconds()?;
    let processes = Processes::of(arguments.first()?);
    let before = processes.spent()?;
    sleep(time);
    let cost = processes.spent()?.since(&before);
    let mut figures = Figures::default();
    figures.add("cpu_us_per_s", cost.cpu as f64 / 1e3 / time.as_secs_f64());
    figures.add("switches_per_s", cost.switches as f64 / time.as_secs_f64());
    processes.held()?.tell("idle", &mut figures);
    figures.print();
    Ok(())
}

pub(crate) fn start(mut words: impl Iterator<Item = String>) -> io::Result<()> {
    let address: Option<SocketAddr> = words.next().and_then(|word| word.parse().ok());
    let (Some(address), Some("--"), Some(program)) = (address, words.next().as_deref(), words.next()) else {
        return Err(mistake("an address, -- and a command are needed"));
    };
    let began = now();
    let mut child = Command::new(program).args(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut listens = false;
    while !listens && now() - began < nanoseconds(START) {
        listens = TcpStream::connect(address).is_ok();
        if !listens {
            sleep(TRY);
        }
    }
    let took = now() - began;
    child.kill()?;
    child.wait()?;
    if !listens {
        return Err(io::Error::other(format!("nobody listens at {address} after {START:?}")));
    }
    let mut figures = Figures::default();
    figures.add("start_ms", took as f64 / 1e6);
    figures.print();
    Ok(())
}
