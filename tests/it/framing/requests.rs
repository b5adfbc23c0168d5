//! Every vector through the relay, with a canary behind it that must arrive exactly when the connection may go on.

use std::collections::BTreeMap;

use super::corpus::{Fate, Meant, Vector, all};
use super::reader::Message;
use super::recorder::{Arrived, Got, Recorder, SILENCE, patient, talk};
use crate::proxy::fixture::Relay;
use crate::upstream::LIMIT;

const CANARY: &str = "GET /canary HTTP/1.1\r\nhost: relay\r\n\r\n";

#[tokio::test]
async fn no_request_has_two_readings() {
    let recorder = Recorder::start().await;
    let relay = recorder.relay().await;
    let (mut faults, mut totals) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for vector in all() {
        let bytes = [&vector.bytes, CANARY.as_bytes()].concat();
        let silence = if matches!(vector.fate, Fate::Unfinished) { SILENCE } else { LIMIT };
        let has_canary = |got: &Got| got.served().last() == Some(&"GET /canary");
        let got = talk(&relay, &bytes, has_canary, |_| silence).await;
        let arrived = fenced(&relay, &recorder).await;
        *totals.entry(total(&vector.fate)).or_default() += 1;
        if let Err(fault) = judge(&vector, &got, &arrived) {
            faults.push(format!(
                "§{} {}: {fault}\n  sent {:?}\n  answered {:?}{}, opencode got {arrived:?}",
                vector.section,
                vector.name,
                start_of(&vector.bytes),
                got.answers.iter().map(|answer| answer.start[1].as_str()).collect::<Vec<_>>(),
                if got.closed { ", closed" } else { "" },
            ));
        }
    }
    println!("requests tried: {}; {totals:?}", totals.values().sum::<usize>());
    assert!(faults.is_empty(), "{} vectors went wrong:\n{}", faults.len(), faults.join("\n"));
}

fn total(fate: &Fate) -> &'static str {
    match fate {
        Fate::Refused(_) => "refused by the head",
        Fate::Broken => "refused in the body or for its end",
        Fate::Answered(_) => "answered by the relay itself",
        Fate::Passed(_) | Fate::Last(_) => "forwarded unambiguously",
        Fate::Unfinished => "waited for, then cut",
    }
}

/// What arrived, after a request that came later has been answered.
async fn fenced(relay: &Relay, recorder: &Recorder) -> Vec<Arrived> {
    let fence = b"GET /fence HTTP/1.1\r\nhost: relay\r\n\r\n";
    let got = talk(relay, fence, |got| !got.answers.is_empty(), patient).await;
    assert_eq!(got.served(), ["GET /fence"], "the relay answers on");
    let mut arrived = recorder.take();
    arrived.retain(|one| !matches!(one, Arrived::Message(message) if message.first_words() == "GET /fence"));
    arrived
}

fn judge(vector: &Vector, got: &Got, arrived: &[Arrived]) -> Result<(), String> {
    let mut messages = Vec::new();
    for one in arrived {
        match one {
            Arrived::Message(message) => messages.push(message),
            Arrived::Wrong(what) => return Err(format!("opencode got no message: {what}")),
            Arrived::Cut => {}
        }
    }
    if let Some(what) = &got.wrong {
        return Err(format!("the client got no answer: {what}"));
    }
    let (served, refusals) = (got.served(), got.refusals());
    let came: Vec<String> = messages.iter().map(|message| message.first_words()).collect();
    if came.len() != served.len() {
        return Err(format!("opencode got {came:?}, and answers to {served:?} were handed back"));
    }
    let good = match &vector.fate {
        Fate::Refused(status) => came.is_empty() && refusals == [status.to_string()] && got.closed,
        Fate::Answered(status) => {
            let own = status.to_string();
            let goes_on = came == ["GET /canary"] && !got.closed;
            let ends = came.is_empty() && got.closed;
            (refusals == [own.as_str()] || refusals == [own.as_str(), "400"]) && (goes_on || ends)
        }
        Fate::Broken => {
            came.is_empty() && (refusals.is_empty() || refusals == ["400"] || refusals == ["431"]) && got.closed
        }
        Fate::Unfinished => came.is_empty() && refusals.is_empty() && !got.closed,
        Fate::Passed(meant) => {
            is_meant(messages.first(), meant)?;
            let starts: Vec<&str> =
                [meant.start.as_str()].into_iter().chain(meant.next).chain(["GET /canary"]).collect();
            came == starts && refusals.is_empty() && !got.closed
        }
        Fate::Last(meant) => {
            is_meant(messages.first(), meant)?;
            came.len() == 1 && (refusals.is_empty() || refusals == ["400"]) && got.closed
        }
    };
    if good && got.rest.is_empty() { Ok(()) } else { Err("another fate than meant".to_owned()) }
}

fn is_meant(message: Option<&&Message>, meant: &Meant) -> Result<(), String> {
    let Some(message) = message else { return Err("nothing arrived".to_owned()) };
    let is_other = message.first_words() != meant.start || message.body != meant.body;
    if is_other || message.get("x-hop").is_some() || message.trailers.iter().any(|(name, _)| name != "x-t") {
        return Err("opencode got another message".to_owned());
    }
    for (name, value) in &meant.fields {
        if message.get(name) != Some(value) {
            return Err(format!("opencode got another {name}"));
        }
    }
    Ok(())
}

fn start_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}
