//! Locks that nobody is locked out of.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards, also where a holder of it panicked: the panic was reported where it happened, and whoever uses this
/// changes what is guarded in whole steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
