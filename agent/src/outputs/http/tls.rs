//! TLS as a web configuration asks for it, by rustls.
//!
//! PURE: the files' bytes come in through a [`Files`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::web_config::{ClientAuth, Pem, Tls, Version, WebConfigError};

/// Bytes of the files a configuration names, as they were read together.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The only protocol offered; a client that offers none is served too.
const HTTP_1: &[u8] = b"http/1.1";

/// Files that [`acceptor`] will ask for.
pub fn files(tls: &Tls) -> Vec<&Path> {
    let authority = match &tls.client_auth {
        ClientAuth::None => None,
        ClientAuth::IfGiven(authority) | ClientAuth::Required(authority) => Some(authority),
    };
    let all = [Some(&tls.cert), Some(&tls.key), authority];
    all.into_iter()
        .flatten()
        .filter_map(|pem| match pem {
            Pem::File(path) => Some(path.as_path()),
            Pem::Inline(_) => None,
        })
        .collect()
}

/// What turns a connection into TLS.
///
/// # Errors
/// [`WebConfigError::Unfit`] when certificate and key do not fit.
pub fn acceptor(tls: &Tls, files: &Files) -> Result<TlsAcceptor, WebConfigError> {
    let provider = Arc::new(provider(tls));
    let refused = |key| {
        move |error: &dyn std::fmt::Display| WebConfigError::Unfit {
            key,
            reason: error.to_string(),
        }
    };
    let settings = refused("tls_server_config");
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls))
        .map_err(|error| settings(&error))?;
    let chain = certificates(&tls.cert, files, "tls_server_config.cert_file")?;
    let key = "tls_server_config.key_file";
    let private = PrivateKeyDer::from_pem_slice(bytes(&tls.key, files));
    let private = private.map_err(|error| match error {
        pem::Error::NoItemsFound => refused(key)(&"holds no private key, expected PEM text"),
        other => refused(key)(&other),
    })?;
    let mut config = builder
        .with_client_cert_verifier(verifier(tls, files, &provider)?)
        .with_single_cert(chain, private)
        .map_err(|error| refused("tls_server_config.cert_file and key_file")(&error))?;
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    config.ignore_client_order = tls.prefer_server_order;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn bytes<'a>(pem: &'a Pem, files: &'a Files) -> &'a [u8] {
    match pem {
        Pem::File(path) => files.get(path).map_or(&[], Vec::as_slice),
        Pem::Inline(text) => text.as_bytes(),
    }
}

fn certificates(
    pem: &Pem,
    files: &Files,
    key: &'static str,
) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
    let refused = |reason: String| WebConfigError::Unfit { key, reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes(pem, files)).collect();
    let chain = chain.map_err(|error| refused(error.to_string()))?;
    if chain.is_empty() {
        return Err(refused(
            "holds no certificate, expected PEM text with a line -----BEGIN CERTIFICATE-----"
                .to_owned(),
        ));
    }
    Ok(chain)
}

fn verifier(
    tls: &Tls,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, WebConfigError> {
    const KEY: &str = "tls_server_config.client_ca_file";
    let authority = match &tls.client_auth {
        ClientAuth::None => return Ok(Arc::new(NoClientAuth)),
        ClientAuth::IfGiven(authority) | ClientAuth::Required(authority) => authority,
    };
    let refused = |error: &dyn std::fmt::Display| WebConfigError::Unfit {
        key: KEY,
        reason: error.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority, files, KEY)? {
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match tls.client_auth {
        ClientAuth::Required(_) => builder,
        ClientAuth::None | ClientAuth::IfGiven(_) => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| refused(&error))
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    let wanted = |version: &Version| (tls.min..=tls.max).contains(version);
    all.into_iter()
        .filter_map(|(version, supported)| wanted(&version).then_some(supported))
        .collect()
}

/// Ring, with the suites and groups that are wanted in the order they are wanted.
fn provider(tls: &Tls) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let (newer, older): (Vec<_>, Vec<_>) = provider
            .cipher_suites
            .into_iter()
            .partition(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
        let wanted = tls.cipher_suites.iter();
        let older = wanted.filter_map(|name| older.iter().find(|suite| is(suite, name)));
        provider.cipher_suites = newer.into_iter().chain(older.copied()).collect();
    }
    if !tls.curves.is_empty() {
        let groups = [
            ring::kx_group::X25519,
            ring::kx_group::SECP256R1,
            ring::kx_group::SECP384R1,
        ];
        let named = super::web_config::CURVES.into_iter().zip(groups);
        let named: BTreeMap<_, _> = named.collect();
        let wanted = tls.curves.iter();
        provider.kx_groups = wanted.filter_map(|name| named.get(name).copied()).collect();
    }
    provider
}

/// Go and rustls name TLS 1.2 suites alike.
fn is(suite: &SupportedCipherSuite, name: &str) -> bool {
    suite.suite().as_str() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Tls {
        let text = format!("tls_server_config: {{cert: c, key: k, {rest}}}");
        let config = super::super::web_config::parse(&text, Path::new("/"));
        config.unwrap().tls.unwrap()
    }

    #[test]
    fn every_name_of_the_toolkit_is_one_of_rustls() {
        for name in super::super::web_config::CIPHER_SUITES {
            let provider = provider(&config(&format!("cipher_suites: [{name}]")));
            let older = provider.cipher_suites.iter();
            let older = older.filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2);
            let older: Vec<_> = older.map(|suite| suite.suite().as_str().unwrap()).collect();
            assert_eq!(older, [name]);
            // Those of TLS 1.3 are no matter of choice.
            assert_eq!(provider.cipher_suites.len(), 4);
        }
        let groups = provider(&config("curve_preferences: [CurveP384, X25519]")).kx_groups;
        let names: Vec<_> = groups
            .iter()
            .map(|group| format!("{:?}", group.name()))
            .collect();
        assert_eq!(names, ["secp384r1", "X25519"]);
        assert_eq!(provider(&config("")).kx_groups.len(), 3);
    }

    #[test]
    fn versions_are_a_range() {
        let versions = |rest| versions(&config(rest)).len();
        assert_eq!(versions(""), 2);
        assert_eq!(versions("min_version: TLS13"), 1);
        assert_eq!(versions("max_version: TLS12"), 1);
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let refusal = |cert: &str, key: &str| {
            let tls = Tls {
                cert: Pem::Inline(cert.to_owned()),
                key: Pem::Inline(key.to_owned()),
                ..config("")
            };
            match acceptor(&tls, &Files::new()) {
                Ok(_) => panic!("accepted"),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(
            refusal("nothing", ""),
            "tls_server_config.cert_file: holds no certificate, expected PEM text with a line \
             -----BEGIN CERTIFICATE-----"
        );
        let one = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        assert_eq!(
            refusal(&one.cert.pem(), "nothing"),
            "tls_server_config.key_file: holds no private key, expected PEM text"
        );
        let unfit = refusal(&one.cert.pem(), &other.signing_key.serialize_pem());
        assert!(
            unfit.starts_with("tls_server_config.cert_file and key_file: "),
            "{unfit}"
        );
    }
}
