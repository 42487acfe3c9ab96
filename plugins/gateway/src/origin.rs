//! Where the gateway forwards to.

/// An origin: scheme and authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    pub(crate) authority: String,
}

const DEFAULT: &str = "http://127.0.0.1:9000";

impl Origin {
    /// From the environment's text; absent or empty means `http://127.0.0.1:9000`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let text = text.unwrap_or(DEFAULT);
        let refused = |why: &str| format!("`{text}`: {why}");
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refused("expected http://HOST:PORT or https://HOST:PORT"))?;
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(refused("the scheme is neither http nor https")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() {
            return Err(refused("there is no host"));
        }
        // RFC 3986 §3.2: a path, query, fragment or user is not part of what is connected to.
        if let Some(odd) = authority
            .chars()
            .find(|&c| "/?#@\\".contains(c) || c.is_whitespace() || c.is_control())
        {
            return Err(refused(&format!("`{odd}` is not allowed after the scheme")));
        }
        let after_address = authority
            .rfind(']')
            .map_or(authority, |at| authority.get(at + 1..).unwrap_or_default());
        if let Some((_, port)) = after_address.rsplit_once(':')
            && port.parse::<u16>().is_err()
        {
            return Err(refused(&format!(
                "port `{port}` is not between 0 and 65535"
            )));
        }
        Ok(Self {
            https,
            authority: authority.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (name, text, want) in [
            ("default", None, Ok((false, "127.0.0.1:9000"))),
            ("empty", Some(" "), Ok((false, "127.0.0.1:9000"))),
            (
                "secure",
                Some("https://example.com/"),
                Ok((true, "example.com")),
            ),
            ("IPv6", Some("http://[::1]:80"), Ok((false, "[::1]:80"))),
            ("IPv6, no port", Some("http://[::1]"), Ok((false, "[::1]"))),
            ("no scheme", Some("localhost:9000"), Err("expected http://")),
            (
                "other scheme",
                Some("ftp://a"),
                Err("neither http nor https"),
            ),
            ("path", Some("http://a/b"), Err("`/` is not allowed")),
            ("user", Some("http://me@a"), Err("`@` is not allowed")),
            ("port", Some("http://a:70000"), Err("port `70000`")),
            ("no host", Some("http://"), Err("no host")),
        ] {
            match (Origin::parse(text), want) {
                (Ok(origin), Ok((https, authority))) => {
                    assert_eq!(
                        (origin.https, &origin.authority[..]),
                        (https, authority),
                        "{name}"
                    );
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{name}: {why}"),
                (got, want) => assert_eq!(got.is_ok(), want.is_ok(), "{name}: {got:?}"),
            }
        }
    }
}
