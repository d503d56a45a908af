//! Hostile texts for the agent's own files, the configuration and the web configuration: read, or
//! refused with a reason, never a panic. `PROPTEST_CASES` sets another number of inputs; the readers
//! of `agent-core` have fuzz targets in `tests/fuzz`.

use std::ffi::OsString;
use std::path::Path;

use ipvs_lens::outputs::http::web_config;
use ipvs_lens::settings;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Inputs of each test, unless the environment says otherwise.
const INPUTS: u32 = 5_000;

/// Longer than any file is read.
const BYTES_MAX: usize = 128 * 1024;

const CONFIGS: &[&str] = &[
    "listen = \"127.0.0.1:9742\"\nemit = \"all\"\ndrain_period_ms = 50\nkernel_log = true\n",
    "real_servers = \"all\"\ntable_interval_s = 5\nweb_config = \"web.yml\"\nlog_level = \"info\"\n",
    "btf = \"/tmp/btf\"\nattach = \"kprobe\"\nevents = \"perf\"\noutcome_timeout_ms = 75000\n",
];

const WEB_CONFIGS: &[&str] = &[
    "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  min_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
    "http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=31536000\nrate_limit: {interval: 100ms, burst: 20}\n",
    "basic_auth_users:\n  prometheus: $2y$10$abcdefghijklmnopqrstuuvPqRstuvwxyzABCDEFGHIJKLMNOPQRSTU\n",
];

fn mutated(seeds: &'static [&'static str]) -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((any::<Index>(), 0_u8..5, any::<u8>()), 0..12);
    (select(seeds), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (at, kind, byte) in edits {
            edit(&mut bytes, at, kind, byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn edit(bytes: &mut Vec<u8>, at: Index, kind: u8, byte: u8) {
    let at = at.index(bytes.len() + 1);
    match kind {
        0 => bytes.insert(at, byte),
        1 => bytes.truncate(at),
        2 => {
            let tail = bytes.split_off(at);
            bytes.extend(tail.into_iter().skip(1));
        }
        3 => bytes.extend(vec![byte; usize::from(byte) * 4]),
        _ => {
            let tail = bytes.split_off(at);
            bytes.extend_from_slice(&tail);
            bytes.extend_from_slice(&tail);
        }
    }
    bytes.truncate(BYTES_MAX);
}

fn inputs() -> ProptestConfig {
    let set = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if set {
            ProptestConfig::default().cases
        } else {
            INPUTS
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(inputs())]

    #[test]
    fn a_configuration_file_is_read_or_refused_with_a_reason(text in mutated(CONFIGS)) {
        let arguments = ["ipvs-lens", "run", "--config", "x.toml"].map(OsString::from);
        if let Err(error) = settings::load(&arguments, |_| Ok(text.clone())) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_web_configuration_is_read_or_refused_with_a_reason(text in mutated(WEB_CONFIGS)) {
        if let Err(error) = web_config::parse(&text, Path::new("/nonexistent")) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
