//! Every hostile answer through the relay, and after each the answers of other clients, which must be their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use opencode_relay::proxy::Target;
use opencode_relay::stop::{Stop, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::hostile::{Fate, Hostile, POISON, all};
use super::recorder::{Got, SILENCE, patient, talk};
use crate::proxy::fixture::{Relay, Settings};
use crate::upstream::LIMIT;

#[tokio::test]
async fn no_answer_has_two_readings_and_each_reaches_its_own_client() {
    let opencode = Opencode::start(all()).await;
    let relay = Relay::start(Target::Up(opencode.address.into()), Settings::default()).await;
    let (mut faults, mut totals) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for (number, vector) in opencode.vectors.iter().enumerate() {
        let asked = format!("{} /hostile/{number} HTTP/1.1\r\nhost: relay\r\n\r\n", vector.method);
        let silence = if matches!(vector.fate, Fate::Unfinished) { SILENCE } else { LIMIT };
        let is_whole = |got: &Got| got.wrong.is_some() || !got.answers.is_empty();
        let got = talk(&relay, asked.as_bytes(), is_whole, |_| silence).await;
        let others = others(&relay, number).await;
        match judge(vector, &got).and_then(|total| others.map(|()| total)) {
            Ok(total) => *totals.entry(total).or_default() += 1,
            Err(fault) => faults.push(format!(
                "§{} {}: {fault}\n  opencode sent {}\n  the client got {:?} and {} more{}",
                vector.section,
                vector.name,
                vector.bytes[..vector.bytes.len().min(200)].escape_ascii(),
                got.answers
                    .iter()
                    .map(|answer| (&answer.start[1], answer.body.escape_ascii().to_string()))
                    .collect::<Vec<_>>(),
                got.rest.len(),
                if got.closed { ", closed" } else { "" },
            )),
        }
    }
    println!("answers tried: {}; {totals:?}", opencode.vectors.len());
    assert!(faults.is_empty(), "{} vectors went wrong:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn nobody_gets_what_came_after_another_clients_answer() {
    let poisoned = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde{POISON}");
    let vector = Hostile {
        section: "11.1",
        name: String::new(),
        method: "GET",
        bytes: poisoned.into_bytes(),
        ends: false,
        fate: Fate::Whole(200, "abcde"),
    };
    let opencode = Opencode::start(vec![vector]).await;
    let relay = Relay::start(Target::Up(opencode.address.into()), Settings::default()).await;
    let attack = async {
        for _ in 0..200 {
            let got =
                talk(&relay, b"GET /hostile/0 HTTP/1.1\r\nhost: relay\r\n\r\n", |got| !got.answers.is_empty(), patient)
                    .await;
            assert_eq!(got.answers[0].body, b"abcde");
        }
    };
    let victims = async {
        for round in 0..200 {
            others(&relay, round).await.unwrap();
        }
    };
    tokio::join!(attack, victims);
}

fn judge(vector: &Hostile, got: &Got) -> Result<&'static str, String> {
    if let Some(what) = &got.wrong {
        return Err(format!("the client got no answer: {what}"));
    }
    let handed = |status: u16, body: &str| {
        let is_it = |answer: &super::reader::Message| {
            answer.start[1] == status.to_string() && answer.body == body.as_bytes() && answer.get("x-hop").is_none()
        };
        got.answers.len() == 1 && got.rest.is_empty() && is_it(&got.answers[0])
    };
    let refused = got.answers.len() == 1 && got.rest.is_empty() && got.answers[0].start[1] == "502";
    let total = match vector.fate {
        Fate::Whole(status, body) if handed(status, body) => "handed on unambiguously",
        Fate::Either(status, body) if handed(status, body) => "handed on unambiguously",
        Fate::Refused | Fate::Either(..) if refused => "refused with 502",
        Fate::Cut if got.answers.is_empty() && got.closed => "broken off",
        Fate::Unfinished if got.answers.is_empty() && got.rest.is_empty() && !got.closed => "waited for",
        _ => return Err(format!("not {:?}", vector.fate)),
    };
    Ok(total)
}

/// Two other clients, one after the other on connections that the relay may have kept.
async fn others(relay: &Relay, number: usize) -> Result<(), String> {
    for client in ["a", "b"] {
        let target = format!("/other/{number}/{client}");
        let asked = format!("GET {target} HTTP/1.1\r\nhost: relay\r\n\r\n");
        let got = talk(relay, asked.as_bytes(), |got| !got.answers.is_empty(), patient).await;
        let bodies: Vec<String> = got.answers.iter().map(|answer| answer.body.escape_ascii().to_string()).collect();
        if bodies != [target.as_str()] || !got.rest.is_empty() {
            return Err(format!("the client of {target} got {bodies:?} and {:?}", got.rest.escape_ascii().to_string()));
        }
    }
    Ok(())
}

/// Answers `/hostile/N` by the vector with that number, and everything else by its own target.
struct Opencode {
    address: SocketAddr,
    vectors: Arc<Vec<Hostile>>,
    stop: Stop,
}

impl Opencode {
    async fn start(vectors: Vec<Hostile>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let opencode = Self { address: listener.local_addr().unwrap(), vectors: Arc::new(vectors), stop: Stop::new() };
        let (vectors, stop, tasks) = (opencode.vectors.clone(), opencode.stop.clone(), Tasks::new());
        tasks.clone().spawn("hostile opencode", async move {
            while let Some(Ok((stream, _))) = stop.or(listener.accept()).await {
                let (vectors, stop) = (vectors.clone(), stop.clone());
                tasks.spawn("hostile connection", async move {
                    stop.or(answer(stream, &vectors)).await;
                });
            }
        });
        opencode
    }
}

impl Drop for Opencode {
    fn drop(&mut self) {
        self.stop.pull();
    }
}

async fn answer(mut stream: TcpStream, vectors: &[Hostile]) {
    let mut bytes = Vec::new();
    while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head: Vec<u8> = bytes.drain(..end + 4).collect();
        let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        let number = target.strip_prefix("/hostile/").and_then(|number| number.parse::<usize>().ok());
        let (answer, ends) = match number.and_then(|number| vectors.get(number)) {
            Some(vector) => (vector.bytes.clone(), vector.ends),
            None => {
                let length = target.len();
                let own =
                    format!("HTTP/1.1 200 OK\r\nx-served: GET {target}\r\ncontent-length: {length}\r\n\r\n{target}");
                (own.into_bytes(), false)
            }
        };
        if stream.write_all(&answer).await.is_err() || ends {
            return;
        }
    }
}
