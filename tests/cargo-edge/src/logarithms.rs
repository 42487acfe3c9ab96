//! Brotli's table of the logarithms of 0 to 65535, a quarter of a megabyte, of which small numbers are what it asks for.
//!
//! Those stay a table. Others are computed, to the last bit what the table has: every one of them is compared here.

use anyhow::{Context as _, Result, bail};
use wasmparser::{BinaryReader, DataKind, DataSectionReader, DefinedDataSymbol, Operator};

use crate::section::{signed, unsigned};

/// How many numbers there are, and how many of them stay a table.
const ALL: u32 = 1 << 16;
const KEPT: u32 = 1 << 10;

/// Where the logarithms of 256 to 511 are, from the table's start: in the room that the others leave.
const FINE: u32 = 4 * KEPT;

/// The most entries that may differ from what is computed.
const EXCEPTIONS: usize = 4;

/// The table in a module.
pub struct Logarithms {
    /// Its address, and where it is in the data section.
    address: u32,
    place: usize,
    /// Entries that are not the nearest to what they stand for.
    exceptions: Vec<(u32, u32)>,
}

impl Logarithms {
    /// The part of its symbol that stays.
    pub const SYMBOL: &str = "6brotli3enc12log_table_167logs_16";

    /// `f32.load` with its alignment, before the offset.
    pub const LOAD: [u8; 2] = [0x2a, 2];

    /// The table of a symbol; an error when it is not what it is taken for.
    pub fn read(data: &[u8], symbol: &DefinedDataSymbol) -> Result<Self> {
        let segments = DataSectionReader::new(BinaryReader::new(data, 0))?;
        let segment = segments.into_iter().nth(usize::try_from(symbol.index)?);
        let segment = segment.context("the table of logarithms is in no segment")??;
        let DataKind::Active { offset_expr, .. } = segment.kind else {
            bail!("the table of logarithms is in a segment without an address");
        };
        let Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
            bail!("the table of logarithms is in a segment without an address");
        };
        let at = usize::try_from(symbol.offset)?;
        let end = at + usize::try_from(symbol.size)?;
        let table = segment
            .data
            .get(at..end)
            .context("the table of logarithms is cut short")?;
        let (entries, rest) = table.as_chunks::<4>();
        if entries.len() != ALL as usize || !rest.is_empty() {
            bail!("the table of logarithms has {} entries", entries.len());
        }
        let fine = fine();
        let exceptions: Vec<(u32, u32)> = (KEPT..ALL)
            .zip(
                entries
                    .iter()
                    .skip(KEPT as usize)
                    .map(|it| u32::from_le_bytes(*it)),
            )
            .filter(|(number, bits)| logarithm(*number, &fine).to_bits() != *bits)
            .collect();
        if exceptions.len() > EXCEPTIONS {
            bail!(
                "{} entries are not the logarithms of their places",
                exceptions.len()
            );
        }
        Ok(Self {
            address: u32::try_from(value)? + symbol.offset,
            place: usize::try_from(segment.range.end)? - segment.data.len() + at,
            exceptions,
        })
    }

    /// An error unless the bytes before `at` make it the offset of a load of one entry.
    pub fn is_load(body: &[u8], at: usize, addend: i64) -> Result<()> {
        let before = at
            .checked_sub(Self::LOAD.len())
            .and_then(|from| body.get(from..at));
        if before != Some(&Self::LOAD) || addend != 0 {
            bail!("the table of logarithms is used in another way than by loads from it");
        }
        Ok(())
    }

    /// The data section with what is left of it.
    pub fn lean(&self, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        let table = &mut data[self.place..self.place + 4 * ALL as usize];
        let (_, rest) = table.split_at_mut(FINE as usize);
        rest.fill(0);
        for (place, value) in rest.chunks_exact_mut(8).zip(fine()) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        data
    }

    /// Instructions in place of a load: four times the number is on the stack, `local` is free and `helper` is [`Self::function`].
    pub fn look_up(&self, out: &mut Vec<u8>, local: usize, helper: usize) {
        out.push(0x22); // local.tee
        unsigned(out, local);
        out.push(0x41); // i32.const
        signed(out, 4 * KEPT as i32);
        out.extend_from_slice(&[0x49, 0x04, 0x7d]); // i32.lt_u, if (result f32)
        out.push(0x20); // local.get
        unsigned(out, local);
        out.extend_from_slice(&Self::LOAD);
        unsigned(out, self.address as usize);
        out.extend_from_slice(&[0x05, 0x20]); // else, local.get
        unsigned(out, local);
        out.push(0x10); // call
        unsigned(out, helper);
        out.push(0x0b);
    }

    /// The function of four times a number that is not in the table any more: [`logarithm`], instruction by instruction.
    pub fn function(&self) -> Vec<u8> {
        // Two more i32 (how far it is shifted, what is left) and two f64 (that as it was before, by how much the number is more).
        let mut out = vec![2, 2, 0x7f, 2, 0x7c];
        out.extend_from_slice(&[0x20, 0, 0x41, 2, 0x76, 0x21, 0]); // number = argument >> 2
        for (number, bits) in &self.exceptions {
            out.extend_from_slice(&[0x20, 0, 0x41]);
            signed(&mut out, *number as i32);
            out.extend_from_slice(&[0x46, 0x04, 0x40, 0x43]); // i32.eq, if, f32.const
            out.extend_from_slice(&bits.to_le_bytes());
            out.extend_from_slice(&[0x0f, 0x0b]); // return, end
        }
        // shift = 23 - clz(number); left = number >> shift
        out.extend_from_slice(&[0x41, 23, 0x20, 0, 0x67, 0x6b, 0x21, 1]);
        out.extend_from_slice(&[0x20, 0, 0x20, 1, 0x76, 0x21, 2]);
        // whole = f64(left << shift); more = (f64(number) - whole) / whole
        out.extend_from_slice(&[0x20, 2, 0x20, 1, 0x74, 0xb8, 0x21, 3]);
        out.extend_from_slice(&[0x20, 0, 0xb8, 0x20, 3, 0xa1, 0x20, 3, 0xa3, 0x21, 4]);
        // fine[left - 256] + f64(shift)
        out.extend_from_slice(&[0x20, 2, 0x41, 3, 0x74, 0x2b, 3]);
        unsigned(&mut out, (self.address + FINE) as usize - 8 * 256);
        out.extend_from_slice(&[0x20, 1, 0xb8, 0xa0]);
        // + more * (A - more * (B - more * C)), as f32
        let [a, b, c] = SERIES;
        out.extend_from_slice(&[0x20, 4, 0x44]);
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&[0x20, 4, 0x44]);
        out.extend_from_slice(&b.to_le_bytes());
        out.extend_from_slice(&[0x20, 4, 0x44]);
        out.extend_from_slice(&c.to_le_bytes());
        out.extend_from_slice(&[0xa2, 0xa1, 0xa2, 0xa1, 0xa2, 0xa0, 0xb6, 0x0b]);
        out
    }
}

/// log2(1 + x) = x / ln 2 - x² / (2 ln 2) + x³ / (3 ln 2) - …
const SERIES: [f64; 3] = [
    std::f64::consts::LOG2_E,
    std::f64::consts::LOG2_E / 2.0,
    std::f64::consts::LOG2_E / 3.0,
];

/// The binary logarithm of a number of 256 and more.
fn logarithm(number: u32, fine: &[f64; 256]) -> f32 {
    let shift = 23 - number.leading_zeros();
    let left = number >> shift;
    let whole = f64::from(left << shift);
    let more = (f64::from(number) - whole) / whole;
    let [a, b, c] = SERIES;
    let fine = fine[left as usize - 256];
    (fine + f64::from(shift) + more * (a - more * (b - more * c))) as f32
}

/// The binary logarithms of 256 to 511, by sums and products alone: the same on every machine.
fn fine() -> [f64; 256] {
    std::array::from_fn(|place| {
        let part = place as f64 / 256.0;
        // ln(1 + x) = 2 atanh(x / (2 + x)), of which the series ends soon.
        let z = part / (2.0 + part);
        let series = (0..30)
            .rev()
            .fold(0.0, |sum, term| sum * z * z + 1.0 / f64::from(2 * term + 1));
        8.0 + 2.0 * z * series * std::f64::consts::LOG2_E
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_the_nearest_there_are() {
        let fine = fine();
        for number in KEPT..ALL {
            let (is, want) = (logarithm(number, &fine), f64::from(number).log2());
            let nearest = want as f32;
            assert!(
                (is - nearest).abs() <= f32::EPSILON * 8.0,
                "{number}: {is}, {nearest}"
            );
        }
        assert_eq!(logarithm(1 << 15, &fine), 15.0);
    }

    #[test]
    fn what_is_no_table_of_logarithms_is_refused() {
        // One segment at 16, of zeros.
        let mut data = vec![1, 0, 0x41, 16, 0x0b];
        unsigned(&mut data, 4 * ALL as usize);
        data.resize(data.len() + 4 * ALL as usize, 0);
        let all = DefinedDataSymbol {
            index: 0,
            offset: 0,
            size: 4 * ALL,
        };
        let part = DefinedDataSymbol {
            index: 0,
            offset: 8,
            size: 400,
        };
        for (symbol, want) in [(all, "are not the logarithms"), (part, "has 100 entries")] {
            let error = Logarithms::read(&data, &symbol)
                .err()
                .map(|it| it.to_string());
            assert!(
                error.as_deref().is_some_and(|it| it.contains(want)),
                "{error:?}"
            );
        }
        assert!(Logarithms::is_load(&[0x20, 0, 0x2a, 2], 4, 0).is_ok());
        assert!(Logarithms::is_load(&[0x20, 0, 0x2a, 2], 4, 4).is_err());
        assert!(Logarithms::is_load(&[0x23, 0, 0x41], 3, 0).is_err());
    }
}
