//! Which calls a process makes at all: the distance of its set of calls to the nearest set seen in training.
//!
//! A program does a whole job: the calls of its start, its work and its end come together. Something that runs
//! inside a process, or drives one, makes calls that are ordinary one by one in a combination that no normal
//! run of a program has. The distance is 1 − |A ∩ B| / √(|A| |B|) (cosine of the sets' indicators; Ochiai, 1957)
//! to the nearest B, in [0, 1].

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

    /// How many calls both hold.
    pub fn common(&self, other: &Self) -> u32 {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| (a & b).count_ones())
            .sum()
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repertoire {
    /// The sets, none empty.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SETS>")]
    pub sets: Vec<CallSet>,
}

impl Repertoire {
    /// Checks sizes, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule((1..=MAX_SETS).contains(&self.sets.len()), NAME, "1 to 65536 sets")?;
        rule(self.sets.iter().all(|s| !s.is_empty()), NAME, "no set is empty")
    }

    /// Distance to the nearest set, in [0, 1]; 0 for a run without calls, which says nothing.
    pub fn distance(&self, calls: &CallSet) -> f64 {
        if calls.is_empty() {
            return 0.0;
        }
        let mine = f64::from(calls.len());
        let nearest = self
            .sets
            .iter()
            .filter(|s| !s.is_empty())
            .map(|s| f64::from(calls.common(s)) / (mine * f64::from(s.len())).sqrt())
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
        }
    }

    #[test]
    fn cosine_by_hand() {
        let r = repertoire(&[vec![1, 2, 3, 4]]);
        let half: CallSet = [1, 2].into_iter().collect();
        assert!((r.distance(&half) - (1.0 - 2.0 / 8f64.sqrt())).abs() < 1e-12);
        assert!(Repertoire { sets: vec![] }.check().is_err());
        assert!(
            Repertoire {
                sets: vec![CallSet::default()]
            }
            .check()
            .is_err()
        );
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
