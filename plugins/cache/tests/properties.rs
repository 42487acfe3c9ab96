//! What holds for any input.

use std::time::Duration;

use edgeweir_cache::{Cache, fuzzing};
use edgeweir_filter::{Script, Seen, Timestamp, load};
use proptest::prelude::*;

fn edge() -> Script {
    Script::new(load::<Cache>(b"{}").expect("a valid configuration"))
}

fn is_hit(seen: &Seen) -> bool {
    seen.text("cache-status").contains("; hit")
}

type Shown = (u16, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

/// Everything of an answer but what tells its time.
fn shown(seen: &Seen) -> Shown {
    let fields = seen.fields.iter();
    let fields = fields.filter(|(name, _)| !matches!(&name[..], b"age" | b"cache-status"));
    let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec()));
    (seen.status, fields.collect(), seen.body())
}

/// Values without what no parser of a host would let through.
fn value() -> impl Strategy<Value = String> {
    "[ -~\u{80}-\u{ff}]{0,40}"
}

/// One of the directives that give no lifetime longer than `max-age`, rightly or wrongly written.
fn directive() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("public".to_owned()),
        Just("must-revalidate".to_owned()),
        Just("immutable".to_owned()),
        Just("no-cache=\"x-a\"".to_owned()),
        "max-age *=? *[0-9]{0,12}",
        "max-age=\"[0-9a-z.]{0,6}\"?",
        "[a-z-]{1,8}(=[a-z0-9\", ]{0,8})?",
    ]
}

/// A date, or nearly one.
fn date() -> impl Strategy<Value = String> {
    prop_oneof![
        "(Mon|Thu), [0-9]{2} (Jan|Aug) (1970|2025|2026|2050|9999) [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        "Thursday, [0-9]{2}-Jan-[0-9]{2}[ :][0-9]{2}:00:00 GMT",
        "Thu Jan [ 0-9][0-9] 00:[0-9]{2}:00 (2026|0001|9999)",
        "[ -~]{0,30}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_chunking_stores_the_same(
        body in prop::collection::vec(any::<u8>(), 0..2_000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        declared: bool,
    ) {
        let length = body.len().to_string();
        let mut fields = vec![("cache-control", "max-age=60"), ("etag", "\"a\"")];
        if declared {
            fields.push(("content-length", &length));
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|two| &body[two[0]..two[1]]).collect();
        let (mut whole, mut cut) = (edge(), edge());
        whole.answers(200, &fields, &[&body]).run();
        let passed = cut.answers(200, &fields, &chunks).run();
        prop_assert_eq!(passed.body(), body);
        let (one, other) = (whole.run(), cut.run());
        prop_assert!(is_hit(&one) && is_hit(&other));
        prop_assert_eq!(shown(&one), shown(&other));
    }

    #[test]
    fn what_one_worker_stored_the_other_reads_as_it_was(
        status in prop_oneof![Just(200u16), Just(203), Just(404), Just(500), Just(599)],
        values in prop::collection::vec(value(), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let names: Vec<String> = (0..values.len()).map(|at| format!("x-{}", at % 3)).collect();
        let mut fields = vec![("cache-control", "max-age=60")];
        fields.extend(names.iter().map(String::as_str).zip(values.iter().map(String::as_str)));
        let mut one = edge();
        let mut other = edge().sharing(&one.shared);
        one.answers(status, &fields, &[&body]).run();
        other.answers(500, &[], &[b"asked"]);
        let (here, there) = (one.run(), other.run());
        prop_assert!(is_hit(&here) && is_hit(&there));
        prop_assert_eq!(shown(&here), shown(&there));
        for (name, value) in fields {
            prop_assert!(there.fields.values(name).any(|known| known == value.as_bytes()));
        }
    }

    #[test]
    fn nothing_is_fresher_than_its_max_age(
        lifetime in 0..5_000u64,
        before in directive(),
        after in directive(),
        lines in prop::collection::vec((0..3usize, date()), 0..3),
        age in "[0-9]{0,12}",
        later in 0..10_000u64,
    ) {
        let control = format!("{before}, max-age={lifetime}");
        let mut fields = vec![("cache-control", control.as_str()), ("cache-control", &after)];
        for (kind, date) in &lines {
            fields.push((["date", "expires", "last-modified"][*kind], date));
        }
        if !age.is_empty() {
            fields.push(("age", &age));
        }
        let mut edge = edge();
        edge.answers(200, &fields, &[b"body"]).run();
        let seen = edge.pass(Duration::from_secs(later)).run();
        if is_hit(&seen) {
            let shown: u64 = seen.text("age").parse().expect("Age is a number");
            prop_assert!(later < lifetime && shown < lifetime, "{fields:?} after {later}");
            prop_assert!(shown >= later);
        }
    }

    #[test]
    fn ages_never_wrap(
        start: u64,
        delay: u64,
        later: u64,
        age in "[0-9]{1,24}",
        date in date(),
        lifetime in "[0-9]{1,24}",
    ) {
        let control = format!("max-age={lifetime}");
        let fields = [("cache-control", control.as_str()), ("age", &age), ("date", &date)];
        let mut edge = edge().at(Timestamp(start));
        edge.delay(Duration::from_nanos(delay));
        edge.answers(200, &fields, &[b"body"]).run();
        edge.delay(Duration::ZERO).pass(Duration::from_nanos(later));
        let seen = edge.run();
        if is_hit(&seen) {
            let shown: u64 = seen.text("age").parse().expect("Age is a number");
            prop_assert!(shown <= 1 << 31);
            let declared: u64 = age.parse().unwrap_or(u64::MAX);
            prop_assert!(shown >= declared.min(1 << 31));
        }
    }

    #[test]
    fn different_keys_are_never_equal(
        hosts in prop::collection::vec("[ab.:\\[\\]A4380]{1,8}", 2),
        paths in prop::collection::vec("/[a%2fF/;?.~_-]{0,10}", 2),
    ) {
        let text = format!("{}\n{}\n{}\n{}", hosts[0], paths[0], hosts[1], paths[1]);
        fuzzing::key(text.as_bytes());
        // One host, so that paths meet more often.
        let text = format!("a\n{}\na\n{}", paths[0], paths[1]);
        fuzzing::key(text.as_bytes());
    }

    #[test]
    fn any_bytes_of_a_store_are_read_or_refused(bytes: Vec<u8>, version in 0..4u8) {
        fuzzing::stored(&bytes);
        fuzzing::stored(&[&[version], &bytes[..]].concat());
    }
}
