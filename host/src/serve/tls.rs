//! TLS of a listener: its certificates, by the name a client asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use toml::Spanned;

use crate::config::{Config, ConfigError, ListenerTls};

/// Reads the certificates of a listener; HTTP/2 and HTTP/1.1 are offered by ALPN.
///
/// # Errors
/// Names the field and the file: not there, no certificate or no key in it, a key of another certificate.
pub fn server(
    config: &Config,
    tls: &ListenerTls,
    field: &str,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let default = pair(config, &tls.certificate, &tls.key, &format!("{field}.tls"))?;
    let mut names = BTreeMap::new();
    for (index, one) in tls.names.iter().enumerate() {
        let field = format!("{field}.tls.names[{index}]");
        let name = one.name.get_ref().to_ascii_lowercase();
        let host = name.strip_prefix("*.").unwrap_or(&name);
        if host.contains('*') || rustls::pki_types::DnsName::try_from(host).is_err() {
            let message =
                format!("\"{name}\" is not a name, such as \"shop.example\" or \"*.shop.example\"");
            return Err(ConfigError::at(
                &config.source,
                one.name.span(),
                &format!("{field}.name"),
                message,
            ));
        }
        names.insert(name, pair(config, &one.certificate, &one.key, &field)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            let field = format!("{field}.tls");
            ConfigError::at(
                &config.source,
                tls.certificate.span(),
                &field,
                error.to_string(),
            )
        })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates { default, names }));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// The files a listener's TLS is read from.
pub fn files<'a>(config: &'a Config, tls: &'a ListenerTls) -> impl Iterator<Item = PathBuf> + 'a {
    let own = [&tls.certificate, &tls.key];
    let others = tls
        .names
        .iter()
        .flat_map(|one| [&one.certificate, &one.key]);
    own.into_iter()
        .chain(others)
        .map(|file| config.resolve(file.get_ref()))
}

fn pair(
    config: &Config,
    certificate: &Spanned<PathBuf>,
    key: &Spanned<PathBuf>,
    field: &str,
) -> Result<Arc<CertifiedKey>, ConfigError> {
    let read = |file: &Spanned<PathBuf>, name: &str| {
        let path = config.resolve(file.get_ref());
        let wrong = {
            let (path, field, span) = (path.clone(), format!("{field}.{name}"), file.span());
            move |why: String| {
                let message = format!("{}: {why}", path.display());
                ConfigError::at(&config.source, span.clone(), &field, message)
            }
        };
        match std::fs::read(&path) {
            Ok(pem) => Ok((pem, wrong)),
            Err(error) => Err(wrong(format!("cannot be read: {error}"))),
        }
    };
    let (pem, wrong) = read(certificate, "certificate")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(
            "there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    let (pem, wrong) = read(key, "key")?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            wrong("there is no private key in it (PEM: -----BEGIN PRIVATE KEY-----)".to_owned())
        }
        error => wrong(error.to_string()),
    })?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map(Arc::new)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                wrong("it is not the key of the certificate".to_owned())
            }
            error => wrong(error.to_string()),
        })
}

/// The certificates of a listener.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    names: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// The one for a name: the name's own, else that of `*.` and what follows its first label, else the default.
    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.default;
        };
        let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names
            .get(&name)
            .or_else(|| self.names.get(&wild?))
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).clone())
    }
}
