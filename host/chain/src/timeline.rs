//! How long each layer of one exchange took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The most calls of layers that are noted for one exchange.
const NOTES: usize = 64;

/// The time of each layer to its response head; an extension of a request makes [`crate::Next`] fill it in.
#[derive(Clone, Default, Debug)]
pub struct Timeline(Arc<Mutex<Vec<Note>>>);

#[derive(Debug)]
struct Note {
    at: usize,
    name: String,
    took: Duration,
}

impl Timeline {
    /// Notes that the layer at a place of the chain took so long, those below it included.
    pub fn note(&self, at: usize, name: &str, took: Duration) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES {
            let name = name.to_owned();
            notes.push(Note { at, name, took });
        }
    }

    /// Names and times, outermost first, each without the layers below it. A layer that was called more than once is one.
    pub fn own(&self) -> Vec<(String, Duration)> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole: Vec<(usize, String, Duration)> = Vec::new();
        for note in notes.iter() {
            match whole.iter_mut().find(|it| it.0 == note.at) {
                Some(known) => known.2 += note.took,
                None => whole.push((note.at, note.name.clone(), note.took)),
            }
        }
        whole.sort_by_key(|it| it.0);
        let below: Vec<Duration> = whole.iter().skip(1).map(|it| it.2).collect();
        whole
            .into_iter()
            .zip(below.into_iter().chain([Duration::ZERO]))
            .map(|((_, name, took), below)| (name, took.saturating_sub(below)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_without_those_below_it() {
        let ms = Duration::from_millis;
        let timeline = Timeline::default();
        timeline.note(2, "origin", ms(10));
        timeline.note(2, "origin", ms(5));
        timeline.note(1, "cache", ms(16));
        timeline.note(0, "limit", ms(18));
        let own = timeline.own();
        let own: Vec<_> = own
            .iter()
            .map(|(name, took)| (name.as_str(), *took))
            .collect();
        assert_eq!(
            own,
            [("limit", ms(2)), ("cache", ms(1)), ("origin", ms(15))]
        );
        (0..100).for_each(|_| timeline.note(0, "limit", ms(1)));
        assert_eq!(timeline.own()[0].1, ms(18 + 60 - 16));
    }
}
