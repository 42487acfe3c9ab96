//! The wire format of header maps: a count, the sizes of every name and value, then the bytes, each closed by NUL.

use crate::status::Status;

/// A name and its value.
pub(crate) type Pair<'a> = (&'a [u8], &'a [u8]);

/// Encodes pairs; the format holds at most `u32::MAX` bytes, which linear memory never exceeds.
pub(crate) fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let pairs: Vec<_> = pairs.collect();
    let bytes: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    let mut out = Vec::with_capacity(4 + pairs.len() * 8 + bytes);
    out.extend_from_slice(&word(pairs.len()));
    for (name, value) in &pairs {
        out.extend_from_slice(&word(name.len()));
        out.extend_from_slice(&word(value.len()));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// Decodes pairs written by a guest. Anything that does not add up is a `ParseFailure`; more than `most` pairs are a
/// `BadArgument`. No bytes at all are no pairs.
pub(crate) fn decode(data: &[u8], most: usize) -> Result<Vec<Pair<'_>>, Status> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let (count, rest) = read_word(data)?;
    if count > most {
        return Err(Status::BadArgument);
    }
    let table = count.checked_mul(8).ok_or(Status::ParseFailure)?;
    let (mut sizes, mut bytes) = rest.split_at_checked(table).ok_or(Status::ParseFailure)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name_size, rest) = read_word(sizes)?;
        let (value_size, rest) = read_word(rest)?;
        sizes = rest;
        let (name, rest) = terminated(bytes, name_size)?;
        let (value, rest) = terminated(rest, value_size)?;
        bytes = rest;
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn word(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes()
}

fn read_word(data: &[u8]) -> Result<(usize, &[u8]), Status> {
    let (head, rest) = data.split_first_chunk::<4>().ok_or(Status::ParseFailure)?;
    Ok((u32::from_le_bytes(*head) as usize, rest))
}

fn terminated(data: &[u8], size: usize) -> Result<(&[u8], &[u8]), Status> {
    let (text, rest) = data.split_at_checked(size).ok_or(Status::ParseFailure)?;
    match rest.split_first() {
        Some((0, rest)) => Ok((text, rest)),
        _ => Err(Status::ParseFailure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_the_round_trip() {
        let pairs: Vec<(&[u8], &[u8])> = vec![
            (b":path", b"/"),
            (b"x", b""),
            (b"y", b"\xff\x00z"),
            (b"x", b"again"),
        ];
        let wire = encode(pairs.iter().copied());
        assert_eq!(decode(&wire, 4).unwrap(), pairs);
    }

    #[test]
    fn broken_wire_is_refused() {
        let good = encode([(b"name".as_slice(), b"value".as_slice())].into_iter());
        for cut in 1..good.len() {
            assert_eq!(
                decode(&good[..cut], 10),
                Err(Status::ParseFailure),
                "cut at {cut}"
            );
        }
        assert_eq!(decode(&good, 0), Err(Status::BadArgument));
        assert_eq!(decode(&[0xff; 64], usize::MAX), Err(Status::ParseFailure));
        let mut unterminated = good;
        *unterminated.last_mut().unwrap() = b'x';
        assert_eq!(decode(&unterminated, 10), Err(Status::ParseFailure));
    }
}
