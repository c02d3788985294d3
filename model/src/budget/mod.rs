//! When a window is told as an alert, such that people read no more alerts than they asked for.
//!
//! [`AlertBudget::threshold`] is right while windows are exchangeable with the held-out ones. Programs that training
//! never met are not, and alerts come in multiples of the budget. A [`Keeper`] closes the loop: adaptive conformal
//! inference (Gibbs and Candès, NeurIPS 2021) lowers the p-value that an alert needs with every alert and raises it
//! again with every window without one. It is never looser than the budget itself, so a model whose alerts are rare is
//! left alone.
//!
//! What a budget counts is what people read: an alert begins, goes on for as long as its windows do, and is one. Each
//! container has a keeper, so that none can spend what is another's. Containers that come and go would each bring a
//! new one, so those of one profile on a node also share a [`Pool`], which newcomers find as it is.

mod keeper;

use serde::{Deserialize, Serialize};

pub use keeper::{Keeper, SLACK};

use crate::calibration::AlertBudget;

/// What makes an alert of one container's windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    share: f64,
    threshold: f32,
    at_once: f32,
    windows: u32,
}

impl Rule {
    /// Alerts within `budget` of windows of `window_s` seconds, `consecutive` of which in a row above the threshold
    /// make one, however windows hang together; one alone does where it is ten times rarer.
    pub fn new(budget: &AlertBudget, window_s: f64, consecutive: u32) -> Self {
        // Nothing is known of a container in advance, and with 1 the budget holds however windows hang together.
        const DEPENDENCE: f32 = 1.0;
        Self {
            share: budget.share(window_s),
            threshold: budget.threshold(window_s, consecutive, DEPENDENCE),
            at_once: budget.at_once(window_s),
            windows: consecutive.max(1),
        }
    }

    /// The calibrated score that a window must reach.
    pub const fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Whether a window of this score, the last of so many in a row above the threshold, could be an alert.
    fn alerts(&self, window: &Scored, streak: u32) -> bool {
        let at_once = window.settled && window.score >= self.at_once;
        window.score >= self.threshold && window.p < self.share && (streak >= self.windows || at_once)
    }
}

/// A window as a model sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// How rare it is among normal ones.
    pub p: f64,
    /// The same as calibrated score.
    pub score: f32,
    /// It may be one of several in a row: a container's first window is not.
    pub counts: bool,
    /// It may be an alert by itself.
    pub settled: bool,
    /// When it started, by any clock in milliseconds: an alert is told apart by that of its first window.
    pub started_ms: i64,
}

/// What becomes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// No alert.
    Nothing,
    /// An alert begins.
    Begins,
    /// The alert that was begun goes on.
    GoesOn,
    /// It would be an alert, and the budget is spent.
    Withheld,
}

impl Told {
    /// Whether people are told of it.
    pub const fn is_alert(self) -> bool {
        matches!(self, Self::Begins | Self::GoesOn)
    }
}

/// One container's windows, as one model sees them.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    keeper: Keeper,
    streak: u32,
    telling: Option<i64>,
}

impl Stream {
    /// One of which nothing is known but what is left of its budget.
    pub const fn new(keeper: Keeper) -> Self {
        Self {
            keeper,
            streak: 0,
            telling: None,
        }
    }

    /// One that has all of its budget.
    pub fn fresh(rule: &Rule) -> Self {
        Self::new(Keeper::new(rule.share))
    }

    /// What is left of its budget.
    pub const fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// When the first window that was told of the alert that goes on started.
    pub const fn began_ms(&self) -> Option<i64> {
        self.telling
    }

    /// Windows in a row above the threshold until now.
    pub const fn streak(&self) -> u32 {
        self.streak
    }

    /// Takes the next window in. Whatever comes, in any number n of windows at most n · budget + [`SLACK`] alerts begin.
    pub fn window(&mut self, rule: &Rule, pool: &mut Pool, window: &Scored) -> Told {
        let above = window.score >= rule.threshold;
        self.streak = if above && window.counts {
            self.streak.saturating_add(1)
        } else {
            0
        };
        self.telling = self.telling.filter(|_| above);
        self.keeper = self.keeper.adjusted(rule.share);
        pool.earn(rule.share);
        let odd = rule.alerts(window, self.streak);
        let asks = odd && self.telling.is_none() && pool.is_open();
        let begins = self.keeper.alarm(if asks { window.p } else { 1.0 });
        if begins {
            pool.spend();
            self.telling = Some(window.started_ms);
        }
        match (odd, self.telling.is_some()) {
            (false, _) => Told::Nothing,
            (true, true) if begins => Told::Begins,
            (true, true) => Told::GoesOn,
            (true, false) => Told::Withheld,
        }
    }
}

/// Alerts that may still begin in the streams that share it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    left: f64,
    most: f64,
}

impl Pool {
    /// A full one for so many streams at a time: each can begin an alert at the same moment.
    pub fn new(streams: usize) -> Self {
        let most = Self::most(streams);
        Self { left: most, most }
    }

    fn most(streams: usize) -> f64 {
        SLACK - 1.0 + streams.max(1) as f64
    }

    /// For another number of streams; those that are new bring nothing.
    pub fn shared_by(&mut self, streams: usize) {
        self.most = Self::most(streams);
        self.left = self.left.min(self.most);
    }

    const fn is_open(&self) -> bool {
        self.left >= 1.0
    }

    fn spend(&mut self) {
        self.left -= 1.0;
    }

    /// Takes in what the budget allows meanwhile.
    fn earn(&mut self, alerts: f64) {
        self.left = (self.left + alerts).min(self.most);
    }
}

/// What is left of a budget, to be found again by another life.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kept<T> {
    /// What is left.
    pub left: T,
    /// Alerts an hour that the budget allows it.
    pub per_hour: f64,
}

impl Kept<Keeper> {
    /// What is left after so many hours without an alert.
    pub fn after(self, hours: f64) -> Keeper {
        self.left.rested(self.per_hour * hours)
    }
}

impl Kept<Pool> {
    /// What is left after so many hours without an alert.
    pub fn after(mut self, hours: f64) -> Pool {
        self.left.earn((self.per_hour * hours).max(0.0));
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE_BUDGET: AlertBudget = AlertBudget {
        count: 1.0,
        period_s: 1000.0,
        containers: 1.0,
    };

    fn scored(p: f64) -> Scored {
        Scored {
            p,
            score: crate::calibration::calibrated(p),
            counts: true,
            settled: true,
            started_ms: 0,
        }
    }

    fn told(windows: u32, ps: &[f64]) -> Vec<Told> {
        let rule = Rule::new(&RULE_BUDGET, 1.0, windows);
        let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
        ps.iter()
            .map(|&p| stream.window(&rule, &mut pool, &scored(p)))
            .collect()
    }

    #[test]
    fn an_alert_takes_its_windows_in_a_row_or_one_beyond_doubt() {
        use Told::{Begins, GoesOn, Nothing};
        // The budget allows 1e-3 of the windows, and 1e-4 of them alone.
        assert_eq!(
            told(3, &[5e-4, 5e-4, 5e-4, 5e-4]),
            [Nothing, Nothing, Begins, GoesOn]
        );
        assert_eq!(told(3, &[5e-5, 0.5, 5e-4]), [Begins, Nothing, Nothing]);
        assert_eq!(told(3, &[2e-3; 9]), [Nothing; 9]);
        let rule = Rule::new(&RULE_BUDGET, 1.0, 2);
        let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
        let mut window = |counts, settled| {
            let one = Scored {
                counts,
                settled,
                ..scored(1e-9)
            };
            stream.window(&rule, &mut pool, &one)
        };
        // The first window does not count, the second is none by itself, the third is one of two.
        assert_eq!(
            [window(false, false), window(true, false), window(true, true)],
            [Nothing, Nothing, Begins]
        );
    }

    #[test]
    fn an_alert_that_lasts_is_one_and_the_next_is_told_too() {
        let mut ps = vec![1e-12; 500];
        ps.push(0.5);
        ps.push(1e-12);
        let told = told(2, &ps);
        assert_eq!(told[0], Told::Begins);
        assert!(told[1..500].iter().all(|one| *one == Told::GoesOn));
        assert_eq!(told[501], Told::Begins, "the long one has cost one alert");
    }

    #[test]
    fn an_alert_is_told_apart_by_its_first_window() {
        let rule = Rule::new(&RULE_BUDGET, 1.0, 1);
        let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
        let mut began = |p, started_ms| {
            let one = Scored {
                started_ms,
                ..scored(p)
            };
            stream.window(&rule, &mut pool, &one);
            stream.began_ms()
        };
        let told = [
            began(1e-12, 10),
            began(1e-12, 20),
            began(0.5, 30),
            began(1e-12, 40),
        ];
        assert_eq!(told, [Some(10), Some(10), None, Some(40)]);
    }

    #[test]
    fn what_is_beyond_the_budget_is_withheld_and_comes_back_with_time() {
        let ps: Vec<f64> = [1e-12, 0.5].repeat(3000);
        let told = told(2, &ps);
        let begun = told.iter().filter(|one| **one == Told::Begins).count();
        let withheld = told.iter().filter(|one| **one == Told::Withheld).count();
        // 6,000 windows of a budget of one in 1,000.
        assert!(
            (6..=9).contains(&begun) && begun + withheld == 3000,
            "{begun} begun, {withheld} withheld"
        );
    }

    #[test]
    fn a_restart_and_another_budget_change_nothing_of_what_is_spent() {
        let mut keeper = Keeper::new(1e-3);
        while keeper.alarm(0.0) {}
        let kept = |per_hour| Kept {
            left: keeper,
            per_hour,
        };
        assert_eq!(kept(0.5).after(0.0), keeper);
        assert_eq!(kept(0.5).after(-3.0), keeper, "a clock that was set back");
        assert!(kept(0.5).after(100.0).is_full());
        let other = keeper.adjusted(1e-5);
        assert!((other.level() / 1e-5 - keeper.level() / 1e-3).abs() < 1e-9);
        assert!(Keeper::new(0.0).adjusted(1e-3).is_full());
        let pool = Kept {
            left: Pool { left: 0.0, most: 3.0 },
            per_hour: 0.5,
        };
        assert!(!pool.after(1.0).is_open() && pool.after(2.0).is_open());
    }

    #[test]
    fn a_workload_that_is_made_anew_all_the_time_brings_no_new_budget() {
        let rule = Rule::new(&RULE_BUDGET, 1.0, 1);
        let mut pool = Pool::new(1);
        let begun = (0..2000)
            .filter(|_| {
                // Each container lives for one window.
                pool.shared_by(1);
                Stream::fresh(&rule).window(&rule, &mut pool, &scored(1e-12)) == Told::Begins
            })
            .count();
        assert!((4..=5).contains(&begun), "{begun} in two periods");
    }

    #[test]
    fn all_containers_of_a_node_can_tell_at_the_same_moment() {
        let rule = Rule::new(&RULE_BUDGET, 1.0, 2);
        let mut pool = Pool::new(30);
        let mut streams = [Stream::fresh(&rule); 30];
        for stream in &mut streams {
            assert_eq!(stream.window(&rule, &mut pool, &scored(1e-12)), Told::Begins);
        }
    }

    proptest! {
        #[test]
        fn streams_that_share_a_pool_hold_their_budget(streams in 1usize..8, ps in prop::collection::vec(0.0..=1e-3f64, 0..800)) {
            let rule = Rule::new(&RULE_BUDGET, 1.0, 1);
            let mut pool = Pool::new(streams);
            let mut all = vec![Stream::fresh(&rule); streams];
            let mut begun = 0.0;
            for (at, p) in ps.iter().enumerate() {
                let one = all[at % streams].window(&rule, &mut pool, &scored(*p));
                begun += f64::from(u8::from(one == Told::Begins));
            }
            prop_assert!(begun <= ps.len() as f64 * 1e-3 + SLACK + streams as f64);
        }
    }
}
