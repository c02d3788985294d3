//! Counts sequences of calls: all that a language model of them, and STIDE, are.
//!
//! Counts add up, so that those of shards are those of the whole, where no shard has more than [`MAX_KNOWN`] of them: a
//! sequence that is rare in each may then be missing, though it is frequent in all together.

use std::collections::BTreeMap;

use vigia_model::context::{GramCounts, MAX_KNOWN};

use super::EstimatorError;
use crate::data::Rows;

/// Sequences of all windows.
pub fn count(rows: &Rows) -> GramCounts {
    let grams = rows.contexts().iter().flat_map(|context| context.grams());
    sums(grams.map(|gram| (gram.id, u64::from(gram.count))))
}

/// All shards' counts as one; without any, there is no sequence in it.
pub fn united<'a>(shards: impl Iterator<Item = &'a GramCounts>) -> GramCounts {
    sums(shards.flat_map(|shard| shard.seen.iter().copied()))
}

/// What an estimator learns from counts.
///
/// # Errors
/// Nothing was counted.
pub fn learnt(estimator: &'static str, counts: &GramCounts) -> Result<GramCounts, EstimatorError> {
    if counts.seen.is_empty() {
        return Err(EstimatorError::TooFew {
            estimator,
            least: 1,
            unit: "sequence of calls (capture.mode Sampled and Full count them)",
            got: 0,
        });
    }
    Ok(counts.clone())
}

/// Of too many, the most frequent.
fn sums(counted: impl Iterator<Item = (u64, u64)>) -> GramCounts {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for (id, count) in counted {
        let sum = sums.entry(id).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut seen: Vec<(u64, u64)> = sums.into_iter().collect();
    if seen.len() > MAX_KNOWN {
        seen.sort_unstable_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
        seen.truncate(MAX_KNOWN);
        seen.sort_unstable();
    }
    GramCounts { seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_sequences_the_most_frequent_are_kept() {
        let many = (0..2 * MAX_KNOWN as u64).map(|i| (1 << 40 | i, 1 + i % 2));
        let counts = sums(many);
        assert_eq!(counts.seen.len(), MAX_KNOWN);
        assert!(counts.seen.iter().all(|&(_, count)| count == 2));
        assert!(counts.seen.is_sorted());
    }
}
