//! Waits with a bound.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long what is waited for has not come. The time in which nobody waits does not count.
pub struct Silence {
    limit: Duration,
    over: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Silence {
    /// At most so long.
    pub const fn new(limit: Duration) -> Self {
        Self {
            limit,
            over: None,
            waiting: false,
        }
    }

    /// The longest there may be.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// It came.
    pub fn broken(&mut self) {
        self.waiting = false;
    }

    /// It is waited for; ready when that has been so for too long.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let over = self
            .over
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !std::mem::replace(&mut self.waiting, true) {
            over.as_mut().reset(Instant::now() + limit);
        }
        over.as_mut().poll(cx)
    }
}
