//! opencode with a password: the relay's door is as wide as opencode's, and the password stays a secret.

use base64::Engine as _;
use http::{Method, StatusCode};

use super::fixture::{SOON, Served, bounded};
use crate::support::http::{Api, send};
use crate::support::opencode::Home;
use crate::support::sse::Stream;

const PASSWORD: &str = "kept-between-us";

#[tokio::test]
async fn the_password_opens_what_opencode_opens() {
    bounded(async {
        // At its most talkative, so that it shows what it ever could.
        let with_password = |model: &_| Home::new("1.14.48", model).with_password(PASSWORD);
        let served = Served::start_with(with_password, &["--log-level", "trace"]).await;
        let token = base64::engine::general_purpose::STANDARD.encode(format!("opencode:{PASSWORD}"));

        for path in ["/event", "/global/event", "/session", "/_relay/status", "/session/ses_none/event"] {
            for credentials in [vec![], vec!["-u", "opencode:wrong"], vec!["-u", &format!("other:{PASSWORD}")]] {
                let refused = head(&served, path, &credentials).await;
                assert!(refused.starts_with("HTTP/1.1 401 "), "{path}: {refused}");
                let realm = "\nwww-authenticate: Basic realm=\"Secure Area\"";
                assert!(refused.contains(realm), "{path}: {refused}");
            }
        }
        let wrong = send(Method::GET, &served.url("/event?auth_token=d3Jvbmc="), &[], "").await.unwrap();
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
        let open = send(Method::GET, &served.url("/_relay/health"), &[], "").await.unwrap();
        assert_eq!(open.status, StatusCode::OK);
        let status = send(Method::GET, &served.url(&format!("/_relay/status?auth_token={token}")), &[], "").await;
        assert_eq!(status.unwrap().status, StatusCode::OK);

        let by_token =
            Stream::open(&Api::new(served.relay.base()), &format!("/event?auth_token={token}")).await.unwrap();
        let user = format!("opencode:{PASSWORD}");
        let curl = served.tool("curl", &["-sN", "-u", &user, &served.url("/event")]);
        let events = served.turn(&curl, |line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).await;
        served.compare(&events);
        by_token.wait_for(|frame| frame.kind() == "session.idle", SOON).await;

        // Neither in what it prints nor in what it tells of itself.
        let mut told = served.relay.output();
        told.push_str(&served.relay.api().get("/_relay/status").await.to_string());
        let secrets = [PASSWORD, &token, token.trim_end_matches('=')];
        let leaks = told.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret)));
        assert_eq!(Vec::from_iter(leaks), Vec::<&str>::new());
        assert!(told.lines().any(|line| line.contains("answered") && line.contains("/event")), "it talks at all");
    })
    .await;
}

/// The head that curl gets.
async fn head(served: &Served, path: &str, credentials: &[&str]) -> String {
    let mut arguments = vec!["-s", "-o", "/dev/null", "-D", "-"];
    arguments.extend(credentials);
    let url = served.url(path);
    arguments.push(&url);
    let mut curl = served.tool("curl", &arguments);
    curl.wait(SOON).await;
    curl.stdout.wait_closed(SOON).await;
    let lines = curl.stdout.from(0).into_iter().map(|line| line.text);
    Vec::from_iter(lines).join("\n")
}
