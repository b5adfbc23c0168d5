//! Questions that several clients ask at once in the same words: one is asked, and all have its answer.
//!
//! When a relay or its network comes back, all clients do, often with the same credentials for the same directory; opencode
//! answers with one thread, and each question of its own would cost a connection to it and the memory of that.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};

/// An answer on its way. Whoever has one of the clones moves it on; without clones it is given up.
pub(super) type Answer<T> = Shared<Asking<T>>;

type Asking<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The questions that are being asked, by their words. As many as there are clients that wait, at most.
#[derive(Debug)]
pub(super) struct Joint<T>(Arc<Mutex<Asked<T>>>);

#[derive(Debug)]
struct Asked<T> {
    /// How many there were.
    count: u64,
    answers: HashMap<Vec<u8>, (u64, WeakShared<Asking<T>>)>,
}

impl<T> Default for Joint<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Asked { count: 0, answers: HashMap::new() })))
    }
}

impl<T: Clone + Send + Sync + 'static> Joint<T> {
    /// The answer to the question that is being asked in these words, or else to the one that `ask` asks.
    pub(super) fn ask<F>(&self, words: &[u8], ask: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut asked = lock(&self.0);
        if let Some(answer) = asked.answers.get(words).and_then(|(_, answer)| answer.upgrade()) {
            return answer;
        }
        asked.count += 1;
        let number = asked.count;
        let (entry, answer) = (Entry { asked: self.0.clone(), words: words.to_vec(), number }, ask());
        let answer = async move {
            let _entry = entry;
            answer.await
        };
        let answer = answer.boxed().shared();
        if let Some(weak) = answer.downgrade() {
            asked.answers.insert(words.to_vec(), (number, weak));
        }
        answer
    }
}

/// Takes a question off the list once it is answered or given up: an answer is for those who came before it.
struct Entry<T> {
    asked: Arc<Mutex<Asked<T>>>,
    words: Vec<u8>,
    number: u64,
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        let mut asked = lock(&self.asked);
        if asked.answers.get(&self.words).is_some_and(|(number, _)| *number == self.number) {
            asked.answers.remove(&self.words);
        }
    }
}

fn lock<T>(asked: &Mutex<Asked<T>>) -> MutexGuard<'_, Asked<T>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    use super::*;

    /// Counts the questions, and holds the answers back.
    struct Opencode {
        asked: Arc<AtomicUsize>,
        answers: watch::Sender<u32>,
    }

    impl Opencode {
        fn new() -> Self {
            Self { asked: Arc::default(), answers: watch::channel(0).0 }
        }

        fn ask(&self) -> impl Future<Output = u32> + Send + 'static {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.subscribe();
            async move {
                let _ = answers.changed().await;
                *answers.borrow()
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn who_asks_the_same_meanwhile_has_the_same_answer() {
        let (opencode, joint) = (Opencode::new(), Joint::default());
        let one: Vec<_> = (0..3).map(|_| joint.ask(b"one", || opencode.ask())).collect();
        let two = joint.ask(b"two", || opencode.ask());
        assert_eq!(opencode.asked(), 2);
        opencode.answers.send_replace(7);
        for answer in one.into_iter().chain([two]) {
            assert_eq!(answer.await, 7);
        }
        let later = joint.ask(b"one", || opencode.ask());
        assert_eq!(opencode.asked(), 3);
        opencode.answers.send_replace(8);
        assert_eq!(later.await, 8);
        assert!(lock(&joint.0).answers.is_empty());
    }

    #[tokio::test]
    async fn a_question_lives_as_long_as_anybody_waits() {
        let (opencode, joint) = (Opencode::new(), Joint::default());
        let (mut first, second) = (joint.ask(b"", || opencode.ask()), joint.ask(b"", || opencode.ask()));
        assert!((&mut first).now_or_never().is_none());
        drop(first);
        opencode.answers.send_replace(7);
        assert_eq!(second.await, 7);
        assert_eq!(opencode.asked(), 1);
        let given_up = joint.ask(b"", || opencode.ask());
        assert_eq!(opencode.answers.receiver_count(), 1);
        drop(given_up);
        assert_eq!(opencode.answers.receiver_count(), 0);
        assert!(lock(&joint.0).answers.is_empty());
    }
}
