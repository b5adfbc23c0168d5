//! `healthcheck`: whether a relay does its work, as an exit code.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde_json::Value;

use crate::cli::server::Server;
use crate::client::{Client, SendError};
use crate::config::{self, Mistakes};
use crate::printable;

/// The usual limit; shorter than the 30 s after which containers lose patience.
const LIMIT: &str = "5s";

/// The longest answer that is read, in bytes; the relay's have less than a hundred.
const ANSWER: usize = 64 << 10;

/// Most letters of somebody's reason that are told.
const REASON: usize = 500;

/// What can be written behind `healthcheck`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "`--help` shows examples.",
    after_long_help = "\
EXAMPLES
  In a container, with the settings of the relay that runs there:
      HEALTHCHECK CMD [\"opencode-relay\", \"healthcheck\", \"--quiet\"]

  Before traffic is sent to it:
      opencode-relay healthcheck --ready http://relay.example:4097

Exit codes: 0 yes, 1 no (the reason is on standard error), 2 wrong usage or settings. No password is sent: a relay answers
this without one."
)]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,

    /// Ask whether it is ready (connected to its opencode) instead of whether it runs
    #[arg(long)]
    pub ready: bool,

    /// Print nothing where all is well
    #[arg(long, short)]
    pub quiet: bool,

    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = LIMIT, value_parser = config::duration)]
    pub timeout: Duration,
}

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was written is wrong; exit code 2.
    #[error(transparent)]
    Usage(#[from] Mistakes),
    /// No answer, or no good one; the message can follow "failed to".
    #[error("{0}")]
    Failed(String),
}

/// Asks; the line that says that all is well.
///
/// # Errors
///
/// When the settings are wrong, or it is not well.
pub fn run(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Option<String>, Error> {
    let mut client = flags.server.client(environment)?;
    client.authorization = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Failed(format!("start the runtime: {error}")))?;
    let asked = async {
        let whole = tokio::time::timeout(flags.timeout, ask(&client, flags)).await;
        whole.unwrap_or_else(|_| Err(SendError::Slow { place: client.place.clone(), limit: flags.timeout }.to_string()))
    };
    let line = runtime.block_on(asked).map_err(Error::Failed)?;
    Ok((!flags.quiet).then_some(line))
}

async fn ask(client: &Client, flags: &Flags) -> Result<String, String> {
    let path = if flags.ready { "/_relay/ready" } else { "/_relay/health" };
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = http::Uri::from_static(path);
    let response = client.send(request, flags.timeout).await.map_err(|error| match &error {
        SendError::Unreachable { .. } => format!("{error}; no relay listens there"),
        _ => error.to_string(),
    })?;
    let (head, body) = response.into_parts();
    let place = &client.place;
    let kind =
        head.headers.get(CONTENT_TYPE).map_or(String::new(), |kind| String::from_utf8_lossy(kind.as_bytes()).into());
    let body = body.collect(ANSWER).await.map_err(|error| format!("read the answer of {place}: {error}"))?;
    let answer: Value = match kind.starts_with("application/json") {
        true => serde_json::from_slice(&body).unwrap_or_default(),
        false => Value::Null,
    };
    match judged(head.status, &answer) {
        Judgement::Good(words) => Ok(format!("{place} {}", printable::text(&words))),
        Judgement::Bad(reason) => Err(format!("find {place} ready: {}", printable::text(&reason))),
        Judgement::NoRelay => {
            let status = head.status.as_u16();
            let kind = if kind.is_empty() { "without a type" } else { &kind };
            let kind: String = kind.chars().take(REASON).collect();
            Err(format!(
                "find a relay at {place}: GET {path} was answered with {status}, {}; is it opencode itself, or a proxy?",
                printable::text(&kind)
            ))
        }
    }
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Good(String),
    Bad(String),
    /// Nothing that a relay says.
    NoRelay,
}

fn judged(status: StatusCode, answer: &Value) -> Judgement {
    let (healthy, ready) = (&answer["healthy"], &answer["ready"]);
    match status {
        StatusCode::OK if *healthy == true => {
            let version: String = answer["version"].as_str().unwrap_or_default().chars().take(REASON).collect();
            Judgement::Good(format!("is healthy: opencode-relay {version}"))
        }
        StatusCode::OK if *ready == true => Judgement::Good("is ready".to_owned()),
        StatusCode::SERVICE_UNAVAILABLE if *ready == false => {
            let reason = answer["reason"].as_str().unwrap_or("it does not say why");
            Judgement::Bad(reason.chars().take(REASON).collect())
        }
        _ => Judgement::NoRelay,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_relays_words_count() {
        let good =
            |status: u16, answer| matches!(judged(StatusCode::from_u16(status).unwrap(), &answer), Judgement::Good(_));
        assert!(good(200, json!({"healthy": true, "version": "1"})) && good(200, json!({"ready": true})));
        for (status, answer) in [
            (200, Value::Null),
            (200, json!({})),
            (200, json!({"healthy": "true"})),
            (200, json!({"healthy": false})),
            (500, json!({"healthy": true})),
            (503, json!({"healthy": true})),
        ] {
            assert_eq!(judged(StatusCode::from_u16(status).unwrap(), &answer), Judgement::NoRelay, "{status} {answer}");
        }
        let not_ready = judged(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "reason": "no stream"}));
        assert_eq!(not_ready, Judgement::Bad("no stream".into()));
    }
}
