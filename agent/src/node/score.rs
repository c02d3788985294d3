//! From a closed window to verdicts, sums and samples: pure.
//!
//! The Active version of each of a profile's Models decides; a Shadow version scores beside it and raises nothing.
//! An alert needs as many windows in a row above the threshold as the profile says, or one that is odd beyond doubt:
//! what a shell does in a second is over before a second window. The first
//! two windows of a container and its last are never alerts by themselves, and the first does not count at all: starting
//! and ending are like nothing in between. An alert goes on being told for as long
//! as they last. Feature vectors for training are a share of the windows, under a hashed name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use vigia_crds::VersionMode;
use vigia_model::calibration::{AlertBudget, Severity};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::pipeline::Scratch;
use vigia_model::schema::Schema;
use vigia_model::syscalls;
use vigia_proto::v1;

use crate::containers::ContainerId;
use crate::node::desired::{Desired, Key, Profile, Target};
use crate::node::models::load::Loaded;
use crate::node::models::shelf::Shelf;
use crate::node::report::{Findings, Sums};
use crate::window::{Closed, New, number};

/// How much of a window's oddness lasts into the next: nothing is known of a container in advance, and 1 keeps the
/// alert budget however windows hang together.
const DEPENDENCE: f32 = 1.0;
/// What a verdict names, at most.
const DRIVERS: usize = 3;
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
    /// It decides, or only looks on.
    pub mode: VersionMode,
    /// It became an alert.
    pub alert: Option<Severity>,
    /// What scoring took.
    pub seconds: f64,
}

/// Scores windows and remembers which containers stay above the threshold.
pub struct Scorer {
    scratch: Scratch,
    vector: Vec<f32>,
    /// Windows in a row above the threshold, by container, profile and Model.
    streaks: BTreeMap<(WindowKey, Key), u32>,
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
            streaks: BTreeMap::new(),
            secret,
            draw: seed | 1,
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
                continue;
            }
            let mut above_active = false;
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
                {
                    let Some(one) = self.one(window, profile, target, name, loaded, mode) else {
                        continue;
                    };
                    sums.add(one.summary);
                    if mode == VersionMode::Active {
                        above_active |= one.above;
                        findings
                            .alerts
                            .extend(one.verdict.map(|verdict| with_new(verdict, window, new)));
                    }
                    all.push(one.scored);
                }
            }
            if findings.samples.len() < SAMPLES && self.drawn(profile.sample_per_mille) {
                findings.samples.extend(self.sample(window, above_active));
            }
        }
        findings.scores = sums.into_vec();
        (findings, all)
    }

    /// Forgets what is no longer wanted: containers, profiles of a container, Models of a profile.
    pub fn retain(&mut self, desired: &Desired) {
        self.streaks.retain(|(key, model), _| {
            let target = desired.targets.get(&key.container);
            let profile = desired.profiles.get(&key.profile);
            target.is_some_and(|target| target.profiles.contains(&key.profile))
                && profile.is_some_and(|profile| profile.models.contains(model))
        });
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
        // The only error is a window without length, which partial windows are.
        let verdict = loaded.pipeline.score(window, &mut self.scratch).ok()?;
        let seconds = start.elapsed().as_secs_f64();

        let bar = Bar::of(profile);
        let above = verdict.score >= bar.threshold;
        let consecutive = if mode == VersionMode::Active {
            let streak = self.streaks.entry((key.clone(), model.clone())).or_default();
            *streak = if above && closed.age > 0 {
                streak.saturating_add(1)
            } else {
                0
            };
            *streak
        } else {
            0
        };
        let alert = (mode == VersionMode::Active
            && bar.alerts(verdict.score, consecutive, closed.age > 1 && !closed.last))
        .then_some(verdict.severity);

        let started = i64::try_from(window.started_ms).unwrap_or(i64::MAX);
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
        let told = alert.map(|severity| v1::Verdict {
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
            threshold: f64::from(bar.threshold),
            severity: told_severity(severity).into(),
            drivers: verdict
                .drivers
                .iter()
                .map(|driver| v1::Driver {
                    syscall: driver.syscall.to_owned(),
                    observed_per_second: f64::from(driver.observed_per_s),
                    expected_per_second: f64::from(driver.expected_per_s),
                })
                .collect(),
            consecutive,
        });
        let scored = Scored {
            profile: key.profile.clone(),
            model: model.clone(),
            pod: target.pod.clone(),
            container: target.container.clone(),
            score: verdict.score,
            mode,
            alert,
            seconds,
        };
        Some(One {
            above,
            summary,
            verdict: told,
            scored,
        })
    }

    fn sample(&mut self, closed: &Closed<WindowKey>, above_threshold: bool) -> Option<v1::Sample> {
        let schema = Schema::all().last()?;
        self.vector.resize(schema.width(), 0.0);
        schema.vector(&closed.window, &mut self.vector).ok()?;
        Some(v1::Sample {
            namespace: closed.key.profile.namespace.clone(),
            profile: closed.key.profile.name.clone(),
            source: self.source(&closed.key.container),
            window_start_unix_ms: i64::try_from(closed.window.started_ms).unwrap_or(i64::MAX),
            window_ms: i64::from(closed.window.duration_ms),
            schema: schema.hash().to_string(),
            features: self.vector.clone(),
            above_threshold,
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
    verdict: Option<v1::Verdict>,
    scored: Scored,
}

/// Names what the container did for the first time, where there is room beside what drove the score: no score is made
/// of pairs of calls, but who looks into an alert wants to know of them.
fn with_new(mut verdict: v1::Verdict, closed: &Closed<WindowKey>, new: &New) -> v1::Verdict {
    let window = &closed.window;
    let seconds = window.seconds().max(f64::MIN_POSITIVE);
    let name = |nr: u32| syscalls::name(window.arch, nr).unwrap_or("unknown");
    let calls = new.calls.iter().filter_map(|nr| {
        let call = window.calls.iter().find(|call| call.nr == *nr)?;
        Some((name(*nr).to_owned(), call.count))
    });
    let pairs = new.pairs.iter().filter_map(|key| {
        let pair = closed
            .detail
            .pairs
            .iter()
            .find(|pair| (pair.first, pair.second) == *key)?;
        let (first, second) = (name(number(pair.first)), name(number(pair.second)));
        Some((format!("{first}>{second}"), pair.count))
    });
    for (told, count) in calls.chain(pairs) {
        if verdict.drivers.len() >= DRIVERS {
            break;
        }
        if !verdict.drivers.iter().any(|driver| driver.syscall == told) {
            verdict.drivers.push(v1::Driver {
                syscall: told,
                observed_per_second: count as f64 / seconds,
                expected_per_second: 0.0,
            });
        }
    }
    verdict
}

/// What keeps the profile's alert budget.
#[derive(Debug, Clone, Copy)]
struct Bar {
    /// The calibrated score that so many windows in a row must reach.
    threshold: f32,
    windows: u32,
    /// The calibrated score that needs no second window.
    at_once: f32,
}

impl Bar {
    fn of(profile: &Profile) -> Self {
        let budget = AlertBudget {
            count: profile.alerts_per_hour,
            period_s: 3600.0,
            containers: 1.0,
        };
        let window = profile.window.as_secs_f64();
        Self {
            threshold: budget.threshold(window, profile.consecutive, DEPENDENCE),
            windows: profile.consecutive,
            at_once: budget.at_once(window),
        }
    }

    /// Whether a window of this score, the last of so many in a row above the threshold, is an alert; `settled` says
    /// that one may be enough.
    fn alerts(self, score: f32, consecutive: u32, settled: bool) -> bool {
        let at_once = settled && score >= self.at_once;
        score >= self.threshold && (consecutive >= self.windows || at_once)
    }
}

fn told_severity(severity: Severity) -> v1::Severity {
    match severity {
        // A budget that allows many alerts puts the threshold below the lowest severity.
        Severity::None | Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_takes_its_windows_in_a_row_or_one_beyond_doubt() {
        let bar = Bar {
            threshold: 0.7,
            windows: 3,
            at_once: 0.8,
        };
        assert!(!bar.alerts(0.75, 1, true) && !bar.alerts(0.75, 2, true) && bar.alerts(0.75, 3, true));
        assert!(bar.alerts(0.8, 1, true) && !bar.alerts(0.8, 1, false) && bar.alerts(0.8, 3, false));
        assert!(!bar.alerts(0.69, 9, true));
    }
}
