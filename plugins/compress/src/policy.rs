//! The checked configuration: what holds for all requests, and what holds for a path.

use std::rc::Rc;

use edgeweir_filter::{ConfigError, PathPattern, bounded, comparable};

use crate::Coding;
use crate::breach::{Breach, Cookies};
use crate::config::{Config, Rule};
use crate::decode::DecodeConfig;
use crate::dictionary::DictionarySettings;
use crate::etag::Etags;
use crate::media_type::MediaRange;
use crate::preset::Preset;

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    rules: Vec<(PathPattern, Rc<Policy>)>,
    /// Where no rule matches.
    policy: Rc<Policy>,
    pub(crate) breach_cookies: Cookies,
    pub(crate) breach_bytes: u16,
    pub(crate) etag: Etags,
    pub(crate) cpu_percent: u8,
    pub(crate) decode: DecodeConfig,
    pub(crate) dictionaries: DictionarySettings,
    pub(crate) server_timing: bool,
    pub(crate) memory_bytes: usize,
    pub(crate) remove_accept_encoding: bool,
}

/// What holds for a path, whole: nothing is to be looked up elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) disabled: bool,
    pub(crate) codings: Vec<Coding>,
    levels: [u8; Coding::COUNT],
    pub(crate) window_bits: u8,
    pub(crate) min_bytes: u64,
    pub(crate) max_ratio_percent: u8,
    pub(crate) media: Vec<MediaRange>,
    pub(crate) except: Vec<MediaRange>,
    pub(crate) breach: Breach,
    /// `breach` is for every response, not only for those that `breach_cookies` tells.
    pub(crate) breach_all: bool,
}

impl Settings {
    pub(crate) fn check(config: &Config) -> Result<Self, ConfigError> {
        config.decode.check()?;
        let unset = Policy::default().with(config.preset);
        let policy = Options::of(config).check("", unset)?;
        if config.rules.len() > 100 {
            let message = format!("has {} rules, at most 100 are allowed", config.rules.len());
            return Err(ConfigError::new("rules", message));
        }
        let rules = config.rules.iter().enumerate().map(|(at, rule)| {
            let pattern = PathPattern::check(&format!("rules[{at}].path"), rule.path.as_deref())?;
            let mut unset = match rule.preset {
                Some(preset) => policy.clone().with(preset),
                None => policy.clone(),
            };
            // A preset puts all codings into its order: it is not to bring back what the operator left out.
            if config.codings.is_some() {
                unset.codings.clone_from(&policy.codings);
            }
            let policy = Options::of_rule(rule).check(&format!("rules[{at}]."), unset)?;
            Ok((pattern, Rc::new(policy)))
        });
        Ok(Self {
            rules: rules.collect::<Result<_, ConfigError>>()?,
            breach_cookies: config.breach_cookies,
            breach_bytes: bounded("breach_bytes", config.breach_bytes, 16, 4096)?,
            etag: config.etag,
            cpu_percent: bounded("cpu_percent", config.cpu_percent, 1, 100)?,
            decode: config.decode.clone(),
            dictionaries: config.dictionaries.check()?,
            server_timing: config.server_timing,
            memory_bytes: bounded("memory_bytes", config.memory_bytes, 1 << 20, 1 << 31)?,
            remove_accept_encoding: config.remove_accept_encoding,
            policy: Rc::new(policy),
        })
    }

    /// What holds for a path without its query: the first rule that matches.
    pub(crate) fn policy(&self, path: &[u8]) -> &Rc<Policy> {
        if self.rules.is_empty() {
            return &self.policy;
        }
        let path = comparable(path);
        let rule = self
            .rules
            .iter()
            .find(|(pattern, _)| pattern.matches(&path));
        rule.map_or(&self.policy, |(_, policy)| policy)
    }

    /// Every policy there is, with the field it was set by.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        let rules = self.rules.iter().map(|(_, policy)| policy);
        rules.chain([&self.policy]).map(|policy| &**policy)
    }
}

impl Coding {
    /// The option that sets its level, and the level's bounds.
    pub(crate) fn level_option(self) -> (&'static str, u64, u64) {
        match self {
            #[cfg(feature = "brotli")]
            Self::Brotli => ("brotli_level", 0, 11),
            Self::Zstd => ("zstd_level", 1, 4),
            Self::Gzip => ("gzip_level", 1, 9),
            Self::Deflate => ("deflate_level", 1, 9),
        }
    }
}

impl Policy {
    pub(crate) fn level(&self, coding: Coding) -> u8 {
        self.levels.get(coding as usize).copied().unwrap_or(4)
    }

    fn with(self, preset: Preset) -> Self {
        let defaults = preset.defaults();
        Self {
            codings: preset.codings(),
            levels: defaults.levels,
            window_bits: defaults.window_bits,
            min_bytes: defaults.min_bytes,
            max_ratio_percent: defaults.max_ratio_percent,
            ..self
        }
    }
}

/// What both the configuration and a rule may set; `None` where it does not.
struct Options<'a> {
    disabled: bool,
    codings: Option<&'a [Coding]>,
    levels: [Option<u32>; Coding::COUNT],
    window_bits: Option<u32>,
    min_bytes: Option<u64>,
    max_ratio_percent: Option<u32>,
    media: Option<&'a [String]>,
    except: Option<&'a [String]>,
    breach: Option<Breach>,
}

impl<'a> Options<'a> {
    fn of(config: &'a Config) -> Self {
        Self {
            disabled: false,
            codings: config.codings.as_deref(),
            levels: [
                config.zstd_level,
                #[cfg(feature = "brotli")]
                config.brotli_level,
                config.gzip_level,
                config.deflate_level,
            ],
            window_bits: config.brotli_window_bits,
            min_bytes: config.min_bytes,
            max_ratio_percent: config.max_ratio_percent,
            media: Some(&config.media_types),
            except: Some(&config.except_media_types),
            breach: Some(config.breach),
        }
    }

    fn of_rule(rule: &'a Rule) -> Self {
        Self {
            disabled: rule.disabled,
            codings: rule.codings.as_deref(),
            levels: [
                rule.zstd_level,
                #[cfg(feature = "brotli")]
                rule.brotli_level,
                rule.gzip_level,
                rule.deflate_level,
            ],
            window_bits: rule.brotli_window_bits,
            min_bytes: rule.min_bytes,
            max_ratio_percent: rule.max_ratio_percent,
            media: rule.media_types.as_deref(),
            except: rule.except_media_types.as_deref(),
            breach: rule.breach,
        }
    }
    /// Checks what is set; `unset` says the rest.
    fn check(&self, field: &str, unset: Policy) -> Result<Policy, ConfigError> {
        let name = |option: &str| format!("{field}{option}");
        let mut levels = unset.levels;
        for ((level, set), coding) in levels.iter_mut().zip(self.levels).zip(Coding::ALL) {
            if let Some(set) = set {
                let (option, low, high) = coding.level_option();
                *level = bounded(&name(option), set, low, high)?;
            }
        }
        let window = self.window_bits;
        let window_bits = window.map(|bits| bounded(&name("brotli_window_bits"), bits, 17, 24));
        let smallest = self.min_bytes;
        let min_bytes = smallest.map(|bytes| bounded(&name("min_bytes"), bytes, 0, 1 << 30));
        let ratio = self.max_ratio_percent;
        let ratio = ratio.map(|percent| bounded(&name("max_ratio_percent"), percent, 1, 100));
        let (media, except) = (self.media, self.except);
        let media = media.map(|texts| ranges(&name("media_types"), texts));
        let except = except.map(|texts| ranges(&name("except_media_types"), texts));
        let codings = self.codings.map(|all| distinct(&name("codings"), all));
        Ok(Policy {
            disabled: self.disabled,
            codings: codings.transpose()?.unwrap_or(unset.codings),
            levels,
            window_bits: window_bits.transpose()?.unwrap_or(unset.window_bits),
            min_bytes: min_bytes.transpose()?.unwrap_or(unset.min_bytes),
            max_ratio_percent: ratio.transpose()?.unwrap_or(unset.max_ratio_percent),
            media: media.transpose()?.unwrap_or(unset.media),
            except: except.transpose()?.unwrap_or(unset.except),
            breach: self.breach.unwrap_or(unset.breach),
            breach_all: !field.is_empty() && self.breach.is_some(),
        })
    }
}

fn distinct(field: &str, codings: &[Coding]) -> Result<Vec<Coding>, ConfigError> {
    if codings.is_empty() {
        let all: Vec<&str> = Coding::ALL.iter().map(|coding| coding.token()).collect();
        let message = format!("at least one of {} is needed", all.join(", "));
        return Err(ConfigError::new(field, message));
    }
    for (at, coding) in codings.iter().enumerate() {
        if codings.iter().take(at).any(|other| other == coding) {
            let message = format!("`{}` is there twice", coding.token());
            return Err(ConfigError::new(format!("{field}[{at}]"), message));
        }
    }
    Ok(codings.to_vec())
}

fn ranges(field: &str, texts: &[String]) -> Result<Vec<MediaRange>, ConfigError> {
    if texts.len() > 1000 {
        let message = format!("{} media types; at most 1000", texts.len());
        return Err(ConfigError::new(field, message));
    }
    let parsed = texts.iter().enumerate().map(|(at, text)| {
        MediaRange::parse(text).ok_or_else(|| {
            let message = format!(
                "`{text}` is no media type; write `type/subtype`, `type/*`, `type/*+suffix`, `*+suffix` or `*/*`"
            );
            ConfigError::new(format!("{field}[{at}]"), message)
        })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::{Configured, load, schema};

    use crate::Compress;

    fn settings(json: &str) -> Settings {
        let config = serde_json::from_str::<Config>(json).expect(json);
        Settings::check(&config).expect(json)
    }

    #[test]
    fn a_bad_configuration_is_refused_by_name_value_and_bound() {
        for (json, field, parts) in [
            (r#"{"gzip_level": 0}"#, "gzip_level", &["0", "1 to 9"][..]),
            (
                r#"{"deflate_level": 10}"#,
                "deflate_level",
                &["10", "1 to 9"],
            ),
            (
                r#"{"brotli_level": 12}"#,
                "brotli_level",
                &["12", "0 to 11"],
            ),
            (
                r#"{"brotli_window_bits": 16}"#,
                "brotli_window_bits",
                &["16", "17 to 24"],
            ),
            (
                r#"{"min_bytes": 1073741825}"#,
                "min_bytes",
                &["1073741825", "0 to 1073741824"],
            ),
            (
                r#"{"max_ratio_percent": 0}"#,
                "max_ratio_percent",
                &["0", "1 to 100"],
            ),
            (r#"{"memory_bytes": 1}"#, "memory_bytes", &["1 ", "1048576"]),
            (
                r#"{"breach_bytes": 8}"#,
                "breach_bytes",
                &["8", "16 to 4096"],
            ),
            (
                r#"{"cpu_percent": 101}"#,
                "cpu_percent",
                &["101", "1 to 100"],
            ),
            (r#"{"codings": []}"#, "codings", &["at least one"]),
            (
                r#"{"codings": ["br", "br"]}"#,
                "codings[1]",
                &["br", "twice"],
            ),
            (r#"{"codings": ["zip"]}"#, "codings[0]", &["zip", "gzip"]),
            (
                r#"{"media_types": ["text/*", "html"]}"#,
                "media_types[1]",
                &["html"],
            ),
            (
                r#"{"except_media_types": ["*"]}"#,
                "except_media_types[0]",
                &["`*`"],
            ),
            (r#"{"gzip_level": "fast"}"#, "gzip_level", &["fast"]),
            (r#"{"gziplevel": 1}"#, "gziplevel", &["unknown field"]),
            (
                r#"{"decode": {"max_ratio": 1}}"#,
                "decode.max_ratio",
                &["1 ", "2 to 1100"],
            ),
            (
                r#"{"decode": {"transcode": true}}"#,
                "decode.transcode",
                &["for_client"],
            ),
            (
                r#"{"decode": {"refuse_unknown": true}}"#,
                "decode.refuse_unknown",
                &["requests"],
            ),
            (
                r#"{"decode": {"responses": "all"}}"#,
                "decode.responses",
                &["all", "for_client"],
            ),
            (
                r#"{"dictionaries": {"entries": 1001}}"#,
                "dictionaries.entries",
                &["1001", "0 to 1000"],
            ),
            (
                r#"{"dictionaries": {"bytes": 1}}"#,
                "dictionaries.bytes",
                &["1 ", "65536"],
            ),
            (
                r#"{"dictionaries": {"max_bytes": 9}}"#,
                "dictionaries.max_bytes",
                &["9", "1024"],
            ),
            (r#"{"preset": "tiny"}"#, "preset", &["tiny", "small"]),
            (r#"{"etag": "strong"}"#, "etag", &["strong", "suffix"]),
            (r#"{"breach": "on"}"#, "breach", &["on", "hide_length"]),
            (
                r#"{"rules": [{"path": "a"}]}"#,
                "rules[0].path",
                &["\"a\"", "`/`"],
            ),
            (
                r#"{"rules": [{"path": "/*/b"}]}"#,
                "rules[0].path",
                &["/*/b"],
            ),
            (
                r#"{"rules": [{}, {"gzip_level": 10}]}"#,
                "rules[1].gzip_level",
                &["10", "1 to 9"],
            ),
            (
                r#"{"rules": [{"codings": []}]}"#,
                "rules[0].codings",
                &["at least one"],
            ),
            (
                r#"{"rules": [{"etag": "weak"}]}"#,
                "rules[0].etag",
                &["unknown field"],
            ),
            (
                r#"{"memory_bytes": 1048576, "rules": [{"codings": ["br"]}]}"#,
                "memory_bytes",
                &["br"],
            ),
        ] {
            let Err(error) = load::<Compress>(json.as_bytes()) else {
                panic!("{json} was taken");
            };
            assert_eq!(error.field, field, "{json}: {error}");
            for part in parts {
                assert!(error.message.contains(part), "{json}: {error}");
            }
        }
        let many = Config {
            rules: vec![crate::config::Rule::default(); 101],
            ..Config::default()
        };
        let error = Compress::new(many).err().expect("too many rules");
        assert_eq!(error.field, "rules");
    }

    #[test]
    fn schema_and_defaults() {
        assert!(load::<Compress>(b"").is_ok());
        assert!(load::<Compress>(b"{}").is_ok());
        let schema = schema::<Compress>();
        let gzip = &schema["properties"]["gzip_level"];
        assert_eq!((&gzip["minimum"], &gzip["maximum"]), (&1.into(), &9.into()));
        assert_eq!(schema["additionalProperties"], false);
        for preset in [Preset::Fast, Preset::Balanced, Preset::Small] {
            let config = Config {
                preset,
                ..Config::default()
            };
            let policy = Settings::check(&config).expect("a preset");
            let policy = policy.policy(b"/");
            for coding in Coding::ALL {
                let (_, low, high) = coding.level_option();
                assert!((low..=high).contains(&u64::from(policy.level(coding))));
            }
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let settings = settings(
            r#"{"gzip_level": 2, "rules": [
                {"path": "/live", "disabled": true},
                {"path": "/api/*", "codings": ["gzip"], "min_bytes": 10, "media_types": ["*+json"]},
                {"path": "/api/v2/*", "gzip_level": 9},
                {"path": "/static/*", "preset": "small", "brotli_level": 9, "breach": "off"}
            ]}"#,
        );
        for (path, disabled, gzip, brotli, min_bytes, codings) in [
            ("/", false, 2, 3, 500, 3),
            ("/live", true, 2, 3, 500, 3),
            ("/live/", false, 2, 3, 500, 3),
            ("/api/v2/a", false, 2, 3, 10, 1),
            ("/api", false, 2, 3, 500, 3),
            // A rule's preset goes before what is set outside, what the rule sets before its preset.
            ("/static/a.js", false, 7, 9, 200, 3),
        ] {
            let policy = settings.policy(path.as_bytes());
            let levels = (policy.level(Coding::Gzip), policy.level(Coding::Brotli));
            assert_eq!(policy.disabled, disabled, "{path}");
            assert_eq!(levels, (gzip, brotli), "{path}");
            assert_eq!(policy.min_bytes, min_bytes, "{path}");
            assert_eq!(policy.codings.len().min(3), codings, "{path}");
        }
        assert!(settings.policy(b"/static/a").breach_all);
        assert!(!settings.policy(b"/api/a").breach_all);
        assert_eq!(settings.policy(b"/api/a").media.len(), 1);
        assert!(settings.policy(b"/").media.len() > 10);
        assert_eq!(settings.policy(b"/").codings.first(), Some(&Coding::Zstd));
        let small = settings.policy(b"/static/a");
        assert_eq!(small.codings.first(), Some(&Coding::Brotli));
    }

    #[test]
    fn a_rules_preset_brings_back_no_coding() {
        let rules = r#""rules": [{"path": "/static/*", "preset": "small"}]"#;
        for (codings, want) in [
            (
                "",
                vec![Coding::Brotli, Coding::Zstd, Coding::Gzip, Coding::Deflate],
            ),
            (
                r#""codings": ["gzip", "br"],"#,
                vec![Coding::Gzip, Coding::Brotli],
            ),
        ] {
            let settings = settings(&format!("{{{codings} {rules}}}"));
            assert_eq!(settings.policy(b"/static/a").codings, want);
        }
    }
}
