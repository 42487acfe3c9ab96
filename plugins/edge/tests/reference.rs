//! Every example of the reference pages is a configuration that loads.

use edgeweir_cache::Cache;
use edgeweir_compress::Compress;
use edgeweir_edge::Edge;
use edgeweir_filter::{Configured, load};
use edgeweir_minify::Minify;
use edgeweir_ratelimit::RateLimit;

fn every_example_loads<F: Configured>(page: &str) {
    let examples: Vec<&str> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(
        !examples.is_empty(),
        "the page of {} has no example",
        F::NAME
    );
    for example in examples {
        if let Err(error) = load::<F>(example.as_bytes()) {
            panic!("{}: {example}\n{error}", F::NAME);
        }
    }
}

#[test]
fn the_examples_of_every_page_load() {
    every_example_loads::<Cache>(include_str!("../../cache/README.md"));
    every_example_loads::<Compress>(include_str!("../../compress/README.md"));
    every_example_loads::<Minify>(include_str!("../../minify/README.md"));
    every_example_loads::<RateLimit>(include_str!("../../ratelimit/README.md"));
    every_example_loads::<Edge>(include_str!("../README.md"));
}
