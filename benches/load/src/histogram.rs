//! Times by how often they were seen: memory does not grow with their number.

use crate::figures::Figures;

/// Each power of two is cut into so many parts, so a value is known to 1.6 %.
const PARTS: u32 = 64;

/// Powers of two of nanoseconds: far beyond an hour.
const POWERS: usize = 44;

/// A histogram of nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; POWERS * PARTS as usize], total: 0, most: 0 }
    }

    pub(crate) fn add(&mut self, value: u64, count: u64) {
        let place = place(value).min(self.counts.len() - 1);
        self.counts[place] += count;
        self.total += count;
        self.most = self.most.max(value);
    }

    /// The value that a share of all do not exceed; not a number when there is none.
    fn at(&self, share: f64) -> f64 {
        if self.total == 0 {
            return f64::NAN;
        }
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return value(place).min(self.most) as f64;
            }
        }
        self.most as f64
    }

    /// p50, p99 and the largest in microseconds.
    pub(crate) fn tell(&self, name: &str, figures: &mut Figures) {
        figures.add(&format!("{name}_p50_us"), self.at(0.5) / 1e3);
        figures.add(&format!("{name}_p99_us"), self.at(0.99) / 1e3);
        figures.add(&format!("{name}_max_us"), if self.total == 0 { f64::NAN } else { self.most as f64 / 1e3 });
    }
}

fn place(value: u64) -> usize {
    let power = value.max(1).ilog2();
    if power < PARTS.ilog2() {
        return value as usize;
    }
    let shift = power - PARTS.ilog2();
    ((shift + 1) * PARTS) as usize + ((value >> shift) as usize - PARTS as usize)
}

/// The largest value of a place.
fn value(place: usize) -> u64 {
    let parts = PARTS as usize;
    if place < parts {
        return place as u64;
    }
    let shift = place / parts - 1;
    (((place % parts + parts + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_their_values() {
        for number in (0..200).chain([1_000, 65_535, 65_536, 123_456_789, 3_600_000_000_000]) {
            let upper = value(place(number));
            assert!(upper >= number && upper as f64 <= number as f64 * 1.016 + 1.0, "{number} is told as {upper}");
        }
    }

    #[test]
    fn shares_count_from_below() {
        let mut histogram = Histogram::new();
        (1..=100).for_each(|number| histogram.add(number * 1_000, 1));
        assert!((histogram.at(0.5) - 50_000.0).abs() < 1_000.0);
        assert!((histogram.at(0.99) - 99_000.0).abs() < 1_600.0);
        assert!((histogram.at(1.0) - 100_000.0).abs() < f64::EPSILON);
    }
}
