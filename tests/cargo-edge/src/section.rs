//! Custom sections: what a module says about itself.
//!
//! A custom section has the same form in a core module and in a component (id 0, size, name, bytes), and may come last
//! in both.

use anyhow::{Context as _, Result, bail};

/// The name of the filter.
pub const NAME: &str = "edgeweir:name";
/// The version of the project.
pub const VERSION: &str = "edgeweir:version";
/// The JSON Schema of the filter's configuration.
pub const SCHEMA: &str = "edgeweir:schema";

/// The instructions it needs, in the form that tools write and `edgeweir inspect` reads: stripping takes out the linker's.
pub const FEATURES: &str = "target_features";

/// The payload of [`FEATURES`]: a count, then each name after a `+` for "used".
pub fn features(names: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    unsigned(&mut payload, names.len());
    for name in names {
        payload.push(b'+');
        unsigned(&mut payload, name.len());
        payload.extend_from_slice(name.as_bytes());
    }
    payload
}

/// Appends a custom section to a module or component.
pub fn append(wasm: &mut Vec<u8>, name: &str, payload: &[u8]) {
    let mut inner = Vec::with_capacity(name.len() + payload.len() + 5);
    unsigned(&mut inner, name.len());
    inner.extend_from_slice(name.as_bytes());
    inner.extend_from_slice(payload);
    wasm.push(0);
    unsigned(wasm, inner.len());
    wasm.extend_from_slice(&inner);
}

/// The payload of the first custom section of that name at the top level; an error when the bytes are no Wasm.
pub fn find<'w>(wasm: &'w [u8], name: &str) -> Result<Option<&'w [u8]>> {
    for section in sections(wasm)?.1 {
        let (id, section) = section?;
        if id == 0 {
            let (length, section) = read_unsigned(section).context("a section's name")?;
            let (found, payload) = section
                .split_at_checked(length)
                .context("a section's name is cut short")?;
            if found == name.as_bytes() {
                return Ok(Some(payload));
            }
        }
    }
    Ok(None)
}

/// The head of a module or component, and its sections.
pub fn sections(wasm: &[u8]) -> Result<(&[u8], Sections<'_>)> {
    match wasm.split_at_checked(8) {
        Some((head, rest)) if head.starts_with(b"\0asm") => Ok((head, Sections(rest))),
        _ => bail!("no WebAssembly: the first bytes are not \\0asm"),
    }
}

/// Ids of sections and what is in them, up to one that is cut short.
pub struct Sections<'w>(&'w [u8]);

impl<'w> Iterator for Sections<'w> {
    type Item = Result<(u8, &'w [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&id, after) = std::mem::take(&mut self.0).split_first()?;
        let section = read_unsigned(after)
            .context("a section's size")
            .and_then(|(size, after)| {
                after
                    .split_at_checked(size)
                    .context("a section is cut short")
            });
        Some(section.map(|(section, after)| {
            self.0 = after;
            (id, section)
        }))
    }
}

/// LEB128, as the WebAssembly specification §5.2.2 has it.
pub fn unsigned(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// The same of a number that may be negative.
pub fn signed(out: &mut Vec<u8>, mut value: i32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

fn read_unsigned(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_the_form_of_the_tool_conventions() {
        assert_eq!(features(&["simd128"]), b"\x01+\x07simd128");
        assert_eq!(features(&[]), b"\0");
    }

    #[test]
    fn signed_numbers_are_as_short_as_can_be() {
        for (number, want) in [
            (0, &[0][..]),
            (63, &[0x3f]),
            (64, &[0xc0, 0]),
            (-64, &[0x40]),
            (-65, &[0xbf, 0x7f]),
            (1 << 20, &[0x80, 0x80, 0xc0, 0]),
            (i32::MIN, &[0x80, 0x80, 0x80, 0x80, 0x78]),
        ] {
            let mut out = Vec::new();
            signed(&mut out, number);
            assert_eq!(out, want, "{number}");
        }
    }

    #[test]
    fn what_was_appended_is_found() {
        for (what, head) in [
            ("a module", *b"\0asm\x01\0\0\0"),
            ("a component", *b"\0asm\x0d\0\x01\0"),
        ] {
            let mut wasm = head.to_vec();
            let long = "x".repeat(70_000);
            append(&mut wasm, NAME, b"cache");
            append(&mut wasm, SCHEMA, long.as_bytes());
            append(&mut wasm, VERSION, b"");
            assert_eq!(find(&wasm, NAME).unwrap(), Some(&b"cache"[..]), "{what}");
            assert_eq!(
                find(&wasm, SCHEMA).unwrap(),
                Some(long.as_bytes()),
                "{what}"
            );
            assert_eq!(find(&wasm, VERSION).unwrap(), Some(&b""[..]), "{what}");
            assert_eq!(find(&wasm, "other").unwrap(), None, "{what}");
            wasm.truncate(wasm.len() - 1);
            assert!(find(&wasm, "other").is_err(), "{what} cut short");
        }
        assert!(find(b"<html>", NAME).is_err());
    }
}
