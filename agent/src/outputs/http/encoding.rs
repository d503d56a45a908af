//! How the bytes of an exposition are sent: gzip where the client accepts it (RFC 9110, 12.5.3).

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// gzip (RFC 1952), fast: an exposition repeats itself so much that this leaves a tenth.
    Gzip,
}

impl Encoding {
    /// What a client accepts that sent this list in `Accept-Encoding`; empty if it sent none.
    ///
    /// A list that refuses both is answered without a coding: metrics are worth more than the
    /// refusal.
    #[must_use]
    pub fn accepted(list: &str) -> Self {
        let (mut gzip, mut any) = (None, None);
        for item in list.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weighs = parts.all(|part| !is_zero_weight(part));
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weighs);
            } else if name == "*" {
                any = Some(weighs);
            }
        }
        if gzip.or(any).unwrap_or(false) {
            Self::Gzip
        } else {
            Self::Identity
        }
    }

    /// The value of `Content-Encoding`; `None` where there must be no such field.
    #[must_use]
    pub const fn field(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
        }
    }

    /// The bytes as they are sent.
    ///
    /// # Errors
    /// The compressor's, which does not fail on memory.
    pub fn encode(self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(bytes),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&bytes)?;
                encoder.finish()
            }
        }
    }
}

/// Whether a parameter is a weight of 0, which refuses a coding.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=');
    weight.is_some_and(|(name, value)| {
        name.trim().eq_ignore_ascii_case("q")
            && value
                .trim()
                .parse::<f32>()
                .is_ok_and(|weight| weight <= 0.0)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn gzip_only_where_it_is_accepted() {
        for list in [
            "gzip",
            "GZIP",
            "deflate, gzip;q=0.5",
            "*",
            "br;q=1, *;q=0.1",
            "x-gzip",
        ] {
            assert_eq!(Encoding::accepted(list), Encoding::Gzip, "{list}");
        }
        for list in [
            "",
            "identity",
            "br",
            "gzip;q=0",
            "gzip; q=0.000, *",
            "*;q=0",
            "gzipped",
        ] {
            assert_eq!(Encoding::accepted(list), Encoding::Identity, "{list}");
        }
    }

    #[test]
    fn what_is_compressed_is_smaller_and_the_same() {
        let text = "ipvs_lens_connections_total{proto=\"TCP\"} 1\n".repeat(1_000);
        let packed = Encoding::Gzip.encode(text.clone().into_bytes()).unwrap();
        assert!(packed.len() * 20 < text.len(), "{} bytes", packed.len());
        let mut unpacked = String::new();
        GzDecoder::new(&packed[..])
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
        let plain = Encoding::Identity
            .encode(text.clone().into_bytes())
            .unwrap();
        assert_eq!(plain, text.into_bytes());
    }
}
