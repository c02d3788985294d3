//! What is counted of containers beside system calls.

use super::ProbeError;
use super::batch::word;
use super::object::Hook;

/// A kind of thing that the probe can count beside system calls, by one or two tracepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Processes and programs that begin.
    Processes,
    /// Checks of capabilities.
    Capabilities,
    /// TCP connections that are begun.
    Connections,
    /// Signals that are sent.
    Signals,
    /// Processes that are killed for want of memory.
    OomKills,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Processes,
        Self::Capabilities,
        Self::Connections,
        Self::Signals,
        Self::OomKills,
    ];

    /// What a kernel lacks that does not take its programs.
    pub(super) fn lacking(self, error: &ProbeError) -> String {
        match self {
            Self::OomKills => {
                "kills for want of memory that end a container (Linux 6.8 tells of them)".to_owned()
            }
            _ => error.to_string(),
        }
    }

    pub(super) fn hooks(self) -> &'static [Hook] {
        const fn hook(program: &'static str, tracepoint: &'static str) -> Hook {
            Hook { program, tracepoint }
        }
        match self {
            Self::Processes => {
                const {
                    &[
                        hook("vigia_born", "sched_process_fork"),
                        hook("vigia_executed", "sched_process_exec"),
                    ]
                }
            }
            Self::Capabilities => const { &[hook("vigia_capable", "cap_capable")] },
            Self::Connections => const { &[hook("vigia_connecting", "inet_sock_set_state")] },
            Self::Signals => const { &[hook("vigia_signalled", "signal_generate")] },
            // The victim itself is told since Linux 6.8.
            Self::OomKills => const { &[hook("vigia_killed", "mark_victim")] },
        }
    }
}

/// Totals of one target since it is one, of what was attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalCounts {
    /// Processes made, without threads.
    pub processes: u64,
    /// Programs executed.
    pub programs: u64,
    /// Capabilities that the kernel checked.
    pub capabilities: u64,
    /// Those that were denied.
    pub denials: u64,
    /// TCP connections begun.
    pub connections: u64,
    /// Signals received.
    pub signals: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// What is rare of one target: totals since it is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Calls that were not counted.
    pub lost: u64,
    /// What was counted beside calls, of what was attached.
    pub signals: SignalCounts,
}

impl Used {
    /// Bytes of an element, as in probe.bpf.c.
    pub(super) const SIZE: usize = 16 + 7 * 8;

    pub(super) fn read(value: &[u8]) -> Self {
        let signal = |what: usize| word(value, 16 + 8 * what);
        Self {
            lost: word(value, 0),
            signals: SignalCounts {
                processes: signal(0),
                programs: signal(1),
                capabilities: signal(2),
                denials: signal(3),
                connections: signal(4),
                signals: signal(5),
                oom_kills: signal(6),
            },
        }
    }
}
