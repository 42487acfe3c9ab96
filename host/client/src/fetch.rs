//! What is at a URL, whole and bounded.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, StatusCode};
use url::{ParseError, Url};

use crate::ask::{Asker, Keep};

/// Redirects that are followed, one after another.
const REDIRECTS: usize = 10;
/// How long each answer may take, its body with it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The body of a GET, of at most so many bytes, behind up to ten redirects.
///
/// # Errors
/// What is no absolute URL of `http` or `https`; another status than 200; a body that is longer, or takes longer than two
/// minutes; a redirect from `https` to `http`.
pub async fn fetch(url: &str, most: usize) -> anyhow::Result<Bytes> {
    let asker = Asker::new(None, PATIENCE)?;
    let mut url = url.to_owned();
    for _ in 0..=REDIRECTS {
        let answer = asker.ask(Method::GET, &url, &[], Keep::UpTo(most)).await?;
        let redirects = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.headers.get(LOCATION).filter(|_| redirects) else {
            if answer.status != StatusCode::OK {
                bail!("{url} is answered with {}", answer.status);
            }
            return Ok(answer.body);
        };
        let to = location.to_str().context("a redirect to what is no URL")?;
        let to = joined(&url, to).with_context(|| format!("a redirect to \"{to}\""))?;
        if url.starts_with("https:") && !to.starts_with("https:") {
            bail!("{url} leads to {to}, without TLS");
        }
        url = to;
    }
    bail!("more than {REDIRECTS} redirects")
}

/// A reference within a URL (RFC 3986 §5.2).
fn joined(base: &str, reference: &str) -> Result<String, ParseError> {
    Ok(Url::parse(base)?.join(reference)?.into())
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn references_lead_on_from_where_they_are() {
        for (base, reference, want) in [
            ("http://a.test/b/c?d", "http://e.test/f", "http://e.test/f"),
            ("https://a.test/b/c", "//e.test/f", "https://e.test/f"),
            ("http://a.test:1/b/c", "/f?g", "http://a.test:1/f?g"),
            ("http://a.test/b/c?d/e", "f", "http://a.test/b/f"),
            ("http://a.test", "f", "http://a.test/f"),
            (
                "http://a.test/b",
                "/f?u=http://e",
                "http://a.test/f?u=http://e",
            ),
        ] {
            let found = joined(base, reference);
            assert_eq!(found.as_deref(), Ok(want), "{base} {reference}");
        }
    }
}
