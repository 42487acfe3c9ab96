//! What a file to be packaged is, and the images it can become.

use std::path::Path;

use anyhow::{Context, anyhow};
use edgeweir_host_package::{Form, Image, Interfaces, Label, Manifested, read_manifest};

use crate::inspect::Inspected;

/// When an image's content was made, where `SOURCE_DATE_EPOCH` does not say: a fixed time, so that digests are the same from
/// build to build.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A file that was read.
pub enum Contents {
    /// A module or component.
    Wasm(Box<Wasm>),
    /// A Spin application, with what its packager should know.
    Application(Manifested),
}

/// A module or component.
pub struct Wasm {
    bytes: Vec<u8>,
    found: Inspected,
    /// The file's name up to its first dot, and what is between that and `.wasm`.
    stem: String,
    kind: String,
    /// What of that follows the ABI, as `slim`: with it a file is built otherwise.
    flavour: String,
}

impl Contents {
    /// Reads a module, a component, or a manifest with all that it names.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        if file.extension().is_none_or(|it| it != "toml") {
            return Wasm::read(file).map(|wasm| Self::Wasm(Box::new(wasm)));
        }
        let shown = || file.display().to_string();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let made = read_manifest(&text, folder).with_context(shown)?;
        Ok(Self::Application(made))
    }

    /// The forms asked for, or all that it can have; an error for one that it cannot.
    pub fn forms(&self, asked: &[Form]) -> Vec<anyhow::Result<Form>> {
        let (possible, kind): (&[Form], _) = match self {
            Self::Application(_) => (&[Form::Spin], "Spin application"),
            Self::Wasm(wasm) if wasm.found.is_proxy_wasm() => {
                (&[Form::Envoy, Form::Wasm], &*wasm.found.kind)
            }
            Self::Wasm(wasm) => (&[Form::Wasm], &*wasm.found.kind),
        };
        if asked.is_empty() {
            return possible.iter().copied().map(Ok).collect();
        }
        asked
            .iter()
            .map(|form| {
                let name = form.name();
                let possible = possible.contains(form).then_some(*form);
                possible.ok_or_else(|| anyhow!("it is a {kind}, and has no form \"{name}\""))
            })
            .collect()
    }

    /// `NAME:TAG` of a module for Envoy and of an application; other forms have what they are behind the tag.
    pub fn reference(
        &self,
        form: Form,
        name: Option<&str>,
        tag: Option<&str>,
    ) -> anyhow::Result<String> {
        let (own, version, suffix) = match self {
            Self::Application(made) => {
                let application = &made.application;
                let version = Some(application.version.as_str()).filter(|it| !it.is_empty());
                (application.name.as_str(), version, String::new())
            }
            Self::Wasm(wasm) => (
                wasm.name(),
                wasm.found.version.as_deref(),
                wasm.suffix(form),
            ),
        };
        let name = name.map_or_else(|| own.to_ascii_lowercase(), str::to_owned);
        // A `+` of a version's build is no character of a tag.
        let version = tag.or(version).unwrap_or("latest").replace('+', "_");
        let tag = format!("{version}{suffix}");
        check_name(&name)?;
        check_tag(&tag)?;
        Ok(format!("{name}:{tag}"))
    }

    /// The image of a form.
    pub fn image(&self, form: Form) -> anyhow::Result<Image> {
        match self {
            Self::Wasm(wasm) => wasm.image(form),
            Self::Application(made) => {
                let application = made.application.clone();
                let label = Label {
                    title: application.name.clone(),
                    version: application.version.clone(),
                    description: application.description.clone(),
                    created: created()?,
                };
                Ok(Image::for_spin(application, &label))
            }
        }
    }

    /// What who packages it should know.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Wasm(_) => &[],
            Self::Application(made) => &made.notes,
        }
    }
}

impl Wasm {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let (found, bytes) = Inspected::with_bytes(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".wasm").unwrap_or(&name);
        let (stem, kind) = name.split_once('.').unwrap_or((name, ""));
        let (_, flavour) = kind.split_once('.').unwrap_or((kind, ""));
        Ok(Self {
            bytes,
            found,
            stem: stem.to_owned(),
            kind: kind.replace('.', "-"),
            flavour: flavour.replace('.', "-"),
        })
    }

    /// What tells its forms and flavours apart, behind the tag.
    fn suffix(&self, form: Form) -> String {
        let flavour = match self.flavour.as_str() {
            "" => String::new(),
            flavour => format!("-{flavour}"),
        };
        match form {
            Form::Envoy | Form::Spin => flavour,
            Form::Wasm if self.found.component && !self.kind.is_empty() => {
                format!("-{}", self.kind)
            }
            Form::Wasm => format!("{flavour}-wasm"),
        }
    }

    fn image(&self, form: Form) -> anyhow::Result<Image> {
        let label = self.label()?;
        Ok(match form {
            Form::Envoy => Image::for_envoy(&self.bytes, &label)?,
            Form::Wasm | Form::Spin => {
                let interfaces = Interfaces {
                    exports: self.found.exports.clone(),
                    imports: self.found.imports.keys().cloned().collect(),
                };
                let interfaces = self.found.component.then_some(&interfaces);
                Image::of_wasm(self.bytes.clone(), interfaces, &label)
            }
        })
    }

    fn name(&self) -> &str {
        self.found.name.as_deref().unwrap_or(&self.stem)
    }

    fn label(&self) -> anyhow::Result<Label> {
        Ok(Label {
            title: self.name().to_owned(),
            version: self.found.version.clone().unwrap_or_default(),
            description: String::new(),
            created: created()?,
        })
    }
}

/// `SOURCE_DATE_EPOCH`, seconds since 1970, as RFC 3339.
fn created() -> anyhow::Result<String> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else {
        return Ok(CREATED.to_owned());
    };
    let wrong = || anyhow!("SOURCE_DATE_EPOCH is \"{text}\", not seconds since 1970");
    let seconds: i64 = text.parse().map_err(|_| wrong())?;
    let time = jiff::Timestamp::from_second(seconds).map_err(|_| wrong())?;
    Ok(time.to_string())
}

/// OCI distribution: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`; here without the rules on what
/// may stand side by side.
fn check_name(name: &str) -> anyhow::Result<()> {
    let sound = !name.is_empty()
        && name.len() <= 255
        && name.split('/').all(|part| {
            let ends = [part.chars().next(), part.chars().next_back()];
            ends.iter()
                .all(|end| end.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
        })
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c));
    if sound {
        return Ok(());
    }
    Err(anyhow!(
        "\"{name}\" is no name of an image: small letters and digits, with . _ - and / between them, at most 255"
    ))
}

/// OCI distribution: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn check_tag(tag: &str) -> anyhow::Result<()> {
    let sound = tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if sound {
        return Ok(());
    }
    Err(anyhow!(
        "\"{tag}\" is no tag of an image: letters, digits, and . _ - behind the first, at most 128"
    ))
}
