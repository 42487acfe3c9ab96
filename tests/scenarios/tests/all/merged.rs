//! Whatever was merged was merged to the end.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_edge::workspace;

/// Every file below a folder, but what is built and what version control keeps.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its kind");
        let name = entry.file_name();
        if kind.is_dir() && name != "target" && name != ".git" {
            files(&entry.path(), all);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
}

/// The first line that marks a side of a merge.
fn marked(bytes: &[u8]) -> Option<usize> {
    let marks = ["<", ">"].map(|sign| format!("{} ", sign.repeat(7)));
    let is_mark = |line: &[u8]| marks.iter().any(|mark| line.starts_with(mark.as_bytes()));
    bytes.split(|byte| *byte == b'\n').position(is_mark)
}

#[test]
fn no_file_has_both_sides_of_a_merge() {
    let mut all = Vec::new();
    files(&workspace::root(), &mut all);
    assert!(all.iter().any(|file| file.ends_with("host/docs/run.md")));
    for file in all {
        // One that is gone was somebody's for a moment.
        let Ok(bytes) = fs::read(&file) else { continue };
        let line = marked(&bytes).map(|line| line + 1);
        assert_eq!(line, None, "{}", file.display());
    }
}

#[test]
fn a_side_of_a_merge_is_a_line_that_begins_so() {
    let [ours, theirs] = ["<", ">"].map(|sign| sign.repeat(7));
    for (text, want) in [
        (format!("a\n{ours} HEAD\nb"), Some(1)),
        (format!("{theirs} other\n"), Some(0)),
        (format!("a {ours} b\n{ours}\n{theirs}>>> c"), None),
        (String::new(), None),
    ] {
        assert_eq!(marked(text.as_bytes()), want, "{text}");
    }
}
