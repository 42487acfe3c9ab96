//! The client's address, and blocks of addresses.

use std::net::{IpAddr, Ipv6Addr};

use edgeweir_filter::RequestHead;

/// How an address is found.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Proxies in front of the edge that are trusted.
    pub trusted_hops: u8,
    /// Bits of an IPv6 address that make one client.
    pub ipv6_prefix: u8,
}

impl Client {
    /// The client's address: the connection's, or with trusted hops the entry of `X-Forwarded-For` that the outermost
    /// trusted proxy appended. What a client writes itself stands further left and is never reached, whether the edge
    /// knows the connection's address or not: the proxy at its other end is one of those trusted.
    pub fn address(&self, head: &RequestHead) -> Option<IpAddr> {
        let peer = head.peer.as_deref().and_then(parse);
        if self.trusted_hops == 0 {
            return peer;
        }
        // Split at every comma: the field knows no quotes, and one that a client opened must not swallow what follows.
        let entries = head.fields.values("x-forwarded-for");
        let entries = entries.flat_map(|line| line.split(|&byte| byte == b','));
        let entries = entries.map(<[u8]>::trim_ascii);
        let mut chain: Vec<&[u8]> = entries.filter(|entry| !entry.is_empty()).collect();
        // The edge itself may have appended the connection's address already, as Envoy does: without a port.
        let connection = peer.filter(|_| !head.peer_forwarded);
        if connection.is_some() && chain.last().and_then(|entry| bare(entry)) == connection {
            chain.pop();
        }
        let hops = usize::from(self.trusted_hops);
        // The furthest entry that trusted proxies vouch for; an unreadable one ends the search before it.
        let vouched = chain
            .iter()
            .rev()
            .take(hops)
            .map_while(|entry| parse(entry));
        vouched.last().or(peer)
    }

    /// What makes one client of an address.
    pub fn masked(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let keep = leading(128, self.ipv6_prefix);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
            }
        }
    }
}

/// A block of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    /// `192.0.2.0/24`, `2001:db8::/32`, or one address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is no block of addresses: write one like \"192.0.2.0/24\" or \"2001:db8::/32\""
            )
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                (address, Some(prefix.parse::<u8>().map_err(|_| expected())?))
            }
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| expected())?;
        let address = written.to_canonical();
        // Of IPv4 in IPv6 (RFC 4291 §2.5.5.2) the first 96 bits are always the same.
        let prefix = match prefix {
            Some(bits) if written != address => Some(bits.checked_sub(96).ok_or_else(expected)?),
            prefix => prefix,
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        if prefix > most {
            return Err(format!(
                "the prefix of {text:?} is {prefix}: it must be 0 to {most}"
            ));
        }
        Ok(Self { address, prefix })
    }

    /// Whether the address is in it.
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(block), IpAddr::V4(one)) => {
                let differ = u128::from(block.to_bits() ^ one.to_bits());
                differ & leading(32, self.prefix) == 0
            }
            (IpAddr::V6(block), IpAddr::V6(one)) => {
                (block.to_bits() ^ one.to_bits()) & leading(128, self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// The first `prefix` of `width` bits.
fn leading(width: u32, prefix: u8) -> u128 {
    let rest = width.saturating_sub(u32::from(prefix));
    let all = u128::MAX >> (128 - width);
    all & u128::MAX.checked_shl(rest).unwrap_or(0)
}

/// An address alone; IPv4 in IPv6 is IPv4.
fn bare(text: &[u8]) -> Option<IpAddr> {
    let address = std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok()?;
    Some(address.to_canonical())
}

/// An address as an edge or a proxy writes it, with or without a port; IPv4 in IPv6 is IPv4.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or(text);
    let address = bare.parse().ok().or_else(|| {
        let with_port = text.parse::<std::net::SocketAddr>();
        with_port.ok().map(|address| address.ip())
    });
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use edgeweir_filter::Fields;
    use proptest::prelude::*;

    fn head(peer: Option<&str>, forwarded: &[&str]) -> RequestHead {
        let lines = forwarded.iter().map(|value| {
            (
                Bytes::from("x-forwarded-for"),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        });
        RequestHead {
            peer: peer.map(|peer| Bytes::copy_from_slice(peer.as_bytes())),
            fields: Fields::received(lines),
            ..RequestHead::default()
        }
    }

    #[test]
    fn only_trusted_hops_move_the_address() {
        const PEER: Option<&str> = Some("192.0.2.1");
        for (name, hops, peer, forwarded, want) in [
            ("the connection alone", 0, PEER, &["203.0.113.9"][..], PEER),
            (
                "one trusted proxy",
                1,
                PEER,
                &["203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "what the client wrote is further left",
                1,
                PEER,
                &["10.0.0.1, 203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "the edge appended the connection",
                1,
                PEER,
                &["10.0.0.1", "203.0.113.9, 192.0.2.1"],
                Some("203.0.113.9"),
            ),
            (
                "fewer entries than hops",
                3,
                PEER,
                &["203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "an unreadable entry ends the search",
                2,
                PEER,
                &["10.0.0.1, unknown"],
                PEER,
            ),
            (
                "a port is no part of it",
                1,
                PEER,
                &["[2001:db8::1]:443"],
                Some("2001:db8::"),
            ),
            (
                "IPv6 by /64",
                0,
                Some("2001:db8:1:2:3:4:5:6"),
                &[],
                Some("2001:db8:1:2::"),
            ),
            (
                "IPv4 in IPv6 is IPv4",
                0,
                Some("::ffff:192.0.2.1"),
                &[],
                PEER,
            ),
            ("nobody knows", 0, None, &["203.0.113.9"], None),
            (
                "a connection without an address is the trusted proxy's",
                1,
                None,
                &["10.0.0.1, 203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "two proxies, the nearer one's connection without an address",
                2,
                None,
                &["10.0.0.1, 203.0.113.9, 198.51.100.1"],
                Some("203.0.113.9"),
            ),
            ("nobody says", 1, None, &[], None),
            (
                "a client at the proxy's address, with its port",
                1,
                PEER,
                &["203.0.113.9, 192.0.2.1:4711"],
                PEER,
            ),
        ] {
            let client = Client {
                trusted_hops: hops,
                ipv6_prefix: 64,
            };
            let want: Option<IpAddr> = want.map(|text| text.parse().unwrap());
            let address = client.address(&head(peer, forwarded));
            assert_eq!(address.map(|it| client.masked(it)), want, "{name}");
        }
    }

    #[test]
    fn blocks_hold_what_their_prefix_says() {
        for (block, address, has) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("::ffff:192.0.2.0/120", "192.0.2.255", true),
            ("::ffff:192.0.2.0/120", "192.0.3.0", false),
        ] {
            let parsed = Block::parse(block).unwrap();
            assert_eq!(
                parsed.has(address.parse().unwrap()),
                has,
                "{block} {address}"
            );
        }
        for (text, want) in [
            ("192.0.2.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("office", "no block of addresses"),
            ("192.0.2.0/", "no block of addresses"),
        ] {
            let error = Block::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    proptest! {
        /// Whatever a client writes, the key stays its own address.
        #[test]
        fn a_spoofed_field_never_moves_the_address(
            spoofed in prop::collection::vec("[0-9a-f.:, \"\\\\]{0,30}|unknown|10\\.0\\.0\\.1|192\\.0\\.2\\.1", 0..6),
            hops in 1u8..5, edge in 0u8..4
        ) {
            let client = Client { trusted_hops: hops, ipv6_prefix: 64 };
            // The outermost trusted proxy appends the client, each further one the proxy before it.
            let mut vouched = vec!["203.0.113.9".to_owned()];
            vouched.extend((1..hops).map(|hop| format!("198.51.100.{hop}")));
            let (peer, forwarded) = match edge {
                // It knows the connection's address, and appends it or not.
                0 => (Some("192.0.2.1".to_owned()), false),
                1 => {
                    vouched.push("192.0.2.1".to_owned());
                    (Some("192.0.2.1".to_owned()), false)
                }
                // It knows none, or takes the last entry for it.
                2 => (None, false),
                _ => (vouched.last().cloned(), true),
            };
            let head = |lines: &[&str]| RequestHead {
                peer_forwarded: forwarded,
                ..head(peer.as_deref(), lines)
            };
            let all: Vec<&str> = spoofed.iter().chain(&vouched).map(String::as_str).collect();
            let want: Option<IpAddr> = "203.0.113.9".parse().ok();
            prop_assert_eq!(client.address(&head(&all)), want);
            let one_line = all.join(", ");
            prop_assert_eq!(client.address(&head(&[&one_line])), want);
        }
    }
}
