//! Metrics of what is told of containers beside their system calls.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::containers::Labels;
use crate::containers::resources::PRESSURES;
use crate::node::engine::Signals;
use crate::probe::Signal;

/// A counter: its name, its help, its value where it is wanted and known.
type Counter = (&'static str, &'static str, fn(&Signals) -> Option<u64>);

const COUNTERS: [Counter; 11] = [
    ("container_page_faults", "Page faults", |s| {
        s.resources?.page_faults
    }),
    (
        "container_major_page_faults",
        "Page faults that waited for a disk",
        |s| s.resources?.major_faults,
    ),
    (
        "container_oom_kills",
        "Processes killed for want of memory",
        |s| s.resources?.oom_kills,
    ),
    ("container_disk_read_bytes", "Bytes read from disks", |s| {
        s.resources?.read_bytes
    }),
    ("container_disk_written_bytes", "Bytes written to disks", |s| {
        s.resources?.written_bytes
    }),
    ("container_processes", "Processes made, without threads", |s| {
        counted(s, Signal::Processes, s.counts.processes)
    }),
    ("container_programs", "Programs executed", |s| {
        counted(s, Signal::Processes, s.counts.programs)
    }),
    (
        "container_capability_checks",
        "Capabilities that the kernel checked",
        |s| counted(s, Signal::Capabilities, s.counts.capabilities),
    ),
    (
        "container_capability_denials",
        "Capabilities that the kernel denied",
        |s| counted(s, Signal::Capabilities, s.counts.denials),
    ),
    ("container_connections", "TCP connections begun", |s| {
        counted(s, Signal::Connections, s.counts.connections)
    }),
    ("container_signals", "Signals received", |s| {
        counted(s, Signal::Signals, s.counts.signals)
    }),
];

fn counted(signals: &Signals, of: Signal, count: u64) -> Option<u64> {
    signals.counted.contains(&of).then_some(count)
}

/// Writes all of them; a figure that is not wanted, or that the kernel lacks, has no series.
pub(super) fn encode(all: &[(&Labels, &Signals)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, signals) in all {
            if let Some(value) = value(signals) {
                family
                    .encode_family(*labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
    }
    let mut family = encoder.encode_descriptor(
        "container_cpu",
        "Processor time used",
        Some(&Unit::Seconds),
        MetricType::Counter,
    )?;
    for (labels, signals) in all {
        if let Some(ns) = signals.resources.and_then(|of| of.cpu_ns) {
            family
                .encode_family(*labels)?
                .encode_counter::<NoLabelSet, _, u64>(&(ns as f64 / 1e9), None)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "container_memory",
        "Memory used",
        Some(&Unit::Bytes),
        MetricType::Gauge,
    )?;
    for (labels, signals) in all {
        if let Some(bytes) = signals.resources.and_then(|of| of.memory_bytes) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            family.encode_family(*labels)?.encode_gauge(&bytes)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "container_pressure",
        "Time in which something waited for a resource",
        Some(&Unit::Seconds),
        MetricType::Counter,
    )?;
    for (labels, signals) in all {
        let pressures = signals.resources.map(|of| of.pressure_us).unwrap_or_default();
        for (resource, us) in PRESSURES.iter().zip(pressures) {
            if let Some(us) = us {
                let mut labels = labels.to_vec();
                labels.push(("resource", (*resource).to_owned()));
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&(us as f64 / 1e6), None)?;
            }
        }
    }
    Ok(())
}
