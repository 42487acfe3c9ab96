//! What a filter asks for, done.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use edgeweir_filter::{Answer, Effect, Failed, To};

use crate::cells::Cells;
use crate::fetch::{self, Fetcher};
#[cfg(feature = "spin")]
use crate::key_value::KeyValue;
use crate::memory::Memory;
#[cfg(feature = "spin")]
use crate::redis::{self, Redis};
use crate::room::Room;
use crate::{gates, time};

/// Bytes of a key at most.
const KEY: usize = 4 << 10;
/// Effects nobody waits for that may be under way in an instance; those beyond are dropped.
const DETACHED: u32 = 64;

/// The stores and clocks of one instance.
pub(crate) struct Effects {
    memory: RefCell<Memory>,
    cells: RefCell<HashMap<&'static str, Cells>>,
    #[cfg(feature = "spin")]
    key_value: KeyValue,
    #[cfg(feature = "spin")]
    redis: Redis,
    fetcher: Option<Fetcher>,
    detached: Room,
}

impl Effects {
    /// Empty stores for a filter, with room for so many bytes in the instance's memory.
    #[cfg_attr(not(feature = "spin"), expect(unused_variables))]
    pub(crate) fn new(filter: &'static str, fetcher: Option<Fetcher>, shared_bytes: usize) -> Self {
        Self {
            memory: RefCell::new(Memory::wanted(shared_bytes)),
            cells: RefCell::default(),
            #[cfg(feature = "spin")]
            key_value: KeyValue::new(filter),
            #[cfg(feature = "spin")]
            redis: Redis::default(),
            fetcher,
            detached: Room::new(DETACHED),
        }
    }

    /// Performs an effect; never fails otherwise than by its answer.
    pub(crate) async fn perform(&self, effect: Effect) -> Answer {
        if let Some(refused) = too_long(&effect) {
            return refused;
        }
        match effect {
            Effect::Wait { gate, limit } => {
                match gate {
                    Some(gate) => gates::wait(&gate, limit).await,
                    None => time::wait(limit).await,
                }
                Answer::Waited
            }
            Effect::Fetch(fetch) => Answer::Fetched(match (&fetch.to, self.fetcher) {
                (To::Onward, _) => Box::pin(fetch::onward(fetch)).await,
                #[cfg(feature = "spin")]
                (To::Named(to), Some(_)) if redis::is_redis(to) => {
                    let address = to.clone();
                    self.redis.fetch(&address, fetch).await
                }
                (To::Named(_), Some(fetcher)) => fetcher(fetch).await,
                (To::Named(_), None) => Err(Failed::Unsupported),
            }),
            stored => {
                #[cfg(feature = "spin")]
                let stored = match self.key_value.perform(stored).await {
                    Ok(answer) => return answer,
                    Err(stored) => stored,
                };
                self.in_memory(stored)
            }
        }
    }

    /// Performs effects nobody waits for, after what is being sent now. Bounded: what comes on top is dropped.
    pub(crate) fn detach(self: &Rc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let Some(place) = self.detached.take() else {
                return;
            };
            let all = Rc::clone(self);
            wit_bindgen::spawn_local(async move {
                let _ = all.perform(effect).await;
                drop(place);
            });
        }
    }

    fn in_memory(&self, effect: Effect) -> Answer {
        let now = time::now();
        let mut memory = self.memory.borrow_mut();
        match effect {
            Effect::Load { key } => Answer::Loaded(Ok(memory.load(&key, now))),
            Effect::Store { key, value, ttl } => {
                // A copy: the value may be a small part of something large.
                let value = bytes::Bytes::copy_from_slice(&value);
                Answer::Stored(memory.store(key, value, ttl, now))
            }
            Effect::Remove { key } => {
                memory.remove(&key);
                Answer::Stored(Ok(0))
            }
            Effect::Update {
                table,
                key,
                change,
                ttl,
            } => {
                let mut tables = self.cells.borrow_mut();
                let cells = tables.entry(table).or_default();
                Answer::Updated(cells.update(&key, &change, ttl, now))
            }
            Effect::Fetch(_) => Answer::Fetched(Err(Failed::Unsupported)),
            Effect::Wait { .. } => Answer::Waited,
        }
    }
}

fn too_long(effect: &Effect) -> Option<Answer> {
    let failed = Failed::TooLarge;
    match effect {
        Effect::Load { key } if key.len() > KEY => Some(Answer::Loaded(Err(failed))),
        Effect::Store { key, .. } | Effect::Remove { key } if key.len() > KEY => {
            Some(Answer::Stored(Err(failed)))
        }
        Effect::Update { key, .. } if key.len() > KEY => Some(Answer::Updated(Err(failed))),
        _ => None,
    }
}
