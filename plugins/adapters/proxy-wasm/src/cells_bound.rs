//! A limit kept in the pool is a bound: a hundred thousand clients, several workers, whatever comes between.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::shared::simulated::Memory;

const SECOND: u64 = 1_000_000_000;

/// The smallest exact limiter: the theoretical arrival time, a cell each `interval`, `burst` at once.
#[derive(Clone, Copy)]
struct Limit {
    interval: u64,
    burst: u64,
}

impl Limit {
    fn take(self, now: u64) -> Change {
        Change::new(move |before| {
            self.after(before, now)
                .map(|tat| tat.to_le_bytes().to_vec())
        })
    }
    fn after(self, before: Option<&[u8]>, now: u64) -> Option<u64> {
        let tat = before.and_then(|value| value.try_into().ok());
        let after = tat.map_or(now, u64::from_le_bytes).max(now) + self.interval;
        (after <= now + self.interval * self.burst).then_some(after)
    }
    fn admits<D: SharedData>(self, cells: &mut Cells<D>, client: u32, now: u64) -> bool {
        let ttl = Duration::from_nanos(self.interval * self.burst);
        let before = cells.update(&client.to_le_bytes(), &self.take(now), ttl, Timestamp(now));
        self.after(before.expect("the pool answers").as_deref(), now)
            .is_some()
    }
}

/// Shared data in which all buckets are one.
#[derive(Clone, Default)]
struct OneBucket(Memory);

impl OneBucket {
    fn place(key: &[u8]) -> &[u8] {
        if key.ends_with(b"seed") {
            key
        } else {
            b"t/one"
        }
    }
}

impl SharedData for OneBucket {
    fn get(&mut self, key: &[u8]) -> Result<Option<(Bytes, u32)>, Failed> {
        self.0.get(Self::place(key))
    }
    fn set(&mut self, key: &[u8], value: &[u8], expect: Expect) -> Result<bool, Failed> {
        self.0.set(Self::place(key), value, expect)
    }
}

/// What a client got since it was first seen.
struct Got {
    first: u64,
    admitted: u64,
}

fn within(limit: Limit, got: &HashMap<u32, Got>, now: u64) -> Result<(), String> {
    for (client, got) in got {
        let most = limit.burst + (now - got.first) / limit.interval;
        if got.admitted > most {
            return Err(format!("client {client}: {} of {most}", got.admitted));
        }
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_clients_get_no_more_than_their_bound() {
    let memory = Memory::default();
    let mut workers: Vec<Cells<Memory>> = (0..3)
        .map(|_| Cells::new(memory.clone(), "t".into()))
        .collect();
    let limit = Limit {
        interval: SECOND,
        burst: 5,
    };
    let mut got: HashMap<u32, Got> = HashMap::new();
    let (mut asked, mut alone, mut refused) = (0u64, HashMap::<u32, u64>::new(), 0u64);
    let mut now = 1_000 * SECOND;
    // A flood of all of them, then part of them at a time, some asking far more often than others; cells end in between.
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..300_000u32 {
        let client = match round {
            0..100_000 => round,
            _ if next() % 4 == 0 => (next() % 50) as u32,
            _ => (next() % 100_000) as u32,
        };
        now += next() % 60_000;
        let worker = (next() % 3) as usize;
        asked += 1;
        let admitted = limit.admits(&mut workers[worker], client, now);
        // What it would have got alone.
        let tat = alone.entry(client).or_insert(0);
        let own = limit.after(Some(&tat.to_le_bytes()), now);
        *tat = own.unwrap_or(*tat);
        refused += u64::from(own.is_some() && !admitted);
        let got = got.entry(client).or_insert(Got {
            first: now,
            admitted: 0,
        });
        got.admitted += u64::from(admitted);
    }
    within(limit, &got, now).unwrap();
    println!("{refused} of {asked} refused that alone would have been admitted");
    assert!(refused < asked / 4, "{refused} of {asked}");
}

/// How many of so many clients that come at once are refused their first request.
#[test]
fn sharing_refuses_few_until_the_pool_is_full() {
    for (clients, most) in [
        (20_000u32, 0),
        (40_000, 200),
        (65_000, 5_000),
        (100_000, 40_000),
    ] {
        // Keys of a seed drawn anew would now and then fill one bucket of so many.
        let memory = Memory::default();
        let seed = memory.clone().set(b"t/seed", &[7; 16], Expect::Absent);
        assert_eq!(seed, Ok(true));
        let mut cells = Cells::new(memory, "t".into());
        let limit = Limit {
            interval: SECOND,
            burst: 1,
        };
        let refused = (0..clients).filter(|client| !limit.admits(&mut cells, *client, SECOND));
        let refused = refused.count();
        println!("{refused} of {clients} refused");
        assert!(refused <= most, "{refused} of {clients}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any interleaving in a pool of one bucket: every key beyond the sixteenth shares.
    #[test]
    fn no_interleaving_in_a_full_bucket_gives_more(
        burst in 1u64..5, asks in prop::collection::vec((0u32..60, 0u64..SECOND / 2, any::<bool>(), 0u32..60), 1..400)
    ) {
        let one = OneBucket::default();
        let limit = Limit { interval: SECOND, burst };
        let (mut now, mut got) = (1_000 * SECOND, HashMap::<u32, Got>::new());
        for (client, gap, races, rival) in asks {
            now += gap;
            let mut cells = Cells::new(one.clone(), "t".into());
            let raced = std::rc::Rc::new(std::cell::Cell::new(None));
            if races {
                let (one, raced) = (one.clone(), raced.clone());
                one.0.clone().interleave(move || {
                    let mut cells = Cells::new(one, "t".into());
                    raced.set(Some(limit.admits(&mut cells, rival, now)));
                });
            }
            let admitted = limit.admits(&mut cells, client, now);
            let outcomes = [(client, Some(admitted)), (rival, raced.get())];
            for (client, admitted) in outcomes {
                if let Some(admitted) = admitted {
                    let got = got.entry(client).or_insert(Got { first: now, admitted: 0 });
                    got.admitted += u64::from(admitted);
                }
            }
            prop_assert_eq!(within(limit, &got, now), Ok(()));
        }
    }
}
