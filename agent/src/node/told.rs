//! A verdict as the operator is told of it: who spoke, and what made it speak. Worked out for alerts alone.

use k8s_openapi::jiff::Timestamp;
use vigia_model::context::Context;
use vigia_model::pipeline::{Driver, DriverKind, ToldSequence, Verdict};
use vigia_model::syscalls;
use vigia_proto::v1;

use super::aside::DRIVERS;
use crate::node::models::load::Loaded;
use crate::node::score::WindowKey;
use crate::window::{Closed, New};

/// What made a version's verdict.
pub(super) struct Why {
    /// As the API writes it.
    pub estimator: String,
    /// Which class, where a classifier spoke.
    pub class: String,
    /// Sequences of calls, where those spoke.
    pub sequences: Vec<v1::Sequence>,
    /// System calls whose rates stand out.
    pub drivers: Vec<v1::Driver>,
}

impl Why {
    /// Of a verdict of this window, of which that is known beside.
    pub fn of(verdict: &Verdict, loaded: &Loaded, closed: &Closed<WindowKey>, context: &Context) -> Self {
        let ran = closed.detail.sequences.keys().map(|ran| ran.numbers());
        let sequences = loaded
            .pipeline
            .sequences(verdict, context, closed.window.arch, ran);
        Self {
            estimator: verdict.estimator.api_name().to_owned(),
            class: verdict.class.unwrap_or_default().to_owned(),
            sequences: sequences.into_iter().map(sequence).collect(),
            drivers: verdict.drivers.iter().map(driver).collect(),
        }
    }
}

fn sequence(told: ToldSequence) -> v1::Sequence {
    v1::Sequence {
        calls: told.calls.into_iter().map(Into::into).collect(),
        times: told.times,
        seen: told.seen,
        surprise: told.surprise.map(f64::from),
    }
}

fn driver(driver: &Driver) -> v1::Driver {
    v1::Driver {
        syscall: driver.syscall.to_owned(),
        observed_per_second: f64::from(driver.observed_per_s),
        expected_per_second: f64::from(driver.expected_per_s),
        failed: driver.kind == DriverKind::Errors,
        forecast: driver.kind == DriverKind::Forecast,
    }
}

/// Names what the container did for the first time, where there is room beside what drove the score: no score is made
/// of pairs of calls, but who looks into an alert wants to know of them. Where sequences made it, they say more than pairs.
pub(super) fn with_new(mut verdict: v1::Verdict, closed: &Closed<WindowKey>, new: &New) -> v1::Verdict {
    let window = &closed.window;
    let seconds = window.seconds().max(f64::MIN_POSITIVE);
    let name = |nr: u32| syscalls::name(window.arch, syscalls::native(window.arch, nr)).unwrap_or("unknown");
    let calls = new.calls.iter().filter_map(|nr| {
        let call = window.calls.iter().find(|call| call.nr == *nr)?;
        Some((name(*nr).to_owned(), call.count))
    });
    let is_order = !verdict.sequences.is_empty();
    let pairs = new.pairs.iter().filter(|_| !is_order).map(|(pair, count)| {
        let names: Vec<&str> = pair.numbers().map(name).collect();
        (names.join(">"), *count)
    });
    for (told, count) in calls.chain(pairs) {
        if verdict.drivers.len() >= DRIVERS {
            break;
        }
        if !verdict
            .drivers
            .iter()
            .any(|driver| driver.syscall == told && !driver.failed)
        {
            verdict.drivers.push(v1::Driver {
                syscall: told,
                observed_per_second: count as f64 / seconds,
                expected_per_second: 0.0,
                ..v1::Driver::default()
            });
        }
    }
    verdict
}

/// The class that a classifier found, as a line of a log has it, where one spoke.
pub(super) fn of_class(verdict: &v1::Verdict) -> Option<&str> {
    Some(verdict.class.as_str()).filter(|class| !class.is_empty())
}

/// Sequences as a line of a log has them, where there are some.
pub(super) fn in_short(sequences: &[v1::Sequence]) -> Option<String> {
    let calls = |sequence: &v1::Sequence| sequence.calls.join(">");
    let all: Vec<String> = sequences.iter().map(calls).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// System calls as a line of a log has them where no Event does, with what was observed and what was expected.
pub(super) fn rates(drivers: &[v1::Driver]) -> Option<String> {
    let one = |driver: &v1::Driver| {
        format!(
            "{}{} {:.2}/s ({} {:.2}/s)",
            if driver.failed { "failing " } else { "" },
            driver.syscall,
            driver.observed_per_second,
            if driver.forecast { "forecast" } else { "expected" },
            driver.expected_per_second
        )
    };
    let all: Vec<String> = drivers.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// A time in milliseconds since the Unix epoch as a line of a log has it.
pub(super) fn time(unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_event_has_is_said_with_its_rates() {
        let driver = |syscall: &str, failed| v1::Driver {
            syscall: syscall.to_owned(),
            observed_per_second: 3.5,
            expected_per_second: 0.0,
            failed,
            forecast: syscall == "calls",
        };
        assert_eq!(rates(&[]), None);
        assert_eq!(
            rates(&[driver("connect", false), driver("openat", true)]).as_deref(),
            Some("connect 3.50/s (expected 0.00/s), failing openat 3.50/s (expected 0.00/s)")
        );
        assert_eq!(
            rates(&[driver("calls", false)]).as_deref(),
            Some("calls 3.50/s (forecast 0.00/s)")
        );
        assert_eq!(time(1_795_331_554_250).to_string(), "2026-11-22T07:12:34.25Z");
        assert_eq!(time(i64::MAX), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn calls_that_failed_are_said_to_have_and_forecasts_to_be_such() {
        let told = |kind| {
            let told = driver(&Driver {
                syscall: "openat",
                kind,
                observed_per_s: 2.0,
                expected_per_s: 0.5,
                surprise: 12.0,
            });
            (told.failed, told.forecast)
        };
        assert_eq!(
            [DriverKind::Calls, DriverKind::Errors, DriverKind::Forecast].map(told),
            [(false, false), (true, false), (false, true)]
        );
    }

    #[test]
    fn a_line_of_the_log_has_a_class_where_a_classifier_spoke() {
        let of = |class: &str| v1::Verdict {
            class: class.to_owned(),
            ..v1::Verdict::default()
        };
        assert_eq!(of_class(&of("")), None);
        assert_eq!(of_class(&of("malicious")), Some("malicious"));
    }

    #[test]
    fn a_line_of_the_log_has_sequences_where_there_are_some() {
        let sequence = |calls: &[&str]| v1::Sequence {
            calls: calls.iter().map(|name| (*name).to_owned()).collect(),
            ..v1::Sequence::default()
        };
        assert_eq!(in_short(&[]), None);
        let two = [sequence(&["clone", "execve"]), sequence(&["read", "write"])];
        assert_eq!(in_short(&two).as_deref(), Some("clone>execve,read>write"));
    }
}
