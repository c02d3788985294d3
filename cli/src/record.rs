//! One window as one line of JSON: what `vigia trace` writes, and what `vigia train` and `vigia score` read.
//!
//! System calls have their names, so that a file may be read by people and on another architecture.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vigia_agent::probe::Sequence;
use vigia_agent::probe::Tally;
use vigia_agent::window::Sequences;
use vigia_model::pipeline::{DriverKind, ToldSequence, Verdict};
use vigia_model::syscalls::{self, Arch, Fingerprint};
use vigia_model::window::{Calls, Window};

use crate::analysis::Sample;
use crate::times::{Time, Times};

/// A window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Start, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Length in milliseconds.
    pub duration_ms: u32,
    /// Architecture that the calls were made on.
    pub arch: Arch,
    /// What was traced.
    #[serde(default)]
    pub target: String,
    /// Calls that were not counted, because a kernel map was full.
    #[serde(default)]
    pub lost: u64,
    /// Too short for its rates to mean anything: the target came or went within it.
    #[serde(default)]
    pub partial: bool,
    /// The traced command began or ended in it, which is like nothing in between: nothing is learnt from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// Which calls were looked at: the fingerprint of the filter. Not in files of versions that did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Fingerprint>,
    /// All calls.
    pub calls: u64,
    /// All that failed.
    pub errors: u64,
    /// By system call, the most frequent first.
    pub syscalls: Vec<Entry>,
    /// Calls that came right after each other in a thread, as `first>second>…` of up to six, and how often; where that was
    /// counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, u64>,
    /// What a model says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Opinion>,
}

/// What of a command is in a window beside its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// How it began: it is loaded, and loads its libraries.
    Start,
    /// How it ended.
    End,
}

/// One system call of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name; `syscall_<number>` or `unknown` where it has none.
    pub name: String,
    /// How often it returned.
    pub calls: u64,
    /// How often with an error.
    #[serde(default)]
    pub errors: u64,
    /// Calls a second.
    #[serde(default)]
    pub per_second: f64,
    /// Microseconds of all calls that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_us: Option<f64>,
    /// Microseconds of one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_time_us: Option<f64>,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// Calibrated score, 0 to 1.
    pub score: f32,
    /// How rare such a score is among normal windows.
    pub p_value: f64,
    /// none, low, medium or high.
    pub severity: String,
    /// The estimator that was the most surprised, in the words of `spec.estimator.types` of the API. Not in files of versions
    /// that did not write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub estimator: String,
    /// Where that is a classifier: which class but normal it finds the likeliest, suspicious or malicious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where that looks at the order of calls: the sequences that made the score, the oddest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<ToldSequence>,
    /// Calls whose rates drove it, the strongest first; where sequences did, those whose rates are odd too.
    pub drivers: Vec<Cause>,
}

/// A system call that drove a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Its name.
    pub syscall: String,
    /// calls, errors, or forecast: all calls together, against a forecast from the windows before.
    pub kind: String,
    /// Rate in the window.
    pub observed_per_second: f32,
    /// Rate in training, or what was forecast.
    pub expected_per_second: f32,
}

/// As drivers of a forecast are called.
const FORECAST: &str = "forecast";

impl Opinion {
    /// Of a verdict and the sequences that made it, if sequences did.
    pub fn new(verdict: &Verdict, sequences: Vec<ToldSequence>) -> Self {
        let drivers = verdict.drivers.iter().map(|d| Cause {
            syscall: d.syscall.to_owned(),
            kind: match d.kind {
                DriverKind::Calls => "calls",
                DriverKind::Errors => "errors",
                DriverKind::Forecast => FORECAST,
            }
            .to_owned(),
            observed_per_second: d.observed_per_s,
            expected_per_second: d.expected_per_s,
        });
        Self {
            score: verdict.score,
            p_value: verdict.p_value,
            severity: verdict.severity.to_string(),
            estimator: verdict.estimator.api_name().to_owned(),
            class: verdict.class.map(str::to_owned),
            sequences,
            drivers: drivers.collect(),
        }
    }

    /// Who spoke, and which class that is where it tells such.
    pub fn by(&self) -> String {
        match &self.class {
            Some(class) => format!("{} ({class})", self.estimator),
            None => self.estimator.clone(),
        }
    }

    /// What drove it, in a few words: sequences before rates.
    pub fn because(&self) -> String {
        let words = self.drivers.iter().map(|d| {
            let what = if d.kind == "errors" {
                format!("failing {}", d.syscall)
            } else {
                d.syscall.clone()
            };
            let rate = |r: f32| crate::say::rate(f64::from(r));
            let (observed, expected) = (rate(d.observed_per_second), rate(d.expected_per_second));
            if d.kind == FORECAST {
                format!("{what} {observed}/s (forecast {expected}/s)")
            } else {
                format!("{what} {observed}/s (normally {expected})")
            }
        });
        let sequences = self.sequences.iter().map(ToString::to_string);
        let words: Vec<String> = sequences.chain(words).collect();
        if words.is_empty() {
            return "nothing stands out".to_owned();
        }
        words.join(", ")
    }
}

const NAMELESS: &str = "syscall_";

/// Between the calls of a sequence.
pub const AFTER: &str = ">";

/// Stands for all numbers without a name where a traced program could make up any number of them.
pub const UNKNOWN: u32 = u32::MAX;
const UNKNOWN_NAME: &str = "unknown";

/// Its name, or its number as one. A call by another ABI of the same kernel bears the name of the native one that does
/// the same.
pub fn name_of(arch: Arch, nr: u32) -> String {
    if nr == UNKNOWN || nr & !(syscalls::IA32 | syscalls::X32) == Tally::UNKNOWN {
        return UNKNOWN_NAME.to_owned();
    }
    let native = syscalls::native(arch, nr);
    syscalls::name(arch, native).map_or_else(|| format!("{NAMELESS}{nr}"), str::to_owned)
}

impl Record {
    /// A window of `target`, with names.
    pub fn new(window: &Window, target: &str, partial: bool) -> Self {
        let seconds = window.seconds();
        // Several numbers may have one name.
        let mut by_name: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for c in &window.calls {
            let (calls, errors) = by_name.entry(name_of(window.arch, c.nr)).or_default();
            *calls = calls.saturating_add(c.count);
            *errors = errors.saturating_add(c.errors);
        }
        let mut entries: Vec<Entry> = by_name
            .into_iter()
            .map(|(name, (calls, errors))| Entry {
                name,
                calls,
                errors,
                per_second: if seconds > 0.0 {
                    (calls as f64 / seconds * 1000.0).round() / 1000.0
                } else {
                    0.0
                },
                time_us: None,
                avg_time_us: None,
            })
            .collect();
        entries.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.name.cmp(&b.name)));
        Self {
            started_ms: window.started_ms,
            duration_ms: window.duration_ms,
            arch: window.arch,
            target: target.to_owned(),
            lost: window.lost,
            partial,
            edge: None,
            capture: None,
            calls: window.total(),
            errors: window.calls.iter().fold(0, |sum, c| sum.saturating_add(c.errors)),
            syscalls: entries,
            sequences: BTreeMap::new(),
            verdict: None,
        }
    }

    /// The same of a window in which a command began or ended.
    #[must_use]
    pub const fn at(mut self, edge: Option<Edge>) -> Self {
        self.edge = edge;
        self
    }

    /// The same of these calls alone.
    #[must_use]
    pub const fn of(mut self, capture: Option<Fingerprint>) -> Self {
        self.capture = capture;
        self
    }

    /// The same with how long calls took, those first that took longest.
    #[must_use]
    pub fn with_times(mut self, times: &Times) -> Self {
        let mut by_name: BTreeMap<String, Time> = BTreeMap::new();
        for (&number, time) in times {
            let sum = by_name.entry(name_of(self.arch, number)).or_default();
            sum.ns = sum.ns.saturating_add(time.ns);
            sum.calls = sum.calls.saturating_add(time.calls);
        }
        for (name, time) in by_name {
            if let Some(entry) = self.syscalls.iter_mut().find(|entry| entry.name == name) {
                entry.time_us = Some(time.ns as f64 / 1000.0);
                entry.avg_time_us = time.mean_us();
            }
        }
        let of = |entry: &Entry| entry.time_us.unwrap_or(0.0);
        self.syscalls
            .sort_by(|a, b| of(b).total_cmp(&of(a)).then_with(|| b.calls.cmp(&a.calls)));
        self
    }

    /// The same with the calls that came right after each other.
    #[must_use]
    pub fn with_sequences(mut self, sequences: &Sequences) -> Self {
        for (sequence, count) in sequences {
            let names: Vec<String> = sequence.numbers().map(|nr| name_of(self.arch, nr)).collect();
            let sum = self.sequences.entry(names.join(AFTER)).or_default();
            *sum = sum.saturating_add(*count);
        }
        self
    }

    /// Mean times, of what was measured.
    pub fn samples(&self) -> Vec<Sample> {
        let sample = |entry: &Entry| {
            Some(Sample {
                syscall: entry.name.clone(),
                avg_us: entry.avg_time_us?,
            })
        };
        self.syscalls.iter().filter_map(sample).collect()
    }

    /// The window, with numbers.
    ///
    /// # Errors
    /// A name that the architecture does not have.
    pub fn window(&self) -> Result<Window, String> {
        let calls = self.syscalls.iter().map(|entry| {
            Ok(Calls {
                nr: self.number(&entry.name)?,
                count: entry.calls,
                errors: entry.errors,
            })
        });
        let calls = calls.collect::<Result<Vec<_>, String>>()?;
        Ok(Window::new(self.arch, self.started_ms, self.duration_ms, calls).with_lost(self.lost))
    }

    /// The sequences, with numbers, and how often.
    ///
    /// # Errors
    /// What is no sequence, or a name that the architecture does not have.
    pub fn numbered_sequences(&self) -> Result<Sequences, String> {
        let mut sequences = Sequences::new();
        for (names, count) in &self.sequences {
            let mut sequence = Sequence::default();
            for name in names.split(AFTER) {
                sequence = sequence.then(self.number(name)?);
            }
            if sequence.pair().is_none() {
                return Err(format!("sequence {names:?}: write first{AFTER}second{AFTER}…"));
            }
            let sum: &mut u64 = sequences.entry(sequence).or_default();
            *sum = sum.saturating_add(*count);
        }
        Ok(sequences)
    }

    fn number(&self, name: &str) -> Result<u32, String> {
        syscalls::number(self.arch, name)
            .or_else(|| (name == UNKNOWN_NAME).then_some(UNKNOWN))
            .or_else(|| name.strip_prefix(NAMELESS)?.parse().ok())
            .ok_or_else(|| format!("{} has no system call {name:?}", self.arch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_by_another_abi_are_counted_by_their_native_names() {
        let call = |nr, count, errors| Calls { nr, count, errors };
        let made_up = [
            call(Tally::UNKNOWN, 1, 1),
            call(Tally::UNKNOWN | syscalls::IA32, 2, 2),
        ];
        // read: 0 natively, 3 by ia32.
        let read = [call(0, 10, 0), call(3 | syscalls::IA32, 5, 1)];
        let window = Window::new(Arch::X86_64, 0, 1000, read.into_iter().chain(made_up));
        let time = |ns, calls| Time { ns, calls };
        let times = Times::from([(0, time(10_000, 10)), (3 | syscalls::IA32, time(20_000, 5))]);
        let record = Record::new(&window, "x", false).with_times(&times);
        let seen: Vec<_> = record
            .syscalls
            .iter()
            .map(|e| (e.name.as_str(), e.calls, e.errors, e.avg_time_us))
            .collect();
        assert_eq!(seen, [("read", 15, 1, Some(2.0)), ("unknown", 3, 3, None)]);
    }

    #[test]
    fn an_opinion_says_sequences_before_rates_and_those_of_older_versions_are_read() {
        let older = r#"{"score":0.9,"p_value":1e-7,"severity":"high","drivers":[
            {"syscall":"openat","kind":"errors","observed_per_second":4.0,"expected_per_second":0.5}]}"#;
        let mut opinion: Opinion = serde_json::from_str(older).expect("an opinion");
        assert_eq!(opinion.because(), "failing openat 4.00/s (normally 0.50)");
        opinion.sequences = vec![ToldSequence {
            calls: vec!["clone".into(), "execve".into()],
            times: 4,
            seen: false,
            surprise: Some(9.5),
        }];
        assert_eq!(
            opinion.because(),
            "clone → execve (never seen, 4 times), failing openat 4.00/s (normally 0.50)"
        );
        let line = serde_json::to_string(&opinion).expect("json");
        assert_eq!(
            serde_json::from_str::<Opinion>(&line).expect("an opinion"),
            opinion
        );
        opinion.sequences.clear();
        opinion.drivers[0].kind = "forecast".to_owned();
        opinion.drivers[0].syscall = "calls".to_owned();
        assert_eq!(opinion.because(), "calls 4.00/s (forecast 0.50/s)");
        opinion.estimator = "RandomForest".to_owned();
        assert_eq!(opinion.by(), "RandomForest");
        opinion.class = Some("malicious".to_owned());
        assert_eq!(opinion.by(), "RandomForest (malicious)");
        opinion.drivers.clear();
        assert_eq!(opinion.because(), "nothing stands out");
    }

    #[test]
    fn a_window_survives_its_line() {
        let call = |nr, count, errors| Calls { nr, count, errors };
        let window = Window::new(
            Arch::X86_64,
            7,
            2000,
            [call(0, 5, 1), call(59, 9, 0), call(2, 1, 1), call(UNKNOWN, 1, 1)],
        );
        let record = Record::new(&window, "sh", false);
        assert_eq!(record.syscalls[0].name, "execve");
        assert_eq!((record.calls, record.errors), (16, 3));
        assert_eq!(record.syscalls[3].name, "unknown");
        let line = serde_json::to_string(&record).expect("a line");
        let back: Record = serde_json::from_str(&line).expect("a record");
        assert_eq!(back.window(), Ok(window));
    }

    #[test]
    fn sequences_survive_their_line_and_what_is_none_is_said() {
        let of = |numbers: &[u32]| numbers.iter().fold(Sequence::default(), |s, &nr| s.then(nr));
        // read: 0 natively, 3 by ia32.
        let told = [
            (of(&[0, 2, 0]), 7),
            (of(&[Tally::COMPAT | 3, 2, 0]), 1),
            (of(&[2, Tally::UNKNOWN]), 2),
        ];
        let record = Record::new(&Window::new(Arch::X86_64, 0, 1000, []), "x", false)
            .with_sequences(&Sequences::from(told));
        let line = serde_json::to_string(&record).expect("a line");
        assert!(
            line.contains(r#""sequences":{"open>unknown":2,"read>open>read":8}"#),
            "{line}"
        );
        let mut back: Record = serde_json::from_str(&line).expect("a record");
        let numbered = Sequences::from([(of(&[2, UNKNOWN]), 2), (of(&[0, 2, 0]), 8)]);
        assert_eq!(back.numbered_sequences(), Ok(numbered));
        for (wrong, words) in [("read", "write first>second"), ("read>opne", "\"opne\"")] {
            back.sequences = BTreeMap::from([(wrong.to_owned(), 1)]);
            assert!(
                back.numbered_sequences().is_err_and(|why| why.contains(words)),
                "{wrong}"
            );
        }
    }

    #[test]
    fn unknown_names_are_said() {
        let line = r#"{"started_ms":0,"duration_ms":1,"arch":"x86_64","calls":1,"errors":0,"syscalls":[{"name":"opne","calls":1}]}"#;
        let record: Record = serde_json::from_str(line).expect("a record");
        assert_eq!(
            record.window(),
            Err("x86_64 has no system call \"opne\"".to_owned())
        );
    }
}
