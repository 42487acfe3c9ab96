//! What each layer of one exchange took and gave.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::Response;

/// The most calls of layers that are noted for one exchange.
const NOTES: usize = 64;

/// The time of each layer to its response head, and the size of its response's body; an extension of a request makes
/// [`crate::Next`] fill it in.
#[derive(Clone, Default, Debug)]
pub struct Timeline(Arc<Mutex<Vec<Note>>>);

#[derive(Debug)]
struct Note {
    at: usize,
    name: String,
    took: Duration,
    size: Option<u64>,
    passed: Arc<AtomicU64>,
}

/// One layer of an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// Its time to the response head, without the layers below it.
    pub took: Duration,
    /// The bytes of the body it answered with, if they were known with the head.
    pub size: Option<u64>,
    /// The bytes of that body that came out of it so far.
    pub passed: u64,
}

impl Timeline {
    /// Notes that the layer at a place of the chain took so long, those below it included, and counts the body of its
    /// response.
    #[must_use]
    pub fn note(&self, at: usize, name: &str, took: Duration, response: Response) -> Response {
        let passed = Arc::<AtomicU64>::default();
        let note = Note {
            at,
            name: name.to_owned(),
            took,
            size: size_of(&response),
            passed: Arc::clone(&passed),
        };
        if !self.add(note) {
            return response;
        }
        response.map(|body| {
            let counted = body.inspect_frame(move |frame| {
                let data = frame.data_ref().map_or(0, |data| data.len() as u64);
                passed.fetch_add(data, Relaxed);
            });
            counted.boxed_unsync()
        })
    }

    /// Notes that a layer took so long and did not answer.
    pub fn note_failed(&self, at: usize, name: &str, took: Duration) {
        self.add(Note {
            at,
            name: name.to_owned(),
            took,
            size: None,
            passed: Arc::default(),
        });
    }

    fn add(&self, note: Note) -> bool {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = notes.len() < NOTES;
        if room {
            notes.push(note);
        }
        room
    }

    /// The layers, outermost first. One that was called more than once is one, of which all is added up.
    pub fn own(&self) -> Vec<Own> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole: Vec<(usize, Own)> = Vec::new();
        for note in notes.iter() {
            let passed = note.passed.load(Relaxed);
            match whole.iter_mut().find(|it| it.0 == note.at) {
                Some((_, known)) => {
                    known.took += note.took;
                    known.size = known.size.zip(note.size).map(|(a, b)| a.saturating_add(b));
                    known.passed = known.passed.saturating_add(passed);
                }
                None => whole.push((
                    note.at,
                    Own {
                        name: note.name.clone(),
                        took: note.took,
                        size: note.size,
                        passed,
                    },
                )),
            }
        }
        whole.sort_by_key(|it| it.0);
        let below: Vec<Duration> = whole.iter().skip(1).map(|it| it.1.took).collect();
        let below = below.into_iter().chain([Duration::ZERO]);
        whole
            .into_iter()
            .zip(below)
            .map(|((_, own), below)| Own {
                took: own.took.saturating_sub(below),
                ..own
            })
            .collect()
    }
}

/// The bytes of a body, if its kind or its head says them.
fn size_of(response: &Response) -> Option<u64> {
    let said = || {
        let length = response.headers().get(CONTENT_LENGTH)?;
        length.to_str().ok()?.trim().parse().ok()
    };
    response.body().size_hint().exact().or_else(said)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::full;

    #[test]
    fn each_layer_without_those_below_it() {
        let ms = Duration::from_millis;
        let timeline = Timeline::default();
        let note = |at, name, took, bytes: usize| {
            let response = Response::new(full(vec![0; bytes]));
            drop(timeline.note(at, name, ms(took), response));
        };
        note(2, "origin", 10, 100);
        note(2, "origin", 5, 20);
        timeline.note_failed(1, "cache", ms(16));
        note(0, "limit", 18, 7);
        let own = timeline.own();
        let own: Vec<_> = own
            .iter()
            .map(|it| (it.name.as_str(), it.took, it.size))
            .collect();
        assert_eq!(
            own,
            [
                ("limit", ms(2), Some(7)),
                ("cache", ms(1), None),
                ("origin", ms(15), Some(120))
            ]
        );
        (0..100).for_each(|_| note(0, "limit", 1, 0));
        assert_eq!(timeline.own()[0].took, ms(18 + 60 - 16));
    }

    #[test]
    fn bytes_count_as_they_come_out() {
        let timeline = Timeline::default();
        let mut head = Response::new(full("five!"));
        head.headers_mut().insert(CONTENT_LENGTH, 5.into());
        let response = timeline.note(0, "origin", Duration::ZERO, head);
        assert_eq!(response.body().size_hint().exact(), Some(5));
        assert_eq!(
            (timeline.own()[0].size, timeline.own()[0].passed),
            (Some(5), 0)
        );
        let mut body = response.into_body();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let frame = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(frame, Poll::Ready(Some(Ok(_)))));
        assert_eq!(timeline.own()[0].passed, 5);
    }
}
