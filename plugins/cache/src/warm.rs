//! Warming: a list of URLs fetched when the filter is loaded, by one worker or instance, at a bounded rate.

use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{Answer, Cx, Effect, Fields, Level, Task, To};

use crate::refresh::Refresh;
use crate::store::{self, Core};

/// How long a list that was begun is not begun again by another worker.
const TURN: Duration = Duration::from_secs(300);

/// Goes through the list.
pub(crate) struct Warm {
    core: Rc<Core>,
    at: usize,
    /// How many of them are stored by now.
    stored: usize,
    stage: Stage,
}

enum Stage {
    Election,
    Pausing,
    Refreshing(Box<Refresh>),
}

impl Warm {
    /// From the beginning of the list.
    pub fn new(core: &Rc<Core>) -> Self {
        Self {
            core: Rc::clone(core),
            at: 0,
            stored: 0,
            stage: Stage::Election,
        }
    }

    /// The next URL of the list that has anything to do.
    fn next(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let core = Rc::clone(&self.core);
        if core.ways.borrow().routes && core.settings.background.to == To::Onward {
            let line = "cache: nothing is warmed: `background.cluster` has to say where from";
            cx.log(Level::Warn, line);
            return None;
        }
        while let Some(url) = core.settings.warm.urls.get(self.at) {
            self.at += 1;
            let refresh = Refresh::ahead(&core, url, Fields::default());
            let Ok(mut refresh) = refresh else {
                cx.log(
                    Level::Warn,
                    format!("cache: {url:?} can't be fetched ahead"),
                );
                continue;
            };
            if let Some(effect) = refresh.start(cx) {
                self.stage = Stage::Refreshing(Box::new(refresh));
                return Some(effect);
            }
            self.ended(&refresh, cx);
        }
        let line = format!("cache: {} of {} URLs are warmed", self.stored, self.at);
        let level = match self.stored == self.at {
            true => Level::Info,
            false => Level::Warn,
        };
        cx.log(level, line);
        None
    }

    fn ended(&mut self, refresh: &Refresh, cx: &mut Cx<'_>) {
        if refresh.is_stored {
            self.stored += 1;
            cx.count("cache.warmed");
        }
    }

    fn pause(&mut self) -> Option<Effect> {
        self.stage = Stage::Pausing;
        Some(Effect::Wait {
            gate: None,
            limit: self.core.settings.warm.pace,
        })
    }
}

impl Task for Warm {
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let mine = self.core.fresh_generation(cx.now).to_be_bytes();
        if !self.core.settings.shared {
            return self.next(cx);
        }
        let name = format!("cache/w/{:016x}", self.list()).into();
        let change = move |before: Option<&[u8]>| before.is_none().then(|| mine.to_vec());
        Some(store::cell(name, change, TURN))
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        match std::mem::replace(&mut self.stage, Stage::Pausing) {
            Stage::Election => match answer {
                // Another worker is at it.
                Answer::Updated(Ok(Some(_))) => None,
                _ => self.next(cx),
            },
            Stage::Pausing => self.next(cx),
            Stage::Refreshing(mut refresh) => match refresh.answer(answer, cx) {
                Some(effect) => {
                    self.stage = Stage::Refreshing(refresh);
                    Some(effect)
                }
                None => {
                    self.ended(&refresh, cx);
                    self.pause()
                }
            },
        }
    }
}

impl Warm {
    /// A hash of the list: another list is another turn.
    fn list(&self) -> u64 {
        let urls = &self.core.settings.warm.urls;
        let bytes = urls.iter().flat_map(|url| {
            let parts = [&url.scheme, &url.authority, &url.path];
            parts.into_iter().flat_map(|part| part.bytes().chain([0]))
        });
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
