//! What one set of the shared pool holds: its directory, kept as one value.

use edgeweir_filter::Timestamp;

use crate::shared::Reader;

/// Pieces of one set.
pub const WAYS: usize = 64;
const VERSION: u8 = 2;
/// Version and the last generation.
const START: usize = 5;
const ENTRY: usize = 28;
/// Bytes of the longest directory.
pub const DIRECTORY: usize = START + ENTRY * WAYS;

/// What the directory says of a way; all zero when it is free.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Way {
    /// A hash of what is there; never zero.
    pub name: u64,
    /// Nanoseconds since the epoch.
    pub until: u64,
    /// Bytes of the piece.
    pub size: u32,
    /// Seconds since the epoch, coarse.
    pub used: u32,
    /// What the piece must say too.
    pub generation: u32,
}

/// A set's directory.
#[derive(Clone, Default, Debug)]
pub struct Directory {
    /// The last generation given.
    pub generation: u32,
    /// As many as were ever used.
    pub ways: Vec<Way>,
}

impl Directory {
    /// The way of a name, without decoding the others.
    pub fn find(raw: &[u8], name: u64) -> Option<(usize, Way)> {
        let entries = raw.get(START..)?;
        if raw.first() != Some(&VERSION) {
            return None;
        }
        let wanted = name.to_le_bytes();
        let (index, entry) = entries
            .chunks_exact(ENTRY)
            .take(WAYS)
            .enumerate()
            .find(|(_, entry)| entry.starts_with(&wanted))?;
        Some((index, read_way(&mut Reader(entry))?))
    }

    /// Decodes a directory; an empty one where it is none.
    pub fn read(raw: &[u8]) -> Self {
        let mut reader = Reader(raw);
        if reader.u8() != Some(VERSION) {
            return Self::default();
        }
        let generation = reader.u32().unwrap_or(0);
        let ways = std::iter::from_fn(|| read_way(&mut reader));
        Self {
            generation,
            ways: ways.take(WAYS).collect(),
        }
    }

    /// As one value.
    pub fn written(&self) -> Vec<u8> {
        let used = self.ways.iter().rposition(|way| way.name != 0);
        let used = used.map_or(0, |last| last + 1);
        let mut out = Vec::with_capacity(START + ENTRY * used);
        out.push(VERSION);
        out.extend_from_slice(&self.generation.to_le_bytes());
        for way in self.ways.iter().take(used) {
            out.extend_from_slice(&way.name.to_le_bytes());
            out.extend_from_slice(&way.until.to_le_bytes());
            out.extend_from_slice(&way.size.to_le_bytes());
            out.extend_from_slice(&way.used.to_le_bytes());
            out.extend_from_slice(&way.generation.to_le_bytes());
        }
        out
    }

    /// Frees the ways for which `goes` holds; which.
    pub fn clear(&mut self, goes: impl Fn(&Way) -> bool) -> Vec<usize> {
        let mut freed = Vec::new();
        for (index, way) in self.ways.iter_mut().enumerate() {
            if way.name != 0 && goes(way) {
                *way = Way::default();
                freed.push(index);
            }
        }
        freed
    }

    /// Frees what was not used for longest until all is at most `budget`; which ways.
    pub fn trim(&mut self, budget: usize) -> Vec<usize> {
        let mut freed = Vec::new();
        while self.size() > budget {
            let Some(index) = self.oldest() else {
                break;
            };
            freed.push(index);
        }
        freed
    }

    /// Makes room for a piece of `size` bytes: what has the same name goes, then what has expired, then what was not
    /// used for longest. The way to use, those that were freed, and how many of these were of use still.
    pub fn make_room(
        &mut self,
        name: u64,
        size: usize,
        budget: usize,
        now: Timestamp,
    ) -> (usize, Vec<usize>, u64) {
        let mut freed = self.clear(|way| way.name == name || way.until <= now.0);
        let useless = freed.len();
        freed.extend(self.trim(budget.saturating_sub(size)));
        let index = match self.ways.iter().position(|way| way.name == 0) {
            Some(index) => index,
            None if self.ways.len() < WAYS => {
                self.ways.push(Way::default());
                self.ways.len() - 1
            }
            None => {
                let index = self.oldest().unwrap_or(0);
                freed.push(index);
                index
            }
        };
        let evicted = freed.len() - useless;
        (index, freed, evicted as u64)
    }

    /// Frees the way that was not used for longest.
    fn oldest(&mut self) -> Option<usize> {
        let taken = self.ways.iter_mut().enumerate();
        let (index, way) = taken
            .filter(|(_, way)| way.name != 0)
            .min_by_key(|(_, way)| (way.used, way.generation))?;
        *way = Way::default();
        Some(index)
    }

    fn size(&self) -> usize {
        let sizes = self.ways.iter().map(|way| way.size);
        sizes.fold(0usize, |all, size| {
            all.saturating_add(usize::try_from(size).unwrap_or(usize::MAX))
        })
    }
}

fn read_way(reader: &mut Reader<'_>) -> Option<Way> {
    Some(Way {
        name: reader.u64()?,
        until: reader.u64()?,
        size: reader.u32()?,
        used: reader.u32()?,
        generation: reader.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(name: u64, until: u64, size: u32, used: u32) -> Way {
        Way {
            name,
            until,
            size,
            used,
            generation: 1,
        }
    }

    #[test]
    fn what_is_written_is_found_and_read() {
        let directory = Directory {
            generation: 7,
            ways: vec![
                way(1, 2, 3, 4),
                Way::default(),
                way(5, 6, 7, 8),
                Way::default(),
            ],
        };
        let raw = directory.written();
        assert_eq!(
            raw.len(),
            START + 3 * ENTRY,
            "free ways at the end are left out"
        );
        assert_eq!(Directory::find(&raw, 5), Some((2, way(5, 6, 7, 8))));
        assert_eq!(Directory::find(&raw, 6), None);
        let back = Directory::read(&raw);
        assert_eq!((back.generation, &back.ways[..]), (7, &directory.ways[..3]));
        for cut in 0..raw.len() {
            assert!(Directory::read(&raw[..cut]).ways.len() < 3, "{cut}");
        }
    }

    #[test]
    fn room_is_made_in_order() {
        let now = Timestamp(10);
        let mut directory = Directory {
            generation: 0,
            ways: vec![
                way(1, 99, 40, 3),
                way(2, 5, 40, 9),
                way(3, 99, 40, 2),
                way(4, 99, 40, 4),
            ],
        };
        assert_eq!(directory.make_room(1, 40, 120, now), (0, vec![0, 1], 0));
        let (_, freed, evicted) = directory.make_room(5, 50, 120, now);
        assert_eq!((&freed[..], evicted), (&[2][..], 1));
        assert_eq!(directory.make_room(5, 121, 120, now).1, [3]);
    }
}
