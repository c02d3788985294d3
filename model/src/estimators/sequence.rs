//! The two views of a run of system calls as one estimator: their order (n-gram model) and their repertoire.
//!
//! Each view's score of a run is put on the scale that it has on normal runs that its model was not fitted to
//! (mean and standard deviation over contiguous folds of the training runs), and the two are added, each by its
//! inverse hyperbolic sine: beyond some deviations a view says no more than "odd", however far it is. The views
//! fail on different runs: a program never seen before surprises the n-gram model, whatever it does; a run of
//! calls that are all ordinary shows in its order.
//!
//! A run repeats itself: a loop that training never saw surprises once, and is the run's own custom from then on. So an
//! n-gram of full length counts the first time that the run makes it.

use std::collections::HashSet;

use super::ngram::{Call, History, NgramModel};
use super::repertoire::{CallSet, Repertoire};
use super::{Refused, rule};
use serde::{Deserialize, Serialize};

const NAME: &str = "sequence model";
/// Most n-grams of a run that are remembered; what comes after them counts each time.
const REMEMBERED: usize = 1 << 13;

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
    /// Surprise of what is new to the run, in nats a call of the run, of normal runs.
    pub surprise: Scale,
    /// Distance to the nearest repertoire of normal runs.
    pub distance: Scale,
}

/// What is remembered of one run; of fixed size, however long the run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    history: History,
    calls: CallSet,
    /// Fingerprints of the n-grams of full length that it made.
    made: HashSet<u64>,
    surprise: f64,
    len: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            history: History::default(),
            calls: CallSet::default(),
            made: HashSet::with_capacity(REMEMBERED),
            surprise: 0.0,
            len: 0,
        }
    }
}

impl Run {
    /// Surprise of what was new to the run, in nats a call of it; 0 for a run without calls.
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

    /// Adds a call to a run; its surprise in nats, 0 where the run made the same n-gram before.
    pub fn push(&self, run: &mut Run, call: Call) -> f64 {
        let is_new = match self.ngram.longest(&run.history, call) {
            Some(gram) if run.made.len() < REMEMBERED => run.made.insert(gram),
            Some(gram) => !run.made.contains(&gram),
            None => true,
        };
        let surprise = if is_new {
            self.ngram.surprise(&run.history, call)
        } else {
            0.0
        };
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
        let distance = self.repertoire.distance(&run.calls);
        Self::both(&self.surprise, run.mean_surprise(), &self.distance, distance)
    }

    /// What the two views say together.
    pub fn both(surprise: &Scale, nats: f64, distance: &Scale, apart: f64) -> f64 {
        surprise.standard(nats).asinh() + distance.standard(apart).asinh()
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
