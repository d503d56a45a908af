//! The forms of the exposition, and which of them a scraper wants.
//!
//! PURE.

use mediatype::{MediaType, MediaTypeList, ReadParams};

/// How the exposition is written.
///
/// The two versions of a form differ in nothing we write (Prometheus 3 calls the text 1.0.0 where
/// names may be any UTF-8; ours are plain), but a scraper is answered in the words it asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `io.prometheus.client.MetricFamily` messages, each behind its length: the only form with
    /// native histograms.
    Protobuf,
    /// OpenMetrics text, with exemplars.
    OpenMetrics1,
    /// As above, asked for by Prometheus before 2.36.
    OpenMetrics0,
    /// The Prometheus text format as Prometheus 3 calls it.
    Text1,
    /// The Prometheus text format: what everything reads.
    Text0,
}

impl Form {
    /// Every form, the richest first.
    pub const ALL: [Self; 5] = [
        Self::Protobuf,
        Self::OpenMetrics1,
        Self::OpenMetrics0,
        Self::Text1,
        Self::Text0,
    ];

    /// Value of the answer's `content-type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics0 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Self::Text1 => "text/plain; version=1.0.0; charset=utf-8",
            Self::Text0 => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The form an `accept` header wants most (RFC 9110, 12.5.1); among equals, the first named.
    ///
    /// Who names no form we have gets [`Self::Text0`], as from every Prometheus client library:
    /// a page in an unwanted form helps a person more than status 406.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let mut best: Option<(u16, Self)> = None;
        for range in MediaTypeList::new(accept).filter_map(Result::ok) {
            let Some((quality, form)) = quality(&range).zip(Self::of(&range)) else {
                continue;
            };
            if quality > best.map_or(0, |(best, _)| best) {
                best = Some((quality, form));
            }
        }
        best.map_or(Self::Text0, |(_, form)| form)
    }

    /// The form a media range names.
    fn of(range: &MediaType) -> Option<Self> {
        let version = parameter(range, "version");
        match (range.ty.as_str(), range.subty.as_str()) {
            ("application", "vnd.google.protobuf") => {
                let is = |name, wanted| parameter(range, name).as_deref() == Some(wanted);
                (is("proto", MESSAGE) && is("encoding", "delimited")).then_some(Self::Protobuf)
            }
            ("application", "openmetrics-text") => match version.as_deref() {
                None | Some("1.0.0") => Some(Self::OpenMetrics1),
                Some("0.0.1") => Some(Self::OpenMetrics0),
                Some(_) => None,
            },
            ("text", "plain") => match version.as_deref() {
                Some("1.0.0") => Some(Self::Text1),
                None | Some("0.0.4") => Some(Self::Text0),
                Some(_) => None,
            },
            ("text" | "*", "*") => Some(Self::Text0),
            _ => None,
        }
    }
}

/// The only message scrapers ask for.
const MESSAGE: &str = "io.prometheus.client.MetricFamily";

fn parameter(range: &MediaType, name: &str) -> Option<String> {
    let mut parameters = range.params();
    let value = parameters.find_map(|(of, value)| (of == name).then_some(value))?;
    Some(value.unquoted_str().into_owned())
}

/// The weight of a media range in thousandths; `None` for a weight that is none.
fn quality(range: &MediaType) -> Option<u16> {
    let Some(weight) = parameter(range, "q") else {
        return Some(1000);
    };
    let weight: f32 = weight.parse().ok()?;
    let thousandths = (0.0..=1.0).contains(&weight).then_some(weight * 1000.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000"
    )]
    Some(thousandths.round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What real Prometheus servers send, recorded from Debian's packages without options and
    /// with `--enable-feature=native-histograms`.
    const PROMETHEUS: [(&str, &str, Form); 6] = [
        (
            "2.42.0",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Form::OpenMetrics1,
        ),
        (
            "2.42.0 with native histograms",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
             */*;q=0.1",
            Form::Protobuf,
        ),
        (
            "2.53.3",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
             version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Form::OpenMetrics1,
        ),
        (
            "2.53.3 with native histograms",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,\
             application/openmetrics-text;version=0.0.1;q=0.3,text/plain;version=0.0.4;q=0.2,\
             */*;q=0.1",
            Form::Protobuf,
        ),
        (
            "3.5.3",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Form::OpenMetrics1,
        ),
        (
            "3.5.3 with native histograms",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;\
             escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,\
             */*;q=0.1",
            Form::Protobuf,
        ),
    ];

    #[test]
    fn real_scrapers_get_what_they_want_most() {
        for (who, accept, form) in PROMETHEUS {
            assert_eq!(Form::wanted(accept), form, "{who}");
        }
    }

    #[test]
    fn their_second_wish_counts_too() {
        let (_, accept, _) = PROMETHEUS[5];
        let without = |name: &str| -> String {
            let ranges = accept.split(',').filter(|range| !range.contains(name));
            ranges.collect::<Vec<_>>().join(",")
        };
        assert_eq!(Form::wanted(&without("protobuf")), Form::OpenMetrics1);
        let text = without("application");
        assert_eq!(Form::wanted(&text), Form::Text1);
    }

    #[test]
    fn people_get_text() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for accept in ["", "*/*", "text/*", "text/plain", firefox, "image/png"] {
            assert_eq!(Form::wanted(accept), Form::Text0, "{accept}");
        }
    }

    #[test]
    fn weights_decide_whatever_the_order() {
        let both = "text/plain;q=0.2 , application/openmetrics-text; q=0.3";
        assert_eq!(Form::wanted(both), Form::OpenMetrics1);
        let refused = "application/openmetrics-text;q=0, text/plain;version=1.0.0;q=0.001";
        assert_eq!(Form::wanted(refused), Form::Text1);
        assert_eq!(
            Form::wanted("application/openmetrics-text;version=\"0.0.1\""),
            Form::OpenMetrics0
        );
    }

    #[test]
    fn nonsense_is_no_wish() {
        for accept in [
            "application/vnd.google.protobuf",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=x",
            ";;;,,,/;q",
        ] {
            assert_eq!(Form::wanted(accept), Form::Text0, "{accept}");
        }
    }

    #[test]
    fn each_form_is_what_it_says() {
        for form in Form::ALL {
            assert_eq!(Form::wanted(form.content_type()), form);
        }
    }
}
