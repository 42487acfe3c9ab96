//! How long a guest keeps an exchange waiting. What it waits for itself, of the layers below or of the client, is not its doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use edgeweir_host_chain::Silence;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Limits;
use crate::instance::GRACE;

/// When something of an exchange last came to its guest or from it, and whether the guest waits for something outside.
pub(crate) struct Quiet {
    began: Instant,
    /// Milliseconds from then on.
    moved: AtomicU64,
    outside: AtomicUsize,
    left: watch::Sender<bool>,
    timeout: Duration,
    pub(crate) idle: Duration,
    /// The longest bound of a wait outside, milliseconds.
    longest: AtomicU64,
}

impl Quiet {
    /// With the bounds of a plugin.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            left: watch::Sender::new(false),
            timeout: limits.timeout,
            idle: limits.idle,
            longest: AtomicU64::new(milliseconds(limits.idle)),
            began: Instant::now(),
            moved: AtomicU64::new(0),
            outside: AtomicUsize::new(0),
        })
    }

    /// Something moved.
    pub(crate) fn broken(&self) {
        let at = milliseconds(self.began.elapsed());
        self.moved.fetch_max(at, Relaxed);
    }

    fn since(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Relaxed))
    }

    /// The guest waits for something outside until this is dropped.
    pub(crate) fn outside(self: &Arc<Self>) -> Outside {
        self.outside.fetch_add(1, Relaxed);
        self.broken();
        Outside(self.clone())
    }

    /// As [`Quiet::outside`], for something with a bound of its own.
    pub(crate) fn outside_for(self: &Arc<Self>, most: Duration) -> Outside {
        self.longest.fetch_max(milliseconds(most), Relaxed);
        self.outside()
    }

    /// The longest anything outside may be waited for.
    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Relaxed)) + GRACE
    }

    /// Whether the guest itself is waited for: nothing outside is, or for longer than there is anything to come.
    pub(crate) fn is_the_guests(&self) -> bool {
        self.outside.load(Relaxed) == 0 || self.since().elapsed() >= self.longest()
    }

    /// Nobody wants more of the response.
    pub(crate) fn leave(&self) {
        self.left.send_replace(true);
    }

    /// Ready when that is so.
    pub(crate) async fn left(self: Arc<Self>) {
        // The sender is in `self`: the wait ends only so.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// For one of the guest's bodies.
    pub(crate) fn silence(&self) -> Silence {
        Silence::new(self.timeout)
    }

    /// Ready when nothing came of the guest for its `timeout`.
    pub(crate) async fn over(&self) {
        loop {
            let end = self.since() + self.timeout;
            if Instant::now() < end {
                tokio::time::sleep_until(end).await;
            } else if self.is_the_guests() {
                return;
            } else {
                let last = self.since() + self.longest();
                tokio::time::sleep_until(last.min(Instant::now() + self.timeout)).await;
            }
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A wait for something outside.
pub(crate) struct Outside(Arc<Quiet>);

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.broken();
        self.0.outside.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Arc<Quiet> {
        Quiet::new(&Limits {
            timeout: Duration::from_secs(10),
            idle: Duration::from_secs(100),
            ..Limits::default()
        })
    }

    async fn seconds(quiet: &Quiet) -> u64 {
        let began = Instant::now();
        quiet.over().await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_guests_own_time_ends() {
        assert_eq!(seconds(&quiet()).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_begins_it_anew() {
        let quiet = quiet();
        let moving = quiet.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                moving.broken();
            }
        });
        assert_eq!(seconds(&quiet).await, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_outside_is_not_the_guests_and_has_an_end() {
        let quiet = quiet();
        let outside = quiet.outside();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(70)).await;
            drop(outside);
        });
        assert_eq!(seconds(&quiet).await, 80);
        let _for_ever = quiet.outside();
        assert_eq!(seconds(&quiet).await, 101);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_the_bound_it_names() {
        let quiet = quiet();
        let _for_ever = quiet.outside_for(Duration::from_secs(200));
        assert_eq!(seconds(&quiet).await, 201);
    }
}
