//! Whether and when to start the command again. Pure: time is an argument.

use std::time::Duration;

use super::Exit;
use super::lifeline::Ending;

/// The first wait before starting again; it doubles with each crash.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// After listening for this long, a crash is the first one again.
const HEALTHY: Duration = Duration::from_secs(60);

/// After this many starts in a row that never listened, starting again is given up.
pub(super) const STARTS_WITHOUT_LISTENING: u32 = 5;

/// What to do after the command ended by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It ended in good order: so does the relay.
    End(Exit),
    /// Start it again after this wait.
    Restart(Duration),
    /// It does not work: hand its code on.
    GiveUp(Exit),
}

/// Counts the crashes.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// Starts in a row that never listened.
    deaf: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST, deaf: 0 }
    }

    /// The command ended. `listened_for` is how long it took connections, if it ever did; `jitter`, from 0 to 1, keeps many
    /// relays from starting their commands at the same moment.
    pub(super) fn after(&mut self, ending: Ending, listened_for: Option<Duration>, jitter: f64) -> Verdict {
        if ending == Ending::Exited(0) {
            return Verdict::End(Exit(0));
        }
        match listened_for {
            None => self.deaf += 1,
            Some(time) => {
                self.deaf = 0;
                if time >= HEALTHY {
                    self.next = FIRST;
                }
            }
        }
        if self.deaf >= STARTS_WITHOUT_LISTENING {
            return Verdict::GiveUp(ending.exit());
        }
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        Verdict::Restart(wait.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Ending = Ending::Exited(1);
    const BRIEFLY: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn doubles_up_to_the_longest_and_starts_over_after_health() {
        let mut backoff = Backoff::new();
        for expected in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let expected = Duration::from_secs_f64(expected);
            assert_eq!(backoff.after(CRASH, BRIEFLY, 0.0), Verdict::Restart(expected));
        }
        assert_eq!(backoff.after(CRASH, Some(HEALTHY), 0.0), Verdict::Restart(FIRST));
    }

    #[test]
    fn jitter_only_shortens() {
        for jitter in [0.0, 0.5, 1.0, f64::INFINITY] {
            let Verdict::Restart(wait) = Backoff::new().after(CRASH, BRIEFLY, jitter) else { panic!("no restart") };
            assert!(wait <= FIRST && wait >= FIRST.mul_f64(0.79), "{wait:?}");
        }
    }

    #[test]
    fn gives_up_after_five_deaf_starts() {
        let mut backoff = Backoff::new();
        for _ in 1..STARTS_WITHOUT_LISTENING {
            assert!(matches!(backoff.after(CRASH, None, 0.0), Verdict::Restart(_)));
        }
        assert_eq!(backoff.after(Ending::Signaled(9), None, 0.0), Verdict::GiveUp(Exit(137)));
    }

    #[test]
    fn a_start_that_listened_sets_the_count_back() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            assert!(matches!(backoff.after(CRASH, None, 0.0), Verdict::Restart(_)));
            assert!(matches!(backoff.after(CRASH, BRIEFLY, 0.0), Verdict::Restart(_)));
        }
    }

    #[test]
    fn a_good_end_ends() {
        assert_eq!(Backoff::new().after(Ending::Exited(0), None, 0.0), Verdict::End(Exit(0)));
    }
}
