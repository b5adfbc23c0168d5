//! docs/openapi.json describes the running relay: every path with every status is provoked, and every answer fits what is
//! written of it.

mod schema;

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::faults::relay::Relay as Over;
use crate::metrics::event;
use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::http::{Answer, send};
use crate::support::relay::Relay;
use crate::support::situations::until;
use crate::support::sse::{Frame, Stream};
use crate::upstream::{Routes, Upstream};

use schema::Document;

fn document() -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    Document(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

/// One path with one status and what is written of it.
struct Case<'a> {
    path: String,
    status: u16,
    response: &'a Value,
}

/// Everything that is documented.
fn cases(document: &Document) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for (path, item) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert_eq!(method, "get", "{path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = document.resolve(response);
                cases.push(Case { path: path.replace("{id}", "ses_1"), status: status.parse().unwrap(), response });
            }
        }
    }
    cases
}

fn is_stream(path: &str) -> bool {
    path.ends_with("/event")
}

/// An answer of a head and perhaps a body, against what is written of it.
fn fits(document: &Document, case: &Case<'_>, header: impl Fn(&str) -> Option<String>, body: Option<&[u8]>) {
    let Case { path, status, response } = case;
    for (name, wanted) in response["headers"].as_object().into_iter().flatten() {
        let value = header(name).unwrap_or_else(|| panic!("{path} {status} has no {name}"));
        let faults = document.faults(&wanted["schema"], &json!(value));
        assert!(faults.is_empty(), "{path} {status} {name}: {faults:?}");
    }
    let Some(content) = response["content"].as_object() else { return };
    let kind = header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap();
    let schema = &content.get(kind).unwrap_or_else(|| panic!("{path} {status} is {kind:?}"))["schema"];
    let Some(body) = body else { return };
    let value = match kind {
        "application/json" => serde_json::from_slice(body).unwrap_or_else(|error| panic!("{path} {status}: {error}")),
        _ => json!(std::str::from_utf8(body).unwrap()),
    };
    let faults = document.faults(schema, &value);
    assert!(faults.is_empty(), "{path} {status}: {faults:#?}\n{value:#}");
}

/// Asks and compares.
async fn ask(document: &Document, case: &Case<'_>, method: Method, url: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = send(method, url, headers, "").await.unwrap();
    assert_eq!(answer.status, case.status, "{url}: {}", answer.text());
    let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    fits(document, case, header, Some(&answer.body));
    answer
}

/// An opencode of 1.17 that answers everything else so, and a relay that knows which release it is.
async fn opencode(answer: &'static str) -> (Upstream, Relay) {
    let upstream = Routes::default().fixed("*", answer).fixed("/global/health", HEALTH).start().await;
    let relay = beside(&format!("http://{}", upstream.address())).await;
    until("the relay to know opencode", || async {
        let answer = send(Method::GET, &format!("{}/_relay/ready", relay.base()), &[], "").await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    (upstream, relay)
}

async fn beside(url: &str) -> Relay {
    let arguments = ["--upstream", url, "--log", "none", "--journal", "memory"];
    Relay::start(&arguments, &[], &std::env::temp_dir()).await
}

const HEALTH: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 36\r\n\r\n\
                      {\"healthy\":true,\"version\":\"1.17.11\"}";
const LOCKED: &str =
    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"Secure Area\"\r\ncontent-length: 0\r\n\r\n";
const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>";

#[tokio::test]
async fn every_documented_answer_is_given() {
    bounded(async {
        let document = document();
        let standin = StandIn::start("1.17.11").await;
        let relay = Over::over(&standin, &[("log", "none")]).await;
        let (_locked, behind_password) = opencode(LOCKED).await;
        let (_page, before_a_page) = opencode(PAGE).await;
        // Nobody listens where somebody did.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let alone = beside(&format!("http://{address}")).await;
        let (upstream, left) = opencode(PAGE).await;
        drop(upstream);
        let bases = [relay.base(), behind_password.base(), before_a_page.base(), left.base(), alone.base()];
        let cases = cases(&document);
        for case in &cases {
            let base = match case.status {
                200 | 307 | 400 | 403 | 405 => bases[0],
                401 => bases[1],
                502 => bases[2],
                // A relay that knew its opencode may take seconds to say that it is not ready.
                503 if case.path == "/_relay/ready" => bases[4],
                503 => bases[3],
                other => panic!("{} has {other}, which nothing here provokes", case.path),
            };
            let url = format!("{base}{}", case.path);
            match case.status {
                200 if is_stream(&case.path) => {
                    let stream = Stream::open_url(&url, &[]).await.unwrap();
                    assert_eq!(stream.head.status, 200);
                    fits(&document, case, |name| stream.head.header(name).map(str::to_owned), None);
                }
                200 if case.path == "/_relay/metrics" => {
                    for accept in ["*/*", "application/openmetrics-text"] {
                        ask(&document, case, Method::GET, &url, &[("accept", accept)]).await;
                    }
                }
                200 => {
                    let answer = ask(&document, case, Method::GET, &url, &[]).await;
                    let head = send(Method::HEAD, &url, &[], "").await.unwrap();
                    assert_eq!((head.status, head.body.len()), (answer.status, 0), "{url}");
                }
                400 => {
                    for wrong in ["ids=x", "origin=", "types=,", "session=a/b"] {
                        let is_session = case.path.starts_with("/session/") && wrong.starts_with("session");
                        if !is_session {
                            ask(&document, case, Method::GET, &format!("{url}?{wrong}"), &[]).await;
                        }
                    }
                }
                403 => {
                    ask(&document, case, Method::GET, &url, &[("host", "evil.example")]).await;
                }
                405 => {
                    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                        ask(&document, case, method, &url, &[]).await;
                    }
                }
                _ => {
                    ask(&document, case, Method::GET, &url, &[]).await;
                }
            }
        }
        let paths: BTreeSet<&str> = cases.iter().map(|case| case.path.as_str()).collect();
        assert_eq!(paths.len(), 10, "{paths:?}");
        assert!(cases.len() > 40, "{}", cases.len());
    })
    .await;
}

fn schema<'a>(document: &'a Document, name: &str) -> &'a Value {
    &document.0["components"]["schemas"][name]
}

/// The properties of a frame's event.
fn properties(frame: &Frame) -> Value {
    let payload = frame.payload_json();
    payload.get("properties").or(payload.get("data")).unwrap().clone()
}

#[tokio::test]
async fn frames_are_as_documented() {
    bounded(async {
        let document = document();
        let standin = StandIn::start("1.17.11").await;
        let relay = Over::over(&standin, &[("log", "none")]).await;
        let (mut greetings, mut words) = (BTreeSet::new(), BTreeSet::new());
        for (path, name) in [
            ("/event", "Event"),
            ("/session/ses_1/event", "Event"),
            ("/global/event", "GlobalEvent"),
            ("/api/event", "ApiEvent"),
        ] {
            let mut last: Option<String> = None;
            for (query, header) in [
                ("origin=1", None),
                ("origin=0", Some(())),
                ("since=1-1", None),
                ("lastEventId=no", None),
                ("last_event_id=1", None),
            ] {
                let id: String = last.clone().filter(|_| header.is_some()).unwrap_or_default();
                let headers = [("last-event-id", id)];
                let headers: Vec<(&str, &str)> =
                    headers.iter().filter(|_| header.is_some()).map(|(name, id)| (*name, id.as_str())).collect();
                let stream = Stream::open_url(&format!("{}{path}?{query}", relay.base()), &headers).await.unwrap();
                words.insert(stream.head.header("x-relay-resume").unwrap().split(';').next().unwrap().to_owned());
                standin.publish(&event("session.idle", "ses_1"));
                let told = stream.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
                last = told.id.clone();
                assert_eq!(told.json().get("relay").is_some(), query == "origin=1", "{path}?{query}");
                for frame in stream.frames().iter().filter(|frame| frame.data.is_some()) {
                    let faults = document.faults(schema(&document, name), &frame.json());
                    assert!(faults.is_empty(), "{path}: {faults:?} {frame:?}");
                    assert!(frame.id.is_some() && frame.event.is_none(), "{path}: {frame:?}");
                }
                let greeting =
                    properties(stream.frames().iter().find(|frame| frame.kind() == "server.connected").unwrap());
                let faults = document.faults(schema(&document, "Greeting"), &greeting);
                assert!(faults.is_empty(), "{path}: {faults:?}");
                greetings.insert(greeting.to_string());
            }
        }
        assert!(greetings.len() >= 3, "{greetings:?}");
        assert_eq!(words.into_iter().collect::<Vec<_>>(), ["fresh", "gap", "resumed"]);
    })
    .await;
}

/// The status in good and bad times.
#[tokio::test]
async fn every_word_of_the_status_is_documented() {
    bounded(async {
        let document = document();
        let fits = |status: &Value| {
            let faults = document.faults(schema(&document, "Status"), status);
            assert!(faults.is_empty(), "{faults:#?}\n{status:#}");
        };
        let standin = StandIn::start("1.14.48").await;
        let relay = Over::over(&standin, &[("grace", "100ms")]).await;
        fits(&relay.status().await);
        let _streams = [relay.open("/event?types=session.*").await, relay.open("/session/ses_1/event").await];
        for kind in ["session.idle", "tui.toast.show"] {
            standin.publish(&event(kind, "ses_1"));
            standin.log(&event(kind, "ses_1"));
        }
        fits(&relay.settled(&standin).await);
        standin.cut();
        standin.set_rest(crate::standin::Rest::HalfJson);
        standin.set_mode(crate::standin::Mode::Refuse(500));
        standin.log(&event("session.idle", "ses_1"));
        standin.set_rest(crate::standin::Rest::Healthy);
        until("the stream to be down", || async {
            let status = relay.status().await;
            (status["witnesses"]["stream"]["state"] == "down").then(|| fits(&status))
        })
        .await;
        let status = relay.status().await;
        assert_eq!(status["streams"].as_array().unwrap().len(), 2);
        assert!(!status["history"]["buckets"].as_array().unwrap().is_empty(), "{status:#}");
        drop(relay);

        for (flags, witness) in
            [(&[("witness", "log"), ("journal", "memory")][..], "log"), (&[("witness", "stream")], "stream")]
        {
            let standin = StandIn::start("1.14.48").await;
            let relay = Over::over(&standin, flags).await;
            let status = relay.status().await;
            assert_eq!(status["witness"], witness);
            fits(&status);
        }
    })
    .await;
}

/// The document itself: every reference leads somewhere, every part is used, names are unique.
#[test]
fn the_document_is_whole() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").map(|reference| reference.as_str().unwrap().to_owned()));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document.0["openapi"], "3.1.0");
    assert_eq!(document.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut used = BTreeSet::new();
    references(&document.0, &mut used);
    let mut there = BTreeSet::new();
    for (group, parts) in document.0["components"].as_object().unwrap() {
        if group != "securitySchemes" {
            there.extend(parts.as_object().unwrap().keys().map(|name| format!("#/components/{group}/{name}")));
        }
    }
    // What is said of greetings stands in the streams' descriptions.
    there.remove("#/components/schemas/Greeting");
    assert_eq!(used, there);
    let mut operations = BTreeSet::new();
    for (path, item) in document.0["paths"].as_object().unwrap() {
        let operation = &item["get"];
        assert!(operations.insert(operation["operationId"].as_str().unwrap()), "{path}");
        let parameters = operation["parameters"].as_array().into_iter().flatten().map(|one| document.resolve(one));
        let named: Vec<&str> = parameters.clone().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(named.len(), named.iter().collect::<BTreeSet<_>>().len(), "{path}");
        for one in parameters {
            assert_eq!(one["in"] == "path", path.contains(&format!("{{{}}}", one["name"].as_str().unwrap())), "{path}");
        }
    }
}
