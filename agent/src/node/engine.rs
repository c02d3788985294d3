//! The work of a moment: look for containers, read the counters, close windows, score.
//!
//! It runs in one thread and holds no clock, so that a swap of models is always between two windows and tests can
//! say what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::desired::{Desired, Key};
use super::models::load::Loaded;
use super::models::shelf::{Refusal, Shelf, Step, VersionKey};
use super::report::Findings;
use super::score::{Scored, Scorer, WindowKey};
use super::targets::{self, Action, Traced};
use crate::containers::{ContainerId, Finder};
use crate::probe::{Hierarchy, Probe, ProbeConfig, ProbeError, ProbeStats, Slot, Tally};
use crate::window::{Closed, Now, Totals, Windows};

/// How often containers are looked for.
const SCAN: Duration = Duration::from_secs(1);
/// How often a probe that could not be loaded is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What the engine is told once.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where cgroups are mounted.
    pub cgroup_root: PathBuf,
    /// Pairs of container and system call that can be counted at once.
    pub tallies: u32,
}

/// What one moment gave.
#[derive(Debug, Default)]
pub struct Tick {
    /// For the operator.
    pub findings: Findings,
    /// Every score, for metrics.
    pub scored: Vec<Scored>,
    /// Windows that were closed, short ones included.
    pub windows: usize,
    /// Containers that came or went.
    pub changed: bool,
}

/// How the probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeHealth {
    /// Loaded, and attached where there is a target.
    Ready,
    /// Not usable: a word and a sentence.
    Failed(&'static str, String),
}

/// What runs on the node.
pub struct Engine {
    config: EngineConfig,
    probe: Option<Probe>,
    health: ProbeHealth,
    finder: Option<Finder>,
    retry_at: Duration,
    scan_at: Duration,
    desired: Desired,
    /// The plan has changed since the last tick.
    dirty: bool,
    traced: BTreeMap<ContainerId, Traced>,
    windows: Windows<WindowKey>,
    shelf: Shelf<Arc<Loaded>>,
    scorer: Scorer,
    tallies: Vec<Tally>,
    stats: ProbeStats,
}

impl Engine {
    /// An engine with nothing to do; `serving` is what served before a restart.
    #[must_use]
    pub fn new(config: EngineConfig, serving: BTreeMap<Key, String>, scorer: Scorer) -> Self {
        Self {
            config,
            probe: None,
            health: ProbeHealth::Failed("Starting", "the probe has not been loaded yet".to_owned()),
            finder: None,
            retry_at: Duration::ZERO,
            scan_at: Duration::ZERO,
            desired: Desired::default(),
            dirty: false,
            traced: BTreeMap::new(),
            windows: Windows::default(),
            shelf: Shelf::new(serving),
            scorer,
            tallies: Vec::new(),
            stats: ProbeStats::default(),
        }
    }

    /// Takes a plan; gives what is to be obtained or forgotten for it.
    pub fn plan(&mut self, desired: Desired) -> Vec<Step> {
        let steps = self.shelf.want(&desired.models);
        self.shelf.swap(&desired.models);
        self.scorer
            .retain(&desired.targets.keys().collect::<BTreeSet<_>>());
        self.desired = desired;
        self.scan_at = Duration::ZERO;
        self.dirty = true;
        steps
    }

    /// Takes a version that was obtained, or why not. True where what serves has changed.
    pub fn obtained(&mut self, key: &VersionKey, result: Result<Arc<Loaded>, Refusal>) -> bool {
        self.shelf.obtained(key, result);
        self.shelf.swap(&self.desired.models)
    }

    /// When [`Self::tick`] has something to do, by the monotonic clock.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        self.windows
            .next_due()
            .map_or(self.scan_at, |due| due.min(self.scan_at))
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) -> Tick {
        self.ensure_probe(now);
        let actions = self.scan(now);
        let due = self.windows.next_due().is_some_and(|due| due <= now.mono);
        if actions.is_empty() && !due && !self.dirty {
            return Tick::default();
        }
        let Some(totals) = self.drain() else {
            return Tick::default();
        };
        let mut closed = self.windows.close_due(now, &totals);
        let changed = !actions.is_empty();
        for action in actions {
            match action {
                Action::Remove(id) => closed.extend(self.remove(&id, now, &totals)),
                Action::Add(id, found) => self.add(id, &found),
            }
        }
        self.match_windows(now, &totals);
        self.dirty = false;
        self.finish(&closed, changed)
    }

    /// Closes every window where it is, for the last time.
    pub fn end(&mut self, now: Now) -> Tick {
        let Some(totals) = self.drain() else {
            return Tick::default();
        };
        let keys: Vec<WindowKey> = self.windows.keys().cloned().collect();
        let closed: Vec<_> = keys
            .iter()
            .filter_map(|key| self.windows.end(key, now, &totals))
            .collect();
        self.finish(&closed, false)
    }

    fn finish(&mut self, closed: &[Closed<WindowKey>], changed: bool) -> Tick {
        let (findings, scored) = self.scorer.score(closed, &self.desired, &self.shelf);
        Tick {
            findings,
            scored,
            windows: closed.len(),
            changed,
        }
    }

    fn ensure_probe(&mut self, now: Now) {
        if self.probe.is_some() || now.mono < self.retry_at {
            return;
        }
        self.retry_at = now.mono + RETRY;
        let loaded = Hierarchy::detect(&self.config.cgroup_root).and_then(|hierarchy| {
            let config = ProbeConfig {
                cgroups: Some(hierarchy.kind),
                processes: false,
                tallies: self.config.tallies,
                ..ProbeConfig::default()
            };
            tracing::info!(kind = ?hierarchy.kind, root = %hierarchy.root.display(), "cgroup hierarchy");
            Ok((Probe::load(config)?, Finder::new(&hierarchy.root)))
        });
        match loaded {
            Ok((probe, finder)) => {
                self.probe = Some(probe);
                self.finder = Some(finder);
                self.health = ProbeHealth::Ready;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &ProbeError) {
        let health = ProbeHealth::Failed(error.reason(), error.to_string());
        if health != self.health {
            tracing::error!(reason = error.reason(), %error, "the probe does not work");
            self.health = health;
        }
    }

    fn scan(&mut self, now: Now) -> Vec<Action> {
        if now.mono < self.scan_at {
            return Vec::new();
        }
        self.scan_at = now.mono + SCAN;
        let Some(finder) = &mut self.finder else {
            return Vec::new();
        };
        let wanted: BTreeSet<ContainerId> = self.desired.targets.keys().cloned().collect();
        targets::plan(&self.traced, &self.desired.targets, finder.refresh(&wanted))
    }

    fn drain(&mut self) -> Option<Totals> {
        let probe = self.probe.as_mut()?;
        self.tallies.clear();
        let drained = probe.drain(&mut self.tallies).and_then(|()| probe.stats());
        match drained {
            Ok(stats) => {
                self.stats = stats;
                self.health = ProbeHealth::Ready;
                Some(Totals::new(&self.tallies, stats.lost_calls))
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn remove(&mut self, id: &ContainerId, now: Now, totals: &Totals) -> Vec<Closed<WindowKey>> {
        let keys: Vec<WindowKey> = self
            .windows
            .keys()
            .filter(|key| key.container == *id)
            .cloned()
            .collect();
        let closed = keys
            .iter()
            .filter_map(|key| self.windows.end(key, now, totals))
            .collect();
        if let (Some(traced), Some(probe)) = (self.traced.remove(id), &mut self.probe)
            && let Err(error) = probe.remove_target(traced.slot)
        {
            self.fail(&error);
        }
        closed
    }

    fn add(&mut self, id: ContainerId, found: &crate::containers::Found) {
        let Some(probe) = &mut self.probe else { return };
        let added = probe.add_target(found.cgroup).and_then(|slot| {
            for nested in Finder::nested(found) {
                probe.bind_cgroup(slot, nested)?;
            }
            Ok(slot)
        });
        match added {
            Ok(slot) => {
                self.traced.insert(
                    id,
                    Traced {
                        slot,
                        cgroup: found.cgroup,
                    },
                );
            }
            // It is tried again with the next look for containers.
            Err(error) => self.fail(&error),
        }
    }

    /// Opens the windows that are wanted, and drops those that no longer are.
    fn match_windows(&mut self, now: Now, totals: &Totals) {
        let mut wanted: Vec<(WindowKey, Slot, Duration)> = Vec::new();
        for (id, traced) in &self.traced {
            for profile in self
                .desired
                .targets
                .get(id)
                .iter()
                .flat_map(|target| &target.profiles)
            {
                if let Some(settings) = self.desired.profiles.get(profile) {
                    let key = WindowKey {
                        container: id.clone(),
                        profile: profile.clone(),
                    };
                    wanted.push((key, traced.slot, settings.window));
                }
            }
        }
        let keep: BTreeSet<&WindowKey> = wanted.iter().map(|(key, ..)| key).collect();
        let stale: Vec<WindowKey> = self
            .windows
            .keys()
            .filter(|key| !keep.contains(key))
            .cloned()
            .collect();
        for key in stale {
            self.windows.end(&key, now, totals);
        }
        for (key, slot, length) in wanted {
            self.windows.open(key, slot, length, now, totals);
        }
    }

    /// What is wanted.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Which versions are held.
    #[must_use]
    pub fn shelf(&self) -> &Shelf<Arc<Loaded>> {
        &self.shelf
    }

    /// Containers that are counted.
    #[must_use]
    pub fn traced(&self) -> &BTreeMap<ContainerId, Traced> {
        &self.traced
    }

    /// How the probe is.
    #[must_use]
    pub fn health(&self) -> &ProbeHealth {
        &self.health
    }

    /// The probe's own figures, as of the last drain.
    #[must_use]
    pub fn stats(&self) -> ProbeStats {
        self.stats
    }
}
