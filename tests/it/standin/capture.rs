//! Captured runs of real releases (tests/fixtures/captures), moved to the present.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Types that opencode publishes without a line in its log.
const UNLOGGED: [&str; 6] =
    ["sync", "server.connected", "server.heartbeat", "project.updated", "server.instance.disposed", "global.disposed"];

/// The data of each frame of a run, in order, without the greeting and heartbeats. Times are moved so that the run
/// begins now: what is older than a relay is no news to it.
pub(crate) fn frames(version: &str, scenario: &str) -> Vec<String> {
    let (lines, first) = read(version, scenario, "global-event");
    let data = lines.into_iter().map(|line| shift(&line, first)).collect::<Vec<_>>();
    data.into_iter().filter(|data| !matches!(kind(data).as_str(), "server.connected" | "server.heartbeat")).collect()
}

/// What `/api/event` carried in the same run, without its greeting; times as captured.
pub(crate) fn api_frames(version: &str, scenario: &str) -> Vec<Value> {
    let (lines, _) = read(version, scenario, "api-event");
    let frames = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    frames.filter(|frame| !matches!(frame["type"].as_str(), Some("server.connected" | "server.heartbeat"))).collect()
}

/// The frames as they were captured, times included.
pub(crate) fn original_frames(version: &str, scenario: &str) -> Vec<String> {
    let (lines, _) = read(version, scenario, "global-event");
    lines.into_iter().filter(|data| !matches!(kind(data).as_str(), "server.connected" | "server.heartbeat")).collect()
}

/// The data of the frames in a file, and the first time.
fn read(version: &str, scenario: &str, file: &str) -> (Vec<String>, u64) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    let path = folder.join(version).join(scenario).join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = entries[0]["t_ms"].as_f64().unwrap();
    let lines = entries.iter().filter_map(|entry| entry["line"].as_str()?.strip_prefix("data: "));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in milliseconds")]
    (lines.map(str::to_owned).collect(), first as u64)
}

/// Moves every time of the run: 13 digits that begin as the run's first time does.
fn shift(text: &str, first: u64) -> String {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let prefix = &first.to_string()[..6];
    let mut moved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
        let alone = !rest[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric());
        moved.push_str(&rest[..at]);
        let number = &rest[at..at + digits];
        match number.parse::<u64>() {
            Ok(time) if digits == 13 && alone => moved.push_str(&(time + now - first).to_string()),
            _ => moved.push_str(number),
        }
        rest = &rest[at + digits..];
    }
    moved + rest
}

/// The type of an event, from its frame's data.
pub(crate) fn kind(data: &str) -> String {
    let value: Value = serde_json::from_str(data).unwrap();
    value["payload"]["type"].as_str().unwrap().to_owned()
}

/// The payload of a frame, byte for byte.
pub(crate) fn payload(data: &str) -> &str {
    #[derive(serde::Deserialize)]
    struct Global<'a> {
        #[serde(borrow)]
        payload: &'a serde_json::value::RawValue,
    }
    serde_json::from_str::<Global<'_>>(data).unwrap().payload.get()
}

/// The line that opencode writes before it publishes this event, if it writes one.
pub(crate) fn log_line(data: &str) -> Option<String> {
    let kind = kind(data);
    (!UNLOGGED.contains(&kind.as_str())).then(|| bus_line(&kind))
}

/// The line behind a turn's first status that names its session, as opencode writes it.
pub(crate) fn hint_line(data: &str) -> Option<String> {
    let value: Value = serde_json::from_str(data).unwrap();
    let properties = &value["payload"]["properties"];
    let session = properties["sessionID"].as_str()?;
    (properties["status"]["type"] == "busy")
        .then(|| format!("INFO  2026-11-23T00:39:15 +5ms service=session.prompt session.id={session} step=0 loop\n"))
}

/// A line of the bus log.
pub(crate) fn bus_line(kind: &str) -> String {
    format!("INFO  2026-11-23T00:39:15 +3ms service=bus type={kind} publishing\n")
}

/// A frame on the wire.
pub(crate) fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}
