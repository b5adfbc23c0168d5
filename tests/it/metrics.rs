//! `/_relay/metrics` says what the status says, in a form that Prometheus takes; what is built on it exists.

mod cost;
mod parse;
mod promtool;
mod shown;

use http::Method;
use serde_json::{Value, json};

use crate::faults::relay::Relay;
use crate::standin::{DIRECTORY, StandIn};
use crate::support::bounded;
use crate::support::http::{Answer, Api, send};
use crate::support::situations::until;

use parse::Metrics;

const PATH: &str = "/_relay/metrics";
const OPEN: &str = "application/openmetrics-text; version=1.0.0";

/// An event of one session of the stand-in's directory.
pub(super) fn event(kind: &str, session: &str) -> String {
    let payload = json!({"id": format!("evt_{session}"), "type": kind, "properties": {"sessionID": session}});
    json!({"directory": DIRECTORY, "project": "p", "payload": payload}).to_string()
}

async fn get(api: &Api, accept: &str) -> Answer {
    send(Method::GET, &api.url(PATH), &[("accept", accept)], "").await.unwrap()
}

async fn metrics(api: &Api) -> Metrics {
    Metrics::read(&get(api, "*/*").await.text())
}

/// A relay to which something of everything happened: events delivered, recovered and lost, streams, requests, sockets.
async fn busy(standin: &StandIn) -> Relay {
    let relay = Relay::over(standin, &[("grace", "100ms")]).await;
    for session in ["ses_1", "ses_2", "ses_3"] {
        standin.publish(&event("session.idle", session));
    }
    standin.log(&event("tui.toast.show", "ses_1"));
    standin.log_bytes(b"INFO  2026-11-23T00:39:15 +3ms service=bus type=a\"b\\c publishing\n");
    standin.send(&event("a\"b\\c\n{x=\"", "ses_1"));
    relay.settled(standin).await;
    for path in ["/path", "/session"] {
        relay.api().send(Method::GET, path, None).await.unwrap();
    }
    relay
}

/// Every number that both tell, by the metric and the place in the status.
fn compare(metrics: &Metrics, status: &Value) {
    let same = |name: &str, labels: &[(&str, &str)], pointer: &str| {
        let told = status.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the status"));
        let told = told.as_bool().map_or_else(|| told.as_f64().unwrap(), |is| f64::from(u8::from(is)));
        assert_eq!(metrics.value(name, labels), Some(told), "{name} {labels:?} is not {pointer}");
    };
    for (kind, count) in status["ledger"].as_object().unwrap() {
        let shown: String = kind.replace('\\', "\\\\").chars().flat_map(shown).collect();
        let at = |name: &str| format!("/ledger/{}/{name}", kind.replace('~', "~0").replace('/', "~1"));
        for name in ["published", "delivered", "recovered"] {
            same(&format!("opencode_relay_events_{name}_total"), &[("type", &shown)], &at(name));
        }
        same("opencode_relay_events_pending", &[("type", &shown)], &at("pending"));
        for reason in ["overwritten", "no_source"] {
            let labels = [("type", shown.as_str()), ("reason", reason)];
            let name = "opencode_relay_events_unrecoverable_total";
            same(name, &labels, &at(&format!("unrecoverable/{reason}")));
        }
        assert!(count.is_object());
    }
    // SECURITY.md says that they tell nothing of whose the events are.
    for (name, labels, _) in metrics.samples() {
        for (label, text) in labels {
            let known = ["code", "error", "events", "le", "reason", "stream", "type", "version", "witness"];
            assert!(known.contains(&label.as_str()), "{name} by {label}");
            assert!(!text.contains(DIRECTORY) && !text.contains("ses_"), "{name} by {label} {text:?}");
        }
    }
    for view in ["event", "session", "global", "api"] {
        same("opencode_relay_client_streams", &[("stream", view)], &format!("/clients/{view}"));
    }
    for (name, pointer) in [
        ("ready", "/ready"),
        ("witness_log_notices_total", "/witnesses/log/notices"),
        ("witness_log_gaps_total", "/witnesses/log/gaps"),
        ("witness_stream_events_total", "/witnesses/stream/events"),
        ("witness_stream_connects_total", "/witnesses/stream/connects"),
        ("witness_stream_frames_lost_total", "/witnesses/stream/lost"),
        ("witness_state_reads_total", "/witnesses/state/reads"),
        ("witness_state_reads_failed_total", "/witnesses/state/failed"),
        ("witness_state_reads_in_flight", "/witnesses/state/in_flight"),
        ("witness_state_events_total", "/witnesses/state/events"),
        ("journal_events", "/journal/events"),
        ("journal_bytes", "/journal/bytes"),
        ("journal_appended_total", "/journal/newest"),
        ("connections_refused_total", "/connections/refused"),
    ] {
        same(&format!("opencode_relay_{name}"), &[], pointer);
    }
    let version = [("version", status["upstream"]["version"].as_str().unwrap())];
    assert_eq!(metrics.value("opencode_relay_upstream_info", &version), Some(1.0));
}

/// A control character as the metrics show it.
fn shown(letter: char) -> Vec<char> {
    if letter.is_control() { format!("\\u{{{:x}}}", u32::from(letter)).chars().collect() } else { vec![letter] }
}

#[tokio::test]
async fn metrics_say_what_the_status_says() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = busy(&standin).await;
        let _streams = (relay.open("/event").await, relay.open("/global/event").await);
        // The look at the newest sessions while somebody listens asks questions at any time.
        until("both to be of the same moment", || async {
            let before = relay.status().await;
            let metrics = metrics(&relay.api()).await;
            let after = relay.status().await;
            let still =
                |status: &Value| (status["witnesses"].clone(), status["ledger"].clone(), status["journal"].clone());
            (still(&before) == still(&after)).then(|| compare(&metrics, &after))
        })
        .await;
        let metrics = metrics(&relay.api()).await;
        let value = |name: &str, labels: &[(&str, &str)]| metrics.value(&format!("opencode_relay_{name}"), labels);
        let lost = value("events_unrecoverable_total", &[("type", "tui.toast.show"), ("reason", "no_source")]);
        assert_eq!(lost, Some(1.0));
        for witness in ["log", "stream", "state"] {
            assert_eq!(value("witness_up", &[("witness", witness)]), Some(1.0), "{witness}");
        }
        assert_eq!((value("upstream_up", &[]), value("client_streams_opened_total", &[])), (Some(1.0), Some(2.0)));
        assert_eq!(value("client_lag_max_events", &[]), Some(0.0));
        assert_eq!(value("client_streams_behind", &[("events", "0")]), Some(0.0));
        assert_eq!(value("proxy_requests_total", &[("code", "2xx")]), Some(2.0));
        assert_eq!(value("proxy_requests_total", &[("code", "4xx")]), Some(0.0));
        assert_eq!(value("proxy_answer_seconds_count", &[]), Some(2.0));
        assert_eq!(value("proxy_requests_in_flight", &[]), Some(0.0));
        assert!(value("connections_open", &[]).unwrap() >= 2.0);
        let resident = metrics.value("process_resident_memory_bytes", &[]).unwrap();
        assert!(resident > 1e6 && metrics.value("process_open_fds", &[]).unwrap() > 3.0);
    })
    .await;
}

#[tokio::test]
async fn metrics_tell_what_is_down() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = busy(&standin).await;
        let before = metrics(&relay.api()).await;
        standin.kill().await;
        // Without a password nobody can be admitted while opencode is down, so the page waits for it to come back.
        assert_eq!(get(&relay.api(), "*/*").await.status, 503);
        relay.api().send(Method::GET, "/path", None).await.unwrap();
        standin.set_mode(crate::standin::Mode::Refuse(500));
        standin.revive("1.14.48").await;
        let after = until("the page to say that the stream alone is down", || async {
            let answer = get(&relay.api(), "*/*").await;
            let metrics = (answer.status == 200).then(|| Metrics::read(&answer.text()))?;
            let is_up = metrics.value("opencode_relay_upstream_up", &[]) == Some(1.0);
            let witness = |name| metrics.value("opencode_relay_witness_up", &[("witness", name)]);
            (is_up && witness("stream") == Some(0.0)).then_some(metrics)
        })
        .await;
        let failures = after.value("opencode_relay_proxy_failures_total", &[("error", "UpstreamConnectError")]);
        assert_eq!(failures, Some(1.0));
        assert_eq!(after.value("opencode_relay_proxy_requests_total", &[("code", "5xx")]), Some(1.0));
        // Nothing that is called a total is ever less than before.
        let totals = before.samples().filter(|(name, _, _)| name.ends_with("_total") || name.ends_with("_count"));
        let mut seen = 0;
        for (name, labels, value) in totals {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            assert!(after.value(name, &labels).is_some_and(|now| now >= value), "{name} {labels:?} was {value}");
            seen += 1;
        }
        assert!(seen > 30, "{seen}");
    })
    .await;
}

#[tokio::test]
async fn both_forms_are_given_to_those_who_are_admitted() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = busy(&standin).await;
        for (accept, kind) in [("*/*", "text/plain; version=0.0.4"), (OPEN, OPEN)] {
            let answer = get(&relay.api(), accept).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.headers["content-type"], format!("{kind}; charset=utf-8"));
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert_eq!(answer.text().ends_with("# EOF\n"), accept == OPEN);
            Metrics::read(&answer.text());
            let head = send(Method::HEAD, &relay.api().url(PATH), &[("accept", accept)], "").await.unwrap();
            assert_eq!((head.status, &head.headers["content-type"]), (answer.status, &answer.headers["content-type"]));
            assert!(head.body.is_empty() && head.headers["content-length"].to_str().unwrap().len() > 3);
        }
        let post = send(Method::POST, &relay.api().url(PATH), &[], "").await.unwrap();
        assert_eq!(post.status, 405);
    })
    .await;
}
