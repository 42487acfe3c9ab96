//! Bodies: where their bytes come from, and in which pieces they are sent.

use std::time::Duration;

use base64::Engine as _;

use crate::source::{Node, Problem, Table};
use crate::time;

/// The longest body of a case, bytes.
pub const LONGEST: u64 = 64 << 20;
/// The most points at which a body is split one after the other.
pub const SPLITS: usize = 4_096;

/// How a body is cut into pieces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Cuts {
    /// In one piece.
    #[default]
    Whole,
    /// Pieces of these lengths, the rest in one.
    Lengths(Vec<usize>),
    /// Pieces of one length.
    Every(usize),
    /// In two pieces, once for each point where it can be split: the case runs as often.
    EachSplit,
}

/// A message's body and how it comes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Body {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its pieces.
    pub cuts: Cuts,
    /// The time before each piece but the first.
    pub pause: Duration,
    /// It breaks off after so many bytes.
    pub cut_after: Option<usize>,
    /// Without a declared length, as HTTP/1.1 sends in chunks.
    pub chunked: bool,
    /// Fields after it.
    pub trailers: Vec<(String, String)>,
}

impl Body {
    /// The pieces that are sent; `split` is the point of [`Cuts::EachSplit`].
    pub fn pieces(&self, split: usize) -> Vec<Vec<u8>> {
        let sent = self.cut_after.unwrap_or(usize::MAX).min(self.bytes.len());
        let mut rest = self.bytes.get(..sent).unwrap_or_default();
        let mut pieces = Vec::new();
        let mut take = |length: usize, pieces: &mut Vec<Vec<u8>>| {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            if !piece.is_empty() {
                pieces.push(piece.to_vec());
            }
            rest = after;
            rest.is_empty()
        };
        match &self.cuts {
            Cuts::Whole => {}
            Cuts::Lengths(lengths) => {
                for length in lengths {
                    take(*length, &mut pieces);
                }
            }
            Cuts::Every(length) => while !take((*length).max(1), &mut pieces) {},
            Cuts::EachSplit => {
                take(split, &mut pieces);
            }
        }
        take(usize::MAX, &mut pieces);
        pieces
    }

    /// Why its bytes and its pieces do not go together: one may be a step's and the other the default's.
    pub(crate) fn misfit(&self) -> Option<String> {
        let length = self.bytes.len();
        if self.cuts == Cuts::EachSplit && length > SPLITS {
            return Some(format!(
                "the body has {length} bytes; those split at every point have at most {SPLITS}"
            ));
        }
        let cut = self.cut_after.filter(|cut| *cut >= length.max(1))?;
        Some(format!(
            "the body has {length} bytes and cannot be cut off after {cut}"
        ))
    }

    /// How often the case runs for this body, each time with another split.
    pub fn splits(&self) -> usize {
        match self.cuts {
            Cuts::EachSplit => self.bytes.len().saturating_sub(1).clamp(1, SPLITS),
            _ => 1,
        }
    }
}

/// Reads `body` and what goes with it from a message's table; what that does not name is as in `default`.
pub(crate) fn read(table: &Table<'_>, default: &Body) -> Result<Body, Problem> {
    let mut body = default.clone();
    if let Some(node) = table.get("body") {
        body.bytes = bytes(&node)?;
    }
    let (chunks, every) = (table.get("chunks"), table.get("every"));
    match (chunks, every) {
        (Some(_), Some(every)) => return every.fail("there is `chunks` already: one of them"),
        (Some(chunks), None) if chunks.as_text().is_some() => {
            if chunks.text()? != "at every split point" {
                return chunks.fail("want lengths such as [1, 5], or \"at every split point\"");
            }
            body.cuts = Cuts::EachSplit;
        }
        (Some(chunks), None) => {
            let lengths = chunks
                .list()?
                .iter()
                .map(|length| Ok(length.number(1, LONGEST)? as usize))
                .collect::<Result<_, Problem>>()?;
            body.cuts = Cuts::Lengths(lengths);
        }
        (None, Some(every)) => body.cuts = Cuts::Every(every.number(1, LONGEST)? as usize),
        (None, None) => {}
    }
    if let Some(pause) = table.get("pause") {
        body.pause = time::duration(&pause)?;
    }
    if let Some(cut) = table.get("cut_after") {
        let most = (body.bytes.len() as u64).saturating_sub(1);
        body.cut_after = Some(cut.number(0, most)? as usize);
    }
    if let Some(trailers) = table.get("trailers") {
        body.trailers = lines(fields(&trailers)?);
    }
    let pieces = |body: &Body| (body.cuts.clone(), body.trailers.clone());
    body.chunked = match table.get("chunked") {
        Some(chunked) => chunked.flag()?,
        None if pieces(&body) == pieces(default) => default.chunked,
        None => body.cuts != Cuts::Whole || !body.trailers.is_empty(),
    };
    match body.misfit() {
        Some(why) => table.fail(why),
        None => Ok(body),
    }
}

/// Fields by their names, each with its lines.
pub(crate) type Fields = Vec<(String, Vec<String>)>;

/// Fields line by line.
pub(crate) fn lines(fields: Fields) -> Vec<(String, String)> {
    let lines_of = |(name, values): (String, Vec<String>)| {
        values.into_iter().map(move |value| (name.clone(), value))
    };
    fields.into_iter().flat_map(lines_of).collect()
}

/// Reads fields: a text for one line, a list for several, or for none.
pub(crate) fn fields(node: &Node<'_>) -> Result<Fields, Problem> {
    let mut fields = Vec::new();
    for (name, value) in node.table()?.entries() {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return value.fail(format!("{name:?} is no name of a field"));
        }
        let values = if value.is_list() {
            value.list()?
        } else {
            vec![value]
        };
        let mut lines = Vec::with_capacity(values.len());
        for value in values {
            let text = value.text()?;
            if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
                return value.fail(format!("{text:?} holds a control character"));
            }
            lines.push(text.to_owned());
        }
        fields.push((name.to_ascii_lowercase(), lines));
    }
    Ok(fields)
}

/// The bytes a value stands for: a text, or a table with one of `text`, `json`, `file`, `base64`, `repeat`, `random`.
pub(crate) fn bytes(node: &Node<'_>) -> Result<Vec<u8>, Problem> {
    if let Some(text) = node.as_text() {
        return Ok(text.as_bytes().to_vec());
    }
    let table = node.table()?;
    let mut found: Vec<Vec<u8>> = Vec::new();
    if let Some(text) = table.get("text") {
        found.push(text.text()?.as_bytes().to_vec());
    }
    if let Some(json) = table.get("json") {
        found.push(json.json()?.to_string().into_bytes());
    }
    if let Some(file) = table.get("file") {
        found.push(read_file(&file)?);
    }
    if let Some(base64) = table.get("base64") {
        match base64::engine::general_purpose::STANDARD.decode(base64.text()?) {
            Ok(bytes) => found.push(bytes),
            Err(error) => return base64.fail(format!("it is no base64: {error}")),
        }
    }
    let (repeat, length) = (table.get("repeat"), table.get("bytes"));
    if let Some(repeat) = repeat {
        let Some(length) = &length else {
            return repeat.fail("`bytes` is missing: the length of the whole");
        };
        let text = repeat.text()?.as_bytes();
        if text.is_empty() {
            return repeat.fail("nothing cannot be repeated");
        }
        let length = length.number(0, LONGEST)? as usize;
        found.push(text.iter().copied().cycle().take(length).collect());
    }
    if let Some(random) = table.get("random") {
        let length = random.number(0, LONGEST)? as usize;
        let seed = match table.get("seed") {
            Some(seed) => seed.number(0, u64::MAX >> 1)?,
            None => 1,
        };
        found.push(noise(length, seed));
    }
    table.finish()?;
    match <[Vec<u8>; 1]>::try_from(found) {
        Ok([bytes]) => Ok(bytes),
        Err(_) => node
            .fail("want one of `text`, `json`, `file`, `base64`, `repeat` with `bytes`, `random`"),
    }
}

/// A file named in a file of cases, at most [`LONGEST`] bytes.
pub(crate) fn read_file(node: &Node<'_>) -> Result<Vec<u8>, Problem> {
    let file = node.source.resolve(node.text()?);
    match std::fs::metadata(&file) {
        Ok(meta) if meta.len() > LONGEST => node.fail(format!(
            "{} has {} bytes, at most {LONGEST}",
            file.display(),
            meta.len()
        )),
        Ok(_) => match std::fs::read(&file) {
            Ok(bytes) => Ok(bytes),
            Err(error) => node.fail(format!("{} cannot be read: {error}", file.display())),
        },
        Err(error) => node.fail(format!("{} cannot be read: {error}", file.display())),
    }
}

/// Bytes without a pattern, the same for the same seed (xorshift64*).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_body() {
        let body = |cuts, cut_after| Body {
            bytes: b"abcdef".to_vec(),
            cuts,
            cut_after,
            ..Body::default()
        };
        for (name, body, want) in [
            ("whole", body(Cuts::Whole, None), "abcdef"),
            ("lengths", body(Cuts::Lengths(vec![1, 2]), None), "a|bc|def"),
            (
                "longer than it is",
                body(Cuts::Lengths(vec![9]), None),
                "abcdef",
            ),
            ("every", body(Cuts::Every(4), None), "abcd|ef"),
            ("split", body(Cuts::EachSplit, None), "ab|cdef"),
            ("cut off", body(Cuts::Every(2), Some(3)), "ab|c"),
        ] {
            let pieces: Vec<_> = body
                .pieces(2)
                .into_iter()
                .map(|piece| String::from_utf8(piece).unwrap())
                .collect();
            assert_eq!(pieces.join("|"), want, "{name}");
        }
        assert_eq!(body(Cuts::EachSplit, None).splits(), 5);
    }
}
