//! What the third tier keeps under which name: the same at every machine, so that each finds what the others stored.
//!
//! Under a key's own name is its response, or, where that has a `Vary`, the fields it names; each variant is then under a name
//! of its own. A name has none of a machine's generations: what is found is judged by when it was asked for.

use bytes::Bytes;
use edgeweir_filter::Fields;

use crate::key::Key;
use crate::store::hash_of;
use crate::stored::Stored;
use crate::vary::{self, Vary};

/// The first byte of a list of fields; none of a stored response's.
const VARIES: u8 = b'v';
/// Bytes of such a list at most. A key's marker has room for fewer.
const LONGEST_LIST: usize = 4096;

/// What is kept under a name.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// A response.
    Response(Stored),
    /// The fields that tell its variants apart.
    Varies(Vec<Bytes>),
}

impl Kept {
    /// What these bytes say; `None` when they are neither.
    pub fn read(bytes: &Bytes) -> Option<Self> {
        let Some((&VARIES, list)) = bytes.split_first() else {
            return Stored::decode(bytes).map(Self::Response);
        };
        let names = list.split(|byte| *byte == b'\n');
        let names = || names.map(Bytes::copy_from_slice).collect();
        (list.len() <= LONGEST_LIST).then(|| Self::Varies(names()))
    }
}

/// A key's own name.
pub(crate) fn name(key: &Key) -> Bytes {
    [b"cache/r/", &key.primary(0)[..]].concat().into()
}

/// The name of the variant with this secondary key. Two may come to share one: a stored response says for which requests it is.
fn variant_name(key: &Key, secondary: &[u8]) -> Bytes {
    let hash = hash_of(secondary).to_be_bytes();
    [b"cache/v/", &hash[..], &key.primary(0)].concat().into()
}

/// The name of the variant for a request.
pub(crate) fn variant_for(key: &Key, names: &[Bytes], request: &Fields) -> Bytes {
    variant_name(key, &vary::secondary(names, request))
}

/// The name of a response.
pub(crate) fn name_of(key: &Key, stored: &Stored) -> Bytes {
    match varies(stored) {
        None => name(key),
        Some(_) => variant_name(key, &stored.secondary),
    }
}

/// What is kept under its key's own name instead of a response that has a `Vary`.
pub(crate) fn varies(stored: &Stored) -> Option<Vec<u8>> {
    match Vary::of(&stored.fields) {
        Vary::Fields(names) if !names.is_empty() => {
            Some([&[VARIES], &names.join(&b'\n')[..]].concat())
        }
        _ => None,
    }
}

/// The group of all that is kept under a URI, whatever else its keys have.
pub(crate) fn group(uri: &[u8]) -> u64 {
    hash_of(&[b"uri ", uri].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySettings;
    use edgeweir_filter::{RequestHead, Timestamp};

    fn key(path: &'static str) -> Key {
        let head = RequestHead {
            scheme: "http".into(),
            authority: "a.example".into(),
            path: path.into(),
            ..RequestHead::default()
        };
        Key::of(&head, &KeySettings::default()).expect("a key")
    }

    fn stored(vary: &[(&str, &str)], request: &Fields) -> Stored {
        let fields = Fields::of(vary);
        let Vary::Fields(names) = Vary::of(&fields) else {
            panic!("fields");
        };
        Stored {
            generation: 1,
            status: 200,
            secondary: vary::secondary(&names, request).into(),
            fields,
            responded: Timestamp(2),
            requested: Timestamp(1),
            initial_age: 0,
            lifetime: 60,
            conditions: crate::stored::Conditions::default(),
            part: None,
            groups: Vec::new(),
            body: Bytes::from("body"),
        }
    }

    #[test]
    fn a_request_finds_the_name_its_response_is_kept_under() {
        let request = Fields::of(&[("accept-encoding", "br, gzip"), ("cookie", "a")]);
        let same = Fields::of(&[("accept-encoding", "gzip,br"), ("cookie", "a")]);
        let other = Fields::of(&[("accept-encoding", "gzip"), ("cookie", "a")]);
        let plain = stored(&[], &request);
        assert_eq!(name_of(&key("/x"), &plain), name(&key("/x")));
        assert_eq!(varies(&plain), None);
        let varied = stored(&[("vary", "Cookie, Accept-Encoding")], &request);
        let record = Bytes::from(varies(&varied).expect("it varies"));
        let Some(Kept::Varies(names)) = Kept::read(&record) else {
            panic!("names");
        };
        assert_eq!(names, ["accept-encoding", "cookie"]);
        let at = name_of(&key("/x"), &varied);
        assert_eq!(variant_for(&key("/x"), &names, &same), at);
        assert_ne!(variant_for(&key("/x"), &names, &other), at);
        assert_ne!(variant_for(&key("/y"), &names, &same), at);
        assert_ne!(at, name(&key("/x")));
    }

    #[test]
    fn what_is_neither_is_not_read() {
        let whole = stored(&[], &Fields::default());
        let bytes = whole.encode().expect("short");
        assert_eq!(Kept::read(&bytes), Some(Kept::Response(whole)));
        let long = [&b"v"[..], &[b'x'; LONGEST_LIST + 1]].concat();
        for (name, bytes) in [
            ("nothing", Bytes::new()),
            ("cut", bytes.slice(..9)),
            ("another kind", Bytes::from("w")),
            ("too long", Bytes::from(long)),
        ] {
            assert_eq!(Kept::read(&bytes), None, "{name}");
        }
    }
}
