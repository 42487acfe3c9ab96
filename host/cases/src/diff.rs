//! What differs, line by line.

use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

/// The most lines of a difference that are shown.
const LINES: usize = 40;
/// Bytes of a body that are shown where it is no text.
const BYTES: usize = 256;

/// What differs: lines that go on with two spaces, what was expected with `-`, what there is with `+`.
pub fn lines(want: &str, got: &str) -> String {
    let diff = TextDiff::from_lines(want, got);
    let mut out = String::new();
    let mut shown = 0;
    for group in diff.grouped_ops(2) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            shown += 1;
            if shown > LINES {
                let _ = writeln!(out, "  … and more");
                return out;
            }
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let line: String = change
                .value()
                .trim_end_matches('\n')
                .chars()
                .take(400)
                .collect();
            let _ = writeln!(out, "{sign} {line}");
        }
    }
    out
}

/// Two bodies as texts that can be compared: themselves, or what they begin to differ with in hexadecimal.
pub(crate) fn texts(want: &[u8], got: &[u8]) -> (String, String) {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        let plain = |c: char| !c.is_control() || c == '\n' || c == '\t' || c == '\r';
        text.chars().all(plain).then(|| text.to_owned())
    };
    if let (Some(want), Some(got)) = (text(want), text(got))
        && want
            .lines()
            .chain(got.lines())
            .all(|line| line.len() <= 2_000)
    {
        return (want, got);
    }
    let same = want.iter().zip(got).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(16);
    (hex(want, from), hex(got, from))
}

fn hex(bytes: &[u8], from: usize) -> String {
    let mut out = format!("{} bytes, from {from} on:", bytes.len());
    let shown = bytes.get(from..).unwrap_or_default();
    for (row, part) in shown
        .iter()
        .take(BYTES)
        .collect::<Vec<_>>()
        .chunks(16)
        .enumerate()
    {
        let _ = write!(out, "\n{:08x} ", from + row * 16);
        for byte in part {
            let _ = write!(out, " {byte:02x}");
        }
        out.push_str("  ");
        for byte in part {
            let c = char::from(**byte);
            out.push(if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '.'
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_signed() {
        assert_eq!(lines("a\nb\nc\n", "a\nx\nc\n"), "  a\n- b\n+ x\n  c\n");
    }

    #[test]
    fn bytes_are_shown_where_they_begin_to_differ() {
        let (want, got) = texts(&[0; 40], &[0, 1]);
        assert!(
            want.starts_with("40 bytes, from 0 on:\n00000000  00 00"),
            "{want}"
        );
        assert!(got.contains("00 01"), "{got}");
    }
}
