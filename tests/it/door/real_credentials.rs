//! Every endpoint of the relay's own answers to credentials as opencode itself does: each way to show them, right and
//! wrong, is shown to both.

use std::time::Duration;

use base64::Engine as _;
use tokio::time::{Instant, sleep};

use super::real::{Front, Said, Server, say};
use crate::support::bounded;

/// Its base64 has a slash and padding. No colon: 1.14.48 takes no password with one, not even from those who know it.
const PASSWORD: &str = "ke?t-between us!";

/// What a request shows: the query, and the header lines.
struct Shown {
    name: &'static str,
    query: String,
    fields: String,
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// All ways to show credentials; those of `user` and [`PASSWORD`] are right.
fn ways(user: &str) -> Vec<Shown> {
    let good = encode(&format!("{user}:{PASSWORD}"));
    let bad = encode("x:y");
    let bare = good.trim_end_matches('=');
    assert_ne!(bare, good, "a case without padding needs one that has some");
    let last = bare.chars().last().unwrap();
    let next = char::from_u32(u32::from(last) + 1).unwrap();
    let loose = format!("{}{next}{}", &bare[..bare.len() - 1], &good[bare.len()..]);
    let line = |value: &str| format!("authorization: {value}\r\n");
    let header = |name, value: &str| Shown { name, query: String::new(), fields: line(value) };
    let basic = |name, text: &str| header(name, &format!("Basic {}", encode(text)));
    let query = |name, query: &str, value: &str| Shown {
        name,
        query: query.to_owned(),
        fields: if value.is_empty() { String::new() } else { line(value) },
    };
    let right = format!("Basic {good}");
    let url_safe = good.replace('/', "_");
    assert_ne!(url_safe, good, "a case of another alphabet needs a letter that differs");
    vec![
        Shown { name: "none", query: String::new(), fields: String::new() },
        header("right", &right),
        header("scheme in lower case", &format!("basic {good}")),
        header("scheme in upper case", &format!("BASIC {good}")),
        header("two spaces", &format!("Basic  {good}")),
        header("a tab", &format!("Basic\t{good}")),
        header("a space behind", &format!("{right} ")),
        header("no padding", &format!("Basic {bare}")),
        header("more padding", &format!("{right}=")),
        header("other last bits", &format!("Basic {loose}")),
        header("url-safe", &format!("Basic {url_safe}")),
        header("more words", &format!("{right} x")),
        header("a space within", &format!("Basic {} {}", &good[..4], &good[4..])),
        header("junk behind", &format!("{right}!!")),
        header("junk before", &format!("Basic !!{good}")),
        basic("wrong password", &format!("{user}:wrong")),
        basic("password begun", &format!("{user}:{}", &PASSWORD[..PASSWORD.len() - 1])),
        basic("password and more", &format!("{user}:{PASSWORD}x")),
        basic("password and NUL", &format!("{user}:{PASSWORD}\0")),
        basic("password and a line end", &format!("{user}:{PASSWORD}\n")),
        basic("no password", &format!("{user}:")),
        basic("wrong user", &format!("other:{PASSWORD}")),
        basic("opencode's usual user", &format!("opencode:{PASSWORD}")),
        basic("user in upper case", &format!("{}:{PASSWORD}", user.to_uppercase())),
        basic("no user", &format!(":{PASSWORD}")),
        basic("no colon", &format!("{user}{PASSWORD}")),
        basic("a byte order mark", &format!("\u{feff}{user}:{PASSWORD}")),
        basic("nothing", ""),
        header("another scheme", &format!("Bearer {good}")),
        header("digest", &format!("Digest username=\"{user}\", response=\"x\"")),
        header("no scheme", &good),
        header("a scheme alone", "Basic"),
        header("an empty header", ""),
        header("no base64", "Basic !!!!"),
        header("bytes that are no text", "Basic \u{e9}\u{e9}\u{e9}\u{e9}"),
        header("a list", &format!("{right}, {right}")),
        Shown { name: "right twice", query: String::new(), fields: format!("{0}{0}", line(&right)) },
        Shown {
            name: "right, then wrong",
            query: String::new(),
            fields: line(&right) + &line(&format!("Basic {bad}")),
        },
        Shown {
            name: "wrong, then right",
            query: String::new(),
            fields: line(&format!("Basic {bad}")) + &line(&right),
        },
        Shown { name: "a proxy's header", query: String::new(), fields: format!("proxy-authorization: {right}\r\n") },
        Shown { name: "a cookie", query: String::new(), fields: format!("cookie: auth_token={good}\r\n") },
        query("token", &format!("auth_token={good}"), ""),
        query("token escaped", &format!("auth_token={}", good.replace('=', "%3D")), ""),
        query("token's name escaped", &format!("auth%5Ftoken={good}"), ""),
        query("token without padding", &format!("auth_token={bare}"), ""),
        query("token url-safe", &format!("auth_token={url_safe}"), ""),
        query("token with a line end", &format!("auth_token={}%0A{}", &good[..4], &good[4..]), ""),
        query("token with a scheme", &format!("auth_token=Basic%20{good}"), ""),
        query("token with a space", &format!("auth_token=%20{good}"), ""),
        query("token with a plus", &format!("auth_token=+{good}"), ""),
        query("token with junk", &format!("auth_token={good}!!"), ""),
        query("token in upper case", &format!("AUTH_TOKEN={good}"), ""),
        query("token as a list", &format!("auth_token[]={good}"), ""),
        query("token behind a semicolon", &format!("x=1;auth_token={good}"), ""),
        query("token empty", "auth_token=", ""),
        query("token wrong", &format!("auth_token={bad}"), ""),
        query("token right, header wrong", &format!("auth_token={good}"), &format!("Basic {bad}")),
        query("token wrong, header right", &format!("auth_token={bad}"), &right),
        query("token no base64, header right", "auth_token=!!", &right),
        query("token empty, header right", "auth_token=", &right),
        query("token without value, header right", "auth_token", &right),
        query("two tokens, the first right", &format!("auth_token={good}&auth_token={bad}"), ""),
        query("two tokens, the second right", &format!("auth_token={bad}&auth_token={good}"), ""),
        query("an empty token before a right one", &format!("auth_token=&auth_token={good}"), ""),
        query("a ticket", &format!("ticket={good}"), ""),
    ]
}

/// The relay's endpoints, and where to ask opencode the same.
const ENDPOINTS: [(&str, &str); 8] = [
    ("/event", "/event"),
    ("/global/event", "/global/event"),
    ("/api/event", "/api/event"),
    ("/session/ses_1/event", "/path"),
    ("/_relay/status", "/path"),
    ("/_relay/", "/path"),
    ("/_relay/metrics", "/path"),
    ("/_relay/nothing", "/path"),
];

/// In an outage these are refused where opencode would not; the right way is not guessed at.
const STRICTER: [&str; 3] = ["a byte order mark", "wrong, then right", "token with a line end"];

fn target(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Shows everything everywhere to both; returns how many requests were compared.
async fn compare(server: &Server, front: &Front, ways: &[Shown]) -> usize {
    let mut compared = 0;
    for (path, reference) in ENDPOINTS {
        for way in ways {
            for method in ["GET", "HEAD", "OPTIONS"] {
                let fields = format!("{}origin: http://localhost:3000\r\n", way.fields);
                let direct = say(server.address, &format!("{method} {}", target(reference, &way.query)), &fields).await;
                let relayed = say(front.address, &format!("{method} {}", target(path, &way.query)), &fields).await;
                let what = format!("{} {method} {path}: {relayed:?}\nbut opencode: {direct:?}", way.name);
                compared += 1;
                assert_eq!(relayed.door(), direct.door(), "{what}");
                if direct.status == "200" && reference == "/path" && method != "OPTIONS" {
                    // A page that there is not is told to those only who may know.
                    assert!(matches!(relayed.status.as_str(), "200" | "404"), "{what}");
                    continue;
                }
                assert_eq!(relayed.status, direct.status, "{what}");
                assert_eq!(relayed.get("content-type"), direct.get("content-type"), "{what}");
                if direct.status != "200" {
                    assert_eq!(relayed.body, direct.body, "{what}");
                }
            }
        }
    }
    compared
}

/// Waits until the relay knows the release, on which `/api/event` depends.
async fn ready(front: &Front) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while say(front.address, "GET /_relay/ready", "").await.status != "200" {
        assert!(Instant::now() < deadline, "not ready: {}", front.relay.output());
        sleep(Duration::from_millis(50)).await;
    }
}

/// The id of the first frame of a stream.
async fn an_id(front: &Front, fields: &str) -> String {
    let mut wire = crate::upstream::Wire::connect(front.address).await;
    wire.send(format!("GET /global/event HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
    wire.answer().await;
    let text = String::from_utf8(wire.chunk().await.unwrap()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned()
}

async fn with_a_password(version: &str, user: Option<&str>) {
    let mut env = vec![("OPENCODE_SERVER_PASSWORD", PASSWORD)];
    env.extend(user.map(|user| ("OPENCODE_SERVER_USERNAME", user)));
    let user = user.unwrap_or("opencode");
    let mut server = Server::start(version, &env).await;
    let right = format!("authorization: Basic {}\r\n", encode(&format!("{user}:{PASSWORD}")));
    assert_eq!(say(server.address, "GET /path", &right).await.status, "200");
    let knowing = server.relay("knowing", &env).await;
    let unknowing = server.relay("unknowing", &[]).await;
    ready(&knowing).await;
    let ways = ways(user);

    let compared = compare(&server, &knowing, &ways).await + compare(&server, &unknowing, &ways).await;
    let names = ENDPOINTS.len();
    println!(
        "| {version} | {user} | {names} endpoints × {} ways × 3 methods × 2 relays | {compared} equal |",
        ways.len()
    );

    // An id is no credential: with it there is nothing more to be had than without.
    let id = an_id(&knowing, &right).await;
    for (path, _) in ENDPOINTS {
        for (query, fields) in [
            (format!("?since={id}"), String::new()),
            (format!("?lastEventId={id}"), String::new()),
            (String::new(), format!("last-event-id: {id}\r\n")),
        ] {
            let plain = say(knowing.address, &format!("GET {path}"), "").await;
            let said = say(knowing.address, &format!("GET {path}{query}"), &fields).await;
            let same = |said: &Said| (said.status.clone(), said.body.clone(), said.get("x-relay-resume").is_none());
            assert_eq!((said.status.as_str(), same(&said)), ("401", same(&plain)), "{path}{query}");
        }
    }

    // What opencode would say to each, for the time when it cannot be asked.
    let mut admitted = Vec::new();
    for way in &ways {
        admitted.push(say(server.address, &format!("GET {}", target("/path", &way.query)), &way.fields).await.status);
    }
    server.end().await;
    for (path, _) in ENDPOINTS {
        for (way, direct) in ways.iter().zip(&admitted) {
            let start = format!("GET {}", target(path, &way.query));
            let (known, unknown) =
                (say(knowing.address, &start, &way.fields).await, say(unknowing.address, &start, &way.fields).await);
            let what = format!("outage, {} {path}: {known:?}", way.name);
            assert!(matches!(unknown.status.as_str(), "502" | "503"), "{what}\n{unknown:?}");
            // Whether this opencode has that stream is not known while it is away.
            if path == "/api/event" && known.status == "502" {
                continue;
            }
            if direct == "200" && !STRICTER.contains(&way.name) {
                assert!(matches!(known.status.as_str(), "200" | "404"), "{what}");
            } else {
                let realm = Some("Basic realm=\"Secure Area\"");
                assert_eq!((known.status.as_str(), known.get("www-authenticate")), ("401", realm), "{what}");
                assert_eq!(known.body, "", "{what}");
            }
        }
    }
}

async fn without_a_password(version: &str) {
    let server = Server::start(version, &[]).await;
    say(server.address, "GET /path", "").await;
    let front = server.relay("open", &[]).await;
    ready(&front).await;
    let ways = ways("opencode");
    let compared = compare(&server, &front, &ways).await;
    println!("| {version} | no password | {} ways | {compared} equal |", ways.len());
}

#[tokio::test]
async fn credentials_open_and_close_what_they_do_at_1_14_48() {
    bounded(with_a_password("1.14.48", None)).await;
}

#[tokio::test]
async fn credentials_open_and_close_what_they_do_at_1_18_34() {
    bounded(with_a_password("1.18.34", None)).await;
}

#[tokio::test]
async fn another_user_name_is_opencodes_user_name() {
    bounded(with_a_password("1.18.34", Some("somebody"))).await;
}

#[tokio::test]
async fn without_a_password_every_way_is_let_in_as_at_1_14_48() {
    bounded(without_a_password("1.14.48")).await;
}

#[tokio::test]
async fn without_a_password_every_way_is_let_in_as_at_1_18_34() {
    bounded(without_a_password("1.18.34")).await;
}
