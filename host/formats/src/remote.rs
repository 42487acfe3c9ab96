//! Wasm that is somewhere else.

/// A file by its URL, known by its SHA-256.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// An absolute URL of `http` or `https`.
    pub url: String,
    /// 64 lower-case digits.
    pub sha256: String,
}

impl Remote {
    /// A URL and a digest, with or without `sha256:` before it.
    ///
    /// # Errors
    /// Which of them is no such thing.
    pub fn new(url: &str, digest: &str) -> Result<Self, String> {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(format!("\"{url}\" is no URL of http or https"));
        }
        let sha256 = digest.strip_prefix("sha256:").unwrap_or(digest);
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("\"{digest}\" is no SHA-256 of 64 digits"));
        }
        Ok(Self {
            url: url.to_owned(),
            sha256: sha256.to_ascii_lowercase(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Remote;

    #[test]
    fn a_url_and_its_digest() {
        let digest = "AB".repeat(32);
        for (url, digest, good) in [
            ("https://a.test/b.wasm", digest.clone(), true),
            ("http://a.test/b.wasm", format!("sha256:{digest}"), true),
            ("file:///b.wasm", digest.clone(), false),
            ("https://a.test", format!("sha512:{digest}"), false),
            ("https://a.test", digest[1..].to_owned(), false),
            ("https://a.test", format!("{}/x", &digest[2..]), false),
        ] {
            let remote = Remote::new(url, &digest);
            assert_eq!(remote.is_ok(), good, "{url} {digest}: {remote:?}");
            assert!(remote.is_err() || remote.is_ok_and(|it| it.sha256 == "ab".repeat(32)));
        }
    }
}
