//! The way of a stored response into the third tier, while nobody waits for it.
//!
//! The store keeps no marks: what was on its way here when an invalidation reached it must not come back after it, or whoever
//! knows nothing of that one (a machine that starts) would use it. So a response is judged before it is written, and once
//! more when all is heard that other machines had said by then: what was invalidated meanwhile is taken back.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{Answer, Cx, Effect, Pass, Task, Timestamp};

use crate::judging::{Judging, Next};
use crate::kept;
use crate::l3::{About, L3};
use crate::lookup::{read, updated};
use crate::news::{Due, Hear};
use crate::standing::Standing;
use crate::store::{Core, Place, remaining};
use crate::stored::Stored;
use crate::tiers::Tier;

/// How often news that others hear are waited for before one write is judged by what is known.
const WAITS: u8 = 3;

/// One response that is to be in the third tier.
pub(crate) struct Keep {
    core: Rc<Core>,
    third: L3,
    place: Place,
    stored: Rc<Stored>,
    encoded: Bytes,
    until: u32,
    /// The name whose lease ends with the write.
    lease: Option<Bytes>,
    stage: Stage,
    /// What is still to be written, with its name.
    puts: VecDeque<(Bytes, Bytes)>,
    /// When it was written.
    written: Option<Timestamp>,
    waits: u8,
    /// Bytes of the response, until the answer to its write.
    size: usize,
}

enum Stage {
    /// A write behind waits.
    Behind,
    /// Another request hears the news.
    Heard,
    Hearing(Box<Hear>),
    Judging(Box<Judging>),
    Putting(Pass),
}

impl Keep {
    pub fn new(
        core: &Rc<Core>,
        third: &L3,
        place: &Place,
        (stored, encoded, until): (&Rc<Stored>, &Bytes, u32),
        lease: Option<Bytes>,
    ) -> Self {
        Self {
            core: Rc::clone(core),
            third: third.clone(),
            place: place.clone(),
            stored: Rc::clone(stored),
            encoded: encoded.clone(),
            until,
            lease,
            stage: Stage::Behind,
            puts: VecDeque::new(),
            written: None,
            waits: 0,
            size: 0,
        }
    }

    /// Hears what other machines invalidated: before the write when it is due, after it whatever was said until then.
    fn hear(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let due = match self.written {
            None => self.core.news_due(cx),
            Some(when) => self.core.news_after(when, cx),
        };
        match due {
            Due::Wait(gate) if self.waits < WAITS => {
                self.waits += 1;
                self.stage = Stage::Heard;
                Some(Effect::Wait {
                    gate: Some(gate),
                    limit: self.third.timeout(),
                })
            }
            Due::Hear(mut hear) => {
                let effect = hear.begin(cx);
                self.heard(hear, effect, cx)
            }
            Due::No | Due::Wait(_) => self.judge(cx),
        }
    }

    /// Goes on hearing, or has heard all.
    fn heard(
        &mut self,
        hear: Box<Hear>,
        effect: Option<Effect>,
        cx: &mut Cx<'_>,
    ) -> Option<Effect> {
        if effect.is_some() {
            self.stage = Stage::Hearing(hear);
            return effect;
        }
        // Who waits for the same news goes on with this.
        drop(hear);
        self.judge(cx)
    }

    fn judge(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let place = &self.place;
        let mut judging = Judging::new(&self.stored, &place.key, &place.primary, None);
        let next = judging.begin(place.alone, &self.core, cx.now);
        self.judged(Box::new(judging), next, cx)
    }

    fn judged(&mut self, judging: Box<Judging>, next: Next, cx: &mut Cx<'_>) -> Option<Effect> {
        match next {
            Next::Read(name) => {
                self.stage = Stage::Judging(judging);
                Some(read(name))
            }
            Next::Judged {
                standing: Standing::Valid,
                for_good: true,
            } => match self.written {
                None => self.write(cx),
                Some(_) => None,
            },
            Next::Judged { .. } => self.invalidated(cx),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        let key = &self.place.key;
        let encoded = std::mem::take(&mut self.encoded);
        let name = kept::name_of(key, &self.stored);
        self.size = encoded.len();
        self.puts.push_back((name, encoded));
        if let Some(varies) = kept::varies(&self.stored) {
            // Who finds this finds the variant.
            self.puts.push_back((kept::name(key), varies.into()));
        }
        let pass = self.third.pass(cx)?;
        self.put(pass, cx)
    }

    fn put(&mut self, pass: Pass, cx: &mut Cx<'_>) -> Option<Effect> {
        let (name, value) = self.puts.pop_front()?;
        self.stage = Stage::Putting(pass);
        let releases = self.lease.take_if(|lease| *lease == name).is_some();
        let about = About {
            key: &self.place.key,
            groups: &self.stored.groups,
        };
        let ttl = remaining(self.until, cx.now).min(self.third.residence);
        Some(self.third.write(&name, &value, &about, ttl, releases))
    }

    /// Not written, or taken back.
    fn invalidated(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        cx.count("cache.l3.superseded");
        self.release(cx);
        if self.written.is_some() {
            let name = kept::name_of(&self.place.key, &self.stored);
            cx.spawn(self.third.tell(self.third.forget(&name)));
        }
        None
    }

    fn release(&mut self, cx: &mut Cx<'_>) {
        if let Some(lease) = self.lease.take() {
            cx.spawn(self.third.tell(self.third.release(&lease)));
        }
    }
}

impl Task for Keep {
    fn start(&mut self, cx: &mut Cx<'_>) -> Option<Effect> {
        match self.third.behind {
            Some(limit) => Some(Effect::Wait { gate: None, limit }),
            None => self.hear(cx),
        }
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        match std::mem::replace(&mut self.stage, Stage::Heard) {
            Stage::Behind => {
                let memory = self.core.memory.borrow();
                let current = memory.holds(&self.place.object, &self.stored);
                drop(memory);
                match current {
                    true => self.hear(cx),
                    false => self.invalidated(cx),
                }
            }
            Stage::Heard => self.hear(cx),
            Stage::Hearing(mut hear) => {
                let effect = hear.go_on(&answer, cx);
                self.heard(hear, effect, cx)
            }
            Stage::Judging(mut judging) => match updated(answer) {
                Ok(value) => {
                    let next = judging.go_on(value, self.place.alone, &self.core, cx.now);
                    self.judged(judging, next, cx)
                }
                // It can't be known.
                Err(_) => self.invalidated(cx),
            },
            Stage::Putting(pass) => {
                let size = std::mem::take(&mut self.size);
                if self.third.told(&answer, Some(pass), cx) && size > 0 {
                    self.core.stored_in(Tier::L3, size, cx);
                }
                let more = !self.puts.is_empty();
                if let Some(pass) = more.then(|| self.third.pass(cx)).flatten() {
                    return self.put(pass, cx);
                }
                self.release(cx);
                self.written = Some(cx.now);
                self.waits = 0;
                self.hear(cx)
            }
        }
    }
}
