//! The corpus of `tests/fuzz`, once more on every run of the tests.

use std::fs;
use std::path::Path;

use edgeweir_host_framing::fuzzing::TARGETS;

#[test]
fn every_input_of_the_corpus_holds() {
    // Cargo runs a test in its package's folder; where it was compiled may be another clone that shares the target folder.
    let folder = Path::new("../../tests/fuzz");
    for (name, run) in TARGETS {
        assert!(
            folder.join("targets").join(format!("{name}.rs")).is_file(),
            "{name} has no program"
        );
        let corpus = folder.join("corpus").join(name);
        let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{name}: {error}"));
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
