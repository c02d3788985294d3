//! From a closed window to verdicts, sums and samples: pure.
//!
//! The Active version of each of a profile's Models decides; a Shadow version scores beside it and raises nothing.
//! An alert needs as many windows in a row above the threshold as the profile says, or one that is odd beyond doubt:
//! what a shell does in a second is over before a second window. The first two windows of a container and its last are
//! never alerts by themselves, and the first does not count at all: starting and ending are like nothing in between. So
//! nothing is learnt from a first or a last window either, and no version is measured by it: to a model that has learnt
//! how containers start, what a runtime does for an exec is nothing new. An alert goes on being told for as long as they
//! last, and what the alert budget has no room for is counted and not told; see [`vigia_model::budget`]. Feature vectors
//! for training are a share of the windows, under a hashed name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vigia_crds::VersionMode;
use vigia_model::budget::{self, Keeper, Kept, Pool, Rule, Stream, Told};
use vigia_model::calibration::{AlertBudget, Severity};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::pipeline::{EstimatorKind, Scratch};
use vigia_model::schema::Schema;
use vigia_proto::v1;

use crate::containers::ContainerId;
use crate::node::aside::{About, Aside, Burst, Lines};
use crate::node::beside::Beside;
use crate::node::desired::{Desired, Key, Profile, Target};
use crate::node::grace::{GRACE, Grace};
use crate::node::models::load::Loaded;
use crate::node::models::shelf::Shelf;
use crate::node::report::{Findings, Sums};
use crate::node::told::{Why, with_new};
use crate::window::{Closed, New};

/// Feature vectors of one drain, at most.
const SAMPLES: usize = 512;

/// Whose window it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowKey {
    /// The container.
    pub container: ContainerId,
    /// The profile that wants it.
    pub profile: Key,
}

/// One version's score of one window, for metrics and for whoever looks on.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The TraceProfile.
    pub profile: Key,
    /// The Model.
    pub model: Key,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Calibrated.
    pub score: f32,
    /// Which estimator of the version was the most surprised.
    pub estimator: EstimatorKind,
    /// It decides, or only looks on.
    pub mode: VersionMode,
    /// It became an alert.
    pub alert: Option<Severity>,
    /// What the alert budget made of it.
    pub told: Told,
    /// What is said of a window that was withheld, where it is this one's turn.
    pub aside: Option<Box<Aside>>,
    /// When its window started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// What scoring took.
    pub seconds: f64,
}

#[cfg(test)]
impl Scored {
    /// A window of a profile, of which nothing matters but what became of it.
    pub(super) fn of(profile: Key, told: Told) -> Self {
        Self {
            model: Key {
                namespace: profile.namespace.clone(),
                name: "m".to_owned(),
            },
            profile,
            pod: "p".to_owned(),
            container: "c".to_owned(),
            score: 0.9,
            estimator: EstimatorKind::Deviation,
            mode: VersionMode::Active,
            alert: None,
            told,
            aside: None,
            started_ms: 0,
            seconds: 0.0,
        }
    }
}

/// Windows that were withheld of a container by a Model, and had no line of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaid {
    /// The TraceProfile.
    pub profile: Key,
    /// The Model.
    pub model: Key,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// How many, when, and by whom.
    pub burst: Burst,
}

/// The log's lines of a container, and its names, which are wanted also where it has gone.
#[derive(Debug)]
struct OfContainer {
    lines: Lines,
    pod: String,
    container: String,
}

/// What is spent of alert budgets, as it is kept for another life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    streams: Vec<SpentStream>,
    pools: Vec<SpentPool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SpentStream {
    pod_uid: String,
    container: String,
    profile: Key,
    model: Key,
    kept: Kept<Keeper>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SpentPool {
    profile: Key,
    model: Key,
    kept: Kept<Pool>,
    /// Seconds for which it is kept, where its profile has left the plan.
    #[serde(default)]
    away_s: Option<u64>,
}

/// Scores windows and remembers what was told of each container.
pub struct Scorer {
    scratch: Scratch,
    vector: Vec<f32>,
    /// By container, profile and Model.
    streams: BTreeMap<(WindowKey, Key), Stream>,
    /// What the log has said of those of which something was withheld.
    lines: BTreeMap<(WindowKey, Key), OfContainer>,
    /// By profile and Model.
    pools: BTreeMap<(Key, Key), Pool>,
    /// Those of what has left the plan: whoever can make a pod end must not thereby fill its pool.
    away: Grace<(Key, Key), Pool>,
    /// Containers of each profile.
    containers: BTreeMap<Key, usize>,
    beside: Beside,
    /// Fingerprints of the profiles' filters.
    captures: BTreeMap<Key, String>,
    /// Key of the hash that stands for a container in samples.
    secret: [u8; 32],
    draw: u64,
}

impl Scorer {
    /// A scorer; `secret` makes containers' names in samples unreadable, `seed` decides which windows are sampled.
    #[must_use]
    pub fn new(secret: [u8; 32], seed: u64) -> Self {
        Self {
            scratch: Scratch::default(),
            vector: Vec::new(),
            streams: BTreeMap::new(),
            lines: BTreeMap::new(),
            pools: BTreeMap::new(),
            away: Grace::default(),
            containers: BTreeMap::new(),
            beside: Beside::default(),
            captures: BTreeMap::new(),
            secret,
            draw: seed | 1,
        }
    }

    /// Takes over what another life had spent of alert budgets, this many hours ago; now is by the monotonic clock.
    pub fn restore(&mut self, spent: Spent, hours: f64, now: Duration) {
        let since = Duration::try_from_secs_f64(hours * 3600.0).unwrap_or_default();
        for one in spent.streams {
            let window = WindowKey {
                container: ContainerId {
                    pod_uid: one.pod_uid,
                    id: one.container,
                },
                profile: one.profile,
            };
            let stream = Stream::new(one.kept.after(hours));
            self.streams.insert((window, one.model), stream);
        }
        for one in spent.pools {
            let (key, pool) = ((one.profile, one.model), one.kept.after(hours));
            match one.away_s.map(|left| Duration::from_secs(left).min(GRACE)) {
                None => {
                    self.pools.insert(key, pool);
                }
                Some(left) if left > since => self.away.keep(key, pool, now + (left - since)),
                Some(_) => {}
            }
        }
    }

    /// What is spent of alert budgets at this time of the monotonic clock: what has all of its own is left out.
    #[must_use]
    pub fn spent(&self, desired: &Desired, now: Duration) -> Spent {
        let per_hour = |profile: &Key| Some(desired.profiles.get(profile)?.alerts_per_hour);
        let streams = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.keeper().is_full());
        let streams = streams.filter_map(|((window, model), stream)| {
            Some(SpentStream {
                pod_uid: window.container.pod_uid.clone(),
                container: window.container.id.clone(),
                profile: window.profile.clone(),
                model: model.clone(),
                kept: Kept {
                    left: *stream.keeper(),
                    per_hour: per_hour(&window.profile)?,
                },
            })
        });
        let pools = self.pools.iter().filter_map(|((profile, model), pool)| {
            let containers = self.containers.get(profile).copied().unwrap_or_default();
            Some(SpentPool {
                profile: profile.clone(),
                model: model.clone(),
                kept: Kept {
                    left: *pool,
                    per_hour: per_hour(profile)? * containers as f64,
                },
                away_s: None,
            })
        });
        let away = self
            .away
            .iter(now)
            .map(|((profile, model), pool, left)| SpentPool {
                profile: profile.clone(),
                model: model.clone(),
                // No container runs that could earn anything.
                kept: Kept {
                    left: *pool,
                    per_hour: 0.0,
                },
                away_s: Some(left.as_secs()),
            });
        Spent {
            streams: streams.collect(),
            pools: pools.chain(away).collect(),
        }
    }

    /// Scores the windows of one drain.
    pub fn score(
        &mut self,
        closed: &[Closed<WindowKey>],
        new: &[New],
        desired: &Desired,
        shelf: &Shelf<Arc<Loaded>>,
    ) -> (Findings, Vec<Scored>) {
        let mut findings = Findings::default();
        let mut sums = Sums::default();
        let mut all = Vec::new();
        for (window, new) in closed.iter().zip(new) {
            let profile = desired.profiles.get(&window.key.profile);
            let target = desired.targets.get(&window.key.container);
            let (Some(profile), Some(target)) = (profile, target) else {
                continue;
            };
            // Rates of a container that came or went within the window would be those of its start or end.
            if window.partial {
                self.beside.forget(&window.key);
                continue;
            }
            self.beside.observe(window);
            let amid = window.age > 0 && !window.last;
            let (mut above_active, mut is_scored) = (false, false);
            for name in &profile.models {
                let Some(model) = desired.models.get(name) else {
                    continue;
                };
                let versions = [
                    (shelf.active(name), VersionMode::Active),
                    (shelf.shadow(name, model), VersionMode::Shadow),
                ];
                for (loaded, mode) in versions
                    .into_iter()
                    .filter_map(|(loaded, mode)| Some((loaded?, mode)))
                    // By the same rates such windows mean something else; the status says so.
                    .filter(|(loaded, _)| loaded.metadata.fits(&profile.capture))
                {
                    let Some(mut one) = self.one(window, profile, target, name, loaded, mode) else {
                        continue;
                    };
                    if amid {
                        sums.add(one.summary);
                    }
                    if mode == VersionMode::Active {
                        above_active |= one.above;
                        is_scored = true;
                        let verdict = one.verdict.map(|verdict| with_new(verdict, window, new));
                        match one.unsaid {
                            Some(unsaid) => {
                                let aside = verdict.map(|verdict| Aside { verdict, unsaid });
                                one.scored.aside = aside.map(Box::new);
                            }
                            None => findings.alerts.extend(verdict),
                        }
                    }
                    all.push(one.scored);
                }
            }
            if amid && findings.samples.len() < SAMPLES && self.drawn(profile.sample_per_mille) {
                findings
                    .samples
                    .extend(self.sample(window, profile, above_active, is_scored));
            }
        }
        findings.scores = sums.into_vec();
        (findings, all)
    }

    /// Windows that were withheld and had no line, where the last of them is a minute ago.
    pub fn unsaid(&mut self, now_ms: u64) -> Vec<Unsaid> {
        let close = |((key, model), one): (&(WindowKey, Key), &mut OfContainer)| {
            Some(Unsaid {
                burst: one.lines.close(now_ms)?,
                profile: key.profile.clone(),
                model: model.clone(),
                pod: one.pod.clone(),
                container: one.container.clone(),
            })
        };
        self.lines.iter_mut().filter_map(close).collect()
    }

    /// Forgets what is no longer wanted: containers, profiles of a container, Models of a profile. What containers
    /// share is kept for a while, for those that come after them. Now is by the monotonic clock.
    pub fn retain(&mut self, desired: &Desired, now: Duration) {
        self.begin_anew(desired);
        let scores = |profile: &Key, model: &Key| {
            let profile = desired.profiles.get(profile);
            profile.is_some_and(|profile| profile.models.contains(model))
        };
        let is_wanted = |(key, model): &(WindowKey, Key)| {
            let target = desired.targets.get(&key.container);
            target.is_some_and(|target| target.profiles.contains(&key.profile)) && scores(&key.profile, model)
        };
        self.streams.retain(|key, _| is_wanted(key));
        self.lines.retain(|key, one| is_wanted(key) || one.lines.owes());
        let (here, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.pools)
            .into_iter()
            .partition(|((profile, model), _)| scores(profile, model));
        self.pools = here;
        for (key, pool) in gone {
            self.away.keep(key, pool, now + GRACE);
        }
        for (profile, settings) in &desired.profiles {
            for model in &settings.models {
                let key = (profile.clone(), model.clone());
                if let Some(pool) = self.away.take(&key, now) {
                    self.pools.entry(key).or_insert(pool);
                }
            }
        }
        self.away.turn(now);
        self.beside.retain(|key| {
            let target = desired.targets.get(&key.container);
            target.is_some_and(|target| target.profiles.contains(&key.profile))
        });
        self.containers.clear();
        for profile in desired.targets.values().flat_map(|target| &target.profiles) {
            *self.containers.entry(profile.clone()).or_default() += 1;
        }
        for ((profile, _), pool) in &mut self.pools {
            pool.shared_by(self.containers.get(profile).copied().unwrap_or_default());
        }
    }

    /// What windows of other system calls were like is nothing to go by for those that come: where a profile's filter
    /// changed, it is forgotten. What is spent of its alert budget stays spent.
    fn begin_anew(&mut self, desired: &Desired) {
        let changed = |profile: &Key| {
            let (was, is) = (self.captures.get(profile), desired.profiles.get(profile));
            was.zip(is).is_some_and(|(was, is)| *was != is.capture)
        };
        self.beside.retain(|key| !changed(&key.profile));
        for ((key, _), stream) in &mut self.streams {
            if changed(&key.profile) {
                *stream = Stream::new(*stream.keeper());
            }
        }
        let captures = desired.profiles.iter();
        self.captures = captures
            .map(|(key, p)| (key.clone(), p.capture.clone()))
            .collect();
    }

    fn one(
        &mut self,
        closed: &Closed<WindowKey>,
        profile: &Profile,
        target: &Target,
        model: &Key,
        loaded: &Loaded,
        mode: VersionMode,
    ) -> Option<One> {
        let (key, window) = (&closed.key, &closed.window);
        let start = Instant::now();
        // A window without length, which partial windows are, has no verdict; nor has one of which nothing is known that
        // the model looks at.
        let verdict = loaded
            .pipeline
            .score_within(window, self.beside.context(), &mut self.scratch)
            .ok()?;
        let seconds = start.elapsed().as_secs_f64();

        let rule = rule(profile);
        let above = verdict.score >= rule.threshold();
        let started = i64::try_from(window.started_ms).unwrap_or(i64::MAX);
        let (told, consecutive, began) = if mode == VersionMode::Active {
            let containers = self.containers.get(&key.profile).copied().unwrap_or_default();
            let stream = self.streams.entry((key.clone(), model.clone()));
            let stream = stream.or_insert_with(|| Stream::fresh(&rule));
            let pool = self.pools.entry((key.profile.clone(), model.clone()));
            let scored = budget::Scored {
                p: verdict.p_value,
                score: verdict.score,
                counts: closed.age > 0,
                settled: closed.age > 1 && !closed.last,
                started_ms: started,
            };
            let told = stream.window(&rule, pool.or_insert_with(|| Pool::new(containers)), &scored);
            (told, stream.streak(), stream.began_ms())
        } else {
            (Told::Nothing, 0, None)
        };
        let alert = told.is_alert().then_some(verdict.severity);

        let mut histogram = ScoreHistogram::default();
        histogram.add(verdict.score);
        let summary = v1::ScoreSummary {
            namespace: key.profile.namespace.clone(),
            profile: key.profile.name.clone(),
            model: model.name.clone(),
            digest: loaded.digest.clone(),
            mode: match mode {
                VersionMode::Active => v1::Mode::Active,
                _ => v1::Mode::Shadow,
            }
            .into(),
            windows: 1,
            above_threshold: u64::from(above),
            histogram: histogram.counts.to_vec(),
            first_window_unix_ms: started,
            last_window_unix_ms: started,
            max_latency_us: (seconds * 1e6) as u64,
        };
        let unsaid = (told == Told::Withheld)
            .then(|| {
                let lines = self.lines.entry((key.clone(), model.clone()));
                let lines = lines.or_insert_with(|| OfContainer {
                    lines: Lines::default(),
                    pod: target.pod.clone(),
                    container: target.container.clone(),
                });
                let mut drivers = verdict.drivers.iter().map(|driver| driver.syscall);
                let about = About {
                    estimator: verdict.estimator,
                    severity: verdict.severity,
                    calls: std::array::from_fn(|_| drivers.next()),
                };
                lines.lines.window(window.started_ms, about)
            })
            .flatten();
        let said = (alert.is_some() || unsaid.is_some()).then(|| {
            let why = Why::of(&verdict, loaded, closed, self.beside.context());
            v1::Verdict {
                namespace: key.profile.namespace.clone(),
                profile: key.profile.name.clone(),
                model: model.name.clone(),
                digest: loaded.digest.clone(),
                pod: target.pod.clone(),
                pod_uid: key.container.pod_uid.clone(),
                container: target.container.clone(),
                window_start_unix_ms: started,
                window_ms: i64::from(window.duration_ms),
                score: f64::from(verdict.score),
                p_value: verdict.p_value,
                threshold: f64::from(rule.threshold()),
                severity: told_severity(verdict.severity).into(),
                drivers: why.drivers,
                estimator: why.estimator,
                class: why.class,
                sequences: why.sequences,
                consecutive,
                began_unix_ms: began.unwrap_or(started),
            }
        });
        let scored = Scored {
            profile: key.profile.clone(),
            model: model.clone(),
            pod: target.pod.clone(),
            container: target.container.clone(),
            score: verdict.score,
            estimator: verdict.estimator,
            mode,
            alert,
            told,
            aside: None,
            started_ms: window.started_ms,
            seconds,
        };
        Some(One {
            above,
            summary,
            verdict: said,
            unsaid,
            scored,
        })
    }

    fn sample(
        &mut self,
        closed: &Closed<WindowKey>,
        profile: &Profile,
        above_threshold: bool,
        is_scored: bool,
    ) -> Option<v1::Sample> {
        let schema = Schema::all().last()?;
        self.vector.resize(schema.width(), 0.0);
        schema.vector(&closed.window, &mut self.vector).ok()?;
        let context = self.beside.context();
        let grams = context.grams();
        Some(v1::Sample {
            namespace: closed.key.profile.namespace.clone(),
            profile: closed.key.profile.name.clone(),
            source: self.source(&closed.key.container),
            window_start_unix_ms: i64::try_from(closed.window.started_ms).unwrap_or(i64::MAX),
            window_ms: i64::from(closed.window.duration_ms),
            schema: schema.hash().to_string(),
            features: self.vector.clone(),
            above_threshold,
            sequences: grams.iter().map(|gram| gram.id).collect(),
            sequence_counts: grams.iter().map(|gram| gram.count).collect(),
            past: context.past().to_vec(),
            capture: profile.capture.clone(),
            unscored: !is_scored,
        })
    }

    /// What stands for a container outside the node.
    fn source(&self, container: &ContainerId) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(&container.pod_uid);
        hash.update([0]);
        hash.update(&container.id);
        let hash: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes([
            hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
        ])
    }

    /// Whether this window is of the share that is sent (xorshift64, Marsaglia, J. Stat. Softw. 8, 2003).
    fn drawn(&mut self, per_mille: u32) -> bool {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        self.draw % 1000 < u64::from(per_mille)
    }
}

struct One {
    above: bool,
    summary: v1::ScoreSummary,
    /// For the operator, or where it was withheld, for the log.
    verdict: Option<v1::Verdict>,
    /// It was withheld, and after so many that nothing was said of the log has a line.
    unsaid: Option<u32>,
    scored: Scored,
}

fn rule(profile: &Profile) -> Rule {
    let budget = AlertBudget {
        count: profile.alerts_per_hour,
        period_s: 3600.0,
        containers: 1.0,
    };
    Rule::new(&budget, profile.window.as_secs_f64(), profile.consecutive)
}

fn told_severity(severity: Severity) -> v1::Severity {
    match severity {
        // A budget that allows many alerts puts the threshold below the lowest severity.
        Severity::None | Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
    }
}
