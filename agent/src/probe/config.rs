//! What a probe is told when it is loaded, and what it says of itself.

use super::HierarchyKind;

/// What tells targets apart, and how much room the kernel side gets. Fixed when the probe is loaded.
#[derive(Debug, Clone, Copy)]
pub struct ProbeConfig {
    /// Count for cgroups of this kind of hierarchy; none: for processes only.
    pub cgroups: Option<HierarchyKind>,
    /// Count for processes.
    pub processes: bool,
    /// Count what these processes fork, too.
    pub children: bool,
    /// Most pairs of target and system call that are counted at once. Each takes 64 bytes and 16 more for each CPU
    /// in the kernel; calls beyond are counted as lost. One target has at most a 64th of them, beside the places
    /// that it finds in arrays.
    pub tallies: u32,
    /// Most cgroups (nested ones included), and most processes, that are bound to slots at once.
    pub bindings: u32,
    /// Whether more than counts will be wanted of some target; see [`super::Probe::set_mode`]. Room for a quarter as many
    /// latencies as tallies is then made in the kernel.
    pub detail: bool,
    /// Whether that is sequences of calls, too. Room for 4,096 on each CPU is then made, twice; see
    /// [`super::Probe::take_grams`].
    pub sequences: bool,
    /// What is kept of a target from its first call on. More than counts needs `detail`.
    pub mode: Mode,
    /// Whether [`super::Signal`]s will be wanted of some target; see [`super::Probe::set_signals`]. They are told apart
    /// by cgroups alone.
    pub signals: bool,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            cgroups: Some(HierarchyKind::V2),
            processes: false,
            children: true,
            tallies: 16_384,
            bindings: 8_192,
            detail: false,
            sequences: false,
            signals: false,
            mode: Mode::Counts,
        }
    }
}

/// What is kept of a target beside its counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing.
    #[default]
    Counts,
    /// Latencies and sequences, in the active phases of the duty cycle.
    Sampled,
    /// Latencies and sequences, all the time.
    Full,
}

impl Mode {
    /// As the kernel side has it.
    pub(super) fn word(self) -> [u8; 4] {
        (self as u32 + 1).to_ne_bytes()
    }
}

/// What one of the probe's programs takes, as it says itself: one run in a thousand reads the clock at its begin and
/// its end. The kernel's own way into a tracepoint is not in it, nor are runs for tasks that are no target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Runs, those for other tasks included.
    pub runs: u64,
    /// Runs that were timed.
    pub timed_runs: u64,
    /// What those took together, in nanoseconds.
    pub timed_ns: u64,
}

impl ProgramCost {
    /// Nanoseconds of one run for a target; none before one was timed.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.timed_runs > 0).then(|| self.timed_ns as f64 / self.timed_runs as f64)
    }
}

/// What the probe is doing and what it could not keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeStats {
    /// Targets now.
    pub targets: usize,
    /// Programs attached now; 0 without a target.
    pub attached: usize,
    /// Calls not counted because the table was full, since loading.
    pub lost_calls: u64,
    /// Nested cgroups or children that could not be bound because the table was full, since loading.
    pub lost_bindings: u64,
    /// Latencies and sequences not kept because a table was full, since loading. Of a node's agent, also those that found no
    /// room in a window since then.
    pub lost_detail: u64,
    /// The program that counts, on a call's exit, where it does no more than that. All of its runs.
    pub exit: ProgramCost,
    /// The same where it keeps latencies and sequences, too; its runs are among those of the one before.
    pub measure: ProgramCost,
    /// The program that notes when a call begins; attached while a target wants it.
    pub enter: ProgramCost,
}

impl ProbeStats {
    /// What was lost of latencies and sequences, where that is worth saying: more than one in a thousand of what was
    /// measured, and some hundreds. Two threads may meet in one place at any time.
    #[must_use]
    pub const fn noticeable_loss(&self) -> u64 {
        const TIMED_IN: u64 = 1024;
        const ONE_IN: u64 = 1000;
        const FEW: u64 = 500;
        let measured = self.measure.timed_runs.saturating_mul(TIMED_IN);
        if self.lost_detail > FEW + measured / ONE_IN {
            self.lost_detail
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_said_where_it_is_a_share_of_what_was_measured() {
        let of = |lost_detail, timed_runs| {
            let stats = ProbeStats {
                lost_detail,
                measure: ProgramCost {
                    timed_runs,
                    ..ProgramCost::default()
                },
                ..ProbeStats::default()
            };
            stats.noticeable_loss()
        };
        assert_eq!([of(0, 0), of(500, 0), of(501, 0)], [0, 0, 501]);
        assert_eq!([of(1_500, 1_000), of(2_000, 1_000)], [0, 2_000]);
    }
}
