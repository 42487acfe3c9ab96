//! The two tables: of the dynamic one the lengths alone.

use std::collections::VecDeque;

/// SETTINGS_HEADER_TABLE_SIZE where nothing else is announced (RFC 9113 §6.5.2).
const MOST: u32 = 4_096;
/// RFC 7541 §4.1: the size of an entry is its name's length, its value's length, plus 32.
const OVERHEAD: u32 = 32;

/// RFC 7541 Appendix A: the names of the static table, the first at index 1.
const STATIC: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

/// A field's name, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Name {
    pub length: u32,
    /// RFC 9113 §8.3: it begins with a colon.
    pub pseudo: bool,
}

/// Both tables. Memory: at most 128 entries of 6 bytes, for none of them is smaller than 32.
#[derive(Debug)]
pub struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: u32,
    most: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: u16,
    pseudo: bool,
    size: u16,
}

impl Table {
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            most: MOST,
        }
    }

    /// RFC 7541 §2.3.3: what an index stands for; indices beyond both tables MUST be treated as a decoding error.
    pub fn name(&self, index: u32) -> Option<Name> {
        let index = usize::try_from(index.checked_sub(1)?).ok()?;
        if let Some(name) = STATIC.get(index) {
            return Some(Name {
                length: name.len() as u32,
                pseudo: name.starts_with(':'),
            });
        }
        let entry = self.entries.get(index - STATIC.len())?;
        Some(Name {
            length: u32::from(entry.name),
            pseudo: entry.pseudo,
        })
    }

    /// RFC 7541 §4.4: entries are evicted until the new one fits; one that is larger than the table empties it.
    pub fn add(&mut self, name: Name, value: u32) {
        let size = name.length.saturating_add(value).saturating_add(OVERHEAD);
        self.evict(self.most.saturating_sub(size));
        // Below the bound of the table both lengths are.
        if size <= self.most
            && let (Ok(size), Ok(length)) = (u16::try_from(size), u16::try_from(name.length))
        {
            self.entries.push_front(Entry {
                name: length,
                pseudo: name.pseudo,
                size,
            });
            self.size += u32::from(size);
        }
    }

    /// RFC 7541 §6.3: a size that exceeds the limit MUST be treated as a decoding error.
    pub fn resize(&mut self, most: u32) -> Option<()> {
        if most > MOST {
            return None;
        }
        self.most = most;
        self.evict(most);
        Some(())
    }

    fn evict(&mut self, most: u32) {
        while self.size > most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= u32::from(oldest.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_memory_is_bounded() {
        let mut table = Table::new();
        for _ in 0..1_000 {
            table.add(Name::default(), 0);
        }
        assert_eq!((table.entries.len(), table.size), (128, MOST));
        table.add(Name::default(), u32::MAX);
        assert_eq!((table.entries.len(), table.size), (0, 0));
    }

    #[test]
    fn what_is_larger_than_a_small_table() {
        let mut table = Table::new();
        let name = |length| Name {
            length,
            pseudo: false,
        };
        assert_eq!(table.resize(70), Some(()));
        table.add(name(2), 4);
        assert_eq!(table.name(62), Some(name(2)));
        table.add(name(38), 1);
        assert_eq!(table.name(62), None, "71 are too many, and nothing stays");
        table.add(name(3), 4);
        assert_eq!(table.resize(38), Some(()));
        assert_eq!(table.name(62), None, "39 are too many");
    }
}
