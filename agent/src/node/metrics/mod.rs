//! What Prometheus reads: scores and alerts by container, what was lost, and what the agent itself costs.

pub mod containers;
mod measures;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use vigia_crds::VersionMode;
use vigia_model::budget::Told;

use self::containers::{Collected, Containers};
use super::desired::Key;
use super::governor::Level;
use super::meter::Usage;
use super::score::Scored;
use crate::probe::{Mode, ProbeStats};

/// What a score is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScoreLabels {
    namespace: String,
    profile: String,
    model: String,
    pod: String,
    container: String,
    mode: ModeLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ModeLabel(bool);

impl EncodeLabelValue for ModeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.0 { "active" } else { "shadow" }.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct AlertLabels {
    namespace: String,
    profile: String,
    model: String,
    pod: String,
    container: String,
    severity: &'static str,
    /// Of the kinds that there are, those of the one Model.
    estimator: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithheldLabels {
    namespace: String,
    profile: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProfileLabels {
    namespace: String,
    profile: String,
}

/// The agent's metrics.
pub struct Metrics {
    registry: Registry,
    /// Of the containers, not of the agent: their names begin without it.
    outer: Registry,
    /// How long calls take, and what is new.
    pub containers: Arc<Containers>,
    scores: Family<ScoreLabels, Gauge<f64, AtomicU64>>,
    alerts: Family<AlertLabels, Counter>,
    withheld: Family<WithheldLabels, Counter>,
    /// The series of `alerts` that there are.
    told: Mutex<BTreeSet<AlertLabels>>,
    /// Windows that were closed.
    pub windows: Counter,
    /// Seconds from a drain's begin to the last verdict on its windows.
    pub verdict: Histogram,
    /// Containers that are counted.
    pub targets: Gauge,
    /// 1 while the probe works.
    pub probe_ready: Gauge,
    /// Calls not counted because a kernel table was full.
    pub lost: Gauge,
    /// Latencies and sequences that found no place in a kernel table or in a window.
    pub lost_detail: Gauge,
    /// Cgroups made inside containers that are not counted.
    pub lost_cgroups: Gauge,
    overhead: Family<ProfileLabels, Gauge<f64, AtomicU64>>,
    profile_lost: Family<ProfileLabels, Gauge>,
    kept_down: Family<ProfileLabels, Gauge>,
    probe_run: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
    /// Batches that wait for the operator.
    pub waiting: Gauge,
    /// Batches given up because there was no more room.
    pub dropped: Gauge,
    /// Feature vectors given up because there was no more room.
    pub dropped_samples: Gauge,
    /// Reports that failed and are sent again.
    pub report_errors: Counter,
    /// Versions that were refused.
    pub refused: Counter,
    cpu: Gauge<f64, AtomicU64>,
    memory: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("vigia_agent");
        let scores = Family::default();
        registry.register(
            "score",
            "Calibrated score of a container's last window, 0 to 1",
            scores.clone(),
        );
        let alerts = Family::default();
        registry.register("alerts", "Windows that were told as alerts", alerts.clone());
        let withheld = Family::default();
        registry.register(
            "alerts_withheld",
            "Windows that would have been told as alerts, had the alert budget not been spent",
            withheld.clone(),
        );
        let windows = Counter::default();
        registry.register("windows", "Windows closed", windows.clone());
        let verdict = Histogram::new([1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 1.0]);
        registry.register_with_unit(
            "verdict",
            "From the begin of a drain to the last verdict on its windows",
            Unit::Seconds,
            verdict.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let targets = gauge("containers", "Containers that are counted");
        let probe_ready = gauge("probe_ready", "1 while the probe works");
        let lost = gauge(
            "lost_calls",
            "System calls not counted because a kernel table was full, since the start",
        );
        let lost_cgroups = gauge(
            "lost_cgroups",
            "Cgroups made inside containers whose processes are not counted, for want of a place",
        );
        let lost_detail = gauge(
            "lost_detail",
            "Latencies and sequences of calls that found no place in a kernel table or in a window, since the start",
        );
        let waiting = gauge("report_waiting_batches", "Batches that wait for the operator");
        let dropped_samples = gauge(
            "report_dropped_samples",
            "Feature vectors for training given up because the operator was away for too long",
        );
        let dropped = gauge(
            "report_dropped_batches",
            "Batches given up for lack of room, since the start",
        );
        let (overhead, profile_lost, kept_down) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "profile_overhead_cores",
            "Processor time that the probe takes for a profile's containers, in cores; the kernel's way into the \
             tracepoint is not in it",
            overhead.clone(),
        );
        registry.register(
            "profile_lost_calls",
            "System calls of a profile's containers that were not counted, since the start",
            profile_lost.clone(),
        );
        registry.register(
            "profile_kept_down",
            "1 while less is kept of a profile's calls than it wants, because of its budget",
            kept_down.clone(),
        );
        let probe_run = Family::default();
        registry.register_with_unit(
            "probe_run",
            "What one run of the probe's program takes for a traced call, by its own clock, one run in 1024; the kernel's \
             way into the tracepoint is not in it",
            Unit::Seconds,
            probe_run.clone(),
        );
        let report_errors = Counter::default();
        registry.register(
            "report_errors",
            "Reports that failed and are sent again",
            report_errors.clone(),
        );
        let refused = Counter::default();
        registry.register("models_refused", "Model versions refused", refused.clone());
        let (cpu, memory) = (Gauge::default(), Gauge::default());
        registry.register_with_unit("cpu", "CPU time used by the agent", Unit::Seconds, cpu.clone());
        registry.register_with_unit(
            "resident",
            "Resident memory of the agent",
            Unit::Bytes,
            memory.clone(),
        );
        let containers = Arc::new(Containers::default());
        let mut outer = Registry::with_prefix("vigia");
        outer.register_collector(Box::new(Collected(containers.clone())));
        Self {
            registry,
            outer,
            containers,
            scores,
            alerts,
            withheld,
            told: Mutex::default(),
            windows,
            verdict,
            targets,
            probe_ready,
            lost,
            lost_detail,
            lost_cgroups,
            overhead,
            profile_lost,
            kept_down,
            probe_run,
            waiting,
            dropped,
            dropped_samples,
            report_errors,
            refused,
            cpu,
            memory,
        }
    }
}

impl Metrics {
    /// Notes scores; `anew` drops the series of containers that have gone.
    pub fn scored(&self, scored: &[Scored], anew: bool) {
        if anew {
            self.scores.clear();
        }
        for one in scored {
            let labels = ScoreLabels {
                namespace: one.profile.namespace.clone(),
                profile: one.profile.name.clone(),
                model: one.model.name.clone(),
                pod: one.pod.clone(),
                container: one.container.clone(),
                mode: ModeLabel(one.mode == VersionMode::Active),
            };
            self.scores.get_or_create(&labels).set(f64::from(one.score));
            if one.told == Told::Withheld {
                let labels = WithheldLabels {
                    namespace: labels.namespace.clone(),
                    profile: labels.profile.clone(),
                    model: labels.model.clone(),
                };
                self.withheld.get_or_create(&labels).inc();
            }
            if let Some(severity) = one.alert {
                let labels = AlertLabels {
                    namespace: labels.namespace,
                    profile: labels.profile,
                    model: labels.model,
                    pod: labels.pod,
                    container: labels.container,
                    severity: severity.as_str(),
                    estimator: one.estimator.api_name(),
                };
                self.alerts.get_or_create(&labels).inc();
                self.told().insert(labels);
            }
        }
    }

    /// Drops the alerts' series of pods that are gone, of which `there` says no: namespace, then name.
    pub fn keep_pods(&self, there: impl Fn(&str, &str) -> bool) {
        self.told().retain(|labels| {
            let keep = there(&labels.namespace, &labels.pod);
            if !keep {
                self.alerts.remove(labels);
            }
            keep
        });
    }

    fn told(&self) -> std::sync::MutexGuard<'_, BTreeSet<AlertLabels>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what profiles cost and what is kept of them.
    pub fn costs(&self, costs: &BTreeMap<Key, (Level, Usage)>, wanted: impl Fn(&Key) -> Option<Mode>) {
        self.overhead.clear();
        self.profile_lost.clear();
        self.kept_down.clear();
        for (key, (level, usage)) in costs {
            let labels = ProfileLabels {
                namespace: key.namespace.clone(),
                profile: key.name.clone(),
            };
            let lost = i64::try_from(usage.lost).unwrap_or(i64::MAX);
            self.overhead.get_or_create(&labels).set(usage.cores);
            self.profile_lost.get_or_create(&labels).set(lost);
            let down = wanted(key).is_some_and(|wanted| *level < Level::Kept(wanted));
            self.kept_down.get_or_create(&labels).set(i64::from(down));
        }
    }

    /// Notes what the probe says of itself.
    pub fn probed(&self, stats: &ProbeStats) {
        self.lost.set(i64::try_from(stats.lost_calls).unwrap_or(i64::MAX));
        self.lost_detail
            .set(i64::try_from(stats.lost_detail).unwrap_or(i64::MAX));
        for (program, cost) in [
            ("exit", stats.exit),
            ("measure", stats.measure),
            ("enter", stats.enter),
        ] {
            if let Some(ns) = cost.mean_ns() {
                self.probe_run
                    .get_or_create(&[("program", program)])
                    .set(ns / 1e9);
            }
        }
    }

    /// All of them, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let (cpu, memory) = usage();
        self.cpu.set(cpu);
        self.memory.set(memory);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &self.outer))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}

/// CPU seconds and resident bytes of this process.
#[must_use]
pub fn usage() -> (f64, i64) {
    // SAFETY: sysconf takes no pointers and has no preconditions.
    let (ticks, page) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields after the name, which may hold spaces: state is the first, utime and stime are the 12th and 13th.
    let after: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |at: usize| {
        after
            .get(at)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(0);
    ((field(11) + field(12)) / ticks.max(1) as f64, pages * page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::calibration::Severity;
    use vigia_model::pipeline::EstimatorKind;

    #[test]
    fn scores_and_alerts_are_told_by_container() {
        let metrics = Metrics::default();
        let key = |name: &str| Key {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let one = Scored {
            profile: key("p"),
            model: key("m"),
            pod: "pod-0".to_owned(),
            container: "app".to_owned(),
            score: 0.75,
            estimator: EstimatorKind::Stide,
            mode: VersionMode::Active,
            alert: Some(Severity::Low),
            told: Told::Begins,
            aside: None,
            started_ms: 0,
            seconds: 0.0,
        };
        let withheld = Scored {
            alert: None,
            told: Told::Withheld,
            ..one.clone()
        };
        metrics.scored(&[one, withheld], true);
        let text = metrics.text();
        assert!(
            text.contains("pod=\"pod-0\",container=\"app\",mode=\"active\"} 0.75"),
            "{text}"
        );
        assert!(text.contains("severity=\"low\",estimator=\"STIDE\"} 1"), "{text}");
        assert!(text.contains("model=\"m\"} 1"), "{text}");
        assert!(text.contains("vigia_agent_resident_bytes"), "{text}");
        let mut stats = ProbeStats::default();
        stats.exit.timed_runs = 2;
        stats.exit.timed_ns = 100;
        metrics.probed(&stats);
        let text = metrics.text();
        assert!(
            text.contains("vigia_agent_probe_run_seconds{program=\"exit\"} 5e-8"),
            "{text}"
        );
        assert!(!text.contains("program=\"enter\""), "it has not run");
        metrics.scored(&[], true);
        assert!(!metrics.text().contains("mode=\"active\""));
        metrics.keep_pods(|namespace, pod| (namespace, pod) == ("shop", "pod-0"));
        assert!(metrics.text().contains("severity=\"low\",estimator=\"STIDE\"} 1"));
        metrics.keep_pods(|_, _| false);
        assert!(!metrics.text().contains("severity=\"low\""));
    }

    #[test]
    fn the_process_has_used_something() {
        assert!(usage().1 > 0);
    }
}
