//! A header map as a plugin sees it: pseudo headers first, then the field lines.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, request, response};

use crate::joined::joins;
use crate::status::Status;

/// How many lines and bytes a map may hold, names and values together.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
}

/// One header map: of a request, a response, or a trailer section (which has no pseudo headers).
#[derive(Default, Clone, Debug)]
pub(crate) struct Fields {
    pseudo: Vec<(&'static str, Bytes)>,
    pub(crate) lines: HeaderMap,
    /// Whether a plugin wrote to it.
    pub(crate) changed: bool,
}

impl Fields {
    /// The map of a request. `host` is shown as `:authority`, as Envoy does.
    pub(crate) fn of_request(parts: &request::Parts) -> Self {
        let mut lines = parts.headers.clone();
        let host = lines.remove(HOST);
        let authority = match (parts.uri.authority(), host) {
            (Some(authority), _) => Some(Bytes::copy_from_slice(authority.as_str().as_bytes())),
            (None, Some(host)) => Some(Bytes::copy_from_slice(host.as_bytes())),
            (None, None) => None,
        };
        let mut pseudo = Vec::with_capacity(4);
        if let Some(authority) = authority {
            pseudo.push((":authority", authority));
        }
        if let Some(path) = parts.uri.path_and_query() {
            pseudo.push((":path", Bytes::copy_from_slice(path.as_str().as_bytes())));
        }
        pseudo.push((
            ":method",
            Bytes::copy_from_slice(parts.method.as_str().as_bytes()),
        ));
        let scheme = parts.uri.scheme_str().unwrap_or("http");
        pseudo.push((":scheme", Bytes::copy_from_slice(scheme.as_bytes())));
        Self {
            pseudo,
            lines,
            changed: false,
        }
    }

    /// The map of a response.
    pub(crate) fn of_response(parts: &response::Parts) -> Self {
        let status = Bytes::copy_from_slice(parts.status.as_str().as_bytes());
        Self {
            pseudo: vec![(":status", status)],
            lines: parts.headers.clone(),
            changed: false,
        }
    }

    /// A map without pseudo headers.
    pub(crate) fn of_lines(lines: HeaderMap) -> Self {
        Self {
            pseudo: Vec::new(),
            lines,
            changed: false,
        }
    }

    /// Shows what a route made of the request; nothing of it is sent.
    pub(crate) fn rewritten(&mut self, path: &Bytes, authority: Option<&Bytes>) {
        let told = [(":path", Some(path)), (":authority", authority)];
        for (name, value) in &mut self.pseudo {
            let new = told.iter().find(|(told, _)| told == name);
            if let Some((_, Some(new))) = new {
                *value = Bytes::clone(new);
            }
        }
    }

    /// Writes the map back over the head of the request it came from.
    pub(crate) fn apply_to_request(&self, parts: &mut request::Parts) {
        let had_host = parts.headers.contains_key(HOST);
        let authority = self.pseudo(":authority");
        let (path, scheme) = (self.pseudo(":path"), self.pseudo(":scheme"));
        if let Some(method) = self
            .pseudo(":method")
            .and_then(|m| Method::from_bytes(m).ok())
        {
            parts.method = method;
        }
        parts.headers = self.lines.clone();
        if self.changed {
            let mut uri = parts.uri.clone().into_parts();
            if let Some(path) = path.and_then(|p| PathAndQuery::try_from(p).ok()) {
                uri.path_and_query = Some(path);
            }
            if uri.authority.is_some() {
                if let Some(authority) = authority.and_then(|a| Authority::try_from(a).ok()) {
                    uri.authority = Some(authority);
                }
                if let Some(scheme) = scheme.and_then(|s| Scheme::try_from(s).ok()) {
                    uri.scheme = Some(scheme);
                }
            }
            // Every part was parsed when it was written, and the shape is the shape it came in.
            if let Ok(uri) = Uri::from_parts(uri) {
                parts.uri = uri;
            }
        }
        if (had_host || parts.uri.authority().is_none())
            && let Some(host) = authority.and_then(|a| HeaderValue::from_bytes(a).ok())
        {
            parts.headers.insert(HOST, host);
        }
    }

    /// Writes the map back over the head of the response it came from.
    pub(crate) fn apply_to_response(&self, parts: &mut response::Parts) {
        if let Some(status) = self.status() {
            parts.status = status;
        }
        parts.headers = self.lines.clone();
    }

    /// The status of a response's map.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        self.pseudo(":status")
            .and_then(|status| StatusCode::from_bytes(status).ok())
    }

    /// A pseudo header's value.
    pub(crate) fn pseudo(&self, name: &str) -> Option<&[u8]> {
        self.pseudo
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_ref())
    }

    /// Lines, pseudo headers among them.
    pub(crate) fn len(&self) -> usize {
        self.pseudo.len() + self.lines.len()
    }

    /// Bytes of all names and values.
    pub(crate) fn size(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// Names and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pseudo = self
            .pseudo
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_ref()));
        let lines = self
            .lines
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        pseudo.chain(lines)
    }

    /// The value of a name. Of repeated lines it is the first, but of fields that Envoy [joins](joins).
    pub(crate) fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        if let Some(pseudo) = self.pseudo_name(name) {
            return self.pseudo(pseudo).map(Cow::Borrowed);
        }
        let name = HeaderName::from_bytes(name).ok()?;
        if !self.pseudo.is_empty() && joins(self.is_request(), name.as_str()) {
            return self.joined(&name);
        }
        Some(Cow::Borrowed(self.lines.get(name)?.as_bytes()))
    }

    /// The lines of a name as one value: what properties show.
    pub(crate) fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let mut values = self.lines.get_all(name).iter();
        let first = values.next()?.as_bytes();
        let mut joined = Cow::Borrowed(first);
        for value in values {
            let joined = joined.to_mut();
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        Some(joined)
    }

    /// Adds a line. A pseudo header is set, for it cannot be repeated.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8], bound: Bound) -> Result<(), Status> {
        if let Some(pseudo) = self.pseudo_name(name) {
            return self.set_pseudo(pseudo, value);
        }
        let (name, value) = line(name, value)?;
        self.room(name.as_str().len() + value.len(), bound)?;
        self.changed = true;
        self.lines
            .try_append(name, value)
            .map(drop)
            .map_err(|_| Status::BadArgument)
    }

    /// Sets a name to one value; all other lines of that name go.
    pub(crate) fn replace(
        &mut self,
        name: &[u8],
        value: &[u8],
        bound: Bound,
    ) -> Result<(), Status> {
        if let Some(pseudo) = self.pseudo_name(name) {
            return self.set_pseudo(pseudo, value);
        }
        let (name, value) = line(name, value)?;
        if !self.lines.contains_key(&name) {
            self.room(name.as_str().len() + value.len(), bound)?;
        } else if self.size() + value.len() > bound.bytes {
            return Err(Status::BadArgument);
        }
        self.changed = true;
        self.lines
            .try_insert(name, value)
            .map(drop)
            .map_err(|_| Status::BadArgument)
    }

    /// Removes all lines of a name; none is no error. Pseudo headers stay: a message without them is no message.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<(), Status> {
        if self.pseudo_name(name).is_some() {
            return Err(Status::BadArgument);
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Status::BadArgument)?;
        if self.lines.remove(name).is_some() {
            self.changed = true;
        }
        Ok(())
    }

    /// Replaces every line. Pseudo headers have to be among the pairs: without them Envoy finds no route for what is left.
    /// All or nothing.
    pub(crate) fn set_all(&mut self, pairs: &[(&[u8], &[u8])], bound: Bound) -> Result<(), Status> {
        let lacks = |name: &str| {
            pairs
                .iter()
                .all(|(given, _)| self.pseudo_name(given) != Some(name))
        };
        if self.pseudo.iter().any(|(name, _)| lacks(name)) {
            return Err(Status::BadArgument);
        }
        let mut next = Self {
            pseudo: self.pseudo.clone(),
            lines: HeaderMap::with_capacity(pairs.len()),
            changed: true,
        };
        let mut size = 0;
        for (name, value) in pairs {
            size += name.len() + value.len();
            if size > bound.bytes || next.lines.len() >= bound.lines {
                return Err(Status::BadArgument);
            }
            match next.pseudo_name(name) {
                Some(pseudo) => next.set_pseudo(pseudo, value)?,
                None => {
                    let (name, value) = line(name, value)?;
                    next.lines
                        .try_append(name, value)
                        .map_err(|_| Status::BadArgument)?;
                }
            }
        }
        *self = next;
        Ok(())
    }

    fn room(&self, more: usize, bound: Bound) -> Result<(), Status> {
        let fits = self.lines.len() < bound.lines && self.size() + more <= bound.bytes;
        if fits {
            Ok(())
        } else {
            Err(Status::BadArgument)
        }
    }

    /// The pseudo header this map has under a name; `host` is another name of `:authority`.
    fn pseudo_name(&self, name: &[u8]) -> Option<&'static str> {
        if name.first() == Some(&b':') {
            let known = [":authority", ":path", ":method", ":scheme", ":status"];
            return known
                .into_iter()
                .find(|known| known.as_bytes().eq_ignore_ascii_case(name));
        }
        (self.is_request() && name.eq_ignore_ascii_case(b"host")).then_some(":authority")
    }

    fn is_request(&self) -> bool {
        self.pseudo.iter().any(|(known, _)| *known == ":method")
    }

    fn set_pseudo(&mut self, name: &'static str, value: &[u8]) -> Result<(), Status> {
        let valid = match name {
            ":method" => Method::from_bytes(value).is_ok(),
            ":path" => {
                matches!(value.first(), Some(b'/' | b'*')) && PathAndQuery::try_from(value).is_ok()
            }
            ":authority" => Authority::try_from(value).is_ok(),
            ":scheme" => Scheme::try_from(value).is_ok(),
            _ => StatusCode::from_bytes(value).is_ok_and(|status| status.as_u16() >= 200),
        };
        let of_response = name == ":status";
        let is_response = self.pseudo.iter().any(|(known, _)| *known == ":status");
        if !valid || self.pseudo.is_empty() || of_response != is_response {
            return Err(Status::BadArgument);
        }
        let value = Bytes::copy_from_slice(value);
        self.changed = true;
        match self.pseudo.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => self.pseudo.push((name, value)),
        }
        Ok(())
    }
}

/// A checked field line: the name is a token, the value holds no CR, LF or NUL.
pub(crate) fn line(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Status> {
    let name = HeaderName::from_bytes(name).map_err(|_| Status::BadArgument)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound {
        lines: 8,
        bytes: 4096,
    };

    fn parts(uri: &str, host: Option<&str>) -> request::Parts {
        let mut builder = http::Request::builder()
            .uri(uri)
            .header("a", "1")
            .header("a", "2");
        if let Some(host) = host {
            builder = builder.header("host", host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn host_is_authority_and_comes_back() {
        let mut head = parts("/x?y", Some("example.com:8080"));
        let mut fields = Fields::of_request(&head);
        assert_eq!(
            fields.get(b":authority").unwrap().as_ref(),
            b"example.com:8080"
        );
        assert_eq!(fields.get(b"Host").unwrap().as_ref(), b"example.com:8080");
        assert_eq!(fields.get(b"a").unwrap().as_ref(), b"1");
        assert_eq!(fields.len(), 6);
        fields.replace(b":path", b"/z", BOUND).unwrap();
        fields.replace(b"host", b"other", BOUND).unwrap();
        fields.apply_to_request(&mut head);
        assert_eq!(head.uri, "/z");
        assert_eq!(head.headers["host"], "other");
    }

    #[test]
    fn a_whole_head_has_its_pseudo_fields() {
        let mut fields = Fields::of_request(&parts("/x", Some("h")));
        let mut pairs: Vec<(&[u8], &[u8])> = vec![
            (b":path", b"/y"),
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b"b", b"3"),
        ];
        assert_eq!(fields.set_all(&pairs, BOUND), Err(Status::BadArgument));
        assert_eq!(fields.get(b"a").unwrap().as_ref(), b"1");
        pairs.push((b"host", b"other"));
        assert_eq!(fields.set_all(&pairs, BOUND), Ok(()));
        assert_eq!(fields.get(b":authority").unwrap().as_ref(), b"other");
        assert_eq!((fields.get(b"a"), fields.len()), (None, 5));
    }

    #[test]
    fn lines_that_envoy_joins_are_one_value() {
        let mut head = parts("/", Some("h"));
        for value in ["br", "gzip"] {
            head.headers
                .append("accept-encoding", HeaderValue::from_static(value));
        }
        let fields = Fields::of_request(&head);
        let value = fields.get(b"Accept-Encoding").unwrap();
        assert_eq!(value.as_ref(), b"br,gzip");
        let trailers = Fields::of_lines(head.headers);
        let value = trailers.get(b"accept-encoding").unwrap();
        assert_eq!(value.as_ref(), b"br");
    }

    #[test]
    fn a_line_that_is_there_is_replaced_in_a_full_map() {
        let mut head = parts("/", Some("h"));
        for at in 0..6 {
            let name = HeaderName::try_from(format!("x-{at}")).unwrap();
            head.headers.insert(name, HeaderValue::from_static("y"));
        }
        let mut fields = Fields::of_request(&head);
        assert_eq!(fields.lines.len(), BOUND.lines, "pseudo fields are none");
        assert_eq!(fields.replace(b"x-3", b"z", BOUND), Ok(()));
        assert_eq!(
            fields.replace(b"x-9", b"z", BOUND),
            Err(Status::BadArgument)
        );
    }

    #[test]
    fn an_absolute_uri_stays_absolute() {
        let mut head = parts("http://one/x", None);
        let mut fields = Fields::of_request(&head);
        fields.replace(b":authority", b"two", BOUND).unwrap();
        fields.apply_to_request(&mut head);
        assert_eq!(head.uri, "http://two/x");
        assert!(!head.headers.contains_key("host"));
    }

    #[test]
    fn what_would_split_a_message_is_refused() {
        let mut fields = Fields::of_request(&parts("/", Some("h")));
        for (name, value) in [
            ("x", "a\r\nb: c"),
            ("x", "a\nb"),
            ("x", "a\0"),
            ("x y", "a"),
            ("", "a"),
            (":path", "no-slash"),
            (":path", "/a b"),
            (":status", "200"),
            (":unknown", "x"),
        ] {
            let got = fields.replace(name.as_bytes(), value.as_bytes(), BOUND);
            assert_eq!(got, Err(Status::BadArgument), "{name}: {value:?}");
        }
        assert!(!fields.changed);
    }

    #[test]
    fn bounds_hold_and_a_refused_set_changes_nothing() {
        let mut fields = Fields::of_lines(HeaderMap::new());
        for _ in 0..8 {
            fields.add(b"x", b"y", BOUND).unwrap();
        }
        assert_eq!(fields.add(b"x", b"y", BOUND), Err(Status::BadArgument));
        assert_eq!(
            fields.replace(b"z", &[b'v'; 5000], BOUND),
            Err(Status::BadArgument)
        );
        let many: Vec<(&[u8], &[u8])> = vec![(b"n", b"v"); 9];
        assert_eq!(fields.set_all(&many, BOUND), Err(Status::BadArgument));
        assert_eq!(fields.len(), 8);
        fields.set_all(&many[..3], BOUND).unwrap();
        assert_eq!(fields.len(), 3);
    }
}
