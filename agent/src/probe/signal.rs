//! What is counted of containers beside system calls.

use super::Slot;
use super::batch::{half, word};
use super::object::Hook;
use super::tally::slot;

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
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Processes,
        Self::Capabilities,
        Self::Connections,
        Self::Signals,
    ];

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
}

impl SignalCounts {
    /// Takes in an element of the kernel's table; gives whose it is.
    pub(super) fn read(key: &[u8], cpus: &[u8]) -> (Slot, u32, u64) {
        let count = cpus
            .chunks_exact(8)
            .fold(0u64, |sum, cpu| sum.wrapping_add(word(cpu, 0)));
        (slot(key), half(key, 4), count)
    }

    /// As in probe.bpf.c.
    pub(super) fn set(&mut self, what: u32, count: u64) {
        match what {
            0 => self.processes = count,
            1 => self.programs = count,
            2 => self.capabilities = count,
            3 => self.denials = count,
            4 => self.connections = count,
            5 => self.signals = count,
            _ => {}
        }
    }
}
