//! Requests that wait for one another in one worker, and what they do when that was in vain.

use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{
    Answer, Body, Cx, Effect, Exchange, Fields, Filter, Gate, Record, RequestHead, ResponseHead,
    Step, Timestamp, load,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];
const ALONE: &str = r#"{"shared": false}"#;

/// A request that is driven by hand: several at once, as in one worker.
struct Driven {
    exchange: Box<dyn Exchange>,
    head: RequestHead,
    record: Record,
    now: Timestamp,
}

const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

impl Driven {
    fn new(cache: &Cache) -> Self {
        let head = RequestHead {
            method: "GET".into(),
            scheme: "https".into(),
            authority: "example.com".into(),
            path: "/".into(),
            end: true,
            ..RequestHead::default()
        };
        Self {
            exchange: cache.exchange(),
            head,
            record: Record::default(),
            now: NOW,
        }
    }

    /// So many of them, so many seconds after the start, with fields.
    fn many<const N: usize>(cache: &Cache, seconds: u64, fields: &[(&str, &str)]) -> [Self; N] {
        std::array::from_fn(|_| {
            let mut one = Self::new(cache);
            one.now = NOW.plus(Duration::from_secs(seconds));
            one.head.fields = Fields::of(fields);
            one
        })
    }

    fn begin(&mut self) -> Step {
        let mut cx = Cx::new(self.now, &mut self.record);
        self.exchange.request(&mut self.head, &mut cx)
    }

    fn answered(&mut self) -> Step {
        let mut cx = Cx::new(self.now, &mut self.record);
        self.exchange
            .request_answer(Answer::Waited, &mut self.head, &mut cx)
    }

    fn response(&mut self, fields: &[(&str, &str)]) {
        let step = self.answer(200, fields);
        assert!(matches!(step, Step::Forward(_)));
    }

    fn answer(&mut self, status: u16, fields: &[(&str, &str)]) -> Step {
        let mut cx = Cx::new(self.now, &mut self.record);
        let mut head = ResponseHead {
            status,
            fields: Fields::of(fields),
            ..ResponseHead::default()
        };
        self.exchange.response(&mut head, &mut cx)
    }

    fn body(&mut self, text: &str) {
        let mut cx = Cx::new(self.now, &mut self.record);
        self.exchange
            .response_body(text.as_bytes(), true, &mut Vec::new(), &mut cx);
    }
}

fn alone(json: &str) -> Cache {
    load::<Cache>(json.as_bytes()).expect("valid")
}

fn gate(step: Step) -> Gate {
    match step {
        Step::Do(Effect::Wait {
            gate: Some(gate), ..
        }) => gate,
        other => panic!("it waits: {other:?}"),
    }
}

#[test]
fn concurrent_misses_share_one_request() {
    let cache = alone(r#"{"shared": false, "collapse": {"max_waiters": 2}}"#);
    let mut all: Vec<Driven> = (0..4).map(|_| Driven::new(&cache)).collect();
    let [one, two, three, four] = &mut all[..] else {
        panic!("four");
    };
    assert!(matches!(one.begin(), Step::Forward(Body::Pass)));
    let gate = gate(two.begin());
    self::gate(three.begin());
    assert!(
        matches!(four.begin(), Step::Forward(_)),
        "enough wait already"
    );
    one.response(FRESH);
    assert!(!gate.is_open(), "not before it is stored");
    one.body("shared");
    assert!(gate.is_open());
    for waiter in [two, three] {
        let Step::Reply(reply) = waiter.answered() else {
            panic!("it is there");
        };
        assert_eq!(reply.body, "shared");
        let status = reply.head.fields.text("cache-status");
        assert_eq!(status, Some("edgeweir; fwd=uri-miss; ttl=60; collapsed"));
    }
}

fn goes(step: &Step) -> bool {
    matches!(step, Step::Forward(_))
}

fn status_of(step: Step) -> (u16, String) {
    let Step::Reply(reply) = step else {
        panic!("a reply: {step:?}");
    };
    let said = reply.head.fields.text("cache-status").unwrap_or_default();
    (reply.head.status, said.to_owned())
}

#[test]
fn what_can_not_be_stored_is_not_waited_for_again() {
    for json in [ALONE, r#"{"shared": false, "uncacheable_seconds": 0}"#] {
        let cache = alone(json);
        let [mut one, mut two, mut three] = Driven::many(&cache, 0, &[]);
        assert!(goes(&one.begin()));
        let gate = gate(two.begin());
        self::gate(three.begin());
        one.response(&[("cache-control", "no-store")]);
        assert!(gate.is_open());
        assert!(goes(&two.answered()) && goes(&three.answered()), "{json}");
    }
    let cache = alone(ALONE);
    let [mut one, mut two, mut three] = Driven::many(&cache, 0, &[]);
    assert!(goes(&one.begin()));
    one.response(&[("cache-control", "no-store")]);
    assert!(goes(&two.begin()) && goes(&three.begin()), "remembered");
}

#[test]
fn one_of_those_who_waited_in_vain_leads_the_next() {
    const TAG: (&str, &str) = ("etag", "\"1\"");
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], fn(Driven));
    let ends: [Row<'_>; 3] = [
        ("its client left", &[], |one| drop(one)),
        (
            "its client has it",
            &[("if-none-match", "\"1\"")],
            |mut one| {
                assert!(goes(&one.answer(304, &[TAG])));
            },
        ),
        (
            "another variant",
            &[("accept-language", "de")],
            |mut one| {
                one.response(&[FRESH[0], ("vary", "accept-language")]);
                one.body("deutsch");
            },
        ),
    ];
    for (name, fields, end) in ends {
        let cache = alone(ALONE);
        let [mut one] = Driven::many(&cache, 0, fields);
        let [mut two, mut three, mut four] = Driven::many(&cache, 0, &[]);
        assert!(goes(&one.begin()), "{name}");
        for waiter in [&mut two, &mut three, &mut four] {
            gate(waiter.begin());
        }
        end(one);
        assert!(goes(&two.answered()), "{name}");
        let gate = gate(three.answered());
        self::gate(four.answered());
        two.response(FRESH);
        two.body("found");
        assert!(gate.is_open(), "{name}");
        for waiter in [&mut three, &mut four] {
            let (status, said) = status_of(waiter.answered());
            assert_eq!(status, 200, "{name}");
            assert!(said.ends_with("collapsed"), "{name}: {said}");
        }
    }
}

#[test]
fn nobody_waits_for_a_third_flight_or_longer_than_the_limit() {
    let cache = alone(ALONE);
    let [mut one, mut two, mut three, mut four] = Driven::many(&cache, 0, &[]);
    assert!(goes(&one.begin()));
    for waiter in [&mut two, &mut three, &mut four] {
        gate(waiter.begin());
    }
    drop(one);
    assert!(goes(&two.answered()));
    gate(three.answered());
    // Four seconds later: what is left of the five is waited.
    four.now = NOW.plus(Duration::from_secs(4));
    let Step::Do(Effect::Wait { limit, .. }) = four.answered() else {
        panic!("it waits");
    };
    assert_eq!(limit, Duration::from_secs(1));
    drop(two);
    assert!(goes(&three.answered()) && goes(&four.answered()));

    let [mut one, mut two] = Driven::many(&cache, 0, &[]);
    assert!(goes(&one.begin()));
    gate(two.begin());
    two.now = NOW.plus(Duration::from_secs(5));
    assert!(goes(&two.answered()), "its time is over");
}

#[test]
fn who_waited_for_an_error_gets_what_is_stale_where_that_is_allowed() {
    for (name, control, request, want) in [
        ("allowed", "max-age=10, stale-if-error=60", "", true),
        ("not allowed", "max-age=10", "", false),
        ("by its own word", "max-age=10", "stale-if-error=60", true),
    ] {
        let cache = alone(ALONE);
        let [mut first] = Driven::many(&cache, 0, &[]);
        assert!(goes(&first.begin()));
        first.response(&[("cache-control", control), ("etag", "\"1\"")]);
        first.body("old");
        let [mut one] = Driven::many(&cache, 15, &[]);
        let [mut two, mut three] = Driven::many(&cache, 15, &[("cache-control", request)]);
        assert!(goes(&one.begin()));
        gate(two.begin());
        gate(three.begin());
        // One without that word gets the error itself, where nothing else allows it.
        let _ = one.answer(503, &[]);
        drop(one);
        for waiter in [&mut two, &mut three] {
            let step = waiter.answered();
            if !want {
                assert!(goes(&step), "{name}");
                continue;
            }
            let (status, said) = status_of(step);
            assert_eq!(status, 200, "{name}");
            let expected = "edgeweir; fwd=stale; ttl=-5; collapsed; detail=stale_if_error";
            assert_eq!(said, expected, "{name}");
        }
    }
}
