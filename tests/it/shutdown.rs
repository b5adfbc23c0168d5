//! The order of a stop (DESIGN §5), with everything open that can be: streams, bodies, sockets, clients that do not read.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::Duration;

use opencode_relay::event::{Epoch, Event};
use opencode_relay::hub::Hub;
use opencode_relay::journal::{self, Journal};
use opencode_relay::pipeline::{self, Pipeline};
use opencode_relay::stop::{Stop, Tasks};
use opencode_relay::{ingest, reconcile};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::faults::resume::numbered;
use crate::standin::{Mode, Rest, SOON, StandIn};
use crate::support::bounded;
use crate::support::relay::Relay;
use crate::support::sse::{End, Stream};
use crate::upstream::Wire;

/// A stop in which nothing has to be waited for.
const QUICK: Duration = Duration::from_secs(3);

/// How long requests may go on, and the rest of a stop in which something hangs: 1 s for cut connections.
const GRACE: Duration = Duration::from_secs(10);

const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a2V5\r\n";

/// The relay as a process, beside a stand-in.
async fn start(standin: &StandIn, more: &[&str]) -> Relay {
    let folder = std::env::temp_dir();
    let (url, state) = (standin.url(), standin.state_dir());
    Relay::start(&[&["--upstream", &url, "--witness", "stream", "--state-dir", &state], more].concat(), &[], &folder)
        .await
}

async fn get(relay: &Relay, path: &str, fields: &str) -> Wire {
    let address = relay.base().strip_prefix("http://").unwrap().parse().unwrap();
    let mut wire = Wire::connect(address).await;
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
    wire
}

/// Waits until nobody listens any more.
async fn refused(relay: &Relay) {
    let address = relay.base().strip_prefix("http://").unwrap().to_owned();
    let deadline = Instant::now() + SOON;
    while TcpStream::connect(&address).await.is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
}

fn said(relay: &Relay, words: &str) -> bool {
    relay.stderr().from(0).iter().any(|line| line.text.contains(words))
}

async fn until_number(stream: &Stream, number: usize) {
    let tail = format!(r#""number":{number}}}"#);
    stream.wait_for(|frame| frame.data.as_deref().is_some_and(|data| data.contains(&tail)), SOON).await;
}

/// Streams end as errors, what can be finished is finished, nobody new comes in, and the end is a good one.
#[tokio::test]
async fn everything_ends_in_order() {
    bounded(async {
        for signal in [Signal::TERM, Signal::INT] {
            let standin = StandIn::start("1.18.34").await;
            let mut relay = start(&standin, &[]).await;
            standin.granted(1).await;
            let mut streams = Vec::new();
            for path in ["/event", "/global/event", "/session/ses_a/event", "/api/event"] {
                streams.push(Stream::open(&relay.api(), path).await.unwrap());
            }
            let mut half = get(&relay, "/test/half", "").await;
            let head = half.answer().await;
            assert_eq!(half.exactly(2).await, b"ab");
            let mut socket = get(&relay, "/pty/pty_1/connect", UPGRADE).await;
            assert_eq!(socket.answer().await.second(), "101");
            let mut idle = get(&relay, "/session", "").await;
            let idle_head = idle.answer().await;
            idle.body(&idle_head).await.unwrap();
            for number in 0..500 {
                assert!(standin.send(&numbered(number, "ses_a")));
            }
            until_number(&streams[0], 499).await;

            relay.signal(signal);
            for stream in &streams {
                assert!(matches!(stream.wait_end(SOON).await, End::Broken(_)), "{signal:?}");
                // What was shown to one was shown to all.
                until_number(stream, 499).await;
            }
            refused(&relay).await;
            // An idle connection ends without an answer; a request that is being answered goes on, and so does a socket.
            assert!(idle.ended().await.is_empty());
            assert_eq!(relay.wait(Duration::from_millis(200)).await, None, "{signal:?}: it did not wait");
            socket.send("echo").await;
            assert_eq!(socket.exactly(4).await, b"echo");
            standin.finish_bodies();
            let rest = half.exactly(2).await;
            assert_eq!((rest.as_slice(), head.get("content-length").as_deref()), (&b"cd"[..], Some("4")));
            let exit = relay.wait(QUICK).await.unwrap_or_else(|| panic!("{signal:?}: {}", relay.output()));
            assert_eq!(exit.code(), Some(0), "{}", relay.output());
            assert!(socket.ended().await.is_empty());
            assert!(said(&relay, "stopping") && said(&relay, "stopped"), "{}", relay.output());
            assert!(!said(&relay, "did not end"), "{}", relay.output());
        }
    })
    .await;
}

/// A client that does not read its stream cannot be told that it ends; it must not hold up the stop.
#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nothing() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let mut relay = start(&standin, &[]).await;
        standin.granted(1).await;
        let mut stuck = get(&relay, "/event", "").await;
        assert_eq!(stuck.answer().await.second(), "200");
        let other = Stream::open(&relay.api(), "/event").await.unwrap();
        // More than the kernel holds for it on both sides.
        let pad = format!(r#""pad":"{}","number""#, "x".repeat(8_000));
        for number in 0..2_000 {
            assert!(standin.send(&numbered(number, "ses_a").replacen(r#""number""#, &pad, 1)));
        }
        until_number(&other, 1_999).await;
        let start = Instant::now();
        relay.signal(Signal::TERM);
        let exit = relay.wait(GRACE * 2).await.unwrap();
        assert_eq!(exit.code(), Some(0), "{}", relay.output());
        assert!(start.elapsed() < QUICK, "{:?}\n{}", start.elapsed(), relay.output());
        // It learns of it later, as an error.
        assert!(stuck.exactly(usize::MAX / 2).await.len() > 100_000);
        assert!(!stuck.ended().await.ends_with(b"0\r\n\r\n"));
    })
    .await;
}

/// A body without end is given the grace; a second signal does not wait for it.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    bounded(async {
        for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
            let standin = StandIn::start("1.14.48").await;
            let mut relay = start(&standin, &[]).await;
            let mut endless = get(&relay, "/test/endless", "").await;
            assert_eq!(endless.answer().await.second(), "200");
            assert_eq!(endless.chunk().await.unwrap(), b"more");
            // Some send the same one twice at once; that is still the first.
            relay.signal(first);
            relay.signal(second);
            refused(&relay).await;
            assert_eq!(endless.chunk().await.unwrap(), b"more");
            let start = Instant::now();
            let exit = loop {
                relay.signal(second);
                if let Some(exit) = relay.wait(Duration::from_millis(50)).await {
                    break exit;
                }
                assert!(start.elapsed() < Duration::from_secs(1), "it went on: {}", relay.output());
            };
            assert_eq!((exit.code(), exit.signal()), (Some(1), None), "{}", relay.output());
            assert!(said(&relay, "failed to stop in order: a second signal came"), "{}", relay.output());
            assert!(!endless.ended().await.ends_with(b"0\r\n\r\n"));
        }
    })
    .await;
}

/// Without a second signal the grace ends it, and the log says so.
#[tokio::test]
async fn a_body_without_end_is_cut_off_after_the_grace() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let mut relay = start(&standin, &[]).await;
        let mut endless = get(&relay, "/test/endless", "").await;
        assert_eq!(endless.answer().await.second(), "200");
        let mut silent = get(&relay, "/test/silent", "").await;
        while standin.requests("/test/silent") == 0 {
            assert_eq!(endless.chunk().await.unwrap(), b"more");
        }
        let start = Instant::now();
        relay.signal(Signal::TERM);
        let exit = relay.wait(GRACE * 2).await.unwrap();
        let took = start.elapsed();
        assert!(took >= GRACE && took < GRACE + QUICK, "{took:?}");
        assert_eq!(exit.code(), Some(0), "{}", relay.output());
        assert!(said(&relay, "requests were cut off") && said(&relay, "connections=2"), "{}", relay.output());
        assert!(!said(&relay, "did not end"), "{}", relay.output());
        assert!(!endless.ended().await.ends_with(b"0\r\n\r\n"));
        assert!(silent.ended().await.is_empty());
    })
    .await;
}

/// While opencode is not there, dead, or hanging with clients that wait to be let in.
#[tokio::test]
async fn a_stop_needs_no_opencode() {
    bounded(async {
        let never = async {
            let standin = StandIn::start("1.14.48").await;
            standin.kill().await;
            let mut relay = start(&standin, &["--log-level", "debug"]).await;
            ends(&mut relay, "never there").await;
        };
        let dead = async {
            let standin = StandIn::start("1.14.48").await;
            let mut relay = start(&standin, &[]).await;
            standin.granted(1).await;
            let client = Stream::open(&relay.api(), "/event").await.unwrap();
            standin.kill().await;
            let answer = relay.api().send(http::Method::GET, "/session", None).await.unwrap();
            assert_eq!(answer.status.as_u16(), 502);
            ends(&mut relay, "dead").await;
            assert!(matches!(client.wait_end(SOON).await, End::Broken(_)));
        };
        let hanging = async {
            let standin = StandIn::start("1.14.48").await;
            let mut relay = start(&standin, &[]).await;
            standin.granted(1).await;
            standin.set_rest(Rest::Mute);
            standin.set_mode(Mode::Mute);
            standin.cut();
            let asked = standin.requests("/path");
            let mut waiting = get(&relay, "/event", "").await;
            let mut page = get(&relay, "/_relay/status", "").await;
            while standin.requests("/path") < asked + 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ends(&mut relay, "hanging").await;
            for wire in [&mut waiting, &mut page] {
                let head = wire.answer().await;
                assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")));
                let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
                assert!(text.contains("the relay is stopping"), "{text}");
            }
        };
        let starting = async {
            let folder = std::env::temp_dir();
            let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
            let mut relay =
                Relay::start(&["--journal", "memory", "--", "sh", "-c", "sleep 1000", "serve"], &[path], &folder).await;
            let mut waiting = get(&relay, "/session", "").await;
            // Its answer shows that the other one has been read too.
            let mut other = get(&relay, "/_relay/health", "").await;
            assert_eq!(other.answer().await.second(), "200");
            ends(&mut relay, "starting").await;
            let head = waiting.answer().await;
            assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")));
        };
        tokio::join!(never, dead, hanging, starting);
    })
    .await;
}

async fn ends(relay: &mut Relay, what: &str) {
    let start = Instant::now();
    relay.signal(Signal::TERM);
    let exit = relay.wait(GRACE * 2).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{what}: {}", relay.output());
    assert!(start.elapsed() < QUICK, "{what}: {:?}\n{}", start.elapsed(), relay.output());
    assert!(said(relay, "stopped") && !said(relay, "did not end"), "{what}: {}", relay.output());
}

/// What the witnesses handed over before the stop is numbered and kept, however much it is.
#[tokio::test]
async fn what_has_arrived_is_journaled() {
    bounded(async {
        let journal = Arc::new(Journal::new(Epoch::new(7), journal::Options::default()));
        let (asks, _asked) = mpsc::channel(ingest::state::QUEUE);
        let (_upstream, upstream) = watch::channel(None);
        let pipeline = Pipeline::new(pipeline::Parts {
            options: reconcile::Options {
                witness: reconcile::Witness::Stream,
                grace: 2_000,
                watch: 0,
                emit_bare: false,
            },
            journal: journal.clone(),
            restored: journal::Restored::default(),
            hub: Hub::new(journal.clone(), Tasks::new()),
            asks,
            upstream,
            has_api: Arc::default(),
        });
        let (sender, inbox) = mpsc::channel(ingest::QUEUE);
        for number in 0..ingest::QUEUE {
            let event = Event::read(numbered(number, "ses_a").into()).unwrap();
            let message = ingest::Message::Stream(ingest::stream::Message::Events(vec![event]));
            sender.try_send(message).unwrap();
        }
        let stop = Stop::new();
        stop.pull();
        pipeline.run(inbox, stop).await;
        assert_eq!(journal.fill().newest.0, ingest::QUEUE as u64);
        assert!(sender.is_closed());
    })
    .await;
}
