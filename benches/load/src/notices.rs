//! How soon a line in the bus log leads to a question.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::connection::Url;
use crate::figures::Figures;
use crate::histogram::Histogram;

/// Between two lines: by then the relay has asked again, as it does once things are quiet, and rests.
const PAUSE: Duration = Duration::from_secs(3);

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let origin: Url = arguments.first()?;
    let count: u32 = arguments.get("lines")?;
    let mut times = Histogram::new();
    for _ in 0..count {
        sleep(PAUSE);
        let took = origin.post("/announce")?;
        times.add(took.parse().map_err(|_| io::Error::other(format!("{took:?} is no time")))?, 1);
    }
    let mut figures = Figures::default();
    times.tell("read_begun", &mut figures);
    figures.print();
    Ok(())
}
