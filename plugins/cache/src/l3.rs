//! The third tier: an HTTP store that outlives the edge, asked when the other two have nothing.
//!
//! `GET <path><name>` answers 200 with what was put, or 404; `PUT <path><name>` keeps the body for as many seconds as
//! the field `edgeweir-ttl` says, under the groups of `edgeweir-groups` and the URI of `edgeweir-uri`;
//! `POST <path>invalidate?<what>` forgets what is named: `names=a,b`, `groups=a,b`, `prefix=`, `pattern=` (both of host and
//! path) or `all=1`. A name is 32 hexadecimal digits, a group 16. Any status but these is a failure: the tier is then as if
//! empty, and counted in `cache.l3.failed`.

use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, ConfigError, Cx, Effect, Fetch, Fetched, Fields, RequestHead, Task, To, bounded,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// The longest a write or an invalidation takes: no client waits for it, and a lost one is worse than a slow one.
const TELL: Duration = Duration::from_secs(5);

/// When what is stored is written to the third tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Write {
    /// At once, with every store.
    #[default]
    Through,
    /// After a while, and only what is still current then.
    Behind,
}

/// An HTTP store as a third tier.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct L3Config {
    /// The cluster (Envoy) or authority (wasi:http, needs the client) of the store.
    #[schemars(length(min = 1, max = 256))]
    pub to: String,
    /// Where its paths begin. Default `/cache/`.
    #[serde(default = "default_path")]
    pub path: String,
    /// Sent as `Authorization: Bearer <token>`. Default: none.
    #[serde(default)]
    pub token: Option<String>,
    /// Milliseconds a read may take, after which the origin is asked. 1 to 10000. Default 20.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 10000))]
    pub timeout_ms: u64,
    /// `through` (with every store) or `behind` (after `behind_ms`, and only what is current then). Default `through`.
    #[serde(default)]
    pub write: Write,
    /// Milliseconds that a write is behind. 1 to 600000. Default 1000.
    #[serde(default = "default_behind")]
    #[schemars(range(min = 1, max = 600000))]
    pub behind_ms: u64,
}

fn default_path() -> String {
    "/cache/".to_owned()
}
fn default_timeout() -> u64 {
    20
}
fn default_behind() -> u64 {
    1000
}

/// A checked third tier.
#[derive(Clone, Debug)]
pub struct L3 {
    to: String,
    path: String,
    authorization: Option<String>,
    timeout: Duration,
    /// How long writes wait; `None` when they don't.
    pub behind: Option<Duration>,
}

impl TryFrom<L3Config> for L3 {
    type Error = ConfigError;
    fn try_from(config: L3Config) -> Result<Self, ConfigError> {
        let visible = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        if config.to.is_empty() || config.to.len() > 256 || !visible(&config.to) {
            let message = format!(
                "is {:?}, must be 1 to 256 visible ASCII characters",
                config.to
            );
            return Err(ConfigError::new("l3.to", message));
        }
        let good = config.path.starts_with('/')
            && config.path.ends_with('/')
            && config.path.len() <= 256
            && visible(&config.path)
            && !config.path.contains(['?', '#']);
        if !good {
            let message = format!(
                "is {:?}, must begin and end with `/` and have at most 256 visible ASCII characters",
                config.path
            );
            return Err(ConfigError::new("l3.path", message));
        }
        if config
            .token
            .as_deref()
            .is_some_and(|token| !visible(token) || token.is_empty())
        {
            return Err(ConfigError::new(
                "l3.token",
                "must be visible ASCII characters",
            ));
        }
        let behind =
            bounded("l3.behind_ms", config.behind_ms, 1, 600_000).map(Duration::from_millis)?;
        Ok(Self {
            to: config.to,
            path: config.path,
            authorization: config.token.map(|token| format!("Bearer {token}")),
            timeout: bounded("l3.timeout_ms", config.timeout_ms, 1, 10_000)
                .map(Duration::from_millis)?,
            behind: (config.write == Write::Behind).then_some(behind),
        })
    }
}

/// What invalidations may name of a stored response.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Host and path.
    pub uri: &'a [u8],
    /// Its groups.
    pub groups: &'a [u64],
}

impl L3 {
    /// Asks for what is kept under a name.
    pub fn read(&self, name: &[u8]) -> Effect {
        self.fetch("GET", &digits(name), &[], Bytes::new(), self.timeout)
    }

    /// Keeps a value for `ttl`. It carries its whole name: the digits alone could be another one's.
    pub fn write(&self, name: &[u8], value: &[u8], about: &About<'_>, ttl: Duration) -> Effect {
        let groups: Vec<String> = about
            .groups
            .iter()
            .map(|group| format!("{group:016x}"))
            .collect();
        let (groups, uri) = (groups.join(","), String::from_utf8_lossy(about.uri));
        let seconds = ttl.as_secs().max(1).to_string();
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
        let body = [&length[..], name, value].concat();
        let fields = [
            ("edgeweir-ttl", seconds.as_str()),
            ("edgeweir-groups", &groups),
            ("edgeweir-uri", &uri),
        ];
        self.fetch("PUT", &digits(name), &fields, body.into(), TELL)
    }

    /// Forgets names.
    pub fn forget(&self, names: impl Iterator<Item = Bytes>, cx: &mut Cx<'_>) {
        let listed: Vec<String> = names.map(|name| digits(&name)).collect();
        self.invalidate(&format!("names={}", listed.join(",")), cx);
    }

    /// Makes what a query names unusable.
    pub fn invalidate(&self, query: &str, cx: &mut Cx<'_>) {
        let path = format!("invalidate?{query}");
        cx.spawn(Tell(Some(self.fetch(
            "POST",
            &path,
            &[],
            Bytes::new(),
            TELL,
        ))));
    }

    fn fetch(
        &self,
        method: &'static str,
        rest: &str,
        fields: &[(&str, &str)],
        body: Bytes,
        timeout: Duration,
    ) -> Effect {
        let mut fields = Fields::of(fields);
        if let Some(authorization) = &self.authorization {
            fields.set("authorization", authorization.clone());
        }
        Effect::Fetch(Fetch {
            to: To::Named(self.to.clone()),
            head: RequestHead {
                method: Bytes::from_static(method.as_bytes()),
                scheme: Bytes::from_static(b"http"),
                authority: Bytes::copy_from_slice(self.to.as_bytes()),
                path: format!("{}{rest}", self.path).into(),
                fields,
                end: body.is_empty(),
                ..RequestHead::default()
            },
            body,
            timeout,
        })
    }
}

/// Something the store is told while nobody waits; when that fails it is counted.
pub struct Tell(pub Option<Effect>);

impl Task for Tell {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        self.0.take()
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        told(&answer, cx);
        None
    }
}

/// Counts a write or an invalidation that failed.
pub fn told(answer: &Answer, cx: &mut Cx<'_>) {
    if !matches!(answer, Answer::Fetched(Ok(reply)) if (200..300).contains(&reply.head.status)) {
        cx.count("cache.l3.failed");
    }
}

/// The value in the answer to a read: `None` when there is none of this name, `Err` when the store failed.
pub fn found(answer: &Fetched, name: &[u8]) -> Result<Option<Bytes>, u16> {
    match answer.head.status {
        404 => Ok(None),
        200 => Ok(value_of(&answer.body, name)),
        other => Err(other),
    }
}

fn value_of(body: &Bytes, name: &[u8]) -> Option<Bytes> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (kept, value) = rest.split_at_checked(length)?;
    (kept == name).then(|| body.slice_ref(value))
}

/// 128 bits of a name (FNV-1a twice, from two offsets); the value says whose it is.
fn digits(name: &[u8]) -> String {
    let hash = |seed: u64| {
        name.iter().fold(seed, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    format!(
        "{:016x}{:016x}",
        hash(0xcbf2_9ce4_8422_2325),
        hash(0x6c62_272e_07bb_0142)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Reply;

    #[test]
    fn what_is_written_is_read_by_its_name_only() {
        let config = serde_json::from_str::<L3Config>(r#"{"to": "store"}"#).expect("valid");
        let l3 = L3::try_from(config).expect("valid");
        let Effect::Fetch(put) = l3.write(
            b"name",
            b"value",
            &About {
                uri: b"a.example/x",
                groups: &[1],
            },
            Duration::from_secs(7),
        ) else {
            panic!("a fetch");
        };
        assert_eq!(put.head.fields.text("edgeweir-ttl"), Some("7"));
        let answer = |status| Reply::new(status, &[], put.body.clone());
        assert_eq!(found(&answer(200), b"name"), Ok(Some(Bytes::from("value"))));
        assert_eq!(found(&answer(200), b"other"), Ok(None));
        assert_eq!(found(&answer(404), b"name"), Ok(None));
        assert_eq!(found(&answer(503), b"name"), Err(503));
        let Effect::Fetch(get) = l3.read(b"name") else {
            panic!("a fetch");
        };
        assert_eq!(get.head.path, put.head.path);
        assert_eq!(get.head.path.len(), "/cache/".len() + 32);
    }
}
