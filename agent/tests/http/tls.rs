//! TLS: handshakes good and bad, certificates of clients, and files that change.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ipvs_lens::outputs::http::web::Web;
use ipvs_lens::syscall_filter::{self, Denied};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::client::{connect, eventually, exchange, get, refused, request, rest, sample};
use crate::served::{Directory, Served};

/// Signs everybody's certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `localhost` and its key, as PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate: Certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A client that trusts `authority` and may show a certificate.
fn client(
    authority: &Authority,
    own: Option<&(String, String)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

type Stream = StreamOwned<ClientConnection, std::net::TcpStream>;

fn stream(address: SocketAddr, client: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
    StreamOwned::new(connection, connect(address))
}

fn get_tls(address: SocketAddr, client: &Arc<ClientConfig>, path: &str) -> (u16, String) {
    exchange(stream(address, client), &request(path, ""))
}

/// Whether the server lets this client in at all.
fn refuses(address: SocketAddr, client: &Arc<ClientConfig>) -> bool {
    let mut stream = stream(address, client);
    let sent = stream.write_all(request("/healthz", "").as_bytes());
    let mut first = [0];
    sent.is_err() || !matches!(stream.read(&mut first), Ok(1))
}

/// The certificate the server shows.
fn shown(address: SocketAddr, client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut stream = stream(address, client);
    stream
        .write_all(request("/healthz", "").as_bytes())
        .unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

struct Setup {
    directory: Directory,
    authority: Authority,
    file: PathBuf,
}

fn setup(rest: &str) -> Setup {
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    directory.write("tls.crt", &certificate);
    directory.write("tls.key", &key);
    directory.write("ca.crt", &authority.pem());
    let text = format!("tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n{rest}");
    let file = directory.write("web.yml", &text);
    Setup {
        directory,
        authority,
        file,
    }
}

#[test]
fn good_handshakes_are_served_and_bad_ones_counted() {
    let setup = setup("");
    let served = Served::with_file(&setup.file);
    let address = served.address;
    for version in VERSIONS {
        let client = client(&setup.authority, None, &[version]);
        assert_eq!(
            get_tls(address, &client, "/healthz"),
            (200, "ok\nobserver has not run yet\n".to_owned())
        );
    }
    // Plain HTTP is answered in its own protocol.
    let (status, body) = get(address, "/metrics");
    assert_eq!(
        (status, body.as_str()),
        (400, "This is the TLS port: use https.\n")
    );
    // A handshake of noise, one that breaks off, and one by a stranger.
    let mut noise = connect(address);
    // A ClientHello without anything in it.
    noise.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0]).unwrap();
    let mut answer = Vec::new();
    noise.read_to_end(&mut answer).unwrap();
    // An alert record (RFC 8446, 6), no page.
    assert_eq!(answer[0], 21);
    let mut half = connect(address);
    half.write_all(&[22, 3, 1]).unwrap();
    drop(half);
    let stranger = client(&Authority::new(), None, &VERSIONS);
    assert!(refuses(address, &stranger));
    let good = client(&setup.authority, None, &VERSIONS);
    let ask = || get_tls(address, &good, "/metrics").1;
    let exposition = eventually(ask, |text| refused(text, "tls_handshake") >= 3);
    assert_eq!(refused(&exposition, "tls_handshake"), 3);
    assert_eq!(refused(&exposition, "plain_http"), 1);
}

#[test]
fn versions_are_kept() {
    let setup = setup("  min_version: TLS13\n");
    let served = Served::with_file(&setup.file);
    assert!(refuses(
        served.address,
        &client(&setup.authority, None, &[&TLS12])
    ));
    assert!(!refuses(
        served.address,
        &client(&setup.authority, None, &[&TLS13])
    ));
}

#[test]
fn clients_show_certificates_where_they_must() {
    for (kind, unknown_refused) in [
        ("RequireAndVerifyClientCert", true),
        ("VerifyClientCertIfGiven", false),
    ] {
        let rest = format!("  client_auth_type: {kind}\n  client_ca_file: ca.crt\n");
        let setup = setup(&rest);
        let address_of = Served::with_file(&setup.file);
        let address = address_of.address;
        let known = client(&setup.authority, Some(&setup.authority.issue()), &VERSIONS);
        assert_eq!(get_tls(address, &known, "/healthz").0, 200, "{kind}");
        let anonymous = client(&setup.authority, None, &VERSIONS);
        assert_eq!(refuses(address, &anonymous), unknown_refused, "{kind}");
        let stranger = Authority::new().issue();
        let forger = client(&setup.authority, Some(&stranger), &VERSIONS);
        assert!(refuses(address, &forger), "{kind}");
    }
}

#[test]
fn new_certificates_are_taken_and_bad_ones_are_not() {
    let setup = setup("");
    let served = Served::with_file(&setup.file);
    let address = served.address;
    let client = client(&setup.authority, None, &VERSIONS);
    let before = shown(address, &client);
    let (certificate, key) = setup.authority.issue();
    setup.directory.write("tls.key", &key);
    setup.directory.write("tls.crt", &certificate);
    let renewed = der(&certificate);
    assert_ne!(before, renewed);
    eventually(|| shown(address, &client), |shown| *shown == renewed);
    let successful = "ipvs_lens_web_config_last_reload_successful ";
    let ask = || sample(&get_tls(address, &client, "/metrics").1, successful);
    assert_eq!(ask(), 1);
    // Rubbish: the renewed one stays, and the state is reported.
    setup.directory.write("tls.crt", "no certificate\n");
    eventually(ask, |successful| *successful == 0);
    assert_eq!(shown(address, &client), renewed);
    let status = get_tls(address, &client, "/status").1;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let wanted = format!(
        "web configuration {}: tls_server_config.cert_file: holds no certificate, expected PEM text \
         with a line -----BEGIN CERTIFICATE-----",
        setup.file.display()
    );
    assert_eq!(status["web"]["error"], wanted);
    // Repaired.
    setup.directory.write("tls.crt", &certificate);
    eventually(ask, |successful| *successful == 1);
}

/// In a process of its own: a filter stays, and covers every thread.
#[test]
fn the_filter_of_system_calls_lets_new_certificates_in() {
    const CHILD: &str = "IPVS_LENS_FILTERED_TLS_TEST";
    if std::env::var_os(CHILD).is_none() {
        let name = "tls::the_filter_of_system_calls_lets_new_certificates_in";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    syscall_filter::install(Denied::Attaching).unwrap();
    new_certificates_are_taken_and_bad_ones_are_not();
}

#[test]
fn a_bad_file_does_not_start() {
    let directory = Directory::new();
    let text = "tls_server_config: {cert_file: none.crt, key_file: none.key}\n";
    let file = directory.write("web.yml", text);
    let Err(error) = Web::load(Some(&file)) else {
        panic!("{text} was accepted");
    };
    let wanted = format!(
        "web configuration {}: cannot read {}: No such file or directory (os error 2)",
        file.display(),
        directory.path().join("none.crt").display()
    );
    assert_eq!(error, wanted);
}

#[test]
fn a_handshake_that_stalls_keeps_nobody_out() {
    let setup = setup("");
    let served = Served::with_file(&setup.file);
    let stalled: Vec<_> = (0..100).map(|_| connect(served.address)).collect();
    let client = client(&setup.authority, None, &VERSIONS);
    let (status, _) = get_tls(served.address, &client, "/healthz");
    assert_eq!(status, 200);
    for stream in stalled {
        assert_eq!(rest(stream), "");
    }
    // Displaced by those behind them, or out of time.
    let left = || {
        let exposition = get_tls(served.address, &client, "/metrics").1;
        refused(&exposition, "displaced") + refused(&exposition, "tls_handshake")
    };
    assert_eq!(eventually(left, |count| *count >= 100), 100);
}
