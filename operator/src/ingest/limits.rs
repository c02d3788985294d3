//! How much one node may send: enough for a backlog after an outage, not enough to crowd out the others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Reports of a node: at once, and a second after.
const REPORTS: (f64, f64) = (200.0, 10.0);
/// Samples of a node: at once, and a second after.
const SAMPLES: (f64, f64) = (100_000.0, 2_000.0);
/// Nodes that are remembered; those with full buckets are forgotten first.
const REMEMBERED: usize = 20_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    reports: f64,
    samples: f64,
    at: Instant,
}

impl Bucket {
    fn full(at: Instant) -> Self {
        Self {
            reports: REPORTS.0,
            samples: SAMPLES.0,
            at,
        }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.reports = (self.reports + seconds * REPORTS.1).min(REPORTS.0);
        self.samples = (self.samples + seconds * SAMPLES.1).min(SAMPLES.0);
        self.at = now;
    }
}

/// A token bucket for each node.
#[derive(Debug, Default)]
pub struct Limits(Mutex<HashMap<String, Bucket>>);

impl Limits {
    /// Whether a node may hand over a report with so many samples now.
    pub fn take(&self, node: &str, samples: usize, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED && !buckets.contains_key(node) {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.reports < REPORTS.0 || bucket.samples < SAMPLES.0
            });
        }
        let bucket = buckets
            .entry(node.to_owned())
            .or_insert_with(|| Bucket::full(now));
        bucket.refill(now);
        let samples = samples as f64;
        // Below zero once, so that a report larger than what is left is not kept out for ever.
        if bucket.reports < 1.0 || bucket.samples <= 0.0 {
            return false;
        }
        bucket.reports -= 1.0;
        bucket.samples -= samples;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_backlog_passes_and_a_flood_is_slowed_down() {
        let limits = Limits::default();
        let start = Instant::now();
        let taken = (0..1000).filter(|_| limits.take("n1", 10, start)).count();
        assert_eq!(taken, 200);
        assert!(limits.take("n2", 10, start));
        let later = start + Duration::from_secs(1);
        let taken = (0..1000).filter(|_| limits.take("n1", 10, later)).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn samples_are_limited_beside_reports() {
        let limits = Limits::default();
        let start = Instant::now();
        let taken = (0..100).filter(|_| limits.take("n1", 16_000, start)).count();
        assert_eq!(taken, 7);
        assert!(!limits.take("n1", 1, start + Duration::from_secs(5)));
        assert!(limits.take("n1", 1, start + Duration::from_secs(10)));
    }
}
