//! One request under the rules.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, Change, Cx, Effect, Exchange, Level, Reply, RequestHead, ResponseHead, Step,
    Timestamp,
};

use crate::answer::{self, Refusal};
use crate::concurrency::{Place, Slot};
use crate::config::{Action, OnStoreFailure};
use crate::denied::Denied;
use crate::meter::Became;
use crate::part::Subject;
use crate::quota::{Decision, Quota};
use crate::rules::{Ready, Rules};

/// What the exchanges of a filter share.
pub struct Shared {
    pub rules: Rules,
    pub denied: RefCell<Denied>,
}

/// One request under the rules.
pub struct Limited {
    shared: Rc<Shared>,
    chosen: Option<Chosen>,
}

/// The rule that decides a request, and how far it has come.
struct Chosen {
    rule: Rc<Ready>,
    level: u8,
    asked_at: Timestamp,
    /// Nanoseconds that the decision took so far, where it is timed.
    spent: Option<u64>,
    /// It would have been refused.
    shadowed: bool,
    bucket: Option<Bucket>,
    under_way: UnderWay,
}

/// The state that a request takes from.
struct Bucket {
    quota: Rc<Quota>,
    key: Bytes,
    cost: u32,
    decision: Option<Decision>,
}

/// What is given back when the exchange ends, in whatever way.
#[derive(Default)]
struct UnderWay {
    place: Option<Place>,
    slot: Option<Slot>,
    /// When the request went on.
    since: Option<Timestamp>,
}

impl Limited {
    /// A request under these rules.
    pub fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            chosen: None,
        }
    }
}

impl Exchange for Limited {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let shared = Rc::clone(&self.shared);
        let Some((rule, subject)) = shared.rules.find(head) else {
            cx.count("ratelimit.unmatched");
            return Step::Forward(Body::Pass);
        };
        let mut chosen = Chosen {
            rule: Rc::clone(&rule),
            level: head.emergency.level(),
            asked_at: cx.now,
            spent: rule.timing.next().then_some(0),
            shadowed: false,
            bucket: None,
            under_way: UnderWay::default(),
        };
        match rule.action {
            Action::Limit => {}
            Action::Allow => return chosen.admit(cx),
            Action::Deny => return chosen.refuse(cx, || answer::denied(&rule.name)),
        }
        if let Some(reply) = chosen.enter(&shared, &subject) {
            return chosen.refuse(cx, || reply);
        }
        let Some((quota, key)) = rule.quota(&subject) else {
            let step = chosen.admit(cx);
            self.chosen = Some(chosen);
            return step;
        };
        let cost = rule.cost.before(&head.fields);
        let (now, level) = (cx.now.0, chosen.level);
        let remembered = shared.denied.borrow().of(&key);
        if let Some(value) = remembered {
            let decision = quota.decide(Some(&value), now, cost, level);
            if !decision.admitted() && decision.value.is_none() {
                chosen.bucket = Some(Bucket {
                    quota,
                    key,
                    cost,
                    decision: None,
                });
                let step = chosen.decided(&shared, decision, Some(value), cx);
                self.chosen = Some(chosen);
                return step;
            }
            shared.denied.borrow_mut().forget(&key);
        }
        let effect = Effect::Update {
            table: quota.table(),
            key: key.clone(),
            ttl: Duration::from_nanos(quota.span()),
            change: Change::new({
                let quota = Rc::clone(&quota);
                move |before| quota.decide(before, now, cost, level).value
            }),
        };
        chosen.bucket = Some(Bucket {
            quota,
            key,
            cost,
            decision: None,
        });
        chosen.spent = chosen.spent.map(|_| nanoseconds(cx.lap()));
        self.chosen = Some(chosen);
        Step::Do(effect)
    }

    fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let shared = Rc::clone(&self.shared);
        let Some(chosen) = &mut self.chosen else {
            return Step::Forward(Body::Pass);
        };
        let before = match answer {
            Answer::Updated(Ok(before)) => before,
            Answer::Updated(Err(failed)) => return chosen.without_store(failed.name(), cx),
            _ => return chosen.without_store("unexpected", cx),
        };
        let Some(bucket) = &chosen.bucket else {
            return Step::Forward(Body::Pass);
        };
        let now = chosen.asked_at.0;
        let decision = bucket
            .quota
            .decide(before.as_deref(), now, bucket.cost, chosen.level);
        chosen.decided(&shared, decision, before, cx)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let Some(chosen) = &mut self.chosen else {
            return Step::Forward(Body::Pass);
        };
        if let (Some(adaptive), Some(since)) = (&chosen.rule.adaptive, chosen.under_way.since) {
            adaptive.learn(cx.now.since(since), head.unreached, cx.now);
        }
        if let Some(bucket) = &chosen.bucket
            && let Some(decision) = &bucket.decision
        {
            let more = chosen.rule.cost.after(&head.fields);
            if more > 0 {
                cx.detach(bucket.charge(more, chosen.level, cx.now.0));
            }
            if !chosen.rule.shadow {
                let answers = &self.shared.rules.answers;
                answers.admitted(&bucket.quota, decision, chosen.level, &mut head.fields);
            }
        }
        // An adapter may drop an exchange that looks at no body with its heads, long before the body has ended.
        match chosen.under_way.place.is_some() || chosen.under_way.slot.is_some() {
            true => Step::Forward(Body::Observe),
            false => Step::Forward(Body::Pass),
        }
    }

    fn response_body(&mut self, _: &[u8], end: bool, _: &mut Vec<u8>, _: &mut Cx<'_>) {
        if end && let Some(chosen) = &mut self.chosen {
            chosen.under_way = UnderWay::default();
        }
    }
}

impl Chosen {
    /// Counts the request as under way; a reply where there are too many of them already.
    fn enter(&mut self, shared: &Shared, subject: &Subject<'_>) -> Option<Reply> {
        let rule = Rc::clone(&self.rule);
        let mut refusal = None;
        if let Some(adaptive) = &rule.adaptive {
            let (slot, count) = adaptive.enter();
            self.under_way.slot = Some(slot);
            let limit = rule.left(adaptive.limit(), self.level);
            if count > limit {
                let rule = &rule.name;
                refusal = Some(Refusal::Adaptive { rule, limit });
            }
        }
        if let Some((limit, all)) = &rule.concurrency {
            let (place, count) = all.enter(&subject.key(&rule.name, 0, &rule.key));
            self.under_way.place = Some(place);
            let limit = rule.left(*limit, self.level);
            if count > limit {
                let rule = &rule.name;
                refusal = Some(Refusal::Concurrency { rule, limit });
            }
        }
        let refusal = refusal?;
        if rule.shadow {
            self.shadowed = true;
            return None;
        }
        Some(shared.rules.answers.refusal(&refusal))
    }

    /// The limits have decided.
    fn decided(
        &mut self,
        shared: &Shared,
        decision: Decision,
        before: Option<Bytes>,
        cx: &mut Cx<'_>,
    ) -> Step {
        let Some(bucket) = &mut self.bucket else {
            return Step::Forward(Body::Pass);
        };
        if decision.admitted() {
            bucket.decision = Some(decision);
            return self.admit(cx);
        }
        // A value that says nothing of this key alone is not worth remembering.
        let value = before.filter(|value| decision.value.is_none() && bucket.quota.reads(value));
        if let Some(value) = value {
            shared.denied.borrow_mut().remember(&bucket.key, &value);
        }
        let (quota, level) = (Rc::clone(&bucket.quota), self.level);
        self.refuse(cx, || {
            shared.rules.answers.refusal(&Refusal::Quota {
                quota: &quota,
                decision: &decision,
                level,
            })
        })
    }

    fn admit(&mut self, cx: &mut Cx<'_>) -> Step {
        let became = match self.shadowed {
            true => Became::Shadowed,
            false => Became::Admitted,
        };
        self.rule.meter.count(became, cx);
        self.finish(cx);
        self.under_way.since = Some(cx.now);
        Step::Forward(Body::Pass)
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, reply: impl FnOnce() -> Reply) -> Step {
        if self.rule.shadow {
            self.shadowed = true;
            return self.admit(cx);
        }
        self.under_way = UnderWay::default();
        self.rule.meter.count(Became::Limited, cx);
        let reply = reply();
        self.finish(cx);
        Step::Reply(reply)
    }

    fn without_store(&mut self, reason: &'static str, cx: &mut Cx<'_>) -> Step {
        self.rule.meter.count(Became::StoreError, cx);
        cx.log(
            Level::Debug,
            format!("rule {}: no state ({reason})", self.rule.name),
        );
        self.finish(cx);
        match self.rule.on_store_failure {
            OnStoreFailure::Closed if !self.rule.shadow => {
                self.under_way = UnderWay::default();
                Step::Reply(answer::unavailable(reason))
            }
            _ => {
                self.under_way.since = Some(cx.now);
                Step::Forward(Body::Pass)
            }
        }
    }

    /// Reports the time the decision took, if it is timed. An adapter that answers at once calls with the same time: then that
    /// reading has all of it, and otherwise the waiting in between is left out.
    fn finish(&mut self, cx: &mut Cx<'_>) {
        let Some(spent) = self.spent.take() else {
            return;
        };
        let before = if cx.now == self.asked_at { 0 } else { spent };
        let took = before.saturating_add(nanoseconds(cx.lap()));
        self.rule.meter.took(took, cx);
    }
}

impl Bucket {
    /// Takes cells after the fact.
    fn charge(&self, cost: u32, level: u8, now: u64) -> Effect {
        let quota = Rc::clone(&self.quota);
        Effect::Update {
            table: self.quota.table(),
            key: self.key.clone(),
            ttl: Duration::from_nanos(self.quota.span()),
            change: Change::new(move |before| quota.charge(before, now, cost, level)),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
