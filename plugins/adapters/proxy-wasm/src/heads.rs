//! Heads of messages: read whole in one hostcall, written back by the names that changed.

use std::ops::Range;

use bytes::Bytes;
use edgeweir_filter::{Changed, Emergency, Fields, RequestHead, ResponseHead};

use crate::hostcalls::{self, Map, Side, Status};

/// The lines of a map as the host gave them, to compare with when writing back.
#[derive(Default)]
pub struct Received {
    raw: Bytes,
    /// It was not asked for what there is.
    unread: bool,
}

impl Received {
    fn read(map: Map) -> Result<Self, Status> {
        hostcalls::map(map).map(|raw| Self { raw, unread: false })
    }

    /// Where names and values are, pseudo-fields included; cut short where the serialisation is broken.
    fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let raw = &self.raw;
        let count = number(raw, 0).unwrap_or(0);
        let mut at = count.checked_mul(8).and_then(|sizes| sizes.checked_add(4));
        (0..count).map_while(move |index| {
            let name_size = number(raw, 4 + index * 8)?;
            let value_size = number(raw, 8 + index * 8)?;
            let name_at = at?;
            let value_at = name_at.checked_add(name_size)?.checked_add(1)?;
            let end = value_at.checked_add(value_size)?;
            at = end.checked_add(1);
            (end < raw.len()).then_some((name_at..value_at - 1, value_at..end))
        })
    }

    /// Pairs of name and value.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |place| self.raw.get(place).unwrap_or_default();
        self.places()
            .map(move |(name, value)| (part(name), part(value)))
    }

    /// The same, to keep.
    fn owned(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let part = |place| self.raw.slice(place);
        self.places()
            .map(move |(name, value)| (part(name), part(value)))
    }

    /// How many lines of a name there are; one for all that may be there of what was not read.
    fn count(&self, name: &[u8]) -> usize {
        if self.unread {
            return 1;
        }
        self.pairs()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .count()
    }

    /// The field lines, pseudo-fields left out.
    pub fn fields(&self) -> Fields {
        Fields::received(
            self.owned()
                .filter(|(name, _)| !name.starts_with(b":"))
                .collect::<Vec<_>>(),
        )
    }

    fn pseudo(&self, name: &[u8]) -> Option<&[u8]> {
        self.pairs()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }
}

fn number(raw: &[u8], at: usize) -> Option<usize> {
    let bytes = raw.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// Serialises pairs for the host.
pub fn pairs<'a>(lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let size = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
    let lines: Vec<_> = lines.collect();
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let length = lines.iter().map(|(n, v)| n.len() + v.len() + 10);
    let mut out = Vec::with_capacity(4 + length.sum::<usize>());
    out.extend_from_slice(&count.to_le_bytes());
    for (name, value) in &lines {
        out.extend_from_slice(&size(name));
        out.extend_from_slice(&size(value));
    }
    for (name, value) in lines {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// The request's head; `None` when the host has none to give.
pub fn request(end: bool, wants_peer: bool) -> Result<(RequestHead, Received), Status> {
    let received = Received::read(Map::RequestHeaders)?;
    let mut head = RequestHead {
        end,
        ..RequestHead::default()
    };
    let mut lines = Vec::with_capacity(number(&received.raw, 0).unwrap_or(0).min(128));
    for (name, value) in received.owned() {
        match &name[..] {
            b":method" => head.method = value,
            b":scheme" => head.scheme = value,
            b":authority" => head.authority = value,
            b":path" => head.path = value,
            [b':', ..] => {}
            _ => lines.push((name, value)),
        }
    }
    head.fields = Fields::received(lines);
    if wants_peer {
        (head.peer, head.peer_forwarded) = peer();
    }
    Ok((head, received))
}

/// The address of the client's end of the connection, and whether it is what Envoy takes for it instead: an entry of
/// `X-Forwarded-For`, without `use_remote_address` or with `xff_num_trusted_hops`.
fn peer() -> (Option<Bytes>, bool) {
    let address = hostcalls::property("source\0address").unwrap_or_default();
    let peer = without_port(&address);
    let forwarded = peer.as_ref().is_some_and(|peer| portless(&address, peer));
    (peer, forwarded)
}

/// Whether the port is 0, as of no connection: an entry of a field has none.
fn portless(address: &[u8], host: &[u8]) -> bool {
    address.len() > host.len() && address.ends_with(b":0")
}

/// `192.0.2.1:80` → `192.0.2.1`, `[2001:db8::1]:80` → `2001:db8::1`; `None` for what is no such address (a pipe's).
fn without_port(address: &[u8]) -> Option<Bytes> {
    let host = match address.strip_prefix(b"[") {
        Some(rest) => rest.split(|byte| *byte == b']').next()?,
        None => {
            let mut parts = address.split(|byte| *byte == b':');
            let host = parts.next()?;
            // More than one colon and no brackets: an IPv6 address without a port.
            if parts.nth(1).is_some() {
                address
            } else {
                host
            }
        }
    };
    let plausible = !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || b".:%".contains(byte));
    plausible.then(|| Bytes::copy_from_slice(host))
}

/// The response's head.
pub fn response(end: bool) -> Result<(ResponseHead, Received), Status> {
    read_response(Map::ResponseHeaders, end)
}

/// Whether the host made up a response of this status itself. Only statuses a host makes up are looked into.
pub fn unreached(status: u16) -> bool {
    matches!(status, 502..=504)
        && hostcalls::property("response\0code_details")
            .is_ok_and(|details| details != b"via_upstream")
}

/// The head of the answer to a request of the filter's own. The host answers such a one itself where nobody else does, with
/// what could be the origin's: it does not show who it was.
pub fn call_response(end: bool) -> Result<ResponseHead, Status> {
    let (head, _) = read_response(Map::CallResponseHeaders, end)?;
    Ok(ResponseHead {
        unreached: matches!(head.status, 502..=504),
        ..head
    })
}

/// A request's head for a filter that reads nothing of it: there is no more in it than is asked for here. Of the field that
/// raises the emergency level the first line counts.
pub fn unread_request(end: bool, wants_peer: bool, emergency: bool) -> (RequestHead, Received) {
    let mut head = RequestHead {
        end,
        ..RequestHead::default()
    };
    if wants_peer {
        (head.peer, head.peer_forwarded) = peer();
    }
    if emergency
        && let Ok(said) = hostcalls::value(Map::RequestHeaders, Emergency::FIELD.as_bytes())
        && !said.is_empty()
    {
        let line = (
            Bytes::from_static(Emergency::FIELD.as_bytes()),
            Bytes::from(said),
        );
        head.fields = Fields::received(vec![line]);
    }
    let received = Received {
        unread: true,
        ..Received::default()
    };
    (head, received)
}

/// A response's head for a filter that only sets fields of it: nothing is read.
pub fn unread_response(end: bool) -> (ResponseHead, Received) {
    let head = ResponseHead {
        end,
        ..ResponseHead::default()
    };
    let received = Received {
        unread: true,
        ..Received::default()
    };
    (head, received)
}

fn read_response(map: Map, end: bool) -> Result<(ResponseHead, Received), Status> {
    let received = Received::read(map)?;
    let mut head = ResponseHead {
        end,
        ..ResponseHead::default()
    };
    let mut lines = Vec::with_capacity(number(&received.raw, 0).unwrap_or(0).min(128));
    for (name, value) in received.owned() {
        match &name[..] {
            b":status" => head.status = status(&value).unwrap_or(0),
            [b':', ..] => {}
            _ => lines.push((name, value)),
        }
    }
    head.fields = Fields::received(lines);
    if head.status == 0 {
        // Not a response: the host had no map.
        return Err(Status::NOT_FOUND);
    }
    Ok((head, received))
}

fn status(value: &[u8]) -> Option<u16> {
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .filter(|status| (100..1000).contains(status))
}

/// The trailer section of a direction.
pub fn trailers(side: Side) -> Result<(Fields, Received), Status> {
    let received = Received::read(trailer_map(side))?;
    Ok((received.fields(), received))
}

/// Writes back what a filter changed of the request's head; the last error, if any.
pub fn write_request(head: &RequestHead, received: &Received) -> Result<(), Status> {
    let mut result = write(Map::RequestHeaders, &head.fields, received);
    let pseudo: [(&[u8], &Bytes); 4] = [
        (b":method", &head.method),
        (b":scheme", &head.scheme),
        (b":authority", &head.authority),
        (b":path", &head.path),
    ];
    for (name, value) in pseudo {
        let before = received.pseudo(name).unwrap_or_default();
        // The host writes these unchecked: a blank or a control byte in one would forge a request line.
        if before != *value
            && !value.is_empty()
            && value.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
        {
            result = hostcalls::replace(Map::RequestHeaders, name, value).and(result);
        }
    }
    result
}

/// Writes back what a filter changed of the response's head.
pub fn write_response(head: &ResponseHead, received: &Received) -> Result<(), Status> {
    let result = write(Map::ResponseHeaders, &head.fields, received);
    let before = received.pseudo(b":status").and_then(status);
    if before != Some(head.status) && (100..1000).contains(&head.status) {
        return hostcalls::replace(
            Map::ResponseHeaders,
            b":status",
            head.status.to_string().as_bytes(),
        )
        .and(result);
    }
    result
}

/// Writes back what a filter changed of the trailers.
pub fn write_trailers(side: Side, fields: &Fields, received: &Received) -> Result<(), Status> {
    write(trailer_map(side), fields, received)
}

fn trailer_map(side: Side) -> Map {
    match side {
        Side::Request => Map::RequestTrailers,
        Side::Response => Map::ResponseTrailers,
    }
}

/// Takes back what of a filter's changes to a head was written: each changed name has the lines again that it came with.
pub fn restore(side: Side, fields: &Fields, received: &Received) -> Result<(), Status> {
    let map = match side {
        Side::Request => Map::RequestHeaders,
        Side::Response => Map::ResponseHeaders,
    };
    for Changed { name, .. } in fields.changed() {
        match hostcalls::remove(map, name) {
            Ok(()) | Err(Status::NOT_FOUND) => {}
            Err(status) => return Err(status),
        }
        let lines = received.pairs();
        for (_, value) in lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)) {
            hostcalls::add(map, name, value)?;
        }
    }
    for (name, value) in received.pairs().filter(|(name, _)| name.starts_with(b":")) {
        hostcalls::replace(map, name, value)?;
    }
    Ok(())
}

fn write(map: Map, fields: &Fields, received: &Received) -> Result<(), Status> {
    let mut result = Ok(());
    for Changed { name, added } in fields.changed() {
        let mut values = fields
            .iter()
            .filter(|(n, _)| *n == name)
            .map(|(_, value)| value);
        if let Some(added) = *added {
            let kept = values.clone().count().saturating_sub(added);
            result = values.skip(kept).fold(result, |done, value| {
                done.and(hostcalls::add(map, name, value))
            });
            continue;
        }
        let before = received.count(name);
        let done = match values.next() {
            None if before == 0 => continue,
            None => hostcalls::remove(map, name),
            // Hosts differ in what replacing a repeated field leaves behind; Envoy replaces all its lines, which is relied on
            // where nobody looked how many there are: a call instead of two.
            Some(first) if before > 1 => {
                hostcalls::remove(map, name).and_then(|()| hostcalls::add(map, name, first))
            }
            Some(first) => hostcalls::replace(map, name, first),
        };
        let done = values.fold(done, |done, value| {
            done.and(hostcalls::add(map, name, value))
        });
        result = result.and(done);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_serialised_is_read_back() {
        let lines: [(&[u8], &[u8]); 3] = [(b":path", b"/a"), (b"x", b"\xff\0y"), (b"empty", b"")];
        let received = Received {
            raw: pairs(lines.into_iter()).into(),
            ..Received::default()
        };
        let back: Vec<_> = received.pairs().collect();
        assert_eq!(back.len(), 3);
        for ((name, value), (n, v)) in lines.iter().zip(&back) {
            assert_eq!((name, value), (n, v));
        }
    }

    #[test]
    fn a_broken_serialisation_ends_early() {
        let whole = pairs([(&b"name"[..], &b"value"[..]), (b"a", b"b")].into_iter());
        for cut in 0..whole.len() {
            let received = Received {
                raw: Bytes::copy_from_slice(&whole[..cut]),
                ..Received::default()
            };
            assert!(received.pairs().count() < 2, "cut at {cut}");
        }
        let received = Received {
            raw: Bytes::from_static(&[0xff; 40]),
            ..Received::default()
        };
        assert_eq!(received.pairs().count(), 0);
    }

    #[test]
    fn ports_are_stripped() {
        for (address, want, of_a_field) in [
            ("192.0.2.1:80", Some("192.0.2.1"), false),
            ("192.0.2.1", Some("192.0.2.1"), false),
            ("192.0.2.1:0", Some("192.0.2.1"), true),
            ("[2001:db8::1]:80", Some("2001:db8::1"), false),
            ("[2001:db8::1]:0", Some("2001:db8::1"), true),
            ("2001:db8::1", Some("2001:db8::1"), false),
            ("2001:db8::0", Some("2001:db8::0"), false),
            ("/run/pipe", None, false),
            ("", None, false),
        ] {
            let host = without_port(address.as_bytes());
            assert_eq!(host.as_deref(), want.map(str::as_bytes), "{address}");
            let portless = host.is_some_and(|host| portless(address.as_bytes(), &host));
            assert_eq!(portless, of_a_field, "{address}");
        }
    }
}
