//! The store shared between instances on Spin: `spin:key-value`, label `default`, in the layout of [`crate::slots`].
//!
//! Every call is given up after 50 ms. `Update` is a get and a set: within an instance, updates that overlap see each
//! other; between instances one may overwrite the other's, so what is counted is approximate.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Answer, Change, Effect, Failed, Level, Timestamp};

use crate::bindings::spin::key_value::key_value::{Error, Store};
use crate::cells::Set;
use crate::memory::VALUE;
use crate::slots::{self, Slots};
use crate::{log, time};

/// The longest one call of the store may take.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a store that could not be opened is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// The label an application must grant: `key_value_stores = ["default"]`.
const LABEL: &str = "default";

/// The store of one filter in one instance.
pub(crate) struct KeyValue {
    filter: &'static str,
    open: RefCell<Option<Rc<Open>>>,
    /// Not to be tried again before; the instance's memory serves until then.
    closed_until: Cell<Timestamp>,
    said: Cell<bool>,
    under_way: RefCell<HashMap<(&'static str, u64), UnderWay>>,
}

struct Open {
    store: Store,
    slots: Slots,
}

/// A set that updates of this instance are working on.
#[derive(Default)]
struct UnderWay {
    updates: u32,
    /// As the latest of them left it; newer than what a get that began earlier returns.
    latest: Option<Set>,
}

impl KeyValue {
    pub(crate) fn new(filter: &'static str) -> Self {
        Self {
            filter,
            open: RefCell::default(),
            closed_until: Cell::default(),
            said: Cell::default(),
            under_way: RefCell::default(),
        }
    }

    /// The answer to an effect on the store; gives the effect back when there is no store to be had.
    pub(crate) async fn perform(&self, effect: Effect) -> Result<Answer, Effect> {
        let Some(open) = self.opened().await else {
            return Err(effect);
        };
        Ok(match effect {
            Effect::Load { key } => Answer::Loaded(self.load(&open, &key).await),
            Effect::Store { key, value, ttl } => {
                // Whose the slot was is not known.
                Answer::Stored(self.store(&open, &key, &value, ttl).await.map(|()| 0))
            }
            Effect::Remove { key } => Answer::Stored(self.remove(&open, &key).await.map(|()| 0)),
            Effect::Update {
                table,
                key,
                change,
                ttl,
            } => Answer::Updated(self.update(&open, table, &key, &change, ttl).await),
            other => return Err(other),
        })
    }

    async fn load(&self, open: &Open, key: &Bytes) -> Result<Option<Bytes>, Failed> {
        let name = open.slots.value_name(key);
        let kept = self.call(open.store.get(name)).await?;
        Ok(kept.and_then(|kept| slots::decode(kept, key, time::now())))
    }

    async fn store(
        &self,
        open: &Open,
        key: &Bytes,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<(), Failed> {
        if value.len() > VALUE {
            return Err(Failed::TooLarge);
        }
        let until = time::now().plus(ttl);
        let kept = slots::encode(key, value, until).ok_or(Failed::TooLarge)?;
        let name = open.slots.value_name(key);
        self.call(open.store.set(name, kept)).await
    }

    async fn remove(&self, open: &Open, key: &Bytes) -> Result<(), Failed> {
        let name = open.slots.value_name(key);
        // The slot may be another key's by now.
        let kept = self.call(open.store.get(name.clone())).await?;
        if kept.is_none_or(|kept| slots::decode(kept, key, Timestamp::default()).is_none()) {
            return Ok(());
        }
        self.call(open.store.delete(name)).await
    }

    async fn update(
        &self,
        open: &Open,
        table: &'static str,
        key: &Bytes,
        change: &Change,
        ttl: Duration,
    ) -> Result<Option<Bytes>, Failed> {
        let (number, name, tag) = open.slots.cell(table, key);
        let number = (table, number);
        let _turn = Turn::of(self, number);
        let kept = self.call(open.store.get(name.clone())).await?;
        let latest = self
            .under_way
            .borrow()
            .get(&number)
            .and_then(|under_way| under_way.latest.clone());
        let mut set = latest
            .or_else(|| kept.as_deref().and_then(Set::decode))
            .unwrap_or_default();
        let (before, written) = set.update(tag, change, ttl, time::now())?;
        if written {
            let bytes = set.encode();
            if let Some(under_way) = self.under_way.borrow_mut().get_mut(&number) {
                under_way.latest = Some(set);
            }
            self.call(open.store.set(name, bytes)).await?;
        }
        Ok(before)
    }

    async fn opened(&self) -> Option<Rc<Open>> {
        if let Some(open) = self.open.borrow().as_ref() {
            return Some(Rc::clone(open));
        }
        if self.closed_until.get() > time::now() {
            return None;
        }
        match time::within(PATIENCE * 4, self.open_store()).await {
            Some(Ok(open)) => {
                let open = Rc::new(open);
                *self.open.borrow_mut() = Some(Rc::clone(&open));
                self.said.set(false);
                Some(open)
            }
            failed => {
                let why = match failed {
                    Some(Err(error)) => text(&error),
                    _ => "it took too long".to_owned(),
                };
                let now = time::now();
                self.closed_until.set(now.plus(PAUSE));
                if !self.said.replace(true) {
                    let line = format!(
                        "the key-value store `{LABEL}` can't be opened ({why}); this instance's memory serves instead, \
                         not shared with other instances"
                    );
                    log::line(now, self.filter, Level::Warn, &line);
                }
                None
            }
        }
    }

    async fn open_store(&self) -> Result<Open, Error> {
        let store = Store::open(LABEL.to_owned()).await?;
        let name = Slots::seed_name(self.filter);
        let mut kept = store.get(name.clone()).await?;
        if kept.as_deref().and_then(seed).is_none() {
            let fresh = RandomState::new().build_hasher().finish();
            store
                .set(name.clone(), fresh.to_le_bytes().to_vec())
                .await?;
            // Another instance may have been as quick: what is there now counts for both.
            kept = store.get(name).await?;
        }
        let seed = kept.as_deref().and_then(seed).unwrap_or_default();
        Ok(Open {
            store,
            slots: Slots::new(self.filter, seed),
        })
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
        match time::within(PATIENCE, call).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => {
                let line = format!("key-value store: {}", text(&error));
                log::line(time::now(), self.filter, Level::Warn, &line);
                Err(Failed::Unavailable)
            }
            None => Err(Failed::TimedOut),
        }
    }
}

/// One update's share in a set under way; the set is forgotten with the last of them.
struct Turn<'a> {
    of: &'a KeyValue,
    number: (&'static str, u64),
}

impl<'a> Turn<'a> {
    fn of(of: &'a KeyValue, number: (&'static str, u64)) -> Self {
        of.under_way.borrow_mut().entry(number).or_default().updates += 1;
        Self { of, number }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut under_way = self.of.under_way.borrow_mut();
        if let Some(mine) = under_way.get_mut(&self.number) {
            mine.updates = mine.updates.saturating_sub(1);
            if mine.updates == 0 {
                under_way.remove(&self.number);
            }
        }
    }
}

fn seed(kept: &[u8]) -> Option<u64> {
    kept.try_into().ok().map(u64::from_le_bytes)
}

fn text(error: &Error) -> String {
    match error {
        Error::StoreTableFull => "too many stores are open".to_owned(),
        Error::NoSuchStore => "there is no such store".to_owned(),
        Error::AccessDenied => {
            "access denied: grant it to the application's component in `key_value_stores` and to this layer in \
             `inherit_configuration`"
                .to_owned()
        }
        Error::Other(why) => why.clone(),
    }
}
