//! A model that says what it is told to, behind the HTTP API every OpenAI-compatible provider has.
//!
//! The last user message directs the answer:
//!
//! * `WORDS=n DELAY=ms`: n words (`word0 word1 …`), one chunk each, `ms` apart (3 and 0 if not given);
//! * ``TOOL=name ARGS=`{…}` ``: first a call of that tool with those arguments, and when its result is there, the words.
//!
//! The same file serves the tests and `examples/scripted_model.rs`, so it names nothing of either.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The only model there is, under this name for every key.
pub(crate) const MODEL: &str = "scripted-1";

/// What requests for a title are answered with.
pub(crate) const TITLE: &str = "A scripted title";

const DEFAULT_WORDS: usize = 3;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server; dropping it ends it and every answer under way.
pub(crate) struct ScriptedModel {
    address: SocketAddr,
    words: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl ScriptedModel {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let words = Arc::new(AtomicUsize::new(0));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&words)));
        Ok(Self { address, words, _server: server })
    }

    /// What to set as the provider's `baseURL`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many words were streamed so far, all answers together; titles do not count.
    pub(crate) fn words_sent(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.words)
    }
}

async fn accept(listener: TcpListener, words: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            // Out of descriptors, most likely: a pause, or the loop spins.
            Err(_) => {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let words = Arc::clone(&words);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&words)));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, words: Arc<AtomicUsize>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().trim_start_matches("/v1");
    Ok(match (request.method(), path) {
        (&Method::GET, "/models") => json_answer(
            StatusCode::OK,
            &json!({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "scripted"}]}),
        ),
        (&Method::POST, "/chat/completions") => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes());
            match body
                .map_err(|error| error.to_string())
                .and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()))
            {
                Ok(request) => complete(&request, words),
                Err(error) => json_answer(
                    StatusCode::BAD_REQUEST,
                    &json!({"error": {"message": error, "type": "invalid_request_error"}}),
                ),
            }
        }
        _ => json_answer(
            StatusCode::NOT_FOUND,
            &json!({"error": {"message": "no such path", "type": "invalid_request_error"}}),
        ),
    })
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn complete(request: &Value, words: Arc<AtomicUsize>) -> Response<Body> {
    let script = Script::of(request);
    if request["stream"] != json!(true) {
        return json_answer(StatusCode::OK, &script.whole());
    }
    let counts = !matches!(script.say, Say::Title);
    let delay = script.delay;
    let steps = stream::unfold(script.chunks().into_iter().enumerate(), move |mut chunks| {
        let words = Arc::clone(&words);
        async move {
            let (index, chunk) = chunks.next()?;
            if index > 0 {
                sleep(delay).await;
            }
            if counts && chunk.is_word {
                words.fetch_add(1, Ordering::Relaxed);
            }
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(chunk.text))), chunks))
        }
    });
    let mut response = Response::new(StreamBody::new(steps).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

/// What one request is answered with.
struct Script {
    say: Say,
    delay: Duration,
    id: String,
}

enum Say {
    Words(usize),
    Title,
    Tool { name: String, arguments: String },
}

struct Chunk {
    text: String,
    is_word: bool,
}

impl Script {
    fn of(request: &Value) -> Self {
        static ANSWERS: AtomicUsize = AtomicUsize::new(0);
        let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let id = ANSWERS.fetch_add(1, Ordering::Relaxed).to_string();
        let has_tools = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
        let mut system = messages.iter().filter(|message| message["role"] == "system");
        if !has_tools && system.any(|message| text(message).contains("title")) {
            return Self { say: Say::Title, delay: Duration::ZERO, id };
        }
        let last_user = messages.iter().rposition(|message| message["role"] == "user");
        let (orders, after) = last_user
            .map_or_else(|| (String::new(), messages), |index| (text(&messages[index]), &messages[index + 1..]));
        let has_result = after.iter().any(|message| message["role"] == "tool");
        let tool = word_after(&orders, "TOOL=").filter(|_| has_tools && !has_result);
        let say = match tool {
            Some(name) => Say::Tool { name: name.to_owned(), arguments: arguments(&orders) },
            None => Say::Words(word_after(&orders, "WORDS=").and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_WORDS)),
        };
        let delay = word_after(&orders, "DELAY=").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        Self { say, delay: Duration::from_millis(delay), id }
    }

    /// The answer in one piece, for those who did not ask for a stream.
    fn whole(&self) -> Value {
        let message = match &self.say {
            Say::Words(n) => {
                json!({"role": "assistant", "content": Vec::from_iter((0..*n).map(|i| format!("word{i}"))).join(" ")})
            }
            Say::Title => json!({"role": "assistant", "content": TITLE}),
            Say::Tool { name, arguments } => {
                json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": format!("call_{}", self.id), "type": "function", "function": {"name": name, "arguments": arguments}}]})
            }
        };
        json!({"id": format!("answer-{}", self.id), "object": "chat.completion", "created": 0, "model": MODEL,
               "choices": [{"index": 0, "message": message, "finish_reason": self.reason()}], "usage": usage()})
    }

    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = vec![self.chunk(&json!({"role": "assistant", "content": ""}), None, false)];
        match &self.say {
            Say::Words(n) => {
                chunks.extend((0..*n).map(|i| self.chunk(&json!({"content": format!("word{i} ")}), None, true)));
            }
            Say::Title => chunks.push(self.chunk(&json!({"content": TITLE}), None, true)),
            Say::Tool { name, arguments } => chunks.push(self.chunk(
                &json!({"tool_calls": [{"index": 0, "id": format!("call_{}", self.id), "type": "function",
                        "function": {"name": name, "arguments": arguments}}]}),
                None,
                false,
            )),
        }
        chunks.push(self.chunk(&json!({}), Some(self.reason()), false));
        chunks.push(Chunk { text: "data: [DONE]\n\n".to_owned(), is_word: false });
        chunks
    }

    fn chunk(&self, delta: &Value, reason: Option<&str>, is_word: bool) -> Chunk {
        let mut value = json!({"id": format!("answer-{}", self.id), "object": "chat.completion.chunk", "created": 0, "model": MODEL,
                               "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
        if reason.is_some() {
            value["usage"] = usage();
        }
        Chunk { text: format!("data: {value}\n\n"), is_word }
    }

    fn reason(&self) -> &'static str {
        if matches!(self.say, Say::Tool { .. }) { "tool_calls" } else { "stop" }
    }
}

fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20})
}

/// The text of a message, whose content is a string or a list of parts.
fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => Vec::from_iter(parts.iter().filter_map(|part| part["text"].as_str())).join("\n"),
        _ => String::new(),
    }
}

fn word_after<'a>(orders: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = orders.split_once(key)?;
    rest.split_whitespace().next()
}

/// What stands between the backticks after `ARGS=`.
fn arguments(orders: &str) -> String {
    let quoted = orders.split_once("ARGS=`").and_then(|(_, rest)| rest.split_once('`'));
    quoted.map_or("{}", |(arguments, _)| arguments).to_owned()
}
