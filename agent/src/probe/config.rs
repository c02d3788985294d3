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
    /// in the kernel; calls beyond are counted as lost.
    pub tallies: u32,
    /// Most cgroups (nested ones included), and most processes, that are bound to slots at once.
    pub bindings: u32,
    /// Whether latencies and 2-grams will be wanted in a duty cycle; see [`Probe::set_detail`]. Room for as many
    /// 2-grams as tallies and a quarter as many latencies is then made in the kernel.
    pub detail: bool,
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
        }
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
    /// Latencies and 2-grams not kept because a table was full, since loading.
    pub lost_detail: u64,
}
