//! `--anomaly-realtime`: a time that is far from those before it, said as it is seen.
//!
//! Each system call has a sliding window of its last times; a time is compared with the mean and the standard
//! deviation of those before it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Serialize, Serializer};

/// Times that a call is compared with.
const WINDOW: usize = 100;
/// Fewer say nothing about what is usual.
const LEAST: usize = 10;

/// How far out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 3 to 4 standard deviations.
    Low,
    /// 4 to 5.
    Medium,
    /// 5 and more.
    High,
}

impl Level {
    fn of(z: f64) -> Option<Self> {
        match z.abs() {
            z if z >= 5.0 => Some(Self::High),
            z if z >= 4.0 => Some(Self::Medium),
            z if z >= 3.0 => Some(Self::Low),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time that is odd.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Odd {
    /// Of which system call.
    pub syscall: String,
    /// The time.
    pub time_us: f64,
    /// Mean of those before.
    pub mean_us: f64,
    /// Standard deviations from it.
    pub z: f64,
    /// How far out that is.
    pub severity: Level,
}

/// The last times of every system call.
#[derive(Debug, Default)]
pub struct Realtime {
    times: BTreeMap<u32, Last>,
}

#[derive(Debug, Default)]
struct Last {
    times: VecDeque<f64>,
}

impl Realtime {
    /// Takes a time, and says if it is odd. `name` is asked for then only.
    pub fn take(&mut self, number: u32, time_us: f64, name: impl FnOnce() -> String) -> Option<Odd> {
        let last = self.times.entry(number).or_default();
        let odd = last.judge(time_us).map(|(mean_us, z, severity)| Odd {
            syscall: name(),
            time_us,
            mean_us,
            z,
            severity,
        });
        last.times.push_back(time_us);
        if last.times.len() > WINDOW {
            last.times.pop_front();
        }
        odd
    }
}

impl Last {
    fn judge(&self, time_us: f64) -> Option<(f64, f64, Level)> {
        if self.times.len() < LEAST {
            return None;
        }
        let n = self.times.len() as f64;
        let mean = self.times.iter().sum::<f64>() / n;
        let variance = self.times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        // Among equal times a difference has no measure.
        if variance <= 0.0 {
            return None;
        }
        let z = (time_us - mean) / variance.sqrt();
        Some((mean, z, Level::of(z)?))
    }
}

impl Odd {
    /// For people.
    pub fn line(&self) -> String {
        format!(
            "anomaly {:<6} {} took {:.2} us, usually {:.2} us ({:+.1} sigma)",
            self.severity, self.syscall, self.time_us, self.mean_us, self.z
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(times: impl IntoIterator<Item = f64>) -> Realtime {
        let mut realtime = Realtime::default();
        for time in times {
            realtime.take(0, time, || "read".to_owned());
        }
        realtime
    }

    fn level(realtime: &mut Realtime, time: f64) -> Option<Level> {
        realtime
            .take(0, time, || "read".to_owned())
            .map(|odd| odd.severity)
    }

    #[test]
    fn severity_is_by_sigmas() {
        // Mean 10, standard deviation 1.
        let usual = || (0..100).map(|i| if i % 2 == 0 { 9.0 } else { 11.0 });
        for (time, expected) in [
            (12.9, None),
            (13.1, Some(Level::Low)),
            (14.1, Some(Level::Medium)),
            (15.1, Some(Level::High)),
            (6.9, Some(Level::Low)),
        ] {
            assert_eq!(level(&mut fed(usual()), time), expected, "{time}");
        }
    }

    #[test]
    fn few_and_equal_times_say_nothing() {
        assert_eq!(level(&mut fed([1.0, 2.0]), 900.0), None);
        assert_eq!(level(&mut fed([5.0; 50]), 900.0), None);
    }

    #[test]
    fn what_has_become_usual_is_not_odd() {
        let mut realtime = fed((0..50).map(|i| f64::from(i % 2)));
        assert!(level(&mut realtime, 100.0).is_some());
        for i in 0..100 {
            realtime.take(0, 100.0 + f64::from(i % 3), || "read".to_owned());
        }
        assert_eq!(level(&mut realtime, 101.0), None);
    }

    #[test]
    fn calls_are_judged_apart() {
        let mut realtime = fed((0..50).map(|i| f64::from(i % 2)));
        assert_eq!(realtime.take(1, 100.0, || "write".to_owned()), None);
        let odd = realtime.take(0, 100.0, || "read".to_owned()).expect("odd");
        assert!(
            odd.line().starts_with("anomaly high   read took 100.00 us"),
            "{}",
            odd.line()
        );
    }
}
