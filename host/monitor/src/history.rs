//! What was measured, in two rings of fixed size: every sample for minutes, means and peaks for hours.

use std::time::Duration;

use crate::metric::{METRICS, Metric, Sample};

/// Samples kept as they are: a minute at ten a second.
pub const FINE: usize = 600;
/// Steps kept as mean and peak: two hours.
pub const COARSE: usize = 720;
/// The length of such a step.
pub const STEP: Duration = Duration::from_secs(10);

/// The memory a history takes: a constant.
pub const BYTES: usize = FINE * size_of::<(Duration, Sample)>() + COARSE * size_of::<Step>();
const _: () = assert!(BYTES < 256 * 1024, "history must stay well under 5 MB");

/// Mean and peak of all metrics over [`STEP`].
#[derive(Clone, Copy, Debug)]
pub struct Step {
    at: Duration,
    mean: [f32; METRICS],
    peak: [f32; METRICS],
}

/// A point of a metric's past.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// When, since the start.
    pub at: Duration,
    /// The value; of a step, the mean.
    pub value: f64,
    /// The greatest value; of a sample, the value.
    pub peak: f64,
}

/// A ring that overwrites its oldest entry.
#[derive(Clone, Debug)]
struct Ring<T> {
    entries: Vec<T>,
    size: usize,
    next: usize,
}

impl<T> Ring<T> {
    fn new(size: usize) -> Self {
        Self {
            entries: Vec::with_capacity(size),
            size,
            next: 0,
        }
    }

    fn push(&mut self, entry: T) {
        match self.entries.get_mut(self.next) {
            Some(oldest) => *oldest = entry,
            None => self.entries.push(entry),
        }
        self.next = (self.next + 1) % self.size;
    }

    /// Oldest first.
    fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        let (newer, older) = match self.entries.len() == self.size {
            true => self.entries.split_at(self.next),
            false => (&[][..], &self.entries[..]),
        };
        // While it fills, everything is in order already.
        older.iter().chain(newer)
    }
}

/// The past of all metrics.
#[derive(Clone, Debug)]
pub struct History {
    fine: Ring<(Duration, Sample)>,
    coarse: Ring<Step>,
    filling: Filling,
}

#[derive(Clone, Copy, Debug)]
struct Filling {
    began: Option<Duration>,
    sum: [f64; METRICS],
    peak: [f32; METRICS],
    count: [u32; METRICS],
}

const NOTHING: Filling = Filling {
    began: None,
    sum: [0.0; METRICS],
    peak: [f32::NAN; METRICS],
    count: [0; METRICS],
};

impl Default for History {
    fn default() -> Self {
        Self {
            fine: Ring::new(FINE),
            coarse: Ring::new(COARSE),
            filling: NOTHING,
        }
    }
}

impl History {
    /// Adds a sample. Samples come in order of time.
    pub fn push(&mut self, sample: &Sample, now: Duration) {
        self.fine.push((now, *sample));
        if let Some(began) = self.filling.began
            && now.saturating_sub(began) >= STEP
        {
            self.coarse.push(self.filling.close(began));
            self.filling = NOTHING;
        }
        self.filling.add(sample, now);
    }

    /// The latest sample.
    pub fn latest(&self) -> Option<(Duration, &Sample)> {
        self.fine
            .iter()
            .next_back()
            .map(|(at, sample)| (*at, sample))
    }

    /// The samples of a metric since a time, oldest first, without the moments it was unknown.
    pub fn fine(&self, metric: Metric, since: Duration) -> impl Iterator<Item = Point> {
        self.fine.iter().filter_map(move |(at, sample)| {
            let value = sample.get(metric).filter(|_| *at >= since)?;
            Some(Point {
                at: *at,
                value,
                peak: value,
            })
        })
    }

    /// The steps of a metric since a time, oldest first, without those it was unknown in.
    pub fn coarse(&self, metric: Metric, since: Duration) -> impl Iterator<Item = Point> {
        self.coarse.iter().filter_map(move |step| {
            let value = f64::from(step.mean[metric as usize]);
            (step.at >= since && value.is_finite()).then_some(Point {
                at: step.at,
                value,
                peak: f64::from(step.peak[metric as usize]),
            })
        })
    }
}

impl Filling {
    fn add(&mut self, sample: &Sample, now: Duration) {
        self.began.get_or_insert(now);
        for (at, value) in sample.raw().iter().enumerate() {
            if value.is_finite() {
                self.sum[at] += f64::from(*value);
                self.peak[at] = self.peak[at].max(*value);
                self.count[at] += 1;
            }
        }
    }

    fn close(&self, at: Duration) -> Step {
        let mut mean = [f32::NAN; METRICS];
        for (at, mean) in mean.iter_mut().enumerate() {
            if self.count[at] > 0 {
                *mean = (self.sum[at] / f64::from(self.count[at])) as f32;
            }
        }
        Step {
            at,
            mean,
            peak: self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn both_rings_keep_the_newest_in_order() {
        let mut history = History::default();
        let samples = 100 * (COARSE as u32 + 50);
        for at in 0..samples {
            let sample = Sample::default().with(Metric::Threads, f64::from(at % 100));
            history.push(&sample, TENTH * at);
        }
        let fine: Vec<_> = history.fine(Metric::Threads, Duration::ZERO).collect();
        assert_eq!(fine.len(), FINE);
        assert!(fine.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert_eq!(fine[FINE - 1].at, TENTH * (samples - 1));
        let coarse: Vec<_> = history.coarse(Metric::Threads, Duration::ZERO).collect();
        assert_eq!(coarse.len(), COARSE);
        assert!(
            coarse
                .windows(2)
                .all(|pair| pair[1].at - pair[0].at == STEP)
        );
        assert!(
            coarse.iter().all(|it| (it.value, it.peak) == (49.5, 99.0)),
            "{:?}",
            coarse[0]
        );
        assert_eq!(history.fine(Metric::Memory, Duration::ZERO).count(), 0);
    }

    #[test]
    fn only_what_is_asked_for() {
        let mut history = History::default();
        for at in 0..50 {
            let sample = Sample::default().with(Metric::Requests, f64::from(at));
            history.push(&sample, TENTH * at);
        }
        let values: Vec<_> = history
            .fine(Metric::Requests, TENTH * 48)
            .map(|it| it.value)
            .collect();
        assert_eq!(values, [48.0, 49.0]);
        assert_eq!(history.latest().map(|(at, _)| at), Some(TENTH * 49));
    }
}
