//! Requests of other sites: what their responses were coded with could tell those about them (RFC 9842 §9.3.3).

use edgeweir_filter::Fields;

/// Who may learn by its length what a response has in common with a dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Crossing {
    /// The site itself, or a client that does not say.
    Same,
    /// Another origin that navigates, which reads nothing of the response.
    Navigating,
    /// Another origin, if the response is shared with it; `None` for one that does not say which it is.
    Shared(Option<Vec<u8>>),
    /// Another origin that may not read the response.
    Opaque,
}

impl Crossing {
    /// Of a request: the part of the algorithm of RFC 9842 §9.3.3 that needs no response.
    pub(crate) fn of(fields: &Fields) -> Self {
        // "If there is no "Sec-Fetch-Site" request header field, return TRUE.", likewise for "same-origin".
        match fields.joined("sec-fetch-site").as_deref() {
            None | Some(b"same-origin") => return Self::Same,
            Some(_) => {}
        }
        match fields.joined("sec-fetch-mode").as_deref() {
            None | Some(b"navigate" | b"same-origin") => Self::Navigating,
            Some(b"cors") => Self::Shared(fields.joined("origin")),
            Some(_) => Self::Opaque,
        }
    }

    /// Whether a response with these fields may be coded with a dictionary.
    pub(crate) fn may_use(&self, response: &Fields) -> bool {
        let origin = match self {
            Self::Same | Self::Navigating => return true,
            Self::Shared(origin) => origin,
            Self::Opaque => return false,
        };
        let allowed = response.joined("access-control-allow-origin");
        match (origin, allowed) {
            (Some(origin), Some(allowed)) => allowed == b"*" || allowed == *origin,
            _ => false,
        }
    }

    /// The request fields it was read from. A response need not vary by more: who has the same in these is treated the same,
    /// whatever the others say.
    pub(crate) fn read(&self) -> &'static [&'static str] {
        match self {
            Self::Same => &["Sec-Fetch-Site"],
            Self::Navigating | Self::Opaque => &["Sec-Fetch-Site", "Sec-Fetch-Mode"],
            Self::Shared(_) => &["Sec-Fetch-Site", "Sec-Fetch-Mode", "Origin"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_of_rfc_9842_section_9_3_3() {
        let cors = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "cors"),
            ("origin", "https://other.example"),
        ];
        let allow = |value| [("access-control-allow-origin", value)];
        for (name, request, response, want) in [
            ("nothing said", &[][..], &[][..], true),
            (
                "same origin",
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                &[],
                true,
            ),
            ("no mode", &[("sec-fetch-site", "cross-site")], &[], true),
            (
                "navigation",
                &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
                &[],
                true,
            ),
            (
                "embedded",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                &[],
                false,
            ),
            (
                "embedded, though shared",
                &[
                    ("sec-fetch-site", "same-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                &allow("*"),
                false,
            ),
            ("not shared", &cors, &[], false),
            ("shared with all", &cors, &allow("*"), true),
            (
                "shared with it",
                &cors,
                &allow("https://other.example"),
                true,
            ),
            (
                "shared with a third",
                &cors,
                &allow("https://third.example"),
                false,
            ),
            (
                "who asks is not said",
                &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
                &allow("*"),
                false,
            ),
        ] {
            let crossing = Crossing::of(&Fields::of(request));
            assert_eq!(crossing.may_use(&Fields::of(response)), want, "{name}");
        }
    }
}
