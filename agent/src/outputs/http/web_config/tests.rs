//! What a file may say, and how it is refused.

use super::*;

const HASH: &str = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";

fn parsed(text: &str) -> WebConfig {
    parse(text, Path::new("/etc/lens")).unwrap()
}

fn refusal(text: &str) -> String {
    parse(text, Path::new("/etc/lens")).unwrap_err().to_string()
}

#[test]
fn an_empty_file_asks_for_nothing() {
    let config = parsed("");
    assert_eq!((config.tls, config.rate), (None, None));
    assert!(config.users.is_empty() && config.headers.is_empty());
}

#[test]
fn everything_at_once() {
    let config = parsed(&format!(
        "tls_server_config:
  cert_file: tls.crt
  key_file: /run/tls.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
  curve_preferences: [CurveP256, X25519]
  prefer_server_cipher_suites: false
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=60
    Content-Security-Policy: ''
basic_auth_users:
  alice: {HASH}
rate_limit: {{interval: 250ms, burst: 4}}
"
    ));
    let file = |path: &str| Pem::File(path.into());
    let tls = Tls {
        cert: file("/etc/lens/tls.crt"),
        key: file("/run/tls.key"),
        client_auth: ClientAuth::Required(file("/etc/lens/ca.crt")),
        min: Version::Tls12,
        max: Version::Tls13,
        cipher_suites: vec!["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
        curves: vec!["CurveP256", "X25519"],
        prefer_server_order: false,
    };
    assert_eq!(config.tls, Some(tls));
    assert_eq!(config.headers.len(), 2);
    assert_eq!(config.headers["x-frame-options"], "deny");
    let hash = Hash {
        text: HASH.to_owned(),
        cost: 10,
    };
    assert_eq!(config.users, BTreeMap::from([("alice".to_owned(), hash)]));
    let rate = Rate {
        interval: Duration::from_millis(250),
        burst: 4,
    };
    assert_eq!(config.rate, Some(rate));
}

#[test]
fn a_zero_interval_is_no_limit() {
    assert_eq!(parsed("rate_limit: {interval: 0, burst: 3}").rate, None);
    assert_eq!(parsed("rate_limit: {interval: 0s}").rate, None);
}

/// Texts, and what they are refused with.
const REFUSED: [(&str, &str); 16] = [
    (
        "tls_server_confg: {}",
        "unknown field `tls_server_confg`, expected one of tls_server_config, \
             http_server_config, basic_auth_users, rate_limit at line 1, column 1",
    ),
    (
        "basic_auth_users:\n  a: b\n  a: c\n",
        "duplicate mapping key: a, set DuplicateKeyPolicy in Options if acceptable \
             at line 3, column 3",
    ),
    (
        "http_server_config: {http2: true}",
        "http_server_config.http2 is \"true\", expected false: this server speaks \
             HTTP/1.1 only",
    ),
    (
        "http_server_config: {headers: {Server: x}}",
        "http_server_config.headers.Server is \"x\", expected only \
             Content-Security-Policy, X-Frame-Options, X-Content-Type-Options, \
             X-XSS-Protection, Strict-Transport-Security",
    ),
    (
        "http_server_config: {headers: {X-Frame-Options: maybe}}",
        "http_server_config.headers.X-Frame-Options is \"maybe\", expected deny or \
             sameorigin",
    ),
    (
        "tls_server_config: {key_file: k}",
        "tls_server_config.cert_file is missing, expected a file with the server's \
             certificate chain, or the chain in cert",
    ),
    (
        "tls_server_config: {cert: c, key: k, cert_file: x}",
        "tls_server_config.cert_file is \"x\", expected either the file or the text, \
             not both",
    ),
    (
        "tls_server_config: {cert: c, key: k, min_version: TLS10}",
        "tls_server_config.min_version is \"TLS10\", expected TLS12 or TLS13",
    ),
    (
        "tls_server_config: {cert: c, key: k, min_version: TLS13, max_version: TLS12}",
        "tls_server_config.max_version is \"TLS12\", expected at least min_version, \
             which is TLS13",
    ),
    (
        "tls_server_config: {cert: c, key: k, client_auth_type: RequireAnyClientCert}",
        "tls_server_config.client_auth_type is \"RequireAnyClientCert\", expected \
             NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert: a \
             certificate that is not verified proves nothing",
    ),
    (
        "tls_server_config: {cert: c, key: k, client_auth_type: RequireAndVerifyClientCert}",
        "tls_server_config.client_ca_file is missing, expected a file with the authority \
             that signs clients' certificates",
    ),
    (
        "tls_server_config: {cert: c, key: k, client_ca_file: ca}",
        "tls_server_config.client_auth_type is missing, expected \
             RequireAndVerifyClientCert or VerifyClientCertIfGiven with a client_ca_file",
    ),
    (
        "tls_server_config: {cert: c, key: k, client_allowed_sans: [a, b]}",
        "tls_server_config.client_allowed_sans is \"a, b\", expected no such key: every \
             client of the authority is let in",
    ),
    (
        "tls_server_config: {cert: c, key: k, curve_preferences: [CurveP521]}",
        "tls_server_config.curve_preferences is \"CurveP521\", expected some of X25519, \
             CurveP256, CurveP384",
    ),
    (
        "rate_limit: {interval: soon, burst: 1}",
        "rate_limit.interval is \"soon\", expected a time such as 1s or 250ms, or 0 for \
             no limit",
    ),
    (
        "rate_limit: {interval: 1s}",
        "rate_limit.burst is \"0\", expected at least 1 request",
    ),
];

#[test]
fn refusals_name_key_value_and_what_is_wanted() {
    for (text, wanted) in REFUSED {
        assert_eq!(refusal(text), wanted);
    }
}

#[test]
fn hashes_are_checked_and_never_printed() {
    let user = |hash: &str| refusal(&format!("basic_auth_users: {{bob: '{hash}'}}"));
    assert_eq!(
        user("plain-password"),
        "basic_auth_users.bob is \"(hidden)\", expected a bcrypt hash: htpasswd -nBC 10 \"\""
    );
    assert_eq!(
        user(&HASH.replace("$10$", "$16$")),
        "basic_auth_users.bob: bcrypt cost is \"16\", expected 4 to 15"
    );
    let many: Vec<_> = (0..=USERS_MAX).map(|i| format!("u{i}: '{HASH}'")).collect();
    assert_eq!(
        refusal(&format!("basic_auth_users: {{{}}}", many.join(", "))),
        "basic_auth_users is \"65 users\", expected at most 64; use client certificates for \
         many"
    );
}
