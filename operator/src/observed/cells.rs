//! Sums by time: fine for what is recent, coarse for what is old, nothing past the horizon.

use std::collections::BTreeMap;

use vigia_model::histogram::ScoreHistogram;

/// How long a span is, by the age of what is in it: up to the first member, the second; all in milliseconds.
pub(super) type Spans = &'static [(i64, i64)];

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Sums over all nodes: what drift is measured on.
pub(super) const ALL_SPANS: Spans = &[(2 * HOUR, 5 * SECOND), (DAY, MINUTE), (30 * DAY, HOUR)];
/// Sums of one node: what gates compare nodes by.
pub(super) const NODE_SPANS: Spans = &[(10 * MINUTE, 10 * SECOND), (HOUR, MINUTE), (DAY, HOUR)];

/// Start of the span that a time lies in, given the present; `None` past the horizon.
pub(super) fn span_start(spans: Spans, start_ms: i64, now_ms: i64) -> Option<i64> {
    let age = now_ms.saturating_sub(start_ms);
    spans
        .iter()
        .find(|(up_to, _)| age <= *up_to)
        .map(|(_, span)| start_ms.div_euclid(*span) * span)
}

/// Something that adds up.
pub(super) trait Sum: Default {
    fn add(&mut self, other: &Self);
}

/// Windows of one node in one span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    pub windows: u32,
    pub above: u32,
}

impl Sum for Rate {
    fn add(&mut self, other: &Self) {
        self.windows = self.windows.saturating_add(other.windows);
        self.above = self.above.saturating_add(other.above);
    }
}

/// Windows of all nodes in one span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scores {
    pub windows: u64,
    pub above: u64,
    pub last_ms: i64,
    pub histogram: ScoreHistogram,
}

impl Sum for Scores {
    fn add(&mut self, other: &Self) {
        self.windows = self.windows.saturating_add(other.windows);
        self.above = self.above.saturating_add(other.above);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.histogram.merge(&other.histogram);
    }
}

/// Sums by the start of their span.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells<T>(BTreeMap<i64, T>);

impl<T: Sum> Cells<T> {
    /// Adds to the span that a time lies in.
    pub fn add(&mut self, spans: Spans, start_ms: i64, now_ms: i64, sum: &T) {
        if let Some(start) = span_start(spans, start_ms, now_ms) {
            self.0.entry(start).or_default().add(sum);
        }
    }

    /// Puts what has aged into longer spans, and drops what is past the horizon.
    pub fn coarsen(&mut self, spans: Spans, now_ms: i64) {
        let moved = self
            .0
            .keys()
            .any(|start| span_start(spans, *start, now_ms) != Some(*start));
        if moved {
            for (start, sum) in std::mem::take(&mut self.0) {
                self.add(spans, start, now_ms, &sum);
            }
        }
    }

    /// Spans that begin in a time, its end not included, so nothing from before it counts.
    pub fn between(&self, since_ms: i64, until_ms: i64) -> impl Iterator<Item = (i64, &T)> {
        let until_ms = until_ms.max(since_ms);
        self.0.range(since_ms..until_ms).map(|(start, sum)| (*start, sum))
    }

    /// Start of the last span.
    pub fn last(&self) -> Option<i64> {
        self.0.last_key_value().map(|(start, _)| *start)
    }

    /// Spans.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes in whatever order, sums are kept while time goes on, until the horizon.
        #[test]
        fn coarsening_keeps_sums(
            starts in prop::collection::vec(0i64..2 * DAY, 1..200),
            steps in prop::collection::vec(0i64..3 * HOUR, 0..20),
        ) {
            let mut now = 2 * DAY;
            let mut cells = Cells::<Rate>::default();
            let one = Rate { windows: 1, above: 0 };
            for start in &starts {
                cells.add(ALL_SPANS, *start, now, &one);
            }
            for step in steps {
                now += step;
                cells.coarsen(ALL_SPANS, now);
            }
            let sum: u32 = cells.between(i64::MIN, i64::MAX).map(|(_, r)| r.windows).sum();
            prop_assert_eq!(sum as usize, starts.len());
            cells.coarsen(ALL_SPANS, now + 31 * DAY);
            prop_assert_eq!(cells.len(), 0);
        }

        /// A query since a time never holds anything that began before it, at any age.
        #[test]
        fn nothing_from_before_counts(start in 0i64..DAY, since in 0i64..DAY, age in 0i64..2 * DAY) {
            let mut cells = Cells::<Rate>::default();
            cells.add(ALL_SPANS, start, DAY, &Rate { windows: 1, above: 0 });
            cells.coarsen(ALL_SPANS, DAY + age);
            if start < since {
                prop_assert_eq!(cells.between(since, i64::MAX).count(), 0);
            }
        }
    }

    #[test]
    fn a_node_needs_few_cells_for_a_day() {
        let mut cells = Cells::<Rate>::default();
        for start in (0..DAY).step_by(2_000) {
            cells.add(NODE_SPANS, start, start, &Rate { windows: 1, above: 0 });
            if start % MINUTE == 0 {
                cells.coarsen(NODE_SPANS, start);
            }
        }
        assert!(cells.len() < 145, "{}", cells.len());
    }
}
