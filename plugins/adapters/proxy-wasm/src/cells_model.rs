//! Every interleaving of a few workers, tried: shared data is the only thing they share, so a schedule is the order of
//! their calls of it.
//!
//! Each worker runs in a thread of its own and stops before every call; the scheduler lets one of them go on at a time.
//! All choices are walked depth first, from the start each time.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

const TTL: Duration = Duration::from_secs(10);

type Values = Arc<Mutex<(HashMap<Vec<u8>, (Bytes, u32)>, u32)>>;

/// Shared data that asks the scheduler before each call, if there is one. All buckets are one.
struct Scheduled {
    values: Values,
    scheduler: Option<(Sender<usize>, Receiver<()>)>,
    worker: usize,
}

impl Scheduled {
    fn turn(&self, key: &[u8]) -> Vec<u8> {
        if key.ends_with(b"seed") {
            return key.to_vec();
        }
        if let Some((asks, goes)) = &self.scheduler {
            asks.send(self.worker).expect("the scheduler is there");
            goes.recv().expect("a turn comes");
        }
        b"t/one".to_vec()
    }
}

impl SharedData for Scheduled {
    fn get(&mut self, key: &[u8]) -> Result<Option<(Bytes, u32)>, Failed> {
        let key = self.turn(key);
        Ok(self.values.lock().unwrap().0.get(&key).cloned())
    }
    fn set(&mut self, key: &[u8], value: &[u8], expect: Expect) -> Result<bool, Failed> {
        let key = self.turn(key);
        let mut values = self.values.lock().unwrap();
        let now = values.0.get(&key).map(|(_, version)| *version);
        // As hosts do it: with no value there is nothing to compare, and the number of nothing is one no value has.
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => now.is_none(),
            Expect::Version(version) => now.is_none_or(|now| now == version),
        };
        if holds {
            values.1 += 1;
            let version = values.1;
            values
                .0
                .insert(key, (Bytes::copy_from_slice(value), version));
        }
        Ok(holds)
    }
}

fn count(before: Option<&[u8]>) -> u64 {
    before
        .and_then(|value| value.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Takes one of `bound`.
fn take(bound: u64) -> Change {
    Change::new(move |before| {
        let taken = count(before);
        (taken < bound).then(|| (taken + 1).to_le_bytes().to_vec())
    })
}

/// Workers with the keys they update one after the other, in a bucket that has so many other keys already.
struct Model<'a> {
    workers: &'a [&'a [u8]],
    bound: u64,
    filled: u8,
}

/// One run by a schedule: at the first choices what it says, then always the first worker that waits. The choices there
/// were, and how often each key was admitted.
fn run(model: &Model<'_>, schedule: &[usize]) -> (Vec<usize>, HashMap<u8, u64>) {
    let Model {
        workers,
        bound,
        filled,
    } = *model;
    let values = Values::default();
    // Neighbours, and the seed, so that schedules are of the updates alone.
    let data = Scheduled {
        values: Arc::clone(&values),
        scheduler: None,
        worker: 0,
    };
    let mut cells = Cells::new(data, "t".into());
    for neighbour in 0..filled {
        let took = cells.update(&[neighbour, 0], &take(1), TTL, Timestamp(1));
        assert_eq!(took, Ok(None));
    }
    cells
        .update(b"seed", &Change::new(|_| None), TTL, Timestamp(1))
        .unwrap();
    let (asks, asked) = channel();
    let mut turns = Vec::new();
    let mut threads = Vec::new();
    for (worker, keys) in workers.iter().enumerate() {
        let (turn, goes) = channel();
        turns.push(turn);
        let scheduler = Some((asks.clone(), goes));
        let data = Scheduled {
            values: Arc::clone(&values),
            scheduler,
            worker,
        };
        let keys = keys.to_vec();
        let done = asks.clone();
        threads.push(thread::spawn(move || {
            let mut cells = Cells::new(data, "t".into());
            let mut admitted = Vec::new();
            for key in keys {
                let before = cells.update(&[key], &take(bound), TTL, Timestamp(1));
                if count(
                    before
                        .expect("a few workers do not contend for long")
                        .as_deref(),
                ) < bound
                {
                    admitted.push(key);
                }
            }
            done.send(usize::MAX).expect("the scheduler is there");
            admitted
        }));
    }
    let mut waiting = Vec::new();
    let (mut choices, mut running) = (Vec::new(), workers.len());
    loop {
        // Everyone waits or has ended before anyone goes on.
        while running > 0 {
            let worker = asked.recv().expect("a worker is there");
            running -= 1;
            if worker != usize::MAX {
                waiting.push(worker);
            }
        }
        if waiting.is_empty() {
            break;
        }
        waiting.sort_unstable();
        let chosen = schedule.get(choices.len()).copied().unwrap_or(0);
        choices.push(waiting.len());
        turns[waiting.remove(chosen)].send(()).expect("it waits");
        running = 1;
    }
    let mut admitted = HashMap::new();
    for thread in threads {
        for key in thread.join().expect("a worker ends") {
            *admitted.entry(key).or_insert(0) += 1;
        }
    }
    (choices, admitted)
}

/// Walks all schedules; how many there are.
fn all(model: &Model<'_>, holds: impl Fn(&HashMap<u8, u64>)) -> usize {
    let (mut schedule, mut runs): (Vec<usize>, usize) = (Vec::new(), 0);
    loop {
        let (choices, admitted) = run(model, &schedule);
        runs += 1;
        holds(&admitted);
        schedule.resize(choices.len(), 0);
        // The next one: the last choice that has another.
        while let Some(last) = schedule.pop() {
            if last + 1 < choices[schedule.len()] {
                schedule.push(last + 1);
                break;
            }
        }
        if schedule.is_empty() {
            return runs;
        }
    }
}

#[test]
fn every_interleaving_loses_no_update() {
    for (name, workers, bound, want) in [
        (
            "all of a new key are admitted",
            &[&[1u8][..], &[1], &[1]][..],
            3,
            3,
        ),
        ("never one more than the bound", &[&[1], &[1], &[1]], 2, 2),
        ("two after another", &[&[1, 1], &[1, 1]], 4, 4),
        ("against the last one", &[&[1, 1], &[1, 1]], 3, 3),
    ] {
        let model = Model {
            workers,
            bound,
            filled: 0,
        };
        let runs = all(&model, |admitted| {
            assert_eq!(*admitted, HashMap::from([(1, want)]), "{name}");
        });
        println!("{name}: {runs} interleavings");
        assert!(runs >= 20, "{name}: {runs}");
    }
}

#[test]
fn every_interleaving_at_the_end_of_a_bucket_keeps_the_bound() {
    for (name, filled, workers, most_together) in [
        ("two keys, one place", 15, &[&[1u8, 2][..], &[2, 1]][..], 4),
        ("two keys, no place", 16, &[&[1, 2], &[2, 1]], 2),
        ("three keys, one place", 15, &[&[1], &[2], &[3]], 3),
    ] {
        let model = Model {
            workers,
            bound: 2,
            filled,
        };
        let runs = all(&model, |admitted| {
            assert!(
                admitted.values().all(|count| *count <= 2),
                "{name}: {admitted:?}"
            );
            let together: u64 = admitted.values().sum();
            assert!(
                (2..=most_together).contains(&together),
                "{name}: {admitted:?}"
            );
        });
        println!("{name}: {runs} interleavings");
        assert!(runs >= 20, "{name}: {runs}");
    }
}
