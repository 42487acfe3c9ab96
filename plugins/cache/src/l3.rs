//! The third tier: an HTTP store that outlives the edge and that machines share, asked when the other two have nothing.
//!
//! `GET <path><name>` answers 200 with what was put, or 404; with `edgeweir-lease: <ms>` 404 also gives the lease on the name,
//! and 409 says that another has it. `PUT <path><name>` keeps the body for as many seconds as the field `edgeweir-ttl` says,
//! under the groups of `edgeweir-groups` and the URI of `edgeweir-uri`. `POST <path>invalidate?<what>` forgets what is named:
//! `names=a,b`, `groups=a,b`, `prefix=`, `pattern=` (both of host and path) or `all=1`; its field `edgeweir-news` is for the other
//! machines, who read it with `GET <path>news?since=<mark>`. A name is 32 hexadecimal digits, a group 16; one group of each entry
//! is its URI's. Any status but these is a failure: the tier is then as if empty, and why is counted below `cache.l3.failed`.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::{
    Answer, Breaker, ConfigError, Cx, Effect, Failed, Pass, Service, Task, Trouble, bounded,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::kept;
use crate::key::Key;

/// The longest a write or an invalidation takes: no client waits for it, and a lost one is worse than a slow one.
const TELL: Duration = Duration::from_secs(5);
/// Groups in one request: each is named twice, and a head has 32 KiB.
const GROUPS_AT_ONCE: usize = 400;

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
    /// The longest a response is kept there, in seconds. 1 to 31536000 (a year). Default 31536000: as long as it may be of use.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 1, max = 31536000))]
    pub seconds: u64,
    /// `through` (with every store) or `behind` (after `behind_ms`, and only what is current then). Default `through`.
    #[serde(default)]
    pub write: Write,
    /// Milliseconds that a write is behind. 1 to 600000. Default 1000.
    #[serde(default = "default_behind")]
    #[schemars(range(min = 1, max = 600000))]
    pub behind_ms: u64,
    /// Milliseconds for which one machine or worker alone asks the origin for what nobody has, while the others wait for
    /// it to be in the store; a holder that is gone costs the others this long. 0 (each asks by itself) to 60000.
    /// Default 2000. Needs `write` to be `through`.
    #[serde(default = "default_lease")]
    #[schemars(range(max = 60000))]
    pub lease_ms: u64,
    /// Milliseconds after which the store is asked what other machines invalidated. An invalidation is known everywhere
    /// after twice as long. 0 (never) to 60000. Default 500.
    #[serde(default = "default_news")]
    #[schemars(range(max = 60000))]
    pub news_ms: u64,
}

fn default_path() -> String {
    "/cache/".to_owned()
}
fn default_timeout() -> u64 {
    20
}
fn default_seconds() -> u64 {
    31_536_000
}
fn default_behind() -> u64 {
    1000
}
fn default_lease() -> u64 {
    2000
}
fn default_news() -> u64 {
    500
}

/// A checked third tier. Clones share the breaker.
#[derive(Clone, Debug)]
pub struct L3 {
    service: Service,
    breaker: Rc<Breaker>,
    /// The longest a response is kept there.
    pub residence: Duration,
    /// How long writes wait; `None` when they don't.
    pub behind: Option<Duration>,
    /// How long a lease lasts; `None` when there are none.
    pub lease: Option<Duration>,
    /// How often others are heard; `None` for never.
    pub news: Option<Duration>,
}

impl TryFrom<L3Config> for L3 {
    type Error = ConfigError;
    fn try_from(config: L3Config) -> Result<Self, ConfigError> {
        let millis = |name: &str, value, least, most| {
            bounded(&format!("l3.{name}"), value, least, most).map(Duration::from_millis)
        };
        let behind = millis("behind_ms", config.behind_ms, 1, 600_000)?;
        let lease = millis("lease_ms", config.lease_ms, 0, 60_000)?;
        let news = millis("news_ms", config.news_ms, 0, 60_000)?;
        let is_behind = config.write == Write::Behind;
        Ok(Self {
            service: Service::new(
                "l3",
                config.to,
                config.path,
                config.token,
                config.timeout_ms,
            )?,
            breaker: Rc::default(),
            residence: bounded("l3.seconds", config.seconds, 1, 31_536_000)
                .map(Duration::from_secs)?,
            behind: is_behind.then_some(behind),
            // Who waits for a lease waits for the write.
            lease: (!lease.is_zero() && !is_behind).then_some(lease),
            news: (!news.is_zero()).then_some(news),
        })
    }
}

/// What invalidations may name of a stored response.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its key.
    pub key: &'a Key,
    /// Its groups, beside the one of its URI.
    pub groups: &'a [u64],
}

/// What the store has of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// This.
    Kept(Bytes),
    /// Nothing; where a lease was asked for, it was given.
    Nothing,
    /// Nothing, and another has the lease.
    Held,
    /// It can't be known.
    Failed,
}

impl L3 {
    /// The longest a read takes.
    pub fn timeout(&self) -> Duration {
        self.service.timeout()
    }

    /// Leave to ask the store, or why there is none, counted.
    pub fn pass(&self, cx: &mut Cx<'_>) -> Option<Pass> {
        let pass = self.breaker.ask(cx.now);
        if pass.is_none() {
            cx.count("cache.l3.failed");
            cx.count("cache.l3.failed.breaker_open");
        }
        pass
    }

    /// Asks for what is kept under a name, and for the lease on it.
    pub fn read(&self, name: &[u8], lease: Option<Duration>) -> Effect {
        let millis = lease.map(|lease| lease.as_millis().to_string());
        let field = millis.as_deref().map(|millis| ("edgeweir-lease", millis));
        let fields: Vec<_> = field.into_iter().collect();
        let (rest, timeout) = (digits(name), self.service.timeout());
        self.service
            .fetch("GET", &rest, &fields, Bytes::new(), timeout)
    }

    /// What the answer to a read says.
    pub fn said(&self, answer: &Answer, name: &[u8], pass: Pass, cx: &mut Cx<'_>) -> Said {
        match answer {
            Answer::Fetched(Ok(reply)) if matches!(reply.head.status, 200 | 404 | 409) => {
                self.breaker.well(pass);
                match reply.head.status {
                    200 => value_of(&reply.body, name).map_or(Said::Nothing, Said::Kept),
                    409 => Said::Held,
                    _ => Said::Nothing,
                }
            }
            other => {
                self.failed(other, Some(pass), cx);
                Said::Failed
            }
        }
    }

    /// Asks what other machines invalidated since a mark.
    pub fn news(&self, mark: &str) -> Effect {
        let (rest, timeout) = (format!("news?since={mark}"), self.service.timeout());
        self.service.fetch("GET", &rest, &[], Bytes::new(), timeout)
    }

    /// The text of an answer to `news`, `None` within where the store has no news; `None` when it failed.
    pub fn heard(&self, answer: &Answer, pass: Pass, cx: &mut Cx<'_>) -> Option<Option<String>> {
        match answer {
            Answer::Fetched(Ok(reply)) if matches!(reply.head.status, 400 | 404 | 405 | 501) => {
                self.breaker.well(pass);
                Some(None)
            }
            Answer::Fetched(Ok(reply)) if reply.head.status == 200 => {
                self.breaker.well(pass);
                Some(Some(String::from_utf8_lossy(&reply.body).into_owned()))
            }
            other => {
                self.failed(other, Some(pass), cx);
                None
            }
        }
    }

    /// Keeps a value for `ttl`, and ends the lease on it. It carries its whole name: the digits alone could be another
    /// one's.
    pub fn write(
        &self,
        name: &[u8],
        value: &[u8],
        about: &About<'_>,
        ttl: Duration,
        releases: bool,
    ) -> Effect {
        let own = [kept::group(about.key.uri_part())];
        let groups = listed(&[&own[..], about.groups].concat());
        let uri = about.key.host_and_path();
        let uri = String::from_utf8_lossy(&uri);
        let seconds = ttl.as_secs().max(1).to_string();
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
        let body = [&length[..], name, value].concat();
        let fields = [
            ("edgeweir-ttl", seconds.as_str()),
            ("edgeweir-groups", &groups),
            ("edgeweir-uri", &uri),
            ("edgeweir-lease", "release"),
        ];
        let sent = if releases { &fields[..] } else { &fields[..3] };
        self.service
            .fetch("PUT", &digits(name), sent, body.into(), TELL)
    }

    /// Ends a lease without a write.
    pub fn release(&self, name: &[u8]) -> Effect {
        let fields = [("edgeweir-lease", "release")];
        self.service
            .fetch("DELETE", &digits(name), &fields, Bytes::new(), TELL)
    }

    /// Forgets a name.
    pub fn forget(&self, name: &[u8]) -> Effect {
        self.invalidate(&format!("names={}", digits(name)), None)
    }

    /// Forgets all that is kept under a key's URI; `news` is for the other machines.
    pub fn forget_uri(&self, key: &Key, news: &str) -> Effect {
        let group = listed(&[kept::group(key.uri_part())]);
        self.invalidate(&format!("groups={group}"), Some(news))
    }

    /// Forgets what is in groups; `news` makes of groups what the other machines are told.
    pub fn forget_groups(&self, groups: &[u64], news: impl Fn(&str) -> String) -> Vec<Effect> {
        let at_once = groups.chunks(GROUPS_AT_ONCE).map(listed);
        at_once
            .map(|groups| self.invalidate(&format!("groups={groups}"), Some(&news(&groups))))
            .collect()
    }

    /// Makes what a query names unusable.
    pub fn invalidate(&self, query: &str, news: Option<&str>) -> Effect {
        let fields: Vec<_> = news
            .filter(|_| self.news.is_some())
            .map(|news| ("edgeweir-news", news))
            .into_iter()
            .collect();
        let path = format!("invalidate?{query}");
        self.service
            .fetch("POST", &path, &fields, Bytes::new(), TELL)
    }

    /// Something the store is told while nobody waits.
    pub fn tell(&self, effect: Effect) -> Tell {
        Tell {
            third: self.clone(),
            effect: Some(effect),
        }
    }

    /// Whether the store did what it was told; else it is counted why not.
    pub fn told(&self, answer: &Answer, pass: Option<Pass>, cx: &mut Cx<'_>) -> bool {
        let done =
            matches!(answer, Answer::Fetched(Ok(reply)) if (200..300).contains(&reply.head.status));
        // One value that it does not take as it is says nothing of the others.
        let not_taken = matches!(answer, Answer::Fetched(Ok(reply)) if matches!(reply.head.status, 400 | 413 | 431));
        if let (true, Some(pass)) = (done || not_taken, pass) {
            let _ = self.breaker.well(pass);
        }
        if !done {
            self.failed(answer, pass.filter(|_| !not_taken), cx);
        }
        done
    }

    fn failed(&self, answer: &Answer, pass: Option<Pass>, cx: &mut Cx<'_>) {
        cx.count("cache.l3.failed");
        let (name, trouble) = match answer {
            Answer::Fetched(Err(failed)) => {
                let name = match failed {
                    Failed::TimedOut => "cache.l3.failed.timed_out",
                    Failed::Unsupported => "cache.l3.failed.unsupported",
                    _ => "cache.l3.failed.unavailable",
                };
                (name, Some(Trouble::from(*failed)))
            }
            Answer::Fetched(Ok(reply)) => match reply.head.status {
                401 | 403 => ("cache.l3.failed.denied", Some(Trouble::Refused)),
                413 => ("cache.l3.failed.too_large", None),
                507 => ("cache.l3.failed.full", None),
                _ => ("cache.l3.failed.error", Some(Trouble::Refused)),
            },
            _ => ("cache.l3.failed.unsupported", Some(Trouble::Refused)),
        };
        cx.count(name);
        let Some(pass) = pass else { return };
        match trouble {
            None => drop(self.breaker.well(pass)),
            Some(trouble) => {
                if self.breaker.failed(pass, trouble, cx.now) {
                    cx.count("cache.l3.breaker_opened");
                }
            }
        }
    }
}

/// Something the store is told while nobody waits; when that fails it is counted.
pub struct Tell {
    third: L3,
    effect: Option<Effect>,
}

impl Task for Tell {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        self.effect.take()
    }

    fn answer(&mut self, answer: Answer, cx: &mut Cx<'_>) -> Option<Effect> {
        self.third.told(&answer, None, cx);
        None
    }
}

fn listed(groups: &[u64]) -> String {
    let groups: Vec<String> = groups.iter().map(|group| format!("{group:016x}")).collect();
    groups.join(",")
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
    use edgeweir_filter::{Record, Reply, RequestHead, Timestamp};

    use crate::config::KeySettings;

    fn key() -> Key {
        let head = RequestHead {
            scheme: "http".into(),
            authority: "a.example".into(),
            path: "/x?y".into(),
            ..RequestHead::default()
        };
        Key::of(&head, &KeySettings::default()).expect("a key")
    }

    #[test]
    fn what_is_written_is_read_by_its_name_only() {
        let config = serde_json::from_str::<L3Config>(r#"{"to": "store"}"#).expect("valid");
        let l3 = L3::try_from(config).expect("valid");
        let (key, ttl) = (key(), Duration::from_secs(7));
        let about = About {
            key: &key,
            groups: &[1],
        };
        let Effect::Fetch(put) = l3.write(b"name", b"value", &about, ttl, false) else {
            panic!("a fetch");
        };
        assert_eq!(put.head.fields.text("edgeweir-ttl"), Some("7"));
        assert_eq!(put.head.fields.text("edgeweir-uri"), Some("a.example/x"));
        assert!(!put.head.fields.has("edgeweir-lease"));
        // Invalidated by its own groups and by that of its URI.
        let groups = put.head.fields.text("edgeweir-groups").expect("groups");
        let Effect::Fetch(forget) = l3.forget_uri(&key, "news") else {
            panic!("a fetch");
        };
        let path = String::from_utf8_lossy(&forget.head.path).into_owned();
        let own = path.strip_prefix("/cache/invalidate?groups=").expect("one");
        assert_eq!(groups, format!("{own},{:016x}", 1));
        let mut record = Record::default();
        let mut cx = Cx::new(Timestamp::from_secs(1), &mut record);
        for (status, name, want) in [
            (200, &b"name"[..], Said::Kept(Bytes::from("value"))),
            (200, b"other", Said::Nothing),
            (404, b"name", Said::Nothing),
            (409, b"name", Said::Held),
            (503, b"name", Said::Failed),
        ] {
            let pass = l3.pass(&mut cx).expect("closed");
            let answer = Answer::Fetched(Ok(Reply::new(status, &[], put.body.clone())));
            assert_eq!(l3.said(&answer, name, pass, &mut cx), want, "{status}");
        }
        let Effect::Fetch(get) = l3.read(b"name", Some(Duration::from_secs(2))) else {
            panic!("a fetch");
        };
        assert_eq!(get.head.path, put.head.path);
        assert_eq!(get.head.path.len(), "/cache/".len() + 32);
        assert_eq!(get.head.fields.text("edgeweir-lease"), Some("2000"));
    }

    #[test]
    fn a_value_that_is_not_taken_says_nothing_of_others() {
        let config = serde_json::from_str::<L3Config>(r#"{"to": "store"}"#).expect("valid");
        for (status, opens) in [(400, 0), (413, 0), (431, 0), (507, 0), (500, 1), (401, 1)] {
            let l3 = L3::try_from(config.clone()).expect("valid");
            let mut record = Record::default();
            let mut cx = Cx::new(Timestamp::from_secs(1), &mut record);
            for _ in 0..3 {
                let pass = l3.pass(&mut cx).expect("closed");
                let answer = Answer::Fetched(Ok(Reply::new(status, &[], "")));
                assert!(!l3.told(&answer, Some(pass), &mut cx), "{status}");
            }
            assert_eq!(usize::from(l3.pass(&mut cx).is_none()), opens, "{status}");
            let counted = |name| record.counts.iter().filter(|it| it.0 == name).count();
            assert_eq!(counted("cache.l3.breaker_opened"), opens, "{status}");
        }
    }

    #[test]
    fn many_groups_are_several_requests() {
        let config = serde_json::from_str::<L3Config>(r#"{"to": "store"}"#).expect("valid");
        let l3 = L3::try_from(config).expect("valid");
        let groups: Vec<u64> = (0..1_001).collect();
        let told = l3.forget_groups(&groups, |groups| format!("g {groups}"));
        assert_eq!(told.len(), 3);
        for effect in &told {
            let Effect::Fetch(fetch) = effect else {
                panic!("a fetch");
            };
            let news = fetch.head.fields.get("edgeweir-news").map(<[u8]>::len);
            assert!(news.is_some_and(|length| length < 8 * 1024));
        }
    }
}
