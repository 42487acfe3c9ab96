//! What codings a client accepts, and in which order to try ours (RFC 9110 §12.5.3).

use edgeweir_filter::{Fields, is_token};

use crate::Coding;

/// A quality value in thousandths, 0 to 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Quality(u16);

impl Quality {
    const ONE: Self = Self(1000);
    const ZERO: Self = Self(0);

    /// RFC 9110 §12.4.2: qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
    fn parse(text: &[u8]) -> Option<Self> {
        let (whole, decimals) = match text {
            [whole] => (whole, &[][..]),
            [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
            _ => return None,
        };
        let mut thousandths = 0;
        for place in 0..3 {
            let digit = decimals.get(place).unwrap_or(&b'0');
            if !digit.is_ascii_digit() {
                return None;
            }
            thousandths = thousandths * 10 + u16::from(digit - b'0');
        }
        match whole {
            b'0' => Some(Self(thousandths)),
            b'1' if thousandths == 0 => Some(Self::ONE),
            _ => None,
        }
    }
}

/// What a request says of content codings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AcceptEncoding {
    listed: [Option<Quality>; Coding::COUNT],
    /// RFC 9842 §4, §5: coded with the dictionary that the client has.
    dcb: Option<Quality>,
    dcz: Option<Quality>,
    identity: Option<Quality>,
    any: Option<Quality>,
}

/// A coding to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) coding: Coding,
    /// With the dictionary that the client has.
    pub(crate) dictionary: bool,
}

impl AcceptEncoding {
    /// Reads all lines of the field; a member that does not follow the grammar is as if it were not there.
    ///
    /// A coding named more than once has the lowest of its qualities: never more than the client asked for.
    pub fn parse(fields: &Fields) -> Self {
        let mut accept = Self::default();
        for member in fields.list("accept-encoding") {
            let Some((name, quality)) = coding_and_weight(member) else {
                continue;
            };
            // RFC 9110 §8.4.1: "All content codings are case-insensitive".
            let lower = name.to_ascii_lowercase();
            let slot = match &lower[..] {
                b"*" => Some(&mut accept.any),
                b"identity" => Some(&mut accept.identity),
                b"dcb" => Some(&mut accept.dcb),
                b"dcz" => Some(&mut accept.dcz),
                other => {
                    Coding::named(other).and_then(|coding| accept.listed.get_mut(coding as usize))
                }
            };
            if let Some(slot) = slot {
                *slot = Some(slot.map_or(quality, |before| before.min(quality)));
            }
        }
        accept
    }

    /// Of `ours`, in the server's order of preference, those to try, best first; empty means no coding.
    ///
    /// A higher quality goes before, an equal one keeps the server's order. Codings that the client likes less than
    /// `identity`, by name or by `*`, are left out.
    ///
    /// Also empty when nothing is acceptable and `identity;q=0` refuses the plain form: a 406 would take away content
    /// that RFC 9110 §15.5.7 lets a server send ("disregard the header field").
    pub fn rank(&self, ours: &[Coding]) -> Vec<Coding> {
        let candidates = self.candidates(ours, false);
        candidates.into_iter().map(|it| it.coding).collect()
    }

    /// As [`rank`](Self::rank); with a `dictionary` also our codings with it, each before all without where the client
    /// likes them as much. "*" does not ask for them: it is older than they are.
    pub(crate) fn candidates(&self, ours: &[Coding], dictionary: bool) -> Vec<Candidate> {
        // RFC 9110 §12.5.3: "*" stands for what "is not explicitly listed", the plain form among it.
        let floor = self.identity.or(self.any).unwrap_or(Quality::ZERO);
        let shared = ours.iter().filter(|_| dictionary).map(|&coding| {
            let quality = match coding {
                #[cfg(feature = "brotli")]
                Coding::Brotli => self.dcb,
                Coding::Zstd => self.dcz,
                Coding::Gzip | Coding::Deflate => None,
            };
            (quality, coding, true)
        });
        let plain = ours
            .iter()
            .map(|&coding| (self.quality(coding), coding, false));
        let mut ranked: Vec<(Quality, Candidate)> = shared
            .chain(plain)
            .filter_map(|(quality, coding, dictionary)| {
                let quality = quality.filter(|it| *it > Quality::ZERO && *it >= floor)?;
                Some((quality, Candidate { coding, dictionary }))
            })
            .collect();
        ranked.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
        ranked.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// Whether a coding is acceptable.
    pub(crate) fn accepts(&self, coding: Coding) -> bool {
        self.quality(coding).is_some_and(|it| it > Quality::ZERO)
    }

    /// Whether the plain form is: "the "identity" coding is always acceptable" unless it is refused, by name or by "*".
    pub(crate) fn accepts_identity(&self) -> bool {
        self.identity.or(self.any) != Some(Quality::ZERO)
    }

    /// Whether `first` is liked better than `second`, or as much.
    pub(crate) fn likes(&self, first: Coding, second: Coding) -> bool {
        self.quality(first) >= self.quality(second)
    }

    /// "The asterisk "*" symbol matches any available content coding not explicitly listed".
    fn quality(&self, coding: Coding) -> Option<Quality> {
        let listed = self.listed.get(coding as usize).copied().flatten();
        listed.or(self.any)
    }
}

/// RFC 9110 §12.5.3: #( codings [ weight ] ); §12.4.2: weight = OWS ";" OWS "q=" qvalue
fn coding_and_weight(member: &[u8]) -> Option<(&[u8], Quality)> {
    let Some(at) = member.iter().position(|&byte| byte == b';') else {
        return is_token(member).then_some((member, Quality::ONE));
    };
    let name = trim_ows(member.get(..at)?);
    let weight = trim_ows(member.get(at + 1..)?);
    let ([b'q' | b'Q', b'='], quality) = weight.split_at_checked(2)? else {
        return None;
    };
    Some((name, Quality::parse(quality)?)).filter(|_| is_token(name))
}

fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Deflate, Gzip};

    fn ranked(lines: &[&str], ours: &[Coding]) -> Vec<Coding> {
        let mut fields = Fields::default();
        for line in lines {
            fields.append("accept-encoding", (*line).to_owned());
        }
        AcceptEncoding::parse(&fields).rank(ours)
    }

    #[test]
    fn rfc_9110_section_12_5_3() {
        let ours = [Brotli, Gzip, Deflate];
        let cases: &[(&str, &[&str], &[Coding])] = &[
            ("no field asks for nothing", &[], &[]),
            ("an empty field wants no coding", &[""], &[]),
            ("one coding", &["gzip"], &[Gzip]),
            (
                "server order at equal quality",
                &["gzip, deflate, br"],
                &[Brotli, Gzip, Deflate],
            ),
            (
                "client quality first",
                &["gzip;q=1.0, br;q=0.5"],
                &[Gzip, Brotli],
            ),
            (
                "thousandths count",
                &["br;q=0.998, gzip;q=0.999"],
                &[Gzip, Brotli],
            ),
            ("zero quality refuses", &["gzip;q=0, deflate"], &[Deflate]),
            ("zero with decimals refuses", &["gzip;q=0.000"], &[]),
            ("unknown codings are ignored", &["exi, compress, dcb"], &[]),
            (
                "star stands for all not listed",
                &["*"],
                &[Brotli, Gzip, Deflate],
            ),
            (
                "star does not override a refusal",
                &["br;q=0, *"],
                &[Gzip, Deflate],
            ),
            ("star with zero refuses the rest", &["gzip, *;q=0"], &[Gzip]),
            (
                "star ranks by its quality",
                &["gzip, *;q=0.1"],
                &[Gzip, Brotli, Deflate],
            ),
            (
                "star with a higher quality is for the plain form",
                &["gzip;q=0.1, *;q=0.5, br;q=0, deflate;q=0"],
                &[],
            ),
            ("identity alone", &["identity"], &[]),
            ("identity preferred", &["identity, gzip;q=0.5"], &[]),
            (
                "identity at equal quality gives way",
                &["identity, gzip"],
                &[Gzip],
            ),
            (
                "identity liked less",
                &["identity;q=0.5, gzip;q=0.8, br;q=0.4"],
                &[Gzip],
            ),
            ("identity refused and nothing else", &["identity;q=0"], &[]),
            (
                "identity refused, coding liked",
                &["identity;q=0, gzip;q=0.1"],
                &[Gzip],
            ),
            ("everything refused", &["*;q=0"], &[]),
            ("x-gzip is gzip", &["x-gzip"], &[Gzip]),
            ("names have no case", &["GZip, BR;Q=0.1"], &[Gzip, Brotli]),
            (
                "several lines are one list",
                &["gzip;q=0.2", "br;q=0.1"],
                &[Gzip, Brotli],
            ),
            ("empty members", &[",, gzip ,"], &[Gzip]),
            (
                "space around the semicolon",
                &["gzip \t; \tq=0.5, br; q=0.1"],
                &[Gzip, Brotli],
            ),
            (
                "space before the value is malformed",
                &["gzip;q= 0.5, br"],
                &[Brotli],
            ),
            ("no value is malformed", &["gzip;q=, br;q, deflate;"], &[]),
            ("over one is malformed", &["gzip;q=1.001, br;q=2"], &[]),
            ("four decimals are malformed", &["gzip;q=0.1234"], &[]),
            ("negative is malformed", &["gzip;q=-1"], &[]),
            (
                "another parameter is malformed",
                &["gzip;level=1, br;q=1;a=b"],
                &[],
            ),
            (
                "no token is malformed",
                &["gz ip, (br), deflate"],
                &[Deflate],
            ),
            ("a bare point is allowed", &["gzip;q=1., br;q=0."], &[Gzip]),
            (
                "twice named has the lower quality",
                &["gzip, br;q=0.5, gzip;q=0"],
                &[Brotli],
            ),
        ];
        for (name, lines, want) in cases {
            assert_eq!(ranked(lines, &ours), *want, "{name}");
        }
        assert_eq!(
            ranked(&["br, gzip"], &[Gzip, Brotli]),
            [Gzip, Brotli],
            "configured order"
        );
        assert_eq!(
            ranked(&["br, gzip"], &[Deflate]),
            [],
            "only what is configured"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_ignored() {
        let mut fields = Fields::default();
        fields.append("accept-encoding", &b"\xff\xfe;q=\x80, gzip"[..]);
        assert_eq!(AcceptEncoding::parse(&fields).rank(&[Gzip]), [Gzip]);
    }
}
