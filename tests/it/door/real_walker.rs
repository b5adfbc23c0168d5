//! Every path that opencode documents, asked directly and through the relay: the same answer.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::real::{Said, Server, say};
use crate::support::bounded;
use crate::support::http::Api;

/// What is not asked, and why.
const LEFT_OUT: [(&str, &str); 9] = [
    ("/event", "a stream, and the relay's own"),
    ("/global/event", "a stream, and the relay's own"),
    ("/api/event", "a stream, and the relay's own"),
    ("/api/session/{sessionID}/event", "a stream"),
    ("/tui/control/next", "a long poll"),
    ("/experimental/console", "asks a server on the internet"),
    ("/experimental/console/orgs", "asks a server on the internet"),
    ("/global/upgrade", "replaces the program"),
    ("/global/dispose", "ends what other requests need"),
];

/// Where a wrong body is sent: it changes nothing, and no model is asked.
const POSTS: [&str; 12] = [
    "/log",
    "/session",
    "/session/{sessionID}/message",
    "/session/{sessionID}/prompt_async",
    "/session/{sessionID}/shell",
    "/session/{sessionID}/command",
    "/session/{sessionID}/permissions/{permissionID}",
    "/permission/{requestID}/reply",
    "/question/{requestID}/reply",
    "/pty",
    "/tui/publish",
    "/sync/history",
];

/// Values for parameters that have to be given: what there is, and what there is not.
fn values(name: &str, session: &str) -> Vec<String> {
    let given: &[&str] = match name {
        "sessionID" => &["ses_nothing", "wrong"],
        "messageID" => &["msg_nothing"],
        "ptyID" => &["pty_nothing"],
        "requestID" | "permissionID" => &["per_nothing"],
        "path" | "query" => &["README.md", "../x", "ä b"],
        "pattern" => &["project", "("],
        "mode" => &["git", "wrong"],
        "provider" | "providerID" => &["scripted", "nothing"],
        "model" => &["scripted-1"],
        _ => &["nothing"],
    };
    let mut values = Vec::from_iter(given.iter().map(|&value| value.to_owned()));
    if name == "sessionID" {
        values.insert(0, session.to_owned());
    }
    values
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The targets of one documented path: with the parameters that it needs, and without those in the query.
fn targets(path: &str, parameters: &[Value], session: &str) -> Vec<String> {
    let mut paths = vec![path.replace('*', "README.md")];
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let fill = |path: &String| {
            let put = |value: String| path.replace(&format!("{{{name}}}"), &escaped(&value));
            Vec::from_iter(values(name, session).into_iter().map(put))
        };
        paths = paths.iter().flat_map(fill).collect();
    }
    let needed = parameters.iter().filter(|parameter| parameter["required"] == true && parameter["in"] == "query");
    let mut queries = vec![String::new()];
    for name in needed.filter_map(|parameter| parameter["name"].as_str()) {
        let with = |query: &String| {
            let put = |value: String| format!("{query}&{name}={}", escaped(&value));
            Vec::from_iter(values(name, session).into_iter().map(put))
        };
        queries = queries.iter().flat_map(with).collect();
    }
    let mut targets = paths.clone();
    for path in &paths {
        targets.extend(queries.iter().filter(|query| !query.is_empty()).map(|query| format!("{path}?{}", &query[1..])));
    }
    targets
}

/// Fields that may differ: the time, this hop's own, and how a body is framed.
fn comparable(said: &Said) -> BTreeMap<&str, &str> {
    const OF_A_HOP: [&str; 5] = ["date", "connection", "keep-alive", "transfer-encoding", "via"];
    let fields = said.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // opencode sends a length with 204, which RFC 9110 §8.6 forbids; the relay does not hand it on.
    let is_forbidden = |name: &str| name == "content-length" && said.status == "204";
    fields.filter(|(name, _)| !OF_A_HOP.contains(name) && !is_forbidden(name)).collect()
}

#[derive(Default)]
struct Tally {
    compared: usize,
    /// Answers that differ between two direct questions, by an error's number: only their status, the names of their
    /// fields and, where it does not differ, their length are compared.
    unsteady: BTreeSet<String>,
    statuses: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    /// Asks directly, through the relay, and directly again.
    async fn ask(&mut self, server: &Server, front: std::net::SocketAddr, start: &str, fields: &str) {
        let before = say(server.address, start, fields).await;
        let relayed = say(front, start, fields).await;
        let after = say(server.address, start, fields).await;
        self.compared += 1;
        *self.statuses.entry(relayed.status.clone()).or_default() += 1;
        let is_steady = before.body == after.body && comparable(&before) == comparable(&after);
        let is_same = if is_steady {
            relayed.body == before.body && comparable(&relayed) == comparable(&before)
        } else {
            self.unsteady.insert(start.to_owned());
            let is_as_long = before.body.len() != after.body.len() || relayed.body.len() == before.body.len();
            is_as_long && comparable(&relayed).keys().eq(comparable(&before).keys())
        };
        if relayed.status != before.status || !is_same {
            self.wrong.push(format!("{start}\n  direct  {before:?}\n  relayed {relayed:?}"));
        }
    }
}

async fn answers_are_the_same(version: &str) {
    let server = Server::start(version, &[]).await;
    let api = Api::new(format!("http://{}", server.address));
    let session = api.post("/session", &json!({"title": "walked"})).await["id"].as_str().unwrap().to_owned();
    let front = server.relay("relay", &[]).await;
    let document = api.get("/doc").await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 100, "opencode documents itself: {} paths", paths.len());

    let mut tally = Tally::default();
    let gzip = "accept-encoding: gzip\r\n";
    for (path, methods) in paths.iter().filter(|(path, _)| !LEFT_OUT.iter().any(|(name, _)| name == path)) {
        let documented = &methods["get"];
        if documented.is_null() {
            // No such method, by what is documented.
            tally.ask(&server, front.address, &format!("OPTIONS {path}"), "").await;
            continue;
        }
        let parameters = documented["parameters"].as_array().cloned().unwrap_or_default();
        for target in targets(path, &parameters, &session) {
            tally.ask(&server, front.address, &format!("GET {target}"), "").await;
        }
        let target = targets(path, &parameters, &session).pop().unwrap();
        tally.ask(&server, front.address, &format!("GET {target}"), gzip).await;
        tally.ask(&server, front.address, &format!("HEAD {target}"), "").await;
        tally.ask(&server, front.address, &format!("OPTIONS {target}"), "origin: http://localhost:1\r\n").await;
    }
    // What no document names: the web app, its files, odd targets, and a range of one.
    for target in [
        "/",
        "/index.html",
        "/nothing",
        "/favicon.ico",
        "/session//",
        "//session",
        "/a/../path",
        "/%2e%2e/path",
        "/path?",
        "/path?a=%zz&&",
        "/doc",
    ] {
        for method in ["GET", "HEAD"] {
            for fields in ["", gzip, "range: bytes=0-9\r\n", "if-none-match: *\r\n"] {
                tally.ask(&server, front.address, &format!("{method} {target}"), fields).await;
            }
        }
    }
    for path in POSTS {
        if !paths.contains_key(path) {
            continue;
        }
        for target in targets(path, &[], &session) {
            for fields in [
                "content-type: application/json\r\ncontent-length: 2\r\n\r\n[]",
                "content-type: application/json\r\ncontent-length: 1\r\n\r\n{",
                "content-type: text/plain\r\ncontent-length: 1\r\n\r\nx",
                "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n7\r\n0\r\n",
            ] {
                // The body stands where more fields would, and has no line end of its own.
                tally.ask(&server, front.address, &format!("POST {target}"), fields).await;
            }
        }
    }
    println!(
        "| {version} | {} documented paths | {} requests compared, {} of them unsteady | {:?} | left out: {} |",
        paths.len(),
        tally.compared,
        tally.unsteady.len(),
        tally.statuses,
        LEFT_OUT.iter().filter(|(path, _)| paths.contains_key(*path)).count()
    );
    println!("unsteady: {:?}", tally.unsteady);
    assert!(tally.wrong.is_empty(), "{} differ:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(tally.statuses["200"] > 50 && tally.statuses.len() > 3, "all kinds of answers: {:?}", tally.statuses);
    assert!(tally.unsteady.len() * 5 < tally.compared, "most can be compared: {:?}", tally.unsteady);
}

#[tokio::test]
async fn answers_are_the_same_as_of_1_14_48() {
    bounded(answers_are_the_same("1.14.48")).await;
}

#[tokio::test]
async fn answers_are_the_same_as_of_1_18_34() {
    bounded(answers_are_the_same("1.18.34")).await;
}
