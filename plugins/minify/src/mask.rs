//! The mask language that names members of JSON: `a,b/c,d(e,f/g),items/*/id`.
//!
//! `,` separates, `/` goes one level down, `(..)` groups what is below, `*` is any one member. An array costs no level:
//! a mask looks at each of its elements. `\` takes the next character as it is. It is the language of partial responses
//! (`fields=`) that many APIs have, and the one of the configuration: what an operator tries in a URL goes into a file
//! as it is.

use std::fmt;

/// The longest name in a mask, in bytes of UTF-8.
pub(crate) const MAX_NAME: usize = 256;
/// How many levels a mask may go down.
pub(crate) const MAX_LEVELS: usize = 32;

/// Why a mask is none: what, and at which byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadMask {
    /// The byte at which it was noticed.
    pub at: usize,
    /// What is wrong.
    pub why: &'static str,
}

impl fmt::Display for BadMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.why, self.at)
    }
}

/// One level of a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// `None`: any one member.
    name: Option<Box<[u8]>>,
    /// Indexes of what is below.
    pub(crate) below: Vec<u16>,
    /// The bits of the names below; all where there is a `*`.
    pub(crate) sieve: u64,
    /// A path ends here, with what was given to it.
    pub(crate) ends: Option<u16>,
}

impl Node {
    /// Whether it is for a member of this name; `None` is a name that is longer than any of a mask.
    #[inline]
    pub(crate) fn is_for(&self, name: Option<&[u8]>) -> bool {
        match (&self.name, name) {
            (None, _) => true,
            (Some(own), Some(name)) => **own == *name,
            (Some(_), None) => false,
        }
    }
}

/// The bit of a name, by which most others are told from it; for any name all of them.
#[inline(always)]
pub(crate) fn bit(name: Option<&[u8]>) -> u64 {
    let Some(name) = name else {
        return u64::MAX;
    };
    let first = name.first().copied().unwrap_or_default();
    1 << ((name.len() + 5 * usize::from(first)) % 64)
}

/// Paths as a tree: those that begin alike share their beginning.
#[derive(Clone, Debug)]
pub struct Mask {
    nodes: Vec<Node>,
    most: usize,
}

impl Mask {
    /// What `text` names, of at most so many levels of paths in all.
    pub fn parse(text: &str, most: usize) -> Result<Self, BadMask> {
        let mut mask = Self::new(most);
        mask.add(text, 0)?;
        Ok(mask)
    }

    /// One that names nothing, for at most so many levels of paths in all.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            nodes: vec![Node::default()],
            most,
        }
    }

    /// One level; 0 is the root.
    #[inline]
    pub(crate) fn node(&self, index: u16) -> Option<&Node> {
        self.nodes.get(usize::from(index))
    }

    /// Whether it names nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Adds what `text` names; each path ends with `value`, unless it is there already.
    pub(crate) fn add(&mut self, text: &str, value: u16) -> Result<(), BadMask> {
        let mut groups: Vec<(u16, usize)> = Vec::new();
        let (mut base, mut level) = ((0, 0), 0);
        let mut here = 0;
        let mut rest = text;
        let bad = |rest: &str, why| BadMask {
            at: text.len() - rest.len(),
            why,
        };
        loop {
            let (name, after) = segment(rest).map_err(|why| bad(rest, why))?;
            level += 1;
            if level > MAX_LEVELS {
                return Err(bad(rest, "more than 32 levels"));
            }
            here = self
                .below(here, name)
                .ok_or_else(|| bad(rest, "too many names"))?;
            rest = after;
            match rest.as_bytes().first() {
                Some(b'/') => {}
                Some(b'(') => {
                    groups.push(base);
                    base = (here, level);
                }
                _ => {
                    self.end(here, value);
                    // Groups that end here, and then what follows them.
                    while let Some(after) = rest.strip_prefix(')') {
                        base = groups.pop().ok_or_else(|| bad(rest, "a `)` too many"))?;
                        rest = after;
                    }
                    match rest.as_bytes().first() {
                        Some(b',') => (here, level) = base,
                        None if groups.is_empty() => return Ok(()),
                        None => return Err(bad(rest, "a `(` that is not closed")),
                        Some(_) => return Err(bad(rest, "neither `,` nor an end after `)`")),
                    }
                }
            }
            rest = rest.get(1..).unwrap_or_default();
        }
    }

    fn below(&mut self, parent: u16, name: Option<Vec<u8>>) -> Option<u16> {
        let name = name.map(Vec::into_boxed_slice);
        let below = &self.nodes.get(usize::from(parent))?.below;
        let same = |index: &&u16| self.node(**index).is_some_and(|node| node.name == name);
        if let Some(found) = below.iter().find(same) {
            return Some(*found);
        }
        let index = u16::try_from(self.nodes.len()).ok()?;
        if self.nodes.len() > self.most {
            return None;
        }
        let parent = self.nodes.get_mut(usize::from(parent))?;
        parent.below.push(index);
        parent.sieve |= bit(name.as_deref());
        self.nodes.push(Node {
            name,
            ..Node::default()
        });
        Some(index)
    }

    fn end(&mut self, index: u16, value: u16) {
        if let Some(node) = self.nodes.get_mut(usize::from(index)) {
            node.ends.get_or_insert(value);
        }
    }
}

/// A name (`None` for `*`) and what follows it.
#[allow(clippy::type_complexity, reason = "read once, where it is called")]
fn segment(text: &str) -> Result<(Option<Vec<u8>>, &str), &'static str> {
    let mut name = String::new();
    let (mut escaped, mut literal, mut end) = (false, false, text.len());
    for (at, char) in text.char_indices() {
        if escaped {
            escaped = false;
            name.push(char);
            continue;
        }
        match char {
            '\\' => (escaped, literal) = (true, true),
            ',' | '/' | '(' | ')' => {
                end = at;
                break;
            }
            _ => name.push(char),
        }
    }
    let after = text.get(end..).unwrap_or_default();
    if escaped {
        return Err("nothing after `\\`");
    }
    if name.is_empty() {
        return Err("no name");
    }
    if name.len() > MAX_NAME {
        return Err("a name of more than 256 bytes");
    }
    if name == "*" && !literal {
        return Ok((None, after));
    }
    if name.contains('*') && !literal {
        return Err("a `*` beside other characters");
    }
    Ok((Some(name.into_bytes()), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of a mask, each with its value, `*` for any.
    fn paths(mask: &Mask) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![(0_u16, String::new())];
        while let Some((index, path)) = todo.pop() {
            let node = mask.node(index).unwrap();
            if let Some(value) = node.ends {
                found.push(format!("{}={value}", &path[1..]));
            }
            for below in &node.below {
                let name = &mask.node(*below).unwrap().name;
                let name = name.as_deref().map_or("*".into(), String::from_utf8_lossy);
                todo.push((*below, format!("{path}/{name}")));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_a_mask_names() {
        for (name, text, want) in [
            ("one", "a", &["a=7"][..]),
            ("some", "a,b/c", &["a=7", "b/c=7"]),
            ("a group", "d(e,f/g)", &["d/e=7", "d/f/g=7"]),
            (
                "groups in groups",
                "a(b(c,d),e),f",
                &["a/b/c=7", "a/b/d=7", "a/e=7", "f=7"],
            ),
            ("closing together", "a/b(c(d))", &["a/b/c/d=7"]),
            ("any", "items/*/id,*", &["*=7", "items/*/id=7"]),
            ("twice is once", "a/b,a(b,c)", &["a/b=7", "a/c=7"]),
            ("escaped", r"a\/b,\*,c\\", &["*=7", r"a/b=7", r"c\=7"]),
            ("not ASCII, and spaces", "é x", &["é x=7"]),
        ] {
            let mut mask = Mask::new(100);
            mask.add(text, 7)
                .unwrap_or_else(|bad| panic!("{name}: {bad}"));
            assert_eq!(paths(&mask), want, "{name}");
        }
    }

    #[test]
    fn what_is_no_mask() {
        let deep = ["a"; 33].join("/");
        let long = "n".repeat(257);
        for (text, at, why) in [
            ("", 0, "no name"),
            ("a,", 2, "no name"),
            (",a", 0, "no name"),
            ("a//b", 2, "no name"),
            ("a()", 2, "no name"),
            ("a(b", 3, "a `(` that is not closed"),
            ("a)", 1, "a `)` too many"),
            ("a(b)c", 4, "neither `,` nor an end after `)`"),
            ("a(b)/c", 4, "neither `,` nor an end after `)`"),
            ("a*", 0, "a `*` beside other characters"),
            (r"a\", 0, r"nothing after `\`"),
            (&deep, 64, "more than 32 levels"),
            (&long, 0, "a name of more than 256 bytes"),
            ("a,b,c,d,e", 8, "too many names"),
        ] {
            let bad = Mask::new(if text.len() > 60 { 100 } else { 4 })
                .add(text, 0)
                .expect_err(text);
            assert_eq!(bad, BadMask { at, why }, "{text}");
        }
    }
}
