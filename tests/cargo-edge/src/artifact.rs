//! The files that ship, their packages and their bounds.

use std::path::PathBuf;

use crate::workspace::edge_dir;

/// What a filter is compiled to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A core module for Envoy and other proxy-wasm hosts.
    ProxyWasm,
    /// A component that imports WASI only.
    WasiHttp,
    /// A component that imports Spin's stores too.
    Spin,
}

impl Kind {
    /// The part of the file's name after the filter's.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::ProxyWasm => "proxy-wasm.wasm",
            Self::WasiHttp => "wasi-http.wasm",
            Self::Spin => "spin.wasm",
        }
    }
    /// The Rust target.
    pub fn target(self) -> &'static str {
        match self {
            Self::ProxyWasm => "wasm32-wasip1",
            Self::WasiHttp | Self::Spin => "wasm32-wasip2",
        }
    }
}

/// What a file is compiled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flavour {
    /// Everything, and SIMD128.
    #[default]
    Usual,
    /// Without SIMD128, for runtimes that lack it.
    Baseline,
    /// Compress without brotli, for platforms that limit a module's size.
    Slim,
}

impl Flavour {
    /// The part of the file's name that tells it from the usual one, and of the folder it is compiled in.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::Baseline => Some("baseline"),
            Self::Slim => Some("slim"),
        }
    }
}

/// One file below `target/edge/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Artifact {
    /// `cache`, `compress`, `minify`, `ratelimit`, `edge` or `gateway`.
    pub name: &'static str,
    /// What it is compiled to.
    pub kind: Kind,
    /// What it is compiled with.
    pub flavour: Flavour,
}

/// Every name an artefact can have.
pub const NAMES: [&str; 6] = [
    "cache",
    "compress",
    "minify",
    "ratelimit",
    "edge",
    "gateway",
];

/// Those that have state to keep in Spin's stores.
const WITH_SPIN_STORES: [&str; 3] = ["cache", "ratelimit", "edge"];

/// The one filter that there is a slim form of.
pub const SLIM: &str = "compress";

/// Every file of a flavour, or those of the names given.
pub fn all(names: &[String], flavour: Flavour) -> Vec<Artifact> {
    let wanted = |name: &str| {
        (names.is_empty() || names.iter().any(|n| n == name))
            && (flavour != Flavour::Slim || name == SLIM)
    };
    let mut all = Vec::new();
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        if name != "gateway" {
            all.push(Artifact {
                name,
                kind: Kind::ProxyWasm,
                flavour,
            });
        }
        all.push(Artifact {
            name,
            kind: Kind::WasiHttp,
            flavour,
        });
        if WITH_SPIN_STORES.contains(&name) {
            all.push(Artifact {
                name,
                kind: Kind::Spin,
                flavour,
            });
        }
    }
    all
}

impl Artifact {
    /// The package that is compiled.
    pub fn package(&self) -> String {
        match (self.name, self.kind) {
            ("gateway", _) => "edgeweir-gateway".to_owned(),
            (name, Kind::ProxyWasm) => format!("edgeweir-{name}-proxy-wasm"),
            (name, Kind::WasiHttp | Kind::Spin) => format!("edgeweir-{name}-wasi-http"),
        }
    }

    /// The file's name, as examples and users know it.
    pub fn file_name(&self) -> String {
        let suffix = self.kind.suffix();
        match (self.flavour.word(), suffix.strip_suffix("wasm")) {
            (Some(word), Some(kind)) => format!("{}.{kind}{word}.wasm", self.name),
            _ => format!("{}.{suffix}", self.name),
        }
    }

    /// The finished file.
    pub fn path(&self) -> PathBuf {
        edge_dir().join(self.file_name())
    }

    /// The largest the finished file may be, in bytes. Compress carries the tables of brotli, both ways; what names the field
    /// of a refused configuration takes 75 KB of the limiter, whose rules have the most kinds of values, its schema 13, and SHA-256 of long values 20; a
    /// component may have 150 KB of bindings and of the standard library's imports more than a module, one for Spin another 170 KB for its stores.
    pub fn bound(&self) -> u64 {
        let module = match self.name {
            SLIM if self.flavour == Flavour::Slim => 600_000,
            "compress" => 1_500_000,
            "edge" => 2_500_000,
            "cache" => 850_000,
            "ratelimit" => 520_000,
            _ => 450_000,
        };
        match self.kind {
            Kind::ProxyWasm => module,
            Kind::WasiHttp => module + 150_000,
            Kind::Spin => module + 320_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_names_are_all_there() {
        let mut names: Vec<_> = all(&[], Flavour::Usual)
            .iter()
            .map(Artifact::file_name)
            .collect();
        names.sort();
        let mut want = vec!["gateway.wasi-http.wasm".to_owned()];
        for name in ["cache", "compress", "edge", "minify", "ratelimit"] {
            want.push(format!("{name}.proxy-wasm.wasm"));
            want.push(format!("{name}.wasi-http.wasm"));
        }
        for name in ["cache", "edge", "ratelimit"] {
            want.push(format!("{name}.spin.wasm"));
        }
        want.sort();
        assert_eq!(names, want);
    }

    #[test]
    fn baseline_files_have_names_of_their_own() {
        let files: Vec<_> = all(&["minify".to_owned()], Flavour::Baseline)
            .iter()
            .map(Artifact::file_name)
            .collect();
        let want = [
            "minify.proxy-wasm.baseline.wasm",
            "minify.wasi-http.baseline.wasm",
        ];
        assert_eq!(files, want);
    }

    #[test]
    fn one_name_gives_its_files_only() {
        let files: Vec<_> = all(&["minify".to_owned()], Flavour::Usual)
            .iter()
            .map(Artifact::file_name)
            .collect();
        assert_eq!(files, ["minify.proxy-wasm.wasm", "minify.wasi-http.wasm"]);
    }

    #[test]
    fn only_compress_has_a_slim_form() {
        let files = all(&[], Flavour::Slim);
        let names: Vec<_> = files.iter().map(Artifact::file_name).collect();
        let want = [
            "compress.proxy-wasm.slim.wasm",
            "compress.wasi-http.slim.wasm",
        ];
        assert_eq!(names, want);
        assert_eq!(files.first().map(Artifact::bound), Some(600_000));
    }
}
