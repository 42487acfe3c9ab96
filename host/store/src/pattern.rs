//! What an invalidation names: names, groups, a prefix, a pattern, or all.

/// What is to be forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// These keys.
    Names(Vec<Vec<u8>>),
    /// All that carries one of these groups.
    Groups(Vec<String>),
    /// All whose URI (a key without one: the key itself) begins so.
    Prefix(Vec<u8>),
    /// All whose URI matches: `*` is any bytes, also none; `?` is one.
    Pattern(Vec<u8>),
    /// Everything of the space.
    All,
}

/// Items in one invalidation.
const MOST_ITEMS: usize = 1024;
/// Bytes of a prefix or pattern.
const MOST_TEXT: usize = 2048;

impl What {
    /// Reads `names=a,b`, `groups=a,b`, `prefix=`, `pattern=` or `all=1`; percent-encoded.
    pub fn of(query: &str) -> Result<Self, String> {
        let (name, value) = query.split_once('=').unwrap_or((query, ""));
        let items = || {
            let items: Vec<Vec<u8>> = value
                .split(',')
                .filter(|item| !item.is_empty())
                .map(decoded)
                .collect();
            match items.len() {
                1..=MOST_ITEMS => Ok(items),
                count => Err(format!(
                    "{name} has {count} items, must be 1 to {MOST_ITEMS}"
                )),
            }
        };
        let text = || match decoded(value) {
            text if text.is_empty() || text.len() > MOST_TEXT => Err(format!(
                "{name} has {} bytes, must be 1 to {MOST_TEXT}",
                text.len()
            )),
            text => Ok(text),
        };
        match name {
            "names" => items().map(Self::Names),
            "groups" => {
                let groups = items()?.into_iter().map(|item| group(&item));
                groups.collect::<Result<_, _>>().map(Self::Groups)
            }
            "prefix" => text().map(Self::Prefix),
            "pattern" => text().map(Self::Pattern),
            "all" if value == "1" => Ok(Self::All),
            _ => Err(format!(
                "{query:?} names nothing: one of names=a,b groups=a,b prefix= pattern= all=1"
            )),
        }
    }

    /// Whether something of this URI is meant; for a prefix and a pattern.
    pub fn covers(&self, uri: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => uri.starts_with(prefix),
            Self::Pattern(pattern) => matches(pattern, uri),
            Self::All => true,
            Self::Names(_) | Self::Groups(_) => false,
        }
    }

    /// What every URI that is meant begins with.
    pub fn head(&self) -> &[u8] {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Pattern(pattern) => {
                let end = pattern.iter().position(|byte| matches!(byte, b'*' | b'?'));
                &pattern[..end.unwrap_or(pattern.len())]
            }
            _ => b"",
        }
    }
}

/// A group's name: 1 to 64 visible ASCII characters, no comma.
pub fn group(item: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(item).into_owned();
    let good = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',');
    if good {
        Ok(text)
    } else {
        Err(format!(
            "group {text:?}: must be 1 to 64 visible ASCII characters without a comma"
        ))
    }
}

/// Percent-decoded.
pub fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|it| char::from(*it).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// `*` is any bytes, also none; `?` is one. At most pattern × text steps: it goes back to the last `*` only.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((of, begun)) => {
                    star = Some((of, begun + 1));
                    at = of + 1;
                    from = begun + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at.min(pattern.len())..]
        .iter()
        .all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*/img/*.png", "h.example/img/x/y.png", true),
            ("*/img/*.png", "h.example/img/x.jpg", false),
            ("", "", true),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn queries() {
        for (query, want) in [
            (
                "names=a%2Cb,c",
                Ok(What::Names(vec![b"a,b".to_vec(), b"c".to_vec()])),
            ),
            ("groups=x", Ok(What::Groups(vec!["x".to_owned()]))),
            ("prefix=a%20b", Ok(What::Prefix(b"a b".to_vec()))),
            ("all=1", Ok(What::All)),
            ("all=0", Err("names nothing")),
            ("prefix=", Err("0 bytes, must be 1 to 2048")),
            ("groups=%20", Err("visible ASCII")),
        ] {
            match (What::of(query), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{query}: {got:?}, want {want:?}"),
            }
        }
    }
}
