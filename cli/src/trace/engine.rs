//! What counts: the probe in the kernel or, where that may not be, the tracer.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use vigia_agent::probe::{Gram, Latency, Probe, Slot, Tally};
use vigia_agent::window::Totals;

use super::cannot;
use crate::error::Failure;
use crate::filter::Filter;
use crate::ptrace::watch::Shared;
use crate::times::{Time, Times};

/// Totals at one moment, of the system calls that are looked at.
#[derive(Default)]
pub struct Snapshot {
    /// How often, and with how many errors.
    pub totals: Totals,
    /// How long, where that is measured.
    pub times: Times,
    /// What came after what since the last moment, where that is counted.
    pub grams: Vec<Gram>,
}

/// Slot of what the tracer counts, which is one target.
pub const TRACED: Slot = Slot(1);

/// Reads totals.
pub enum Reader {
    /// Of the probe.
    Kernel(Box<Kernel>),
    /// Of the tracer, which has left out what is not looked at.
    Ptrace(Shared),
}

impl Reader {
    /// Totals since the target was bound.
    pub fn read(&mut self) -> Result<Snapshot, Failure> {
        match self {
            Self::Kernel(kernel) => kernel.read(),
            Self::Ptrace(shared) => {
                let mut counts = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let tally = |(&syscall, &(calls, errors)): (&u32, &(u64, u64))| Tally {
                    slot: TRACED,
                    syscall,
                    calls,
                    errors,
                };
                let tallies: Vec<Tally> = counts.calls.iter().map(tally).collect();
                let gram = |(sequence, count)| Gram {
                    slot: TRACED,
                    sequence,
                    count,
                };
                Ok(Snapshot {
                    totals: Totals::new(&tallies, BTreeMap::new()),
                    times: counts.times.clone(),
                    grams: std::mem::take(&mut counts.sequences)
                        .into_iter()
                        .map(gram)
                        .collect(),
                })
            }
        }
    }

    /// Times and sequences of calls that found no room since the target was bound, where they are many enough to speak of.
    pub fn unkept(&mut self) -> Result<u64, Failure> {
        match self {
            Self::Kernel(kernel) => {
                let stats = kernel.probe.stats().map_err(|error| cannot(&error))?;
                Ok(stats.noticeable_loss())
            }
            Self::Ptrace(shared) => Ok(shared.lock().unwrap_or_else(PoisonError::into_inner).unfollowed),
        }
    }

    /// Whether somebody of the target goes on. The tracer ends with the last of them by itself.
    pub fn has_processes(&self, slot: Slot) -> Result<bool, Failure> {
        match self {
            Self::Kernel(kernel) => kernel.probe.has_processes(slot).map_err(|error| cannot(&error)),
            Self::Ptrace(_) => Ok(false),
        }
    }
}

/// The probe, with room that is used again.
pub struct Kernel {
    probe: Probe,
    filter: Filter,
    detail: bool,
    tallies: Vec<Tally>,
    latencies: Vec<Latency>,
}

impl Kernel {
    /// Reads what `probe` counts of the calls in `filter`; how long they take and which follow which only if the probe
    /// keeps that.
    pub fn new(probe: Probe, filter: Filter, detail: bool) -> Self {
        Self {
            probe,
            filter,
            detail,
            tallies: Vec::new(),
            latencies: Vec::new(),
        }
    }

    fn read(&mut self) -> Result<Snapshot, Failure> {
        self.tallies.clear();
        self.probe
            .drain(&mut self.tallies)
            .map_err(|error| cannot(&error))?;
        self.tallies.retain(|tally| self.filter.has(tally.syscall));
        let used = self.probe.drain_used().map_err(|error| cannot(&error))?;
        let lost = used.into_iter().map(|(slot, used)| (slot, used.lost)).collect();
        let totals = Totals::new(&self.tallies, lost);
        if !self.detail {
            return Ok(Snapshot {
                totals,
                ..Snapshot::default()
            });
        }
        self.latencies.clear();
        let mut grams = Vec::new();
        self.probe
            .drain_latencies(&mut self.latencies)
            .and_then(|()| self.probe.take_grams(&mut grams))
            .map_err(|error| cannot(&error))?;
        // Sums of how long calls took are kept apart from windows: an analysis in between looks at them too.
        Ok(Snapshot {
            totals,
            times: self.times(),
            grams,
        })
    }

    fn times(&self) -> Times {
        let time = |latency: &Latency| Time {
            ns: latency.sum_ns,
            calls: latency.calls(),
        };
        self.latencies
            .iter()
            .filter(|latency| self.filter.has(latency.syscall))
            .map(|latency| (latency.syscall, time(latency)))
            .collect()
    }
}
