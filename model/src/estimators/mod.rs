//! Estimators beside the forest and the deviation. Pipelines hold those over a window's vector ([`vector`], [`novelty`]), over its
//! sequences of calls ([`order`]) and over the rates of the windows before ([`rate`]); others are over whole sequences of
//! system calls ([`sequence`], [`ngram`], [`repertoire`]), over metric streams ([`stream`], [`tracked`]), and forecasters of
//! those ([`forecast`]): no artifact carries these, and what uses them is the evaluation.
//!
//! Each is plain serialisable data with a `check` for what comes from outside, and a scorer that allocates
//! nothing per step and does not panic, whatever it is fed. What fits them is in the trainer.

pub mod dbscan;
pub mod forecast;
pub mod front;
pub mod gaussian;
pub mod kmeans;
pub mod lof;
pub mod mlp;
pub mod ngram;
pub mod novelty;
pub mod oddest;
pub mod order;
pub mod quantized;
pub mod rate;
pub mod reconstruction;
pub mod repertoire;
pub mod sequence;
pub mod stream;
pub mod surprises;
pub mod table;
pub mod tracked;
pub mod trees;
pub mod vector;
pub mod zscore;

/// Why an estimator from outside is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{estimator}: {rule}")]
pub struct Refused {
    /// Which estimator.
    pub estimator: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// Refuses unless `holds`.
pub(crate) const fn rule(holds: bool, estimator: &'static str, rule: &'static str) -> Result<(), Refused> {
    if holds {
        Ok(())
    } else {
        Err(Refused { estimator, rule })
    }
}
