//! The store that rules of global scope are decided in: one message for each decision, answered from memory while a limit
//! is known to be exhausted, and left alone while it fails.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Breaker, ConfigError, Cx, Effect, Failed, Fetched, Level, Pass, Service, Task,
    Timestamp, Trouble,
};

use crate::config::StoreConfig;
use crate::denied::Denied;
use crate::quota::{Decision, Standing};
use crate::wire::{self, Use};

/// The longest that a charge after the fact takes: nobody waits for it.
const CHARGE: Duration = Duration::from_secs(1);

/// The store, as one worker or instance sees it.
#[derive(Debug)]
pub struct Store {
    service: Service,
    breaker: Breaker,
    exhausted: RefCell<Denied<Exhausted>>,
}

/// A refusal of the store's.
#[derive(Clone, Debug)]
struct Exhausted {
    asked_at: Timestamp,
    cost: u32,
    level: u8,
    standings: Vec<Standing>,
}

/// What is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose limits.
    pub key: &'a Bytes,
    /// Cells.
    pub cost: u32,
    /// The emergency level.
    pub level: u8,
    /// The limits at that level, as a message has them.
    pub limits: &'a [u8],
}

impl Store {
    /// Checks the bounds.
    pub fn new(config: StoreConfig) -> Result<Self, ConfigError> {
        let StoreConfig {
            to,
            path,
            token,
            timeout_ms,
        } = config;
        Ok(Self {
            service: Service::new("store", to, path, token, timeout_ms)?,
            breaker: Breaker::default(),
            exhausted: RefCell::default(),
        })
    }

    /// The refusal that still holds: what cost so much was refused, and the store said until when. Others can only have used
    /// more since.
    pub fn remembered(&self, ask: &Ask<'_>, now: Timestamp, cx: &mut Cx<'_>) -> Option<Decision> {
        let known = self.exhausted.borrow().of(ask.key)?;
        let passed = u64::try_from(now.since(known.asked_at).as_nanos()).unwrap_or(u64::MAX);
        let standings: Vec<Standing> = known.standings.iter().map(|it| it.after(passed)).collect();
        let holds = standings.iter().any(|it| it.wait.is_some());
        // After a clock set back nothing is known of how long it is.
        if now < known.asked_at || !holds {
            self.exhausted.borrow_mut().forget(ask.key);
            return None;
        }
        if known.level != ask.level || known.cost > ask.cost {
            return None;
        }
        cx.count("ratelimit.store.remembered");
        Some(Decision {
            value: None,
            standings,
        })
    }

    /// The request to send; `None` while the store is left alone.
    pub fn ask(&self, ask: &Ask<'_>, cx: &mut Cx<'_>) -> Option<(Pass, Effect)> {
        let Some(pass) = self.breaker.ask(cx.now) else {
            cx.count("ratelimit.store.left_alone");
            return None;
        };
        cx.count("ratelimit.store.asked");
        Some((pass, self.send(ask, Use::Asked, self.service.timeout())))
    }

    /// The decision in an answer on so many limits, or the name of the failure.
    pub fn decided(
        &self,
        pass: Pass,
        answer: Result<Fetched, Failed>,
        limits: usize,
        cx: &mut Cx<'_>,
    ) -> Result<Decision, &'static str> {
        let standings = match answer {
            Ok(reply) => match reply.head.status {
                200 => wire::answer(&reply.body, limits).ok_or((Trouble::Refused, "malformed")),
                // It answers, and still knows those it has: only new keys find no room.
                507 => {
                    self.well(pass, cx);
                    cx.count("ratelimit.store.failed");
                    return Err("full");
                }
                401 | 403 => Err((Trouble::Refused, "no_access")),
                504 => Err((Trouble::TimedOut, "timed_out")),
                _ => Err((Trouble::Refused, "refused")),
            },
            Err(failed) => Err((failed.into(), failed.name())),
        };
        match standings {
            Ok(standings) => {
                self.well(pass, cx);
                Ok(Decision {
                    value: None,
                    standings,
                })
            }
            Err((trouble, reason)) => {
                cx.count(match trouble {
                    Trouble::TimedOut => "ratelimit.store.timed_out",
                    Trouble::Refused => "ratelimit.store.failed",
                });
                if self.breaker.failed(pass, trouble, cx.now) {
                    cx.count("ratelimit.store.opened");
                    let line = format!(
                        "the store does not decide ({reason}): rules of global scope go on without it until it does"
                    );
                    cx.log(Level::Warn, line);
                }
                Err(reason)
            }
        }
    }

    /// Remembers a refusal.
    pub fn remember(&self, ask: &Ask<'_>, asked_at: Timestamp, decision: &Decision) {
        let exhausted = Exhausted {
            asked_at,
            cost: ask.cost,
            level: ask.level,
            standings: decision.standings.clone(),
        };
        self.exhausted.borrow_mut().remember(ask.key, exhausted);
    }

    /// Takes cells after the fact, while nobody waits; a charge that is lost is counted.
    pub fn charge(self: &Rc<Self>, ask: &Ask<'_>, cx: &mut Cx<'_>) {
        let Some(pass) = self.breaker.ask(cx.now) else {
            return cx.count("ratelimit.store.charge_lost");
        };
        cx.count("ratelimit.store.charged");
        cx.spawn(Charge {
            store: Rc::clone(self),
            pass,
            limits: ask.limits.first().copied().unwrap_or_default().into(),
            effect: Some(self.send(ask, Use::Had, CHARGE)),
        });
    }

    fn send(&self, ask: &Ask<'_>, used: Use, timeout: Duration) -> Effect {
        let body = wire::ask(ask.key, ask.cost, used, ask.limits);
        self.service.fetch("POST", "limit", &[], body, timeout)
    }

    fn well(&self, pass: Pass, cx: &mut Cx<'_>) {
        if self.breaker.well(pass) {
            cx.count("ratelimit.store.recovered");
            cx.log(Level::Info, "the store decides again");
        }
    }
}

/// A charge under way.
struct Charge {
    store: Rc<Store>,
    pass: Pass,
    limits: usize,
    effect: Option<Effect>,
}

impl Task for Charge {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        self.effect.take()
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        let Answer::Fetched(answer) = answer else {
            return None;
        };
        if self
            .store
            .decided(self.pass, answer, self.limits, cx)
            .is_err()
        {
            cx.count("ratelimit.store.charge_lost");
        }
        None
    }
}
