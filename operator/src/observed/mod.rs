//! What agents reported of each version, merged.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use vigia_model::histogram::ScoreHistogram;

use crate::store::Store;

/// Sums over nodes and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Windows scored.
    pub windows: u64,
    /// Of these, above the alert threshold.
    pub above_threshold: u64,
    /// By calibrated score.
    pub histogram: ScoreHistogram,
    /// Start of the latest window.
    pub last_window: Option<Timestamp>,
}

/// Summaries of agents.
#[derive(Debug, Default)]
pub struct Observations {}

impl Observations {
    /// Reads what the store has.
    ///
    /// # Errors
    /// The volume.
    pub async fn open(_: &Arc<Store>) -> anyhow::Result<Self> {
        Ok(Self::default())
    }

    /// What a version of a Model scored since a time, on all nodes or some.
    pub fn scores(
        &self,
        _namespace: &str,
        _model: &str,
        _digest: &str,
        _since: Timestamp,
        _nodes: Option<&BTreeSet<String>>,
    ) -> Merged {
        Merged::default()
    }
}
