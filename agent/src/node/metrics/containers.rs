//! What is told of containers beside their scores: how long calls take, and what is new.
//!
//! Labels are bounded. Latencies are by profile and system call, not by container, and a profile's rarest calls are
//! told together; a container's series go when it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use vigia_model::syscalls;

use super::measures;
use crate::containers::ContainerId;
use crate::node::desired::{Desired, Key};
use crate::node::engine::Signals;
use crate::node::score::WindowKey;
use crate::window::{Closed, New};

/// System calls of a profile that have a histogram of their own: the first that come.
const CALLS: usize = 64;
/// Where the others go.
const OTHERS: &str = "other";
/// Edges in nanoseconds, as logarithms base 2: 1 µs to 1 s, and what is longer.
const EDGES: [usize; 12] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32];

/// Of one system call of a profile's containers.
#[derive(Debug, Default, Clone, Copy)]
struct Latencies {
    sum_s: f64,
    buckets: [u64; EDGES.len()],
}

/// Of one container.
#[derive(Debug, Default, Clone, Copy)]
struct News {
    calls: u64,
    pairs: u64,
}

#[derive(Debug, Default)]
struct All {
    signals: BTreeMap<(ContainerId, Key), Signals>,
    latencies: BTreeMap<Key, BTreeMap<&'static str, Latencies>>,
    news: BTreeMap<(ContainerId, Key), (Labels, News)>,
}

/// A counter: its name, its help, its value.
type Counter = (&'static str, &'static str, fn(&News) -> u64);

impl All {
    /// What was measured, with whose it is: a container that had no window yet has no name either.
    fn measured(&self) -> Vec<(&Labels, &Signals)> {
        let named = |(place, signals)| Some((&self.news.get(place)?.0, signals));
        self.signals.iter().filter_map(named).collect()
    }
}

/// namespace, profile, pod, container.
pub(super) type Labels = [(&'static str, String); 4];

/// Filled with each window, read with each scrape.
#[derive(Debug, Default)]
pub struct Containers(Mutex<All>);

impl Containers {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes windows in.
    pub fn closed(&self, closed: &[(Closed<WindowKey>, New)], desired: &Desired) {
        let mut all = self.all();
        for (window, new) in closed {
            let key = &window.key;
            let Some(target) = desired.targets.get(&key.container) else {
                continue;
            };
            let calls = all.latencies.entry(key.profile.clone()).or_default();
            for one in &window.detail.durations {
                let arch = window.window.arch;
                let name = syscalls::name(arch, syscalls::native(arch, one.nr)).unwrap_or(OTHERS);
                let name = if calls.contains_key(name) || calls.len() < CALLS {
                    name
                } else {
                    OTHERS
                };
                let latencies = calls.entry(name).or_default();
                latencies.sum_s += one.sum_ns as f64 / 1e9;
                for (log, count) in one.buckets.iter().enumerate() {
                    let at = EDGES
                        .iter()
                        .position(|edge| log < *edge)
                        .unwrap_or(EDGES.len() - 1);
                    latencies.buckets[at] += u64::from(*count);
                }
            }
            let labels = [
                ("namespace", key.profile.namespace.clone()),
                ("profile", key.profile.name.clone()),
                ("pod", target.pod.clone()),
                ("container", target.container.clone()),
            ];
            let place = (key.container.clone(), key.profile.clone());
            let (_, news) = all.news.entry(place).or_insert((labels, News::default()));
            news.calls += new.calls.len() as u64;
            news.pairs += new.pairs.len() as u64;
        }
    }

    /// Takes in what was told of containers beside their calls.
    pub fn measured(&self, signals: Vec<(WindowKey, Signals)>) {
        let mut all = self.all();
        for (key, signals) in signals {
            all.signals.insert((key.container, key.profile), signals);
        }
    }

    /// Drops what is no longer wanted.
    pub fn retain(&self, desired: &Desired) {
        let mut all = self.all();
        all.latencies.retain(|key, _| desired.profiles.contains_key(key));
        let wanted: BTreeSet<&ContainerId> = desired.targets.keys().collect();
        all.news
            .retain(|(id, key), _| wanted.contains(id) && desired.profiles.contains_key(key));
        all.signals
            .retain(|(id, key), _| wanted.contains(id) && desired.profiles.contains_key(key));
    }
}

/// What a scrape reads.
#[derive(Debug)]
pub struct Collected(pub std::sync::Arc<Containers>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.all();
        let mut family = encoder.encode_descriptor(
            "profile_syscall_latency",
            "How long system calls take, of those that were measured (capture.mode Sampled or Full)",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (key, calls) in &all.latencies {
            for (call, latencies) in calls {
                let labels = [
                    ("namespace", key.namespace.as_str()),
                    ("profile", key.name.as_str()),
                    ("syscall", call),
                ];
                let buckets: Vec<(f64, u64)> = EDGES
                    .iter()
                    .zip(latencies.buckets)
                    .map(|(&edge, count)| {
                        // The last bucket of the probe holds all that is longer.
                        let last = edge == EDGES[EDGES.len() - 1];
                        let upper = if last {
                            f64::INFINITY
                        } else {
                            (1u64 << edge) as f64 / 1e9
                        };
                        (upper, count)
                    })
                    .collect();
                let count = latencies.buckets.iter().sum();
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    latencies.sum_s,
                    count,
                    &buckets,
                    None,
                )?;
            }
        }
        let families: [Counter; 2] = [
            (
                "container_new_syscalls",
                "System calls that a container made for the first time, after its first windows",
                |news| news.calls,
            ),
            (
                "container_new_pairs",
                "Pairs of system calls in a row that a container made for the first time, after its first windows",
                |news| news.pairs,
            ),
        ];
        for (name, help, value) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, news) in all.news.values() {
                family
                    .encode_family(labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value(news), None)?;
            }
        }
        measures::encode(&all.measured(), &mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::{Target, key};
    use crate::probe::Sequence;
    use crate::window::{Detail, Durations};
    use prometheus_client::registry::Registry;
    use std::sync::Arc;
    use vigia_model::syscalls::Arch;
    use vigia_model::window::Window;

    fn desired() -> Desired {
        let id = ContainerId {
            pod_uid: "u".to_owned(),
            id: "c".to_owned(),
        };
        let target = Target {
            pod: "pod-0".to_owned(),
            container: "app".to_owned(),
            profiles: BTreeSet::from([key("p")]),
        };
        Desired {
            targets: BTreeMap::from([(id, target)]),
            ..Desired::default()
        }
    }

    fn text(containers: &Arc<Containers>) -> String {
        let mut registry = Registry::with_prefix("vigia");
        registry.register_collector(Box::new(Collected(containers.clone())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }

    #[test]
    fn latencies_are_by_profile_and_call_and_rare_calls_are_told_together() {
        let desired = desired();
        let durations = (0..300).map(|nr| {
            let mut buckets = [0; 32];
            // One call of 1 to 2 µs, one of more than a second.
            (buckets[10], buckets[31]) = (1, 1);
            Durations {
                nr,
                sum_ns: 2_000_000_000,
                buckets,
            }
        });
        let window = Closed {
            key: WindowKey {
                container: desired.targets.keys().next().expect("one").clone(),
                profile: key("p"),
            },
            window: Window::new(Arch::X86_64, 0, 1000, []),
            detail: Detail {
                durations: durations.collect(),
                sequences: Default::default(),
            },
            partial: false,
            age: 9,
            last: false,
        };
        let new = New {
            calls: vec![1, 2],
            pairs: vec![(Sequence::default().then(1).then(2), 1)],
        };
        let containers = Arc::new(Containers::default());
        containers.closed(&[(window, new)], &desired);
        let said = text(&containers);
        let read = "namespace=\"shop\",profile=\"p\",syscall=\"read\"";
        for line in [
            format!("vigia_profile_syscall_latency_seconds_sum{{{read}}} 2"),
            format!("vigia_profile_syscall_latency_seconds_bucket{{le=\"0.000004096\",{read}}} 1"),
            format!("vigia_profile_syscall_latency_seconds_bucket{{le=\"+Inf\",{read}}} 2"),
            "vigia_container_new_syscalls_total{namespace=\"shop\",profile=\"p\",pod=\"pod-0\",container=\"app\"} 2"
                .to_owned(),
        ] {
            assert!(said.contains(&line), "{line}\n{said}");
        }
        let series = said.lines().filter(|line| line.contains("latency_seconds_count"));
        assert_eq!(series.count(), CALLS + 1);
        containers.retain(&Desired::default());
        assert!(!text(&containers).contains("shop"));
    }
}
