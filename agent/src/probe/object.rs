//! The compiled programs and their maps, from bytes to loaded.

use std::collections::BTreeMap;

use aya::maps::{Map, MapData};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::{Btf, Ebpf, EbpfLoader};

use super::{HierarchyKind, ProbeConfig, ProbeError, Signal, kernel};

/// A program of the object, and the tracepoint it belongs to.
pub(super) struct Hook {
    pub(super) program: &'static str,
    pub(super) tracepoint: &'static str,
}

const COUNT: Hook = Hook {
    program: "vigia_count",
    tracepoint: "sys_exit",
};
const CGROUP_HOOKS: [Hook; 2] = [
    Hook {
        program: "vigia_cgroup_made",
        tracepoint: "cgroup_mkdir",
    },
    Hook {
        program: "vigia_cgroup_gone",
        tracepoint: "cgroup_rmdir",
    },
];
const FORKED: Hook = Hook {
    program: "vigia_forked",
    tracepoint: "sched_process_fork",
};
const EXITED: Hook = Hook {
    program: "vigia_exited",
    tracepoint: "sched_process_exit",
};

pub(super) const DETAIL: Hook = Hook {
    program: "vigia_enter",
    tracepoint: "sys_enter",
};

/// As in probe.bpf.c: groups of places, and threads whose call is kept.
pub(super) const GROUPS: u32 = 4;
const THREADS: u32 = 8192;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe.bpf.o"));

/// Programs and maps in the kernel.
pub(super) struct Object {
    ebpf: Ebpf,
    pub(super) cgroups: MapData,
    pub(super) processes: MapData,
    pub(super) tallies: MapData,
    pub(super) lost: MapData,
    pub(super) tally_places: MapData,
    pub(super) latencies: MapData,
    pub(super) latency_places: MapData,
    pub(super) grams: MapData,
    pub(super) gram_shares: MapData,
    pub(super) control: MapData,
    pub(super) slots: MapData,
    pub(super) used: MapData,
    pub(super) seen: MapData,
    /// What this kernel lacks for a signal.
    pub(super) missing: BTreeMap<Signal, String>,
}

impl Object {
    /// Loads what the configuration needs.
    pub(super) fn load(config: &ProbeConfig) -> Result<Self, ProbeError> {
        kernel::check_capabilities()?;
        let btf = kernel::btf()?;
        let by = match config.cgroups {
            Some(HierarchyKind::V2) => 1u32,
            Some(HierarchyKind::V1) => 2,
            None => 0,
        } | if config.processes { 4 } else { 0 };

        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("VIGIA_BY", &by, true)
            .override_global("VIGIA_DETAIL", &u32::from(config.detail), true)
            .override_global("VIGIA_SEQUENCES", &u32::from(config.sequences), true)
            .override_global("VIGIA_TALLIES", &(config.tallies / 64).max(16), true)
            .map_max_entries(
                "LATENCIES",
                if config.detail {
                    (config.tallies / 4).max(1)
                } else {
                    1
                },
            )
            .map_max_entries("GRAMS", if config.sequences { 2 * GROUPS } else { 1 })
            .map_max_entries("GRAM_SHARES", if config.sequences { 2 } else { 1 })
            .map_max_entries("LATENCY_PLACES_MAP", if config.detail { GROUPS } else { 1 })
            .map_max_entries("PROGRESS", if config.detail { THREADS } else { 1 })
            .map_max_entries("TALLIES", config.tallies)
            .map_max_entries("SLOTS", config.bindings)
            .map_max_entries("USED", config.bindings)
            .map_max_entries(
                "CGROUPS",
                if config.cgroups.is_some() {
                    config.bindings
                } else {
                    1
                },
            )
            .map_max_entries("PROCESSES", if config.processes { config.bindings } else { 1 })
            .load(OBJECT)
            .map_err(ProbeError::object)?;
        for hook in hooks(config) {
            load_program(&mut ebpf, &btf, hook)?;
        }
        if config.detail {
            load_program(&mut ebpf, &btf, &DETAIL)?;
        }
        let mut missing = BTreeMap::new();
        for signal in Signal::ALL.into_iter().filter(|_| config.signals) {
            for hook in signal.hooks() {
                if let Err(error) = load_program(&mut ebpf, &btf, hook) {
                    missing.insert(signal, signal.lacking(&error));
                }
            }
        }
        let mut map = |name| take_map(&mut ebpf, name);
        let (cgroups, processes) = (map("CGROUPS")?, map("PROCESSES")?);
        let (tallies, lost) = (map("TALLIES")?, map("LOST")?);
        // A section of the kernel side's is a map of the same name.
        let (latencies, control) = (map("LATENCIES")?, map(".data.users")?);
        let (grams, gram_shares) = (map("GRAMS")?, map("GRAM_SHARES")?);
        let (tally_places, latency_places) = (map("TALLY_PLACES")?, map("LATENCY_PLACES_MAP")?);
        let (slots, used, seen) = (map("SLOTS")?, map("USED")?, map("SEEN")?);
        // BTF of the whole kernel was parsed for a moment: some 30 MB that the allocator would keep.
        drop(btf);
        kernel::return_free_memory();
        Ok(Self {
            ebpf,
            cgroups,
            processes,
            tallies,
            lost,
            tally_places,
            latencies,
            latency_places,
            grams,
            gram_shares,
            control,
            slots,
            used,
            seen,
            missing,
        })
    }

    /// Attaches one program for as long as its link is held.
    pub(super) fn attach(&mut self, hook: &Hook) -> Result<BtfTracePointLink, ProbeError> {
        let refused = |source| ProbeError::Attach {
            tracepoint: hook.tracepoint,
            source: Box::new(source),
        };
        let program = program(&mut self.ebpf, hook)?;
        let link = program.attach().map_err(refused)?;
        program.take_link(link).map_err(refused)
    }
}

/// What is attached while there is a target: inheritance first, so that nothing can slip between a binding and it,
/// and counting last.
pub(super) fn hooks(config: &ProbeConfig) -> impl Iterator<Item = &'static Hook> + use<> {
    let cgroups = config
        .cgroups
        .is_some()
        .then_some(&CGROUP_HOOKS)
        .into_iter()
        .flatten();
    let forked = (config.processes && config.children).then_some(&FORKED);
    let exited = config.processes.then_some(&EXITED);
    cgroups.chain(forked).chain(exited).chain([&COUNT])
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> Result<&'a mut BtfTracePoint, ProbeError> {
    ebpf.program_mut(hook.program)
        .ok_or(ProbeError::Incomplete(hook.program))?
        .try_into()
        .map_err(|_| ProbeError::Incomplete(hook.program))
}

fn load_program(ebpf: &mut Ebpf, btf: &Btf, hook: &'static Hook) -> Result<(), ProbeError> {
    program(ebpf, hook)?
        .load(hook.tracepoint, btf)
        .map_err(|source| ProbeError::program(hook.tracepoint, source))
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, ProbeError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::PerCpuHashMap(data) | Map::PerCpuArray(data)) => {
            Ok(data)
        }
        _ => Err(ProbeError::Incomplete(name)),
    }
}
