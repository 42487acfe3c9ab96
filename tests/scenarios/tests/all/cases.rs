//! The cases of `tests/cases` and of the page about them, by `edgeweir test` as a user runs it.

use std::fs;
use std::process::{Command, Output, Stdio};

use cargo_edge::{tools, workspace};
use edgeweir_scenarios::hosts;

/// Runs it from the project's root; compiled modules are kept with the other things of the tests.
fn test(arguments: &[&str]) -> Output {
    hosts::modules().expect("the modules are built");
    Command::new(hosts::edgeweir::binary().expect("the host is built"))
        .current_dir(workspace::root())
        .arg("test")
        .args(arguments)
        .arg("--cache-dir")
        .arg(workspace::target_dir().join("scenarios/cases"))
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn cases_hold_on_this_host_with_both_abis() {
    let output = test(&["tests/cases"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn cases_hold_when_any_call_of_a_host_fails() {
    let output = test(&["tests/cases", "--torture", "--torture-most", "60"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn cases_hold_on_envoy() {
    let envoy = tools::envoy().expect("the real Envoy");
    let output = test(&[
        "tests/cases",
        "--on",
        "envoy",
        "--envoy",
        &envoy.display().to_string(),
    ]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for name in ["Envoy runs no components", "Envoy's clock cannot be moved"] {
        assert!(said.contains(name), "{name} is not said: {said}");
    }
}

/// With Envoy's `allow_on_headers_stop_iteration`, on this host and on a real Envoy.
#[test]
fn a_body_goes_ahead_of_a_head_that_waits() {
    let folder = workspace::target_dir().join("scenarios/ahead");
    fs::create_dir_all(&folder).expect("a folder");
    let module = wat::parse_str(include_str!("ahead/ahead.wat")).expect("a module");
    fs::write(folder.join("ahead.wasm"), module).expect("the module is written");
    let file = folder.join("ahead.test.toml");
    fs::write(&file, include_str!("ahead/ahead.test.toml")).expect("the cases are written");
    let file = file.display().to_string();
    let envoy = tools::envoy()
        .expect("the real Envoy")
        .display()
        .to_string();
    for more in [
        &[][..],
        &["--torture"][..],
        &["--on", "envoy", "--envoy", &envoy][..],
    ] {
        let output = test(&[&[file.as_str()], more].concat());
        assert!(output.status.success(), "{more:?}: {}", said(&output));
    }
}

/// The page's example fails as it says, and passes once it is put right as it says.
#[test]
fn the_page_shows_what_happens() {
    let page = fs::read_to_string(workspace::root().join("host/docs/test.md")).expect("the page");
    let block = |from: &str, kind: &str| {
        let rest = page.split_once(from).expect("the page has this part").1;
        let rest = rest.split_once(&format!("```{kind}\n")).expect("a block").1;
        rest.split_once("```").expect("its end").0.to_owned()
    };
    let case = block("## Two minutes", "toml");
    let transcript = block("It fails:", "text");
    // Beside the other things of the tests, so that nothing is left behind.
    let folder = workspace::target_dir().join("scenarios/cases-page");
    fs::create_dir_all(&folder).expect("a folder");
    let modules = workspace::edge_dir();
    let case = case.replace("target/edge", &modules.display().to_string());
    let file = folder.join("hello.test.toml");
    let run = |text: &str| {
        fs::write(&file, text).expect("the case is written");
        let output = test(&[&file.display().to_string()]);
        (output.status.code(), said(&output))
    };
    let (code, text) = run(&case);
    assert_eq!(code, Some(1), "{text}");
    let text = text.replace(&file.display().to_string(), "hello.test.toml");
    for line in transcript.lines().filter(|line| line.contains("want")) {
        assert!(text.contains(line.trim()), "{line} is not in {text}");
    }
    let (wrong, right) = ("content-encoding = \"br\"", "content-encoding = \"gzip\"");
    assert!(case.contains(wrong) && page.contains(right));
    let (code, text) = run(&case.replace(wrong, right));
    assert_eq!(code, Some(0), "{text}");
}
