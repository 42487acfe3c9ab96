//! A wrong configuration is refused at load, by a message that names the field.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use cargo_edge::artifact::Flavour;
use cargo_edge::{build, process};
use edgeweir_scenarios::hosts::{self, Host, edgeweir, envoy, pure::Pure};
use edgeweir_scenarios::{
    Filter, Setup, cache, client, compress, edge, get, minify, origin, ratelimit,
};
use serde_json::json;

/// A wrong configuration of each filter, and what the message must name.
fn wrong() -> Vec<(Filter, &'static str)> {
    vec![
        (cache(json!({ "max_object_bites": 1 })), "max_object_bites"),
        (compress(json!({ "gzip_level": 99 })), "gzip_level"),
        (compress(json!({ "gzip_lvel": 1 })), "gzip_lvel"),
        (minify(json!({ "max_depht": 1 })), "max_depht"),
        (minify(json!({ "include": ["a//b"] })), "include[0]"),
        (
            ratelimit(json!({ "rules": [{ "limits": [{ "rate": "fast" }] }] })),
            "rules[0].limits[0].rate",
        ),
        (ratelimit(json!({ "status": 200 })), "status"),
        (edge(json!({ "filters": ["cachet"] })), "filters[0]"),
    ]
}

#[test]
fn the_contract_names_the_field() {
    for (filter, field) in wrong() {
        let error = Pure::new(&Setup::of([filter.clone()])).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(field), "{filter:?}: {error}");
    }
}

#[test]
fn envoy_refuses_to_start_and_names_the_field() {
    let modules = hosts::modules().expect("the modules are built");
    let origin = origin::server().http1;
    for (filter, field) in wrong() {
        let folder = hosts::folder(Host::Envoy).expect("a folder");
        let config = envoy::bootstrap(&Setup::of([filter.clone()]), &modules, origin);
        let (mut process, log) =
            envoy::spawn(&folder, "envoy.json", &config.to_string(), 1).expect("Envoy starts");
        let ended = process
            .wait(Duration::from_secs(60))
            .expect("its state is known");
        let log = hosts::tail(&log);
        assert!(
            ended.is_some_and(|status| !status.success()),
            "{filter:?}: it runs; {log}"
        );
        assert!(log.contains(field), "{filter:?}: {field} is not in {log}");
    }
}

#[test]
fn the_host_refuses_to_start_and_names_the_field() {
    let modules = hosts::modules().expect("the modules are built");
    for (filter, field) in wrong() {
        let folder = hosts::folder(Host::ProxyWasm).expect("a folder");
        let port = hosts::free_port().expect("a port");
        let setup = Setup::of([filter.clone()]);
        let config =
            edgeweir::config(Host::ProxyWasm, &setup, port, &modules).expect("a configuration");
        let file = folder.join("edgeweir.toml");
        fs::write(&file, config).expect("writes");
        let (out, log) = (folder.join("out.log"), folder.join("err.log"));
        let mut command = Command::new(edgeweir::binary().expect("the host is built"));
        command.arg("run").arg(&file).stdin(Stdio::null());
        command.stdout(fs::File::create(&out).expect("a log"));
        command.stderr(fs::File::create(&log).expect("a log"));
        let mut process = process::spawn(command).expect("it starts");
        let ended = process
            .wait(Duration::from_secs(60))
            .expect("its state is known");
        let log = format!("{}\n{}", hosts::tail(&out), hosts::tail(&log));
        assert!(
            ended.is_some_and(|status| !status.success()),
            "{filter:?}: it runs; {log}"
        );
        assert!(log.contains(field), "{filter:?}: {field} is not in {log}");
    }
}

/// The module without brotli codes with the others, and says at load that it does not know `br`.
#[test]
fn the_slim_module_names_the_coding_it_lacks() {
    hosts::modules().expect("the modules are built");
    let built = build::build(&["compress".to_owned()], Flavour::Slim, true);
    let built = built.expect("it is built and within its bound");
    let modules = hosts::folder(Host::Envoy).expect("a folder");
    for file in &built {
        let usual = file.artifact.file_name().replace("slim.", "");
        fs::copy(file.artifact.path(), modules.join(usual)).expect("copies");
    }
    let origin = origin::server().http1;
    for (config, complaint) in [
        (json!({ "codings": ["gzip", "br"] }), "codings[1]"),
        (json!({ "brotli_level": 4 }), "brotli_level"),
        (json!({ "codings": ["zstd", "gzip"] }), ""),
    ] {
        let folder = hosts::folder(Host::Envoy).expect("a folder");
        let setup = Setup::of([compress(config)]);
        let bootstrap = envoy::bootstrap(&setup, &modules, origin);
        let (mut process, log) =
            envoy::spawn(&folder, "envoy.json", &bootstrap.to_string(), 1).expect("Envoy starts");
        let most = Duration::from_secs(if complaint.is_empty() { 5 } else { 60 });
        let ended = process.wait(most).expect("its state is known");
        let log = hosts::tail(&log);
        assert_eq!(ended.is_none(), complaint.is_empty(), "{log}");
        assert!(log.contains(complaint), "{complaint} is not in {log}");
    }
}

/// A component has no load phase of its own: it is refused by the host, or answers every request with what is wrong.
#[test]
fn a_component_says_which_field_is_wrong() {
    for (filter, field) in wrong() {
        let running = match hosts::running(Host::WasiHttp, &Setup::of([filter.clone()])) {
            Ok(running) => running.expect("the host runs everywhere"),
            Err(refused) => {
                let refused = format!("{refused:#}");
                assert!(refused.contains(field), "{filter:?}: {refused}");
                continue;
            }
        };
        let seen = client::exchange(running.address, &get("/"), "/").expect("a response");
        assert_eq!(seen.status, 500, "{filter:?}");
        assert!(
            seen.body_text().contains(field),
            "{filter:?}: {}",
            seen.body_text()
        );
        let log = fs::read_to_string(&running.log).unwrap_or_default();
        assert!(log.contains(field), "{filter:?}: {field} is not in the log");
    }
}
