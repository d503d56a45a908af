//! The web configuration file, in the format of Prometheus's exporter-toolkit.
//!
//! PURE: text in, checked values out. What the toolkit knows and this server cannot do is refused
//! by name rather than left out in silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bcrypt::HashParts;
use serde::Deserialize;
use thiserror::Error;

/// Users of basic authentication; it is meant for a few.
pub const USERS_MAX: usize = 64;

/// Highest bcrypt cost: 2^15 rounds take about two seconds, during which no other password is verified.
pub const COST_MAX: u32 = 15;

/// Lowest bcrypt cost there is.
const COST_MIN: u32 = 4;

/// Headers the toolkit lets a file set.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
];

/// Go's names of the TLS 1.2 cipher suites that are secure.
pub const CIPHER_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Go's names of the TLS 1.3 cipher suites, which are always offered, as in Go.
const CIPHER_SUITES_13: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Go's names of the key exchange groups there are.
pub const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];

/// What a web configuration file asks for.
#[derive(Debug, Default)]
pub struct WebConfig {
    /// TLS, if at all.
    pub tls: Option<Tls>,
    /// Headers of every answer.
    pub headers: HeaderMap,
    /// Users and the bcrypt hashes of their passwords; empty without authentication.
    pub users: BTreeMap<String, Hash>,
    /// Limit of requests, if any.
    pub rate: Option<Rate>,
}

/// A bcrypt hash that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    /// As in the file.
    pub text: String,
    /// Two to this power is the number of rounds.
    pub cost: u32,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one more request is allowed.
    pub interval: Duration,
    /// Requests allowed at once after a pause.
    pub burst: u32,
}

/// How to serve TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain.
    pub cert: Pem,
    /// Its key.
    pub key: Pem,
    /// Who has to show a certificate.
    pub client_auth: ClientAuth,
    /// Lowest version.
    pub min: Version,
    /// Highest version.
    pub max: Version,
    /// TLS 1.2 suites by preference, of [`CIPHER_SUITES`]; empty for all.
    pub cipher_suites: Vec<&'static str>,
    /// Groups by preference, of [`CURVES`]; empty for all.
    pub curves: Vec<&'static str>,
    /// Whether the server's order of suites counts.
    pub prefer_server_order: bool,
}

/// Where PEM text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file, relative paths from the directory of the web configuration file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(String),
}

/// Who has to show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nobody.
    None,
    /// Nobody, but one that is shown must be signed by this authority.
    IfGiven(Pem),
    /// Everybody, signed by this authority.
    Required(Pem),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Why a web configuration cannot be used; one line each.
#[derive(Debug, Error)]
pub enum WebConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no YAML, or has a key or an unknown type.
    #[error("{reason}")]
    Shape {
        /// What and where.
        reason: String,
    },
    /// A value that does not fit.
    #[error("{key} is {found:?}, expected {wanted}")]
    Value {
        /// Its path of keys.
        key: String,
        /// The value as written.
        found: String,
        /// What would fit.
        wanted: String,
    },
    /// Something else is needed with what is there.
    #[error("{key} is missing, expected {wanted}")]
    Missing {
        /// Its path of keys.
        key: &'static str,
        /// What would fit.
        wanted: &'static str,
    },
    /// What the keys name does not make a server: certificates that do not fit, above all.
    #[error("{key}: {reason}")]
    Unfit {
        /// The keys concerned.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFile {
    tls_server_config: Option<RawTls>,
    http_server_config: Option<RawHttp>,
    basic_auth_users: Option<BTreeMap<String, String>>,
    rate_limit: Option<RawRate>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    client_ca_file: Option<PathBuf>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRate {
    interval: Option<String>,
    burst: Option<u32>,
}

/// Reads the text of a web configuration file that lies in `directory`.
///
/// # Errors
/// [`WebConfigError`], which names key, value and what is wanted.
pub fn parse(text: &str, directory: &Path) -> Result<WebConfig, WebConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: RawFile = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        WebConfigError::Shape {
            reason: error.to_string().replace('\n', ", "),
        }
    })?;
    let http = raw.http_server_config.unwrap_or_default();
    if http.http2 == Some(true) {
        let wanted = "false: this server speaks HTTP/1.1 only";
        return Err(bad("http_server_config.http2", "true", wanted));
    }
    Ok(WebConfig {
        tls: raw
            .tls_server_config
            .map(|raw| tls(raw, directory))
            .transpose()?,
        headers: headers(http.headers.unwrap_or_default())?,
        users: users(raw.basic_auth_users.unwrap_or_default())?,
        rate: raw.rate_limit.map(rate).transpose()?.flatten(),
    })
}

fn bad(
    key: impl Into<String>,
    found: impl Into<String>,
    wanted: impl Into<String>,
) -> WebConfigError {
    WebConfigError::Value {
        key: key.into(),
        found: found.into(),
        wanted: wanted.into(),
    }
}

fn tls(raw: RawTls, directory: &Path) -> Result<Tls, WebConfigError> {
    if let Some(sans) = raw.client_allowed_sans {
        let wanted = "no such key: every client of the authority is let in";
        let key = "tls_server_config.client_allowed_sans";
        return Err(bad(key, sans.join(", "), wanted));
    }
    let pem = |file, inline, key, wanted| pem(file, inline, directory, key, wanted);
    let min = version(raw.min_version.as_deref(), "min_version", Version::Tls12)?;
    let max = version(raw.max_version.as_deref(), "max_version", Version::Tls13)?;
    if min > max {
        let key = "tls_server_config.max_version";
        return Err(bad(key, "TLS12", "at least min_version, which is TLS13"));
    }
    let client_ca = (raw.client_ca_file, raw.client_ca);
    Ok(Tls {
        cert: pem(
            raw.cert_file,
            raw.cert,
            "tls_server_config.cert_file",
            "a file with the server's certificate chain, or the chain in cert",
        )?,
        key: pem(
            raw.key_file,
            raw.key,
            "tls_server_config.key_file",
            "a file with the certificate's key, or the key in key",
        )?,
        client_auth: client_auth(raw.client_auth_type.as_deref(), client_ca, directory)?,
        min,
        max,
        cipher_suites: names(
            raw.cipher_suites,
            "tls_server_config.cipher_suites",
            &CIPHER_SUITES,
            &CIPHER_SUITES_13,
        )?,
        curves: names(
            raw.curve_preferences,
            "tls_server_config.curve_preferences",
            &CURVES,
            &[],
        )?,
        prefer_server_order: raw.prefer_server_cipher_suites.unwrap_or(true),
    })
}

fn pem(
    file: Option<PathBuf>,
    inline: Option<String>,
    directory: &Path,
    key: &'static str,
    wanted: &'static str,
) -> Result<Pem, WebConfigError> {
    match (file, inline) {
        (Some(file), None) => Ok(Pem::File(directory.join(file))),
        (None, Some(text)) => Ok(Pem::Inline(text)),
        (None, None) => Err(WebConfigError::Missing { key, wanted }),
        (Some(file), Some(_)) => {
            let wanted = "either the file or the text, not both";
            Err(bad(key, file.display().to_string(), wanted))
        }
    }
}

fn client_auth(
    kind: Option<&str>,
    authority: (Option<PathBuf>, Option<String>),
    directory: &Path,
) -> Result<ClientAuth, WebConfigError> {
    const KEY: &str = "tls_server_config.client_auth_type";
    const AUTHORITY: &str = "tls_server_config.client_ca_file";
    let given = authority.0.is_some() || authority.1.is_some();
    let wanted = "a file with the authority that signs clients' certificates";
    let authority = || pem(authority.0, authority.1, directory, AUTHORITY, wanted);
    match kind.unwrap_or("NoClientCert") {
        "NoClientCert" | "" if given => Err(WebConfigError::Missing {
            key: KEY,
            wanted: "RequireAndVerifyClientCert or VerifyClientCertIfGiven with a client_ca_file",
        }),
        "NoClientCert" | "" => Ok(ClientAuth::None),
        "VerifyClientCertIfGiven" => Ok(ClientAuth::IfGiven(authority()?)),
        "RequireAndVerifyClientCert" => Ok(ClientAuth::Required(authority()?)),
        other => Err(bad(
            KEY,
            other,
            "NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert: \
             a certificate that is not verified proves nothing",
        )),
    }
}

fn version(text: Option<&str>, key: &str, default: Version) -> Result<Version, WebConfigError> {
    match text {
        None => Ok(default),
        Some("TLS12") => Ok(Version::Tls12),
        Some("TLS13") => Ok(Version::Tls13),
        Some(other) => {
            let key = format!("tls_server_config.{key}");
            Err(bad(key, other, "TLS12 or TLS13"))
        }
    }
}

/// Those of `known` that were named, in the order named; names of `always` are accepted and left
/// out, because what they name is always there.
fn names(
    given: Option<Vec<String>>,
    key: &str,
    known: &[&'static str],
    always: &[&str],
) -> Result<Vec<&'static str>, WebConfigError> {
    let mut names = Vec::new();
    for name in given.unwrap_or_default() {
        if let Some(known) = known.iter().find(|known| **known == name) {
            names.push(*known);
        } else if !always.contains(&name.as_str()) {
            let wanted = [known, always].concat().join(", ");
            return Err(bad(key, name, format!("some of {wanted}")));
        }
    }
    Ok(names)
}

fn headers(given: BTreeMap<String, String>) -> Result<HeaderMap, WebConfigError> {
    let mut headers = HeaderMap::new();
    for (name, text) in given {
        let key = format!("http_server_config.headers.{name}");
        if !HEADERS.contains(&name.as_str()) {
            let wanted = format!("only {}", HEADERS.join(", "));
            return Err(bad(key, text, wanted));
        }
        let allowed: &[&str] = match name.as_str() {
            "X-Frame-Options" => &["deny", "sameorigin"],
            "X-Content-Type-Options" => &["nosniff"],
            _ => &[],
        };
        if text.is_empty() {
            continue;
        }
        if !allowed.is_empty() && !allowed.contains(&text.to_ascii_lowercase().as_str()) {
            return Err(bad(key, text, allowed.join(" or ")));
        }
        let header = HeaderName::from_str(&name).ok();
        let value = HeaderValue::from_str(&text).ok();
        let Some((header, value)) = header.zip(value) else {
            return Err(bad(
                key,
                text,
                "text without line ends or control characters",
            ));
        };
        headers.insert(header, value);
    }
    Ok(headers)
}

fn users(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Hash>, WebConfigError> {
    if given.len() > USERS_MAX {
        let found = format!("{} users", given.len());
        let wanted = format!("at most {USERS_MAX}; use client certificates for many");
        return Err(bad("basic_auth_users", found, wanted));
    }
    given
        .into_iter()
        .map(|(user, text)| {
            let key = format!("basic_auth_users.{user}");
            if user.contains(':') {
                return Err(bad(key, user, "a name without a colon"));
            }
            // The hash is a secret: it is never printed.
            let Ok(parts) = HashParts::from_str(&text) else {
                return Err(bad(key, "(hidden)", "a bcrypt hash: htpasswd -nBC 10 \"\""));
            };
            let cost = parts.get_cost();
            if !(COST_MIN..=COST_MAX).contains(&cost) {
                let wanted = format!("{COST_MIN} to {COST_MAX}");
                return Err(bad(format!("{key}: bcrypt cost"), cost.to_string(), wanted));
            }
            Ok((user, Hash { text, cost }))
        })
        .collect()
}

fn rate(raw: RawRate) -> Result<Option<Rate>, WebConfigError> {
    let text = raw.interval.ok_or(WebConfigError::Missing {
        key: "rate_limit.interval",
        wanted: "the time between two requests, for example 1s, or 0 for no limit",
    })?;
    if text == "0" {
        return Ok(None);
    }
    let Ok(interval) = humantime::parse_duration(&text) else {
        let wanted = "a time such as 1s or 250ms, or 0 for no limit";
        return Err(bad("rate_limit.interval", text, wanted));
    };
    if interval.is_zero() {
        return Ok(None);
    }
    let burst = raw.burst.unwrap_or(0);
    if burst == 0 {
        return Err(bad("rate_limit.burst", "0", "at least 1 request"));
    }
    Ok(Some(Rate { interval, burst }))
}

#[cfg(test)]
mod tests;
