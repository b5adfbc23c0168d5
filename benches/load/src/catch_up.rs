//! One client that comes back for everything in the journal.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::clock::now;
use crate::connection::Url;
use crate::cost::Meter;
use crate::figures::Figures;
use crate::reader::Reader;

/// How often the client comes back; the median is told.
const TIMES: usize = 5;

/// The journal is synced every second; this long it is left alone before it is read.
const SETTLE: Duration = Duration::from_millis(1_500);

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let url: Url = arguments.first()?;
    let origin: Url = arguments.get("origin")?;
    let events: u32 = arguments.get("events")?;
    let meter = Meter::new(arguments.find("cost")?);
    let mut figures = Figures::default();

    let mut reader = Reader::connect(&url, "")?;
    let id = reader.first_id()?;
    meter.held()?.tell("empty", &mut figures);
    let (began, before) = (now(), meter.spent()?);
    origin.post(&format!("/emit?events={events}&rate=0"))?;
    reader.read_until(events)?;
    let (took, spent) = (now() - began, meter.spent()?.since(&before).cpu);
    figures.add("live_events_per_s", f64::from(events) / (took as f64 / 1e9));
    figures.add("live_cpu_us_per_event", spent as f64 / 1e3 / f64::from(events));
    drop(reader);
    sleep(SETTLE);
    meter.held()?.tell("full", &mut figures);

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (began, before) = (now(), meter.spent()?);
        Reader::connect(&url, &format!("last-event-id: {id}\r\n"))?.read_until(events)?;
        let (took, spent) = (now() - began, meter.spent()?.since(&before).cpu);
        rates.push(f64::from(events) / (took as f64 / 1e9));
        costs.push(spent as f64 / 1e3 / f64::from(events));
    }
    figures.add("events_per_s", median(rates));
    figures.add("cpu_us_per_event", median(costs));
    figures.print();
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
