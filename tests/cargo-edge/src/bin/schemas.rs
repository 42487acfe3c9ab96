//! Prints one JSON object: the name of each filter this was built with, and the JSON Schema of its configuration.

fn main() {
    #[allow(unused_mut, reason = "without a feature there is no filter to add")]
    let mut all = serde_json::Map::new();
    #[cfg(feature = "cache")]
    all.insert(
        "cache".into(),
        edgeweir_filter::schema::<edgeweir_cache::Cache>(),
    );
    #[cfg(feature = "compress-slim")]
    all.insert(
        "compress".into(),
        edgeweir_filter::schema::<edgeweir_compress::Compress>(),
    );
    #[cfg(feature = "minify")]
    all.insert(
        "minify".into(),
        edgeweir_filter::schema::<edgeweir_minify::Minify>(),
    );
    #[cfg(feature = "ratelimit")]
    all.insert(
        "ratelimit".into(),
        edgeweir_filter::schema::<edgeweir_ratelimit::RateLimit>(),
    );
    #[cfg(feature = "edge")]
    all.insert(
        "edge".into(),
        edgeweir_filter::schema::<edgeweir_edge::Edge>(),
    );
    println!("{}", serde_json::Value::Object(all));
}
