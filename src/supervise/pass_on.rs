//! Passing on what the command says to the relay's own standard error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// How many chunks of output may wait for our standard error. Then output is left out, and counted.
const PASS_ON_CHUNKS: usize = 256;

/// How long the end of the output may take to be written.
const PASS_ON_FINISH: Duration = Duration::from_secs(1);

/// Writes to our standard error, on a thread of its own: when nobody reads that, the write hangs.
#[derive(Clone, Debug)]
pub(super) struct PassOn {
    chunks: mpsc::Sender<Vec<u8>>,
    left_out: Arc<AtomicU64>,
    finished: Arc<tokio::sync::Mutex<Option<oneshot::Receiver<()>>>>,
}

impl PassOn {
    /// To the relay's standard error.
    pub(super) fn to_stderr() -> Self {
        Self::to(std::io::stderr())
    }

    pub(super) fn to(mut target: impl std::io::Write + Send + 'static) -> Self {
        let (chunks, mut queue) = mpsc::channel::<Vec<u8>>(PASS_ON_CHUNKS);
        let left_out = Arc::new(AtomicU64::new(0));
        let (done, finished) = oneshot::channel();
        let lost = left_out.clone();
        let thread = std::thread::Builder::new().name("child-output".to_owned()).spawn(move || {
            while let Some(chunk) = queue.blocking_recv() {
                // A standard error that is closed is no reason to stop serving.
                let _ = target.write_all(&chunk);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(target, "opencode-relay: {lost} bytes of the command's output were left out, because standard error took nothing");
                }
            }
            let _ = target.flush();
            let _ = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread to pass the command's output on with");
        }
        Self { chunks, left_out, finished: Arc::new(tokio::sync::Mutex::new(Some(finished))) }
    }

    /// Writes whole lines, or leaves them out and counts them.
    pub(super) fn write(&self, lines: Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let length = lines.len() as u64;
        if self.chunks.try_send(lines).is_err() {
            self.left_out.fetch_add(length, Ordering::Relaxed);
        }
    }

    /// Waits, for a short time, until all is written.
    pub(super) async fn finish(self) {
        let finished = self.finished.lock().await.take();
        drop(self.chunks);
        if let Some(finished) = finished {
            let _ = tokio::time::timeout(PASS_ON_FINISH, finished).await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    /// What was written, for tests to look at.
    #[derive(Clone, Default)]
    pub(in crate::supervise) struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        pub(in crate::supervise) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Takes nothing until it is let go.
    struct Stuck(Written, std::sync::mpsc::Receiver<()>);

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once; afterwards the other end is gone, and that does not wait.
            let _ = self.1.recv();
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_left_out_and_counted() {
        let (go, wait) = std::sync::mpsc::sync_channel(0);
        let written = Written::default();
        let pass_on = PassOn::to(Stuck(written.clone(), wait));
        // One chunk is with the writer, the queue is full, and the rest has no place.
        for _ in 0..PASS_ON_CHUNKS + 100 {
            pass_on.write(b"line\n".to_vec());
        }
        drop(go);
        pass_on.finish().await;
        let text = written.text();
        assert!(text.contains("bytes of the command's output were left out"), "{text}");
        assert!(text.lines().filter(|line| *line == "line").count() >= PASS_ON_CHUNKS, "{text}");
    }
}
