//! The corpus of `tests/fuzz`, once more on every run of the tests.

use std::fs;
use std::path::Path;

use edgeweir_cache::fuzzing as cache;
use edgeweir_compress::fuzzing as compress;
use edgeweir_host_framing::fuzzing as framing;
use edgeweir_minify::fuzzing as minify;

fn targets() -> impl Iterator<Item = (&'static str, fn(&[u8]))> {
    let all = cache::TARGETS.into_iter().chain(compress::TARGETS);
    all.chain(minify::TARGETS).chain(framing::TARGETS)
}

#[test]
fn every_input_of_the_corpus_holds() {
    // Cargo runs a test in its package's folder; where it was compiled may be another clone that shares the target folder.
    let corpus = Path::new("../fuzz/corpus");
    for (name, run) in targets() {
        let folder = corpus.join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut inputs = 0;
        for file in files {
            let path = file.expect("a folder that can be read").path();
            let input = fs::read(&path).expect("a file that can be read");
            println!("{}", path.display());
            run(&input);
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_a_program() {
    let folder = Path::new("../fuzz/targets");
    let mut programs: Vec<String> = fs::read_dir(folder)
        .expect("the targets")
        .map(|file| file.expect("a file").path())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    programs.sort();
    let mut wanted: Vec<_> = targets().map(|(name, _)| format!("{name}.rs")).collect();
    wanted.sort();
    assert_eq!(programs, wanted);
}
