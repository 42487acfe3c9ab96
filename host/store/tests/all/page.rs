//! The reference page: its example runs as written, and it names every option with its default.

use std::process::Command;

use crate::process::Store;

const PAGE: &str = include_str!("../../README.md");

#[test]
fn the_example_runs_as_written() {
    let store = Store::start(&["--memory"]);
    let blocks: Vec<&str> = PAGE
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("$ curl"))
        .collect();
    assert!(!blocks.is_empty(), "the page has examples");
    for block in blocks {
        let (mut want, mut said) = (String::new(), String::new());
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    assert_eq!(said.trim_end(), want.trim_end(), "before {command}");
                    let command = command.replace("127.0.0.1:7440", &store.address.to_string());
                    let out = Command::new("sh")
                        .args(["-c", &command])
                        .output()
                        .expect("sh");
                    said = String::from_utf8_lossy(&out.stdout).into_owned();
                    want.clear();
                }
                None => {
                    want.push_str(line);
                    want.push('\n');
                }
            }
        }
        assert_eq!(said.trim_end(), want.trim_end());
    }
}

#[test]
fn every_option_is_on_the_page_with_its_default() {
    let help = Command::new(env!("CARGO_BIN_EXE_edgeweir-store"))
        .arg("--help")
        .output()
        .expect("ran");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("Try it:"), "it teaches: {help}");
    let mut options = 0;
    let mut option = "";
    for line in help.lines().map(str::trim) {
        if line.starts_with("--") {
            option = line.split([' ', '=']).next().unwrap_or("");
            options += 1;
            assert!(
                PAGE.contains(&format!("| `{option}` |")),
                "{option} is not on the page"
            );
        }
        if let Some(default) = line
            .strip_prefix("[default: ")
            .and_then(|it| it.strip_suffix(']'))
        {
            let row = PAGE
                .lines()
                .find(|row| row.starts_with(&format!("| `{option}` |")));
            let row = row.unwrap_or("");
            assert!(
                row.contains(&format!("| `{default}` |")),
                "{option} is {default}, the page says {row}"
            );
        }
    }
    assert!(options >= 15, "{options} options in {help}");
}
