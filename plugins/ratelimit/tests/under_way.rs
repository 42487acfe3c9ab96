//! Requests under way: counted from the request's head to the end of the exchange, whatever that is.

use std::time::Duration;

use edgeweir_filter::{
    Body, Cx, Exchange, Filter, Record, RequestHead, ResponseHead, Script, Step, Timestamp, load,
};
use edgeweir_ratelimit::RateLimit;

fn filter(config: &str) -> RateLimit {
    load::<RateLimit>(config.as_bytes()).expect(config)
}

fn head(client: &str) -> RequestHead {
    RequestHead {
        peer: Some(client.to_owned().into()),
        path: "/".into(),
        ..RequestHead::default()
    }
}

/// Begins an exchange: itself, and the status of a refusal.
fn begin(filter: &RateLimit, client: &str, now: Timestamp) -> (Box<dyn Exchange>, Option<u16>) {
    let mut exchange = filter.exchange();
    let mut record = Record::default();
    let step = exchange.request(&mut head(client), &mut Cx::new(now, &mut record));
    let refused = match step {
        Step::Forward(_) => None,
        Step::Reply(reply) => Some(reply.head.status),
        Step::Do(effect) => panic!("{effect:?}"),
    };
    (exchange, refused)
}

#[test]
fn a_client_has_so_many_under_way_and_no_more() {
    let filter = filter(r#"{"rules":[{"concurrency":2}]}"#);
    let now = Timestamp::from_secs(1);
    let (first, one) = begin(&filter, "192.0.2.1", now);
    let (mut second, two) = begin(&filter, "192.0.2.1", now);
    let (refused, three) = begin(&filter, "192.0.2.1", now);
    assert_eq!((one, two, three), (None, None, Some(429)));
    assert_eq!(begin(&filter, "192.0.2.2", now).1, None, "another client");
    assert_eq!(
        begin(&filter, "192.0.2.1", now).1,
        Some(429),
        "a refusal takes no place"
    );
    drop(refused);
    assert_eq!(
        begin(&filter, "192.0.2.1", now).1,
        Some(429),
        "nor gives one back"
    );
    // The client left, or the origin was cut off: the exchange is dropped.
    drop(first);
    let (third, status) = begin(&filter, "192.0.2.1", now);
    assert_eq!(status, None);
    // A whole response.
    let (mut record, mut response) = (
        Record::default(),
        ResponseHead {
            status: 200,
            ..Default::default()
        },
    );
    let step = second.response(&mut response, &mut Cx::new(now, &mut record));
    assert!(matches!(step, Step::Forward(Body::Observe)), "{step:?}");
    assert_eq!(
        begin(&filter, "192.0.2.1", now).1,
        Some(429),
        "its body is under way"
    );
    second.response_body(b"x", true, &mut Vec::new(), &mut Cx::new(now, &mut record));
    assert_eq!(begin(&filter, "192.0.2.1", now).1, None);
    drop((second, third));
}

#[test]
fn a_refusal_says_what_is_limited() {
    let filter = filter(r#"{"rules":[{"name":"api","concurrency":1}]}"#);
    let (_held, _) = begin(&filter, "192.0.2.1", Timestamp(0));
    let seen = Script::new(filter).run();
    assert_eq!((seen.status, seen.text("retry-after").as_str()), (429, "1"));
    assert_eq!(
        seen.text("ratelimit-policy"),
        r#""api-concurrency";q=1;qu="concurrent-requests""#
    );
    assert_eq!(seen.text("ratelimit"), r#""api-concurrency";r=0"#);
    for name in ["ratelimit", "ratelimit-policy"] {
        let value = seen.text(name);
        assert!(
            sfv::Parser::new(&value).parse::<sfv::List>().is_ok(),
            "{value}"
        );
    }
    assert_eq!(seen.counted("ratelimit.rule.api.limited"), 1);
}

#[test]
fn a_shadow_counts_and_lets_pass() {
    let filter = filter(r#"{"rules":[{"name":"dark","concurrency":1,"shadow":true}]}"#);
    let (_held, _) = begin(&filter, "192.0.2.1", Timestamp(0));
    let seen = Script::new(filter).run();
    assert_eq!(
        (seen.status, seen.counted("ratelimit.rule.dark.shadowed")),
        (200, 1)
    );
    assert_eq!(seen.counted("ratelimit.rule.dark.admitted"), 0);
}

#[test]
fn a_shadow_counts_what_goes_on_and_no_more() {
    let filter = filter(
        r#"{"rules":[{"name":"dark","key":[],"concurrency":1,"shadow":true},
            {"name":"no","clients":["192.0.2.9"],"action":"deny"}]}"#,
    );
    let now = Timestamp::from_secs(1);
    let (_refused, status) = begin(&filter, "192.0.2.9", now);
    assert_eq!(status, Some(403));
    let (mut held, status) = begin(&filter, "192.0.2.1", now);
    assert_eq!(status, None);
    let (mut record, mut response) = (Record::default(), ResponseHead::default());
    let step = held.response(&mut response, &mut Cx::new(now, &mut record));
    assert!(matches!(step, Step::Forward(Body::Observe)), "{step:?}");
    let mut script = Script::new(filter);
    script.request(&["GET", "/"], &[]);
    let counted = |script: &mut Script, what: &str| {
        let seen = script.run();
        seen.counted(&format!("ratelimit.rule.dark.{what}"))
    };
    assert_eq!(counted(&mut script, "shadowed"), 1, "its body is under way");
    held.response_body(b"x", true, &mut Vec::new(), &mut Cx::new(now, &mut record));
    assert_eq!(
        counted(&mut script, "admitted"),
        1,
        "the refused one never was"
    );
}

#[test]
fn a_slow_origin_gets_less_at_once() {
    let config = r#"{"rules":[{"name":"api","key":[],"adaptive":{"latency_ms":100,"floor":2,"ceiling":20}}]}"#;
    let filter = filter(config);
    let mut now = Timestamp::from_secs(1);
    // Rounds of as many as are admitted, all of them slow.
    let mut admitted = Vec::new();
    for _ in 0..40 {
        let round: Vec<_> = (0..30).map(|_| begin(&filter, "192.0.2.1", now)).collect();
        admitted.push(
            round
                .iter()
                .filter(|(_, refused)| refused.is_none())
                .count(),
        );
        assert!(
            round
                .iter()
                .all(|(_, refused)| refused.is_none_or(|status| status == 503))
        );
        now = now.plus(Duration::from_millis(300));
        for (mut exchange, refused) in round {
            if refused.is_none() {
                let (mut record, mut response) = (Record::default(), ResponseHead::default());
                exchange.response(&mut response, &mut Cx::new(now, &mut record));
            }
        }
    }
    assert_eq!((admitted[0], admitted[39]), (20, 2), "{admitted:?}");
    assert!(
        admitted.is_sorted_by(|before, after| before >= after),
        "{admitted:?}"
    );
    // Fast again: one more with each round.
    for _ in 0..200 {
        let round: Vec<_> = (0..30).map(|_| begin(&filter, "192.0.2.1", now)).collect();
        admitted.push(
            round
                .iter()
                .filter(|(_, refused)| refused.is_none())
                .count(),
        );
        now = now.plus(Duration::from_millis(10));
        for (mut exchange, refused) in round {
            if refused.is_none() {
                let (mut record, mut response) = (Record::default(), ResponseHead::default());
                exchange.response(&mut response, &mut Cx::new(now, &mut record));
            }
        }
    }
    assert_eq!(admitted.last(), Some(&20));
}

#[test]
fn an_emergency_leaves_fewer_places() {
    let filter = filter(r#"{"rules":[{"concurrency":4,"emergency":[75,50,1]}]}"#);
    let (_one, _) = begin(&filter, "192.0.2.1", Timestamp(0));
    let (_two, _) = begin(&filter, "192.0.2.1", Timestamp(0));
    let mut script = Script::new(filter);
    for (level, status) in [(0, 200), (1, 200), (2, 429), (3, 429)] {
        assert_eq!(script.emergency(level).run().status, status, "{level}");
    }
}
