//! Requests to the cache itself: who may send them and what they ask for.
//!
//! `PURGE <uri>` invalidates what is stored under the URI, or with the field `surrogate-key: a b` those groups; the field
//! `edgeweir-soft: 1` makes it stale instead. `POST <path>/purge?…` takes one of `key=`, `tag=` (may be repeated), `prefix=`,
//! `pattern=`, `all=1`, and beside it `soft=1`, `spread=<seconds>` and `dry_run=1`. `GET <path>/stats` says what this worker
//! holds. All need `Authorization: Bearer <token>`; without a configured token PURGE is refused and no path is special.

use edgeweir_filter::{ConfigError, Reply, RequestHead};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::groups;
use crate::key::Target;
use crate::meant;

/// Groups in one request at most.
const MOST_GROUPS: usize = 100;

/// Invalidation by request.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The token that such requests must carry (`Authorization: Bearer`). 16 to 256 visible ASCII characters. Default: none,
    /// which turns them off.
    #[schemars(length(min = 16, max = 256))]
    pub token: Option<String>,
    /// Where `purge` and `stats` are, on any host. Default `/.edgeweir/cache`.
    #[schemars(length(max = 256))]
    pub path: Option<String>,
}

impl std::fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminConfig")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("path", &self.path)
            .finish()
    }
}

/// Checked settings; the token is never shown.
#[derive(Clone, Default)]
pub struct AdminSettings {
    token: Option<Vec<u8>>,
    path: Vec<u8>,
}

impl std::fmt::Debug for AdminSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminSettings").finish_non_exhaustive()
    }
}

impl TryFrom<AdminConfig> for AdminSettings {
    type Error = ConfigError;

    fn try_from(config: AdminConfig) -> Result<Self, ConfigError> {
        let visible = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        if let Some(token) = &config.token
            && (!(16..=256).contains(&token.len()) || !visible(token))
        {
            let message = format!(
                "has {} bytes, must be 16 to 256 visible ASCII characters",
                token.len()
            );
            return Err(ConfigError::new("admin.token", message));
        }
        let path = config.path.unwrap_or_else(|| "/.edgeweir/cache".to_owned());
        let good = path.starts_with('/')
            && path.len() > 1
            && path.len() <= 256
            && !path.ends_with('/')
            && visible(&path)
            && !path.contains(['?', '#']);
        if !good {
            let message = format!(
                "is {path:?}, must begin with `/`, not end with it, and have at most 256 visible ASCII characters"
            );
            return Err(ConfigError::new("admin.path", message));
        }
        Ok(Self {
            token: config.token.map(String::into_bytes),
            path: path.into_bytes(),
        })
    }
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Invalidate.
    Purge(Purge),
    /// Say what is held here.
    Stats,
}

/// An invalidation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purge {
    /// What.
    pub what: What,
    /// Make it stale instead of unusable.
    pub soft: bool,
    /// Seconds over which it becomes stale.
    pub spread: u16,
    /// Only say what it would touch in this worker.
    pub dry_run: bool,
}

/// What is to be invalidated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// What is stored under a URI.
    Key(Target),
    /// Groups by name.
    Groups(Vec<String>),
    /// What matches a pattern of host and path.
    Pattern(String),
    /// Everything.
    All,
}

/// Why a request to the cache itself is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    status: u16,
    reason: &'static str,
    detail: String,
    allow: Option<&'static str>,
}

impl Denied {
    fn new(status: u16, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            detail: detail.into(),
            allow: None,
        }
    }

    /// Problem details (RFC 9457).
    pub fn reply(&self) -> Reply {
        let body = json!({
            "title": self.reason.replace('_', " "),
            "status": self.status,
            "detail": self.detail,
        });
        let mut reply = Reply::new(
            self.status,
            &[
                ("content-type", "application/problem+json"),
                ("cache-control", "no-store"),
            ],
            body.to_string(),
        );
        if self.status == 401 {
            // RFC 9110 §15.5.2: "MUST send a WWW-Authenticate header field".
            reply.head.fields.set("www-authenticate", "Bearer");
        }
        if let Some(allow) = self.allow {
            // RFC 9110 §15.5.6: "MUST generate an Allow header field".
            reply.head.fields.set("allow", allow);
        }
        reply
    }
}

/// The answer to an invalidation that the shared store did not take, or only in part.
pub fn unheard() -> Reply {
    let detail = "the shared store did not take all of the invalidation: other workers may not know of it, send it again";
    Denied::new(503, "unavailable", detail).reply()
}

/// The command of a request to the cache itself, or why not; `None` when it is none.
pub fn command(head: &RequestHead, settings: &AdminSettings) -> Option<Result<Command, Denied>> {
    let is_purge = head.method == "PURGE";
    let Some(token) = &settings.token else {
        // An origin that answers it kindly would let anybody invalidate.
        let refused = || Denied::new(403, "no_token", "PURGE needs a configured admin.token");
        return is_purge.then(|| Err(refused()));
    };
    let below = head
        .path_only()
        .strip_prefix(&settings.path[..])
        .and_then(|rest| rest.strip_prefix(b"/"));
    if !is_purge && below.is_none() {
        return None;
    }
    if !is_authorized(head, token) {
        let detail = "Authorization: Bearer <token> is missing or wrong";
        return Some(Err(Denied::new(401, "unauthorized", detail)));
    }
    Some(match (is_purge, &head.method[..], below) {
        (true, ..) => of_purge(head),
        (_, b"POST", Some(b"purge")) => of_query(head),
        (_, b"GET", Some(b"stats")) => Ok(Command::Stats),
        (_, _, Some(known @ (b"purge" | b"stats"))) => Err(Denied {
            allow: Some(if known == b"purge" { "POST" } else { "GET" }),
            ..Denied::new(405, "method_not_allowed", "POST …/purge or GET …/stats")
        }),
        _ => Err(Denied::new(404, "not_found", "POST …/purge or GET …/stats")),
    })
}

/// Takes a time that does not depend on where the tokens differ, only on how long they are.
fn is_authorized(head: &RequestHead, token: &[u8]) -> bool {
    let mut values = head.fields.values("authorization");
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    // RFC 9110 §11.1: the scheme is compared without case.
    let Some((scheme, given)) = value.split_at_checked(7) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.trim_ascii().ct_eq(token))
}

fn of_purge(head: &RequestHead) -> Result<Command, Denied> {
    let what = match head.fields.has("surrogate-key") {
        true => {
            let lines = head.fields.values("surrogate-key");
            let names = lines.flat_map(|line| line.split(u8::is_ascii_whitespace));
            let names = names.filter(|name| !name.is_empty());
            let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
            What::Groups(group_names(names.collect())?)
        }
        false if head.authority.is_empty() => {
            let detail = "the request names no host";
            return Err(Denied::new(400, "bad_request", detail));
        }
        false => What::Key(Target::of(head)),
    };
    Ok(Command::Purge(Purge {
        what,
        soft: match head.fields.text("edgeweir-soft") {
            Some(value) => flag("edgeweir-soft", value)?,
            None => false,
        },
        spread: 0,
        dry_run: false,
    }))
}

fn of_query(head: &RequestHead) -> Result<Command, Denied> {
    let bad = |detail: String| Denied::new(400, "bad_request", detail);
    let mut purge = Purge {
        what: What::All,
        soft: false,
        spread: 0,
        dry_run: false,
    };
    let (mut groups, mut what) = (Vec::new(), Vec::new());
    for pair in head.query().unwrap_or_default().split(|byte| *byte == b'&') {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => pair.split_at(at),
            None => (pair, &b""[..]),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let value = decoded(value.get(1..).unwrap_or_default())
            .ok_or_else(|| bad(format!("`{name}` is not UTF-8 in percent-encoding")))?;
        match name.as_str() {
            "" => {}
            "key" => what.push(What::Key(
                meant::target(head, &value).map_err(|why| bad(format!("`key` {why}")))?,
            )),
            "tag" => groups.push(value),
            "prefix" if value.contains(['*', '?']) => {
                return Err(bad(format!(
                    "`prefix` is {value:?}, must have no `*` or `?`"
                )));
            }
            "prefix" | "pattern" => {
                let end = if name == "prefix" { "*" } else { "" };
                let pattern = meant::pattern(head, &value, end);
                what.push(What::Pattern(
                    pattern.map_err(|why| bad(format!("`{name}` {why}")))?,
                ));
            }
            "all" => {
                if flag("all", &value)? {
                    what.push(What::All);
                }
            }
            "soft" => purge.soft = flag("soft", &value)?,
            "dry_run" => purge.dry_run = flag("dry_run", &value)?,
            "spread" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds <= 3600);
                purge.spread = seconds
                    .ok_or_else(|| bad(format!("`spread` is {value:?}, must be 0 to 3600")))?;
            }
            other => {
                let known = "key, tag, prefix, pattern, all, soft, spread, dry_run";
                return Err(bad(format!("`{other}` is not known; {known} are")));
            }
        }
    }
    if !groups.is_empty() {
        what.push(What::Groups(group_names(groups)?));
    }
    let count = what.len();
    match (what.pop(), count) {
        (Some(one), 1) => purge.what = one,
        _ => {
            let detail =
                format!("{count} of key, tag, prefix, pattern and all are given, must be 1");
            return Err(bad(detail));
        }
    }
    if purge.spread > 0 && !purge.soft {
        return Err(bad(
            "`spread` needs `soft=1`: what is unusable is so at once".to_owned(),
        ));
    }
    Ok(Command::Purge(purge))
}

fn group_names(names: Vec<String>) -> Result<Vec<String>, Denied> {
    let fits = |name: &String| !name.is_empty() && name.len() <= groups::LONGEST;
    if names.is_empty() || names.len() > MOST_GROUPS || !names.iter().all(fits) {
        let detail = format!(
            "{} groups are named, must be 1 to {MOST_GROUPS}, each of 1 to {} bytes",
            names.len(),
            groups::LONGEST
        );
        return Err(Denied::new(400, "bad_request", detail));
    }
    Ok(names)
}

fn flag(field: &str, value: &str) -> Result<bool, Denied> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => {
            let detail = format!("`{field}` is {other:?}, must be 0 or 1");
            Err(Denied::new(400, "bad_request", detail))
        }
    }
}

/// A query value: percent-encoding undone; `+` is a plus, as in any URI (RFC 3986 §2.2).
fn decoded(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let [high, low] = *digits;
                let value = digit(high)? * 16 + digit(low)?;
                out.push(u8::try_from(value).ok()?);
                rest = after;
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use edgeweir_filter::Fields;

    const TOKEN: &str = "0123456789abcdef";

    fn settings(token: Option<&str>) -> AdminSettings {
        let config = AdminConfig {
            token: token.map(str::to_owned),
            path: None,
        };
        AdminSettings::try_from(config).expect("valid")
    }

    fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: Bytes::copy_from_slice(method.as_bytes()),
            scheme: "https".into(),
            authority: "A.example".into(),
            path: Bytes::copy_from_slice(path.as_bytes()),
            fields: Fields::of(fields),
            ..RequestHead::default()
        }
    }

    fn asked(path: &str) -> Result<Purge, u16> {
        let authorization = format!("Bearer {TOKEN}");
        let head = head("POST", path, &[("authorization", &authorization)]);
        match command(&head, &settings(Some(TOKEN))).expect("for the cache") {
            Ok(Command::Purge(purge)) => Ok(purge),
            Ok(Command::Stats) => panic!("not a purge"),
            Err(denied) => Err(denied.status),
        }
    }

    #[test]
    fn only_who_has_the_token() {
        let path = "/.edgeweir/cache/stats";
        let status = |method, path, authorization: &str, token| {
            let head = head(method, path, &[("authorization", authorization)]);
            command(&head, &settings(token)).map(|result| result.map_err(|denied| denied.status))
        };
        let right = format!("Bearer {TOKEN}");
        assert_eq!(
            status("GET", path, &right, Some(TOKEN)),
            Some(Ok(Command::Stats))
        );
        let lower = format!("bearer {TOKEN}");
        assert!(matches!(
            status("GET", path, &lower, Some(TOKEN)),
            Some(Ok(_))
        ));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeX",
            "Basic x",
            TOKEN,
        ] {
            assert_eq!(
                status("GET", path, wrong, Some(TOKEN)),
                Some(Err(401)),
                "{wrong}"
            );
            assert_eq!(
                status("PURGE", "/x", wrong, Some(TOKEN)),
                Some(Err(401)),
                "{wrong}"
            );
        }
        assert_eq!(
            status("GET", path, &right, None),
            None,
            "no path is special"
        );
        assert_eq!(status("PURGE", "/x", &right, None), Some(Err(403)));
        assert_eq!(status("GET", "/x", &right, Some(TOKEN)), None);
        assert_eq!(status("PUT", path, &right, Some(TOKEN)), Some(Err(405)));
        assert_eq!(
            status("GET", "/.edgeweir/cache/x", &right, Some(TOKEN)),
            Some(Err(404))
        );
    }

    #[test]
    fn what_is_asked_for() {
        let at = |query: &str| asked(&format!("/.edgeweir/cache/purge?{query}"));
        let what = |query: &str| at(query).map(|purge| purge.what);
        let groups =
            |names: &[&str]| What::Groups(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(what("tag=a&tag=b%20c"), Ok(groups(&["a", "b c"])));
        assert_eq!(what("all=1"), Ok(What::All));
        assert_eq!(
            what("prefix=/img/"),
            Ok(What::Pattern("a.example/img/*".to_owned()))
        );
        assert_eq!(
            what("pattern=*/x?.png"),
            Ok(What::Pattern("*/x?.png".to_owned()))
        );
        let pattern = |text: &str| Ok(What::Pattern(text.to_owned()));
        assert_eq!(what("prefix=B.example:443/X"), pattern("b.example/X*"));
        assert_eq!(what("tag=c++"), Ok(groups(&["c++"])));
        let Ok(What::Key(key)) = what("key=%2Fx%3Fy") else {
            panic!("a key");
        };
        assert_eq!(
            (&key.authority[..], &key.path[..]),
            (&b"a.example"[..], &b"/x?y"[..])
        );
        let Ok(What::Key(key)) = what("key=http://b.example/z") else {
            panic!("a key");
        };
        assert_eq!(key.origin(), b"http://b.example");
        let soft = at("all=1&soft=1&spread=30&dry_run=1").expect("valid");
        assert_eq!((soft.soft, soft.spread, soft.dry_run), (true, 30, true));
        for wrong in [
            "",
            "x=1",
            "all=2",
            "all=1&tag=a",
            "tag=",
            "key=x",
            "prefix=a*",
            "prefix=img/",
            "pattern=ftp://a.example/*",
            "spread=5&all=1",
            "spread=9999&soft=1&all=1",
            "tag=%zz",
            "tag=%+f",
            "all=0",
        ] {
            assert_eq!(what(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn a_purge_by_method() {
        let of = |fields: &[(&str, &str)]| {
            let authorization = format!("Bearer {TOKEN}");
            let all = [&[("authorization", authorization.as_str())], fields].concat();
            match command(&head("PURGE", "/x", &all), &settings(Some(TOKEN))) {
                Some(Ok(Command::Purge(purge))) => purge,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(of(&[]).what, What::Key(target) if target.path == "/x"));
        assert!(of(&[("edgeweir-soft", "1")]).soft);
        let named = of(&[("surrogate-key", "a b")]);
        assert_eq!(
            named.what,
            What::Groups(vec!["a".to_owned(), "b".to_owned()])
        );
    }
}
