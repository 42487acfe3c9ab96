//! What the fuzz targets of `tests/fuzz` call: they take any bytes and panic when a promise is broken.

use bytes::Bytes;
use edgeweir_filter::{Fields, ResponseHead};

use crate::accept_encoding::AcceptEncoding;
use crate::dictionary::fields::{Available, UseAs};
use crate::{Coding, Decoder, DecoderFailed, Etags, Flush, Plan, etag};

/// A fuzz target: takes any bytes.
pub type Run = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Run); 5] = [
    ("decode", decode),
    ("code", code),
    ("negotiate", negotiate),
    ("dictionary", dictionary),
    ("etag", etag),
];

/// What a body may grow to, in times its length; beyond 1 MiB.
const RATIO: u32 = 20;

/// A coding, a size of pieces, room for output, and a body in that coding: the same comes out however it is cut, no more than
/// is allowed, and nothing after a failure.
pub fn decode(data: &[u8]) {
    let Some((&[coding, piece, most], body)) = data.split_first_chunk::<3>() else {
        return;
    };
    let coding = pick(coding);
    let (whole, ended) = decoded(coding, body.chunks(usize::MAX), 1 << 16);
    let pieces = body.chunks(1 + usize::from(piece));
    let (cut, cut_ended) = decoded(coding, pieces, 1 + usize::from(most));
    assert_eq!(ended.is_ok(), cut_ended.is_ok(), "{ended:?} {cut_ended:?}");
    if ended.is_ok() {
        assert!(whole == cut, "cut by {piece} it is another body");
    }
    let short = whole.len().min(cut.len());
    assert!(whole.get(..short) == cut.get(..short), "before the failure");
    let allowed = (body.len() as u64 * u64::from(RATIO)).max(1 << 20);
    // What came out last was counted only then.
    assert!(whole.len() as u64 <= allowed + (1 << 16), "a bomb went off");
}

fn decoded<'c>(
    coding: Coding,
    chunks: impl Iterator<Item = &'c [u8]>,
    most: usize,
) -> (Vec<u8>, Result<(), DecoderFailed>) {
    let (mut decoder, mut out) = (Decoder::new(coding, RATIO), Vec::new());
    let mut chunks = chunks.peekable();
    while let Some(mut chunk) = chunks.next() {
        let end = chunks.peek().is_none();
        loop {
            let before = (out.len(), chunk.len());
            match decoder.pull(&mut chunk, end, &mut out, most) {
                Ok(true) => assert!(
                    (out.len(), chunk.len()) != before || chunk.is_empty() || out.len() < most,
                    "it asks again for nothing"
                ),
                Ok(false) => break,
                Err(failed) => return (out, Err(failed)),
            }
            assert!(out.len() - before.0 <= most, "more than there is room for");
        }
    }
    (out, Ok(()))
}

/// A coding, a level, how it is flushed, a size of pieces, and a body: what was flushed is decodable, and all of it at the end.
pub fn code(data: &[u8]) {
    let Some((&[coding, level, flushes, piece], body)) = data.split_first_chunk::<4>() else {
        return;
    };
    let coding = pick(coding);
    let levels = coding.levels();
    let span = levels.end() - levels.start() + 1;
    let plan = Plan::new(coding, levels.start() + level % span, 17, None);
    let (mut encoder, mut decoder) = (plan.encoder(), Decoder::new(coding, u32::MAX));
    let (mut plain, mut fed) = (Vec::new(), 0);
    let mut chunks = body.chunks(1 + usize::from(piece)).enumerate().peekable();
    if chunks.peek().is_none() {
        return;
    }
    while let Some((at, chunk)) = chunks.next() {
        let flush = match (chunks.peek(), flushes >> (at % 8) & 1) {
            (None, _) => Flush::End,
            (_, 0) => Flush::Later,
            _ => Flush::Now,
        };
        let mut out = Vec::new();
        assert!(encoder.feed(chunk, flush, &mut out).is_ok(), "{flush:?}");
        fed += chunk.len();
        let mut coded = &out[..];
        while decoder.pull(&mut coded, flush == Flush::End, &mut plain, 1 << 16) == Ok(true) {}
        assert!(coded.is_empty(), "{coding:?}: it can't be decoded");
        assert!(body.starts_with(&plain), "{coding:?}: another body");
        if flush != Flush::Later {
            assert_eq!(
                plain.len(),
                fed,
                "{coding:?}: {flush:?} left something behind"
            );
        }
    }
}

fn pick(byte: u8) -> Coding {
    let all = Coding::ALL;
    all.get(usize::from(byte) % all.len())
        .copied()
        .unwrap_or(Coding::Gzip)
}

/// `Accept-Encoding`, a line each: the same as one line; what is chosen is acceptable, and no coding is chosen twice.
pub fn negotiate(data: &[u8]) {
    let fields = lines("accept-encoding", data);
    let accept = AcceptEncoding::parse(&fields);
    let ranked = accept.rank(&Coding::ALL);
    for (at, coding) in ranked.iter().enumerate() {
        assert!(accept.accepts(*coding), "{coding:?} is not acceptable");
        let before = ranked.get(..at).unwrap_or_default();
        assert!(!before.contains(coding), "{coding:?} twice");
        assert!(before.iter().all(|better| accept.likes(*better, *coding)));
    }
    let plain = |it: &crate::accept_encoding::Candidate| (!it.dictionary).then_some(it.coding);
    let with: Vec<_> = accept.candidates(&Coding::ALL, true);
    assert!(with.iter().filter_map(plain).eq(ranked.iter().copied()));
    // A quote that one line opens, which nothing here is to have, would go on in the next.
    let joined = fields.joined("accept-encoding");
    if let Some(joined) = joined.filter(|joined| !joined.contains(&b'"')) {
        let one = AcceptEncoding::parse(&lines("accept-encoding", &joined));
        assert_eq!(one.rank(&Coding::ALL), ranked, "as one line");
    }
}

/// A path, a pattern's field and a client's: a dictionary is for paths that its literal start has, and reading ends.
pub fn dictionary(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (path, says, has) = (part(), part(), part());
    let path = [b"/", path].concat();
    if let Some(found) = UseAs::parse(&lines("use-as-dictionary", says), &path) {
        assert!(found.id.len() <= 1024 && found.destinations.len() <= 32);
        for other in [&path[..], b"/", b"", has] {
            // Nothing but a path can be meant.
            assert!(!found.pattern.matches(other) || other.starts_with(b"/"));
        }
    }
    if let Some(found) = Available::parse(&lines("available-dictionary", has)) {
        assert!(has.contains(&b':'), "{found:?}");
    }
}

/// A tag and a list of tags: what is said of a coded form is understood when it comes back, and lists stay lists.
pub fn etag(data: &[u8]) {
    let (tag, list) = data.split_at(
        data.iter()
            .position(|&it| it == b'\n')
            .unwrap_or(data.len()),
    );
    let mut asked = lines("if-none-match", list.get(1..).unwrap_or_default());
    etag::to_origin(Etags::Suffix, &mut asked);
    for coding in Coding::ALL {
        let mut head = ResponseHead::default();
        head.fields.append("etag", tag.to_vec());
        etag::coded(&mut head, coding, Etags::Suffix, false);
        let Some(said) = head.fields.get("etag").map(<[u8]>::to_vec) else {
            continue;
        };
        let opaque = tag.get(1..tag.len().saturating_sub(1)).unwrap_or_default();
        // RFC 9110 §8.8.3: etagc is %x21 / %x23-7E / obs-text.
        let is_tag = tag.len() > 1
            && tag.starts_with(b"\"")
            && tag.ends_with(b"\"")
            && opaque
                .iter()
                .all(|&it| it == 0x21 || (0x23..=0x7e).contains(&it) || it > 0x7f);
        if is_tag {
            let mut asks = lines("if-none-match", &said);
            etag::to_origin(Etags::Suffix, &mut asks);
            let back = asks.joined("if-none-match").unwrap_or_default();
            let understood = back.windows(tag.len()).any(|part| part == tag);
            assert!(
                understood,
                "{:?} comes back as {:?}",
                Bytes::copy_from_slice(&said),
                back
            );
        }
    }
}

fn lines(name: &str, data: &[u8]) -> Fields {
    let lines = data.split(|&byte| byte == b'\n');
    Fields::received(lines.map(|line| {
        let name = Bytes::copy_from_slice(name.as_bytes());
        (name, Bytes::copy_from_slice(line))
    }))
}
