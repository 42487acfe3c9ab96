//! Which program a configuration file is for, and how strictly those of others are read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use edgeweir_host_formats::{Finding, Level};

use super::{Config, ConfigError, Source};

/// The program a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// This one: `edgeweir.toml`.
    Edgeweir,
    /// Envoy: a bootstrap, YAML or JSON.
    Envoy,
    /// Spin: a manifest, TOML.
    Spin,
}

impl Format {
    /// Tells it by the ending of the name, and a manifest by the field it begins with.
    pub fn of(file: &Path, text: &str) -> Self {
        let ending = file.extension().unwrap_or_default().to_string_lossy();
        match ending.to_ascii_lowercase().as_str() {
            "yaml" | "yml" | "json" => Self::Envoy,
            // Editors put a byte order mark before the first line.
            _ if text
                .trim_start_matches('\u{feff}')
                .lines()
                .any(|line| line.trim_start().starts_with("spin_manifest_version")) =>
            {
                Self::Spin
            }
            _ => Self::Edgeweir,
        }
    }

    const fn article(self) -> &'static str {
        match self {
            Self::Edgeweir | Self::Envoy => "an ",
            Self::Spin => "a ",
        }
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edgeweir => "edgeweir.toml",
            Self::Envoy => "Envoy bootstrap",
            Self::Spin => "Spin manifest",
        }
    }
}

/// What a manifest of Spin's is completed with.
#[derive(Clone, Default, Debug)]
pub struct Given {
    /// The runtime configuration.
    pub runtime: Option<Source>,
    /// `--state-dir` is there.
    pub state_dir: bool,
    /// Who gives variables of the manifest's their values: `--variable NAME`, `SPIN_VARIABLE_NAME`.
    pub variables: BTreeMap<String, String>,
}

impl Given {
    /// Whose values are in the text at `span`, to be added to what is wrong with it.
    pub(crate) fn told(&self, source: &Source, span: &Range<usize>) -> String {
        let text = source.text.get(span.clone()).unwrap_or_default();
        let names = text.split("{{").skip(1);
        let names = names.filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
        let told = names.filter_map(|name| {
            let by = self.variables.get(name)?;
            Some(format!("; `{name}` is what `{by}` says"))
        });
        told.collect()
    }
}

/// How files of other programs' are read.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Go on without what is not supported, though answers will be others.
    pub lenient: bool,
    /// Spin's `--runtime-config-file`.
    pub runtime_config: Option<PathBuf>,
    /// Spin's `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// Spin's `--listen`.
    pub listen: Option<SocketAddr>,
    /// Spin's `--variable`: names and values.
    pub variables: Vec<(String, String)>,
    /// Read on whatever is found, which is in the configuration's notes; such a configuration is not to be run.
    pub keep_going: bool,
}

impl Options {
    /// Refuses what would have no effect on a file of this format.
    pub(super) fn check(&self, format: Format, file: &Path) -> Result<(), ConfigError> {
        let spin = (format == Format::Spin, "Spin manifests");
        let foreign = (format != Format::Edgeweir, "files of Envoy and Spin");
        let given = [
            ("--listen", self.listen.is_some(), spin),
            ("--variable", !self.variables.is_empty(), spin),
            ("--runtime-config-file", self.runtime_config.is_some(), spin),
            ("--state-dir", self.state_dir.is_some(), spin),
            ("--lenient", self.lenient, foreign),
        ];
        match given.iter().find(|(_, given, (fits, _))| *given && !fits) {
            None => Ok(()),
            Some((option, _, (_, whose))) => {
                let message = format!(
                    "`{option}` is for {whose}, and this is {}{}: leave it out",
                    format.article(),
                    format.name()
                );
                Err(ConfigError::file(file, message))
            }
        }
    }

    /// Whether what was found ends the reading.
    pub(super) fn refuses(&self, findings: &[Finding]) -> bool {
        !self.keep_going && findings.iter().any(|finding| self.is_fatal(finding))
    }

    pub(super) fn is_fatal(&self, finding: &Finding) -> bool {
        match finding.level {
            Level::Error => true,
            Level::Unsupported => !self.lenient,
            Level::Warning | Level::Advice => false,
        }
    }

    /// The first of what ends it, as an error.
    pub(super) fn refusal(&self, config: &Config) -> ConfigError {
        let mut fatal = config.notes.iter().filter(|finding| self.is_fatal(finding));
        let Some(first) = fatal.next() else {
            return ConfigError::file(&config.source.file, "it cannot be read");
        };
        let mut message = first.message.clone();
        message.push_str(&config.given.told(&config.source, &first.span));
        if first.level == Level::Unsupported {
            message.push_str("; `--lenient` goes on without it");
        }
        match fatal.count() {
            0 => {}
            more => message.push_str(&format!(
                "; {more} more such: `edgeweir check` names them all"
            )),
        }
        ConfigError::at(&config.source, first.span.clone(), &first.path, message)
    }
}
