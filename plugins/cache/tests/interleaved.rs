//! Invalidation while something else is going on: a response on its way, a store that fails in the middle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use edgeweir_cache::Cache;
use edgeweir_filter::{
    Answer, Cx, Effect, Exchange, Failed, Fields, Filter, Record, Reply, RequestHead, ResponseHead,
    Step, Timestamp, load,
};

const TOKEN: &str = "Bearer 0123456789abcdef";
const CONFIG: &str = r#"{ "admin": { "token": "0123456789abcdef" } }"#;

const EVERY_WAY: [&str; 8] = [
    "key=/a",
    "key=/a&soft=1",
    "tag=red",
    "tag=red&soft=1",
    "prefix=/",
    "pattern=*a",
    "all=1",
    "all=1&soft=1",
];

/// A shared store that can fail from a given change on, and requests driven by hand: what happens between the parts of an
/// exchange is up to the test.
#[derive(Clone)]
struct Store {
    values: Rc<RefCell<BTreeMap<Bytes, Bytes>>>,
    left: Rc<Cell<usize>>,
    refused: Rc<Cell<usize>>,
}

impl Store {
    fn new() -> Self {
        Self {
            values: Rc::default(),
            left: Rc::new(Cell::new(usize::MAX)),
            refused: Rc::default(),
        }
    }

    fn perform(&self, effect: Effect) -> Answer {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        let mut values = self.values.borrow_mut();
        match effect {
            Effect::Update { .. } if left == 0 => {
                self.refused.set(self.refused.get() + 1);
                Answer::Updated(Err(Failed::Unavailable))
            }
            Effect::Update { key, change, .. } => {
                let before = values.get(&key).cloned();
                if let Some(after) = change.apply(before.as_deref()) {
                    values.insert(key, after.into());
                }
                Answer::Updated(Ok(before))
            }
            Effect::Load { key } => Answer::Loaded(Ok(values.get(&key).cloned())),
            Effect::Store { key, value, .. } => {
                values.insert(key, value);
                Answer::Stored(Ok(0))
            }
            Effect::Remove { key } => {
                values.remove(&key);
                Answer::Stored(Ok(0))
            }
            other => panic!("not for a store: {other:?}"),
        }
    }
}

/// A request on its way.
struct OnItsWay {
    exchange: Box<dyn Exchange>,
    head: RequestHead,
    record: Record,
    store: Store,
    /// What the client was answered at once.
    reply: Option<Reply>,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(1_767_225_600 + seconds)
}

impl OnItsWay {
    /// Goes as far as to the origin, or is answered.
    fn ask(cache: &Cache, store: &Store, line: [&str; 2], seconds: u64) -> Self {
        let mut asked = Self {
            exchange: cache.exchange(),
            head: RequestHead {
                method: line[0].to_owned().into(),
                scheme: "https".into(),
                authority: "example.com".into(),
                path: line[1].to_owned().into(),
                fields: Fields::of(&[("authorization", TOKEN)]),
                end: true,
                ..RequestHead::default()
            },
            record: Record::default(),
            store: store.clone(),
            reply: None,
        };
        if line[0] == "GET" {
            asked.head.fields = Fields::default();
        }
        let mut cx = Cx::new(at(seconds), &mut asked.record);
        let mut step = asked.exchange.request(&mut asked.head, &mut cx);
        while let Step::Do(effect) = step {
            let answer = store.perform(effect);
            let mut cx = Cx::new(at(seconds), &mut asked.record);
            step = asked
                .exchange
                .request_answer(answer, &mut asked.head, &mut cx);
        }
        asked.settle(seconds);
        if let Step::Reply(reply) = step {
            asked.reply = Some(reply);
        }
        asked
    }

    /// The origin answers; returns what `Cache-Status` says.
    fn response(&mut self, seconds: u64) -> String {
        let mut head = ResponseHead {
            status: 200,
            fields: Fields::of(&[
                ("cache-control", "max-age=600"),
                ("etag", "\"1\""),
                ("cache-tag", "red"),
            ]),
            ..ResponseHead::default()
        };
        let mut cx = Cx::new(at(seconds), &mut self.record);
        let mut step = self.exchange.response(&mut head, &mut cx);
        while let Step::Do(effect) = step {
            let answer = self.store.perform(effect);
            let mut cx = Cx::new(at(seconds), &mut self.record);
            step = self.exchange.response_answer(answer, &mut head, &mut cx);
        }
        self.settle(seconds);
        head.fields.text("cache-status").unwrap_or_default().into()
    }

    fn body(&mut self, seconds: u64) {
        let mut cx = Cx::new(at(seconds), &mut self.record);
        self.exchange
            .response_body(b"old", true, &mut Vec::new(), &mut cx);
        self.settle(seconds);
    }

    fn settle(&mut self, seconds: u64) {
        for effect in std::mem::take(&mut self.record.effects) {
            self.store.perform(effect);
        }
        for mut task in std::mem::take(&mut self.record.tasks) {
            let mut next = task.start(&mut Cx::new(at(seconds), &mut self.record));
            while let Some(effect) = next {
                let answer = self.store.perform(effect);
                next = task.answer(answer, &mut Cx::new(at(seconds), &mut self.record));
            }
        }
    }

    fn is_hit(cache: &Cache, store: &Store, seconds: u64) -> bool {
        Self::ask(cache, store, ["GET", "/a"], seconds)
            .reply
            .is_some_and(|reply| reply.head.status == 200)
    }

    fn purge(cache: &Cache, store: &Store, query: &str, seconds: u64) -> u16 {
        let path = format!("/.edgeweir/cache/purge?{query}");
        let asked = Self::ask(cache, store, ["POST", &path], seconds);
        asked.reply.expect("an answer").head.status
    }
}

fn cache() -> Cache {
    load::<Cache>(CONFIG.as_bytes()).expect("valid")
}

#[test]
fn a_purge_counts_wherever_the_response_is_on_its_way() {
    for query in EVERY_WAY {
        for before in ["the response", "its body"] {
            let (one, two, store) = (cache(), cache(), Store::new());
            let mut asked = OnItsWay::ask(&one, &store, ["GET", "/a"], 0);
            assert!(asked.reply.is_none(), "a miss");
            if before == "its body" {
                assert!(asked.response(1).ends_with("stored"));
            }
            assert_eq!(OnItsWay::purge(&two, &store, query, 2), 200, "{query}");
            if before == "the response" {
                let status = asked.response(3);
                let refused = status.ends_with("detail=invalidated");
                assert_eq!(refused, query == "key=/a", "{query}: {status}");
            }
            asked.body(3);
            for cache in [&two, &one] {
                let used = OnItsWay::is_hit(cache, &store, 4);
                assert!(!used, "{query} before {before}");
            }
            // What is asked for afterwards is stored and used.
            let mut anew = OnItsWay::ask(&one, &store, ["GET", "/a"], 5);
            let status = anew.response(5);
            assert!(status.contains("; stored"), "{query}: {status}");
            anew.body(5);
            for cache in [&two, &one] {
                assert!(OnItsWay::is_hit(cache, &store, 6), "{query}");
            }
        }
    }
}

#[test]
fn a_purge_that_is_cut_anywhere_is_not_said_to_be_done() {
    for query in EVERY_WAY {
        // From which change on the store fails: all of the first few, then some, then none.
        for left in (0..8).chain([100, 256, 257, 258, 259, 1000]) {
            let (one, two, store) = (cache(), cache(), Store::new());
            let mut asked = OnItsWay::ask(&one, &store, ["GET", "/a"], 0);
            asked.response(0);
            asked.body(0);
            assert!(OnItsWay::is_hit(&two, &store, 1) && OnItsWay::is_hit(&one, &store, 1));
            store.left.set(left);
            let status = OnItsWay::purge(&one, &store, query, 2);
            store.left.set(usize::MAX);
            let failed = store.refused.get() > 0;
            assert_eq!(status, if failed { 503 } else { 200 }, "{query} {left}");
            if failed {
                assert_eq!(OnItsWay::purge(&one, &store, query, 3), 200, "and again");
            }
            for cache in [&two, &one] {
                assert!(!OnItsWay::is_hit(cache, &store, 4), "{query} {left}");
            }
        }
    }
}
