//! The pool under workers that get in between.

use proptest::prelude::*;

use super::*;
use crate::shared::simulated::Memory;

const TTL: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp::from_secs(1_000);

const SMALL: usize = 1 << 20;
const MEDIUM: usize = 64 << 20;

fn sized(memory: &Memory, bytes: usize) -> Objects<Memory> {
    Objects::new(memory.clone(), "t".into(), Geometry::of(bytes))
}

fn pool(memory: &Memory) -> Objects<Memory> {
    sized(memory, SMALL)
}

/// Keys and bytes as the pool counts them.
fn cost(memory: &Memory) -> usize {
    let (keys, bytes) = memory.size();
    keys * KEY_COST + bytes
}

#[test]
fn an_object_is_seen_by_every_worker_until_it_expires() {
    let memory = Memory::default();
    pool(&memory).store(b"key", b"value", TTL, NOW).unwrap();
    let mut other = pool(&memory);
    assert_eq!(
        other.load(b"key", NOW),
        Ok(Some(Bytes::from_static(b"value")))
    );
    assert_eq!(other.load(b"kez", NOW), Ok(None));
    assert_eq!(other.load(b"key", NOW.plus(TTL)), Ok(None));
    other.store(b"key", b"", TTL, NOW).unwrap();
    assert_eq!(other.load(b"key", NOW), Ok(Some(Bytes::new())), "replaced");
    pool(&memory).remove(b"key").unwrap();
    assert_eq!(other.load(b"key", NOW), Ok(None), "removed");
}

#[test]
fn bounds_hold() {
    for (bytes, largest) in [(SMALL, SMALL / 4), (MEDIUM, 16 << 20), (1 << 30, 16 << 20)] {
        let mut objects = sized(&Memory::default(), bytes);
        let value = vec![7; largest];
        assert_eq!(objects.store(b"k", &value, TTL, NOW), Err(Failed::TooLarge));
        assert_eq!(objects.store(b"k", &value[1..], TTL, NOW), Ok(0));
        let loaded = objects.load(b"k", NOW).unwrap();
        assert_eq!(loaded.map(|value| value.len()), Some(largest - 1));
    }
    let mut objects = pool(&Memory::default());
    assert_eq!(
        objects.store(&[0; KEY_LIMIT + 1], b"", TTL, NOW),
        Err(Failed::TooLarge)
    );
    let mut none = sized(&Memory::default(), 0);
    assert_eq!(none.store(b"k", b"", TTL, NOW), Err(Failed::Unsupported));
    assert_eq!(none.load(b"k", NOW), Ok(None));
    assert_eq!((none.remove(b"k"), none.sweep(NOW)), (Ok(()), Ok(0)));
}

#[test]
fn what_has_to_go_is_counted() {
    let mut objects = pool(&Memory::default());
    let value = vec![7; 20_000];
    let mut evicted = 0;
    for n in 0..100u32 {
        evicted += objects.store(&n.to_le_bytes(), &value, TTL, NOW).unwrap();
    }
    let kept = (0..100u32).filter(|n| objects.load(&n.to_le_bytes(), NOW).unwrap().is_some());
    assert_eq!(evicted, 100 - kept.count() as u64);
    assert!(evicted > 50, "{evicted}");
    let again = objects.store(&99u32.to_le_bytes(), &value, TTL, NOW);
    assert_eq!(again, Ok(0), "in its own place");
    let late = objects.store(b"late", &value, TTL, NOW.plus(TTL));
    assert_eq!(late, Ok(0), "in place of what had expired");
}

#[test]
fn pieces_meet_at_every_length() {
    let mut objects = pool(&Memory::default());
    let piece = objects.geometry.piece();
    let value: Vec<u8> = (0..3 * piece).map(|n| (n % 251) as u8).collect();
    for size in [
        0,
        1,
        piece - 12,
        piece - 11,
        piece - 10,
        piece,
        2 * piece - 32,
        2 * piece,
        3 * piece,
    ] {
        objects.store(b"k", &value[..size], TTL, NOW).unwrap();
        let loaded = objects.load(b"k", NOW).unwrap().unwrap();
        assert!(loaded == value[..size], "{size}");
    }
}

#[test]
fn many_small_objects_stay() {
    let memory = Memory::default();
    let mut objects = sized(&memory, MEDIUM);
    for n in 0..16_384u32 {
        let size = 1024 + (n as usize * 37) % 3072;
        objects
            .store(&n.to_le_bytes(), &vec![7; size], TTL, NOW)
            .unwrap();
    }
    let kept = (0..16_384u32)
        .filter(|n| objects.load(&n.to_le_bytes(), NOW).unwrap().is_some())
        .count();
    assert!(kept > 16_200, "{kept}");
    assert!(cost(&memory) <= MEDIUM, "{}", cost(&memory));
}

#[test]
fn a_restricted_pool_gives_memory_back_and_stays_small_until_it_may_grow() {
    let memory = Memory::default();
    let mut objects = sized(&memory, 8 << 20);
    let fill = |objects: &mut Objects<Memory>, from: usize| {
        for n in from..from + 4_000 {
            let value = vec![7; 1_000 + n % 4_000];
            objects.store(&n.to_le_bytes(), &value, TTL, NOW).unwrap();
        }
    };
    let newest = 3_999usize.to_le_bytes();
    fill(&mut objects, 0);
    let whole = memory.size().1;
    for percent in [75u8, 50, 25] {
        objects.restrict(percent);
        assert!(objects.sweep(NOW).unwrap() > 0, "all sets at once");
        let most = whole * usize::from(percent) / 100 + (whole / 20);
        assert!(memory.size().1 <= most, "{percent}: {}", memory.size().1);
        assert!(objects.load(&newest, NOW).unwrap().is_some(), "{percent}");
        fill(&mut objects, 0);
        assert!(memory.size().1 <= most, "{percent}, filled again");
    }
    let large = vec![7; 1 << 20];
    assert_eq!(objects.store(b"k", &large, TTL, NOW), Err(Failed::TooLarge));
    // What fits a quarter is found again, chunks and all.
    objects.store(b"k", &large[..400_000], TTL, NOW).unwrap();
    assert!(objects.load(b"k", NOW).unwrap().is_some());

    objects.restrict(100);
    objects.sweep(NOW).unwrap();
    fill(&mut objects, 4_000);
    assert!(memory.size().1 > whole / 10 * 9);
    objects.store(b"k", &large, TTL, NOW).unwrap();
    assert!(objects.load(b"k", NOW).unwrap().is_some());
}

#[test]
fn memory_and_keys_are_bounded_and_sweeping_frees_them() {
    for bytes in [SMALL, 8 << 20] {
        let memory = Memory::default();
        let mut objects = sized(&memory, bytes);
        let mut flat = 0;
        for n in 0..6_000usize {
            let value = vec![7; [100, 3_000, 100_000, 250_000][n % 4]];
            objects.store(&n.to_le_bytes(), &value, TTL, NOW).unwrap();
            assert!(cost(&memory) <= bytes, "after {n}: {}", cost(&memory));
            if n == 3_000 {
                flat = memory.size().0;
            }
        }
        // A pool of a hundred slots has a few that nothing fell into so far.
        assert!(
            memory.size().0 <= flat * 5 / 4,
            "keys: {flat}, then {}",
            memory.size().0
        );
        for (now, gone) in [(NOW, false), (NOW.plus(TTL), true)] {
            let freed: usize = (0..SWEEPS).map(|_| objects.sweep(now).unwrap()).sum();
            assert_eq!(freed > 0, gone);
        }
        assert!(
            memory.size().1 < 16 * 1024,
            "{} bytes left",
            memory.size().1
        );
    }
}

#[test]
fn the_one_not_used_goes_first() {
    let memory = Memory::default();
    let mut objects = pool(&memory);
    for n in 0..400u32 {
        let now = NOW.plus(Duration::from_secs(u64::from(n) * 20));
        let value = vec![0; 20_000];
        objects
            .store(&n.to_le_bytes(), &value, TTL * 1000, now)
            .unwrap();
        // The very first is read all the time.
        let first = objects.load(&0u32.to_le_bytes(), now).unwrap();
        assert!(first.is_some(), "after {n}");
    }
    let kept = (0..400u32)
        .filter(|n| objects.load(&n.to_le_bytes(), NOW).unwrap().is_some())
        .count();
    assert!((40..=48).contains(&kept), "{kept}");
}

#[test]
fn a_smaller_pool_clears_what_lies_beyond() {
    let memory = Memory::default();
    let fill = |objects: &mut Objects<Memory>| {
        objects.fit().unwrap();
        for n in 0..3_000u32 {
            let value = vec![7; 3_000];
            objects.store(&n.to_le_bytes(), &value, TTL, NOW).unwrap();
        }
    };
    let kept = |objects: &mut Objects<Memory>| {
        (0..3_000u32)
            .filter(|n| objects.load(&n.to_le_bytes(), NOW).unwrap().is_some())
            .count()
    };
    fill(&mut sized(&memory, 8 << 20));
    let mut again = sized(&memory, 8 << 20);
    again.fit().unwrap();
    let all = kept(&mut again);
    assert!(
        all > 2_000,
        "a reload of the same configuration keeps {all}"
    );
    let mut less = sized(&memory, 7 << 20);
    less.fit().unwrap();
    fill(&mut less);
    let mut trimmed = sized(&memory, (7 << 20) - 400_000);
    trimmed.fit().unwrap();
    assert!(memory.size().1 <= (7 << 20) - 400_000);
    assert!(kept(&mut trimmed) > 1_000);
    sized(&memory, 2 << 20).fit().unwrap();
    assert!(memory.size().1 < 4096, "{}", memory.size().1);
    sized(&memory, 0).fit().unwrap();
}

#[test]
fn calls_of_the_host_are_few() {
    let memory = Memory::default();
    let mut objects = sized(&memory, MEDIUM);
    objects.store(b"seed", b"", TTL, NOW).unwrap();
    for (size, load, store) in [(1_000, 2, 4), (20_000, 2, 4), (100_000, 10, 20)] {
        let value = vec![7; size];
        let before = memory.calls();
        objects.store(b"k", &value, TTL, NOW).unwrap();
        let between = memory.calls();
        assert!(objects.load(b"k", NOW).unwrap().is_some());
        let calls = (memory.calls() - between, between - before);
        assert_eq!(calls, (load, store), "{size}");
    }
}

#[test]
fn a_writer_in_between_costs_a_retry() {
    let memory = Memory::default();
    pool(&memory).store(b"seed", b"", TTL, NOW).unwrap();
    let rival = memory.clone();
    memory.interleave(move || {
        pool(&rival).store(b"k", b"theirs", TTL, NOW).unwrap();
    });
    pool(&memory).store(b"k", b"ours", TTL, NOW).unwrap();
    assert_eq!(
        pool(&memory).load(b"k", NOW),
        Ok(Some(Bytes::from_static(b"ours")))
    );
}

#[test]
fn broken_values_are_misses() {
    let memory = Memory::default();
    let mut objects = pool(&memory);
    for with in [&b""[..], b"\x01", b"garbage garbage garbage", &[1; 600]] {
        objects.store(b"k", b"v", TTL, NOW).unwrap();
        memory.corrupt(with);
        assert_eq!(objects.load(b"k", NOW), Ok(None));
    }
}

#[derive(Clone, Debug)]
enum Act {
    Store(u8, u8),
    Remove(u8),
    Load(u8),
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u8..12, any::<u8>()).prop_map(|(key, value)| Act::Store(key, value)),
        (0u8..12).prop_map(Act::Remove),
        (0u8..12).prop_map(Act::Load),
        Just(Act::Sweep),
    ]
}

fn length(key: u8) -> usize {
    if key.is_multiple_of(2) {
        20_000
    } else {
        150_000
    }
}

fn perform(memory: &Memory, act: &Act) {
    let mut objects = pool(memory);
    match act {
        // The value tells its key, so that a mix-up shows; half of them are in chunks.
        Act::Store(key, value) => {
            let value = [*key, *value].repeat(length(*key) / 2);
            objects.store(&[*key], &value, TTL, NOW).unwrap();
        }
        Act::Remove(key) => objects.remove(&[*key]).unwrap(),
        Act::Load(key) => {
            if let Some(value) = objects.load(&[*key], NOW).unwrap() {
                assert_eq!((value[0], value.len()), (*key, length(*key)));
                assert!(value.chunks(2).all(|pair| pair == &value[..2]), "torn");
            }
        }
        Act::Sweep => {
            objects.sweep(NOW.plus(TTL / 2)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever gets between two writes, a read gives its own key's object or nothing, and memory stays bounded.
    #[test]
    fn no_interleaving_mixes_objects(plan in proptest::collection::vec((act(), any::<bool>()), 1..60)) {
        let memory = Memory::default();
        for (act, between) in plan {
            if between {
                let other = memory.clone();
                memory.interleave(move || perform(&other, &act));
            } else {
                perform(&memory, &act);
            }
        }
        for key in 0..12 {
            perform(&memory, &Act::Load(key));
        }
        prop_assert!(cost(&memory) <= SMALL);
    }
}
