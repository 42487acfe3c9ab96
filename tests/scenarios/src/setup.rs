//! What stands between client and origin.

use std::net::SocketAddr;

use serde_json::Value;

use crate::Host;

/// A filter with its configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Filter {
    /// `cache`, `compress`, `minify`, `ratelimit` or `edge`.
    pub name: &'static str,
    /// Its configuration.
    pub config: Value,
}

/// The cache.
pub fn cache(config: Value) -> Filter {
    Filter {
        name: "cache",
        config,
    }
}
/// The compressor.
pub fn compress(config: Value) -> Filter {
    Filter {
        name: "compress",
        config,
    }
}
/// The minifier.
pub fn minify(config: Value) -> Filter {
    Filter {
        name: "minify",
        config,
    }
}
/// The rate limiter.
pub fn ratelimit(config: Value) -> Filter {
    Filter {
        name: "ratelimit",
        config,
    }
}
/// The four in one.
pub fn edge(config: Value) -> Filter {
    Filter {
        name: "edge",
        config,
    }
}

/// The filters, the outermost first, and what the origin speaks.
#[derive(Clone, Default)]
pub struct Setup {
    /// The filters.
    pub filters: Vec<Filter>,
    /// The origin speaks HTTP/2 with prior knowledge.
    pub http2_origin: bool,
    /// A server that the filters may reach: its address is its name on every host.
    pub server: Option<SocketAddr>,
    /// Something in front says the emergency level: the filters take its field's word.
    pub heeds_emergencies: bool,
    /// The components are those that import Spin's stores.
    pub spins_stores: bool,
    skipped: Vec<(Host, &'static str)>,
}

impl Setup {
    /// These filters in front of an HTTP/1.1 origin.
    pub fn of(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self {
            filters: filters.into_iter().collect(),
            ..Self::default()
        }
    }
    /// The origin speaks HTTP/2 with prior knowledge.
    pub fn http2_origin(mut self) -> Self {
        self.http2_origin = true;
        self
    }
    /// Behind something that says the emergency level in a field.
    pub fn heeds_emergencies(mut self) -> Self {
        self.heeds_emergencies = true;
        self
    }
    /// With the components that import Spin's stores, where components run.
    pub fn on_spins_stores(mut self) -> Self {
        self.spins_stores = true;
        self
    }
    /// The filters may reach this server under the name of its address.
    pub fn server(mut self, address: SocketAddr) -> Self {
        self.server = Some(address);
        self
    }
    /// What the filters may reach beside the origin.
    pub fn reaches(&self) -> Option<SocketAddr> {
        self.server
    }
    /// Not on this host, because; the reason is printed with the hosts that ran.
    pub fn except(mut self, host: Host, reason: &'static str) -> Self {
        self.skipped.push((host, reason));
        self
    }
    /// Why a host is left out.
    pub fn skips(&self, host: Host) -> Option<&'static str> {
        let skipped = self.skipped.iter().find(|(skipped, _)| *skipped == host);
        skipped.map(|(_, reason)| *reason)
    }
    /// Equal for setups that one running host can serve.
    pub(crate) fn key(&self) -> String {
        let filters: Vec<_> = self
            .filters
            .iter()
            .map(|filter| format!("{}={}", filter.name, filter.config))
            .collect();
        let store = self.reaches().map(|address| format!("+{address}"));
        format!(
            "{}{}{}{}{}",
            filters.join("+"),
            if self.http2_origin { "+h2" } else { "" },
            if self.spins_stores { "+spin" } else { "" },
            if self.heeds_emergencies {
                "+emergency"
            } else {
                ""
            },
            store.unwrap_or_default()
        )
    }
}
