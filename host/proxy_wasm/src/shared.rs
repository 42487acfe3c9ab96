//! What virtual machines share: data by `vm_id`, queues, and the metrics of one plugin.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use edgeweir_host_chain::{Emergency, Meter, lock};

use crate::status::Status;
use crate::worker::Worker;

/// Bytes one key costs besides its name and its value.
const KEY_COST: usize = 64;
/// Metrics one plugin may define.
const METRICS: usize = 1_000;
/// Queues of all plugins.
const QUEUES: usize = 1_000;

/// The key-value data of one `vm_id`. Lives as long as the process, as in Envoy.
#[derive(Default)]
pub(crate) struct SharedData {
    state: Mutex<Data>,
    /// What is told as [`Emergency::SHARED`]; nothing is the same as 0.
    told: AtomicU8,
}

#[derive(Default)]
struct Data {
    entries: HashMap<Box<[u8]>, (Bytes, u32)>,
    bytes: usize,
    next_cas: u32,
}

impl SharedData {
    /// Tells modules how short the machine is. Costs nothing while that is as it was.
    pub(crate) fn tell(&self, emergency: Emergency) {
        if self.told.load(Relaxed) == emergency.0 {
            return;
        }
        let digit = emergency.digit().as_bytes();
        // Held over both: of two that differ, what is noted is what was written last.
        let mut state = lock(&self.state);
        // The host's own word is not a module's: it has room whatever the modules took.
        if state
            .set(Emergency::SHARED, digit, 0, usize::MAX, usize::MAX)
            .is_ok()
        {
            self.told.store(emergency.0, Relaxed);
        }
    }

    /// The value of a key and its compare-and-swap number.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        lock(&self.state).entries.get(key).cloned()
    }

    /// Sets a key. With `cas` 0 always; else only if the key is absent (Envoy takes any number then) or its number is
    /// still `cas`. Beyond `keys` or `bytes` it is an `InternalFailure`. Returns the bytes held in all.
    pub(crate) fn set(
        &self,
        key: &[u8],
        value: &[u8],
        cas: u32,
        keys: usize,
        bytes: usize,
    ) -> Result<usize, Status> {
        lock(&self.state).set(key, value, cas, keys, bytes)
    }
}

impl Data {
    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        cas: u32,
        keys: usize,
        bytes: usize,
    ) -> Result<usize, Status> {
        let held = match self.entries.get(key) {
            Some((_, current)) if cas != 0 && *current != cas => return Err(Status::CasMismatch),
            Some((value, _)) => value.len(),
            None if self.entries.len() >= keys => return Err(Status::InternalFailure),
            None => 0,
        };
        let fresh = if self.entries.contains_key(key) {
            0
        } else {
            key.len() + KEY_COST
        };
        let total = (self.bytes - held)
            .saturating_add(fresh)
            .saturating_add(value.len());
        if total > bytes {
            return Err(Status::InternalFailure);
        }
        self.bytes = total;
        // 0 means "whatever it is", so no value may carry it.
        self.next_cas = self.next_cas.checked_add(1).unwrap_or(1);
        let entry = (Bytes::copy_from_slice(value), self.next_cas);
        match self.entries.get_mut(key) {
            Some(slot) => *slot = entry,
            None => drop(self.entries.insert(key.into(), entry)),
        }
        Ok(total)
    }
}

/// All shared queues of the process.
#[derive(Default)]
pub(crate) struct Queues {
    state: Mutex<Vec<Queue>>,
}

struct Queue {
    vm_id: String,
    name: Vec<u8>,
    items: VecDeque<Bytes>,
    bytes: usize,
    /// Who is told of a new item: the one that registered last.
    owner: Owner,
}

/// A root context that registered a queue.
#[derive(Clone, Default)]
pub(crate) struct Owner {
    pub(crate) worker: Weak<Worker>,
    pub(crate) context: u32,
}

impl Queues {
    /// The identifier of a queue, which is made if it is not there.
    pub(crate) fn register(&self, vm_id: &str, name: &[u8], owner: Owner) -> Result<u32, Status> {
        let mut queues = lock(&self.state);
        if let Some(at) = queues
            .iter()
            .position(|queue| queue.vm_id == vm_id && queue.name == name)
        {
            queues[at].owner = owner;
            return Ok(at as u32 + 1);
        }
        if queues.len() >= QUEUES {
            return Err(Status::InternalFailure);
        }
        let (vm_id, name) = (vm_id.to_owned(), name.to_vec());
        queues.push(Queue {
            vm_id,
            name,
            items: VecDeque::new(),
            bytes: 0,
            owner,
        });
        Ok(queues.len() as u32)
    }

    /// The identifier of a queue somebody registered.
    pub(crate) fn resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        let queues = lock(&self.state);
        let at = queues
            .iter()
            .position(|queue| queue.vm_id.as_bytes() == vm_id && queue.name == name)?;
        Some(at as u32 + 1)
    }

    /// Appends an item; returns who is to be told. A queue holds at most `most` bytes.
    pub(crate) fn enqueue(&self, id: u32, item: &[u8], most: usize) -> Result<Owner, Status> {
        let mut queues = lock(&self.state);
        let queue = (id as usize)
            .checked_sub(1)
            .and_then(|at| queues.get_mut(at))
            .ok_or(Status::NotFound)?;
        let cost = item.len() + KEY_COST;
        if queue.bytes.saturating_add(cost) > most {
            return Err(Status::InternalFailure);
        }
        queue.bytes += cost;
        queue.items.push_back(Bytes::copy_from_slice(item));
        Ok(queue.owner.clone())
    }

    /// The oldest item.
    pub(crate) fn dequeue(&self, id: u32) -> Result<Bytes, Status> {
        let mut queues = lock(&self.state);
        let queue = (id as usize)
            .checked_sub(1)
            .and_then(|at| queues.get_mut(at))
            .ok_or(Status::NotFound)?;
        let item = queue.items.pop_front().ok_or(Status::Empty)?;
        queue.bytes -= item.len() + KEY_COST;
        Ok(item)
    }
}

/// The metrics a plugin defined; shared by its instances, published through its meter.
#[derive(Default)]
pub(crate) struct Metrics {
    defined: Mutex<Vec<Metric>>,
}

struct Metric {
    name: String,
    kind: u32,
    value: u64,
    count: u64,
}

const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;

impl Metrics {
    /// The identifier of a metric, which is made if it is not there.
    pub(crate) fn define(&self, meter: &Meter, kind: u32, name: &str) -> Result<u32, Status> {
        if kind > HISTOGRAM || name.is_empty() {
            return Err(Status::BadArgument);
        }
        let mut defined = lock(&self.defined);
        if let Some(at) = defined.iter().position(|metric| metric.name == name) {
            return if defined[at].kind == kind {
                Ok(at as u32 + 1)
            } else {
                Err(Status::BadArgument)
            };
        }
        if defined.len() >= METRICS {
            return Err(Status::InternalFailure);
        }
        if kind != HISTOGRAM {
            // One that a plugin defined in whose place this one is goes on.
            meter.add_counter(name, 0);
        }
        defined.push(Metric {
            name: name.to_owned(),
            kind,
            value: 0,
            count: 0,
        });
        Ok(defined.len() as u32)
    }

    /// Adds to a counter or a gauge; a counter only goes up.
    pub(crate) fn increment(&self, meter: &Meter, id: u32, offset: i64) -> Result<(), Status> {
        self.with(id, |metric| {
            if metric.kind == HISTOGRAM || (metric.kind == COUNTER && offset <= 0) {
                return Err(Status::BadArgument);
            }
            metric.value = metric.value.saturating_add_signed(offset);
            if metric.kind == COUNTER {
                meter.add_counter(&metric.name, offset.unsigned_abs());
            } else {
                meter.set_counter(&metric.name, metric.value);
            }
            Ok(())
        })
    }

    /// Sets a gauge, adds to a counter, or adds an observation to a histogram, of which count and sum are published.
    pub(crate) fn record(&self, meter: &Meter, id: u32, value: u64) -> Result<(), Status> {
        self.with(id, |metric| {
            match metric.kind {
                GAUGE => {
                    metric.value = value;
                    meter.set_counter(&metric.name, value);
                }
                COUNTER => {
                    metric.value = metric.value.saturating_add(value);
                    meter.add_counter(&metric.name, value);
                }
                _ => {
                    metric.count += 1;
                    metric.value = metric.value.saturating_add(value);
                    meter.add_counter(&format!("{}_count", metric.name), 1);
                    meter.add_counter(&format!("{}_sum", metric.name), value);
                }
            }
            Ok(())
        })
    }

    /// The value of a counter or a gauge.
    pub(crate) fn get(&self, id: u32) -> Result<u64, Status> {
        self.with(id, |metric| match metric.kind {
            HISTOGRAM => Err(Status::BadArgument),
            _ => Ok(metric.value),
        })
    }

    fn with<R>(
        &self,
        id: u32,
        act: impl FnOnce(&mut Metric) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let mut defined = lock(&self.defined);
        let metric = (id as usize)
            .checked_sub(1)
            .and_then(|at| defined.get_mut(at));
        act(metric.ok_or(Status::NotFound)?)
    }
}

/// Shared data of every `vm_id`, and the queues.
#[derive(Default)]
pub(crate) struct Shared {
    data: Mutex<HashMap<String, Arc<SharedData>>>,
    pub(crate) queues: Queues,
}

impl Shared {
    /// The data of one `vm_id`.
    pub(crate) fn data(&self, vm_id: &str) -> Arc<SharedData> {
        Arc::clone(lock(&self.data).entry(vm_id.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_and_swap_as_in_envoy() {
        let data = SharedData::default();
        let set = |key: &[u8], value: &[u8], cas| data.set(key, value, cas, 2, 400);
        assert!(
            set(b"k", b"1", 77).is_ok(),
            "any number creates an absent key"
        );
        let (_, cas) = data.get(b"k").unwrap();
        assert_ne!(cas, 0);
        assert!(set(b"k", b"2", cas).is_ok());
        assert_eq!(set(b"k", b"3", cas), Err(Status::CasMismatch));
        assert!(set(b"k", b"4", 0).is_ok(), "0 always wins");
        assert_eq!(data.get(b"k").unwrap().0, "4");
    }

    #[test]
    fn modules_are_told_of_an_emergency_and_of_its_end() {
        let data = SharedData::default();
        data.tell(Emergency(0));
        assert_eq!(data.get(Emergency::SHARED), None, "as in Envoy");
        for level in [2, 2, 0] {
            data.tell(Emergency(level));
            let (said, _) = data.get(Emergency::SHARED).unwrap();
            assert_eq!(said, level.to_string());
        }
    }

    #[test]
    fn shared_data_is_bounded() {
        let data = SharedData::default();
        let set = |key: &[u8], value: &[u8]| data.set(key, value, 0, 2, 400);
        assert_eq!(set(b"a", &[0; 500]), Err(Status::InternalFailure));
        assert_eq!(set(b"a", &[0; 100]), Ok(165));
        assert_eq!(set(b"a", &[0; 10]), Ok(75));
        assert_eq!(set(b"b", b""), Ok(140));
        assert_eq!(set(b"c", b""), Err(Status::InternalFailure));
    }

    #[test]
    fn queues_are_first_in_first_out_and_bounded() {
        let queues = Queues::default();
        let id = queues.register("vm", b"q", Owner::default()).unwrap();
        assert_eq!(queues.register("vm", b"q", Owner::default()), Ok(id));
        assert_eq!(queues.resolve(b"vm", b"q"), Some(id));
        assert_eq!(queues.resolve(b"other", b"q"), None);
        assert_eq!(queues.dequeue(id), Err(Status::Empty));
        assert_eq!(queues.dequeue(id + 1), Err(Status::NotFound));
        assert!(queues.enqueue(id, b"one", 200).is_ok());
        assert!(queues.enqueue(id, b"two", 200).is_ok());
        assert_eq!(
            queues.enqueue(id, b"three", 200).err(),
            Some(Status::InternalFailure)
        );
        assert_eq!(queues.dequeue(id).unwrap(), "one");
        assert_eq!(queues.dequeue(id).unwrap(), "two");
    }

    #[test]
    fn metrics_of_each_kind() {
        let (metrics, meter) = (Metrics::default(), Meter::default());
        let counter = metrics.define(&meter, COUNTER, "c").unwrap();
        let gauge = metrics.define(&meter, GAUGE, "g").unwrap();
        let histogram = metrics.define(&meter, HISTOGRAM, "h").unwrap();
        assert_eq!(metrics.define(&meter, COUNTER, "c"), Ok(counter));
        assert_eq!(metrics.define(&meter, GAUGE, "c"), Err(Status::BadArgument));
        metrics.increment(&meter, counter, 3).unwrap();
        assert_eq!(
            metrics.increment(&meter, counter, -1),
            Err(Status::BadArgument)
        );
        metrics.record(&meter, gauge, 9).unwrap();
        metrics.increment(&meter, gauge, -4).unwrap();
        metrics.record(&meter, histogram, 7).unwrap();
        assert_eq!((metrics.get(counter), metrics.get(gauge)), (Ok(3), Ok(5)));
        assert_eq!(metrics.get(99), Err(Status::NotFound));
        let published = meter.snapshot().counters;
        assert_eq!(
            (published["c"], published["g"], published["h_sum"]),
            (3, 5, 7)
        );
    }
}
