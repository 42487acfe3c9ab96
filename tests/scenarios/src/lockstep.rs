//! Lock-step: an origin that sends its next piece only when the client has confirmed the one before.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that an origin waits for a confirmation.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client has confirmed so far; a clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Confirmed(Arc<(Mutex<usize>, Condvar)>);

impl Confirmed {
    /// One piece more arrived.
    pub fn confirm(&self) {
        let (count, changed) = &*self.0;
        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_all();
    }

    /// Forgets what was confirmed.
    pub fn reset(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Waits until so many pieces are confirmed; `false` when that takes longer than ten seconds.
    pub fn wait(&self, pieces: usize) -> bool {
        let (count, changed) = &*self.0;
        let until = Instant::now() + PATIENCE;
        let mut seen = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *seen < pieces {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = changed.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
