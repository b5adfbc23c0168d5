//! Whose turn it is in a request under way: a limit on opencode's silence must not count the time in which opencode
//! waits for the client.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// The body's side: says whose turn it is. Dropping it makes it opencode's for good.
#[derive(Debug)]
pub(super) struct Turn(watch::Sender<Option<Instant>>);

/// The waiting side.
#[derive(Debug)]
pub(super) struct Turns {
    hears: watch::Receiver<Option<Instant>>,
    limit: Duration,
}

/// It is nobody's turn until the request is on its way: connecting has a limit of its own.
pub(super) fn turns(limit: Duration) -> (Turn, Turns) {
    let (says, hears) = watch::channel(None);
    (Turn(says), Turns { hears, limit })
}

impl Turn {
    /// opencode has all that there is so far.
    pub(super) fn opencodes(&self) {
        self.0.send_replace(Some(Instant::now()));
    }

    /// opencode could take more, and the client has sent nothing.
    pub(super) fn clients(&self) {
        self.0.send_if_modified(|since| since.take().is_some());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.opencodes();
    }
}

impl Turns {
    /// Ends when it was opencode's turn for as long as the limit, and gives that.
    pub(super) async fn silence(mut self) -> Duration {
        let limit = self.limit;
        loop {
            let since = *self.hears.borrow_and_update();
            let changed = match since {
                None => self.hears.changed().await,
                Some(since) => match timeout(left(since, limit), self.hears.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => return limit,
                },
            };
            if changed.is_err() {
                // The request is there as a whole: nothing will change any more but the time.
                let since = self.hears.borrow().unwrap_or_else(Instant::now);
                sleep(left(since, limit)).await;
                return limit;
            }
        }
    }
}

/// What is left of a limit; a sum would overflow with one that means "never".
fn left(since: Instant, limit: Duration) -> Duration {
    limit.saturating_sub(since.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_time_of_the_client_does_not_count() {
        let (turn, turns) = turns(LIMIT);
        let mut silence = std::pin::pin!(turns.silence());
        let mut lasts =
            async |seconds| tokio::time::timeout(Duration::from_secs(seconds), silence.as_mut()).await.is_err();
        assert!(lasts(60).await, "nothing was sent yet");
        turn.opencodes();
        assert!(lasts(9).await);
        turn.clients();
        assert!(lasts(60).await, "it waits for the client");
        turn.opencodes();
        assert!(lasts(9).await);
        turn.opencodes();
        assert!(lasts(9).await, "it has just taken something");
        drop(turn);
        assert!(lasts(9).await, "it has just got the end");
        assert!(!lasts(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_may_be_longer_than_time() {
        let (turn, turns) = turns(Duration::MAX);
        turn.opencodes();
        let mut silence = std::pin::pin!(turns.silence());
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, silence.as_mut()).await.is_err());
        drop(turn);
        assert!(tokio::time::timeout(day, silence.as_mut()).await.is_err());
    }
}
