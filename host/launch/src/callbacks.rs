//! The calls of a host into its modules, as this host and Envoy log them at their finest level.

use std::fmt;
use std::sync::Arc;

/// What makes this host log its callbacks.
pub(crate) const HOST: &str = "edgeweir::callback";
/// What makes Envoy log its callbacks: the level of one of its loggers.
pub(crate) const ENVOY: &str = "wasm:trace";

/// One call of a host into a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callback {
    /// The filter, where the log says it; Envoy's does not.
    pub filter: Option<String>,
    /// The module's function, such as `proxy_on_request_headers`.
    pub name: String,
    /// What it was given; of most the first is the context.
    pub arguments: Vec<u64>,
}

/// Who is told of callbacks, in their order.
#[derive(Clone)]
pub struct Hearer(Arc<dyn Fn(Callback) + Send + Sync>);

impl Hearer {
    /// Tells this.
    pub fn new(hear: impl Fn(Callback) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells it.
    pub fn hear(&self, callback: Callback) {
        (self.0)(callback);
    }

    /// Takes what is a callback, or speaks of one, from a line of a log: true if nothing of it is to be kept.
    pub(crate) fn takes(&self, line: &str) -> bool {
        if let Some(callback) = of_host(line).or_else(|| of_envoy(line)) {
            self.hear(callback);
            return true;
        }
        ["[host<-vm] ", "[vm->host] ", "[vm<-host] "]
            .iter()
            .any(|mark| line.contains(mark))
    }
}

impl fmt::Debug for Hearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hearer")
    }
}

/// `2026-11-21T18:42:43.090Z TRACE edgeweir::callback: proxy_on_request_headers(4, 10, 0) plugin=cache`.
fn of_host(line: &str) -> Option<Callback> {
    let (before, rest) = line.split_once("edgeweir::callback: ")?;
    let (call, filter) = rest.trim_end().split_once(" plugin=")?;
    let traced = before.trim_end().ends_with("TRACE");
    traced.then(|| called(call, Some(filter)))?
}

/// `[2026-11-21 18:42:43.090][57][trace][wasm] [source/….cc:39] [host->vm] proxy_on_request_headers(4, 10, 0)`.
fn of_envoy(line: &str) -> Option<Callback> {
    let (before, call) = line.split_once(" [host->vm] ")?;
    let traced = before.contains("[trace][wasm]");
    traced.then(|| called(call.trim_end(), None))?
}

fn called(call: &str, filter: Option<&str>) -> Option<Callback> {
    let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
    let arguments = arguments.split(", ").filter(|one| !one.is_empty());
    Some(Callback {
        filter: filter.map(str::to_owned),
        name: name.to_owned(),
        arguments: arguments
            .map(|one| one.parse().ok())
            .collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn both_logs_are_read() {
        const ENVOYS: &str = "[2026-11-21 18:42:43.090][5727][trace][wasm] [source/extensions/common/wasm/wasm_vm.cc:39] ";
        const HOSTS: &str = "2026-11-21T18:55:03.123456Z TRACE edgeweir::callback: ";
        for (line, want) in [
            (
                format!("{ENVOYS}[host->vm] proxy_on_request_headers(4, 10, 0)"),
                Some((None, "proxy_on_request_headers", vec![4, 10, 0])),
            ),
            (
                format!("{ENVOYS}[host->vm] proxy_on_log(4)"),
                Some((None, "proxy_on_log", vec![4])),
            ),
            (
                format!("{ENVOYS}[host->vm] _initialize()"),
                Some((None, "_initialize", vec![])),
            ),
            (
                format!("{ENVOYS}[host<-vm] proxy_on_request_headers return: 0"),
                None,
            ),
            (
                format!("{ENVOYS}[vm->host] env.proxy_get_property(1062040, 12, 1048504, 1048508)"),
                None,
            ),
            (
                format!("{HOSTS}proxy_on_response_body(7, 3000, 1) plugin=a cache"),
                Some((Some("a cache"), "proxy_on_response_body", vec![7, 3000, 1])),
            ),
            (
                "2026-11-21T18:55:03Z  WARN edgeweir::plugin: edgeweir::callback: x(1) plugin=y"
                    .to_owned(),
                None,
            ),
        ] {
            let want = want.map(|(filter, name, arguments)| Callback {
                filter: filter.map(str::to_owned),
                name: name.to_owned(),
                arguments,
            });
            assert_eq!(of_host(&line).or_else(|| of_envoy(&line)), want, "{line}");
        }
    }

    #[test]
    fn other_lines_are_kept() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let hearer = Hearer::new(move |callback| hears.lock().expect("whole").push(callback.name));
        let envoys = |rest: &str| {
            format!("[2026-11-21 18:42:43.090][5727][trace][wasm] [source/a.cc:39] {rest}")
        };
        assert!(hearer.takes(&envoys("[host->vm] proxy_on_tick(1)")));
        assert!(hearer.takes(&envoys("[vm<-host] env.proxy_get_property return: 0")));
        assert!(
            !hearer.takes(
                "[2026-11-21 18:42:43.090][57][critical][wasm] [source/a.cc:9] Failed to load"
            )
        );
        assert_eq!(*heard.lock().expect("whole"), ["proxy_on_tick"]);
    }
}
