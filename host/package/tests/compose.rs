//! The project's own components, composed; `cargo edge build` writes them.

use std::fs;

use edgeweir_host_package::{Part, compose};

fn part(name: &str) -> Part {
    let file = format!("../../target/edge/{name}.wasm");
    Part {
        name: name.to_owned(),
        wasm: fs::read(&file)
            .unwrap_or_else(|error| panic!("{file}: {error}; `cargo edge build` writes it")),
    }
}

#[test]
fn what_is_composed_is_one_component_that_holds_all() {
    let layers = [
        part("ratelimit.spin"),
        part("cache.spin"),
        part("compress.wasi-http"),
    ];
    let gateway = part("gateway.wasi-http");
    let whole = compose(&layers, &gateway).expect("composes");
    let parts: usize = layers
        .iter()
        .chain([&gateway])
        .map(|it| it.wasm.len())
        .sum();
    assert!(
        (parts..parts + 200_000).contains(&whole.len()),
        "{} of {parts}",
        whole.len()
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let gateway = part("gateway.wasi-http");
    let error =
        compose(std::slice::from_ref(&gateway), &gateway).expect_err("a gateway wraps nothing");
    assert!(
        error
            .to_string()
            .starts_with("gateway.wasi-http: it does not import wasi:http/handler"),
        "{error}"
    );
    let module = part("cache.proxy-wasm");
    let error = compose(&[module], &gateway).expect_err("a module is no component");
    assert_eq!(error.part.as_deref(), Some("cache.proxy-wasm"));
    let same = part("cache.spin");
    compose(&[same.clone(), same], &gateway).expect("twice the same");
}
