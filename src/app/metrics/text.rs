//! Writes metrics in the two forms that Prometheus reads. They differ in the names of counters in comments, and in the end.
//!
//! Ours, because a crate would have to be fed copies of numbers that others count already, and prometheus-client writes
//! OpenMetrics only: readers of the older form would take its counters for untyped.

use std::fmt::{Display, Write as _};

use crate::http::Exposition;

/// A page of metrics that is being written.
pub(super) struct Page {
    text: String,
    form: Exposition,
}

/// A metric whose samples are being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Page {
    pub(super) fn new(form: Exposition) -> Self {
        Self { text: String::with_capacity(16 << 10), form }
    }

    /// What only grows while the process lives; its name ends with `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        let base = match self.form {
            Exposition::Prometheus => name,
            Exposition::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.family(base, name, "counter", help)
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, name, "gauge", help)
    }

    /// How often which values were seen. `seen` are the values up to each bound, and last those above all.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        seen: impl Iterator<Item = (Option<f64>, u64)>,
        sum: f64,
    ) {
        let Family { text, .. } = self.family(name, name, "histogram", help);
        let mut count = 0;
        for (bound, more) in seen {
            count += more;
            let bound = bound.map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            // Writing to memory does not fail, here and below.
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.form == Exposition::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, base: &str, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.text, "# HELP {base} {help}\n# TYPE {base} {kind}");
        Family { text: &mut self.text, name }
    }
}

impl Family<'_> {
    /// The only sample.
    pub(super) fn is(self, value: impl Display) {
        let _ = writeln!(self.text, "{} {value}", self.name);
    }

    /// One sample of several.
    pub(super) fn with(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        let mut mark = '{';
        for (name, text) in labels {
            let _ = write!(self.text, "{mark}{name}=\"");
            escape(self.text, text);
            self.text.push('"');
            mark = ',';
        }
        let _ = writeln!(self.text, "}} {value}");
        self
    }
}

/// A label's value. Control characters become visible ones, and no two values the same: a page with one series twice would
/// be refused.
fn escape(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\\\\\"),
            letter if letter.is_control() => {
                let _ = write!(out, "\\\\u{{{:x}}}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Exposition) -> String {
        let mut page = Page::new(form);
        page.counter("a_total", "A.").with(&[("type", "x"), ("reason", "y")], 1).with(&[("type", "z")], 2);
        page.gauge("b", "B.").is(1.5);
        page.histogram("c", "C.", [(Some(0.5), 1), (Some(60.0), 2), (None, 3)].into_iter(), 7.25);
        page.finish()
    }

    #[test]
    fn both_forms() {
        let buckets = "# HELP c C.\n# TYPE c histogram\nc_bucket{le=\"0.5\"} 1\nc_bucket{le=\"60.0\"} 3\n\
                       c_bucket{le=\"+Inf\"} 6\nc_sum 7.25\nc_count 6\n";
        let rest = format!("# HELP b B.\n# TYPE b gauge\nb 1.5\n{buckets}");
        let samples = "a_total{type=\"x\",reason=\"y\"} 1\na_total{type=\"z\"} 2\n";
        let prometheus = format!("# HELP a_total A.\n# TYPE a_total counter\n{samples}{rest}");
        assert_eq!(written(Exposition::Prometheus), prometheus);
        let open = format!("# HELP a A.\n# TYPE a counter\n{samples}{rest}# EOF\n");
        assert_eq!(written(Exposition::OpenMetrics), open);
    }

    #[test]
    fn a_label_stays_in_its_quotes_and_apart_from_others() {
        let escaped = |value| {
            let mut out = String::new();
            escape(&mut out, value);
            out
        };
        assert_eq!(escaped("message.updated é"), "message.updated é");
        assert_eq!(escaped("a\"} 1\nb{\r\0"), r#"a\"} 1\\u{a}b{\\u{d}\\u{0}"#);
        assert_ne!(escaped("\n"), escaped("\\u{a}"));
    }
}
