//! What a few rounds say of a ratio: an estimate, an interval, a verdict.
//!
//! Rounds on a shared machine are not normally distributed, so nothing here assumes it: the Hodges–Lehmann estimate and the
//! intervals that belong to the rank tests of Wilcoxon and Mann and Whitney (Hodges and Lehmann, "Estimates of location
//! based on rank tests", Annals of Mathematical Statistics 34, 1963; Hollander, Wolfe and Chicken, "Nonparametric
//! Statistical Methods", §3.2, §3.3, §4.2, §4.3). One wild round moves them little.

use serde::{Deserialize, Serialize};

/// The fewest rounds that can support a statement at 95 %: with n, the widest interval has 1 − 2/2ⁿ.
pub const FEWEST: usize = 6;
/// How sure an interval is meant to be.
const CONFIDENCE: f64 = 0.95;

/// How many times as large the second is as the first.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// The best single value.
    pub estimate: f64,
    /// The least the data allow.
    pub low: f64,
    /// The most the data allow.
    pub high: f64,
    /// How often an interval made so holds the truth, at least.
    pub confidence: f64,
}

/// What can be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is below one.
    Less,
    /// The whole interval is above one.
    More,
    /// One is in the interval: these rounds show no difference. It does not say that there is none.
    NotShown,
}

impl Ratio {
    /// What can be said of it.
    pub fn verdict(&self) -> Verdict {
        if self.confidence < CONFIDENCE {
            Verdict::NotShown
        } else if self.high < 1.0 {
            Verdict::Less
        } else if self.low > 1.0 {
            Verdict::More
        } else {
            Verdict::NotShown
        }
    }
}

/// The ratio of rounds that were run in pairs, one of each after the other: what the machine did to a pair cancels out.
/// `None` without positive values.
pub fn paired(first: &[f64], second: &[f64]) -> Option<Ratio> {
    let logs: Option<Vec<f64>> = first
        .iter()
        .zip(second)
        .map(|(a, b)| log_ratio(*a, *b))
        .collect();
    let logs = logs.filter(|logs| !logs.is_empty())?;
    let n = logs.len();
    let mut averages = Vec::with_capacity(n * (n + 1) / 2);
    for i in 0..n {
        for j in i..n {
            averages.push((logs[i] + logs[j]) / 2.0);
        }
    }
    Some(interval(averages, &signed_rank(n)))
}

/// The ratio of rounds that were run at different times.
pub fn unpaired(first: &[f64], second: &[f64]) -> Option<Ratio> {
    let mut logs = Vec::with_capacity(first.len() * second.len());
    for a in first {
        for b in second {
            logs.push(log_ratio(*a, *b)?);
        }
    }
    (!logs.is_empty()).then(|| interval(logs, &rank_sum(first.len(), second.len())))
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn log_ratio(a: f64, b: f64) -> Option<f64> {
    (a > 0.0 && b > 0.0).then(|| (b / a).ln())
}

/// The median of the differences, and as many taken off each end as the distribution of the rank statistic allows.
fn interval(mut differences: Vec<f64>, probabilities: &[f64]) -> Ratio {
    differences.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let mut below = 0.0;
    let mut cut = 0;
    let mut missed = 0.0;
    for probability in probabilities {
        below += probability;
        if below > tail {
            break;
        }
        cut += 1;
        missed = below;
    }
    // Too few rounds for the confidence wanted: the whole range, and what it is worth.
    if cut == 0 {
        cut = 1;
        missed = probabilities.first().copied().unwrap_or(1.0);
    }
    let last = differences.len() - 1;
    let low = differences[(cut - 1).min(last)];
    let high = differences[last - (cut - 1).min(last)];
    Ratio {
        estimate: median(&differences).exp(),
        low: low.exp(),
        high: high.exp(),
        confidence: (1.0 - 2.0 * missed).max(0.0),
    }
}

/// The distribution of Wilcoxon's signed-rank statistic without a difference: sums of subsets of 1..=n.
fn signed_rank(n: usize) -> Vec<f64> {
    let most = n * (n + 1) / 2;
    let mut probabilities = vec![0.0; most + 1];
    probabilities[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..=most).rev() {
            let with = if sum >= rank {
                probabilities[sum - rank]
            } else {
                0.0
            };
            probabilities[sum] = f64::midpoint(probabilities[sum], with);
        }
    }
    probabilities
}

/// The distribution of Mann and Whitney's statistic without a difference: the coefficients of the Gaussian binomial.
fn rank_sum(m: usize, n: usize) -> Vec<f64> {
    let most = m * n;
    let mut counts = vec![0.0; most + 1];
    counts[0] = 1.0;
    // Multiply by (1 − q^(n+i)) and divide by (1 − q^i), i from 1 to m.
    for i in 1..=m {
        for at in ((n + i)..=most).rev() {
            counts[at] -= counts[at - n - i];
        }
        for at in i..=most {
            counts[at] += counts[at - i];
        }
    }
    let all: f64 = counts.iter().sum();
    counts.iter().map(|count| count / all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributions_are_those_of_the_tables() {
        // n = 3: sums 0..=6 of subsets of {1, 2, 3}.
        let eighths: Vec<f64> = signed_rank(3).iter().map(|p| p * 8.0).collect();
        assert_eq!(eighths, [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        // m = n = 2: 1, 1, 2, 1, 1 of 6.
        let sixths: Vec<f64> = rank_sum(2, 2).iter().map(|p| (p * 6.0).round()).collect();
        assert_eq!(sixths, [1.0, 1.0, 2.0, 1.0, 1.0]);
        for n in [1, 6, 30, 100] {
            assert!(
                (signed_rank(n).iter().sum::<f64>() - 1.0).abs() < 1e-9,
                "{n}"
            );
        }
        assert!((rank_sum(12, 9).iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_interval_takes_off_as_much_as_the_tables_say() {
        // n = 10: at 95 % the 9th from either end of 55 averages, with 95.1 % (Hollander, Wolfe and Chicken, table A.4).
        let first = vec![1.0; 10];
        let second: Vec<f64> = (1..=10).map(|i| (f64::from(i) / 100.0).exp()).collect();
        let ratio = paired(&first, &second).expect("a ratio");
        assert!((0.95..0.96).contains(&ratio.confidence), "{ratio:?}");
        assert!((ratio.estimate.ln() - 0.055).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.low.ln() - 0.03).abs() < 0.006, "{ratio:?}");
        assert_eq!(ratio.verdict(), Verdict::More);
    }

    #[test]
    fn one_wild_round_does_not_decide() {
        let first = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1];
        let mut second = first.map(|value| value * 0.8);
        second[3] = 500.0;
        let ratio = paired(&first, &second).expect("a ratio");
        assert!((ratio.estimate - 0.8).abs() < 0.01, "{ratio:?}");
        let noise =
            paired(&first, &[10.1, 9.9, 10.0, 10.1, 9.9, 10.1, 9.9, 10.2]).expect("a ratio");
        assert_eq!(noise.verdict(), Verdict::NotShown);
    }

    #[test]
    fn too_few_rounds_show_nothing() {
        let ratio = paired(&[1.0; 4], &[2.0, 2.1, 2.0, 1.9]).expect("a ratio");
        assert!((ratio.confidence - 0.875).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.verdict(), Verdict::NotShown);
        let least = paired(&[1.0; FEWEST], &[2.0, 2.1, 2.0, 1.9, 2.2, 2.1]).expect("a ratio");
        assert_eq!(least.verdict(), Verdict::More);
        assert_eq!(paired(&[0.0], &[1.0]), None);
        assert_eq!(paired(&[], &[]), None);
    }

    #[test]
    fn rounds_of_different_times_are_compared_without_pairs() {
        let before: Vec<f64> = (0..10).map(|i| 100.0 + f64::from(i)).collect();
        let after: Vec<f64> = (0..8).map(|i| 111.0 + f64::from(i)).collect();
        let ratio = unpaired(&before, &after).expect("a ratio");
        assert_eq!(ratio.verdict(), Verdict::More);
        assert!((1.08..1.12).contains(&ratio.estimate), "{ratio:?}");
        assert_eq!(
            unpaired(&before, &before).expect("a ratio").verdict(),
            Verdict::NotShown
        );
    }
}
