//! One exchange's hold on its virtual machine: waits for the plugin, and ends the stream whatever happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edgeweir_host_chain::Error;

use crate::stream::{Direction, LocalResponse, Signal, Stream, Verdict};
use crate::vm::{Trapped, Vm};
use crate::worker::{Gone, Place};

/// A stream of a virtual machine, from outside. Both messages hold it; see [`Ending`] for its end.
pub(crate) struct Exchange {
    pub(crate) place: Place,
    pub(crate) generation: u64,
    pub(crate) id: u32,
    pub(crate) signal: Arc<Signal>,
    over: AtomicBool,
    /// The client left in the middle of its request.
    left: AtomicBool,
}

/// What became of a message that waited for the plugin.
pub(crate) enum Outcome {
    /// It goes on.
    Go,
    /// The plugin answers.
    Reply(LocalResponse),
    /// The plugin resets the exchange.
    Close,
    /// The machine trapped.
    Gone,
}

impl Exchange {
    pub(crate) fn new(place: Place, generation: u64, id: u32, signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self {
            place,
            generation,
            id,
            signal,
            over: AtomicBool::new(false),
            left: AtomicBool::new(false),
        })
    }

    /// Notes that the request's body broke off: nobody waits for a response.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether it did.
    pub(crate) fn left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Does something on the machine, with exclusive use of it.
    pub(crate) async fn enter<R>(
        &self,
        act: impl FnOnce(&mut Vm) -> Result<R, Trapped>,
    ) -> Result<R, Gone> {
        self.place.0.enter(self.generation, act).await
    }

    /// Waits until a message that may be paused in its head goes on, or is decided otherwise.
    pub(crate) async fn released(&self, direction: Direction) -> Outcome {
        loop {
            let state = self.enter(|vm| {
                let Some(stream) = vm.stream(self.id) else {
                    return Ok(Some(Outcome::Close));
                };
                Ok(match stream.verdict.take() {
                    Some(verdict) => Some(verdict.into()),
                    None if stream.side(direction).paused => None,
                    None => Some(Outcome::Go),
                })
            });
            match state.await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => self.signal.of(direction).notified().await,
                Err(Gone) => return Outcome::Gone,
            }
        }
    }

    /// Waits until the plugin decides the exchange, or its machine is gone; never returns [`Outcome::Go`].
    pub(crate) async fn decided(&self) -> Outcome {
        loop {
            self.signal.verdict.notified().await;
            match self.verdict().await {
                Outcome::Go => {}
                outcome => return outcome,
            }
        }
    }

    /// The plugin's decision, if there is one.
    pub(crate) async fn verdict(&self) -> Outcome {
        let verdict =
            self.enter(|vm| Ok(vm.stream(self.id).and_then(|stream| stream.verdict.take())));
        match verdict.await {
            Ok(Some(verdict)) => verdict.into(),
            Ok(None) => Outcome::Go,
            Err(Gone) => Outcome::Gone,
        }
    }

    /// Looks at what the stream was when its machine trapped.
    pub(crate) async fn orphan<R>(&self, look: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        self.place.0.orphan(self.generation, self.id, look).await
    }

    fn end(self: &Arc<Self>) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        // Usually the machine is free. Else wait for it apart: a drop cannot.
        match self
            .place
            .0
            .try_enter(self.generation, |vm| vm.close(self.id))
        {
            Some(Ok(())) => {}
            // Not even its own machine: only what is left of it is to be forgotten.
            Some(Err(Gone)) | None => {
                let exchange = Arc::clone(self);
                if let Ok(tokio) = tokio::runtime::Handle::try_current() {
                    tokio.spawn(async move {
                        if exchange.enter(|vm| vm.close(exchange.id)).await.is_err() {
                            exchange
                                .place
                                .0
                                .forget(exchange.generation, exchange.id)
                                .await;
                        }
                    });
                }
            }
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Reply(reply) => Outcome::Reply(reply),
            Verdict::Close => Outcome::Close,
        }
    }
}

/// Ends the stream when it is dropped: with the response's last byte, or when the client leaves before.
pub(crate) struct Ending(pub(crate) Arc<Exchange>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A plugin reset the exchange: there is no response, and no other plugin is told of one.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plugin closed the stream")
    }
}

impl std::error::Error for Closed {}

/// The exchange was reset by the plugin.
pub(crate) fn closed() -> Error {
    Closed.into()
}

/// The plugin trapped when part of the message was gone or changed.
pub(crate) fn failed() -> Error {
    "the plugin trapped in the middle of the message".into()
}
