//! One client that comes back for everything in the journal.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::clock::now;
use crate::connection::Url;
use crate::cost::Meter;
use crate::events::{Arrived, Finding, REST, Rest};
use crate::figures::Figures;
use crate::streams::ACCEPT;

/// How often the client comes back; the median is told.
const TIMES: usize = 5;

/// What is read at once.
const BUFFER: usize = 256 << 10;

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(10);

/// The journal is synced every second; this long it is left alone before it is read.
const SETTLE: Duration = Duration::from_millis(1_500);

struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    rest: Rest,
    finding: Finding,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let url: Url = arguments.first()?;
    let origin: Url = arguments.get("origin")?;
    let events: u32 = arguments.get("events")?;
    let meter = Meter::new(arguments.find("cost")?);
    let mut figures = Figures::default();

    let mut client = Client::connect(&url, "")?;
    let id = client.first_id()?;
    meter.held()?.tell("empty", &mut figures);
    let (began, before) = (now(), meter.spent()?);
    origin.post(&format!("/emit?events={events}&rate=0"))?;
    client.count(events)?;
    let (took, spent) = (now() - began, meter.spent()?.since(&before).cpu);
    figures.add("live_events_per_s", f64::from(events) / (took as f64 / 1e9));
    figures.add("live_cpu_us_per_event", spent as f64 / 1e3 / f64::from(events));
    drop(client);
    sleep(SETTLE);
    meter.held()?.tell("full", &mut figures);

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (began, before) = (now(), meter.spent()?);
        Client::connect(&url, &format!("last-event-id: {id}\r\n"))?.count(events)?;
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

impl Client {
    fn connect(url: &Url, more: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect(url.address)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.write_all(&url.get(&format!("{ACCEPT}{more}")))?;
        Ok(Self { socket, buffer: vec![0; REST + BUFFER], rest: Rest::default(), finding: Finding::new() })
    }

    /// The position that the greeting tells.
    fn first_id(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let length = self.socket.read(&mut self.buffer)?;
            text.push_str(&String::from_utf8_lossy(&self.buffer[..length]));
            let id = text.split_once("\nid: ").and_then(|(_, rest)| rest.split_once('\n'));
            match id {
                Some((id, _)) => return Ok(id.to_owned()),
                None if length == 0 => return Err(io::Error::other(format!("a stream without an id: {text}"))),
                None => {}
            }
        }
    }

    /// Reads until it has so many events, each in its place.
    fn count(&mut self, events: u32) -> io::Result<()> {
        let mut next = 0;
        while next < events {
            let kept = self.rest.bytes().len();
            let length = self.socket.read(&mut self.buffer[REST..])?;
            self.buffer[REST - kept..REST].copy_from_slice(self.rest.bytes());
            let mut wrong = (length == 0).then_some(next);
            self.rest = self.finding.find(&self.buffer[REST - kept..REST + length], |Arrived { number, .. }| {
                if number != next {
                    wrong = Some(next);
                }
                next += 1;
            });
            if let Some(number) = wrong {
                return Err(io::Error::other(format!("event {number} did not come in its place")));
            }
        }
        Ok(())
    }
}
