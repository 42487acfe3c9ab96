//! The forms an image has, by who reads it.

use std::collections::BTreeMap;
use std::io;

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use serde_json::json;

use crate::application::Application;
use crate::blob::{Blob, Digest};

/// A layer that is an archive.
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The configuration of an ordinary image.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is Wasm, and the configuration beside it, as CNCF's Wasm working group names them.
const WASM: &str = "application/wasm";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// What Spin calls the layers of an application.
const SPIN_WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Who reads an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Form {
    /// Istio's `WasmPlugin` and Envoy Gateway's `EnvoyExtensionPolicy`: one compressed archive that holds `plugin.wasm`
    /// (the "compat" variant of the Wasm Image Specification), which any tool for container images can copy.
    Envoy,
    /// What reads the Wasm OCI artifact of CNCF's working group (`wkg`, containerd's runwasi, wasmCloud): the file itself as the
    /// one layer.
    Wasm,
    /// `spin up --from`, and SpinKube: a layer for each component and the locked application.
    Spin,
}

impl Form {
    /// The name it has on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Wasm => "wasm",
            Self::Spin => "spin",
        }
    }
}

/// What an image says of itself.
#[derive(Clone, Default, Debug)]
pub struct Label {
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// What it does, in a line; nothing for none.
    pub description: String,
    /// When its content was made, RFC 3339. A fixed time keeps digests the same from build to build.
    pub created: String,
}

/// The interfaces of a component, by name.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Interfaces {
    /// What it offers.
    pub exports: Vec<String>,
    /// What it asks for.
    pub imports: Vec<String>,
}

/// An image: its configuration, layers and annotations.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) form: Form,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Image {
    /// A proxy-wasm module for Envoy.
    ///
    /// # Errors
    /// Only what writing to memory can give.
    pub fn for_envoy(module: &[u8], label: &Label) -> io::Result<Self> {
        let archive = archive("plugin.wasm", module)?;
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
        io::Write::write_all(&mut packed, &archive)?;
        let layer = Blob {
            media_type: ARCHIVE,
            bytes: packed.finish()?,
        };
        let config = json!({
            "created": label.created,
            "architecture": "wasm",
            "os": "wasi",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&archive).to_string()] },
        });
        let mut annotations = annotations(label);
        annotations.insert("module.wasm.image/variant".to_owned(), "compat".to_owned());
        Ok(Self {
            form: Form::Envoy,
            config: of_json(CONFIG, &config),
            layers: vec![layer],
            annotations,
        })
    }

    /// A module, or a component with its interfaces, as it is.
    pub fn of_wasm(wasm: Vec<u8>, interfaces: Option<&Interfaces>, label: &Label) -> Self {
        let layer = Blob {
            media_type: WASM,
            bytes: wasm,
        };
        let mut config = json!({
            "created": label.created,
            "architecture": "wasm",
            // The names the working group fixed: a module is wasip1, a component wasip2, whatever it imports.
            "os": if interfaces.is_some() { "wasip2" } else { "wasip1" },
            "layerDigests": [layer.digest().to_string()],
        });
        if let Some(interfaces) = interfaces {
            config["component"] = json!(interfaces);
        }
        Self {
            form: Form::Wasm,
            config: of_json(WASM_CONFIG, &config),
            layers: vec![layer],
            annotations: annotations(label),
        }
    }

    /// An application for Spin: its components are layers, the locked application is the last.
    pub fn for_spin(application: Application, label: &Label) -> Self {
        let (locked, components) = application.lock();
        let mut layers: Vec<Blob> = components
            .into_iter()
            .map(|bytes| Blob {
                media_type: SPIN_WASM,
                bytes,
            })
            .collect();
        let locked = of_json(SPIN_APPLICATION, &locked);
        let config = json!({
            "created": label.created,
            "architecture": "wasm",
            "os": "Wasip1",
            // Tells one application's configuration, and so its image, from another's.
            "config": { "Labels": { "com.fermyon.spin.lockedAppDigest": locked.digest().to_string() } },
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        layers.push(locked);
        Self {
            form: Form::Spin,
            config: of_json(CONFIG, &config),
            layers,
            annotations: annotations(label),
        }
    }
}

/// The annotations that the image specification defines.
fn annotations(label: &Label) -> BTreeMap<String, String> {
    [
        ("title", &label.title),
        ("version", &label.version),
        ("description", &label.description),
        ("created", &label.created),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.clone()))
    .collect()
}

/// An archive of one file, without a trace of who made it and when.
fn archive(name: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, content)?;
    builder.into_inner()
}

fn of_json(media_type: &'static str, value: &serde_json::Value) -> Blob {
    Blob {
        media_type,
        bytes: value.to_string().into_bytes(),
    }
}
