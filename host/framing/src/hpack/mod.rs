//! RFC 7541, as far as it has to be known whether a field block can be decoded.

mod huffman;
mod table;

use huffman::Huffman;
use table::{Name, Table};

/// Octets of an integer behind its prefix. RFC 7541 §5.1: encodings that exceed implementation limits, in value or octet
/// length, MUST be treated as decoding errors. The reader behind has the same limit.
const INTEGER: u32 = 4;

/// A field block that cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// Reads the field blocks of one connection, in pieces of any size, and decodes nothing: strings are measured. Memory: the
/// lengths of the entries of the dynamic table, of which there are at most 128.
#[derive(Debug)]
pub struct Reader {
    table: Table,
    step: Step,
    line: Line,
    /// A field line came in this block.
    lines: bool,
    pseudo: bool,
}

/// What the next octet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The first octet of a representation.
    Start,
    /// An integer: its octets that came behind the prefix.
    Integer {
        of: Number,
        value: u32,
        octets: u32,
    },
    /// The first octet of a string.
    Length(Part),
    Text(Text),
}

/// What an integer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    /// The entry of an indexed field line.
    Entry,
    /// The entry of a name, or 0.
    Name,
    /// Of the dynamic table.
    Size,
    /// Of a string.
    Length { of: Part, coded: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Name,
    Value,
}

/// A string, octet by octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Text {
    of: Part,
    length: u32,
    left: u32,
    coded: Option<Huffman>,
}

/// A literal field line.
#[derive(Clone, Copy, Default, Debug)]
struct Line {
    /// It goes to the dynamic table.
    kept: bool,
    name: Name,
}

impl Reader {
    /// At the beginning of a connection, with SETTINGS_HEADER_TABLE_SIZE as it is where nothing else is announced.
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            step: Step::Start,
            line: Line::default(),
            lines: false,
            pseudo: false,
        }
    }

    /// A pseudo-field came in this block.
    pub fn pseudo(&self) -> bool {
        self.pseudo
    }

    /// The next piece of a block.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while let Some((&octet, rest)) = bytes.split_first() {
            match self.step {
                Step::Start => {
                    bytes = rest;
                    self.start(octet)?;
                }
                Step::Integer { of, value, octets } => {
                    bytes = rest;
                    let value = value + (u32::from(octet & 0x7f) << (7 * octets));
                    if octet & 0x80 == 0 {
                        self.number(of, value)?;
                    } else if octets + 1 == INTEGER {
                        return Err(Broken);
                    } else {
                        let octets = octets + 1;
                        self.step = Step::Integer { of, value, octets };
                    }
                }
                Step::Length(of) => {
                    bytes = rest;
                    let coded = octet & 0x80 != 0;
                    self.integer(octet, 7, Number::Length { of, coded })?;
                }
                Step::Text(text) => bytes = self.text(text, bytes)?,
            }
        }
        Ok(())
    }

    /// The end of a block.
    pub fn end(&mut self) -> Result<(), Broken> {
        if self.step != Step::Start {
            return Err(Broken);
        }
        self.lines = false;
        self.pseudo = false;
        Ok(())
    }

    /// RFC 7541 §6: which representation it is.
    fn start(&mut self, octet: u8) -> Result<(), Broken> {
        let (bits, of) = match octet {
            0x80.. => (7, Number::Entry),
            0x40.. => (6, Number::Name),
            0x20.. => (5, Number::Size),
            _ => (4, Number::Name),
        };
        if of != Number::Size {
            self.lines = true;
        } else if self.lines {
            // RFC 7541 §4.2: a change of the size MUST occur at the beginning of the first header block that follows it.
            return Err(Broken);
        }
        self.line = Line {
            kept: octet & 0xc0 == 0x40,
            name: Name::default(),
        };
        self.integer(octet, bits, of)
    }

    /// RFC 7541 §5.1: an integer, whose prefix has so many bits.
    fn integer(&mut self, octet: u8, bits: u32, of: Number) -> Result<(), Broken> {
        let most = (1 << bits) - 1;
        let value = u32::from(octet) & most;
        if value < most {
            return self.number(of, value);
        }
        self.step = Step::Integer {
            of,
            value,
            octets: 0,
        };
        Ok(())
    }

    fn number(&mut self, of: Number, value: u32) -> Result<(), Broken> {
        self.step = match of {
            // RFC 7541 §6.1: the index value of 0 MUST be treated as a decoding error.
            Number::Entry => {
                self.pseudo |= self.table.name(value).ok_or(Broken)?.pseudo;
                Step::Start
            }
            Number::Name if value == 0 => Step::Length(Part::Name),
            Number::Name => {
                self.line.name = self.table.name(value).ok_or(Broken)?;
                Step::Length(Part::Value)
            }
            Number::Size => {
                self.table.resize(value).ok_or(Broken)?;
                Step::Start
            }
            Number::Length { of, coded } => {
                let text = Text {
                    of,
                    length: value,
                    left: value,
                    coded: coded.then(Huffman::default),
                };
                if value > 0 {
                    Step::Text(text)
                } else {
                    self.told(of, 0)
                }
            }
        };
        Ok(())
    }

    /// Octets of a string; gives what is behind it.
    fn text<'a>(&mut self, mut text: Text, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        if text.of == Part::Name && text.left == text.length {
            let first = bytes.first().copied().unwrap_or_default();
            // The code of a colon has 7 bits (RFC 7541 Appendix B).
            self.line.name.pseudo = match text.coded {
                None => first == b':',
                Some(_) => first >> 1 == 0x5c,
            };
        }
        let count = usize::try_from(text.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (octets, rest) = bytes.split_at(count);
        text.left -= count as u32;
        if let Some(coded) = &mut text.coded {
            coded.read(octets)?;
        }
        self.step = if text.left > 0 {
            Step::Text(text)
        } else {
            let length = match text.coded {
                None => text.length,
                Some(coded) => coded.end()?,
            };
            self.told(text.of, length)
        };
        Ok(rest)
    }

    /// The length of a string, decoded.
    fn told(&mut self, of: Part, length: u32) -> Step {
        match of {
            Part::Name => {
                self.line.name.length = length;
                Step::Length(Part::Value)
            }
            Part::Value => {
                self.pseudo |= self.line.name.pseudo;
                if self.line.kept {
                    self.table.add(self.line.name, length);
                }
                Step::Start
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of blocks, one after the other, in pieces of every size.
    fn play(blocks: &[&[u8]]) -> Result<(), Broken> {
        let mut all = None;
        for size in [1, 2, 3, 7, usize::MAX] {
            let mut reader = Reader::new();
            let got = blocks.iter().try_for_each(|block| {
                block.chunks(size).try_for_each(|it| reader.read(it))?;
                reader.end()
            });
            let first = *all.get_or_insert(got);
            assert_eq!(first, got, "in pieces of {size}");
        }
        all.expect("there are sizes")
    }

    const KEPT: &[u8] = &[0x40, 1, b'x', 1, b'y'];

    #[test]
    fn blocks_one_after_the_other() {
        // 4,096 and one more.
        let (size, more) = (&[0x3f, 0xe1, 0x1f][..], &[0x3f, 0xe2, 0x1f][..]);
        let large = [&[0x40, 1, b'x', 0x7f, 0x89, 0x26][..], &[b'y'; 5_000]].concat();
        let half = [&[0x40, 1, b'x', 0x7f, 0xd0, 0x0e][..], &[b'y'; 1_999]].concat();
        for (name, blocks, sound) in [
            ("nothing", &[&b""[..]][..], true),
            ("the static table", &[&[0x82, 0x86, 0x84, 0x80 | 61]], true),
            ("index 0", &[&[0x80]], false),
            ("an index beyond the tables", &[&[0x80 | 62]], false),
            ("an entry in the next block", &[KEPT, &[0x80 | 62]], true),
            ("and one too far", &[KEPT, &[0x80 | 63]], false),
            ("in the same block", &[&[0x40, 1, b'x', 0, 0x80 | 62]], true),
            ("its name", &[KEPT, &[0x40 | 62, 0, 0x80 | 63]], true),
            ("not kept", &[&[0, 1, b'x', 0], &[0x80 | 62]], false),
            ("never kept", &[&[0x10, 1, b'x', 0], &[0x80 | 62]], false),
            ("too large to be kept", &[KEPT, &large, &[0x80 | 62]], false),
            ("two that fit", &[&half, &half, &[0x80 | 63]], true),
            ("three do not", &[&half, &half, &half, &[0x80 | 64]], false),
            ("a size", &[size], true),
            ("a size too large", &[more], false),
            ("two sizes", &[&[&[0x20][..], size].concat()], true),
            ("a size behind a field", &[&[0x82, 0x20]], false),
            ("a size of 0", &[KEPT, &[0x20, 0x80 | 62]], false),
            (
                "that grows again",
                &[KEPT, &[&[0x20][..], size, &[0x80 | 62]].concat()],
                false,
            ),
            (
                "an integer of 5 octets",
                &[KEPT, &[0xff, 0x80, 0x80, 0x80, 0x00]],
                false,
            ),
            (
                "one with zeros",
                &[&[0x0f, 0x80, 0x80, 0x80, 0x00, 0]],
                true,
            ),
            (
                "of 6 octets",
                &[&[0x0f, 0x80, 0x80, 0x80, 0x80, 0x00, 0]],
                false,
            ),
            ("an integer that is cut", &[&[0xff]], false),
            ("a name that is cut", &[&[0, 5, b'a', b'b']], false),
            ("no value", &[&[0, 1, b'x']], false),
            ("an empty value", &[&[0, 1, b'x', 0]], true),
            ("an empty name", &[&[0, 0, 0]], true),
            ("Huffman's code", &[&[0x04, 0x81, 0x63]], true),
            ("padding of zeros", &[&[0x04, 0x81, 0x60]], false),
            ("padding of a byte", &[&[0x04, 0x82, 0x63, 0xff]], false),
            ("a byte of padding alone", &[&[0x04, 0x81, 0xff]], false),
            (
                "the end of strings",
                &[&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff]],
                false,
            ),
            (
                "a coded string is measured decoded",
                // 2,400 times a character of 5 bits in 1,500 octets: two of them do not fit.
                &[
                    &[&[0x40, 1, b'x', 0xff, 0xdd, 0x0a][..], &[0; 1_500]].concat(),
                    &[&[0x40, 1, b'x', 0xff, 0xdd, 0x0a][..], &[0; 1_500]].concat(),
                    &[0x80 | 63],
                ],
                false,
            ),
        ] {
            assert_eq!(play(blocks).is_ok(), sound, "{name}");
        }
    }

    #[test]
    fn pseudo_fields() {
        for (name, before, block, pseudo) in [
            ("none", &b""[..], &[0x0f, 0x00, 1, b'y'][..], false),
            (":status", b"", &[0x80 | 14], true),
            ("accept-charset", b"", &[0x80 | 15], false),
            ("a value for :path", b"", &[0x04, 1, b'/'], true),
            ("a name", b"", b"\x00\x02:a\x01b", true),
            ("a colon within", b"", b"\x00\x02a:\x01b", false),
            // `:` with 7 bits, and one bit of padding.
            ("a coded name", b"", &[0, 0x81, 0xb9, 0], true),
            ("another", b"", &[0, 0x81, 0xbb, 0], false),
            ("kept before", b"\x40\x02:a\x01b", &[0x80 | 62], true),
            ("another name", b"\x40\x02:a\x01b\0\0\0", b"\0\0\0", false),
            ("its name", b"\x40\x02:a\x01b", &[0x0f, 62 - 15, 0], true),
        ] {
            let mut reader = Reader::new();
            assert_eq!(reader.read(before).and_then(|()| reader.end()), Ok(()));
            assert_eq!(reader.read(block), Ok(()), "{name}");
            assert_eq!(reader.pseudo(), pseudo, "{name}");
        }
    }
}
