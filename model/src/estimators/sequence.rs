//! The two views of a run of system calls as one estimator: their order (n-gram model) and their repertoire.
//!
//! Each view's score of a run is put on the scale that it has on normal runs that its model was not fitted to
//! (mean and standard deviation over contiguous folds of the training runs), and the two are added. The views
//! fail on different runs: a program never seen before surprises the n-gram model, whatever it does; a run of
//! calls that are all ordinary shows in its order.

use super::ngram::{Call, History, NgramModel};
use super::repertoire::{CallSet, Repertoire};
use super::{Refused, rule};
use serde::{Deserialize, Serialize};

const NAME: &str = "sequence model";

/// Where normal runs lie on a view's scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, above 0.
    pub deviation: f64,
}

impl Scale {
    /// Distance from the mean in standard deviations.
    pub fn standard(&self, x: f64) -> f64 {
        (x - self.mean) / self.deviation
    }

    fn check(&self) -> Result<(), Refused> {
        rule(
            self.mean.is_finite() && self.deviation.is_finite() && self.deviation > 0.0,
            NAME,
            "scale finite, deviation above 0",
        )
    }
}

/// A trained sequence model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceModel {
    /// The view on order.
    pub ngram: NgramModel,
    /// The view on the set of calls.
    pub repertoire: Repertoire,
    /// Mean surprise a call, in nats, of normal runs.
    pub surprise: Scale,
    /// Distance to the nearest repertoire of normal runs.
    pub distance: Scale,
}

/// What is remembered of one run; of fixed size, however long the run is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Run {
    history: History,
    calls: CallSet,
    surprise: f64,
    len: u64,
}

impl Run {
    /// Mean surprise a call in nats; 0 for a run without calls.
    pub fn mean_surprise(&self) -> f64 {
        if self.len == 0 {
            0.0
        } else {
            self.surprise / self.len as f64
        }
    }

    /// Calls seen.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether no call was seen.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The set of its calls.
    pub const fn calls(&self) -> &CallSet {
        &self.calls
    }
}

impl SequenceModel {
    /// Checks every part, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        self.ngram.check()?;
        self.repertoire.check()?;
        self.surprise.check()?;
        self.distance.check()
    }

    /// Adds a call to a run; its surprise in nats.
    pub fn push(&self, run: &mut Run, call: Call) -> f64 {
        let surprise = self.ngram.surprise(&run.history, call);
        run.history.push(call);
        run.calls.insert(call);
        run.surprise += surprise;
        run.len += 1;
        surprise
    }

    /// How unusual a run is: about 0 for a normal one, larger is more anomalous. A run without calls has 0.
    pub fn score(&self, run: &Run) -> f64 {
        if run.is_empty() {
            return 0.0;
        }
        self.surprise.standard(run.mean_surprise())
            + self.distance.standard(self.repertoire.distance(&run.calls))
    }

    /// The score of a whole run.
    pub fn score_run(&self, calls: &[Call]) -> f64 {
        let mut run = Run::default();
        for &call in calls {
            self.push(&mut run, call);
        }
        self.score(&run)
    }
}
