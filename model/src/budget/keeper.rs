//! Adaptive conformal inference: the p-value that an alarm needs, such that alarms stay within a budget.

use serde::{Deserialize, Serialize};

/// Alarms by which a stream of any length can exceed its budget.
pub const SLACK: f64 = 3.0;

/// Holds the budget of one stream of p-values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Keeper {
    budget: f64,
    level: f64,
}

impl Keeper {
    /// A keeper of `budget` alarms a window, which is taken into [0, 1]; nonsense counts as 0.
    pub const fn new(budget: f64) -> Self {
        let budget = if budget.is_nan() {
            0.0
        } else {
            budget.clamp(0.0, 1.0)
        };
        Self {
            budget,
            level: budget,
        }
    }

    /// Whether none of it is spent.
    pub fn is_full(&self) -> bool {
        self.level >= self.budget
    }

    /// The p-value below which the next window raises an alarm.
    pub const fn level(&self) -> f64 {
        self.level
    }

    /// Whether a window of this p-value raises an alarm. Over any number n of windows there are at most
    /// n · budget + [`SLACK`] alarms, whatever the p-values are.
    pub fn alarm(&mut self, p: f64) -> bool {
        // Two alarms at once empty the level: steps of half the budget are as quick as they can be without
        // one alarm silencing the stream.
        let step = self.budget / 2.0;
        let alarm = p < self.level;
        self.level += step * (self.budget - f64::from(u8::from(alarm)));
        self.level = self.level.min(self.budget);
        alarm
    }

    /// The same for another budget: as much of it is spent.
    pub(super) fn adjusted(self, budget: f64) -> Self {
        let new = Self::new(budget);
        if self.budget == new.budget {
            return self;
        }
        let left = self.level / self.budget;
        Self {
            level: new.budget
                * if left.is_finite() {
                    left.clamp(-1.0, 1.0)
                } else {
                    1.0
                },
            ..new
        }
    }

    /// As after so many windows without an alarm that `alarms` would have been within the budget.
    pub(super) fn rested(mut self, alarms: f64) -> Self {
        self.level = (self.level + self.budget / 2.0 * alarms.max(0.0)).min(self.budget);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(keeper: &mut Keeper, ps: &[f64]) -> usize {
        ps.iter().filter(|&&p| keeper.alarm(p)).count()
    }

    #[test]
    fn a_calibrated_stream_is_left_alone() {
        // 1,000 windows with p-values evenly in (0, 1), budget 1 in 50: the 20 smallest are not close together.
        let ps: Vec<f64> = (0..1000)
            .map(|i| (f64::from(i * 617 % 1000) + 0.5) / 1000.0)
            .collect();
        let alarms = count(&mut Keeper::new(0.02), &ps);
        assert!((12..=20).contains(&alarms), "{alarms}");
    }

    #[test]
    fn a_budget_of_nothing_raises_nothing() {
        for budget in [0.0, -1.0, f64::NAN] {
            assert_eq!(count(&mut Keeper::new(budget), &[0.0, 1e-300, 1.0]), 0);
        }
    }

    proptest! {
        #[test]
        fn the_budget_is_held_whatever_comes(budget in 0.0..=1.0f64, ps in prop::collection::vec(0.0..=1.0f64, 0..500)) {
            let alarms = count(&mut Keeper::new(budget), &ps) as f64;
            prop_assert!(alarms <= ps.len() as f64 * budget + SLACK);
        }

        #[test]
        fn it_is_held_against_the_worst(budget in 1e-4..1.0f64, n in 1usize..2000) {
            let alarms = count(&mut Keeper::new(budget), &vec![0.0; n]) as f64;
            prop_assert!(alarms <= n as f64 * budget + SLACK);
            // And is used: a stream that is odd throughout gets what it is allowed.
            prop_assert!(alarms >= (n as f64 * budget).floor() - 1.0);
        }

        #[test]
        fn never_looser_than_the_budget(budget in 0.0..=1.0f64, ps in prop::collection::vec(0.0..=1.0f64, 0..300)) {
            let mut keeper = Keeper::new(budget);
            for p in ps {
                prop_assert!(keeper.level() <= budget);
                let alarm = keeper.alarm(p);
                prop_assert!(p < budget || !alarm);
            }
        }

        #[test]
        fn ordinary_windows_raise_no_alarm(budget in 0.0..0.5f64, n in 0usize..300) {
            prop_assert_eq!(count(&mut Keeper::new(budget), &vec![0.5; n]), 0);
        }

        #[test]
        fn any_number_is_survived(budget in any::<f64>(), ps in prop::collection::vec(any::<f64>(), 0..100)) {
            let mut keeper = Keeper::new(budget);
            count(&mut keeper, &ps);
            prop_assert!(!keeper.level().is_nan());
        }

        #[test]
        fn what_is_adjusted_or_rested_is_never_looser(level in any::<f64>(), alarms in any::<f64>(), budget in 0.0..=1.0f64) {
            let keeper = Keeper { budget: 1e-3, level }.rested(alarms).adjusted(budget);
            prop_assert!(keeper.level() <= budget);
        }
    }
}
