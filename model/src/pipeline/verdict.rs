//! Verdicts: how odd a window is, and which system calls made it so.

use crate::calibration::Severity;
use crate::deviation::Deviation;
use crate::estimators::novelty::Novelty;
use crate::pipeline::EstimatorKind;
use crate::schema::{Feature, MAX_FEATURES, Schema, to_rate};
use crate::syscalls::{self, Class};
use crate::window::Window;
use serde::{Deserialize, Serialize};

/// Most system calls that a verdict names.
pub const MAX_DRIVERS: usize = 3;

/// What a driver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Calls.
    Calls,
    /// Calls that failed.
    Errors,
    /// Calls of all kinds, and as many as the windows before let expect.
    Forecast,
}

/// A system call that made a window odd.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Driver {
    /// The system call's name. Where the call is not known, since of the window only its vector is left, what the feature
    /// counts: `rest:process` the calls of a class that the schema does not name, `%process` all of the class; and
    /// `unknown` where the call has no name. [`EVERY_CALL`] where all were counted together.
    pub syscall: &'static str,
    /// What stands out.
    pub kind: DriverKind,
    /// Rate in the window.
    pub observed_per_s: f32,
    /// Mean rate in training. For calls that the schema only counts as the rest of their class, that of the
    /// rest, for failures that of the class, and of all calls what was forecast.
    pub expected_per_s: f32,
    /// How odd, in nats.
    pub surprise: f32,
}

/// Up to [`MAX_DRIVERS`] drivers, the oddest first.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Drivers {
    items: [Option<Driver>; MAX_DRIVERS],
}

impl Drivers {
    /// The drivers, the oddest first.
    pub fn iter(&self) -> impl Iterator<Item = &Driver> {
        self.items.iter().flatten()
    }

    fn push(&mut self, driver: Driver) {
        if self.iter().any(|d| d.syscall == driver.syscall) {
            return;
        }
        if let Some(free) = self.items.iter_mut().find(|d| d.is_none()) {
            *free = Some(driver);
        }
    }

    fn full(&self) -> bool {
        self.items[MAX_DRIVERS - 1].is_some()
    }
}

/// What the pipeline says of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Calibrated score in [0, 1]; see [`crate::calibration`].
    pub score: f32,
    /// How rare a normal window with such a score is.
    pub p_value: f64,
    /// Severity of the score.
    pub severity: Severity,
    /// Which member was the most surprised.
    pub member: usize,
    /// What that is.
    pub estimator: EstimatorKind,
    /// That member's raw score.
    pub raw: f32,
    /// The system calls that stand out most. Where an estimator of order spoke, it may be none: see
    /// [`super::Pipeline::sequences`].
    pub drivers: Drivers,
    /// Where a classifier spoke, and the severity is low at least: which class that is not normal it finds the likeliest, see
    /// [`crate::estimators::trees::NAMES`].
    pub class: Option<&'static str>,
}

/// Most features that are put back to their usual value, one at a time, to see what the score is without: some estimators
/// look at all that they remember for each score, and a node may have hundreds of alerts to explain at once.
const MAX_OCCLUDED: usize = 16;

/// Surprise, in nats, from which nobody asks whether a call is odd, only what it tells.
const DOUBTLESS: f32 = 10.0;

/// The order of drivers: where it is newness that speaks, what is new first; then how odd, but beyond doubt how telling
/// first; then how odd after all, and last how much is missing. A shell is seen by a hundred `mmap` sooner than by its one `execve`, and named by the latter.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
struct Rank {
    new: bool,
    odd: f32,
    telling: u8,
    surprise: f32,
    uncapped: f32,
}

/// Keeps those of the highest rank, in descending order.
fn keep<R: PartialOrd>(top: &mut [(R, usize)], mut entry: (R, usize)) {
    for best in top {
        if entry.0 > best.0 {
            std::mem::swap(best, &mut entry);
        }
    }
}

/// What a forecast is of.
pub const EVERY_CALL: &str = "calls";

/// A call by a number that no system call has.
pub(super) const UNKNOWN: &str = "unknown";

/// As the schema writes what it counts of a class beside groups.
pub(super) const fn rest_of(class: Class) -> &'static str {
    match class {
        Class::File => "rest:file",
        Class::Network => "rest:network",
        Class::Process => "rest:process",
        Class::Memory => "rest:memory",
        Class::Ipc => "rest:ipc",
        Class::Signal => "rest:signal",
        Class::Desc => "rest:desc",
        Class::Other => "rest:other",
    }
}

/// A class as strace's filters write it, and those of the command line.
const fn all_of(class: Class) -> &'static str {
    match class {
        Class::File => "%file",
        Class::Network => "%network",
        Class::Process => "%process",
        Class::Memory => "%memory",
        Class::Ipc => "%ipc",
        Class::Signal => "%signal",
        Class::Desc => "%desc",
        Class::Other => "%other",
    }
}

/// What an explanation goes by.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// How surprising each feature is by itself.
    Surprise,
    /// What is new.
    Novelty(&'a Novelty),
    /// The order of calls: how often they came explains it only where that is odd beyond doubt too, and a rate that is as
    /// usual would puzzle who reads it.
    Order,
    /// The rate of all calls: the place of its feature, and what was forecast. Rates of single calls explain it no more
    /// than an order of calls.
    Forecast(usize, f32),
    /// How much of the score each feature makes.
    Shares(&'a [f32]),
}

/// Who explains: what is normal, and what each feature means.
pub(super) struct Explainer<'a> {
    pub(super) schema: &'a Schema,
    pub(super) deviation: &'a Deviation,
}

impl Explainer<'_> {
    /// How much of `raw`, a vector's score, each feature makes: what less the score is with the feature at its mean of
    /// training (occlusion; Zeiler and Fergus, ECCV 2014). 0 where that is none, or next to none beside what others
    /// make, or where [`MAX_OCCLUDED`] others moved further. None where no feature alone makes any: an estimator may be as
    /// sure of what is left.
    pub(super) fn shares<'s>(
        &self,
        vector: &[f32],
        raw: f32,
        score: impl Fn(&[f32]) -> f32,
        shares: &'s mut [f32; MAX_FEATURES],
    ) -> Option<&'s [f32]> {
        /// What differs by less is rounding.
        const LEAST: f32 = 1e-4;
        /// Beside the feature that makes the most, one that makes less explains nothing.
        const BESIDE: f32 = 0.1;
        let mut without = [0.0; MAX_FEATURES];
        let without = &mut without[..vector.len()];
        without.copy_from_slice(vector);
        let shares = &mut shares[..vector.len()];
        for feature in self.moved(vector) {
            without[feature] = self.deviation.normals[feature].usual();
            shares[feature] = (raw - score(without)).max(0.0);
            without[feature] = vector[feature];
        }
        let most = shares.iter().copied().fold(0.0, f32::max);
        for share in shares.iter_mut().filter(|share| **share < BESIDE * most) {
            *share = 0.0;
        }
        (most > LEAST * raw.abs()).then_some(shares)
    }

    /// The features that lie furthest from their means of training, beside sums, which are of the others. Most calls
    /// never come, so these are few.
    fn moved(&self, vector: &[f32]) -> impl Iterator<Item = usize> {
        let mut furthest = [(0.0, usize::MAX); MAX_OCCLUDED];
        let features = vector.iter().zip(self.schema.features()).enumerate();
        for (feature, (&x, meaning)) in features {
            if !matches!(meaning, Feature::Total | Feature::Distinct) {
                keep(&mut furthest, (self.deviation.normals[feature].moved(x), feature));
            }
        }
        let found = furthest.into_iter().filter(|one| one.1 != usize::MAX);
        found.map(|(_, feature)| feature)
    }

    /// The system calls behind the features that explain most.
    pub(super) fn drivers(&self, vector: &[f32], window: Option<&Window>, by: By<'_>) -> Drivers {
        // More candidates than drivers: several features may lead to one system call, or to none.
        const CANDIDATES: usize = 4 * MAX_DRIVERS;
        let mut top = [(Rank::default(), usize::MAX); CANDIDATES];
        for (feature, &x) in vector.iter().enumerate() {
            let Some(rank) = self.rank(feature, x, by) else {
                continue;
            };
            keep(&mut top, (rank, feature));
        }
        let mut drivers = Drivers::default();
        if let By::Forecast(total, forecast) = by {
            drivers.push(Driver {
                syscall: EVERY_CALL,
                kind: DriverKind::Forecast,
                observed_per_s: to_rate(vector[total]) as f32,
                expected_per_s: to_rate(forecast) as f32,
                surprise: self.deviation.surprise(total, vector[total]),
            });
        }
        for (Rank { surprise, .. }, feature) in top.into_iter().filter(|t| t.1 != usize::MAX) {
            if let Some(driver) = self.driver(feature, vector[feature], surprise, window) {
                drivers.push(driver);
            }
            if drivers.full() {
                break;
            }
        }
        drivers
    }

    /// What place a feature has among those that explain; none where it does not.
    fn rank(&self, feature: usize, x: f32, by: By<'_>) -> Option<Rank> {
        let (surprise, uncapped) = self.deviation.surprises(feature, x);
        let new = match by {
            By::Surprise => false,
            By::Novelty(novelty) => novelty.is_new(feature, x),
            By::Order | By::Forecast(..) if surprise >= DOUBTLESS => false,
            By::Order | By::Forecast(..) => return None,
            By::Shares(shares) => {
                return (shares[feature] > 0.0).then_some(Rank {
                    odd: shares[feature],
                    surprise,
                    ..Rank::default()
                });
            }
        };
        let telling = if new || surprise >= DOUBTLESS {
            self.schema.telling(feature)
        } else {
            0
        };
        Some(Rank {
            new,
            odd: if new { DOUBTLESS } else { surprise.min(DOUBTLESS) },
            telling,
            surprise,
            uncapped,
        })
    }

    /// The one system call that explains a feature best; what the feature counts, where none can be named.
    fn driver(&self, feature: usize, x: f32, surprise: f32, window: Option<&Window>) -> Option<Driver> {
        let meaning = self.schema.features()[feature];
        let (kind, primary) = match meaning {
            Feature::Group(names) => (DriverKind::Calls, names[0]),
            Feature::Rest(class) => (DriverKind::Calls, rest_of(class)),
            Feature::Errors(class) => (DriverKind::Errors, all_of(class)),
            // Sums over everything explain nothing that their parts do not.
            Feature::Total | Feature::Distinct => return None,
        };
        let found = window.and_then(|w| {
            let (nr, _) = self.schema.dominant(feature, w)?;
            Some(syscalls::name(w.arch, nr).unwrap_or(UNKNOWN))
        });
        Some(Driver {
            syscall: found.unwrap_or(primary),
            kind,
            observed_per_s: to_rate(x) as f32,
            expected_per_s: self.deviation.normals[feature].expected_per_s,
            surprise,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deviation::Normal;
    use std::cell::Cell;

    #[test]
    fn what_makes_most_of_a_score_is_found_in_a_few_scores_whatever_moved() {
        let schema = Schema::syscalls_v1();
        let usual = Normal {
            present: 1.0,
            mean: 2.0,
            spread: 0.5,
            expected_per_s: 6.0,
        };
        let deviation = Deviation {
            normals: vec![usual; schema.width()],
        };
        let explainer = Explainer {
            schema,
            deviation: &deviation,
        };
        let distance = |vector: &[f32]| {
            let squares = vector.iter().map(|x| (x - usual.mean).powi(2));
            squares.sum::<f32>().sqrt()
        };
        let is_sum = |i: &usize| matches!(schema.features()[*i], Feature::Total | Feature::Distinct);
        for furthest in (0..schema.width()).filter(|i| !is_sum(i)) {
            let mut vector: Vec<f32> = (0..schema.width()).map(|i| 3.0 + i as f32 / 100.0).collect();
            // Less than usual counts as much as more.
            vector[furthest] = if furthest % 2 == 0 { 7.0 } else { -3.0 };
            vector[schema.total()] = 20.0;
            let scored = Cell::new(0);
            let score = |vector: &[f32]| {
                scored.set(scored.get() + 1);
                distance(vector)
            };
            let mut shares = [0.0; MAX_FEATURES];
            let shares = explainer.shares(&vector, distance(&vector), score, &mut shares);
            let shares = shares.expect("one makes most");
            let most = (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b]));
            assert_eq!((most, scored.get()), (Some(furthest), MAX_OCCLUDED));
        }
        // Where little moved there is little to ask.
        let mut vector = vec![usual.mean; schema.width()];
        vector[0] = 4.0;
        let mut shares = [0.0; MAX_FEATURES];
        let scored = Cell::new(0);
        let score = |_: &[f32]| {
            scored.set(scored.get() + 1);
            0.0
        };
        assert!(explainer.shares(&vector, 2.0, score, &mut shares).is_some());
        assert_eq!(scored.get(), 1);
    }
}
