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
/// Sums of one node: what gates compare nodes by, for longer than a step may hold.
pub(super) const NODE_SPANS: Spans = &[
    (10 * MINUTE, 10 * SECOND),
    (HOUR, MINUTE),
    (DAY, HOUR),
    (8 * DAY, 6 * HOUR),
];

/// Start and length of the span that a time lies in, given the present; `None` past the horizon.
pub(super) fn span_of(spans: Spans, start_ms: i64, now_ms: i64) -> Option<(i64, i64)> {
    let age = now_ms.saturating_sub(start_ms);
    spans
        .iter()
        .find(|(up_to, _)| age <= *up_to)
        .map(|(_, span)| (start_ms.div_euclid(*span) * span, *span))
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

/// What is in a span.
#[derive(Clone, Debug)]
struct Cell<T> {
    /// Length of the span.
    length: i64,
    /// Start of the first sum in it.
    first: i64,
    sum: T,
}

/// Sums by the start of their span.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells<T>(BTreeMap<i64, Cell<T>>);

impl<T: Sum> Cells<T> {
    /// Adds to the span that a time lies in.
    pub fn add(&mut self, spans: Spans, start_ms: i64, now_ms: i64, sum: &T) {
        if let Some((start, length)) = span_of(spans, start_ms, now_ms) {
            let cell = self.0.entry(start).or_insert_with(|| Cell {
                length,
                first: start_ms,
                sum: T::default(),
            });
            cell.length = cell.length.max(length);
            cell.first = cell.first.min(start_ms);
            cell.sum.add(sum);
        }
    }

    /// Puts what has aged into longer spans, and drops what is past the horizon.
    pub fn coarsen(&mut self, spans: Spans, now_ms: i64) {
        let moved = self
            .0
            .iter()
            .any(|(start, cell)| span_of(spans, cell.first, now_ms) != Some((*start, cell.length)));
        if moved {
            for cell in std::mem::take(&mut self.0).into_values() {
                self.add(spans, cell.first, now_ms, &cell.sum);
            }
        }
    }

    /// Spans all of whose sums began in a time, its end not included, so nothing from before it counts.
    pub fn between(&self, since_ms: i64, until_ms: i64) -> impl Iterator<Item = (i64, &T)> {
        let until_ms = until_ms.max(since_ms);
        // The span that the time begins in may hold nothing from before it.
        let cut = self.0.range(..since_ms).next_back();
        cut.filter(|(_, cell)| cell.first >= since_ms)
            .into_iter()
            .chain(self.0.range(since_ms..until_ms))
            .map(|(start, cell)| (*start, &cell.sum))
    }

    /// The span that a time cuts, where there are sums from before it too, and the share of it that comes
    /// after. Of short spans there is none: what they hold is soon outweighed, and is left out.
    pub fn cut(&self, since_ms: i64) -> Option<(f64, &T)> {
        let (start, cell) = self.0.range(..since_ms).next_back()?;
        let end = start + cell.length;
        let is_cut = cell.first < since_ms && since_ms < end && cell.length >= HOUR;
        is_cut.then(|| {
            let share = (end - since_ms) as f64 / (end - cell.first) as f64;
            (share, &cell.sum)
        })
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
    fn a_step_that_holds_for_days_keeps_its_windows() {
        let since = 10 * DAY + 50 * MINUTE + 7 * SECOND;
        let mut cells = Cells::<Rate>::default();
        let (mut all, mut first_hours) = (0, 0);
        for start in (since..since + 7 * DAY).step_by(10_000) {
            cells.add(NODE_SPANS, start, start, &Rate { windows: 1, above: 0 });
            all += 1;
            if all % 60 == 0 {
                cells.coarsen(NODE_SPANS, start);
            }
            if start < since + 3 * HOUR {
                first_hours = cells.between(since, i64::MAX).map(|(_, r)| r.windows).sum();
                assert_eq!(first_hours, all, "lost when they aged");
            }
        }
        assert_eq!(first_hours, 3 * 360);
        let sum: u32 = cells.between(since, i64::MAX).map(|(_, r)| r.windows).sum();
        assert_eq!(sum, all);
        assert!(cells.len() < 165, "{}", cells.len());
    }

    #[test]
    fn a_long_span_that_is_cut_counts_by_its_share() {
        let mut cells = Cells::<Rate>::default();
        for minute in 0..60 {
            cells.add(
                NODE_SPANS,
                minute * MINUTE,
                5 * HOUR,
                &Rate {
                    windows: 10,
                    above: 1,
                },
            );
        }
        let since = 45 * MINUTE;
        assert_eq!(cells.between(since, i64::MAX).count(), 0);
        let (share, rate) = cells.cut(since).expect("it is cut");
        assert!((share - 0.25).abs() < 1e-9 && rate.windows == 600);
        assert!(cells.cut(0).is_none() && cells.cut(HOUR).is_none());
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
