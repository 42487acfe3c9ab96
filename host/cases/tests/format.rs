//! Files of cases: what is read, and what is said of those that are wrong.
#![allow(missing_docs)]

use edgeweir_host_cases::content::Cuts;
use edgeweir_host_cases::model::{Answer, File};
use edgeweir_host_cases::parse::parse;
use edgeweir_host_cases::source::{Problem, Source};

fn read(text: &str) -> Result<File, Problem> {
    read_as("folder/a.test.toml", text)
}

fn read_as(file: &str, text: &str) -> Result<File, Problem> {
    parse(Source {
        file: file.into(),
        text: text.into(),
    })
}

#[test]
fn a_file_says_what_to_do() {
    let file = read(
        r#"
module = ["a.wasm", "../b.wasm"]
config = { level = 3, names = ["x"] }

[defaults]
fields = { accept = "text/html", x-kept = "yes" }
upstream = { status = 404, body = "none", fields = { a = "1", b = "2" } }

[[case]]
name = "one"
at = 2030-01-01T00:00:00Z
workers = 2
shared = { key = "value" }
clusters = { store = [{ status = 503 }, { fails = "silent" }] }

[[case.step]]
advance = "1.5s"
times = 3
request = { path = "/x?y", fields = { accept = "*/*" }, body = "abc", chunks = [1] }
upstream = { fields = { b = ["3", "4"] } }
expect = { status = 404, body = { json = [1], decoded = true } }

[[case.step]]
request = "DELETE /y"
upstream = "text"

[[case.step]]
request = { path = "/z", fields = { accept = [] } }
upstream = { fields = { a = [] }, body = "" }
"#,
    )
    .unwrap();
    let names: Vec<_> = file.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["one [a]", "one [b]"]);
    let case = &file.cases[1];
    assert_eq!(
        case.filters[0].module,
        std::path::Path::new("folder/../b.wasm")
    );
    assert_eq!(case.filters[0].name, "b");
    assert_eq!(case.filters[0].config, r#"{"level":3,"names":["x"]}"#);
    assert_eq!(
        (case.at, case.timed, case.workers),
        (1_893_456_000, true, 2)
    );
    assert_eq!(case.shared, [("key".to_owned(), b"value".to_vec())]);
    assert!(matches!(case.clusters["store"][1], Answer::Silent));
    let step = &case.steps[0];
    assert_eq!((step.advance.as_millis(), step.times), (1_500, 3));
    assert_eq!(
        (step.request.method.as_str(), step.request.path.as_str()),
        ("GET", "/x?y")
    );
    let fields: Vec<_> = step
        .request
        .fields
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    assert_eq!(fields, ["host: example.com", "x-kept: yes", "accept: */*"]);
    assert_eq!(step.request.body.cuts, Cuts::Lengths(vec![1]));
    let Answer::Response(response) = &step.upstream else {
        panic!("a response");
    };
    assert_eq!(
        (response.status, &response.body.bytes[..]),
        (404, &b"none"[..])
    );
    let fields: Vec<_> = response
        .fields
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    assert_eq!(fields, ["a: 1", "b: 3", "b: 4"]);
    // What a default has and nothing is in its place.
    let last = case.steps.last().unwrap();
    assert!(last.request.fields.iter().all(|(name, _)| name != "accept"));
    let Answer::Response(response) = &last.upstream else {
        panic!("a response");
    };
    assert_eq!(response.fields, [("b".to_owned(), "2".to_owned())]);
    assert_eq!(response.body.bytes, b"");
    assert_eq!(case.steps[1].request.method, "DELETE");
}

/// What a step names is in place of what the default says of the same; the rest stays.
#[test]
fn a_step_goes_over_the_default() {
    let answer = |default: &str, step: &str| {
        let text = format!(
            "module = \"a.wasm\"\ndefaults.upstream = {default}\n[[case]]\nname = \"x\"\n[[case.step]]\nrequest = \"GET /\"\n{step}\n"
        );
        read(&text)
            .unwrap()
            .cases
            .remove(0)
            .steps
            .remove(0)
            .upstream
    };
    let pieces = "{ status = 404, body = \"abc\", chunks = [1] }";
    for (name, default, step, want) in [
        (
            "pieces of it",
            "\"abc\"",
            "upstream = { chunks = [1] }",
            "200 a|bc, chunked",
        ),
        (
            "another plan",
            pieces,
            "upstream = { every = 2 }",
            "404 ab|c, chunked",
        ),
        (
            "another body",
            pieces,
            "upstream = { body = \"xyz\" }",
            "404 x|yz, chunked",
        ),
        ("a text", pieces, "upstream = \"xyz\"", "404 x|yz, chunked"),
        (
            "no body",
            pieces,
            "upstream = { body = \"\" }",
            "404 , chunked",
        ),
        (
            "a length",
            pieces,
            "upstream = { chunked = false }",
            "404 a|bc",
        ),
        ("a cut", "\"abc\"", "upstream = { cut_after = 2 }", "200 ab"),
        (
            "chunked stays",
            "{ body = \"abc\", chunked = true }",
            "upstream = { status = 500 }",
            "500 abc, chunked",
        ),
        (
            "trailers",
            "\"abc\"",
            "upstream = { trailers = { a = \"1\" } }",
            "200 abc, chunked",
        ),
        (
            "over a failure",
            "{ fails = \"closed\" }",
            "upstream = { status = 201 }",
            "201 ",
        ),
    ] {
        let Answer::Response(got) = answer(default, step) else {
            panic!("{name}: a response");
        };
        let parts = got.body.pieces(1).into_iter();
        let parts: Vec<_> = parts.map(|it| String::from_utf8(it).unwrap()).collect();
        let chunked = if got.body.chunked { ", chunked" } else { "" };
        let got = format!("{} {}{chunked}", got.status, parts.join("|"));
        assert_eq!(got, want, "{name}");
    }
    for step in ["", "upstream = {}"] {
        let got = answer("{ fails = \"refused\" }", step);
        assert!(matches!(got, Answer::Refused), "{step}: {got:?}");
    }
}

#[test]
fn what_is_wrong_is_said_with_line_field_and_the_nearest_name() {
    let step = |rest: &str| {
        format!(
            "module = \"a.wasm\"\n[[case]]\nname = \"x\"\n[[case.step]]\nrequest = \"GET /\"\n{rest}\n"
        )
    };
    for (name, text, line, said) in [
        ("no TOML", "module = ".to_owned(), 1, "a.test.toml:1: "),
        (
            "nothing",
            String::new(),
            1,
            "`module` (a .wasm file or a list of them) or [[filter]] is missing",
        ),
        (
            "no case",
            "module = \"a\"".to_owned(),
            1,
            "there is no [[case]]",
        ),
        (
            "a key at the top",
            "modul = \"a\"\nmodule = \"a\"\n[[case]]".to_owned(),
            1,
            "did you mean `module`?",
        ),
        (
            "no name",
            "module = \"a\"\n[[case]]\nsteps = 1".to_owned(),
            2,
            "`name` is missing",
        ),
        (
            "a key of a step",
            step("repeat = 3"),
            6,
            "in `case[0].step[0].repeat`: there is no `repeat` here",
        ),
        (
            "near",
            step("advanse = \"1s\""),
            6,
            "did you mean `advance`?",
        ),
        (
            "a status",
            step("expect = { status = 42 }"),
            6,
            "it is the number 42, want a whole number from 100 to 999",
        ),
        (
            "a duration",
            step("advance = \"1\""),
            6,
            "\"1\" is no duration",
        ),
        (
            "an expression",
            step("expect = { log = \"(\" }"),
            6,
            "no regular expression",
        ),
        (
            "a level",
            step("expect = { log = { level = \"loud\", matches = \"\" } }"),
            6,
            "trace, debug, info",
        ),
        (
            "two plans",
            step("upstream = { body = \"ab\", chunks = [1], every = 1 }"),
            6,
            "one of them",
        ),
        (
            "a file",
            step("upstream = { body = { file = \"none.json\" } }"),
            6,
            "folder/none.json cannot be read",
        ),
        (
            "base64",
            step("upstream = { body = { base64 = \"***\" } }"),
            6,
            "it is no base64",
        ),
        (
            "a cut beyond the body",
            step("upstream = { body = \"ab\", cut_after = 2 }"),
            6,
            "a whole number from 0 to 1",
        ),
        (
            "a field's name",
            step("upstream = { fields = { \"a b\" = \"c\" } }"),
            6,
            "no name of a field",
        ),
        (
            "a field's value",
            step("upstream = { fields = { a = \"b\\nc\" } }"),
            6,
            "control character",
        ),
        (
            "a failure",
            step("upstream = { fails = \"badly\" }"),
            6,
            "none of refused, closed, silent",
        ),
        (
            "a path",
            step("").replace("GET /", "GET /<b>?x"),
            5,
            "\"/<b>?x\" is no path that can be asked for",
        ),
        (
            "a fragment",
            step("").replace("GET /", "GET /a#b"),
            5,
            "\"/a#b\" is no path",
        ),
        (
            "a path of its own",
            step("").replace("GET /", "GET a/b"),
            5,
            "\"a/b\" is no path",
        ),
        (
            "a method",
            step("").replace("GET /", "G(T /"),
            5,
            "\"G(T\" is no method",
        ),
        (
            "a cut that is the default's",
            format!(
                "defaults.upstream = {{ body = \"abc\", cut_after = 2 }}\n{}",
                step("upstream = \"ab\"")
            ),
            7,
            "the body has 2 bytes and cannot be cut off after 2",
        ),
        (
            "a hash",
            step("expect = { body = { sha256 = \"12\" } }"),
            6,
            "64 hexadecimal digits",
        ),
        (
            "the same name",
            format!(
                "{}[[case]]\nname = \"x\"\n[[case.step]]\nrequest = \"GET /\"",
                step("")
            ),
            7,
            "there is a case \"x\" already, in line 2",
        ),
    ] {
        let error = read(&text).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(said), "{name}: {text}");
        assert_eq!(error.line, line, "{name}: {text}");
        assert!(text.starts_with("folder/a.test.toml:"), "{name}: {text}");
    }
}

#[test]
fn yaml_says_the_same() {
    let toml = r#"
module = ["a.wasm", "../b.wasm"]
config = { level = 3, share = 0.5, names = ["x"], on = true }
defaults.upstream = { status = 404, fields = { a = "1" } }
[[case]]
name = "one"
at = 2030-01-01T00:00:00Z
budget = { fuel = 10 }
[[case.step]]
advance = "1.5s"
request = { path = "/x?y", body = "a\nb\n", chunks = [1] }
expect = { status = 404, fields = { age = true }, body = { json = [1], decoded = true } }
"#;
    let yaml = r#"
# The same.
module: [a.wasm, ../b.wasm]
config: { level: 3, share: 0.5, names: [x], on: true }
defaults:
  upstream: { status: 404, fields: { a: "1" } }
case:
  - name: one
    at: 2030-01-01T00:00:00Z
    budget: { fuel: 10 }
    step:
      - advance: 1.5s
        request:
          path: /x?y
          body: |
            a
            b
          chunks: [1]
        expect: { status: 404, fields: { age: true }, body: { json: [1], decoded: true } }
"#;
    let toml = read(toml).unwrap();
    for file in ["folder/a.test.yaml", "folder/a.test.yml"] {
        let yaml = read_as(file, yaml).unwrap();
        assert_eq!(yaml.cases.len(), 2);
        for (yaml, toml) in yaml.cases.iter().zip(&toml.cases) {
            // Lines are each file's own.
            let without_lines = |text: String| {
                let expression = regex(r#"line: \d+|"[a-z.]+": \d+"#);
                expression.replace_all(&text, "").into_owned()
            };
            assert_eq!(
                without_lines(format!("{yaml:?}")),
                without_lines(format!("{toml:?}"))
            );
        }
        assert_eq!((yaml.cases[0].line, yaml.cases[0].filters[0].line), (8, 3));
    }
}

fn regex(text: &str) -> regex::Regex {
    regex::Regex::new(text).unwrap()
}

#[test]
fn what_is_wrong_in_yaml_is_said_with_its_line() {
    let case = "module: a.wasm\ncase:\n  - name: x\n    step:\n      - request: GET /\n";
    for (name, text, line, said) in [
        ("no YAML", "module: [a\n".to_owned(), 2, "a.test.yaml:2: "),
        (
            "a list",
            "- module\n".to_owned(),
            1,
            "want names with values",
        ),
        (
            "near",
            format!("{case}        advanse: 1s\n"),
            6,
            "in `case[0].step[0].advanse`: there is no `advanse` here; did you mean `advance`?",
        ),
        (
            "a status",
            format!("{case}        expect:\n          status: 42\n"),
            7,
            "it is the number 42, want a whole number from 100 to 999",
        ),
        (
            "a number for a text",
            format!("{case}        expect: {{ fields: {{ a: 1 }} }}\n"),
            6,
            "want a text, true (it is there)",
        ),
        (
            "nothing",
            format!("{case}        advance:\n"),
            6,
            "there is no value",
        ),
        (
            "twice",
            format!("{case}        times: 1\n        times: 2\n"),
            7,
            "`times` is there twice",
        ),
    ] {
        let error = read_as("folder/a.test.yaml", &text).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(said), "{name}: {text}");
        assert_eq!(error.line, line, "{name}: {text}");
    }
}
