//! Every example of the reference page is a configuration that loads.

use edgeweir_filter::load;
use edgeweir_ratelimit::RateLimit;

#[test]
fn every_example_loads() {
    let page = include_str!("../README.md");
    let examples: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        load::<RateLimit>(example.as_bytes()).map(drop).unwrap_or_else(|error| panic!("{example}\n{error}"));
    }
}
