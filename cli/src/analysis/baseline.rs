//! `--baseline`: how a run differs from one that was recorded: rates, times, system calls that are new or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Deserializer;
use vigia_model::bounded;
use vigia_model::syscalls::Fingerprint;

use crate::error::Failure;
use crate::record::{Entry, Record};
use crate::say;

/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;
/// Most system calls of a run or a window: as many as the kernel side has room for.
const MAX_NAMES: usize = 1 << 14;

/// What is read of a document: lines of analyses and of single calls, which stand among the windows that were printed,
/// have no system calls.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    duration_ms: u32,
    syscalls: Option<Entries>,
    capture: Option<Fingerprint>,
}

#[derive(Deserialize)]
struct Entries(#[serde(deserialize_with = "bounded::list::<_, _, MAX_NAMES>")] Vec<Entry>);

/// Sums of a run.
#[derive(Debug, Default, PartialEq)]
pub struct Run {
    name: String,
    seconds: f64,
    calls: BTreeMap<String, Sum>,
    /// Which calls were looked at, where that was recorded.
    captures: BTreeSet<Fingerprint>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    calls: u64,
    /// Microseconds, and of how many calls.
    time: Option<(f64, f64)>,
}

/// What became of one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only in this run.
    New,
    /// In both.
    Both,
    /// Only in the baseline.
    Gone,
}

/// One system call in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub syscall: String,
    /// In which runs it is.
    pub change: Change,
    /// Calls a second in the baseline.
    pub baseline_per_second: f64,
    /// Calls a second now.
    pub per_second: f64,
    /// Microseconds a call in the baseline, if it was measured.
    pub baseline_avg_time_us: Option<f64>,
    /// Microseconds a call now.
    pub avg_time_us: Option<f64>,
}

/// All of them: what is new first, then what has changed most.
#[derive(Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The baseline's file.
    pub file: String,
    /// Its length.
    pub seconds: f64,
    /// See [`Row`].
    pub syscalls: Vec<Row>,
}

/// What a run is recorded with.
const RECORD: &str =
    "record a run with `vigia trace -c --format json -- CMD > run.json`, or with --output run.jsonl";

/// Reads a recorded run: windows, one a line, or one document.
///
/// # Errors
/// What is wrong with the file, and where.
pub fn read(path: &Path) -> Result<Run, Failure> {
    let file = File::open(path).map_err(|error| Failure::read(path, error))?;
    let mut text = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(|error| Failure::read(path, error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Failure::read(path, "larger than 64 MiB"));
    }
    if text.starts_with(b"PAR1") {
        return Err(Failure::read(
            path,
            "windows in Parquet, which leaves out how a run begins and ends, and all times",
        )
        .next(RECORD));
    }
    let run = parse(&text, &path.display().to_string()).map_err(|why| Failure::read(path, why))?;
    if run.calls.is_empty() {
        return Err(Failure::read(path, "no system call in it").next(RECORD));
    }
    Ok(run)
}

fn parse(text: &[u8], name: &str) -> Result<Run, String> {
    let mut run = Run {
        name: name.to_owned(),
        ..Run::default()
    };
    for document in Deserializer::from_slice(text).into_iter::<Document>() {
        let document = document.map_err(|error| error.to_string())?;
        if let Some(Entries(syscalls)) = document.syscalls {
            run.add(document.duration_ms, &syscalls);
            run.captures.extend(document.capture);
        }
        if run.calls.len() > MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} different system calls"));
        }
    }
    Ok(run)
}

impl Run {
    /// What there is to say where it is compared with a run of these calls.
    pub fn of_other_calls(&self, capture: Option<Fingerprint>) -> Option<String> {
        let is_other = |capture| !self.captures.is_empty() && !self.captures.contains(&capture);
        capture.is_some_and(is_other).then(|| {
            format!(
                "warning: {}: recorded of other system calls than these (-e): what one of the runs does not look at is \
                 called new or gone",
                self.name
            )
        })
    }

    fn add(&mut self, duration_ms: u32, syscalls: &[Entry]) {
        self.seconds += f64::from(duration_ms) / 1000.0;
        for entry in syscalls {
            let sum = self.calls.entry(entry.name.clone()).or_default();
            sum.calls = sum.calls.saturating_add(entry.calls);
            if let (Some(time), Some(avg)) = (entry.time_us, entry.avg_time_us.filter(|avg| *avg > 0.0)) {
                let (us, calls) = sum.time.unwrap_or_default();
                sum.time = Some((us + time, calls + time / avg));
            }
        }
    }

    fn rate(&self, calls: u64) -> f64 {
        if self.seconds > 0.0 {
            calls as f64 / self.seconds
        } else {
            0.0
        }
    }
}

impl Sum {
    fn avg(self) -> Option<f64> {
        self.time
            .filter(|(_, calls)| *calls > 0.0)
            .map(|(us, calls)| us / calls)
    }
}

/// How `now` differs from the baseline.
pub fn compare(baseline: &Run, now: &Record) -> Difference {
    let mut run = Run::default();
    run.add(now.duration_ms, &now.syscalls);
    let names: std::collections::BTreeSet<&String> = baseline.calls.keys().chain(run.calls.keys()).collect();
    let row = |name: &String| {
        let (before, after) = (baseline.calls.get(name), run.calls.get(name));
        let change = match (before, after) {
            (None, _) => Change::New,
            (_, None) => Change::Gone,
            _ => Change::Both,
        };
        let (before, after) = (
            before.copied().unwrap_or_default(),
            after.copied().unwrap_or_default(),
        );
        Row {
            syscall: name.clone(),
            change,
            baseline_per_second: baseline.rate(before.calls),
            per_second: run.rate(after.calls),
            baseline_avg_time_us: before.avg(),
            avg_time_us: after.avg(),
        }
    };
    let mut syscalls: Vec<Row> = names.into_iter().map(row).collect();
    syscalls.sort_by(|a, b| {
        a.change
            .cmp(&b.change)
            .then_with(|| b.how_far().total_cmp(&a.how_far()))
    });
    Difference {
        file: baseline.name.clone(),
        seconds: baseline.seconds,
        syscalls,
    }
}

impl Row {
    /// The larger of how often its rate or its time has doubled or halved.
    fn how_far(&self) -> f64 {
        let doublings = |before: f64, after: f64| {
            if before > 0.0 && after > 0.0 {
                (after / before).log2().abs()
            } else {
                0.0
            }
        };
        let rate = doublings(self.baseline_per_second, self.per_second);
        let time = self.baseline_avg_time_us.zip(self.avg_time_us);
        rate.max(time.map_or(0.0, |(before, after)| doublings(before, after)))
    }

    fn line(&self) -> String {
        let times = |before: f64, after: f64| {
            if before > 0.0 && after > 0.0 {
                format!("x{:.2}", after / before)
            } else {
                String::new()
            }
        };
        let rate = match self.change {
            Change::New => "new".to_owned(),
            Change::Gone => "gone".to_owned(),
            Change::Both => times(self.baseline_per_second, self.per_second),
        };
        let time = self.baseline_avg_time_us.zip(self.avg_time_us);
        let us = |time: Option<f64>| time.map_or_else(String::new, |us| format!("{us:.1}"));
        format!(
            "{:>11} {:>11} {rate:>9} {:>11} {:>11} {:>9}  {}",
            say::rate(self.baseline_per_second),
            say::rate(self.per_second),
            us(self.baseline_avg_time_us),
            us(self.avg_time_us),
            time.map_or_else(String::new, |(before, after)| times(before, after)),
            say::plain(&self.syscall)
        )
    }
}

impl Difference {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Compared with {} ({:.1} s):", self.file, self.seconds),
            format!(
                "{:>11} {:>11} {:>9} {:>11} {:>11} {:>9}  syscall",
                "base/s", "now/s", "change", "base usecs", "now usecs", "change"
            ),
        ];
        lines.extend(self.syscalls.iter().map(Row::line));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        {"started_ms":0,"duration_ms":1000,"arch":"x86_64","calls":0,"errors":0,"syscalls":[
            {"name":"read","calls":100,"time_us":200.0,"avg_time_us":2.0},{"name":"close","calls":1}]}
        {"anomaly":{"syscall":"read"}}
        {"started_ms":1000,"duration_ms":1000,"arch":"x86_64","calls":0,"errors":0,"syscalls":[
            {"name":"read","calls":100,"time_us":400.0,"avg_time_us":4.0}]}"#;
    const NOW: &str = r#"{"started_ms":0,"duration_ms":500,"arch":"x86_64","calls":0,"errors":0,"syscalls":[
        {"name":"read","calls":100,"time_us":600.0,"avg_time_us":6.0},{"name":"connect","calls":2}]}"#;

    #[test]
    fn rates_times_and_names_are_compared() {
        let base = parse(BASE.as_bytes(), "base.jsonl").expect("a run");
        let now: Record = serde_json::from_str(NOW).expect("a record");
        let difference = compare(&base, &now);
        let order: Vec<(&str, Change)> = difference
            .syscalls
            .iter()
            .map(|row| (row.syscall.as_str(), row.change))
            .collect();
        let expected = [
            ("connect", Change::New),
            ("read", Change::Both),
            ("close", Change::Gone),
        ];
        assert_eq!(order, expected);
        let read = &difference.syscalls[1];
        assert_eq!((read.baseline_per_second, read.per_second), (100.0, 200.0));
        assert_eq!(
            (read.baseline_avg_time_us, read.avg_time_us),
            (Some(3.0), Some(6.0))
        );
        assert_eq!(
            difference.lines()[3],
            "        100         200     x2.00         3.0         6.0     x2.00  read"
        );
    }

    #[test]
    fn what_is_no_run_is_said() {
        assert!(parse(b"{\"syscalls\":[", "x").is_err());
        assert!(parse(b"{\"syscalls\":[{\"name\":1}]}", "x").is_err());
        assert_eq!(parse(b"", "x").map(|run| run.calls.len()), Ok(0));
        let window = |names: std::ops::Range<usize>| {
            let entries: Vec<String> = names.map(|i| format!(r#"{{"name":"x{i}","calls":1}}"#)).collect();
            format!(r#"{{"duration_ms":1,"syscalls":[{}]}}"#, entries.join(","))
        };
        let full = window(0..MAX_NAMES);
        assert!(parse(full.as_bytes(), "x").is_ok());
        let crowded = [
            window(0..MAX_NAMES + 1),
            full.clone() + &window(MAX_NAMES..MAX_NAMES + 1),
        ];
        for text in crowded {
            assert!(parse(text.as_bytes(), "x").is_err_and(|why| why.contains("16384")));
        }
    }

    #[test]
    fn names_that_would_move_a_cursor_are_shown_as_escapes() {
        let window = r#"{"duration_ms":1,"syscalls":[{"name":"\u001b[2J","calls":1}]}"#;
        let base = parse(window.as_bytes(), "x").expect("a run");
        let now: Record = serde_json::from_str(NOW).expect("a record");
        let lines = compare(&base, &now).lines().join("\n");
        assert!(lines.contains(r"\u{1b}[2J") && !lines.contains('\x1b'), "{lines}");
    }
}
