//! Pages of other origins while opencode is down: they may read what opencode last let them read, and nobody else may.

use std::sync::{Arc, Mutex, PoisonError};

use opencode_relay::http::Credentials;
use opencode_relay::proxy::Target;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::upstream::{Head, Routes, Upstream, Wire};

const GUARDED: [&str; 5] = ["/event", "/global/event", "/session/ses_1/event", "/api/event", "/_relay/status"];

const RIGHT: &str = "authorization: Basic b3BlbmNvZGU6cGFzcw==\r\n";
const WRONG: &str = "authorization: Basic b3BlbmNvZGU6d3Jvbmc=\r\n";

/// The origins that an opencode allows now.
#[derive(Clone, Default)]
struct Allowed(Arc<Mutex<Vec<&'static str>>>);

impl Allowed {
    fn set(&self, origins: &[&'static str]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = origins.to_vec();
    }

    /// The fields of an answer to a page.
    fn fields(&self, head: &Head) -> String {
        let origin = head.get("origin").unwrap_or_default();
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|allowed| *allowed == origin) {
            true => format!("access-control-allow-origin: {origin}\r\nvary: Origin\r\n"),
            false => "vary: Origin\r\n".to_owned(),
        }
    }
}

/// An opencode with the password `pass`; as the real one it tells its origins to those whom it refuses, too.
async fn opencode(allowed: &Allowed) -> Upstream {
    opencode_for(allowed, RIGHT).await
}

/// An opencode that admits those whose `authorization` is part of `admitted`.
async fn opencode_for(allowed: &Allowed, admitted: &'static str) -> Upstream {
    let allowed = allowed.clone();
    Routes::default()
        .on("/path", move |head: Head, mut wire: Wire| {
            let fields = allowed.fields(&head);
            async move {
                let answer = match head.get("authorization").is_some_and(|shown| admitted.contains(&shown)) {
                    true => format!(
                        "200 OK\r\n{fields}content-type: application/json\r\ncontent-length: 17\r\n\r\n{{\"directory\":\"/\"}}"
                    ),
                    false => format!("401 Unauthorized\r\n{fields}content-length: 0\r\n\r\n"),
                };
                wire.send(format!("HTTP/1.1 {answer}")).await;
                Some(wire)
            }
        })
        .start()
        .await
}

fn down() -> Target {
    Target::Down { reason: "it exited".into() }
}

fn with_password() -> Settings {
    let mut settings = Settings::default();
    settings.http.credentials = Some(Credentials { user: "opencode".into(), password: "pass".into() });
    settings
}

/// The status, and whom the answer lets read it.
async fn ask(relay: &Relay, target: &str, fields: &str) -> (String, Option<String>) {
    let (head, _) = relay.get(target, fields).await;
    (head.second().to_owned(), head.get("access-control-allow-origin"))
}

fn from(origin: &str) -> String {
    format!("{RIGHT}origin: {origin}\r\n")
}

#[tokio::test]
async fn a_page_reads_in_an_outage_what_opencode_let_it_read() {
    const ORIGIN: &str = "http://localhost:3000";
    let allowed = Allowed::default();
    allowed.set(&[ORIGIN, "http://localhost:1"]);
    let upstream = opencode(&allowed).await;
    let relay = Relay::start(up(&upstream), with_password()).await;
    for origin in [ORIGIN, "https://evil.example"] {
        assert_eq!(ask(&relay, "/event", &from(origin)).await.0, "200");
    }
    relay.target.send_replace(down());
    for path in GUARDED {
        let (head, _) = relay.get(path, &from(ORIGIN)).await;
        assert_eq!(head.second(), "200", "{path}");
        assert_eq!(head.get("access-control-allow-origin").as_deref(), Some(ORIGIN), "{path}");
        assert_eq!(head.get("vary").as_deref(), Some("Origin"), "{path}: a cache must not give it to others");
        // Whoever may read it learns why it is refused.
        let refused = ask(&relay, path, &format!("{WRONG}origin: {ORIGIN}\r\n")).await;
        assert_eq!(refused, ("401".to_owned(), Some(ORIGIN.to_owned())), "{path}");
        // Refused, not asked about, told by nobody, or by two.
        for fields in [
            from("https://evil.example"),
            from("http://localhost:1"),
            from("http://localhost:3000/"),
            RIGHT.to_owned(),
            format!("{}origin: {ORIGIN}\r\n", from(ORIGIN)),
            format!("{}origin: https://evil.example\r\n", from(ORIGIN)),
        ] {
            let (head, _) = relay.get(path, &fields).await;
            assert_eq!((head.second(), head.get("access-control-allow-origin")), ("200", None), "{path} {fields}");
            assert_eq!(head.get("vary").as_deref(), Some("Origin"), "{path} {fields}");
        }
    }
    assert_eq!(ask(&relay, "/_relay/nothing", &from(ORIGIN)).await, ("404".to_owned(), Some(ORIGIN.to_owned())));
}

#[tokio::test]
async fn a_page_is_told_that_nobody_can_say_who_is_admitted() {
    let allowed = Allowed::default();
    allowed.set(&["http://localhost:3000"]);
    let upstream = opencode(&allowed).await;
    let relay = Relay::over(&upstream).await;
    ask(&relay, "/_relay/status", &from("http://localhost:3000")).await;
    for target in [down(), Target::Starting] {
        relay.target.send_replace(target);
        for path in GUARDED {
            let told = Some("http://localhost:3000".to_owned());
            assert_eq!(ask(&relay, path, &from("http://localhost:3000")).await, ("503".to_owned(), told), "{path}");
            assert_eq!(ask(&relay, path, &from("http://localhost:1")).await, ("503".to_owned(), None), "{path}");
        }
    }
}

/// What is passed on, too: a page that polls learns that it has to wait.
#[tokio::test]
async fn a_page_is_told_why_its_request_has_no_answer() {
    let allowed = Allowed::default();
    allowed.set(&["http://localhost:3000"]);
    let upstream = opencode(&allowed).await;
    let relay = Relay::start(up(&upstream), with_password()).await;
    ask(&relay, "/event", &from("http://localhost:3000")).await;
    // The answer of an opencode that is there is its own.
    assert_eq!(ask(&relay, "/nowhere", &from("http://localhost:3000")).await, ("404".to_owned(), None));
    relay.target.send_replace(down());
    for (origin, told) in [("http://localhost:3000", Some("http://localhost:3000")), ("http://localhost:1", None)] {
        let (head, _) = relay.get("/session", &from(origin)).await;
        assert_eq!((head.second(), head.get("access-control-allow-origin").as_deref()), ("503", told), "{origin}");
        assert_eq!(head.get("vary").as_deref(), Some("Origin"), "{origin}");
    }
}

/// Whoever is not admitted can neither put an origin there nor push one out.
#[tokio::test]
async fn strangers_make_the_relay_remember_nothing() {
    let allowed = Allowed::default();
    allowed.set(&["http://localhost:3000"]);
    // Refused by opencode; and admitted by one that has another password than the relay, for whom the relay is the guard.
    for (admitted, status) in [(RIGHT, "401"), (WRONG, "200")] {
        let upstream = opencode_for(&allowed, admitted).await;
        let relay = Relay::start(up(&upstream), with_password()).await;
        let stranger = format!("{WRONG}origin: http://localhost:3000\r\n");
        assert_eq!(ask(&relay, "/global/event", &stranger).await.0, status);
        relay.target.send_replace(down());
        assert_eq!(ask(&relay, "/global/event", &from("http://localhost:3000")).await, ("200".to_owned(), None));
    }
}

#[tokio::test]
async fn what_opencode_takes_back_is_forgotten() {
    let (kept, removed) = ("http://localhost:3000", "https://old.example");
    let allowed = Allowed::default();
    allowed.set(&[kept, removed]);
    let upstream = opencode(&allowed).await;
    let relay = Relay::start(up(&upstream), with_password()).await;
    for origin in [kept, removed] {
        ask(&relay, "/event", &from(origin)).await;
    }
    allowed.set(&[kept]);
    assert_eq!(ask(&relay, "/event", &from(removed)).await, ("200".to_owned(), None));
    relay.target.send_replace(down());
    // Another opencode's settings: what the old one said of anybody is worth nothing.
    for origin in [kept, removed] {
        assert_eq!(ask(&relay, "/event", &from(origin)).await, ("200".to_owned(), None), "{origin}");
    }
    relay.target.send_replace(up(&upstream));
    ask(&relay, "/event", &from(kept)).await;
    relay.target.send_replace(down());
    assert_eq!(ask(&relay, "/event", &from(kept)).await, ("200".to_owned(), Some(kept.to_owned())));
}
