//! What is loaded: a plugin's settings and limits, and the part of it all its instances share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use edgeweir_host_chain::{Meter, World, lock};

use crate::callout::Client;
use crate::deadline::Slow;
use crate::exports::Abi;
use crate::fields::Bound;
use crate::runtime::Runtime;
use crate::shared::{Metrics, SharedData};

/// What one plugin may use. Whatever goes beyond costs that plugin's request, never the host.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Linear memory of one instance, bytes.
    pub memory_bytes: usize,
    /// Wall time of one callback; zero is none, and then nothing stops a callback. The checks for it, in every turn of a loop,
    /// take 1 to 3 % of the time of a module that does little else than loop.
    pub deadline: Duration,
    /// Wasm stack, bytes; 64 KiB to 1 MiB, since callbacks run on the caller's stack.
    pub stack_bytes: usize,
    /// Lines of one header map, pseudo fields not counted; at most 20,000. A plugin may add 64 to what came in.
    pub headers: usize,
    /// Bytes of one header map, names and values. A plugin may add 16 KiB to what came in.
    pub header_bytes: usize,
    /// Bytes in shared data, and at most 64 MiB in each shared queue. The default has room for the largest pool that a
    /// module of this workspace can be configured with; they bound theirs themselves.
    pub shared_data_bytes: usize,
    /// Keys in shared data.
    pub shared_data_keys: usize,
    /// Callouts under way for one stream.
    pub callouts: usize,
    /// The largest body a callout may be answered with, bytes; of a longer one the plugin gets a 503.
    pub callout_bytes: usize,
    /// Body bytes held back for a plugin that pauses.
    pub body_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            deadline: Duration::from_secs(1),
            stack_bytes: 1 << 20,
            headers: 1_000,
            header_bytes: 256 << 10,
            shared_data_bytes: 1152 << 20,
            shared_data_keys: 150_000,
            callouts: 16,
            callout_bytes: 16 << 20,
            body_buffer_bytes: 1 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let stack = self.stack_bytes;
        ensure!(
            (64 << 10..=1 << 20).contains(&stack),
            "stack_bytes is {stack}, want 65536 to 1048576"
        );
        ensure!(
            (1..=20_000).contains(&self.headers),
            "headers is {}, want 1 to 20000",
            self.headers
        );
        ensure!(
            self.memory_bytes >= 64 << 10,
            "memory_bytes is {}, want at least 65536",
            self.memory_bytes
        );
        Ok(())
    }

    pub(crate) fn fields(&self) -> Bound {
        Bound {
            lines: self.headers.saturating_add(64),
            bytes: self.header_bytes.saturating_add(16 << 10),
        }
    }
}

/// What becomes of a request whose plugin trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTrap {
    /// 500, or a reset once the response's head is out.
    Respond,
    /// The message goes on as it was; a reset if the plugin had changed part of it already.
    PassThrough,
}

/// One plugin of a chain.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name in logs and reports; `plugin_name` for the plugin.
    pub name: String,
    /// The `.wasm` file.
    pub module: PathBuf,
    /// Given to `proxy_on_configure`.
    pub configuration: Vec<u8>,
    /// Given to `proxy_on_vm_start`.
    pub vm_configuration: Vec<u8>,
    /// Environment variables the plugin sees by WASI.
    pub environment: BTreeMap<String, String>,
    /// `plugin_root_id`.
    pub root_id: String,
    /// Plugins with the same one share data.
    pub vm_id: String,
    /// What it may use.
    pub limits: Limits,
    /// What a trap does to a request.
    pub on_trap: OnTrap,
    /// Names a plugin may call, and the `host:port` behind each.
    pub clusters: BTreeMap<String, String>,
    /// Virtual machines in the pool, each serving one callback at a time; at least 1.
    pub instances: usize,
    /// Envoy's `allow_on_headers_stop_iteration`: of a head answered with `StopIteration` (1) the body's callbacks run, and the
    /// first that continues lets go of both. Without it, that status holds the body too.
    pub allow_on_headers_stop_iteration: bool,
}

impl Plugin {
    /// A plugin with the defaults: no configuration, two instances, 500 on a trap.
    pub fn new(name: impl Into<String>, module: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            configuration: Vec::new(),
            vm_configuration: Vec::new(),
            environment: BTreeMap::new(),
            root_id: String::new(),
            vm_id: String::new(),
            limits: Limits::default(),
            on_trap: OnTrap::Respond,
            clusters: BTreeMap::new(),
            instances: 2,
            allow_on_headers_stop_iteration: false,
        }
    }
}

/// Where a request goes, as the properties `xds.cluster_name`, `xds.route_name` and `xds.virtual_host_name` say; an
/// extension of a request. Without it they are `origin`, `default` and `default`.
#[derive(Clone, Debug)]
pub struct Route {
    /// `xds.cluster_name`.
    pub cluster: String,
    /// `xds.route_name`.
    pub route: String,
    /// `xds.virtual_host_name`.
    pub virtual_host: String,
}

/// What the plugins of an exchange know of it together; an extension of a request, made by the first of them.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Properties that one set: as in Envoy the others see them.
    set: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    rewritten: OnceLock<(Bytes, Option<Bytes>)>,
}

impl Notes {
    /// What a route made of the request behind the plugins: path and query, and the authority if that is another; what was noted
    /// first stays. As in Envoy a plugin sees it when the exchange is logged, as `request.path`, `request.host` and in the
    /// request's fields.
    pub fn rewrite(&self, path: &str, authority: Option<&str>) {
        let authority = authority.map(|it| Bytes::copy_from_slice(it.as_bytes()));
        let path = Bytes::copy_from_slice(path.as_bytes());
        let _ = self.0.rewritten.set((path, authority));
    }

    pub(crate) fn rewritten(&self) -> Option<&(Bytes, Option<Bytes>)> {
        self.0.rewritten.get()
    }

    pub(crate) fn properties(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        lock(&self.0.set)
    }
}

/// Properties of an exchange beyond the host's own, or in their place; an extension of a request. A path's parts are
/// separated by dots (`xds.route_name`).
#[derive(Clone, Debug, Default)]
pub struct Properties(pub Vec<(String, Vec<u8>)>);

/// What all instances of one plugin share.
pub(crate) struct Common {
    pub(crate) name: String,
    pub(crate) abi: Abi,
    pub(crate) root_id: String,
    pub(crate) vm_id: String,
    pub(crate) configuration: Bytes,
    pub(crate) vm_configuration: Bytes,
    /// `NAME=value` and NUL, as WASI gives it.
    pub(crate) environment: Vec<Vec<u8>>,
    pub(crate) limits: Limits,
    pub(crate) on_trap: OnTrap,
    pub(crate) allow_on_headers_stop_iteration: bool,
    pub(crate) clusters: BTreeMap<String, String>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) data: Arc<SharedData>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) metrics: Metrics,
    pub(crate) slow: Slow,
    pub(crate) client: Client,
    pub(crate) world: World,
    /// Names of the linked host functions, by their index.
    pub(crate) calls: Vec<&'static str>,
}
