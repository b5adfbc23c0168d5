//! Reading what the command says: its address, its bus log, and the rest, which people want to see.
//!
//! The readers here never wait for anybody but the command: a pipe that is not drained would hold opencode back. Who cannot
//! keep up (the pipeline, our own standard error) gets less, and is told so.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};

use super::pass_on::PassOn;
use crate::ingest;
use crate::ingest::log::decode::{Lines, Piece, Words};
use crate::ingest::log::{self, Item, line};

/// How much is read at a time, in bytes; as much as a pipe holds.
const READ: usize = 64 * 1024;

/// How many items may wait for room in the pipeline's queue. Then what follows is a gap.
const BACKLOG_ITEMS: usize = 64 * 1024;

/// What opencode says on its standard output when it takes connections.
const LISTENING: &[u8] = b"opencode server listening on http://";

/// Reads standard output to its end: gives the address, passes everything on.
pub(super) async fn read_stdout(mut pipe: impl AsyncRead + Unpin, address: oneshot::Sender<String>, pass_on: PassOn) {
    let mut address = Some(address);
    let mut lines = Lines::default();
    read_chunks(&mut pipe, |chunk| {
        let mut passed = Vec::new();
        let mut each = |piece: Piece<'_>| {
            let text = add_line(&mut passed, piece);
            if address.is_some()
                && let Some(url) = listening_url(text)
                && let Some(address) = address.take()
            {
                let _ = address.send(url);
            }
        };
        match chunk {
            Some(chunk) => lines.push(chunk, &mut each),
            None => lines.finish(&mut each),
        }
        pass_on.write(passed);
    })
    .await;
}

/// Passes everything on, by lines, so that the command's and our own do not mix.
pub(super) async fn read_rest(mut pipe: impl AsyncRead + Unpin, pass_on: PassOn) {
    let mut lines = Lines::default();
    read_chunks(&mut pipe, |chunk| {
        let mut passed = Vec::new();
        let mut each = |piece: Piece<'_>| {
            add_line(&mut passed, piece);
        };
        match chunk {
            Some(chunk) => lines.push(chunk, &mut each),
            None => lines.finish(&mut each),
        }
        pass_on.write(passed);
    })
    .await;
}

/// Reads standard error to its end: gives the bus log to the pipeline, and passes lines on; without those of the bus if the
/// user did not ask for them.
pub(super) async fn read_stderr(
    mut pipe: impl AsyncRead + Unpin,
    mut backlog: Backlog,
    pass_on: PassOn,
    swallow_bus_lines: bool,
) {
    let mut buffer = vec![0; READ];
    let mut lines = Lines::default();
    let mut words = Words::default();
    loop {
        backlog.flush();
        let count = tokio::select! {
            // The pipe first: nothing else may hold it back.
            biased;
            count = pipe.read(&mut buffer) => count,
            () = backlog.room(), if !backlog.is_empty() => continue,
        };
        let mut passed = Vec::new();
        let mut each = |piece: Piece<'_>| {
            let own = match piece {
                Piece::Line(line) => line::is_bus(line),
                Piece::TooLong(_) => false,
            };
            if !(own && swallow_bus_lines) {
                add_line(&mut passed, piece);
            }
            // Each process says this once, and the backlog began with it; a second one was forged.
            if let Some(item) = words.item(piece).filter(|item| *item != Item::Started) {
                backlog.push(item);
            }
        };
        let ended = match count {
            Ok(count) if count > 0 => {
                lines.push(&buffer[..count], &mut each);
                false
            }
            Ok(_) | Err(_) => {
                lines.finish(&mut each);
                true
            }
        };
        pass_on.write(passed);
        if ended {
            break;
        }
    }
    // The command is gone: waiting holds nobody back now. The caller limits it.
    while !backlog.is_empty() {
        backlog.flush();
        backlog.room().await;
    }
}

/// Gives each chunk, and `None` at the end. A pipe that cannot be read has ended.
async fn read_chunks(pipe: &mut (impl AsyncRead + Unpin), mut each: impl FnMut(Option<&[u8]>)) {
    let mut buffer = vec![0; READ];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(count) if count > 0 => each(Some(&buffer[..count])),
            Ok(_) | Err(_) => return each(None),
        }
    }
}

/// Adds a line, with a newline, and gives its text.
fn add_line<'a>(passed: &mut Vec<u8>, piece: Piece<'a>) -> &'a [u8] {
    let (Piece::Line(text) | Piece::TooLong(text)) = piece;
    passed.extend_from_slice(text);
    passed.push(b'\n');
    text
}

/// The address in the line that opencode prints, in the form in which it can be connected to.
fn listening_url(line: &[u8]) -> Option<String> {
    let authority = std::str::from_utf8(line.strip_prefix(LISTENING)?).ok()?.trim_end().trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    // "All addresses" is an address to listen on, not one to connect to.
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" | "::" => "[::1]",
        host => host,
    };
    let named = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    named.then(|| format!("http://{host}:{port}"))
}

/// What the pipeline has not taken yet.
#[derive(Debug)]
pub(super) struct Backlog {
    out: ingest::Sender,
    /// Said before the first items.
    source: Option<String>,
    items: Vec<Item>,
    /// Items were left out behind those in `items`.
    overflowed: bool,
    /// Nobody takes messages any more; the pipe is still drained.
    closed: bool,
}

impl Backlog {
    /// For a process that starts.
    pub(super) fn new(out: ingest::Sender, source: String) -> Self {
        Self { out, source: Some(source), items: vec![Item::Started], overflowed: false, closed: false }
    }

    fn push(&mut self, item: Item) {
        if self.closed {
            return;
        }
        if self.items.len() < BACKLOG_ITEMS {
            self.items.push(item);
        } else {
            // Until there is room for all, so that the gap has one place.
            self.overflowed = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.closed || (self.items.is_empty() && self.source.is_none())
    }

    /// Sends what there is room for.
    fn flush(&mut self) {
        while !self.is_empty() {
            let permit = match self.out.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Full(())) => return,
                Err(mpsc::error::TrySendError::Closed(())) => {
                    self.closed = true;
                    return;
                }
            };
            let message = match self.source.take() {
                Some(source) => log::Message::Following { source },
                None => {
                    let mut items = std::mem::take(&mut self.items);
                    if std::mem::take(&mut self.overflowed) {
                        items.push(Item::Gap { reason: "queue-full" });
                    }
                    log::Message::Lines { items, position: None }
                }
            };
            permit.send(ingest::Message::Log(message));
        }
    }

    /// Waits until there is room, or nobody left to make any.
    async fn room(&self) {
        let _ = self.out.reserve().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::pass_on::tests::Written;
    use super::*;

    fn bus_line(kind: &str) -> String {
        format!("INFO  2026-11-23T00:39:15 +38ms service=bus type={kind} publishing\n")
    }

    #[test]
    fn reads_the_address() {
        for (host, expected) in [
            ("127.0.0.1:4096", Some("http://127.0.0.1:4096")),
            ("0.0.0.0:4096", Some("http://127.0.0.1:4096")),
            ("[::]:4096", Some("http://[::1]:4096")),
            ("localhost:1/", Some("http://localhost:1")),
            ("127.0.0.1", None),
            (":80", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:70000", None),
            ("user@host:80", None),
        ] {
            let line = format!("opencode server listening on http://{host}");
            assert_eq!(listening_url(line.as_bytes()).as_deref(), expected, "{host}");
        }
        assert_eq!(listening_url(b"x opencode server listening on http://127.0.0.1:4096"), None);
    }

    #[tokio::test]
    async fn gives_the_address_and_passes_all_on() {
        let written = Written::default();
        let pass_on = PassOn::to(written.clone());
        let (address, listening) = oneshot::channel();
        let output = &b"Warning: no password\nopencode server listening on http://127.0.0.1:4096\nlast"[..];
        read_stdout(output, address, pass_on.clone()).await;
        assert_eq!(listening.await.unwrap(), "http://127.0.0.1:4096");
        pass_on.finish().await;
        assert_eq!(written.text(), "Warning: no password\nopencode server listening on http://127.0.0.1:4096\nlast\n");
    }

    #[tokio::test]
    async fn swallows_only_lines_of_the_bus() {
        for (swallow, expected) in [(true, "banner\n".to_owned()), (false, format!("banner\n{}", bus_line("a.b")))] {
            let written = Written::default();
            let pass_on = PassOn::to(written.clone());
            let (out, mut queue) = mpsc::channel(4);
            let output = format!("banner\n{}", bus_line("a.b"));
            read_stderr(output.as_bytes(), Backlog::new(out, "here".to_owned()), pass_on.clone(), swallow).await;
            pass_on.finish().await;
            assert_eq!(written.text(), expected);
            let source = queue.recv().await;
            assert!(
                matches!(source, Some(ingest::Message::Log(log::Message::Following { source })) if source == "here")
            );
            let mut items = Vec::new();
            while let Some(ingest::Message::Log(log::Message::Lines { items: more, .. })) = queue.recv().await {
                items.extend(more);
            }
            assert_eq!(items, [Item::Started, Item::Notice { kind: "a.b".into() }]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_never_holds_the_pipe_back() {
        let (out, mut queue) = mpsc::channel(1);
        let pass_on = PassOn::to(Written::default());
        let (mut pipe, child) = tokio::io::duplex(READ);
        let backlog = Backlog::new(out, "here".to_owned());
        let reading = read_stderr(child, backlog, pass_on, true);
        let writing = async {
            let line = bus_line("message.part.delta");
            // Twice what fits. It must all be taken although nobody takes from the queue.
            for _ in 0..2 * BACKLOG_ITEMS {
                pipe.write_all(line.as_bytes()).await.unwrap();
            }
            drop(pipe);
            let mut items = Vec::new();
            while let Some(ingest::Message::Log(message)) = queue.recv().await {
                if let log::Message::Lines { items: more, .. } = message {
                    items.extend(more);
                }
            }
            items
        };
        let (items, ()) = tokio::join!(writing, reading);
        assert!(items.len() >= BACKLOG_ITEMS);
        assert_eq!(items.iter().filter(|item| **item == Item::Gap { reason: "queue-full" }).count(), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_still_drains_the_pipe() {
        let (out, queue) = mpsc::channel(1);
        drop(queue);
        let pass_on = PassOn::to(Written::default());
        let output = bus_line("a.b").repeat(10_000);
        read_stderr(output.as_bytes(), Backlog::new(out, "here".to_owned()), pass_on, true).await;
    }
}
