//! Which form of the metrics a reader is given: what Prometheus has always read, or OpenMetrics for those who ask for it.

use http::header::{ACCEPT, HeaderMap, HeaderValue};

/// A form of the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format, 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// What the reader likes best; Prometheus' own form if it does not say.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = || headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let weight = |fits: &dyn Fn(&str) -> bool| {
            accepted()
                .flat_map(|line| line.split(','))
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    fits(&parts.next()?.to_ascii_lowercase()).then(|| quality(parts))
                })
                .fold(0.0, f32::max)
        };
        let open = weight(&|kind| kind == "application/openmetrics-text");
        let text = weight(&|kind| kind == "text/plain");
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// The weight among the parameters of one range; 1 unless it says otherwise.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> f32 {
    parameters.find_map(|parameter| parameter.strip_prefix("q=")).map_or(1.0, |text| text.parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_it_likes_best() {
        let of = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            Exposition::of(&headers)
        };
        let open = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(of(&[open]), Exposition::OpenMetrics);
        assert_eq!(of(&["text/plain;q=0.3", "Application/OpenMetrics-Text; q=0.5"]), Exposition::OpenMetrics);
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html"],
            &["application/openmetrics-text;q=0"],
            &["text/plain, application/openmetrics-text;q=0.9"],
        ] {
            assert_eq!(of(accept), Exposition::Prometheus, "{accept:?}");
        }
    }
}
