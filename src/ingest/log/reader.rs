//! Following what cannot be looked at twice: standard input.

use std::io;

use tokio::sync::mpsc;

use super::follow::{Closed, send};
use super::tail::READ;
use super::{Decoder, Message};
use crate::ingest::Sender;

/// How many chunks of standard input may wait.
const STDIN_QUEUE: usize = 4;

/// Follows what is read from a blocking reader, on a thread of its own: a read of standard input cannot be given up, and
/// must not keep the runtime from ending.
pub(super) async fn follow_reader(
    mut reader: impl io::Read + Send + 'static,
    name: String,
    out: &Sender,
) -> Result<(), Closed> {
    let (sender, mut chunks) = mpsc::channel(STDIN_QUEUE);
    let thread = std::thread::Builder::new().name("log-stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read any more");
                    break;
                }
            }
        }
    });
    if let Err(error) = thread {
        send(out, Message::Waiting { reason: format!("no thread to read standard input with: {error}") }).await?;
        return send(out, Message::Ended).await;
    }
    send(out, Message::Following { source: name }).await?;
    let mut decoder = Decoder::new();
    while let Some(chunk) = chunks.recv().await {
        let mut items = Vec::new();
        decoder.push(&chunk, &mut items);
        if !items.is_empty() {
            send(out, Message::Lines { items, position: None }).await?;
        }
    }
    let mut items = Vec::new();
    decoder.finish(&mut items);
    if !items.is_empty() {
        send(out, Message::Lines { items, position: None }).await?;
    }
    send(out, Message::Ended).await
}
