//! Whom a component may reach: `scheme://host:port`, as Spin writes it in `allowed_outbound_hosts`.

use std::net::IpAddr;

/// A family of services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbound {
    /// `None` for any.
    scheme: Option<String>,
    host: Host,
    port: Ports,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    Any,
    /// `*.example.org`: what ends with `.example.org`.
    Below(String),
    Name(String),
    Network(IpAddr, u8),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Ports {
    Any,
    /// From, and up to but not with.
    Range(u16, u16),
    One(u16),
}

impl Outbound {
    /// Reads a pattern: `https://*.example.org`, `redis://localhost:6379`, `*://10.0.0.0/8:*`, or a plain `host:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("\"{text}\" is no `scheme://host:port`: {why}");
        let (scheme, rest) = match text.split_once("://") {
            Some(("*", rest)) => (None, rest),
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme.to_ascii_lowercase()), rest),
            Some(_) => return Err(refuse("the scheme is a word or `*`")),
            None if text.contains(':') => (None, text),
            None => return Err(refuse("it has no scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split(rest);
        let host = match host {
            "" => return Err(refuse("it has no host")),
            "*" => Host::Any,
            host => match (host.strip_prefix("*."), host.split_once('/')) {
                (Some(domain), _) if !domain.contains(['*', '/']) => {
                    Host::Below(format!(".{}", domain.to_ascii_lowercase()))
                }
                (None, Some((address, bits))) => {
                    let network = address.parse().ok().zip(bits.parse().ok());
                    let Some((address, bits)) = network else {
                        return Err(refuse("a path has no place in it"));
                    };
                    Host::Network(address, bits)
                }
                (None, None) if !host.contains(['*', '?', '#', '@']) => {
                    Host::Name(host.trim_matches(['[', ']']).to_ascii_lowercase())
                }
                _ => return Err(refuse("`*` is a whole host or its first part")),
            },
        };
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let port = match port {
            Some("*") => Ports::Any,
            Some(port) => match port.split_once("..") {
                Some((from, to)) => match number(from).zip(number(to)) {
                    Some((from, to)) if from < to => Ports::Range(from, to),
                    _ => return Err(refuse("a range of ports is `from..to`")),
                },
                None => Ports::One(number(port).ok_or_else(|| refuse("the port is no number"))?),
            },
            None => match scheme.as_deref().and_then(default_port) {
                Some(port) => Ports::One(port),
                None => return Err(refuse("this scheme needs a port, or `:*`")),
            },
        };
        Ok(Self { scheme, host, port })
    }

    /// Whether a service is one of them. A missing port is that of the scheme.
    pub fn allows(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let scheme = scheme.to_ascii_lowercase();
        let Some(port) = port.or_else(|| default_port(&scheme)) else {
            return false;
        };
        let of_host = match &self.host {
            Host::Any => true,
            Host::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
            Host::Name(name) => host == *name,
            Host::Network(network, bits) => host
                .parse()
                .is_ok_and(|address| within(*network, *bits, address)),
        };
        let of_port = match self.port {
            Ports::Any => true,
            Ports::One(only) => port == only,
            Ports::Range(from, to) => (from..to).contains(&port),
        };
        of_host && of_port && self.scheme.as_ref().is_none_or(|only| *only == scheme)
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Host and port; the host of IPv6 is in brackets.
fn split(text: &str) -> (&str, Option<&str>) {
    let after = text.rfind(']').map_or(0, |at| at + 1);
    match text.get(after..).and_then(|rest| rest.rfind(':')) {
        Some(at) => (
            text.get(..after + at).unwrap_or_default(),
            text.get(after + at + 1..),
        ),
        None => (text, None),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" => 80,
        "https" => 443,
        "redis" | "rediss" => 6379,
        "mysql" => 3306,
        "postgres" => 5432,
        "mqtt" => 1883,
        _ => return None,
    })
}

fn within(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (
            u128::from(network.to_bits()),
            u128::from(address.to_bits()),
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::from(width - bits.min(width));
    network.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pattern_says_is_reached() {
        for (pattern, scheme, host, port, want) in [
            (
                "http://127.0.0.1:9000",
                "http",
                "127.0.0.1",
                Some(9000),
                true,
            ),
            (
                "http://127.0.0.1:9000",
                "http",
                "127.0.0.1",
                Some(9001),
                false,
            ),
            (
                "http://127.0.0.1:9000",
                "https",
                "127.0.0.1",
                Some(9000),
                false,
            ),
            ("127.0.0.1:9000", "https", "127.0.0.1", Some(9000), true),
            ("https://a.org", "https", "A.org", None, true),
            ("https://a.org", "https", "a.org", Some(8443), false),
            ("https://a.org/", "https", "a.org", Some(443), true),
            ("https://*.a.org", "https", "b.a.org", None, true),
            ("https://*.a.org", "https", "a.org", None, false),
            ("https://*.a.org", "https", "xa.org", None, false),
            ("https://*:*", "https", "any", Some(1), true),
            ("*://*:80", "http", "any", None, true),
            ("*://*:80", "http", "any", Some(81), false),
            ("http://h:8000..9000", "http", "h", Some(8999), true),
            ("http://h:8000..9000", "http", "h", Some(9000), false),
            ("*://10.0.0.0/8:*", "http", "10.1.2.3", Some(1), true),
            ("*://10.0.0.0/8:*", "http", "11.1.2.3", Some(1), false),
            ("*://0.0.0.0/0:*", "http", "11.1.2.3", Some(1), true),
            ("redis://localhost:6379", "redis", "localhost", None, true),
            ("http://[::1]:80", "http", "[::1]", None, true),
        ] {
            let read = Outbound::parse(pattern).unwrap();
            assert_eq!(
                read.allows(scheme, host, port),
                want,
                "{pattern} {scheme}://{host}:{port:?}"
            );
        }
        for bad in [
            "",
            "a.org",
            "http://",
            "http://a*b",
            "http://a:x",
            "http://a:9..8",
            "http://a/b",
            "foo://a",
            "*://a",
            "h ttp://a:1",
        ] {
            assert!(Outbound::parse(bad).is_err(), "{bad}");
        }
    }
}
