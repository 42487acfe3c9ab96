//! Names as an operator writes them, which messages must be able to carry: a rule by any other never matches.

use edgeweir_filter::is_token;

/// The methods of RFC 9110 §9.3 and RFC 5789.
const STANDARD: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Why it is no name of a field, a cookie or a method. RFC 9110 §5.6.2: token = 1*tchar
pub fn check(name: &str) -> Result<(), String> {
    if name.len() <= 128 && is_token(name.as_bytes()) {
        return Ok(());
    }
    Err(format!(
        "{name:?} must be a token of 1 to 128 characters (RFC 9110 §5.6.2)"
    ))
}

/// Why it is no method. RFC 9110 §9.1: "The method token is case-sensitive [...] By convention, standardized methods are
/// defined in all-uppercase US-ASCII letters." One of them in other letters is a mistake.
pub fn method(name: &str) -> Result<(), String> {
    check(name)?;
    let meant = STANDARD.iter().find(|it| it.eq_ignore_ascii_case(name));
    match meant.filter(|meant| **meant != name) {
        Some(meant) => Err(format!(
            "{name:?} must be {meant:?}: methods are case-sensitive (RFC 9110 §9.1)"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_tokens_and_standard_ones_upper_case() {
        for (name, want) in [
            ("POST", None),
            ("PURGE", None),
            ("purge", None),
            ("post", Some("must be \"POST\"")),
            ("Patch", Some("must be \"PATCH\"")),
            ("", Some("must be a token")),
            ("P OST", Some("must be a token")),
            ("PÖST", Some("must be a token")),
        ] {
            let error = method(name).err();
            assert_eq!(error.is_some(), want.is_some(), "{name}: {error:?}");
            let error = error.unwrap_or_default();
            assert!(error.contains(want.unwrap_or_default()), "{name}: {error}");
        }
        assert!(check(&"x".repeat(128)).is_ok() && check(&"x".repeat(129)).is_err());
    }
}
