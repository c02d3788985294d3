//! Which of the windows that an alert budget held back the log says in full: pure.
//!
//! Who has read the alerts that were told wants to know what the others were: an intruder who has spent a container's
//! budget is seen nowhere else. While what a container does stays odd each of its windows is one, and says what the one
//! before said. So the log has a line where there is something else to say, and one a minute where there is not. The call
//! that stands out most is the same of all that begins with a new process: a call is news that no line of the minute named.
//! Where no window was withheld for a minute a last line has how many there were that had none.

use vigia_model::calibration::Severity;
use vigia_model::pipeline::EstimatorKind;
use vigia_proto::v1;

/// Calls that a line names.
pub const DRIVERS: usize = 3;
/// Lines of one container and Model at once.
const BURST: f64 = 4.0;
/// One more after this, in milliseconds.
const REFILL_MS: f64 = 20_000.0;
/// A line that says what was said before comes this much later, in milliseconds.
const AGAIN_MS: u64 = 60_000;

/// What a line is about. What says the same is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Who spoke.
    pub estimator: EstimatorKind,
    /// How loud.
    pub severity: Severity,
    /// The calls that it would name.
    pub calls: [Option<&'static str>; DRIVERS],
}

/// A window that is said in full.
#[derive(Debug, Clone, PartialEq)]
pub struct Aside {
    /// As the operator would have been told.
    pub verdict: v1::Verdict,
    /// Withheld windows of this container and Model since its last line, of which there was none.
    pub unsaid: u32,
}

/// Windows that were withheld one after another, with less than a minute between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// When the first of them started, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When the last of them did.
    pub last_ms: u64,
    /// How many they are.
    pub windows: u32,
    /// Those of them after the last line.
    pub unsaid: u32,
    /// Who spoke last.
    pub estimator: EstimatorKind,
}

/// The lines of one container and Model.
#[derive(Debug, Clone)]
pub struct Lines {
    room: f64,
    at_ms: u64,
    last: Option<(u64, EstimatorKind, Severity)>,
    /// What lines have named since a time, which is no minute ago: no more than a minute's lines can name.
    named: (u64, Vec<&'static str>),
    burst: Option<Burst>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            room: BURST,
            at_ms: 0,
            last: None,
            named: (0, Vec::new()),
            burst: None,
        }
    }
}

impl Lines {
    /// Takes in a window that was withheld, by the time at which it started; where it is to be said, how many before it
    /// were not. A clock that is set back silences nothing.
    pub fn window(&mut self, at_ms: u64, about: About) -> Option<u32> {
        self.room = (self.room + at_ms.abs_diff(self.at_ms) as f64 / REFILL_MS).min(BURST);
        self.at_ms = at_ms;
        let burst = self.burst.get_or_insert(Burst {
            first_ms: at_ms,
            last_ms: at_ms,
            windows: 0,
            unsaid: 0,
            estimator: about.estimator,
        });
        burst.last_ms = at_ms;
        burst.windows = burst.windows.saturating_add(1);
        burst.estimator = about.estimator;
        if at_ms.abs_diff(self.named.0) >= AGAIN_MS {
            self.named = (at_ms, Vec::new());
        }
        let named = &mut self.named.1;
        let is_news = self.last.is_none_or(|(said, estimator, severity)| {
            (estimator, severity) != (about.estimator, about.severity) || at_ms.abs_diff(said) >= AGAIN_MS
        });
        let mut new_calls = about
            .calls
            .iter()
            .flatten()
            .filter(|call| !named.contains(call))
            .peekable();
        if (!is_news && new_calls.peek().is_none()) || self.room < 1.0 {
            burst.unsaid = burst.unsaid.saturating_add(1);
            return None;
        }
        let new_calls: Vec<&'static str> = new_calls.copied().collect();
        named.extend(new_calls);
        self.room -= 1.0;
        self.last = Some((at_ms, about.estimator, about.severity));
        Some(std::mem::take(&mut burst.unsaid))
    }

    /// The windows before a minute without one, where some of them had no line; each burst is told once.
    pub fn close(&mut self, now_ms: u64) -> Option<Burst> {
        let burst = self
            .burst
            .take_if(|burst| now_ms.abs_diff(burst.last_ms) >= AGAIN_MS)?;
        (burst.unsaid > 0).then_some(burst)
    }

    /// Whether there is something that no line has said.
    pub fn owes(&self) -> bool {
        self.burst.is_some_and(|burst| burst.unsaid > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about(call: &'static str) -> About {
        About {
            estimator: EstimatorKind::Deviation,
            severity: Severity::High,
            calls: [Some("execve"), Some(call), None],
        }
    }

    #[test]
    fn what_goes_on_is_said_each_minute_and_what_is_new_at_once() {
        let mut lines = Lines::default();
        let mut said = |second: u64, call| lines.window(1_700_000_000_000 + second * 1000, about(call));
        assert_eq!(said(0, "read"), Some(0), "the first");
        for second in (2..60).step_by(2) {
            assert_eq!(said(second, "read"), None, "{second}");
        }
        assert_eq!(said(60, "read"), Some(29));
        assert_eq!(said(62, "read"), None);
        assert_eq!(said(64, "connect"), Some(1), "it is another");
        assert_eq!(said(66, "read"), None, "it was said in this minute");
        assert_eq!(said(120, "read"), Some(1));
    }

    #[test]
    fn what_follows_a_dull_beginning_is_said_too() {
        let mut lines = Lines::default();
        let mut said = |second: u64, calls: [&'static str; 2]| {
            let calls = [Some("execve"), Some(calls[0]), Some(calls[1])];
            lines.window(second * 1000, About { calls, ..about("") })
        };
        assert_eq!(said(0, ["setuid", "capget"]), Some(0), "exec cat");
        assert_eq!(said(27, ["setuid", "capget"]), None);
        assert_eq!(said(28, ["connect", "socket"]), Some(1), "exec nc");
        assert_eq!(said(32, ["dup2", "connect"]), Some(0), "and a shell at its end");
    }

    #[test]
    fn a_burst_that_is_over_is_summed_up_once() {
        let mut lines = Lines::default();
        for second in 0..5 {
            lines.window(1000 * second, about("read"));
        }
        assert_eq!(lines.close(63_999), None, "it may go on");
        assert!(lines.owes());
        let burst = Burst {
            first_ms: 0,
            last_ms: 4000,
            windows: 5,
            unsaid: 4,
            estimator: EstimatorKind::Deviation,
        };
        assert_eq!(lines.close(64_000), Some(burst));
        assert_eq!((lines.close(64_000), lines.owes()), (None, false));
        // What was summed up is in no later line.
        assert_eq!(lines.window(70_000, about("read")), Some(0));
        assert_eq!(lines.close(200_000), None, "it had its line");
    }

    #[test]
    fn who_speaks_and_how_loud_is_news() {
        let mut lines = Lines::default();
        let quiet = About {
            severity: Severity::Low,
            ..about("read")
        };
        assert_eq!(lines.window(0, quiet), Some(0));
        assert_eq!(lines.window(1, about("read")), Some(0), "it is graver");
        let other = About {
            estimator: EstimatorKind::Stide,
            ..about("read")
        };
        assert_eq!(lines.window(2, other), Some(0));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut lines = Lines::default();
        assert_eq!(lines.window(10_000_000, about("read")), Some(0));
        assert_eq!(lines.window(10_001_000, about("read")), None);
        assert_eq!(lines.window(1_000, about("read")), Some(1));
    }

    proptest! {
        #[test]
        fn no_minute_has_more_lines_than_are_due_and_none_is_forgotten(calls in prop::collection::vec(0usize..3, 1..400)) {
            let mut lines = Lines::default();
            let (mut said, mut unsaid) = (Vec::new(), 0u32);
            for (at, call) in calls.iter().enumerate() {
                let at_ms = at as u64 * 1000;
                match lines.window(at_ms, about(["read", "write", "openat"][*call])) {
                    Some(before) => {
                        prop_assert_eq!(before, unsaid);
                        unsaid = 0;
                        said.push(at_ms);
                    }
                    None => unsaid += 1,
                }
            }
            let left = lines.close(u64::MAX);
            prop_assert_eq!(left.map_or(0, |burst| burst.unsaid), unsaid);
            for at_ms in &said {
                let minute = said.iter().filter(|s| (*at_ms..at_ms + 60_000).contains(s)).count();
                prop_assert!(minute <= 7, "{minute}");
            }
        }
    }
}
