//! What the RFCs ask of a cache, a row for each sentence, on every host.
//!
//! A file holds rows of one concept; [`parse`] says how they are written. All rows of a file go in lockstep: step 1 of
//! each, a common wait where one asks for it, step 2 of each, and so on. Each row has a path and an origin of its own.

mod parse;
mod run;

use edgeweir_scenarios::{Setup, cache, on_each_host};
use serde_json::json;

macro_rules! requirements {
    ($($name:ident,)*) => {
        /// Every file, by its concept.
        const FILES: &[(&str, &str)] = &[$((stringify!($name), include_str!(concat!(stringify!($name), ".txt"))),)*];

        $(
            #[test]
            fn $name() {
                let rows = parse::rows(stringify!($name), include_str!(concat!(stringify!($name), ".txt")));
                let setup = Setup::of([cache(json!({}))]);
                on_each_host(concat!("requirements_", stringify!($name)), &setup, |edge| {
                    run::all(edge, &rows);
                });
            }
        )*
    };
}

requirements! {
    storing,
    freshness,
    age,
    vary,
    validation,
    invalidation,
    request_directives,
    stale,
    targeted,
    ranges,
    conditionals,
    head,
    status_codes,
    hop_by_hop,
    parsing,
    other,
}

#[test]
fn each_row_has_a_name_of_its_own_and_a_sentence() {
    let mut names = Vec::new();
    for (file, text) in FILES {
        for row in parse::rows(file, text) {
            assert!(
                row.sentence.starts_with("RFC "),
                "{}: no sentence",
                row.name
            );
            assert!(!names.contains(&row.name), "{} twice", row.name);
            names.push(row.name);
        }
    }
    assert!(names.len() >= 240, "{} rows", names.len());
}
