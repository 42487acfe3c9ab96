//! Field lines as bytes, in the order they came.

use std::rc::Rc;

use bytes::Bytes;

/// The field lines of a message: names in lower case, values as bytes, order kept.
///
/// Changes are remembered by name, so that an adapter writes back only what changed. Values are made safe on the way
/// in: RFC 9110 §5.5 asks that CR, LF and NUL be rejected or replaced with SP; names that are no token are dropped.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Shared by clones until one of them is changed.
    lines: Rc<Vec<(Bytes, Bytes)>>,
    changed: Vec<Changed>,
}

/// A name whose lines are no more those that were received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// In lower case.
    pub name: Bytes,
    /// How many lines were added behind those received, which are as they were; `None` where lines were replaced or removed.
    pub added: Option<usize>,
}

impl Fields {
    /// From lines as an edge received them; none counts as changed. Names are lowered.
    pub fn received(lines: impl IntoIterator<Item = (Bytes, Bytes)>) -> Self {
        let lines = lines
            .into_iter()
            .map(|(name, value)| (lowered(name), value))
            .collect();
        Self {
            lines: Rc::new(lines),
            changed: Vec::new(),
        }
    }

    /// From text, for replies and tests; every line counts as changed.
    pub fn of(lines: &[(&str, &str)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in lines {
            fields.append(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
        fields
    }

    /// The first value of a field; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, value)| &value[..])
    }

    /// The first value as text, when it is visible ASCII (and obs-text free).
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a field, a line each.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.lines
            .iter()
            .filter(move |(n, _)| n == name.as_bytes())
            .map(|(_, value)| &value[..])
    }

    /// The members of a list-based field over all its lines, trimmed; empty ones left out.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name).flat_map(list_members)
    }

    /// All values joined with `, ` as RFC 9110 §5.3 allows; `None` when the field is absent.
    pub fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let mut values = self.values(name);
        let mut all = values.next()?.to_vec();
        for value in values {
            all.extend_from_slice(b", ");
            all.extend_from_slice(value);
        }
        Some(all)
    }

    /// Whether the field is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Replaces all lines of a field with one.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let Some((name, value)) = safe(name.into(), value.into()) else {
            return;
        };
        self.mark(&name, false);
        let lines = Rc::make_mut(&mut self.lines);
        match lines.iter().position(|(n, _)| *n == name) {
            Some(first) => {
                let mut at = 0;
                lines.retain(|(n, _)| {
                    at += 1;
                    at - 1 <= first || *n != name
                });
                if let Some(line) = lines.get_mut(first) {
                    line.1 = value;
                }
            }
            None => lines.push((name, value)),
        }
    }

    /// Adds a line.
    pub fn append(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let Some((name, value)) = safe(name.into(), value.into()) else {
            return;
        };
        self.mark(&name, true);
        Rc::make_mut(&mut self.lines).push((name, value));
    }

    /// Removes all lines of a field; returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.has(name) {
            return false;
        }
        Rc::make_mut(&mut self.lines).retain(|(n, _)| n != name.as_bytes());
        self.mark(&Bytes::copy_from_slice(name.as_bytes()), false);
        true
    }

    /// Adds a member to a list-based field unless it is there already (compared without case).
    pub fn add_member(&mut self, name: &'static str, member: &str) {
        if self
            .list(name)
            .any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
        {
            return;
        }
        let value = match self.joined(name) {
            Some(mut all) => {
                if !all.is_empty() {
                    all.extend_from_slice(b", ");
                }
                all.extend_from_slice(member.as_bytes());
                all
            }
            None => member.as_bytes().to_vec(),
        };
        self.set(name, value);
    }

    /// Makes room for so many more lines, in one piece.
    pub fn reserve(&mut self, more: usize) {
        if let Some(lines) = Rc::get_mut(&mut self.lines) {
            return lines.reserve(more);
        }
        let mut lines = Vec::with_capacity(self.lines.len().saturating_add(more));
        lines.extend_from_slice(&self.lines);
        self.lines = Rc::new(lines);
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> + Clone {
        self.lines.iter().map(|(name, value)| (name, value))
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.lines
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// The names set, added or removed since the message was received, each once.
    pub fn changed(&self) -> &[Changed] {
        &self.changed
    }

    /// Whether lines of this name were set, added or removed since the message was received.
    pub fn has_changed(&self, name: &str) -> bool {
        self.changed.iter().any(|it| it.name == name)
    }

    fn mark(&mut self, name: &Bytes, is_added: bool) {
        match self.changed.iter_mut().find(|it| it.name == *name) {
            Some(known) => known.added = known.added.filter(|_| is_added).map(|lines| lines + 1),
            None => self.changed.push(Changed {
                name: name.clone(),
                added: is_added.then_some(1),
            }),
        }
    }
}

/// The members of one line of a list-based field: split at commas outside quoted strings, trimmed, empty ones left out.
/// RFC 9110 §5.6.1.2: "a recipient MUST parse and ignore a reasonable number of empty list elements".
pub fn list_members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return true,
                _ => {}
            }
            false
        });
        let member = match end {
            Some(end) => {
                rest = text.get(end + 1..);
                text.get(..end).unwrap_or_default()
            }
            None => {
                rest = None;
                text
            }
        };
        Some(member.trim_ascii())
    })
    .filter(|member| !member.is_empty())
}

/// The members of one line of entity tags, as of `If-None-Match`. RFC 9110 §8.8.3: in a tag a backslash escapes nothing.
pub fn entity_tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let members = line.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Seconds as directives and `Age` say them: digits alone; `None` where there is anything else.
///
/// RFC 9111 §1.2.2: what is greater than can be represented is "the greatest positive integer it can conveniently represent".
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = text.iter().map(|digit| u32::from(digit - b'0'));
    Some(digits.fold(0, |all: u32, digit| {
        all.saturating_mul(10).saturating_add(digit)
    }))
}

fn lowered(name: Bytes) -> Bytes {
    if name.iter().any(u8::is_ascii_uppercase) {
        name.to_ascii_lowercase().into()
    } else {
        name
    }
}

/// Whether it can be the name of a field, a method, a coding or one half of a media type. RFC 9110 §5.6.2: token = 1*tchar
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn safe(name: Bytes, value: Bytes) -> Option<(Bytes, Bytes)> {
    if !is_token(&name) {
        return None;
    }
    let value = if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        value
            .iter()
            .map(|b| {
                if matches!(b, b'\r' | b'\n' | 0) {
                    b' '
                } else {
                    *b
                }
            })
            .collect()
    } else {
        value
    };
    Some((lowered(name), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_split_outside_quotes() {
        let tags: Vec<&[u8]> = entity_tags(br#" "a,b\", W/"c" ,, d"#).collect();
        assert_eq!(tags, [&br#""a,b\""#[..], br#"W/"c""#, b"d"]);
        let members: Vec<&[u8]> = list_members(br#"a, "b,c\",d" ,, e="f,g", "#).collect();
        assert_eq!(members, [&b"a"[..], br#""b,c\",d""#, br#"e="f,g""#]);
    }

    #[test]
    fn set_replaces_every_line_and_remembers_the_name() {
        let line = |n: &'static str, v: &'static str| (Bytes::from(n), Bytes::from(v));
        let mut fields = Fields::received([line("A", "1"), line("b", "2"), line("a", "3")]);
        assert!(fields.changed().is_empty());
        fields.set("A", "4");
        assert_eq!(
            fields.iter().map(|(_, v)| &v[..]).collect::<Vec<_>>(),
            [b"4", b"2"]
        );
        let names: Vec<_> = fields.changed().iter().map(|it| &it.name[..]).collect();
        assert_eq!(names, [b"a"]);
    }

    #[test]
    fn lines_added_behind_those_received_are_known() {
        let line = (Bytes::from("a"), Bytes::from("1"));
        let mut fields = Fields::received([line]);
        let added = |fields: &Fields| fields.changed().first().and_then(|it| it.added);
        fields.append("A", "2");
        fields.append("a", "3");
        assert_eq!(added(&fields), Some(2));
        fields.set("a", "4");
        assert_eq!(added(&fields), None);
        fields.append("a", "5");
        assert_eq!((fields.changed().len(), added(&fields)), (1, None));
    }

    #[test]
    fn a_value_cannot_end_the_line() {
        let mut fields = Fields::default();
        fields.set("x", "a\r\nset-cookie: b\0");
        fields.set("bad name", "x");
        assert_eq!(fields.get("x"), Some(&b"a  set-cookie: b "[..]));
        assert_eq!(fields.len(), 1);
    }
}
