//! Huffman's code of RFC 7541: how long a string is, and whether it is one.

use super::Broken;

/// RFC 7541 Appendix B: how many codes there are of each length. The code is canonical: of two codes, the longer one is the
/// larger number, and codes of one length follow each other. So the lengths alone say where a code ends.
const CODES: [(u32, u64); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// Codes of each length are below this, when they are moved to the high end of 32 bits.
const BELOW: [u64; CODES.len()] = {
    let mut below = [0; CODES.len()];
    let (mut end, mut at) = (0, 0);
    while at < CODES.len() {
        let (length, count) = CODES[at];
        end += count << (32 - length);
        below[at] = end;
        at += 1;
    }
    // Each sequence of bits begins with one of them.
    assert!(end == 1 << 32);
    below
};

/// Bits that are looked at together: two codes of the characters that are common.
const TOGETHER: u32 = 12;
/// By such bits: how many codes end in them, above the number of their bits; 0 when none does.
const ENDS: [u8; 1 << TOGETHER] = {
    let mut ends = [0; 1 << TOGETHER];
    let mut bits = 0;
    while bits < ends.len() {
        let (mut used, mut count) = (0, 0);
        while used < TOGETHER {
            let length = length((bits as u32) << (32 - TOGETHER + used));
            if used + length > TOGETHER {
                break;
            }
            used += length;
            count += 1;
        }
        ends[bits] = (count << 4 | used) as u8;
        bits += 1;
    }
    ends
};

/// The last code: the end of strings, of which there is none in a string.
const EOS: u32 = 0x3fff_ffff;

/// The length of the code at the high end of 32 bits.
const fn length(bits: u32) -> u32 {
    let mut at = 0;
    while at + 1 < CODES.len() && bits as u64 >= BELOW[at] {
        at += 1;
    }
    CODES[at].0
}

/// A string of which so much came.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Huffman {
    /// Bits in which no code has ended yet, at the low end; what is above is used up.
    bits: u64,
    count: u32,
    /// Characters.
    length: u32,
}

impl Huffman {
    /// The next octets.
    pub fn read(&mut self, octets: &[u8]) -> Result<(), Broken> {
        // Fewer than 30 bits are left each time, so there is room.
        let (fours, rest) = octets.as_chunks();
        for four in fours {
            self.bits = self.bits << 32 | u64::from(u32::from_be_bytes(*four));
            self.count += 32;
            self.codes()?;
        }
        for octet in rest {
            self.bits = self.bits << 8 | u64::from(*octet);
            self.count += 8;
        }
        self.codes()
    }

    /// The number of characters, at the end of a string.
    pub fn end(mut self) -> Result<u32, Broken> {
        while self.code()? {}
        // RFC 7541 §5.2: padding strictly longer than 7 bits, and one that is not the most significant bits of the code for
        // EOS, MUST be treated as a decoding error.
        let ones = (1 << self.count) - 1;
        if self.count < 8 && self.bits & ones == ones {
            Ok(self.length)
        } else {
            Err(Broken)
        }
    }

    /// Uses up what there is, but for less than [`TOGETHER`] or one code.
    fn codes(&mut self) -> Result<(), Broken> {
        loop {
            let (bits, mut count, mut length) = (self.bits, self.count, self.length);
            while count >= TOGETHER {
                let next = (bits >> (count - TOGETHER)) as usize % ENDS.len();
                let ends = u32::from(ENDS[next]);
                if ends == 0 {
                    break;
                }
                count -= ends & 0xf;
                length += ends >> 4;
            }
            (self.count, self.length) = (count, length);
            if count < TOGETHER || !self.code()? {
                return Ok(());
            }
        }
    }

    /// Uses up one code, if its end has come.
    fn code(&mut self) -> Result<bool, Broken> {
        // Zeros behind what came: the shortest code that may be meant. A longer one has to wait for its end.
        let next = match self.count {
            32.. => (self.bits >> (self.count - 32)) as u32,
            count => (self.bits << (32 - count)) as u32,
        };
        let length = length(next);
        if length > self.count {
            return Ok(false);
        }
        // RFC 7541 §5.2: a string literal containing the EOS symbol MUST be treated as a decoding error.
        if next >> 2 == EOS {
            return Err(Broken);
        }
        self.count -= length;
        self.length += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length_of(octets: &[u8]) -> Result<u32, Broken> {
        let mut all = None;
        for size in [1, 2, 3, 5, 100] {
            let mut text = Huffman::default();
            let got = octets
                .chunks(size)
                .try_for_each(|it| text.read(it))
                .and_then(|()| text.end());
            assert_eq!(*all.get_or_insert(got), got, "in pieces of {size}");
        }
        all.expect("there are sizes")
    }

    #[test]
    fn strings_of_the_rfc() {
        // RFC 7541 Appendix C.4 and C.6.
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
            (
                "https://www.example.com",
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
            ),
            ("gzip", "9bd9ab"),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let octets: Vec<u8> = (0..coded.len() / 2)
                .map(|at| u8::from_str_radix(&coded[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            assert_eq!(length_of(&octets), Ok(text.len() as u32), "{text}");
        }
    }

    #[test]
    fn ends_of_strings() {
        for (name, octets, want) in [
            ("nothing", &b""[..], Ok(0)),
            ("/", &[0x63], Ok(1)),
            ("zeros behind it", &[0x60], Err(Broken)),
            ("eight bits of padding", &[0x63, 0xff], Err(Broken)),
            ("padding alone", &[0xff], Err(Broken)),
            ("EOS", &[0xff, 0xff, 0xff, 0xff], Err(Broken)),
            // 0x3ffffffc and 30 bits: the longest code that is a character (LF).
            ("30 bits", &[0xff, 0xff, 0xff, 0xf3], Ok(1)),
            ("half a code", &[0xff, 0xc0], Err(Broken)),
            ("8 bits", &[0xf8, 0xf8], Ok(2)),
        ] {
            assert_eq!(length_of(octets), want, "{name}");
        }
    }
}
