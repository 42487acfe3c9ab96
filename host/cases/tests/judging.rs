//! Whether what was seen is what was expected, and how that is said.
#![allow(missing_docs)]

use std::time::Duration;

use edgeweir_host_cases::judge::{Reach, Verdict, judge};
use edgeweir_host_cases::model::Case;
use edgeweir_host_cases::parse::parse;
use edgeweir_host_cases::report::{End, Outcome, Run};
use edgeweir_host_cases::seen::{Exchange, Message, Request, Response, Seen};
use edgeweir_host_cases::source::Source;

fn case(expect: &str) -> Case {
    let text = format!(
        "module = \"a.wasm\"\n[[case]]\nname = \"x\"\n[[case.step]]\nrequest = \"GET /\"\nexpect = {{ {expect} }}\n"
    );
    let file = parse(Source {
        file: "a.test.toml".into(),
        text,
    });
    file.unwrap().cases.remove(0)
}

fn seen() -> Exchange {
    let lines = |lines: &[(&str, &str)]| {
        lines
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    };
    Exchange {
        response: Some(Response {
            status: 200,
            message: Message {
                fields: lines(&[("age", "5"), ("vary", "a"), ("vary", "b")]),
                body: b"{\"a\": [1, 2]}".to_vec(),
                trailers: lines(&[("checked", "yes")]),
            },
            cut: None,
        }),
        upstream: vec![Request {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            ..Request::default()
        }],
        log: vec![(Some(3), "careful: 7 left".to_owned())],
        callbacks: vec!["proxy_on_request_headers".to_owned()],
        metrics: [("hits".to_owned(), 7)].into(),
        shared: [("key".to_owned(), Some(b"value".to_vec()))].into(),
        ..Exchange::default()
    }
}

fn judged(expect: &str, exchange: Exchange, reach: Reach) -> Verdict {
    let seen = Seen {
        exchanges: vec![(0, 0, exchange)],
        ..Seen::default()
    };
    judge(&case(expect), &seen, reach)
}

#[test]
fn what_holds_holds() {
    for expect in [
        "status = 200",
        "fields = { age = \"5\", vary = \"a, b\" }",
        "fields = { vary = [\"a\", \"b\"], x-none = false, age = true }",
        "fields = { age = { matches = \"^[0-9]$\", one_of = [\"5\", \"6\"], lacks = \"7\" } }",
        "trailers = { checked = \"yes\" }",
        "body = '{\"a\": [1, 2]}'",
        "body = { json = { a = [1, 2] }, length = 13, contains = [\"a\", \"2\"] }",
        "body = { length = { at_least = 3, at_most = 20 } }",
        "upstream = 1",
        "upstream = { count = 1, method = \"GET\", path = \"/\" }",
        "local = false",
        "log = { level = \"warn\", matches = \"[0-9] left\" }",
        "no_log = { level = \"error\", matches = \"\" }",
        "metrics = { hits = 7 }",
        "metrics = { hits = { at_least = 3 }, none = 0 }",
        "shared = { key = \"value\" }",
        "callbacks = [\"proxy_on_request_headers\"]",
        "traps = 0",
        "complete = true",
    ] {
        let verdict = judged(expect, seen(), Reach::MODULES);
        assert_eq!(verdict.failures, [], "{expect}");
        assert_eq!(verdict.unchecked, [""; 0], "{expect}");
    }
}

#[test]
fn what_does_not_hold_is_said() {
    for (expect, what, got) in [
        ("status = 304", "status", "200"),
        ("fields = { age = \"6\" }", "field `age`", "\"5\""),
        ("fields = { age = false }", "field `age`", "\"5\""),
        ("fields = { x = \"6\" }", "field `x`", "it is not there"),
        (
            "fields = { vary = [\"a\"] }",
            "field `vary`",
            "[\"a\", \"b\"]",
        ),
        (
            "fields = { age = { matches = \"x\" } }",
            "field `age`",
            "\"5\"",
        ),
        ("body = { length = 12 }", "length of the body", "13"),
        ("upstream = 0", "upstream", "1 request"),
        ("local = true", "the answer", "answered by the origin"),
        ("log = \"quiet\"", "log", "warn: careful: 7 left"),
        ("no_log = \"careful\"", "log", "warn: careful: 7 left"),
        ("metrics = { hits = 8 }", "metric `hits`", "7"),
        (
            "shared = { key = \"other\" }",
            "shared data `key`",
            "\"value\"",
        ),
        ("traps = 1", "traps", "0"),
        ("complete = false", "the response", "a whole response"),
    ] {
        let verdict = judged(expect, seen(), Reach::MODULES);
        let [failure] = &verdict.failures[..] else {
            panic!("{expect}: {:?}", verdict.failures);
        };
        assert_eq!(
            (failure.what.as_str(), failure.got.as_str()),
            (what, got),
            "{expect}"
        );
        assert_eq!((failure.line, failure.step), (6, (1, 1)), "{expect}");
    }
}

#[test]
fn a_response_that_is_cut_is_never_good_by_itself() {
    let mut cut = seen();
    if let Some(response) = &mut cut.response {
        response.cut = Some("reset".to_owned());
    }
    let verdict = judged("status = 200", cut.clone(), Reach::MODULES);
    assert_eq!(verdict.failures[0].got, "cut off: reset");
    assert_eq!(judged("complete = false", cut, Reach::MODULES).failures, []);
    let hung = Exchange {
        hung: true,
        ..Exchange::default()
    };
    assert_eq!(judged("", hung, Reach::MODULES).failures[0].got, "it hangs");
    let mut trapped = seen();
    trapped.traps = 1;
    trapped.trap = "unreachable\nand more".to_owned();
    assert_eq!(
        judged("", trapped, Reach::MODULES).failures[0].got,
        "1: unreachable"
    );
}

#[test]
fn what_a_host_cannot_be_asked_is_named() {
    let expect = "shared = { key = \"x\" }, callbacks = [], traps = 1, metrics = { hits = 7 }";
    let verdict = judged(expect, seen(), Reach::ENVOY);
    assert_eq!(verdict.failures, []);
    assert_eq!(verdict.unchecked, ["shared data", "callbacks", "traps"]);
    let verdict = judged(expect, seen(), Reach::COMPONENTS);
    assert_eq!(verdict.unchecked, ["metrics", "callbacks"]);
}

#[test]
fn a_run_is_reported_in_three_ways() {
    let outcome = |name: &str, end: End| Outcome {
        file: "a.test.toml".into(),
        name: name.to_owned(),
        line: 2,
        end,
        took: Duration::from_millis(5),
    };
    let judged_as = |verdict: Verdict| End::Judged {
        verdict,
        cost: Default::default(),
        splits: 1,
        split: None,
        torture: None,
    };
    let bad = judged("body = \"one\\ntwo\\n\"", seen(), Reach::MODULES);
    let mut run = Run {
        on: "host".to_owned(),
        outcomes: vec![
            outcome("good", judged_as(Verdict::default())),
            outcome("skipped", End::Skipped("why".to_owned())),
        ],
        ..Run::default()
    };
    assert_eq!(run.exit_code(), 0);
    let mut none = run.clone();
    none.outcomes
        .retain(|outcome| matches!(outcome.end, End::Skipped(_)));
    assert_eq!(none.exit_code(), 1);
    let said = none.terminal(false);
    assert!(
        said.contains("nothing was run: every case was skipped"),
        "{said}"
    );
    run.outcomes.push(outcome("bad", judged_as(bad)));
    assert_eq!(run.exit_code(), 1);
    run.outcomes
        .push(outcome("<broken>", End::Broken("no such file".to_owned())));
    assert_eq!(run.exit_code(), 2);
    let text = run.terminal(false);
    for line in [
        "  passed  good (5 ms)\n",
        "  skipped skipped: why\n",
        "      a.test.toml:6: step 1: body: want (-) and got (+) differ\n        - one\n        - two\n        + {\"a\": [1, 2]}\n",
        "      a.test.toml:2: no such file\n",
        "\n1 passed, 1 failed, 1 broken, 1 skipped on host in 0.0 s\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(run.terminal(true).contains("\x1b[31m"));
    let json = run.json();
    assert_eq!((&json["passed"], &json["failed"]), (&1.into(), &1.into()));
    assert_eq!(json["cases"][2]["failures"][0]["what"], "body");
    run.problems
        .push("b.test.toml:4: in `requst`: there is no `requst`\n  4 | requst".to_owned());
    let junit = run.junit().unwrap();
    for part in [
        "tests=\"5\"",
        "failures=\"1\"",
        "errors=\"2\"",
        "<testsuite name=\"broken\" tests=\"1\"",
        "b.test.toml:4: in `requst`: there is no `requst`\"",
        "&lt;broken&gt;",
        "<skipped",
    ] {
        assert!(junit.contains(part), "{part} is not in {junit}");
    }
}

/// A step that fails in one way many times is said once, and each way it fails is.
#[test]
fn every_expectation_that_fails_is_said() {
    let expect =
        "log = [\"first\", \"second\"], body = { contains = [\"AAA\", \"BBB\"], lacks = \"a\" }";
    let seen = Seen {
        exchanges: vec![(0, 0, seen()), (0, 1, seen())],
        ..Seen::default()
    };
    let outcome = Outcome {
        file: "a.test.toml".into(),
        name: "x".to_owned(),
        line: 2,
        end: End::Judged {
            verdict: judge(&case(expect), &seen, Reach::MODULES),
            cost: Default::default(),
            splits: 1,
            split: None,
            torture: None,
        },
        took: Duration::ZERO,
    };
    let run = Run {
        outcomes: vec![outcome],
        ..Run::default()
    };
    let text = run.terminal(false);
    for part in ["/first/", "/second/", "\"AAA\"", "\"BBB\"", "lacks \"a\""] {
        assert_eq!(text.matches(part).count(), 1, "{part} in {text}");
    }
    assert_eq!(text.matches("time 1 and 1 more").count(), 5, "{text}");
}
