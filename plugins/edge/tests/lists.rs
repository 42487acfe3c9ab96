//! A list of values in place of an object of options is refused by every filter, as its schema does.

use edgeweir_cache::Cache;
use edgeweir_compress::Compress;
use edgeweir_edge::Edge;
use edgeweir_filter::{Configured, load};
use edgeweir_minify::Minify;
use edgeweir_ratelimit::RateLimit;

fn refused<F: Configured>(config: &str, field: &str) {
    let error = load::<F>(config.as_bytes()).err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    let at = match field {
        "" => "configuration: ".to_owned(),
        field => format!("configuration field `{field}`: "),
    };
    let want = format!("{at}a list where an object of options belongs");
    assert!(error.starts_with(&want), "{} {config}: {error}", F::NAME);
}

#[test]
fn lists_in_place_of_objects_are_refused() {
    refused::<Cache>("[]", "");
    refused::<Compress>("[]", "");
    refused::<Minify>("[]", "");
    refused::<RateLimit>("[]", "");
    refused::<Edge>(r#"[["cache"]]"#, "");
    for (config, field) in [
        (r#"{"key":[]}"#, "key"),
        (r#"{"admin":["a-token-of-enough-characters"]}"#, "admin"),
        (r#"{"l3":["store"]}"#, "l3"),
        (r#"{"rules":[["/a"]]}"#, "rules[0]"),
        (r#"{"rules":[{"key":[["a"]]}]}"#, "rules[0].key"),
    ] {
        refused::<Cache>(config, field);
    }
    refused::<Compress>(r#"{"decode":[true]}"#, "decode");
    refused::<Compress>(r#"{"rules":[["/a"]]}"#, "rules[0]");
    refused::<Minify>(r#"{"fields":["fields"]}"#, "fields");
    refused::<Minify>(r#"{"redact":[["a"]]}"#, "redact[0]");
    refused::<RateLimit>(r#"{"rules":[[]]}"#, "rules[0]");
    refused::<Edge>(r#"{"filters":[{"cache":[]}]}"#, "filters[0].cache");
}
