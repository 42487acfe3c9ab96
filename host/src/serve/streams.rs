//! What is under way on an HTTP/2 connection: whether it is idle, and whose response nobody takes.
//!
//! Over HTTP/1.1 a client that reads nothing stops the connection, which can be watched. Over HTTP/2 it stops a stream by
//! giving it no window, and the connection says nothing of that: only that the body is not asked for more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use edgeweir_host_chain::{Body, Error, Response, lock};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request, where none is under way.
    pub idle: Duration,
    /// For the client to take the next piece of a response.
    pub stall: Duration,
}

/// What a look at the streams found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing was under way for too long.
    Idle,
    /// Nothing can be late before then.
    Until(Instant),
}

/// The exchanges of one connection.
pub struct Streams(Mutex<Known>);

struct Known {
    next: u64,
    under_way: BTreeMap<u64, Option<Arc<Mutex<Giving>>>>,
    /// When the last exchange ended.
    since: Instant,
}

/// A response body on its way.
struct Giving {
    /// None once the client was given up.
    body: Option<Body>,
    /// When the head was there, or it gave a piece, where nothing was asked for since.
    gave: Option<Instant>,
}

impl Streams {
    /// Of a connection that opens now.
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Known {
            next: 0,
            under_way: BTreeMap::new(),
            since: now,
        })))
    }

    /// A place for an exchange that begins.
    pub fn enter(self: &Arc<Self>) -> Place {
        let mut known = self.known();
        let number = known.next;
        known.next += 1;
        known.under_way.insert(number, None);
        Place {
            streams: self.clone(),
            number,
        }
    }

    /// Lets go of the bodies whose next piece nobody asks for, and says when to look again.
    pub fn look(&self, now: Instant, patience: Patience) -> Found {
        let mut given_up = Vec::new();
        let mut known = self.known();
        // Whatever begins or gives from now on is late no sooner than that.
        let mut next = now + patience.idle.min(patience.stall);
        known.under_way.retain(|_, giving| {
            let Some(giving) = giving else { return true };
            // Whoever has it is asking.
            let Ok(mut giving) = giving.try_lock() else {
                return true;
            };
            let Some(due) = giving.gave.map(|gave| gave + patience.stall) else {
                return true;
            };
            if due > now {
                next = next.min(due);
                return true;
            }
            given_up.extend(giving.body.take());
            false
        });
        if !given_up.is_empty() {
            tracing::debug!(
                streams = given_up.len(),
                "the client took nothing of their bodies for {:?}",
                patience.stall
            );
            known.since = known.since.max(now);
        }
        let idle = known.under_way.is_empty();
        let due = known.since + patience.idle;
        drop(known);
        // What ends with a body is not for under the lock.
        drop(given_up);
        match idle {
            true if due <= now => Found::Idle,
            true => Found::Until(due.min(next)),
            false => Found::Until(next),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

/// One exchange among those under way, until it is dropped.
pub struct Place {
    streams: Arc<Streams>,
    number: u64,
}

impl Place {
    /// A response that is under way until its body ended.
    pub fn hold(self, response: Response) -> Response {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| {
            let giving = Arc::new(Mutex::new(Giving {
                body: Some(body),
                gave: Some(Instant::now()),
            }));
            let mut known = self.streams.known();
            known.under_way.insert(self.number, Some(giving.clone()));
            drop(known);
            Taken {
                giving,
                _place: self,
            }
            .boxed_unsync()
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.streams.known();
        if known.under_way.remove(&self.number).is_some() {
            known.since = known.since.max(Instant::now());
        }
    }
}

/// A response body that notes when it is asked for more.
struct Taken {
    giving: Arc<Mutex<Giving>>,
    _place: Place,
}

impl HttpBody for Taken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut giving = lock(&self.giving);
        giving.gave = None;
        let Some(body) = &mut giving.body else {
            return Poll::Ready(Some(Err(
                "the client took nothing of it for too long".into()
            )));
        };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &frame {
            giving.gave = Some(Instant::now());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let giving = lock(&self.giving);
        giving.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let giving = lock(&self.giving);
        giving
            .body
            .as_ref()
            .map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use edgeweir_host_chain::full;
    use http_body_util::channel::Channel;

    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(10),
        stall: Duration::from_secs(4),
    };

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_when_nothing_is_under_way() {
        let start = Instant::now();
        let streams = Streams::new(start);
        let look = |at: u64| streams.look(start + after(at), PATIENCE);
        assert_eq!(look(0), Found::Until(start + after(4)));
        assert_eq!(look(9), Found::Until(start + after(10)));
        assert_eq!(look(10), Found::Idle, "no request ever came");
        let place = streams.enter();
        assert_eq!(look(50), Found::Until(start + after(54)));
        tokio::time::advance(after(60)).await;
        drop(place);
        assert_eq!(look(69), Found::Until(start + after(70)));
        assert_eq!(look(70), Found::Idle, "since the last exchange ended");
        let whole = streams
            .enter()
            .hold(Response::new(edgeweir_host_chain::empty()));
        assert_eq!(look(70), Found::Idle, "nothing waits for an empty body");
        drop(whole);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_nobody_asks_for_is_let_go() {
        let start = Instant::now();
        let streams = Streams::new(start);
        let look = |at: u64| streams.look(start + after(at), PATIENCE);
        let (mut sender, body) = Channel::<Bytes, Error>::new(4);
        let mut body = streams
            .enter()
            .hold(Response::new(body.boxed_unsync()))
            .into_body();
        let other = streams.enter().hold(Response::new(full("other")));
        let asked = tokio::time::timeout(Duration::ZERO, body.frame()).await;
        assert!(asked.is_err(), "it has nothing yet");
        assert_eq!(
            look(3),
            Found::Until(start + after(4)),
            "the other is not asked for"
        );
        assert_eq!(look(4), Found::Until(start + after(8)), "so it is let go");
        assert_eq!(
            look(30),
            Found::Until(start + after(34)),
            "the upstream's time is not the client's"
        );
        sender.send_data("a piece".into()).await.unwrap();
        tokio::time::advance(after(30)).await;
        body.frame().await.unwrap().unwrap();
        assert_eq!(look(32), Found::Until(start + after(34)));
        sender.send_data("another".into()).await.unwrap();
        assert_eq!(look(33), Found::Until(start + after(34)));
        assert_eq!(look(34), Found::Until(start + after(38)));
        let sent = sender.send_data("no more".into()).await;
        assert!(sent.is_err(), "the upstream is let go");
        assert!(body.frame().await.unwrap().is_err());
        drop(other);
        assert_eq!(look(36), Found::Until(start + after(40)));
        assert_eq!(
            look(44),
            Found::Idle,
            "a stream that was given up is not under way"
        );
        drop(body);
    }
}
