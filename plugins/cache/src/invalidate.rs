//! What an unsafe request invalidates (RFC 9111 §4.4, RFC 9875 §3), and the changes of shared values that do it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{Answer, Cx, Effect, Level, ResponseHead};

use crate::groups::{self, Dependencies};
use crate::key::{Key, Target, authority, split};
use crate::l3::L3;
use crate::marker;
use crate::news;
use crate::standing::{self, Ban, Mark, Overview, Wide};
use crate::store::{self, Core};

type ChangeFn = dyn Fn(Option<&[u8]>) -> Option<Vec<u8>>;
type ThenFn = dyn FnOnce(Option<&[u8]>) -> Updates;

/// Changes of shared values, one after the other.
#[derive(Default)]
pub(crate) struct Updates {
    pending: VecDeque<Pending>,
    /// What the third tier is told then.
    third: VecDeque<Effect>,
    /// One of them did not reach the shared store.
    pub failed: bool,
}

struct Pending {
    key: Bytes,
    change: Rc<ChangeFn>,
    ttl: Duration,
    /// An invalidation of one key: it is to be remembered for as long as what it invalidates.
    generation: Option<u64>,
    /// What is to be done next, when that depends on the value before.
    then: Option<Box<ThenFn>>,
}

impl Updates {
    pub(crate) fn push(
        &mut self,
        key: Bytes,
        ttl: Duration,
        change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>> + 'static,
    ) {
        self.pending.push_back(Pending {
            key,
            change: Rc::new(change),
            ttl,
            generation: None,
            then: None,
        });
    }

    /// What the third tier is told, for whoever does not wait for it.
    pub(crate) fn take_third(&mut self) -> impl Iterator<Item = Effect> {
        std::mem::take(&mut self.third).into_iter()
    }

    pub(crate) fn tell_third(&mut self, effect: Effect) {
        self.third.push_back(effect);
    }

    /// What is to be done first, in order.
    fn put_first(&mut self, others: Self) {
        for pending in others.pending.into_iter().rev() {
            self.pending.push_front(pending);
        }
    }
}

impl Core {
    /// The changes after a successful unsafe request.
    pub(crate) fn after_unsafe(
        &self,
        targets: &[Target],
        groups: &[u64],
        cx: &mut Cx<'_>,
    ) -> Updates {
        let mut updates = Updates::default();
        for target in targets {
            self.invalidate_key(target, &mut updates, cx);
        }
        if !groups.is_empty() {
            cx.add("cache.invalidated_groups", groups.len() as u64);
            let mark = Mark::hard(cx.now);
            self.invalidate_groups(groups, mark, &mut updates, cx);
        }
        updates
    }

    /// Makes what is stored under a URI, or on its way there, unusable.
    pub(crate) fn invalidate_key(&self, target: &Target, updates: &mut Updates, cx: &mut Cx<'_>) {
        let settings = self.settings.key_of(target);
        let Ok(key) = Key::of_target(target, settings) else {
            return;
        };
        cx.count("cache.invalidated");
        let uri = key.uri_part();
        let (name, ttl) = match settings.has_extra() {
            true => (store::epoch_name(uri), store::EPOCH),
            false => (store::marker_name(uri), store::REMEMBERED),
        };
        let until = store::seconds_at(cx.now.plus(ttl));
        let fresh = self.fresh_generation(cx.now);
        updates.pending.push_back(Pending {
            key: name,
            change: Rc::new(move |_| marker::invalidate(fresh, until)),
            ttl,
            generation: Some(fresh),
            then: None,
        });
        if self.settings.l3.is_some() {
            // What the third tier has is judged by its time: it knows no generations of this machine's.
            let (name, mark) = (store::uri_mark_name(uri), Mark::hard(cx.now));
            updates.push(name, store::MARKED, move |before| Some(mark.over(before)));
        }
        self.push_tick(store::clock_of(uri), updates, cx);
        self.forget_third(&key, Mark::hard(cx.now), updates);
    }

    /// Makes the third tier forget all that is kept under a URI, and tell the other machines.
    pub(crate) fn forget_third(&self, key: &Key, mark: Mark, updates: &mut Updates) {
        if let Some(third) = &self.settings.l3 {
            let news = self.news(mark, &news::of_uri(key.uri_part()));
            updates.tell_third(third.forget_uri(key, &news));
        }
    }

    /// A line for other machines.
    pub(crate) fn news(&self, mark: Mark, what: &str) -> String {
        news::line(self.hearing.borrow().who, mark, what)
    }

    /// Puts a mark on groups: what is in one of them is judged by it.
    pub(crate) fn invalidate_groups(
        &self,
        groups: &[u64],
        mark: Mark,
        updates: &mut Updates,
        cx: &mut Cx<'_>,
    ) {
        for group in groups {
            let change = move |before: Option<&[u8]>| Some(mark.over(before));
            updates.push(store::group_name(*group), store::MARKED, change);
        }
        if let Some(third) = &self.settings.l3 {
            let news = |listed: &str| self.news(mark, &news::of_groups(listed));
            for effect in third.forget_groups(groups, news) {
                updates.tell_third(effect);
            }
        }
        self.push_wide(Wide::Marks, updates, cx);
    }

    /// Tells every worker that more than one key was invalidated.
    pub(crate) fn push_wide(&self, wide: Wide, updates: &mut Updates, cx: &mut Cx<'_>) {
        let fresh = self.fresh_generation(cx.now);
        let change = move |before: Option<&[u8]>| Some(standing::change(before, wide, fresh));
        updates.push(store::wide_name(), store::MARKED, change);
        self.push_ticks(updates, cx);
    }

    /// Writes a ban where there is a place for it, and tells every worker.
    pub(crate) fn ban(&self, ban: &Ban, updates: &mut Updates, cx: &mut Cx<'_>) {
        let (fresh, now) = (self.fresh_generation(cx.now), cx.now);
        let parts = ban.parts(self.fresh_generation(now) as u32);
        let wide = Wide::Reserve(now);
        updates.pending.push_back(Pending {
            key: store::wide_name(),
            change: Rc::new(move |before| Some(standing::change(before, wide, fresh))),
            ttl: store::MARKED,
            generation: None,
            then: Some(Box::new(move |before| {
                let mut next = Updates::default();
                // Without a place everything was invalidated instead.
                if let Some(slot) = Overview::of(before).free() {
                    for (at, part) in (0u8..).zip(parts) {
                        let name = store::ban_name(u8::try_from(slot).unwrap_or(u8::MAX), at);
                        next.push(name, store::MARKED, move |_| Some(part.clone()));
                    }
                    let wide = Wide::Commit(slot);
                    next.push(store::wide_name(), store::MARKED, move |before| {
                        Some(standing::change(before, wide, fresh))
                    });
                }
                next
            })),
        });
        self.push_ticks(updates, cx);
    }

    fn push_ticks(&self, updates: &mut Updates, cx: &Cx<'_>) {
        for clock in 0..=u8::MAX {
            self.push_tick(clock, updates, cx);
        }
    }

    fn push_tick(&self, clock: u8, updates: &mut Updates, cx: &Cx<'_>) {
        let fresh = self.fresh_generation(cx.now).to_be_bytes();
        updates.push(store::clock_name(clock), store::CLOCK, move |_| {
            Some(fresh.to_vec())
        });
    }

    /// The next change to ask for; `None` when all are done. Without a shared store they are done here.
    pub(crate) fn next_update(&self, updates: &mut Updates, _cx: &mut Cx<'_>) -> Option<Effect> {
        if !self.settings.shared {
            self.do_alone(updates);
        }
        let Some(next) = updates.pending.front() else {
            return updates.third.pop_front();
        };
        let change = Rc::clone(&next.change);
        let change = move |before: Option<&[u8]>| change(before);
        Some(store::cell(next.key.clone(), change, next.ttl))
    }

    /// What came of the change asked for last.
    pub(crate) fn updated(&self, updates: &mut Updates, answer: &Answer, cx: &mut Cx<'_>) {
        let Some(done) = updates.pending.pop_front() else {
            let told = |third: &L3| third.told(answer, None, cx);
            if !self.settings.l3.as_ref().is_none_or(told) {
                updates.failed = true;
            }
            return;
        };
        match answer {
            Answer::Updated(Ok(before)) => {
                self.memory.borrow_mut().no_longer_alone();
                if let Some(then) = done.then {
                    updates.put_first(then(before.as_deref()));
                }
                let Some(generation) = done.generation else {
                    return;
                };
                let until = store::seconds_at(cx.now.plus(done.ttl));
                if let Some(longer) = marker::outlives(before.as_deref(), until) {
                    updates.pending.push_front(Pending {
                        key: done.key,
                        change: Rc::new(move |b| marker::prolong(b, generation, longer)),
                        ttl: store::remaining(longer, cx.now),
                        generation: None,
                        then: None,
                    });
                }
            }
            other => {
                cx.count("cache.invalidation_failed");
                // One line for all of its changes.
                if !std::mem::replace(&mut updates.failed, true) {
                    let why = match other {
                        Answer::Updated(Err(failed)) => failed.name(),
                        _ => "unsupported",
                    };
                    let line = "cache: an invalidation did not reach the shared store";
                    cx.log(Level::Warn, format!("{line}: {why}"));
                }
                // The other workers can't be told: this one at least knows, for as long as it works alone. What follows
                // from the change is done here too: a place reserved here says nothing of the shared store's.
                self.do_alone(&mut Updates {
                    pending: VecDeque::from([done]),
                    failed: true,
                    ..Updates::default()
                });
            }
        }
    }

    /// Makes changes in this instance only, and those that follow from them.
    fn do_alone(&self, updates: &mut Updates) {
        while let Some(pending) = updates.pending.pop_front() {
            let before = self.update_alone(&pending.key, |before| (pending.change)(before));
            if let Some(then) = pending.then {
                updates.put_first(then(before.as_deref()));
            }
        }
    }
}

/// Methods by what they do to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Looked up and stored.
    Get,
    /// Looked up.
    Head,
    /// Known to be safe (RFC 9110 §9.2.1, RFC 4918, RFC 3253, RFC 5323): changes nothing.
    Safe,
    /// Anything else: RFC 9111 §4.4 counts "methods whose safety is unknown" among the unsafe.
    Unsafe,
}

impl Method {
    /// RFC 9110 §9.1: methods are case-sensitive.
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" | b"TRACE" | b"PROPFIND" | b"REPORT" | b"SEARCH" | b"QUERY" | b"PRI"
            // A tunnel, not a resource.
            | b"CONNECT" => Self::Safe,
            _ => Self::Unsafe,
        }
    }
}

/// The URIs to invalidate after an unsafe request: its own, and those in `Location` and `Content-Location` of the same
/// origin. RFC 9111 §4.4: "MUST invalidate the target URI … when it receives a non-error status code": 2xx or 3xx.
pub fn targets(asked: &Target, head: &ResponseHead) -> Vec<Target> {
    if !(200..400).contains(&head.status) {
        return Vec::new();
    }
    let mut targets = vec![asked.clone()];
    for name in ["location", "content-location"] {
        if let Some(reference) = head.fields.get(name)
            && let Some(target) = resolve(asked, reference.trim_ascii())
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// The groups that a response to an unsafe request invalidates.
pub fn groups(asked: &Target, head: &ResponseHead, dependencies: &Dependencies) -> Vec<u64> {
    if !(200..400).contains(&head.status) {
        return Vec::new();
    }
    groups::invalidated(&head.fields, &asked.origin(), dependencies)
}

/// Resolves a reference (RFC 3986 §5.2.2); `None` when it leads to another origin. RFC 9111 §4.4: "A cache MUST NOT
/// trigger an invalidation under these conditions if the origin … of the URI to be invalidated differs".
fn resolve(base: &Target, reference: &[u8]) -> Option<Target> {
    let reference = reference.split(|&byte| byte == b'#').next()?;
    let at = |path: Vec<u8>| {
        Some(Target {
            path: path.into(),
            ..base.clone()
        })
    };
    if let Some((scheme, rest)) = with_scheme(reference) {
        let rest = rest.strip_prefix(b"//")?;
        return (scheme == base.scheme).then(|| on_host(base, rest))?;
    }
    if let Some(rest) = reference.strip_prefix(b"//") {
        return on_host(base, rest);
    }
    let (base_path, base_query) = split(&base.path);
    let (path, query) = split(reference);
    if path.is_empty() {
        return at(joined(base_path.to_vec(), query.or(base_query)));
    }
    let whole = if path.starts_with(b"/") {
        path.to_vec()
    } else {
        // RFC 3986 §5.2.3: up to the last slash of the base.
        let directory = base_path.iter().rposition(|&byte| byte == b'/');
        let kept = directory
            .and_then(|end| base_path.get(..=end))
            .unwrap_or(b"/");
        [kept, path].concat()
    };
    at(joined(without_dot_segments(&whole), query))
}

fn on_host(base: &Target, rest: &[u8]) -> Option<Target> {
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if authority(&base.scheme, &Bytes::copy_from_slice(host)) != base.authority {
        return None;
    }
    let (path, query) = split(path);
    let path = if path.is_empty() { b"/" } else { path };
    Some(Target {
        path: joined(without_dot_segments(path), query).into(),
        ..base.clone()
    })
}

/// RFC 3986 §3.1: a letter, then letters, digits, `+`, `-`, `.`, before a colon.
fn with_scheme(reference: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let at = reference.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = reference.split_at(at);
    let starts = scheme.first().is_some_and(u8::is_ascii_alphabetic);
    let goes_on = scheme
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    (starts && goes_on).then(|| {
        (
            scheme.to_ascii_lowercase(),
            rest.get(1..).unwrap_or_default(),
        )
    })
}

fn joined(mut path: Vec<u8>, query: Option<&[u8]>) -> Vec<u8> {
    if let Some(query) = query {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    path
}

/// RFC 3986 §5.2.4, for a path that starts with `/`.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_slash = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if ends_in_slash {
        kept.push(b"");
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Fields;
    use proptest::prelude::*;

    fn base() -> Target {
        Target {
            scheme: Bytes::from("https"),
            authority: Bytes::from("a.example"),
            path: Bytes::from("/x/y?q"),
        }
    }

    #[test]
    fn references_resolve_within_the_origin() {
        for (reference, want) in [
            ("/z", Some("/z")),
            ("z", Some("/x/z")),
            ("../z?w", Some("/z?w")),
            ("./", Some("/x/")),
            ("..", Some("/")),
            ("../../../z", Some("/z")),
            ("?w", Some("/x/y?w")),
            ("", Some("/x/y?q")),
            ("#part", Some("/x/y?q")),
            ("https://A.example:443/z", Some("/z")),
            ("HTTPS://a.example", Some("/")),
            ("//a.example/z#part", Some("/z")),
            ("http://a.example/z", None),
            ("https://b.example/z", None),
            ("https://a.example:8443/z", None),
            ("mailto:a@b", None),
            ("https:/z", None),
        ] {
            let path = resolve(&base(), reference.as_bytes()).map(|target| target.path);
            assert_eq!(path.as_deref(), want.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn only_success_invalidates() {
        for (status, count) in [(200, 2), (204, 2), (302, 2), (404, 0), (500, 0), (100, 0)] {
            let head = ResponseHead {
                status,
                fields: Fields::of(&[("location", "/z"), ("content-location", "/z")]),
                end: true,
                ..ResponseHead::default()
            };
            assert_eq!(targets(&base(), &head).len(), count, "{status}");
        }
    }

    #[test]
    fn methods_have_classes() {
        for (method, want) in [
            ("GET", Method::Get),
            ("get", Method::Unsafe),
            ("OPTIONS", Method::Safe),
            ("POST", Method::Unsafe),
            ("BREW", Method::Unsafe),
        ] {
            assert_eq!(Method::of(method.as_bytes()), want, "{method}");
        }
    }

    proptest! {
        #[test]
        fn any_reference_resolves_or_not(reference: Vec<u8>) {
            if let Some(target) = resolve(&base(), &reference) {
                prop_assert!(target.path.starts_with(b"/"));
            }
        }
    }
}
