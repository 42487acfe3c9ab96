//! Waiting at a gate that another exchange of this instance opens.
//!
//! Each exchange is a component-model task of its own, and a Rust waker of one can't wake another. So whoever waits reads
//! a stream that nobody writes to, and the gate drops its other end: the host's doing, and no cost to tasks that do not
//! wait at gates.

use std::time::Duration;

use edgeweir_filter::Gate;
use wit_bindgen::StreamWriter;

use crate::bindings::wit_stream;
use crate::time;

/// Waits until the gate opens, or is gone, and no longer than `limit`.
pub(crate) async fn wait(gate: &Gate, limit: Duration) {
    if gate.is_open() {
        return;
    }
    let (closed, mut reader) = wit_stream::new::<u8>();
    gate.on_open(opener(closed));
    // Nothing is ever read: the read ends when the other end is dropped.
    let _ = time::within(limit, reader.read(Vec::with_capacity(1))).await;
}

fn opener(closed: StreamWriter<u8>) -> impl FnOnce() + 'static {
    move || drop(closed)
}
