//! Where a series is going: its slope, how well a line fits it, and when it reaches a value.

use std::time::Duration;

/// Points below which nothing is said.
pub const LEAST: usize = 12;
/// The most points looked at: pairs of them are compared.
pub const MOST: usize = 120;
/// The part of the series' variation a line must explain before it is believed.
pub const FIT: f64 = 0.8;

/// A line through a series.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trend {
    /// Change per second: the median of the slopes between all pairs (Theil–Sen), which a third of wild points does not move.
    pub per_second: f64,
    /// The line's value at the last point.
    pub now: f64,
    /// How much of the variation the line explains, up to 1.
    pub fit: f64,
    /// From the first point to the last.
    pub over: Duration,
}

impl Trend {
    /// The line through points of time (seconds, rising) and value; `None` for fewer than [`LEAST`], or no time between them.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let points = points.get(points.len().saturating_sub(MOST)..)?;
        let (first, last) = (points.first()?, points.last()?);
        if points.len() < LEAST || last.0 <= first.0 {
            return None;
        }
        let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
        for (at, one) in points.iter().enumerate() {
            for other in points.iter().skip(at + 1) {
                if other.0 > one.0 {
                    slopes.push((other.1 - one.1) / (other.0 - one.0));
                }
            }
        }
        let per_second = median(&mut slopes)?;
        let mut offsets: Vec<f64> = points.iter().map(|(x, y)| y - per_second * x).collect();
        let offset = median(&mut offsets)?;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / points.len() as f64;
        let (mut missed, mut varied) = (0.0, 0.0);
        for (x, y) in points {
            missed += (y - per_second * x - offset).powi(2);
            varied += (y - mean).powi(2);
        }
        // A level line explains all of no variation.
        let fit = if varied > 0.0 {
            1.0 - missed / varied
        } else {
            1.0
        };
        Some(Self {
            per_second,
            now: per_second * last.0 + offset,
            fit,
            over: Duration::from_secs_f64(last.0 - first.0),
        })
    }

    /// Whether the line may be believed.
    pub fn fits(&self) -> bool {
        self.fit >= FIT
    }

    /// When the line reaches a value: `None` when it does not go there, does not fit, or takes longer than `horizon`.
    pub fn reaches(&self, value: f64, horizon: Duration) -> Option<Duration> {
        let left = (value - self.now) / self.per_second;
        (self.fits() && left.is_finite() && left >= 0.0 && left <= horizon.as_secs_f64())
            .then(|| Duration::from_secs_f64(left))
    }
}

/// The middle value; of an even number the mean of both. `None` of nothing.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, at, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp);
    match lower.filter(|_| even) {
        Some(lower) => Some(f64::midpoint(lower, *at)),
        None => Some(*at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn line(slope: f64, noise: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        (0..60)
            .map(|at| {
                (
                    at as f64 * 10.0,
                    100.0 + slope * at as f64 * 10.0 + noise(at),
                )
            })
            .collect()
    }

    #[test]
    fn a_line_is_found_through_noise_and_wild_points() {
        for (name, points, want) in [
            ("exact", line(2.0, |_| 0.0), 2.0),
            (
                "zigzag",
                line(2.0, |at| if at % 2 == 0 { 5.0 } else { -5.0 }),
                2.0,
            ),
            ("falling", line(-0.5, |_| 0.0), -0.5),
        ] {
            let trend = Trend::of(&points).expect(name);
            assert!((trend.per_second - want).abs() < 0.05, "{name}: {trend:?}");
            assert!(trend.fits(), "{name}: {trend:?}");
        }
        let wild = line(2.0, |at| if at % 10 == 3 { 9_000.0 } else { 0.0 });
        let trend = Trend::of(&wild).unwrap();
        assert!((trend.per_second - 2.0).abs() < 0.1, "{trend:?}");
        assert!(!trend.fits(), "with such points it is not to be believed");
    }

    #[test]
    fn a_forecast_needs_a_fit_and_a_way_there() {
        let rising = Trend::of(&line(2.0, |_| 0.0)).unwrap();
        // 100 + 2 × 590 = 1,280 now.
        let left = rising.reaches(1_480.0, HOUR).unwrap();
        assert!((left.as_secs_f64() - 100.0).abs() < 1.0, "{left:?}");
        assert_eq!(rising.reaches(100_000.0, HOUR), None, "too far");
        assert_eq!(rising.reaches(1_000.0, HOUR), None, "it was passed");
        let level = Trend::of(&line(0.0, |_| 0.0)).unwrap();
        assert_eq!(level.reaches(1_000.0, HOUR), None, "it goes nowhere");
        let noise = Trend::of(&line(0.01, |at| ((at * 7_919) % 101) as f64)).unwrap();
        assert_eq!(noise.reaches(noise.now + 1.0, HOUR), None, "{noise:?}");
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(Trend::of(&[]), None);
        assert_eq!(Trend::of(&line(1.0, |_| 0.0)[..LEAST - 1]), None);
        assert_eq!(Trend::of(&[(1.0, 1.0); 20]), None);
    }

    #[test]
    fn medians() {
        for (mut values, want) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![9.0, 1.0], Some(5.0)),
            (vec![5.0, 1.0, 9.0], Some(5.0)),
            (vec![4.0, 1.0, 9.0, 2.0], Some(3.0)),
        ] {
            assert_eq!(median(&mut values), want, "{values:?}");
        }
    }
}
