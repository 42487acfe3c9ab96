//! Whom a component may reach: `scheme://host:port`, as Spin writes it in `allowed_outbound_hosts`.

use std::net::IpAddr;

/// The host that Spin takes for the application itself in a request; a pattern may also say `self`.
pub const SELF: &str = "self.alt";

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
    /// The application itself, which no address leads to.
    Application,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Ports {
    Any,
    /// From, and up to but not with.
    Range(u16, u16),
    One(u16),
}

impl Outbound {
    /// Reads a pattern as Spin does: `https://*.example.org`, `redis://localhost:6379`, `*://10.0.0.0/8:*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let (scheme, rest) = text.trim().split_once("://").ok_or("it has no scheme")?;
            let scheme = match scheme {
                "*" => None,
                word if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic()) => {
                    Some(word.to_owned())
                }
                _ => return Err("the scheme is a word or `*`"),
            };
            let mut read = Self::read(scheme, rest)?;
            if matches!(&read.host, Host::Name(name) if name == "self" || name == SELF) {
                read.host = Host::Application;
            }
            Ok(read)
        };
        read().map_err(|why| format!("\"{text}\" is no `scheme://host:port`: {why}"))
    }

    /// Reads `host:port`, which is that service whatever the scheme.
    pub fn authority(text: &str) -> Result<Self, String> {
        Self::read(None, text).map_err(|why| format!("\"{text}\" is no `host:port`: {why}"))
    }

    fn read(scheme: Option<String>, rest: &str) -> Result<Self, &'static str> {
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let (port, path) = port.split_once('/').unwrap_or((port, ""));
        if !path.is_empty() {
            return Err(PATH);
        }
        let port = match port {
            "" => Ports::One(
                scheme
                    .as_deref()
                    .and_then(default_port)
                    .ok_or("this scheme needs a port, or `:*`")?,
            ),
            port => Ports::read(port)?,
        };
        let host = Host::read(host.trim())?;
        Ok(Self { scheme, host, port })
    }

    /// Whether a request of the application to itself is one of them: the port does not count.
    pub fn allows_self(&self) -> bool {
        matches!(self.host, Host::Any | Host::Application)
            && matches!(self.scheme.as_deref(), None | Some("http" | "https"))
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
            Host::Application => false,
        };
        let of_port = match self.port {
            Ports::Any => true,
            Ports::One(only) => port == only,
            Ports::Range(from, to) => (from..to).contains(&port),
        };
        of_host && of_port && self.scheme.as_ref().is_none_or(|only| *only == scheme)
    }
}

/// What is said of anything behind host and port.
const PATH: &str = "a path has no place in it";

impl Host {
    fn read(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, rest) = text.split_once('/').unwrap_or((text, ""));
        if !rest.is_empty() {
            let address: IpAddr = name.parse().map_err(|_| PATH)?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            return match rest.parse() {
                Ok(bits) if bits <= most => Ok(Self::Network(address, bits)),
                _ => Err("a network has no more bits than its address"),
            };
        }
        match name.strip_prefix("*.") {
            Some(domain) if !domain.contains('*') => {
                Ok(Self::Below(format!(".{}", domain.to_ascii_lowercase())))
            }
            None if name.is_empty() => Err("it has no host"),
            None if !name.contains(['*', '?', '#', '@']) => Ok(Self::Name(
                name.trim_matches(['[', ']']).to_ascii_lowercase(),
            )),
            _ => Err("`*` is a whole host or its first part"),
        }
    }
}

impl Ports {
    fn read(text: &str) -> Result<Self, &'static str> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.split_once("..") {
            Some((from, to)) => match number(from).zip(number(to)) {
                Some((from, to)) if from < to => Ok(Self::Range(from, to)),
                _ => Err("a range of ports is `from..to`"),
            },
            None => number(text).map(Self::One).ok_or("the port is no number"),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" => 80,
        "https" => 443,
        "redis" => 6379,
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
            ("*://ff00::/8:80", "http", "ff01::1", None, true),
            ("rediss://h:6380", "rediss", "h", Some(6380), true),
            ("rediss://h:6380", "redis", "h", Some(6380), false),
            ("http://a.org:/", "http", "a.org", None, true),
            ("http://self", "http", "self", None, false),
            ("http://self.alt", "http", "self.alt", None, false),
            ("http://*", "http", "self", None, true),
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
            "a.org:443",
            "http://",
            "http://a*b",
            "http://a:x",
            "http://a:9..8",
            "http://a/b",
            "http://a:80/b",
            "http://a/b:80",
            "http://10.0.0.0/33:80",
            "http://10.0.0.0/99:80",
            "http://ff00::/129:80",
            "http://[::1]",
            "foo://a",
            "rediss://a",
            "h2+x://a:1",
            "*://a",
            "h ttp://a:1",
        ] {
            assert!(Outbound::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_without_a_scheme_is_that_of_any() {
        let read = Outbound::authority("A.org:9000").unwrap();
        for (scheme, host, port, want) in [
            ("http", "a.org", Some(9000), true),
            ("https", "a.org", Some(9000), true),
            ("http", "a.org", None, false),
            ("http", "b.org", Some(9000), false),
        ] {
            let allows = read.allows(scheme, host, port);
            assert_eq!(allows, want, "{scheme}://{host}:{port:?}");
        }
        let own = Outbound::authority("self:80").unwrap();
        assert!(own.allows("http", "self", None), "a host like any other");
        assert!(!own.allows_self());
        assert!(Outbound::authority("a.org").is_err(), "no port");
    }

    #[test]
    fn the_application_is_reached_by_no_address() {
        for (pattern, want) in [
            ("http://self", true),
            ("https://self.alt", true),
            ("http://self:1", true),
            ("*://*:*", true),
            ("https://*:8443", true),
            ("redis://self", false),
            ("redis://*", false),
            ("http://self.org", false),
            ("http://127.0.0.1:*", false),
        ] {
            let read = Outbound::parse(pattern).unwrap();
            assert_eq!(read.allows_self(), want, "{pattern}");
        }
    }
}
