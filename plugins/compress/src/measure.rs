//! Counters: their names, and what is learnt from a coded body.

use std::time::Duration;

use edgeweir_filter::Cx;

use crate::Coding;

/// The counter of responses coded so.
pub(crate) fn coded(coding: Coding) -> &'static str {
    match coding {
        #[cfg(feature = "brotli")]
        Coding::Brotli => "compress.coded.br",
        Coding::Zstd => "compress.coded.zstd",
        Coding::Gzip => "compress.coded.gzip",
        Coding::Deflate => "compress.coded.deflate",
    }
}

/// The counter of responses that this coding was taken off.
pub(crate) fn decoded(coding: Coding) -> &'static str {
    match coding {
        #[cfg(feature = "brotli")]
        Coding::Brotli => "compress.decoded.br",
        Coding::Zstd => "compress.decoded.zstd",
        Coding::Gzip => "compress.decoded.gzip",
        Coding::Deflate => "compress.decoded.deflate",
    }
}

/// The counter of microseconds that this coding took.
fn micros(coding: Coding) -> &'static str {
    match coding {
        #[cfg(feature = "brotli")]
        Coding::Brotli => "compress.micros.br",
        Coding::Zstd => "compress.micros.zstd",
        Coding::Gzip => "compress.micros.gzip",
        Coding::Deflate => "compress.micros.deflate",
    }
}

/// The bucket of a whole body: the least percentage of its length that it is at most.
fn ratio(plain: u64, coded: u64) -> &'static str {
    let percent = u128::from(coded) * 100 / u128::from(plain.max(1));
    match percent {
        0..10 => "compress.ratio.10",
        10..25 => "compress.ratio.25",
        25..50 => "compress.ratio.50",
        50..75 => "compress.ratio.75",
        75..90 => "compress.ratio.90",
        90..100 => "compress.ratio.100",
        _ => "compress.ratio.more",
    }
}

/// What a body took and gave so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) plain: u64,
    pub(crate) coded: u64,
    pub(crate) spent: Duration,
}

impl Tally {
    /// Adds a piece, to the counters too.
    pub(crate) fn add(&mut self, plain: usize, coded: usize, cx: &mut Cx<'_>) {
        let (plain, coded) = (size(plain), size(coded));
        self.plain = self.plain.saturating_add(plain);
        self.coded = self.coded.saturating_add(coded);
        cx.add("compress.bytes_in", plain);
        cx.add("compress.bytes_out", coded);
    }

    /// Adds the time of a call. Whole microseconds are counted, the rest is kept for the next call.
    pub(crate) fn took(&mut self, coding: Coding, spent: Duration, cx: &mut Cx<'_>) {
        let before = self.spent.as_micros();
        self.spent = self.spent.saturating_add(spent);
        let whole = u64::try_from(self.spent.as_micros() - before).unwrap_or(0);
        if whole > 0 {
            cx.add(micros(coding), whole);
        }
    }

    /// The body is whole.
    pub(crate) fn end(&self, cx: &mut Cx<'_>) {
        cx.count(ratio(self.plain, self.coded));
    }
}

/// A number of bytes, for a counter.
pub(crate) fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::{Record, Timestamp};

    #[test]
    fn buckets_by_percentage() {
        for (plain, coded, want) in [
            (1000, 99, "compress.ratio.10"),
            (1000, 100, "compress.ratio.25"),
            (1000, 499, "compress.ratio.50"),
            (1000, 749, "compress.ratio.75"),
            (1000, 899, "compress.ratio.90"),
            (1000, 999, "compress.ratio.100"),
            (1000, 1000, "compress.ratio.more"),
            (0, 20, "compress.ratio.more"),
        ] {
            assert_eq!(ratio(plain, coded), want, "{coded} of {plain}");
        }
    }

    #[test]
    fn no_time_is_lost_between_pieces() {
        let mut record = Record::default();
        let mut tally = Tally::default();
        for _ in 0..10 {
            let mut cx = Cx::new(Timestamp(0), &mut record);
            tally.took(Coding::Gzip, Duration::from_nanos(700), &mut cx);
        }
        let micros = record.counts.iter();
        let micros = micros.filter(|(name, _)| *name == "compress.micros.gzip");
        assert_eq!(micros.map(|(_, by)| by).sum::<u64>(), 7);
    }
}
