//! Who is limited: the client's address, and the key made of a rule's parts.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use edgeweir_filter::RequestHead;

use crate::config::KeyPart;

/// The longest part of a key, bytes; what is longer shares a key with others that begin alike, which is stricter.
const MOST_PART: usize = 512;

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
    /// trusted proxy appended. What a client writes itself stands further left and is never reached.
    pub fn address(&self, head: &RequestHead) -> Option<IpAddr> {
        let peer = head.peer.as_deref().and_then(parse);
        if self.trusted_hops == 0 {
            return peer.map(|address| self.masked(address));
        }
        let mut chain: Vec<Option<IpAddr>> =
            head.fields.list("x-forwarded-for").map(parse).collect();
        // The edge itself may have appended the connection's address already, as Envoy does.
        if peer.is_some() && chain.last() != Some(&peer) {
            chain.push(peer);
        }
        let hops = usize::from(self.trusted_hops);
        let mut trusted = chain
            .iter()
            .rev()
            .take(hops + 1)
            .take_while(|entry| entry.is_some());
        // The furthest entry that trusted proxies vouch for; an unreadable one ends the search before it.
        let mut found = None;
        for entry in trusted.by_ref() {
            found = *entry;
        }
        found.or(peer).map(|address| self.masked(address))
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let keep = u128::MAX
                    .checked_shl(128 - u32::from(self.ipv6_prefix))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
            }
        }
    }
}

fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or(text);
    bare.parse().ok().or_else(|| {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    })
}

/// The key of a rule's state for one request: every part with its length before it, so that no two keys collide by
/// concatenation.
pub fn key(rule: &str, layout: u8, parts: &[KeyPart], client: Client, head: &RequestHead) -> Bytes {
    let mut key = Vec::with_capacity(64);
    push(&mut key, Some(rule.as_bytes()));
    key.push(layout);
    for part in parts {
        match part {
            KeyPart::Client => match client.address(head) {
                Some(IpAddr::V4(address)) => push(&mut key, Some(&address.octets())),
                Some(IpAddr::V6(address)) => push(&mut key, Some(&address.octets())),
                None => push(&mut key, None),
            },
            KeyPart::Path => push(&mut key, Some(head.path_only())),
            KeyPart::Method => push(&mut key, Some(&head.method)),
            KeyPart::Header(name) => push(&mut key, head.fields.joined(name).as_deref()),
        }
    }
    key.into()
}

/// An absent part differs from an empty one.
fn push(key: &mut Vec<u8>, part: Option<&[u8]>) {
    let Some(part) = part else {
        key.extend_from_slice(&u16::MAX.to_le_bytes());
        return;
    };
    let part = part.get(..MOST_PART).unwrap_or(part);
    key.extend_from_slice(&(part.len() as u16).to_le_bytes());
    key.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Fields;

    fn head(peer: Option<&'static str>, forwarded: &[&'static str]) -> RequestHead {
        let lines = forwarded
            .iter()
            .map(|v| (Bytes::from("x-forwarded-for"), Bytes::from(*v)));
        RequestHead {
            peer: peer.map(Bytes::from),
            fields: Fields::received(lines),
            ..RequestHead::default()
        }
    }

    #[test]
    fn only_trusted_hops_move_the_address() {
        for (name, hops, peer, forwarded, want) in [
            (
                "the connection alone",
                0,
                Some("192.0.2.1"),
                &["203.0.113.9"][..],
                Some("192.0.2.1"),
            ),
            (
                "one trusted proxy",
                1,
                Some("192.0.2.1"),
                &["203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "what the client wrote is further left",
                1,
                Some("192.0.2.1"),
                &["10.0.0.1, 203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "the edge appended the connection",
                1,
                Some("192.0.2.1"),
                &["10.0.0.1", "203.0.113.9, 192.0.2.1"],
                Some("203.0.113.9"),
            ),
            (
                "fewer entries than hops",
                3,
                Some("192.0.2.1"),
                &["203.0.113.9"],
                Some("203.0.113.9"),
            ),
            (
                "an unreadable entry ends the search",
                2,
                Some("192.0.2.1"),
                &["10.0.0.1, unknown"],
                Some("192.0.2.1"),
            ),
            (
                "a port is no part of it",
                1,
                Some("192.0.2.1"),
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
                Some("192.0.2.1"),
            ),
            ("nobody knows", 0, None, &["203.0.113.9"], None),
        ] {
            let client = Client {
                trusted_hops: hops,
                ipv6_prefix: 64,
            };
            let want: Option<IpAddr> = want.map(|text| text.parse().unwrap());
            assert_eq!(client.address(&head(peer, forwarded)), want, "{name}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let client = Client {
            trusted_hops: 0,
            ipv6_prefix: 64,
        };
        let of = |a: &'static str, b: Option<&'static str>| {
            let lines = [("a", Some(a)), ("b", b)];
            let lines = lines
                .into_iter()
                .filter_map(|(n, v)| Some((Bytes::from(n), Bytes::from(v?))));
            let head = RequestHead {
                fields: Fields::received(lines),
                ..RequestHead::default()
            };
            let parts = [KeyPart::Header("a".into()), KeyPart::Header("b".into())];
            key("r", 0, &parts, client, &head)
        };
        assert_ne!(of("xy", Some("z")), of("x", Some("yz")));
        assert_ne!(of("x", Some("")), of("x", None));
    }
}
