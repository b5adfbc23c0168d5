//! What a command found out.

use std::fmt::Write as _;

/// Figures by name, printed as one line of JSON.
#[derive(Default)]
pub(crate) struct Figures(String);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        let comma = if self.0.is_empty() { "" } else { "," };
        // JSON knows neither of them; a figure that cannot be told is null.
        let shown = if value.is_finite() { format!("{value:.3}") } else { "null".to_owned() };
        let _ = write!(self.0, "{comma}\"{name}\":{shown}");
    }

    pub(crate) fn print(&self) {
        println!("{{{}}}", self.0);
    }
}
