//! What tracing takes, by profile, and what is kept of it where that is more than its budget: pure.
//!
//! A call costs what the probe's programs say that one of their runs takes, so a profile's cost is its containers'
//! calls times that. The kernel's own way into a tracepoint is not in it: every process of the node pays that while
//! anything is traced, whichever profile it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desired::{Key, Profile};
use super::governor::{Governor, Level};
use super::grace::Grace;
use crate::probe::{Mode, ProbeStats, Slot, Used};

/// Between two readings.
pub const EVERY: Duration = Duration::from_secs(10);

/// How long what is known of a profile is kept after it has left the plan, as it does whenever its only pod on the node is
/// replaced: longer than a kubelet waits before it starts again what ends again and again.
const AWAY: Duration = Duration::from_secs(600);

/// A container's counters.
pub struct Reading<'a> {
    /// Under which slot.
    pub slot: Slot,
    /// Its calls so far.
    pub calls: u64,
    /// What is rare of it.
    pub used: Used,
    /// What is kept of them, and in one of how many phases where that is [`Mode::Sampled`].
    pub mode: (Mode, u32),
    /// Who wants it.
    pub profiles: &'a BTreeSet<Key>,
}

/// What a profile's tracing takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processor time of the probe, in cores.
    pub cores: f64,
    /// Calls that were not counted, since the start.
    pub lost: u64,
}

/// Nanoseconds of a call's way through the probe.
#[derive(Debug, Clone, Copy)]
struct Prices {
    counted: f64,
    kept: f64,
}

impl Prices {
    fn of(stats: &ProbeStats) -> Self {
        // Of what has run fewer than a thousand times nothing is known, and nothing need be.
        let counted = stats.exit.mean_ns().unwrap_or(0.0);
        let kept = stats.measure.mean_ns().unwrap_or(counted);
        Self {
            counted,
            kept: kept + stats.enter.mean_ns().unwrap_or(0.0),
        }
    }

    fn call(self, (mode, one_in): (Mode, u32)) -> f64 {
        match mode {
            Mode::Counts => self.counted,
            Mode::Full => self.kept,
            Mode::Sampled => {
                let share = 1.0 / f64::from(one_in.max(1));
                self.counted * (1.0 - share) + self.kept * share
            }
        }
    }
}

/// What is known of a profile.
#[derive(Debug, Clone, Copy)]
struct Metered {
    wanted: Mode,
    governor: Option<Governor>,
    usage: Usage,
}

impl Metered {
    /// A budget that is new or another one begins anew.
    fn new(profile: &Profile, known: Option<Self>) -> Self {
        let governor = known.and_then(|known| known.governor);
        Self {
            wanted: profile.mode,
            governor: profile.budget.map(|budget| {
                let same = governor.filter(|governor| governor.budget() == budget);
                same.unwrap_or_else(|| Governor::new(budget))
            }),
            usage: known.map(|known| known.usage).unwrap_or_default(),
        }
    }

    fn level(&self, wanted: Mode) -> Level {
        self.governor
            .map_or(Level::Kept(wanted), |governor| governor.level(wanted))
    }

    fn is_held_down(&self) -> bool {
        self.level(self.wanted) < Level::Kept(self.wanted)
    }
}

/// Reads the meters and keeps the budgets.
#[derive(Debug, Default)]
pub struct Meter {
    at: Option<Duration>,
    last: BTreeMap<Slot, (u64, u64)>,
    profiles: BTreeMap<Key, Metered>,
    /// Those that have left the plan.
    away: Grace<Key, Metered>,
}

impl Meter {
    /// Takes the profiles in at this time of the monotonic clock. One that comes back goes on where it was.
    pub fn plan(&mut self, profiles: &BTreeMap<Key, Profile>, now: Duration) {
        self.away.turn(now);
        let mut old = std::mem::take(&mut self.profiles);
        for (key, profile) in profiles {
            let known = old.remove(key).or_else(|| self.away.take(key, now));
            self.profiles.insert(key.clone(), Metered::new(profile, known));
        }
        for (key, mut gone) in old {
            gone.usage.cores = 0.0;
            self.away.keep(key, gone, now + AWAY);
        }
    }

    /// Profiles that have left the plan of late, of which less was kept than they wanted.
    pub fn held_down(&self, now: Duration) -> impl Iterator<Item = (&Key, Level)> {
        let away = self.away.iter(now);
        let held = away.filter(|(_, gone, _)| gone.is_held_down());
        held.map(|(key, gone, _)| (key, gone.level(gone.wanted)))
    }

    /// When there is something to read for a budget, by the monotonic clock.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let at = self.at.map_or(Duration::ZERO, |at| at + EVERY);
        let governed = self.profiles.values().any(|one| one.governor.is_some());
        governed.then_some(at)
    }

    /// Slots begin anew: what was read of them is another's.
    pub fn forget(&mut self) {
        self.last.clear();
    }

    /// What may be kept of a profile's calls.
    #[must_use]
    pub fn level(&self, key: &Key, wanted: Mode) -> Level {
        let metered = self.profiles.get(key);
        metered.map_or(Level::Kept(wanted), |metered| metered.level(wanted))
    }

    /// What a profile takes, as it was last read.
    #[must_use]
    pub fn usage(&self, key: &Key) -> Usage {
        self.profiles.get(key).map(|one| one.usage).unwrap_or_default()
    }

    /// Whether a reading is due.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.at.is_none_or(|at| now >= at + EVERY)
    }

    /// Reads all meters, where that is due. The profiles of which another amount is kept from now on.
    pub fn read(&mut self, now: Duration, stats: &ProbeStats, readings: &[Reading<'_>]) -> Vec<(Key, Level)> {
        if !self.is_due(now) {
            return Vec::new();
        }
        let (prices, last) = (Prices::of(stats), std::mem::take(&mut self.last));
        let elapsed = self.at.map(|at| (now - at).as_secs_f64());
        self.at = Some(now);
        for metered in self.profiles.values_mut() {
            metered.usage.cores = 0.0;
        }
        for one in readings {
            self.last.insert(one.slot, (one.calls, one.used.lost));
            // One that is new has its calls since it is traced, all of them within the time.
            let (calls, lost) = last.get(&one.slot).copied().unwrap_or_default();
            let (calls, lost) = (
                one.calls.saturating_sub(calls),
                one.used.lost.saturating_sub(lost),
            );
            for key in one.profiles {
                let Some(Metered { usage, .. }) = self.profiles.get_mut(key) else {
                    continue;
                };
                usage.lost = usage.lost.saturating_add(lost);
                if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
                    usage.cores += calls as f64 * prices.call(one.mode) / 1e9 / elapsed;
                }
            }
        }
        let governed = self.profiles.iter_mut().filter_map(|(key, metered)| {
            let (wanted, cores) = (metered.wanted, metered.usage.cores);
            let governor = metered.governor.as_mut()?;
            let before = governor.level(wanted);
            let after = governor.used(now, wanted, cores);
            (before != after).then(|| (key.clone(), after))
        });
        governed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::key;
    use crate::node::governor::Budget;
    use crate::probe::ProgramCost;
    use vigia_model::syscalls::Filter;

    fn profile(mode: Mode, cores: Option<f64>) -> Profile {
        Profile {
            capture: "all".to_owned(),
            window: EVERY,
            consecutive: 1,
            alerts_per_hour: 1.0,
            sample_per_mille: 0,
            models: vec![],
            mode,
            one_in: 16,
            filter: Filter::default(),
            signals: BTreeSet::new(),
            resources: false,
            budget: cores.map(|cores| Budget {
                cores,
                suspend: false,
            }),
        }
    }

    fn stats() -> ProbeStats {
        let cost = |ns| ProgramCost {
            runs: 1024,
            timed_runs: 1,
            timed_ns: ns,
        };
        ProbeStats {
            exit: cost(50),
            measure: cost(150),
            enter: cost(50),
            ..ProbeStats::default()
        }
    }

    #[test]
    fn a_profile_pays_for_its_containers_calls_by_what_is_kept_of_them() {
        let profiles = BTreeMap::from([
            (key("busy"), profile(Mode::Full, Some(0.01))),
            (key("idle"), profile(Mode::Counts, None)),
        ]);
        let mut meter = Meter::default();
        meter.plan(&profiles, Duration::ZERO);
        let (busy, idle) = (BTreeSet::from([key("busy")]), BTreeSet::from([key("idle")]));
        let mut read = |second: u64, calls: u64, lost: u64| {
            let reading = |slot, calls, lost, mode, profiles| Reading {
                slot: Slot(slot),
                calls,
                used: Used {
                    lost,
                    ..Used::default()
                },
                mode,
                profiles,
            };
            let readings = [
                reading(1, calls, lost, (Mode::Full, 16), &busy),
                reading(2, calls / 2, 0, (Mode::Full, 16), &busy),
                reading(3, 1_000_000, 0, (Mode::Counts, 1), &idle),
            ];
            let changed = meter.read(Duration::from_secs(second), &stats(), &readings);
            (
                changed,
                meter.usage(&key("busy")),
                meter.usage(&key("idle")).cores,
            )
        };
        let (changed, usage, _) = read(10, 1_000_000, 3);
        assert_eq!(
            (changed, usage.cores, usage.lost),
            (vec![], 0.0, 3),
            "since when is not known"
        );
        assert_eq!(read(15, 9_000_000, 3).1.cores, 0.0, "it is not time yet");
        // 1.5 million calls in ten seconds, 200 ns each, are .03 of a core.
        let (changed, usage, idle) = read(20, 2_000_000, 8);
        assert!(
            (usage.cores - 0.03).abs() < 1e-9 && idle == 0.0,
            "{usage:?} {idle}"
        );
        assert_eq!(usage.lost, 8);
        assert_eq!(changed, [(key("busy"), Level::Kept(Mode::Sampled))]);
        assert_eq!(meter.level(&key("idle"), Mode::Counts), Level::Kept(Mode::Counts));
        assert!(meter.next().is_some());
        let without = BTreeMap::from([(key("idle"), profile(Mode::Counts, None))]);
        meter.plan(&without, Duration::from_secs(25));
        assert_eq!(
            (meter.next(), meter.usage(&key("busy"))),
            (None, Usage::default())
        );
    }

    #[test]
    fn a_profile_whose_pod_is_replaced_is_held_down_as_before() {
        let at = Duration::from_secs;
        let profiles = BTreeMap::from([(key("busy"), profile(Mode::Full, Some(0.01)))]);
        let (full, sampled) = (Level::Kept(Mode::Full), Level::Kept(Mode::Sampled));
        let level = |meter: &Meter| meter.level(&key("busy"), Mode::Full);
        let held = |meter: &Meter, now| {
            let held: Vec<_> = meter
                .held_down(at(now))
                .map(|(key, level)| (key.clone(), level))
                .collect();
            held
        };
        let busy = || {
            let mut meter = Meter::default();
            meter.plan(&profiles, at(0));
            let keys = BTreeSet::from([key("busy")]);
            for (second, calls) in [(10, 0), (20, 1_000_000)] {
                let used = Used {
                    lost: 3,
                    ..Used::default()
                };
                let (slot, mode) = (Slot(1), (Mode::Full, 1));
                let reading = Reading {
                    slot,
                    calls,
                    used,
                    mode,
                    profiles: &keys,
                };
                meter.read(at(second), &stats(), &[reading]);
            }
            assert_eq!((level(&meter), held(&meter, 20)), (sampled, vec![]));
            meter.plan(&BTreeMap::new(), at(30));
            assert_eq!((level(&meter), meter.next()), (full, None), "it is no more");
            assert_eq!(
                held(&meter, 30),
                [(key("busy"), sampled)],
                "and that is still said"
            );
            meter
        };
        let mut meter = busy();
        meter.plan(&profiles, at(31));
        assert_eq!((level(&meter), held(&meter, 31)), (sampled, vec![]));
        let Usage { cores, lost } = meter.usage(&key("busy"));
        assert_eq!(
            (cores, lost),
            (0.0, 3),
            "what it took is over, what it lost is not"
        );
        assert_eq!(meter.read(at(80), &stats(), &[]), [(key("busy"), full)]);
        meter.plan(&BTreeMap::new(), at(90));
        assert_eq!(held(&meter, 90), [], "it was not held down any more");

        let mut meter = busy();
        assert_eq!(held(&meter, 30 + AWAY.as_secs()), [], "it does not come back");
        meter.plan(&profiles, at(30) + AWAY);
        assert_eq!(level(&meter), full, "it begins anew");
        let mut meter = busy();
        let more = BTreeMap::from([(key("busy"), profile(Mode::Full, Some(0.02)))]);
        meter.plan(&more, at(31));
        assert_eq!(level(&meter), full, "another budget does, too");
    }

    #[test]
    fn a_sampled_call_costs_its_share() {
        let prices = Prices::of(&stats());
        assert!((prices.call((Mode::Counts, 1)) - 50.0).abs() < 1e-9);
        assert!((prices.call((Mode::Full, 1)) - 200.0).abs() < 1e-9);
        assert!((prices.call((Mode::Sampled, 10)) - 65.0).abs() < 1e-9);
    }
}
