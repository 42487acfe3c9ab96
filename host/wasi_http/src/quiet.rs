//! How long a guest keeps an exchange waiting. What it waits for itself, of the layers below or of the client, is not its doing.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
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
    trapped: AtomicBool,
    timeout: Duration,
    pub(crate) idle: Duration,
}

impl Quiet {
    /// With the bounds of a plugin.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            left: watch::Sender::new(false),
            trapped: AtomicBool::new(false),
            timeout: limits.timeout,
            idle: limits.idle,
            began: Instant::now(),
            moved: AtomicU64::new(0),
            outside: AtomicUsize::new(0),
        })
    }

    /// Something moved.
    pub(crate) fn broken(&self) {
        let at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
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

    /// Whether the guest itself is waited for: nothing outside is, or for longer than there is anything to come.
    pub(crate) fn is_the_guests(&self) -> bool {
        self.outside.load(Relaxed) == 0 || self.since().elapsed() >= self.idle + GRACE
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

    /// The guest of wasi:http 0.2 trapped: its bodies end here, and are not whole. To be said before its store is dropped.
    pub(crate) fn trap(&self) {
        self.trapped.store(true, Release);
    }

    pub(crate) fn is_trapped(&self) -> bool {
        self.trapped.load(Acquire)
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
                let last = self.since() + self.idle + GRACE;
                tokio::time::sleep_until(last.min(Instant::now() + self.timeout)).await;
            }
        }
    }
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
}
