//! A server of the operator's that filters ask: where it is, and what it is sent.

use std::time::Duration;

use bytes::Bytes;

use crate::{ConfigError, Effect, Fetch, Fields, RequestHead, To, bounded};

/// A server that a filter may ask, checked.
#[derive(Clone, Debug)]
pub struct Service {
    to: String,
    path: String,
    authorization: Option<String>,
    timeout: Duration,
}

impl Service {
    /// The server `to` (a cluster in Envoy, an authority in wasi:http), whose paths begin with `path`. With a token every
    /// request carries `Authorization: Bearer <token>`. Errors name the fields `to`, `path`, `token` and `timeout_ms` (1 to
    /// 10,000) of `field`.
    pub fn new(
        field: &str,
        to: String,
        path: String,
        token: Option<String>,
        timeout_ms: u64,
    ) -> Result<Self, ConfigError> {
        let visible = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        let refuse =
            |part: &str, message: String| Err(ConfigError::new(format!("{field}.{part}"), message));
        if to.is_empty() || to.len() > 256 || !visible(&to) {
            return refuse(
                "to",
                format!("is {to:?}, must be 1 to 256 visible ASCII characters"),
            );
        }
        let good = path.starts_with('/')
            && path.ends_with('/')
            && path.len() <= 256
            && visible(&path)
            && !path.contains(['?', '#']);
        if !good {
            return refuse(
                "path",
                format!(
                    "is {path:?}, must begin and end with `/` and have at most 256 visible ASCII characters"
                ),
            );
        }
        let token = token.as_deref();
        if token.is_some_and(|token| !visible(token) || !(1..=512).contains(&token.len())) {
            return refuse(
                "token",
                "must be 1 to 512 visible ASCII characters".to_owned(),
            );
        }
        let timeout = bounded(&format!("{field}.timeout_ms"), timeout_ms, 1, 10_000)?;
        Ok(Self {
            to,
            path,
            authorization: token.map(|token| format!("Bearer {token}")),
            timeout: Duration::from_millis(timeout),
        })
    }

    /// The longest that a request which somebody waits for may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A request of this method for `rest` below the path.
    pub fn fetch(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_sent() {
        let service = Service::new(
            "l3",
            "store".into(),
            "/a/".into(),
            Some("secret".into()),
            20,
        );
        let service = service.expect("valid");
        let effect = service.fetch("GET", "b", &[("x", "1")], Bytes::new(), service.timeout());
        let Effect::Fetch(fetch) = effect else {
            panic!("a fetch")
        };
        assert_eq!(fetch.to, To::Named("store".into()));
        assert_eq!((&fetch.head.path[..], fetch.head.end), (&b"/a/b"[..], true));
        assert_eq!(
            fetch.head.fields.text("authorization"),
            Some("Bearer secret")
        );
        assert_eq!(fetch.timeout, Duration::from_millis(20));
    }

    #[test]
    fn what_is_refused() {
        for (field, to, path, token, timeout) in [
            ("s.to", "", "/", None, 20),
            ("s.to", "a b", "/", None, 20),
            ("s.path", "a", "limit", None, 20),
            ("s.path", "a", "/x?/", None, 20),
            ("s.token", "a", "/", Some(""), 20),
            ("s.token", "a", "/", Some("a\nb"), 20),
            ("s.timeout_ms", "a", "/", None, 0),
            ("s.timeout_ms", "a", "/", None, 10_001),
        ] {
            let token = token.map(str::to_owned);
            let error = Service::new("s", to.into(), path.into(), token, timeout);
            assert_eq!(error.err().map(|error| error.field), Some(field.to_owned()));
        }
    }
}
