//! What a listener does besides passing requests on: TLS, request identifiers.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

/// `[listener.tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate and those that vouch for it, PEM, its own first.
    pub certificate: Spanned<PathBuf>,
    /// Its private key, PEM (PKCS #8, PKCS #1 or SEC1).
    pub key: Spanned<PathBuf>,
    /// Other certificates, by the name the client asks for (SNI).
    #[serde(default)]
    pub names: Vec<Certificate>,
}

/// `[[listener.tls.names]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// `shop.example`, or `*.shop.example` for any one label before it.
    pub name: Spanned<String>,
    /// As in `[listener.tls]`.
    pub certificate: Spanned<PathBuf>,
    /// As in `[listener.tls]`.
    pub key: Spanned<PathBuf>,
}

/// What becomes of `x-request-id`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestId {
    /// It is a field as any other.
    #[default]
    Off,
    /// A sound one of the client is taken; else one is made.
    Accept,
    /// One is made, whatever the client sent.
    Make,
}
