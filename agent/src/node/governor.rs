//! How much is kept of a profile's calls where that costs more than its budget: pure.
//!
//! A profile that is over its budget loses what costs the most first: Full, Sampled, Counts, and then it is suspended.
//! It gets it back step by step, each after a wait, and only with room to spare, because a step up costs more than the
//! one before. A suspended profile has no cost that could be measured, so it is tried again; a step up that fails makes
//! the next wait twice as long. What swings around the budget thus stays down most of the time.

use std::time::Duration;

use crate::probe::Mode;

/// The first wait before a step up.
pub const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Share of the budget that may be used where a step up is to come.
const ROOM: f64 = 0.5;

/// What is kept of a profile's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing; its containers are not counted.
    Suspended,
    /// As the probe's mode.
    Kept(Mode),
}

impl Level {
    fn below(self) -> Self {
        match self {
            Self::Kept(Mode::Full) => Self::Kept(Mode::Sampled),
            Self::Kept(Mode::Sampled) => Self::Kept(Mode::Counts),
            Self::Kept(Mode::Counts) | Self::Suspended => Self::Suspended,
        }
    }

    fn above(self) -> Self {
        match self {
            Self::Suspended => Self::Kept(Mode::Counts),
            Self::Kept(Mode::Counts) => Self::Kept(Mode::Sampled),
            Self::Kept(Mode::Sampled | Mode::Full) => Self::Kept(Mode::Full),
        }
    }
}

/// What a profile may cost on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Processor time of the probe, in cores.
    pub cores: f64,
    /// What is over it is suspended at once.
    pub suspend: bool,
}

/// Keeps one profile within its budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Governor {
    budget: Budget,
    limit: Level,
    wait: Duration,
    raise_at: Duration,
    raised_at: Option<Duration>,
}

impl Governor {
    /// One that has not intervened.
    #[must_use]
    pub const fn new(budget: Budget) -> Self {
        Self {
            budget,
            limit: Level::Kept(Mode::Full),
            wait: FIRST_WAIT,
            raise_at: Duration::ZERO,
            raised_at: None,
        }
    }

    /// The budget that it keeps.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// What may be kept of what is wanted.
    #[must_use]
    pub fn level(&self, wanted: Mode) -> Level {
        self.limit.min(Level::Kept(wanted))
    }

    /// Takes in what was used, in cores, since the last time, at `now` of the monotonic clock. The level after it.
    pub fn used(&mut self, now: Duration, wanted: Mode, cores: f64) -> Level {
        let level = self.level(wanted);
        // What cannot be told is too much.
        if cores.is_nan() || cores > self.budget.cores {
            if level != Level::Suspended {
                self.lower(now, level);
            }
        } else if level < Level::Kept(wanted)
            && now >= self.raise_at
            && (level == Level::Suspended || cores <= self.budget.cores * ROOM)
        {
            self.limit = level.above();
            self.raised_at = Some(now);
            self.raise_at = now + self.wait;
        }
        self.level(wanted)
    }

    fn lower(&mut self, now: Duration, level: Level) {
        let failed = self
            .raised_at
            .is_some_and(|at| now.saturating_sub(at) <= 2 * self.wait);
        self.wait = if failed {
            (self.wait * 2).min(LONGEST_WAIT)
        } else {
            FIRST_WAIT
        };
        self.limit = if self.budget.suspend {
            Level::Suspended
        } else {
            level.below()
        };
        self.raise_at = now + self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_secs(10);
    const BUDGET: Budget = Budget {
        cores: 0.01,
        suspend: false,
    };
    const MODES: [Mode; 3] = [Mode::Counts, Mode::Sampled, Mode::Full];

    /// The levels of so many readings, each of which costs what `cost` says of the level before.
    fn run(budget: Budget, wanted: Mode, readings: u32, mut cost: impl FnMut(Level) -> f64) -> Vec<Level> {
        let mut governor = Governor::new(budget);
        (1..=readings)
            .map(|at| {
                let level = governor.level(wanted);
                governor.used(STEP * at, wanted, cost(level))
            })
            .collect()
    }

    fn any_mode() -> impl Strategy<Value = Mode> {
        prop::sample::select(MODES.to_vec())
    }

    /// Cores that a load costs at a level, as measured: a counted call is one, a fully kept one is three.
    fn of_load(load: f64, level: Level) -> f64 {
        match level {
            Level::Suspended => 0.0,
            Level::Kept(Mode::Counts) => load,
            Level::Kept(Mode::Sampled) => load * 1.2,
            Level::Kept(Mode::Full) => load * 3.0,
        }
    }

    #[test]
    fn it_goes_down_step_by_step_and_comes_back_the_same_way() {
        let levels = run(BUDGET, Mode::Full, 3, |_| 1.0);
        assert_eq!(
            levels,
            [
                Level::Kept(Mode::Sampled),
                Level::Kept(Mode::Counts),
                Level::Suspended
            ]
        );
        let mut at = 0;
        let levels = run(BUDGET, Mode::Full, 40, |_| {
            at += 1;
            if at <= 3 { 1.0 } else { 0.001 }
        });
        let ups: Vec<usize> = (1..40).filter(|&at| levels[at] > levels[at - 1]).collect();
        assert_eq!(ups.len(), 3, "{levels:?}");
        assert!(
            ups[0] >= 8 && ups.windows(2).all(|two| two[1] - two[0] >= 6),
            "a minute each: {ups:?}"
        );
    }

    #[test]
    fn where_people_say_so_it_is_suspended_at_once() {
        let budget = Budget {
            suspend: true,
            ..BUDGET
        };
        assert_eq!(run(budget, Mode::Full, 1, |_| 0.011), [Level::Suspended]);
        assert_eq!(run(budget, Mode::Full, 1, |_| 0.009), [Level::Kept(Mode::Full)]);
        assert_eq!(run(BUDGET, Mode::Counts, 1, |_| f64::NAN), [Level::Suspended]);
    }

    #[test]
    fn a_load_that_no_level_bears_is_tried_ever_more_seldom() {
        let day = run(BUDGET, Mode::Counts, 8640, |level| of_load(1.0, level));
        let counted = day.iter().filter(|level| **level != Level::Suspended).count();
        assert!(counted <= 36, "{counted} of 8,640 readings");
    }

    proptest! {
        #[test]
        fn it_never_keeps_more_than_is_wanted(wanted in any_mode(), suspend in any::<bool>(), costs in prop::collection::vec(0.0..0.02f64, 1..300)) {
            let mut costs = costs.into_iter().cycle();
            let budget = Budget { suspend, ..BUDGET };
            for level in run(budget, wanted, 300, |_| costs.next().unwrap_or_default()) {
                prop_assert!(level <= Level::Kept(wanted));
            }
        }

        #[test]
        fn what_is_within_the_budget_is_left_alone(wanted in any_mode(), costs in prop::collection::vec(0.0..=0.01f64, 1..300)) {
            let mut costs = costs.into_iter().cycle();
            for level in run(BUDGET, wanted, 300, |_| costs.next().unwrap_or_default()) {
                prop_assert_eq!(level, Level::Kept(wanted));
            }
        }

        #[test]
        fn three_readings_over_the_budget_suspend_it(wanted in any_mode(), before in prop::collection::vec(0.0..0.02f64, 0..100), after in prop::collection::vec(0.0101..10.0f64, 3)) {
            let costs: Vec<f64> = before.iter().chain(&after).copied().collect();
            let mut next = costs.iter().copied();
            let levels = run(BUDGET, wanted, costs.len() as u32, |_| next.next().unwrap_or_default());
            prop_assert_eq!(levels[levels.len() - 1], Level::Suspended);
        }

        #[test]
        fn a_steady_load_is_within_the_budget_nearly_all_the_time(wanted in any_mode(), suspend in any::<bool>(), load in 0.0001..1.0f64) {
            let mut spent = Vec::new();
            run(Budget { suspend, ..BUDGET }, wanted, 8640, |level| {
                let cost = of_load(load, level);
                spent.push(cost);
                cost
            });
            let over = spent.iter().filter(|cost| **cost > BUDGET.cores).count();
            prop_assert!(over <= 36, "{} of a day's readings", over);
        }

        #[test]
        fn once_the_load_is_gone_all_comes_back(wanted in any_mode(), costs in prop::collection::vec(0.0..1.0f64, 0..500)) {
            let loaded = costs.len() as u32;
            let mut next = costs.into_iter();
            let levels = run(BUDGET, wanted, loaded + 1100, |_| next.next().unwrap_or(0.001));
            prop_assert_eq!(levels[levels.len() - 1], Level::Kept(wanted));
        }

        #[test]
        fn steps_up_are_at_least_the_first_wait_apart(costs in prop::collection::vec(0.0..0.03f64, 1..500)) {
            let count = costs.len() as u32;
            let mut next = costs.into_iter();
            let levels = run(BUDGET, Mode::Full, count, |_| next.next().unwrap_or_default());
            let ups: Vec<usize> = (1..levels.len()).filter(|&at| levels[at] > levels[at - 1]).collect();
            prop_assert!(ups.windows(2).all(|two| (two[1] - two[0]) as u64 * STEP.as_secs() >= FIRST_WAIT.as_secs()));
        }
    }
}
