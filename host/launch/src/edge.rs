//! A configuration as a child process gets it: free ports, another origin, everything else as written.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edgeweir_host_formats::{component, settings};
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::ways::Ways;

/// The variable by which a gateway knows its origin.
const GATEWAYS_ORIGIN: &str = "EDGEWEIR_ORIGIN";

/// A configuration of the host that is about to be started somewhere else.
#[derive(Clone, Debug)]
pub struct Edge {
    table: Table,
    folder: PathBuf,
    file: PathBuf,
}

impl Edge {
    /// A configuration (.toml), or a module or component (.wasm) alone with its configuration.
    pub fn of(file: &Path, config: Option<&Json>) -> Result<Self> {
        match is_wasm(file) {
            true => Self::of_module(file, config),
            false => Self::read(file),
        }
    }

    /// A configuration with upstreams of its own: no module alone.
    pub fn with_upstreams(file: &Path) -> Result<Self> {
        if is_wasm(file) {
            bail!(
                "{}: a module alone has no upstream: name a configuration",
                file.display()
            );
        }
        Self::read(file)
    }

    /// Reads a configuration. What is wrong with a field is said by the host that gets it; here only what is no TOML.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let table: Table = text
            .parse()
            .with_context(|| format!("{} is no TOML", file.display()))?;
        let edge = Self {
            table,
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            file: file.to_owned(),
        };
        if edge.table.contains_key("spin_manifest_version") {
            bail!(
                "{} is a Spin manifest, which only `run`, `check` and `record` take: serve it with `run` and name its \
                 address (http://127.0.0.1:3000)",
                file.display()
            );
        }
        if edge.listeners().is_empty() {
            bail!(
                "{} has no [[listener]]: nothing would be served",
                file.display()
            );
        }
        Ok(edge)
    }

    /// One module or component with its configuration, in front of an origin that is yet to be named.
    pub fn of_module(module: &Path, config: Option<&Json>) -> Result<Self> {
        let name = module
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split('.').next())
            .filter(|name| !name.is_empty())
            .unwrap_or("filter");
        let mut filter = Table::new();
        let text = module
            .to_str()
            .with_context(|| format!("{} is no text", module.display()))?;
        filter.insert("module".into(), text.into());
        if let Some(config) = config {
            let config = Value::try_from(config).with_context(|| {
                format!("the configuration of {text} cannot be written as TOML")
            })?;
            filter.insert("config".into(), config);
        }
        if matches!(is_component(module), Ok(true)) {
            // A gateway has one of its own; the address is put in with the origin.
            let origin = Table::from_iter([(GATEWAYS_ORIGIN.to_owned(), Value::from(""))]);
            filter.insert("environment".into(), origin.into());
        }
        let mut listener = Table::new();
        listener.insert("name".into(), "main".into());
        listener.insert("listen".into(), "127.0.0.1:0".into());
        listener.insert("upstream".into(), "origin".into());
        listener.insert("filters".into(), Value::Array(vec![name.into()]));
        let mut table = Table::new();
        table.insert("listener".into(), Value::Array(vec![listener.into()]));
        table.insert(
            "filter".into(),
            Table::from_iter([(name.to_owned(), filter.into())]).into(),
        );
        Ok(Self {
            table,
            folder: PathBuf::new(),
            file: module.to_owned(),
        })
    }

    /// What it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Puts one origin behind every upstream and gateway, by address alone: time-outs, TLS and endpoints of the real one are
    /// not its.
    pub fn with_origin(mut self, origin: SocketAddr) -> Self {
        let mut names: Vec<String> = self
            .table
            .get("upstream")
            .and_then(Value::as_table)
            .map(|upstreams| upstreams.keys().cloned().collect())
            .unwrap_or_default();
        names.extend(
            self.listeners()
                .iter()
                .filter_map(|listener| text(listener, "upstream")),
        );
        let upstreams = names.into_iter().map(|name| {
            let address = Table::from_iter([("address".to_owned(), origin.to_string().into())]);
            (name, Value::Table(address))
        });
        let upstreams = Table::from_iter(upstreams);
        self.table.insert("upstream".into(), upstreams.into());
        let filters = self.table.get_mut("filter").and_then(Value::as_table_mut);
        for (_, filter) in filters.into_iter().flat_map(|all| all.iter_mut()) {
            let Some(filter) = filter.as_table_mut() else {
                continue;
            };
            if let Some(environment) = filter.get_mut("environment").and_then(Value::as_table_mut)
                && environment.contains_key(GATEWAYS_ORIGIN)
            {
                environment.insert(GATEWAYS_ORIGIN.into(), format!("http://{origin}").into());
                let may_reach = Value::Array(vec![origin.to_string().into()]);
                filter.insert("allowed_outbound".into(), may_reach);
            }
        }
        self
    }

    /// Speaks HTTP/2 with every upstream.
    pub fn with_http2(mut self) -> Self {
        let upstreams = self.table.get_mut("upstream").and_then(Value::as_table_mut);
        for (_, upstream) in upstreams.into_iter().flat_map(|all| all.iter_mut()) {
            if let Some(upstream) = upstream.as_table_mut() {
                upstream.insert("http2".into(), true.into());
            }
        }
        self
    }

    /// Measures the CPU time of each callback.
    pub fn with_cpu_time(mut self) -> Self {
        let limits = self.table.entry("limits");
        let limits = limits.or_insert_with(|| Table::new().into());
        // What is no table the host refuses.
        if let Some(limits) = limits.as_table_mut() {
            limits.insert("cpu_time".into(), true.into());
        }
        self
    }

    /// Keeps one instance of every module, as an Envoy of one worker does: what a filter learns counts for the next request.
    pub fn with_one_instance(mut self) -> Self {
        let folder = self.clone();
        let Some(filters) = self.table.get_mut("filter").and_then(Value::as_table_mut) else {
            return self;
        };
        for (_, filter) in filters.iter_mut() {
            let Some(filter) = filter.as_table_mut() else {
                continue;
            };
            let module = text(filter, "module").map(|module| folder.resolve(Path::new(&module)));
            // Of a component it would be a bound on what it does at once. A file that cannot be read is the host's to say.
            if module.is_some_and(|module| matches!(is_component(&module), Ok(false))) {
                filter.insert("instances".into(), Value::Integer(1));
            }
        }
        self
    }

    /// The text a child gets: listeners and admin pages on free ports of 127.0.0.1, in the clear; paths of files to read that
    /// hold from anywhere; no store on disk and no access log, which belong to the host that serves.
    pub fn to_toml(&self) -> Result<String> {
        let mut table = self.table.clone();
        let admin = Table::from_iter([("listen".to_owned(), Value::from("127.0.0.1:0"))]);
        table.insert("admin".into(), admin.into());
        if let Some(state) = table.get_mut("state").and_then(Value::as_table_mut) {
            state.remove("store");
        }
        for listener in tables_mut(&mut table, "listener") {
            listener.insert("listen".into(), "127.0.0.1:0".into());
            listener.remove("tls");
            listener.remove("access_log");
        }
        let every = |kind: &str| self.names(kind).into_iter();
        for name in every("filter") {
            self.resolve_in(&mut table, &["filter", name, "module"]);
        }
        for name in every("upstream") {
            self.resolve_in(&mut table, &["upstream", name, "tls", "ca"]);
        }
        self.resolve_in(&mut table, &["monitor", "baseline"]);
        toml::to_string(&table).context("the configuration cannot be written again")
    }

    /// Names of the listeners, in order.
    pub fn listener_names(&self) -> Vec<String> {
        let listeners = self.listeners();
        listeners
            .iter()
            .map(|listener| text(listener, "name").unwrap_or_default())
            .collect()
    }

    /// Names of the filters of a listener (the first when none is named), outermost first.
    pub fn filters_of(&self, listener: Option<&str>) -> Result<Vec<String>> {
        let listener = self.listener(listener)?;
        let names = listener.get("filters").and_then(Value::as_array);
        Ok(names
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect())
    }

    /// Why the callbacks of a listener's filters say nothing of its exchanges, if they do not.
    pub fn uncalled(&self, listener: Option<&str>) -> Result<Option<String>> {
        let ways = Ways::of(self, listener)?;
        let mut filters = ways.lists().flatten().peekable();
        if filters.peek().is_none() {
            return Ok(Some("there are no filters".to_owned()));
        }
        for name in filters {
            let module = text(&ways.filter(self, name)?, "module").unwrap_or_default();
            let module = self.resolve(Path::new(&module));
            if is_component(&module)? {
                return Ok(Some(format!("{name} is a component, which has none")));
            }
            // The name of an export stands in the file as it is.
            let last = b"proxy_on_delete";
            if !std::fs::read(&module)?
                .windows(last.len())
                .any(|at| at == last)
            {
                return Ok(Some(format!(
                    "{name} has no proxy_on_delete, which is the last of an exchange"
                )));
            }
        }
        Ok(None)
    }

    /// A listener's table, by name; the first without one.
    pub(crate) fn listener(&self, name: Option<&str>) -> Result<&Table> {
        let listeners = self.listeners();
        let found = match name {
            None => listeners.first(),
            Some(name) => listeners
                .iter()
                .find(|listener| text(listener, "name").as_deref() == Some(name)),
        };
        found.copied().with_context(|| {
            format!(
                "{} has no listener \"{}\"; it has {}",
                self.file.display(),
                name.unwrap_or_default(),
                self.listener_names().join(", ")
            )
        })
    }

    /// A table of a named kind, such as `filter.cache`.
    pub(crate) fn named(&self, kind: &str, name: &str) -> Result<&Table> {
        self.table
            .get(kind)
            .and_then(|all| all.get(name))
            .and_then(Value::as_table)
            .with_context(|| format!("{} has no [{kind}.{name}]", self.file.display()))
    }

    /// The names of a kind of table.
    pub(crate) fn names(&self, kind: &str) -> Vec<&str> {
        let all = self.table.get(kind).and_then(Value::as_table);
        all.into_iter()
            .flat_map(|all| all.keys().map(String::as_str))
            .collect()
    }

    /// The tables of the listeners.
    pub(crate) fn listeners(&self) -> Vec<&Table> {
        let listeners = self.table.get("listener").and_then(Value::as_array);
        listeners
            .into_iter()
            .flatten()
            .filter_map(Value::as_table)
            .collect()
    }

    /// Makes the path of a field hold from anywhere, where the field is there and is a text.
    fn resolve_in(&self, table: &mut Table, field: &[&str]) {
        let Some((first, below)) = field.split_first() else {
            return;
        };
        let found = below.iter().fold(table.get_mut(*first), |at, name| {
            at.and_then(|value| value.get_mut(*name))
        });
        if let Some(value) = found
            && let Some(path) = value.as_str()
        {
            let resolved = self.resolve(Path::new(path));
            *value = resolved.display().to_string().into();
        }
    }

    /// The host's own rule: as it is if it is there, else beside the configuration; here absolute.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        let beside = self.folder.join(path);
        let found = if path.is_absolute() || path.exists() || !beside.exists() {
            path
        } else {
            &beside
        };
        std::path::absolute(found).unwrap_or_else(|_| found.to_owned())
    }
}

/// Whether a file is named as a module or component is.
fn is_wasm(file: &Path) -> bool {
    file.extension().is_some_and(|kind| kind == "wasm")
}

/// A text field of a table.
pub(crate) fn text(table: &Table, field: &str) -> Option<String> {
    table.get(field).and_then(Value::as_str).map(str::to_owned)
}

/// A filter's configuration as the text its module reads.
pub(crate) fn settings(filter: &Table) -> Result<Option<String>> {
    Ok(match filter.get("config") {
        None => None,
        Some(value) => {
            let (text, _) = settings::of(value).map_err(anyhow::Error::msg)?;
            Some(text)
        }
    })
}

/// Whether a `.wasm` file is a component.
pub(crate) fn is_component(file: &Path) -> Result<bool> {
    let mut start = [0; 8];
    File::open(file)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(component::is_component(&start))
}

fn tables_mut<'t>(table: &'t mut Table, field: &str) -> impl Iterator<Item = &'t mut Table> {
    table
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_table_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
[admin]
listen = "127.0.0.1:9901"
[state]
store = "kv.redb"
cache_dir = "c"
[[listener]]
name = "main"
listen = "0.0.0.0:443"
upstream = "app"
filters = ["cache"]
access_log = "access.jsonl"
[listener.tls]
certificate = "x"
[upstream.app]
address = "app.internal:80"
timeout_ms = 5
[filter.cache]
module = "cache.wasm"
config = { max_object_bytes = 7 }
"#;

    fn edge(text: &str) -> Edge {
        Edge {
            table: text.parse().expect("TOML"),
            folder: PathBuf::from("/etc/edge"),
            file: PathBuf::from("/etc/edge/edge.toml"),
        }
    }

    #[test]
    fn a_child_has_ports_and_an_origin_of_its_own() {
        let origin = ([127, 0, 0, 1], 81).into();
        let text = edge(TOML).with_origin(origin).to_toml().expect("text");
        let table: Table = text.parse().expect("TOML");
        assert_eq!(table["admin"]["listen"].as_str(), Some("127.0.0.1:0"));
        assert_eq!(table["listener"][0]["listen"].as_str(), Some("127.0.0.1:0"));
        assert!(table["listener"][0].get("tls").is_none());
        assert!(table["listener"][0].get("access_log").is_none());
        assert!(table["state"].get("store").is_none());
        assert_eq!(table["state"]["cache_dir"].as_str(), Some("c"));
        assert_eq!(
            table["upstream"]["app"]["address"].as_str(),
            Some("127.0.0.1:81")
        );
        assert!(table["upstream"]["app"].get("timeout_ms").is_none());
        assert_eq!(
            table["filter"]["cache"]["config"]["max_object_bytes"].as_integer(),
            Some(7)
        );
        let module = table["filter"]["cache"]["module"].as_str().expect("a path");
        assert!(Path::new(module).is_absolute(), "{module}");
    }

    #[test]
    fn files_beside_the_configuration_are_found_from_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["ca.pem", "baseline.json", "cache.wasm"] {
            std::fs::write(folder.path().join(name), "x").expect("writes");
        }
        let toml = "[monitor]\nbaseline = \"baseline.json\"\n[upstream.a]\naddress = \"a:443\"\ntls.ca = \"ca.pem\"\n\
                    [upstream.b]\naddress = \"b:443\"\ntls = true\n[filter.cache]\nmodule = \"cache.wasm\"\n";
        let mut edge = edge(toml);
        edge.folder = folder.path().to_owned();
        let table: Table = edge.to_toml().expect("text").parse().expect("TOML");
        for (field, name) in [
            (&table["monitor"]["baseline"], "baseline.json"),
            (&table["upstream"]["a"]["tls"]["ca"], "ca.pem"),
            (&table["filter"]["cache"]["module"], "cache.wasm"),
        ] {
            let path = field.as_str().map(Path::new);
            assert_eq!(path, Some(folder.path().join(name).as_path()));
        }
        assert_eq!(table["upstream"]["b"]["tls"].as_bool(), Some(true));
    }

    #[test]
    fn a_gateway_asks_the_origin_too() {
        let toml = "[filter.app]\nmodule = \"g.wasm\"\nallowed_outbound = [\"a:1\"]\nenvironment = { EDGEWEIR_ORIGIN = \"http://a:1\" }\n";
        let edge = edge(toml).with_origin(([127, 0, 0, 1], 81).into());
        let filter = edge.named("filter", "app").expect("a filter");
        assert_eq!(
            filter["environment"]["EDGEWEIR_ORIGIN"].as_str(),
            Some("http://127.0.0.1:81")
        );
        assert_eq!(filter["allowed_outbound"][0].as_str(), Some("127.0.0.1:81"));
    }

    #[test]
    fn a_module_alone_is_a_configuration() {
        let config = serde_json::json!({ "gzip_level": 6, "types": ["a"] });
        let edge = Edge::of_module(Path::new("x/compress.proxy-wasm.wasm"), Some(&config))
            .expect("an edge");
        assert_eq!(edge.filters_of(None).expect("filters"), ["compress"]);
        let filter = edge.named("filter", "compress").expect("a filter");
        assert_eq!(filter["config"]["gzip_level"].as_integer(), Some(6));
    }

    #[test]
    fn a_manifest_of_spins_is_called_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("spin.toml");
        std::fs::write(&file, "spin_manifest_version = 2\n").expect("writes");
        let error = Edge::read(&file).expect_err("no configuration of this host");
        assert!(error.to_string().contains("is a Spin manifest"), "{error}");
    }

    #[test]
    fn a_listener_that_is_not_there_is_named() {
        let error = edge(TOML)
            .filters_of(Some("other"))
            .expect_err("no such listener");
        assert!(
            error.to_string().contains("\"other\"; it has main"),
            "{error}"
        );
    }
}
