//! The host's clocks, read here only.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use edgeweir_filter::Timestamp;

use crate::bindings::wasi::clocks::{monotonic_clock, system_clock};

/// The wall clock now; zero before 1970.
pub(crate) fn now() -> Timestamp {
    let instant = system_clock::now();
    let seconds = u64::try_from(instant.seconds).unwrap_or(0);
    Timestamp(
        Timestamp::from_secs(seconds)
            .0
            .saturating_add(u64::from(instant.nanoseconds)),
    )
}

/// Waits.
pub(crate) async fn wait(time: Duration) {
    monotonic_clock::wait_for(nanos(time)).await;
}

/// The outcome of `work`, or `None` when it took longer than `limit`: it is dropped then, which cancels it.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // The clock's future starts when it is first polled: work that is ready at once costs no timer.
    let mut clock = pin!(monotonic_clock::wait_for(nanos(limit)));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        clock.as_mut().poll(cx).map(|()| None)
    })
    .await
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
