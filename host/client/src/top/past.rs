//! The last minutes of a metric, from pages that came at different distances.

use std::collections::VecDeque;

/// How far back a plot goes, seconds.
const SHOWN: f64 = 120.0;
/// Points that are kept: of two minutes at ten a second.
const KEPT: usize = 1_200;

/// What a metric was, at times of the host's own clock.
#[derive(Default)]
pub struct Past(VecDeque<Point>);

/// A value over the time up to a moment, seconds since the host's start.
#[derive(Clone, Copy)]
struct Point {
    from: f64,
    to: f64,
    value: f64,
}

impl Past {
    /// Adds what the value was up to `to`, later than all before it.
    pub fn add(&mut self, from: f64, to: f64, value: f64) {
        self.0.push_back(Point { from, to, value });
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Forgets all of it: the host has begun anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The time up to `now` in so many columns, oldest first: means in thousandths, `None` where nothing is known. A column
    /// is no shorter than `every`, the time between two pages.
    pub fn columns(&self, now: f64, every: f64, room: usize) -> Vec<Option<u64>> {
        let wide = (SHOWN / room.max(1) as f64).max(every);
        let column = |back: usize| {
            let (from, to) = (now - wide * (back + 1) as f64, now - wide * back as f64);
            let (mut sum, mut time) = (0.0, 0.0);
            for point in &self.0 {
                let within = point.to.min(to) - point.from.max(from);
                if within > 0.0 {
                    sum += point.value * within;
                    time += within;
                }
            }
            (time > 0.0).then(|| scaled(sum / time))
        };
        (0..room).rev().map(column).collect()
    }
}

/// A sparkline counts in whole numbers.
fn scaled(value: f64) -> u64 {
    (value * 1e3).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_a_stretch_of_time_whatever_distance_pages_have() {
        let mut past = Past::default();
        // Ten seconds as one step, ten at three a second, then nothing for twenty, then once a second.
        past.add(60.0, 70.0, 1.0);
        for at in 0..30 {
            let from = 70.0 + f64::from(at) / 3.0;
            past.add(from, from + 1.0 / 3.0, f64::from(at % 3) + 2.0);
        }
        for at in 100..120 {
            past.add(f64::from(at), f64::from(at) + 1.0, 7.0);
        }
        let shown = past.columns(120.0, 1.0, 12);
        let known = |value: u64| Some(value * 1_000);
        let none = [None; 6];
        assert_eq!(shown[..6], none);
        assert_eq!(shown[6], known(1));
        assert!(
            (2_990..=3_010).contains(&shown[7].expect("known")),
            "{shown:?}"
        );
        assert_eq!(shown[8..], [None, None, known(7), known(7)]);
        assert_eq!(
            past.columns(120.0, 60.0, 2)[1].map(|it| it > 1_000),
            Some(true)
        );
    }
}
