//! What an instance keeps between requests: the configured filter and its stores.

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;

use edgeweir_filter::{
    Chain, Configured, Cx, Emergency, Filter, Level, Record, Timestamp, Wants, load,
};

use crate::effects::Effects;
use crate::fetch::Fetcher;
use crate::room::Room;
use crate::tasks::{self, TASKS};
use crate::{log, time};

thread_local! {
    // A component has one filter, so one per instance is enough.
    static INSTANCE: RefCell<Option<Rc<Instance>>> = const { RefCell::new(None) };
}

/// A filter in an instance.
pub(crate) struct Instance {
    /// The filter's name.
    pub(crate) name: &'static str,
    /// The filter, or why its configuration was refused.
    pub(crate) chain: Result<Chain, String>,
    /// What the filter wants of a request.
    pub(crate) wants: Wants,
    /// Its stores.
    pub(crate) effects: Rc<Effects>,
    /// Room for its tasks.
    pub(crate) tasks: Room,
}

impl Instance {
    /// A call that is no exchange's, and what it left behind published.
    pub(crate) fn call<R>(self: &Rc<Self>, call: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let (now, mut record) = (time::now(), Record::default());
        let outcome = call(&mut Cx::new(now, &mut record));
        self.publish(now, &mut record);
        outcome
    }

    /// Writes the log lines of a call and begins what it asked for; nothing of it runs before the caller waits.
    pub(crate) fn publish(self: &Rc<Self>, now: Timestamp, record: &mut Record) {
        log::publish(now, self.name, record);
        self.effects.detach(mem::take(&mut record.effects));
        tasks::begin(self, mem::take(&mut record.tasks));
    }
}

/// This instance, made at its first request.
pub(crate) async fn instance<F: Configured>(fetcher: Option<Fetcher>) -> Rc<Instance> {
    if let Some(instance) = made() {
        return instance;
    }
    let (json, source) = configuration(F::NAME).await;
    // Another request of this instance may have been as early.
    if let Some(instance) = made() {
        return instance;
    }
    let instance = Rc::new(make::<F>(&json, &source, fetcher));
    INSTANCE.with(|cell| *cell.borrow_mut() = Some(Rc::clone(&instance)));
    if let Ok(chain) = &instance.chain {
        tasks::begin(&instance, chain.startup());
    }
    instance
}

fn made() -> Option<Rc<Instance>> {
    INSTANCE.with(|cell| cell.borrow().clone())
}

fn make<F: Configured>(json: &str, source: &str, fetcher: Option<Fetcher>) -> Instance {
    let say = |level, text: &str| log::line(time::now(), F::NAME, level, text);
    let loaded = load::<F>(json.as_bytes());
    let chain = match loaded.and_then(|filter| filter.targets_are_hosts().map(|()| filter)) {
        Ok(filter) => {
            for note in filter.notes() {
                say(Level::Info, &note);
            }
            let wants = filter.wants();
            if wants.exact_updates {
                say(Level::Info, APPROXIMATE);
            }
            if wants.shared_bytes > 0 {
                if let Some(alone) = ALONE {
                    say(Level::Info, alone);
                }
                if wants.shared_released_percent != [0; 3] {
                    say(Level::Info, NOT_RELEASED);
                }
            }
            Ok(Chain::of(filter))
        }
        Err(error) => {
            let text = format!("{source}: {error}");
            say(Level::Error, &text);
            Err(text)
        }
    };
    let mut wants = chain.as_ref().map(Chain::wants).unwrap_or_default();
    wants.emergency &= std::env::var_os(Emergency::HEEDED).is_some();
    Instance {
        name: F::NAME,
        wants,
        chain,
        effects: Rc::new(Effects::new(F::NAME, fetcher, wants.shared_bytes)),
        tasks: Room::new(TASKS),
    }
}

#[cfg(not(feature = "spin"))]
const NOT_RELEASED: &str = "an emergency leaves the store at its size: it is in this instance's memory, which never shrinks";
#[cfg(feature = "spin")]
const NOT_RELEASED: &str = "an emergency leaves the store at its size: it is the platform's key-value store, not memory of this instance";
#[cfg(not(feature = "spin"))]
const APPROXIMATE: &str = "counts are kept in this instance's memory: a limit holds per instance, and is approximate \
                           when the host runs several or replaces them";
#[cfg(feature = "spin")]
const APPROXIMATE: &str = "counts are kept in the key-value store by get and set: within an instance they are exact, \
                           between instances that write at once they are approximate";

#[cfg(not(feature = "spin"))]
const ALONE: Option<&str> = Some(
    "what is stored is kept in this instance's memory: instances do not share it, and it goes with them",
);
#[cfg(feature = "spin")]
const ALONE: Option<&str> = None;

/// The configuration's text and where it came from.
async fn configuration(name: &str) -> (String, String) {
    #[cfg(feature = "spin")]
    if let Some(found) = from_spin(name).await {
        return found;
    }
    let variable = format!("EDGEWEIR_{}", name.to_ascii_uppercase());
    let json = match std::env::var(&variable) {
        Ok(json) => json,
        // Not a default: the parser refuses it, which names the variable.
        Err(std::env::VarError::NotUnicode(_)) => "not UTF-8".to_owned(),
        Err(std::env::VarError::NotPresent) => String::new(),
    };
    (json, variable)
}

/// The Spin variable `edgeweir_<name>`, unless it is not declared or empty.
#[cfg(feature = "spin")]
async fn from_spin(name: &str) -> Option<(String, String)> {
    use crate::bindings::spin::variables::variables::{self, Error};
    let variable = format!("edgeweir_{}", name.to_ascii_lowercase());
    let why = match time::within(
        std::time::Duration::from_secs(2),
        variables::get(variable.clone()),
    )
    .await
    {
        Some(Ok(json)) if json.trim().is_empty() => return None,
        Some(Ok(json)) => return Some((json, format!("variable `{variable}`"))),
        Some(Err(Error::Undefined(_) | Error::InvalidName(_))) => return None,
        Some(Err(Error::Provider(why) | Error::Other(why))) => why,
        None => "it took too long".to_owned(),
    };
    let line =
        format!("variable `{variable}` can't be read ({why}); the environment counts instead");
    log::line(time::now(), name, Level::Warn, &line);
    None
}
