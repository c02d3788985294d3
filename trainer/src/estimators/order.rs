//! Counts which calls come right after which: all that a language model of pairs, and STIDE, are.
//!
//! Counts add up, so that those of shards are those of the whole.

use vigia_model::context::{PLACES, PairCounts};

use super::EstimatorError;
use crate::data::Rows;

/// Pairs of all windows.
pub fn count(rows: &Rows) -> PairCounts {
    let mut sums = vec![0u64; PLACES * PLACES];
    for pair in rows.contexts().iter().flat_map(|context| context.pairs()) {
        if let Some(sum) = sums.get_mut(usize::from(pair.id)) {
            *sum = sum.saturating_add(u64::from(pair.count));
        }
    }
    seen(&sums)
}

/// All shards' counts as one.
///
/// # Errors
/// No shard counted any.
pub fn united<'a>(
    estimator: &'static str,
    shards: impl Iterator<Item = &'a PairCounts>,
) -> Result<PairCounts, EstimatorError> {
    let mut sums = vec![0u64; PLACES * PLACES];
    for &(id, count) in shards.flat_map(|shard| &shard.seen) {
        if let Some(sum) = sums.get_mut(usize::from(id)) {
            *sum = sum.saturating_add(count);
        }
    }
    let counts = seen(&sums);
    if counts.seen.is_empty() {
        return Err(EstimatorError::TooFew {
            estimator,
            least: 1,
            unit: "pair of calls (capture.mode Sampled and Full count them)",
            got: 0,
        });
    }
    Ok(counts)
}

fn seen(sums: &[u64]) -> PairCounts {
    let counted = (0..).zip(sums).filter(|(_, sum)| **sum > 0);
    PairCounts {
        seen: counted.map(|(id, &sum)| (id, sum)).collect(),
    }
}
