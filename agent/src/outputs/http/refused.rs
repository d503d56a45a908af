//! Every way of not answering a client what it wanted, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outputs::metrics::names;
use crate::outputs::metrics::sample::{Page, Part, Sample};

/// Why a connection or a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every seat was taken by a connection that was being answered.
    Connections,
    /// Made room for a newcomer after it had kept us waiting longest.
    Displaced,
    /// No request within the time for one.
    HeaderTimeout,
    /// Its header was too large or had too many fields.
    HeaderTooLarge,
    /// No HTTP/1.
    Malformed,
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
    /// The answer was not read within the time for it.
    SlowReader,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
    /// No, malformed or wrong credentials.
    Unauthorized,
    /// Too many credentials waited to be verified.
    AuthBusy,
    /// Over the rate limit of the web configuration.
    RateLimited,
    /// Too many expositions were being read.
    MetricsBusy,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::Displaced,
        Self::HeaderTimeout,
        Self::HeaderTooLarge,
        Self::Malformed,
        Self::PlainHttp,
        Self::SlowReader,
        Self::TlsHandshake,
        Self::Unauthorized,
        Self::AuthBusy,
        Self::RateLimited,
        Self::MetricsBusy,
    ];

    /// The word in the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Displaced => "displaced",
            Self::HeaderTimeout => "header_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::Malformed => "malformed",
            Self::PlainHttp => "plain_http",
            Self::SlowReader => "slow_reader",
            Self::TlsHandshake => "tls_handshake",
            Self::Unauthorized => "unauthorized",
            Self::AuthBusy => "auth_busy",
            Self::RateLimited => "rate_limited",
            Self::MetricsBusy => "metrics_busy",
        }
    }

    /// What it means, for the document.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Connections => "Every seat was taken by a connection being answered.",
            Self::Displaced => "Closed for a newcomer, having kept the server waiting longest.",
            Self::HeaderTimeout => "A connection without a whole request in time.",
            Self::HeaderTooLarge => "A header with too many bytes or fields (431).",
            Self::Malformed => "No HTTP/1, or HTTP/1.1 without exactly one `Host` field (400).",
            Self::PlainHttp => "Plain HTTP on the TLS port (400).",
            Self::SlowReader => "An answer that was not read in time.",
            Self::TlsHandshake => "A TLS handshake that failed or took too long.",
            Self::Unauthorized => "Missing, malformed or wrong credentials (401).",
            Self::AuthBusy => "Too many credentials waited to be verified (503).",
            Self::RateLimited => "Over `rate_limit` (429).",
            Self::MetricsBusy => "Too many expositions were being read (503).",
        }
    }
}

/// One counter per reason.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refused::ALL.len()]);

impl Refusals {
    /// One more.
    pub fn count(&self, why: Refused) {
        if let Some(counter) = self.0.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn of(&self, why: Refused) -> u64 {
        let counter = self.0.get(why as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

impl Part for Refusals {
    fn show(&self, page: &mut Page) {
        let samples = Refused::ALL.into_iter().map(|why| {
            let labels = vec![("reason", why.as_str().to_owned())];
            (labels, Sample::Counter(self.of(why), None))
        });
        page.put(names::HTTP_REQUESTS_REFUSED, samples.collect());
    }
}
