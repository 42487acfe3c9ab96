//! One request under the rules.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Body, Change, Cx, Effect, Exchange, Failed, Fetched, Level, Pass, Reply, RequestHead,
    ResponseHead, Step, Timestamp,
};

use crate::answer::{self, Refusal};
use crate::concurrency::{Place, Slot};
use crate::config::{Action, OnStoreFailure, Scope};
use crate::denied::Denied;
use crate::meter::Became;
use crate::quota::{Decision, Quota};
use crate::rules::{Ready, Rules};
use crate::store::{Ask, Store};
use crate::subject::{Subject, of_any_layout};

/// What the exchanges of a filter share.
pub struct Shared {
    pub rules: Rules,
    /// Refusals of local limits.
    pub denied: RefCell<Denied<Bytes>>,
}

/// One request under the rules.
pub struct Limited {
    shared: Rc<Shared>,
    /// Rules in shadow that reported on it before. Rules without a shadow before them allocate nothing here.
    shadows: Vec<Chosen>,
    chosen: Option<Chosen>,
}

/// The rule that decides a request, or one in shadow that reports, and how far it has come.
struct Chosen {
    rule: Rc<Ready>,
    /// Where matching goes on behind it.
    behind: usize,
    level: u8,
    asked_at: Timestamp,
    /// Nanoseconds that the decision took so far, where it is timed.
    spent: Option<u64>,
    /// Nanoseconds into the call when it began.
    begun: u64,
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
    kept: Kept,
    decision: Option<Decision>,
}

/// Where the state is.
enum Kept {
    /// On this machine; the time it is decided at.
    Here(Timestamp),
    /// In the store, under this key.
    There(Rc<Store>, Bytes, Pass),
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
            shadows: Vec::new(),
            chosen: None,
        }
    }

    /// Lets the rules from this place on decide: those in shadow report, up to the first that decides.
    fn decide(&mut self, mut from: usize, head: &RequestHead, cx: &mut Cx<'_>) -> Step {
        let shared = Rc::clone(&self.shared);
        while let Some((behind, rule, subject)) = shared.rules.find(from, head) {
            let mut chosen = Chosen::new(rule, behind, head, cx);
            // What the rules before took in this call is not this one's.
            if from > 0 && chosen.spent.is_some() {
                chosen.begun = nanoseconds(cx.lap());
            }
            let step = chosen.begin(&shared, &subject, cx);
            if chosen.rule.shadow && matches!(step, Step::Forward(_)) {
                self.shadows.push(chosen);
                from = behind;
                continue;
            }
            self.chosen = Some(chosen);
            return self.settled(step, cx);
        }
        cx.count("ratelimit.unmatched");
        self.settled(Step::Forward(Body::Pass), cx)
    }

    /// Tells the rules in shadow what became of the request: it goes on now, or it is under way no more.
    fn settled(&mut self, step: Step, cx: &Cx<'_>) -> Step {
        match step {
            Step::Reply(_) => self.shadows.clear(),
            Step::Forward(_) => {
                for shadow in &mut self.shadows {
                    shadow.under_way.since = Some(cx.now);
                }
            }
            _ => {}
        }
        step
    }
}

impl Exchange for Limited {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        self.decide(0, head, cx)
    }

    fn request_answer(&mut self, answer: Answer, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let Some(mut chosen) = self.chosen.take() else {
            return Step::Forward(Body::Pass);
        };
        let step = chosen.answered(&self.shared, answer, cx);
        if chosen.rule.shadow && matches!(step, Step::Forward(_)) {
            let behind = chosen.behind;
            self.shadows.push(chosen);
            return self.decide(behind, head, cx);
        }
        self.chosen = Some(chosen);
        self.settled(step, cx)
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let mut under_way = false;
        for chosen in self.shadows.iter().chain(&self.chosen) {
            chosen.responded(&self.shared, head, cx);
            under_way |= chosen.under_way.place.is_some() || chosen.under_way.slot.is_some();
        }
        // An adapter may drop an exchange that looks at no body with its heads, long before the body has ended.
        match under_way {
            true => Step::Forward(Body::Observe),
            false => Step::Forward(Body::Pass),
        }
    }

    fn response_body(&mut self, _: &[u8], end: bool, _: &mut Vec<u8>, _: &mut Cx<'_>) {
        if end {
            for chosen in self.shadows.iter_mut().chain(&mut self.chosen) {
                chosen.under_way = UnderWay::default();
            }
        }
    }
}

impl Chosen {
    fn new(rule: Rc<Ready>, behind: usize, head: &RequestHead, cx: &Cx<'_>) -> Self {
        Self {
            behind,
            level: head.emergency.level(),
            asked_at: cx.now,
            spent: rule.timing.next().then_some(0),
            begun: 0,
            shadowed: false,
            bucket: None,
            under_way: UnderWay::default(),
            rule,
        }
    }

    /// Decides, as far as that goes without the state.
    fn begin(&mut self, shared: &Shared, subject: &Subject<'_>, cx: &mut Cx<'_>) -> Step {
        let rule = Rc::clone(&self.rule);
        match rule.action {
            Action::Limit => {}
            Action::Allow => return self.admit(cx),
            Action::Deny => return self.refuse(cx, || answer::denied(&rule.name)),
        }
        if let Some(reply) = self.enter(shared, subject) {
            return self.refuse(cx, || reply);
        }
        let Some((quota, key)) = rule.quota(subject) else {
            return self.admit(cx);
        };
        self.bucket = Some(Bucket {
            quota,
            key,
            cost: rule.cost.before(&subject.head.fields),
            kept: Kept::Here(cx.now),
            decision: None,
        });
        match (&shared.rules.store, rule.scope) {
            (Some(store), Scope::Global) => self.ask_there(shared, store, cx),
            _ => self.ask_here(shared, cx),
        }
    }

    /// Decides by what was asked for.
    fn answered(&mut self, shared: &Shared, answer: Answer, cx: &mut Cx<'_>) -> Step {
        let before = match answer {
            Answer::Updated(Ok(before)) => before,
            Answer::Updated(Err(failed)) => {
                return self.without_state(shared, failed.name(), cx);
            }
            Answer::Fetched(answer) => return self.told(shared, answer, cx),
            _ => return self.without_state(shared, "unexpected", cx),
        };
        let Some(bucket) = &self.bucket else {
            return Step::Forward(Body::Pass);
        };
        let now = match bucket.kept {
            Kept::Here(now) => now.0,
            Kept::There(..) => cx.now.0,
        };
        let quota = &bucket.quota;
        let decision = quota.decide(before.as_deref(), now, bucket.cost, self.level);
        self.decided_here(shared, decision, before, cx)
    }

    /// Learns from a response, charges what it cost, and tells the client.
    fn responded(&self, shared: &Shared, head: &mut ResponseHead, cx: &mut Cx<'_>) {
        if let (Some(adaptive), Some(since)) = (&self.rule.adaptive, self.under_way.since) {
            adaptive.learn(cx.now.since(since), head.unreached, cx.now);
        }
        let Some(bucket) = &self.bucket else {
            return;
        };
        let Some(mut decision) = bucket.decision.as_ref() else {
            return;
        };
        let more = self.rule.cost.after(&head.fields);
        let charged;
        if more > 0 {
            bucket.charge(more, self.level, cx);
            charged = bucket.quota.less(decision, more, self.level);
            decision = &charged;
        }
        if !self.rule.shadow {
            let answers = &shared.rules.answers;
            answers.admitted(&bucket.quota, decision, self.level, &mut head.fields);
        }
    }

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

    /// Asks for the state on this machine, where it is not known to refuse.
    fn ask_here(&mut self, shared: &Shared, cx: &mut Cx<'_>) -> Step {
        let level = self.level;
        let Some(bucket) = &mut self.bucket else {
            return Step::Forward(Body::Pass);
        };
        bucket.kept = Kept::Here(cx.now);
        let (quota, key, cost, now) = (&bucket.quota, &bucket.key, bucket.cost, cx.now.0);
        let remembered = shared.denied.borrow().of(key);
        if let Some(value) = remembered {
            let decision = quota.decide(Some(&value), now, cost, level);
            if !decision.admitted() && decision.value.is_none() {
                return self.decided_here(shared, decision, Some(value), cx);
            }
            shared.denied.borrow_mut().forget(key);
        }
        let effect = Effect::Update {
            table: quota.table(),
            key: key.clone(),
            ttl: Duration::from_nanos(quota.span()),
            change: Change::new({
                let quota = Rc::clone(quota);
                move |before| quota.decide(before, now, cost, level).value
            }),
        };
        self.pause(cx);
        Step::Do(effect)
    }

    /// Asks the store, where it is not known to refuse, nor in trouble.
    fn ask_there(&mut self, shared: &Shared, store: &Rc<Store>, cx: &mut Cx<'_>) -> Step {
        let level = self.level;
        let Some(bucket) = &mut self.bucket else {
            return Step::Forward(Body::Pass);
        };
        let key = of_any_layout(&bucket.key);
        let ask = bucket.ask(&key, bucket.cost, level);
        if let Some(decision) = store.remembered(&ask, cx.now, cx) {
            return self.decided(shared, decision, cx);
        }
        let Some((pass, effect)) = store.ask(&ask, cx) else {
            return self.without_store(shared, "left_alone", cx);
        };
        bucket.kept = Kept::There(Rc::clone(store), key, pass);
        self.pause(cx);
        Step::Do(effect)
    }

    /// The store has answered, or not.
    fn told(&mut self, shared: &Shared, answer: Result<Fetched, Failed>, cx: &mut Cx<'_>) -> Step {
        let Some(bucket) = &self.bucket else {
            return Step::Forward(Body::Pass);
        };
        let Kept::There(store, key, pass) = &bucket.kept else {
            return self.without_state(shared, "unexpected", cx);
        };
        let limits = bucket.quota.policies(self.level).len();
        match store.decided(*pass, answer, limits, cx) {
            Ok(decision) => {
                if !decision.admitted() {
                    let ask = bucket.ask(key, bucket.cost, self.level);
                    store.remember(&ask, self.asked_at, &decision);
                }
                self.decided(shared, decision, cx)
            }
            Err(reason) => self.without_store(shared, reason, cx),
        }
    }

    /// The store does not decide: the rule closes, or its limits hold on this machine.
    fn without_store(&mut self, shared: &Shared, reason: &'static str, cx: &mut Cx<'_>) -> Step {
        if self.rule.on_store_failure == OnStoreFailure::Closed && !self.rule.shadow {
            return self.without_state(shared, reason, cx);
        }
        self.rule.meter.count(Became::StoreError, cx);
        self.ask_here(shared, cx)
    }

    /// The state on this machine has decided.
    fn decided_here(
        &mut self,
        shared: &Shared,
        decision: Decision,
        before: Option<Bytes>,
        cx: &mut Cx<'_>,
    ) -> Step {
        // A value that says nothing of this key alone is not worth remembering.
        if let (Some(bucket), Some(value)) = (&self.bucket, before)
            && !decision.admitted()
            && decision.value.is_none()
            && bucket.quota.reads(&value)
        {
            // A copy: the value is a small part of what was read.
            let value = Bytes::copy_from_slice(&value);
            shared.denied.borrow_mut().remember(&bucket.key, value);
        }
        self.decided(shared, decision, cx)
    }

    /// The limits have decided.
    fn decided(&mut self, shared: &Shared, decision: Decision, cx: &mut Cx<'_>) -> Step {
        let Some(bucket) = &mut self.bucket else {
            return Step::Forward(Body::Pass);
        };
        if decision.admitted() {
            bucket.decision = Some(decision);
            return self.admit(cx);
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
        match (self.shadowed, self.rule.shadow) {
            (true, _) => self.rule.meter.count(Became::Shadowed, cx),
            (false, true) => self.rule.meter.conformed(cx),
            (false, false) => self.rule.meter.count(Became::Admitted, cx),
        }
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

    /// There is no state at all.
    fn without_state(&mut self, shared: &Shared, reason: &'static str, cx: &mut Cx<'_>) -> Step {
        self.rule.meter.count(Became::StoreError, cx);
        cx.log(
            Level::Debug,
            format!("rule {}: no state ({reason})", self.rule.name),
        );
        self.finish(cx);
        match self.rule.on_store_failure {
            OnStoreFailure::Closed if !self.rule.shadow => {
                self.under_way = UnderWay::default();
                Step::Reply(shared.rules.answers.unavailable(reason))
            }
            _ => {
                self.under_way.since = Some(cx.now);
                Step::Forward(Body::Pass)
            }
        }
    }

    /// Notes the time taken up to the first effect.
    fn pause(&mut self, cx: &Cx<'_>) {
        if cx.now == self.asked_at {
            let begun = self.begun;
            self.spent = self
                .spent
                .map(|_| nanoseconds(cx.lap()).saturating_sub(begun));
        }
    }

    /// Reports the time the decision took, if it is timed. An adapter that answers at once calls with the same time: then that
    /// reading has all of it, and otherwise the waiting in between is left out.
    fn finish(&mut self, cx: &mut Cx<'_>) {
        let Some(spent) = self.spent.take() else {
            return;
        };
        let lap = nanoseconds(cx.lap());
        let took = match cx.now == self.asked_at {
            true => lap.saturating_sub(self.begun),
            false => spent.saturating_add(lap),
        };
        self.rule.meter.took(took, cx);
    }
}

impl Bucket {
    /// What the store is asked.
    fn ask<'a>(&'a self, key: &'a Bytes, cost: u32, level: u8) -> Ask<'a> {
        Ask {
            key,
            cost,
            level,
            limits: self.quota.message(level),
        }
    }

    /// Takes cells after the fact, where the request took its own.
    fn charge(&self, cost: u32, level: u8, cx: &mut Cx<'_>) {
        if let Kept::There(store, key, _) = &self.kept {
            return store.charge(&self.ask(key, cost, level), cx);
        }
        let (quota, now) = (Rc::clone(&self.quota), cx.now.0);
        cx.detach(Effect::Update {
            table: self.quota.table(),
            key: self.key.clone(),
            ttl: Duration::from_nanos(self.quota.span()),
            change: Change::new(move |before| quota.charge(before, now, cost, level)),
        });
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
