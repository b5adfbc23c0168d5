//! One client that gets all that comes in, for long enough to see whether it goes on as it began.

use std::io;

use crate::arguments::Arguments;
use crate::clock::{nanoseconds, now};
use crate::connection::Url;
use crate::cost::{Held, Meter, Spent};
use crate::figures::Figures;
use crate::reader::Reader;

/// Into how many windows of one length the time is cut.
const WINDOWS: u32 = 10;

/// How things stood at the end of a window.
struct Mark {
    at: u64,
    count: u32,
    spent: Spent,
    held: Held,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let url: Url = arguments.first()?;
    let origin: Url = arguments.get("origin")?;
    let window = nanoseconds(arguments.seconds()? / WINDOWS);
    let meter = Meter::new(arguments.find("cost")?);

    let mut reader = Reader::connect(&url, "")?;
    reader.first_id()?;
    // More than can come.
    origin.post(&format!("/emit?events={}&rate=0", u32::MAX))?;
    let mark = |count| io::Result::Ok(Mark { at: now(), count, spent: meter.spent()?, held: meter.held()? });
    let begin = mark(reader.read()?)?;
    let mut marks = Vec::new();
    let mut silence = 0;
    for number in 1..=u64::from(WINDOWS) {
        let mut at = now();
        let count = loop {
            let count = reader.read()?;
            let last = std::mem::replace(&mut at, now());
            silence = silence.max(at - last);
            if at >= begin.at + number * window {
                break count;
            }
        };
        marks.push(mark(count)?);
    }

    let before = std::iter::once(&begin).chain(&marks);
    let rate = |(from, to): (&Mark, &Mark)| f64::from(to.count - from.count) / ((to.at - from.at) as f64 / 1e9);
    let mut rates: Vec<f64> = before.zip(&marks).map(rate).collect();
    rates.sort_by(f64::total_cmp);
    let end = &marks[marks.len() - 1];
    let mut figures = Figures::default();
    figures.add("seconds", (end.at - begin.at) as f64 / 1e9);
    figures.add("slowest_events_per_s", rates[0]);
    figures.add("events_per_s", rates[rates.len() / 2]);
    figures
        .add("cpu_us_per_event", end.spent.since(&begin.spent).cpu as f64 / 1e3 / f64::from(end.count - begin.count));
    figures.add("silence_ms", silence as f64 / 1e6);
    figures.add("most_rss_bytes", marks.iter().map(|mark| mark.held.resident).max().unwrap_or_default() as f64);
    end.held.tell("full", &mut figures);
    figures.print();
    Ok(())
}
