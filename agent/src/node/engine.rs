//! The work of a moment: look for containers, read the counters, close windows, score.
//!
//! It runs in one thread and holds no clock, so that a swap of models is always between two windows and tests can
//! say what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::desired::{Desired, Key, Profile};
use super::duty::Duty;
use super::governor::Level;
use super::lives::Lives;
use super::meter::{Meter, Reading, Usage};
use super::models::load::Loaded;
use super::models::shelf::{Refusal, Shelf, Step, VersionKey};
use super::report::Findings;
use super::score::{Scored, Scorer, Spent, Unsaid, WindowKey};
use super::targets::{self, Action, Traced};
use crate::containers::resources::Resources;
use crate::containers::{ContainerId, Finder, is_inhabited};
use crate::probe::{
    Gram, Hierarchy, Latency, Mode, Probe, ProbeConfig, ProbeError, ProbeStats, Signal, SignalCounts, Slot,
    Tally, Used,
};
use crate::window::{Closed, Known, New, Now, Totals, Windows};

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
    /// These windows, and what is new in them.
    pub closed: Vec<(Closed<WindowKey>, New)>,
    /// What was told beside calls of the containers of these windows, as totals.
    pub signals: Vec<(WindowKey, Signals)>,
    /// Containers that came or went.
    pub changed: bool,
}

/// What is told of a container beside its calls: totals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals {
    /// What the probe counted.
    pub counts: SignalCounts,
    /// Which of it is wanted.
    pub counted: BTreeSet<Signal>,
    /// What cgroupfs says, where that is wanted.
    pub resources: Option<Resources>,
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
    /// Not before, since the counters could not be read.
    patience: Duration,
    scan_at: Duration,
    desired: Desired,
    /// The plan has changed since the last tick.
    dirty: bool,
    traced: BTreeMap<ContainerId, Traced>,
    /// Where the traced ones are in cgroupfs, and in which hierarchy.
    folders: BTreeMap<ContainerId, PathBuf>,
    hierarchy: Option<Hierarchy>,
    lives: Lives,
    windows: Windows<WindowKey>,
    shelf: Shelf<Arc<Loaded>>,
    scorer: Scorer,
    duty: Duty,
    meter: Meter,
    /// What is rare of each target, as of the last drain.
    used: BTreeMap<Slot, Used>,
    /// Those that go with this tick: their last windows are told by what they were.
    leaving: BTreeMap<ContainerId, Slot>,
    /// What cgroupfs said last of those that profiles want it of: nothing is left of one that is gone.
    resources: BTreeMap<ContainerId, Resources>,
    /// Why latencies and sequences cannot be kept, where a profile wants them.
    no_detail: Option<String>,
    /// What this kernel lacks of the signals that profiles want.
    no_signals: Option<String>,
    known: BTreeMap<WindowKey, Known>,
    tallies: Vec<Tally>,
    latencies: Vec<Latency>,
    grams: Vec<Gram>,
    /// Sequences that found no room in a window.
    unfollowed: u64,
    stats: ProbeStats,
    /// Cgroups nested in containers that could not be bound.
    unbound: u64,
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
            patience: Duration::ZERO,
            scan_at: Duration::ZERO,
            desired: Desired::default(),
            dirty: false,
            traced: BTreeMap::new(),
            folders: BTreeMap::new(),
            hierarchy: None,
            lives: Lives::default(),
            windows: Windows::default(),
            shelf: Shelf::new(serving),
            scorer,
            duty: Duty::default(),
            meter: Meter::default(),
            used: BTreeMap::new(),
            leaving: BTreeMap::new(),
            resources: BTreeMap::new(),
            no_detail: None,
            no_signals: None,
            known: BTreeMap::new(),
            tallies: Vec::new(),
            latencies: Vec::new(),
            grams: Vec::new(),
            unfollowed: 0,
            stats: ProbeStats::default(),
            unbound: 0,
        }
    }

    /// Containers of this plan ran for at least so long before this life began: what they do now is not how they start.
    pub fn recall(&mut self, desired: &Desired, age: Duration) {
        self.lives.recall(desired.targets.keys().cloned().collect(), age);
    }

    /// Takes a plan at this time of the monotonic clock; gives what is to be obtained or forgotten for it.
    pub fn plan(&mut self, desired: Desired, now: Duration) -> Vec<Step> {
        let steps = self.shelf.want(&desired.models);
        self.shelf.swap(&desired.models);
        self.scorer.retain(&desired, now);
        self.meter.plan(&desired.profiles, now);
        self.desired = desired;
        self.scan_at = Duration::ZERO;
        self.dirty = true;
        steps
    }

    /// Windows that an alert budget held back and of which nothing was said, where the last of them is a minute ago.
    pub fn unsaid(&mut self, now_ms: u64) -> Vec<Unsaid> {
        self.scorer.unsaid(now_ms)
    }

    /// What is spent of alert budgets at this time of the monotonic clock.
    #[must_use]
    pub fn spent(&self, now: Duration) -> Spent {
        self.scorer.spent(&self.desired, now)
    }

    /// Takes a version that was obtained, or why not. True where what serves has changed.
    pub fn obtained(&mut self, key: &VersionKey, result: Result<Arc<Loaded>, Refusal>) -> bool {
        self.shelf.obtained(key, result);
        self.shelf.swap(&self.desired.models)
    }

    /// When [`Self::tick`] has something to do, by the monotonic clock.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        // What is due and cannot be read must not be asked for without a pause.
        let next = [self.windows.next_due(), self.duty.next(), self.meter.next()];
        let next = next.into_iter().flatten().fold(self.scan_at, Duration::min);
        next.max(self.patience)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) -> Tick {
        let mut closed = self.ensure_probe(now);
        // Sequences find little room in the kernel: they are taken where there are many new ones.
        let follows = self.turn_duty(now) == Some(false) || now.mono >= self.scan_at;
        let is_due = |next: Option<Duration>| next.is_some_and(|due| due <= now.mono);
        let closes = is_due(self.windows.next_due());
        let actions = self.scan(now, closes);
        let due = closes || is_due(self.meter.next());
        if actions.is_empty() && !due && !self.dirty {
            if follows {
                self.follow();
            }
            return self.finish(closed, false);
        }
        let Some(totals) = self.drain() else {
            self.patience = now.mono + SCAN;
            return self.finish(closed, false);
        };
        let changed = !actions.is_empty();
        let (removed, added): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|a| matches!(a, Action::Remove(_)));
        // What has gone first: the window in which a container ended is its last, also where it is due.
        for action in removed {
            if let Action::Remove(id) = action {
                closed.extend(self.remove(&id, now, &totals));
            }
        }
        if closes {
            closed.extend(self.end_of_the_dead(now, &totals));
        }
        closed.extend(self.windows.close_due(now, &totals));
        for action in added {
            if let Action::Add(id, found) = action {
                self.add(id, &found);
            }
        }
        self.match_windows(now, &totals);
        self.dirty = false;
        self.set_modes();
        if let Some(probe) = &mut self.probe {
            probe.set_signals(&self.desired.signals());
        }
        self.keep_budgets(now, &totals);
        self.finish(closed, changed)
    }

    /// Closes every window where it is, for the last time.
    pub fn end(&mut self, now: Now) -> Tick {
        let closed = self.close_all(now);
        self.finish(closed, false)
    }

    fn close_all(&mut self, now: Now) -> Vec<Closed<WindowKey>> {
        let drained = self.drain();
        let known = drained.is_some();
        // A window whose end is not known is dropped: the next probe's numbers are not those that it began with.
        let totals = drained.unwrap_or_default();
        let keys: Vec<WindowKey> = self.windows.keys().cloned().collect();
        keys.iter()
            .filter_map(|key| self.windows.end(key, now, &totals))
            .filter(|_| known)
            .collect()
    }

    /// Reads what each profile costs; what is kept of those that cost too much changes with the next tick.
    fn keep_budgets(&mut self, now: Now, totals: &Totals) {
        if !self.meter.is_due(now.mono) {
            return;
        }
        let readings: Vec<Reading<'_>> = self
            .traced
            .iter()
            .filter_map(|(id, traced)| {
                Some(Reading {
                    slot: traced.slot,
                    calls: totals.calls(traced.slot),
                    used: self.used.get(&traced.slot).copied().unwrap_or_default(),
                    mode: Self::wanted(&self.desired, &self.meter, id),
                    profiles: &self.desired.targets.get(id)?.profiles,
                })
            })
            .collect();
        let changed = self.meter.read(now.mono, &self.stats, &readings);
        for (profile, level) in changed {
            tracing::warn!(%profile, ?level, "what is kept of calls changes with what it costs");
            self.dirty = true;
            self.scan_at = Duration::ZERO;
        }
    }

    /// What is left out of windows is left out here, before anything is made of them.
    fn finish(&mut self, mut closed: Vec<Closed<WindowKey>>, changed: bool) -> Tick {
        if closed.is_empty() && !changed {
            return Tick::default();
        }
        let mut met = Vec::with_capacity(closed.len());
        for window in &mut closed {
            if let Some(profile) = self.desired.profiles.get(&window.key.profile) {
                window.window.calls.retain(|call| profile.filter.has(call.nr));
                window.detail.retain(|nr| profile.filter.has(nr));
            }
            met.push(self.known.entry(window.key.clone()).or_default().meet(window));
        }
        let open: BTreeSet<&WindowKey> = self.windows.keys().collect();
        self.known.retain(|key, _| open.contains(key));
        let (findings, scored) = self.scorer.score(&closed, &met, &self.desired, &self.shelf);
        let signals = self.signals(&closed);
        Tick {
            signals,
            findings,
            scored,
            windows: closed.len(),
            closed: closed.into_iter().zip(met).collect(),
            changed,
        }
    }

    /// Loads the probe where there is none, and anew where it lacks what a profile wants; gives the windows that this
    /// cuts short.
    fn ensure_probe(&mut self, now: Now) -> Vec<Closed<WindowKey>> {
        let (wants_detail, wants_signals) = (self.desired.wants_detail(), !self.desired.signals().is_empty());
        if !wants_detail {
            self.no_detail = None;
        }
        // What could not be had is not asked for again while it is wanted: each try cuts all windows.
        let again = self.probe.as_ref().is_some_and(|probe| {
            (wants_signals && !probe.has_signals())
                || (wants_detail && !probe.has_detail() && self.no_detail.is_none())
        });
        if (self.probe.is_some() && !again) || (self.probe.is_none() && now.mono < self.retry_at) {
            return Vec::new();
        }
        let cut = if again { self.close_all(now) } else { Vec::new() };
        // The old tables go before there are new ones.
        self.probe = None;
        self.traced.clear();
        self.folders.clear();
        self.meter.forget();
        // As with what the kernel counts: it is a share of what this probe measures.
        self.unfollowed = 0;
        self.scan_at = Duration::ZERO;
        self.retry_at = now.mono + RETRY;
        let root = self.config.cgroup_root.clone();
        let loaded = Hierarchy::detect(&root).and_then(|hierarchy| {
            tracing::info!(kind = ?hierarchy.kind, root = %hierarchy.root.display(), "cgroup hierarchy");
            let probe = self.load_probe(&hierarchy, wants_detail, wants_signals)?;
            let finder = Finder::new(&hierarchy.root);
            self.hierarchy = Some(hierarchy);
            Ok((probe, finder))
        });
        self.take_probe(loaded);
        cut
    }

    /// With detail where it is wanted and can be had, else without: counting is worth more than nothing.
    fn load_probe(
        &mut self,
        hierarchy: &Hierarchy,
        detail: bool,
        signals: bool,
    ) -> Result<Probe, ProbeError> {
        let config = |detail| ProbeConfig {
            cgroups: Some(hierarchy.kind),
            processes: false,
            tallies: self.config.tallies,
            detail,
            sequences: detail,
            signals,
            ..ProbeConfig::default()
        };
        self.no_detail = None;
        if detail {
            match Probe::load(config(true)) {
                Ok(probe) => return Ok(probe),
                Err(error) => {
                    let probe = Probe::load(config(false))?;
                    tracing::error!(%error, "latencies and sequences of calls cannot be kept");
                    self.no_detail = Some(format!("only counts are kept: {error}"));
                    return Ok(probe);
                }
            }
        }
        Probe::load(config(false))
    }

    fn take_probe(&mut self, loaded: Result<(Probe, Finder), ProbeError>) {
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

    /// The mode of a container, and one in how much of the time for [`Mode::Sampled`]: the most that a profile wants.
    fn wanted(desired: &Desired, meter: &Meter, id: &ContainerId) -> (Mode, u32) {
        let profiles = desired.targets.get(id).into_iter().flat_map(|t| &t.profiles);
        let wanted = profiles
            .filter_map(|key| Some((key, desired.profiles.get(key)?)))
            .filter_map(|(key, profile)| match meter.level(key, profile.mode) {
                Level::Kept(mode) => Some((mode, std::cmp::Reverse(profile.one_in))),
                Level::Suspended => None,
            });
        wanted
            .max()
            .map_or((Mode::Counts, 1), |(mode, one_in)| (mode, one_in.0))
    }

    /// Whether a phase is on, where that changed.
    fn turn_duty(&mut self, now: Now) -> Option<bool> {
        if !self.probe.as_ref().is_some_and(Probe::has_detail) {
            return None;
        }
        let sampled = self
            .traced
            .keys()
            .map(|id| Self::wanted(&self.desired, &self.meter, id));
        let one_in = sampled
            .filter(|(mode, _)| *mode == Mode::Sampled)
            .map(|(_, one_in)| one_in)
            .min();
        let active = self.duty.turn(now.mono, one_in)?;
        // Who takes part is settled before the phase begins.
        if active {
            self.set_modes();
        }
        if let Some(Err(error)) = self.probe.as_mut().map(|probe| probe.set_phase(active)) {
            self.fail(&error);
        }
        Some(active)
    }

    /// Takes the sequences of calls that came until now: they belong to the windows that are open.
    fn follow(&mut self) {
        self.grams.clear();
        match self.probe.as_mut().map(|probe| probe.take_grams(&mut self.grams)) {
            Some(Err(error)) => self.fail(&error),
            _ => self.unfollowed = self.unfollowed.saturating_add(self.windows.follow(&self.grams)),
        }
    }

    fn set_modes(&mut self) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.has_detail()) else {
            return;
        };
        for (id, traced) in &self.traced {
            let mode = match Self::wanted(&self.desired, &self.meter, id) {
                (Mode::Sampled, one_in) if !self.duty.takes_part(one_in) => Mode::Counts,
                (mode, _) => mode,
            };
            if let Err(error) = probe.set_mode(traced.slot, mode) {
                return self.fail(&error);
            }
        }
    }

    /// What is counted beside calls of the containers of these windows, of what their profiles want.
    fn signals(&mut self, closed: &[Closed<WindowKey>]) -> Vec<(WindowKey, Signals)> {
        let wanted = self.desired.signals();
        if wanted.is_empty() {
            self.no_signals = None;
            self.resources.clear();
            self.leaving.clear();
            return Vec::new();
        }
        let mut lacks: BTreeSet<String> = BTreeSet::new();
        if let Some(probe) = &self.probe {
            let missing = probe.missing_signals();
            lacks.extend(wanted.iter().filter_map(|signal| missing.get(signal).cloned()));
        }
        let mut told = Vec::new();
        for window in closed {
            let (key, id) = (&window.key, &window.key.container);
            let profile = self.desired.profiles.get(&key.profile);
            let slot = self.traced.get(id).map(|traced| traced.slot);
            let slot = self.leaving.get(id).copied().filter(|_| window.last).or(slot);
            let (Some(profile), Some(slot)) = (profile, slot) else {
                continue;
            };
            let mut signals = Signals {
                counts: self.used.get(&slot).copied().unwrap_or_default().signals,
                counted: profile.signals.clone(),
                resources: None,
            };
            let places = (self.hierarchy.as_ref(), self.folders.get(id));
            if let (true, false, (Some(hierarchy), Some(folder))) = (profile.resources, window.last, places) {
                let resources = Resources::read(hierarchy.kind, &hierarchy.root, folder);
                lacks.extend(resources.missing().into_iter().map(str::to_owned));
                self.resources.insert(id.clone(), resources);
            }
            signals.resources = profile.resources.then(|| {
                self.resources
                    .get(id)
                    .copied()
                    .unwrap_or_default()
                    .killed(signals.counts.oom_kills)
            });
            told.push((key.clone(), signals));
        }
        let here = &self.traced;
        self.resources.retain(|id, _| here.contains_key(id));
        self.leaving.clear();
        let lacks: Vec<String> = lacks.into_iter().collect();
        self.no_signals = (!lacks.is_empty()).then(|| format!("kernel lacks {}", lacks.join("; ")));
        told
    }

    /// Looks for containers, once a second and whenever windows close.
    fn scan(&mut self, now: Now, closes: bool) -> Vec<Action> {
        if now.mono < self.scan_at && !closes {
            return Vec::new();
        }
        self.scan_at = now.mono + SCAN;
        let Some(finder) = &mut self.finder else {
            return Vec::new();
        };
        let (desired, meter) = (&self.desired, &self.meter);
        let is_kept = |key: &Key| {
            let profile = desired.profiles.get(key);
            profile.is_none_or(|profile| meter.level(key, profile.mode) != Level::Suspended)
        };
        let wanted: BTreeSet<ContainerId> = desired
            .targets
            .iter()
            .filter(|(_, target)| target.profiles.iter().any(is_kept))
            .map(|(id, _)| id.clone())
            .collect();
        targets::plan(&self.traced, &wanted, finder.refresh(&wanted))
    }

    fn drain(&mut self) -> Option<Totals> {
        self.follow();
        let probe = self.probe.as_mut()?;
        self.tallies.clear();
        self.latencies.clear();
        let drained = probe
            .drain(&mut self.tallies)
            .and_then(|()| probe.drain_latencies(&mut self.latencies))
            .and_then(|()| Ok((probe.drain_used()?, probe.stats()?)));
        match drained {
            Ok((used, stats)) => {
                let lost_detail = stats.lost_detail.saturating_add(self.unfollowed);
                self.stats = ProbeStats { lost_detail, ..stats };
                self.health = ProbeHealth::Ready;
                let lost = used.iter().map(|(slot, used)| (*slot, used.lost)).collect();
                self.used = used;
                let totals = Totals::new(&self.tallies, lost);
                Some(totals.with_latencies(&self.latencies))
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
        self.folders.remove(id);
        self.lives.forget(id);
        if let (Some(traced), Some(probe)) = (self.traced.remove(id), &mut self.probe) {
            self.leaving.insert(id.clone(), traced.slot);
            if let Err(error) = probe.remove_target(traced.slot) {
                self.fail(&error);
            }
        }
        closed
    }

    /// Ends the windows of containers in which something ran and no longer does, and whose folders are still there.
    fn end_of_the_dead(&mut self, now: Now, totals: &Totals) -> Vec<Closed<WindowKey>> {
        let Some(hierarchy) = &self.hierarchy else {
            return Vec::new();
        };
        let seen = self
            .folders
            .iter()
            .map(|(id, folder)| (id, is_inhabited(hierarchy, folder)));
        let dead = self.lives.ended(seen);
        let keys = self.windows.keys().filter(|key| dead.contains(&key.container));
        let keys: Vec<WindowKey> = keys.cloned().collect();
        let ends = keys.iter().filter_map(|key| self.windows.end(key, now, totals));
        ends.collect()
    }

    fn add(&mut self, id: ContainerId, found: &crate::containers::Found) {
        let Some(probe) = &mut self.probe else { return };
        match probe.add_target(found.cgroup) {
            Ok(slot) => {
                // A container is counted also where what it has nested cannot be: else it could end its own tracing.
                let nested = Finder::nested(found);
                let bound = nested
                    .ids
                    .iter()
                    .take_while(|id| probe.bind_cgroup(slot, **id).is_ok())
                    .count();
                self.unbound += (nested.ids.len() - bound) as u64 + u64::from(nested.more);
                self.folders.insert(id.clone(), found.folder.clone());
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
                let settings = self.desired.profiles.get(profile);
                let is_kept =
                    |settings: &&Profile| self.meter.level(profile, settings.mode) != Level::Suspended;
                if let Some(settings) = settings.filter(is_kept) {
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
            let first = self.windows.open(key.clone(), slot, length, now, totals);
            if first {
                self.windows.aged(&key, self.lives.age(&key.container, length));
            }
        }
    }

    /// What is wanted.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What may be kept of each profile's calls within its budget, and what that takes.
    #[must_use]
    pub fn costs(&self) -> BTreeMap<Key, (Level, Usage)> {
        let profiles = self.desired.profiles.iter();
        let cost = |(key, profile): (&Key, &Profile)| {
            let cost = (self.meter.level(key, profile.mode), self.meter.usage(key));
            (key.clone(), cost)
        };
        profiles.map(cost).collect()
    }

    /// Profiles that have left the plan of late, and what was kept of their calls where that was less than they wanted.
    #[must_use]
    pub fn held_down(&self, now: Duration) -> BTreeMap<Key, Level> {
        let held = self.meter.held_down(now);
        held.map(|(key, level)| (key.clone(), level)).collect()
    }

    /// Which versions are held.
    #[must_use]
    pub fn shelf(&self) -> &Shelf<Arc<Loaded>> {
        &self.shelf
    }

    /// Profiles, with the Models whose serving version was trained on windows of other system calls.
    #[must_use]
    pub fn misfits(&self) -> Vec<(Key, Key)> {
        let mut misfits = Vec::new();
        for (name, profile) in &self.desired.profiles {
            for model in &profile.models {
                let serving = self.shelf.active(model);
                if serving.is_some_and(|serving| !serving.metadata.fits(&profile.capture)) {
                    misfits.push((name.clone(), model.clone()));
                }
            }
        }
        misfits
    }

    /// Containers that are counted.
    #[must_use]
    pub fn traced(&self) -> &BTreeMap<ContainerId, Traced> {
        &self.traced
    }

    /// Why latencies and sequences cannot be kept, where a profile wants them.
    #[must_use]
    pub fn no_detail(&self) -> Option<&str> {
        self.no_detail.as_deref()
    }

    /// What this kernel lacks of the signals that profiles want.
    #[must_use]
    pub fn no_signals(&self) -> Option<&str> {
        self.no_signals.as_deref()
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

    /// Cgroups made inside containers that are not counted: there was no place for them.
    #[must_use]
    pub fn lost_cgroups(&self) -> u64 {
        self.stats.lost_bindings + self.unbound
    }
}
