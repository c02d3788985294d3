//! Which calls a process makes at all: the distance of its set of calls to the nearest set seen in training.
//!
//! A program does a whole job: the calls of its start, its work and its end come together. Something that runs
//! inside a process, or drives one, makes calls that are ordinary one by one in a combination that no normal
//! run of a program has. The distance is 1 − w(A ∩ B) / √(w(A) w(B)) (cosine of the sets' indicators; Ochiai, 1957)
//! to the nearest B, in [0, 1]. A set's weight w is the sum over its calls of how rare they are in training's runs
//! (inverse document frequency; Spärck Jones, 1972): what all programs call tells little.

use super::ngram::Call;
use super::{Refused, rule};
use crate::bounded;
use serde::{Deserialize, Serialize};

/// Calls that are told apart; those above share the last place.
pub const CALLS: usize = 512;
/// Most sets in one model.
pub const MAX_SETS: usize = 1 << 16;

const NAME: &str = "repertoire";

/// A set of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct CallSet([u64; CALLS / 64]);

impl CallSet {
    /// Adds a call.
    pub fn insert(&mut self, call: Call) {
        let call = usize::from(call).min(CALLS - 1);
        self.0[call / 64] |= 1 << (call % 64);
    }

    /// How many calls it holds.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The calls that both hold.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The calls, ascending.
    pub fn calls(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at * 64 + bit)
        })
    }
}

impl FromIterator<Call> for CallSet {
    fn from_iter<I: IntoIterator<Item = Call>>(calls: I) -> Self {
        let mut set = Self::default();
        for call in calls {
            set.insert(call);
        }
        set
    }
}

/// The sets of calls of normal runs, each once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repertoire {
    /// The sets, none empty.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SETS>")]
    pub sets: Vec<CallSet>,
    /// Weight of each call of [`CALLS`], above 0.
    #[serde(deserialize_with = "bounded::list::<_, _, CALLS>")]
    pub weights: Vec<f64>,
}

impl Repertoire {
    /// Checks sizes, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule((1..=MAX_SETS).contains(&self.sets.len()), NAME, "1 to 65536 sets")?;
        rule(self.sets.iter().all(|s| !s.is_empty()), NAME, "no set is empty")?;
        let weights = self.weights.iter().all(|w| w.is_finite() && *w > 0.0);
        rule(
            self.weights.len() == CALLS && weights,
            NAME,
            "a weight above 0 for each of 512 calls",
        )
    }

    fn weight(&self, set: &CallSet) -> f64 {
        set.calls().filter_map(|call| self.weights.get(call)).sum()
    }

    /// Distance to the nearest set, in [0, 1]; 0 for a run without calls, which says nothing.
    pub fn distance(&self, calls: &CallSet) -> f64 {
        if calls.is_empty() {
            return 0.0;
        }
        let mine = self.weight(calls);
        let nearest = self
            .sets
            .iter()
            .filter(|s| !s.is_empty())
            .map(|s| self.weight(&calls.common(s)) / (mine * self.weight(s)).sqrt())
            .fold(0.0, f64::max);
        (1.0 - nearest).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets() -> impl Strategy<Value = Vec<Vec<Call>>> {
        prop::collection::vec(prop::collection::vec(0u16..600, 1..20), 1..20)
    }

    fn repertoire(runs: &[Vec<Call>]) -> Repertoire {
        Repertoire {
            sets: runs.iter().map(|r| r.iter().copied().collect()).collect(),
            weights: (0..CALLS).map(|call| 1.0 + (call % 7) as f64 / 2.0).collect(),
        }
    }

    #[test]
    fn cosine_by_hand() {
        let mut r = repertoire(&[vec![1, 2, 3, 4]]);
        let half: CallSet = [1, 2].into_iter().collect();
        // Weights of 1.5, 2, 2.5 and 3.
        assert!((r.distance(&half) - (1.0 - 3.5 / (3.5 * 9f64).sqrt())).abs() < 1e-12);
        r.weights = vec![1.0; CALLS];
        assert!((r.distance(&half) - (1.0 - 2.0 / 8f64.sqrt())).abs() < 1e-12);
        assert_eq!(r.check(), Ok(()));
    }

    #[test]
    fn damaged_sets_and_weights_are_refused() {
        let good = repertoire(&[vec![1, 2]]);
        for bad in [
            Repertoire {
                sets: vec![],
                ..good.clone()
            },
            Repertoire {
                sets: vec![CallSet::default()],
                ..good.clone()
            },
            Repertoire {
                weights: vec![1.0; CALLS - 1],
                ..good.clone()
            },
            Repertoire {
                weights: vec![0.0; CALLS],
                ..good.clone()
            },
            Repertoire {
                weights: vec![f64::NAN; CALLS],
                ..good
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_set_gives_its_calls_back() {
        let set: CallSet = [511, 0, 63, 64, 900].into_iter().collect();
        assert_eq!(set.calls().collect::<Vec<_>>(), [0, 63, 64, 511]);
    }

    proptest! {
        #[test]
        fn within_bounds(runs in sets(), run in prop::collection::vec(any::<u16>(), 0..50)) {
            let d = repertoire(&runs).distance(&run.into_iter().collect());
            prop_assert!((0.0..=1.0).contains(&d));
        }

        #[test]
        fn what_was_seen_is_at_no_distance(runs in sets(), pick in any::<prop::sample::Index>()) {
            let r = repertoire(&runs);
            prop_assert!(r.distance(pick.get(&r.sets)) < 1e-12);
        }

        #[test]
        fn order_and_repetition_do_not_matter(runs in sets(), mut run in prop::collection::vec(0u16..600, 1..30)) {
            let r = repertoire(&runs);
            let once: CallSet = run.iter().copied().collect();
            run.reverse();
            run.extend(run.clone());
            prop_assert_eq!(r.distance(&once), r.distance(&run.into_iter().collect()));
        }

        #[test]
        fn more_training_never_moves_a_run_away(runs in sets(), more in sets(), run in prop::collection::vec(0u16..600, 1..30)) {
            let set: CallSet = run.into_iter().collect();
            let few = repertoire(&runs);
            let mut many = few.clone();
            many.sets.extend(repertoire(&more).sets);
            prop_assert!(many.distance(&set) <= few.distance(&set));
        }

        #[test]
        fn nothing_in_common_is_as_far_as_can_be(run in prop::collection::vec(100u16..200, 1..30)) {
            let r = repertoire(&[vec![1, 2, 3]]);
            prop_assert_eq!(r.distance(&run.into_iter().collect()), 1.0);
        }
    }
}
