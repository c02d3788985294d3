//! What `--ml-anomaly` says of a trace: which system calls are slow, found by clustering their mean times.
//!
//! Pure: mean times in, clusters and anomalies out, and how that compares with z-scores of the same times.

pub mod baseline;
mod kmeans;
pub mod realtime;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::args::Ml;

/// Fewer kinds of system calls make no clusters.
pub const LEAST: usize = 3;
/// Clusters where no number is given.
const USUAL: usize = 3;
/// Standard deviations above the mean from which a z-score stands out.
const SIGMAS: f64 = 3.0;

/// Mean time of one system call.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name.
    pub syscall: String,
    /// Mean time in microseconds.
    pub avg_us: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Number of clusters.
    pub clusters: usize,
    /// How well they are apart, -1 to 1.
    pub silhouette_score: f64,
    /// Slow system calls, the slowest first.
    pub anomalies: Vec<Anomaly>,
    /// Each cluster, the fastest first.
    pub centers: Vec<Centre>,
    /// How z-scores see it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Why there is nothing above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Centre {
    /// Its number, from the fastest on.
    pub cluster: usize,
    /// Mean of its members' mean times, in microseconds.
    pub center_us: f64,
    /// Its members, the fastest first.
    pub syscalls: Vec<String>,
}

/// A slow system call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Anomaly {
    /// Its name.
    pub syscall: String,
    /// Its cluster.
    pub cluster: usize,
    /// Its mean time in microseconds.
    pub avg_time_us: f64,
    /// Microseconds between its mean time and its cluster's centre.
    pub distance: f64,
}

/// What each of two methods holds for slow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Both.
    pub common: Vec<String>,
    /// Clusters only.
    pub ml_only: Vec<String>,
    /// Z-scores only.
    pub zscore_only: Vec<String>,
    /// Why the lists of z-scores are empty, where they must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How many clusters `samples` kinds of system calls are put into.
fn clusters_for(samples: usize, wanted: Option<usize>) -> usize {
    if samples <= LEAST {
        2
    } else {
        wanted.unwrap_or(USUAL).clamp(2, samples)
    }
}

/// Analyses a trace.
pub fn analyse(samples: &[Sample], wanted: &Ml) -> Analysis {
    let mut samples: Vec<&Sample> = samples.iter().filter(|s| s.avg_us.is_finite()).collect();
    samples.sort_by(|a, b| {
        a.avg_us
            .total_cmp(&b.avg_us)
            .then_with(|| a.syscall.cmp(&b.syscall))
    });
    if samples.len() < LEAST {
        return insufficient(samples.len());
    }
    let values: Vec<f64> = samples.iter().map(|s| s.avg_us).collect();
    let found = kmeans::cluster(&values, clusters_for(samples.len(), wanted.ml_clusters));
    let anomalies = anomalies(&samples, &found);
    Analysis {
        clusters: found.centres.len(),
        silhouette_score: kmeans::silhouette(&values, &found),
        comparison: wanted.ml_compare.then(|| compare(&anomalies, &samples)),
        anomalies,
        centers: centres(&samples, &found),
        message: None,
    }
}

fn insufficient(found: usize) -> Analysis {
    Analysis {
        clusters: 0,
        silhouette_score: 0.0,
        anomalies: vec![],
        centers: vec![],
        comparison: None,
        message: Some(format!(
            "Insufficient data for ML analysis (need at least {LEAST} syscall types, found {found})"
        )),
    }
}

/// Members of the slowest cluster, and of those whose centre is above half of its. Where nothing is apart, nothing is.
fn anomalies(samples: &[&Sample], found: &kmeans::Clusters) -> Vec<Anomaly> {
    let highest = match found.centres[..] {
        [.., highest] if found.centres.len() > 1 => highest,
        _ => return vec![],
    };
    let slow = |cluster: usize| cluster + 1 == found.centres.len() || found.centres[cluster] > highest / 2.0;
    let mut anomalies: Vec<Anomaly> = samples
        .iter()
        .zip(&found.of)
        .filter(|(_, cluster)| slow(**cluster))
        .map(|(sample, &cluster)| Anomaly {
            syscall: sample.syscall.clone(),
            cluster,
            avg_time_us: sample.avg_us,
            distance: (sample.avg_us - found.centres[cluster]).abs(),
        })
        .collect();
    anomalies.reverse();
    anomalies
}

fn centres(samples: &[&Sample], found: &kmeans::Clusters) -> Vec<Centre> {
    let members = |cluster| {
        samples
            .iter()
            .zip(&found.of)
            .filter(move |(_, of)| **of == cluster)
            .map(|(sample, _)| sample.syscall.clone())
            .collect()
    };
    found
        .centres
        .iter()
        .enumerate()
        .map(|(cluster, &center_us)| Centre {
            cluster,
            center_us,
            syscalls: members(cluster),
        })
        .collect()
}

fn compare(anomalies: &[Anomaly], samples: &[&Sample]) -> Comparison {
    let n = samples.len() as f64;
    let mean = samples.iter().map(|s| s.avg_us).sum::<f64>() / n;
    let deviation = (samples.iter().map(|s| (s.avg_us - mean).powi(2)).sum::<f64>() / n).sqrt();
    let ml: BTreeSet<&str> = anomalies.iter().map(|a| a.syscall.as_str()).collect();
    let z: BTreeSet<&str> = samples
        .iter()
        .filter(|s| deviation > 0.0 && (s.avg_us - mean) / deviation > SIGMAS)
        .map(|s| s.syscall.as_str())
        .collect();
    // One time far above n - 1 equal ones, with its own part in mean and deviation.
    let most = (n - 1.0).sqrt();
    let note = (most <= SIGMAS).then(|| {
        format!(
            "of {} kinds of system calls no z-score can be above {most:.2}: {SIGMAS} is out of reach below 11 kinds",
            samples.len()
        )
    });
    let list = |names: &mut dyn Iterator<Item = &&str>| names.map(|name| (*name).to_owned()).collect();
    Comparison {
        common: list(&mut ml.intersection(&z)),
        ml_only: list(&mut ml.difference(&z)),
        zscore_only: list(&mut z.difference(&ml)),
        note,
    }
}

impl Analysis {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        if let Some(message) = &self.message {
            return vec![message.clone()];
        }
        let mut lines = vec![format!(
            "ML analysis: {} clusters of mean times, silhouette {:.3}",
            self.clusters, self.silhouette_score
        )];
        lines.extend(self.centers.iter().map(|centre| {
            format!(
                "  cluster {} about {:.2} us: {}",
                centre.cluster,
                centre.center_us,
                centre.syscalls.join(", ")
            )
        }));
        if self.anomalies.is_empty() {
            lines.push("No anomalies: no system call is slower than the others".to_owned());
        } else {
            lines.push("Anomalies:".to_owned());
        }
        lines.extend(self.anomalies.iter().map(|anomaly| {
            format!(
                "  {} takes {:.2} us (cluster {}, {:.2} us from its centre)",
                anomaly.syscall, anomaly.avg_time_us, anomaly.cluster, anomaly.distance
            )
        }));
        if let Some(comparison) = &self.comparison {
            let list = |names: &[String]| {
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            };
            lines.push(format!("Compared with z-scores above {SIGMAS}:"));
            lines.push(format!("  common: {}", list(&comparison.common)));
            lines.push(format!("  ML only: {}", list(&comparison.ml_only)));
            lines.push(format!("  z-score only: {}", list(&comparison.zscore_only)));
            lines.extend(comparison.note.iter().map(|note| format!("  ({note})")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(times: &[(&str, f64)]) -> Vec<Sample> {
        times
            .iter()
            .map(|(name, avg_us)| Sample {
                syscall: (*name).to_owned(),
                avg_us: *avg_us,
            })
            .collect()
    }

    fn wanted(clusters: Option<usize>) -> Ml {
        Ml {
            ml_anomaly: true,
            ml_clusters: clusters,
            ml_compare: true,
            anomaly_realtime: false,
        }
    }

    #[test]
    fn nothing_runs_unless_it_is_asked_for() {
        assert!(!Ml::default().is_wanted());
        let asked = |ml: Ml| assert!(ml.is_wanted());
        asked(wanted(None));
        asked(Ml {
            ml_clusters: Some(4),
            ..Ml::default()
        });
        asked(Ml {
            ml_compare: true,
            ..Ml::default()
        });
    }

    #[test]
    fn few_kinds_are_too_few() {
        let found = analyse(&samples(&[("read", 1.0), ("write", 2.0)]), &wanted(None));
        assert_eq!(
            found.lines(),
            ["Insufficient data for ML analysis (need at least 3 syscall types, found 2)"]
        );
    }

    #[test]
    fn there_are_no_more_clusters_than_kinds() {
        assert_eq!([2, 3].map(|n| clusters_for(n, Some(7))), [2, 2]);
        assert_eq!([4, 30].map(|n| clusters_for(n, Some(7))), [4, 7]);
        assert_eq!(clusters_for(30, None), 3);
    }

    #[test]
    fn the_slowest_cluster_and_those_above_its_half_are_odd() {
        let times = [
            ("read", 1.0),
            ("write", 1.2),
            ("openat", 40.0),
            ("fsync", 60.0),
            ("wait4", 100.0),
        ];
        let found = analyse(&samples(&times), &wanted(Some(4)));
        let odd: Vec<(&str, usize)> = found
            .anomalies
            .iter()
            .map(|a| (a.syscall.as_str(), a.cluster))
            .collect();
        assert_eq!(odd, [("wait4", 3), ("fsync", 2)]);
        assert_eq!(found.centers[0].syscalls, ["read", "write"]);
        let comparison = found.comparison.expect("asked for");
        assert_eq!(comparison.ml_only, ["fsync", "wait4"]);
        assert!(comparison.common.is_empty() && comparison.zscore_only.is_empty());
    }

    #[test]
    fn the_two_methods_meet_on_what_is_far_out() {
        let mut times: Vec<(String, f64)> = (0..20)
            .map(|i| (format!("call{i}"), 5.0 + f64::from(i % 3)))
            .collect();
        times.push(("fsync".to_owned(), 5000.0));
        let times: Vec<(&str, f64)> = times.iter().map(|(name, t)| (name.as_str(), *t)).collect();
        let found = analyse(&samples(&times), &wanted(None));
        assert_eq!(found.comparison.as_ref().expect("asked for").common, ["fsync"]);
        assert!(found.lines().contains(&"  common: fsync".to_owned()));
    }

    #[test]
    fn it_is_said_where_no_z_score_can_stand_out() {
        let compared = |kinds: usize| {
            let names: Vec<String> = (0..kinds).map(|i| format!("call{i}")).collect();
            let times = names.iter().enumerate();
            // As far apart as can be.
            let times = times.map(|(i, name)| (name.as_str(), if i == 0 { 1e9 } else { 0.0 }));
            let found = analyse(&samples(&times.collect::<Vec<_>>()), &wanted(None));
            let lines = found.lines();
            (found.comparison.expect("asked for"), lines)
        };
        let (few, lines) = compared(8);
        assert!(few.common.is_empty() && few.zscore_only.is_empty());
        let words =
            "of 8 kinds of system calls no z-score can be above 2.65: 3 is out of reach below 11 kinds";
        assert_eq!(few.note.as_deref(), Some(words));
        assert_eq!(lines.last(), Some(&format!("  ({words})")));
        let (ten, _) = compared(10);
        assert!(ten.common.is_empty() && ten.note.is_some());
        let (enough, _) = compared(11);
        assert_eq!((enough.common, enough.note), (vec!["call0".to_owned()], None));
    }

    #[test]
    fn equal_times_are_no_anomaly() {
        let found = analyse(&samples(&[("a", 2.0), ("b", 2.0), ("c", 2.0)]), &wanted(None));
        assert_eq!((found.clusters, found.anomalies.len()), (1, 0));
    }
}
