//! Crowds at the door: opencode is asked about those who come with the same words once.

use std::time::Duration;

use tokio::sync::watch;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::upstream::{Head, Routes, Upstream, Wire};

const RIGHT: &str = "authorization: Basic b3BlbmNvZGU6cGFzcw==\r\n";
const WRONG: &str = "authorization: Basic b3BlbmNvZGU6d3Jvbmc=\r\n";

/// An opencode that answers nothing until it may.
async fn opencode(may: &watch::Sender<bool>) -> Upstream {
    let may = may.subscribe();
    Routes::default()
        .on("/path", move |head: Head, mut wire: Wire| {
            let mut may = may.clone();
            async move {
                let _ = may.wait_for(|may| *may).await;
                let answer = match head.get("authorization").is_some_and(|shown| RIGHT.contains(&shown)) {
                    true => {
                        "200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"directory\":\"/\"}"
                    }
                    false => "401 Unauthorized\r\ncontent-length: 4\r\n\r\nnope",
                };
                wire.send(format!("HTTP/1.1 {answer}")).await;
                Some(wire)
            }
        })
        .start()
        .await
}

async fn ask(relay: &Relay, target: &str, fields: &str) -> Wire {
    let mut wire = relay.connect().await;
    wire.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
    wire
}

#[tokio::test]
async fn clients_with_the_same_words_cost_one_question() {
    let may = watch::channel(false).0;
    let upstream = opencode(&may).await;
    let relay = Relay::start(up(&upstream), Settings::default()).await;
    let leader = ask(&relay, "/event", RIGHT).await;
    upstream.requests(1).await;
    let mut wires = Vec::new();
    for number in 0..20 {
        wires.push(ask(&relay, "/event?types=a", &format!("{RIGHT}last-event-id: 7-{number}\r\n")).await);
    }
    // Whoever asks for something else is another one.
    wires.push(ask(&relay, "/event?directory=%2Fa", RIGHT).await);
    wires.push(ask(&relay, "/global/event", RIGHT).await);
    wires.push(ask(&relay, "/event", &format!("{RIGHT}x-other: 1\r\n")).await);
    upstream.requests(4).await;
    let mut stranger = ask(&relay, "/event", WRONG).await;
    upstream.requests(5).await;
    // The one whose question it was goes; the others wait for its answer all the same.
    drop(leader);
    tokio::time::sleep(Duration::from_millis(100)).await;
    may.send_replace(true);
    for wire in &mut wires {
        assert_eq!(wire.answer().await.second(), "200");
    }
    assert_eq!(stranger.answer().await.second(), "401");
    assert_eq!(upstream.heads().len(), 5);
    // An answer is for those who asked before it.
    assert_eq!(ask(&relay, "/event", RIGHT).await.answer().await.second(), "200");
    assert_eq!(upstream.heads().len(), 6);
}

#[tokio::test]
async fn each_of_a_crowd_is_refused_in_opencodes_words() {
    let may = watch::channel(false).0;
    let upstream = opencode(&may).await;
    let relay = Relay::start(up(&upstream), Settings::default()).await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        wires.push(ask(&relay, "/event", WRONG).await);
    }
    upstream.requests(1).await;
    may.send_replace(true);
    for wire in &mut wires {
        let head = wire.answer().await;
        assert_eq!((head.second(), wire.body(&head).await.unwrap()), ("401", b"nope".to_vec()));
    }
}
