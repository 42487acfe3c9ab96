//! What the fields of a file say against each other, where each by itself is sound.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Config, ConfigError, Upstream};

impl Config {
    /// Fields of upstreams of which one would leave the other without meaning.
    pub(super) fn check_upstreams(&self) -> Result<(), ConfigError> {
        for (name, upstream) in &self.upstreams {
            let refused = |field: &[&str], message: String| {
                let steps = [&["upstream", name], field].concat();
                let place = self.source.place_of(&steps).unwrap_or(0..0);
                Err(ConfigError::at(
                    &self.source,
                    place,
                    &field_of(&steps),
                    message,
                ))
            };
            let is_there = |field| self.source.place_of(&["upstream", name, field]).is_some();
            if is_there("address") && is_there("addresses") {
                let message = "`addresses` is there, too: want one of both";
                return refused(&["address"], message.to_owned());
            }
            if is_there("resolve_ms") && !upstream.every_address {
                let message = "names are looked up again with `every_address = true` alone: add it, or take this out";
                return refused(&["resolve_ms"], message.to_owned());
            }
            if let Some((at, address)) = twice(upstream) {
                let message = format!("\"{address}\" is there already: an endpoint is named once");
                return refused(&["addresses", &at.to_string()], message);
            }
        }
        Ok(())
    }

    /// The admin pages have an address of their own.
    pub(super) fn check_admin(&self) -> Result<(), ConfigError> {
        let Some(admin) = &self.admin else {
            return Ok(());
        };
        let address = admin.listen.get_ref().0;
        let mut listeners = self.listeners.iter();
        let Some(other) = listeners.find(|it| meet(it.listen.get_ref().0, address)) else {
            return Ok(());
        };
        Err(ConfigError::at(
            &self.source,
            admin.listen.span(),
            "admin.listen",
            format!(
                "listener \"{}\" has {} already: want another port",
                other.name.get_ref(),
                other.listen.get_ref().0
            ),
        ))
    }
}

/// `upstream.origin.addresses[1]`.
fn field_of(steps: &[&str]) -> String {
    let mut field = String::new();
    for step in steps {
        if step.bytes().all(|byte| byte.is_ascii_digit()) {
            field.push_str(&format!("[{step}]"));
        } else {
            let dot = if field.is_empty() { "" } else { "." };
            field.push_str(&format!("{dot}{step}"));
        }
    }
    field
}

/// The first address that is there before, and its place.
fn twice(upstream: &Upstream) -> Option<(usize, &str)> {
    let mut seen = BTreeSet::new();
    let mut addresses = upstream.addresses().enumerate();
    addresses.find(|(_, address)| !seen.insert(address.to_ascii_lowercase()))
}

/// Whether only one of two can be listened on.
pub(super) fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_family = one.is_ipv4() == other.is_ipv4();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || (all && same_family))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_leaves_something_else_without_meaning_is_refused() {
        let file = |admin: &str, upstream: &str| {
            format!(
                "[[listener]]\nname = \"m\"\nlisten = \"127.0.0.1:8000\"\nupstream = \"o\"\n\
                 [admin]\nlisten = \"{admin}\"\n[upstream.o]\n{upstream}\n"
            )
        };
        let free = "127.0.0.1:0";
        let one = "address = \"127.0.0.1:9\"";
        for (name, admin, upstream, want) in [
            (
                "address beside addresses",
                free,
                "addresses = [\"a:1\"]\naddress = \"a:2\"",
                Some((9, "upstream.o.address", "want one of both")),
            ),
            (
                "an address twice",
                free,
                "addresses = [\n\"a:1\",\n\"b:1\",\n\"A:1\"]",
                Some((11, "upstream.o.addresses[2]", "\"A:1\" is there already")),
            ),
            (
                "resolve_ms alone",
                free,
                "addresses = [\"a:1\"]\nresolve_ms = 5000",
                Some((9, "upstream.o.resolve_ms", "every_address = true")),
            ),
            (
                "resolve_ms with what it is for",
                free,
                "addresses = [\"a:1\"]\nresolve_ms = 5000\nevery_address = true",
                None,
            ),
            (
                "the listener's address",
                "127.0.0.1:8000",
                one,
                Some((6, "admin.listen", "listener \"m\" has 127.0.0.1:8000")),
            ),
            ("another port", "127.0.0.1:8001", one, None),
            ("a port of both that is free", free, one, None),
        ] {
            let read = Config::parse(Path::new("a.toml"), file(admin, upstream));
            match (read, want) {
                (Ok(_), None) => {}
                (Err(error), Some((line, field, words))) => {
                    assert_eq!(error.place.map(|it| it.0), Some(line), "{name}: {error}");
                    assert_eq!(error.field, field, "{name}");
                    assert!(error.message.contains(words), "{name}: {error}");
                }
                (got, want) => panic!("{name}: {:?}, not {want:?}", got.err()),
            }
        }
    }

    #[test]
    fn an_address_for_all_meets_each_of_its_family() {
        for (one, other, want) in [
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("[::1]:1", "0.0.0.0:1", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ] {
            let parsed = |text: &str| text.parse().expect(text);
            assert_eq!(meet(parsed(one), parsed(other)), want, "{one} {other}");
        }
    }
}
