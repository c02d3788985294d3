//! Counting of system calls in the kernel, behind one small type.
//!
//! A [`Probe`] counts for *targets* only: each is a [`Slot`], to which cgroups
//! or processes are bound, and what those create is bound to the same slot by
//! the kernel side before it runs. Nothing is attached while there is no target.
//! Counters only grow, so that a drain that comes late or is missed loses nothing;
//! taking differences is the window's work.

mod batch;
mod error;
mod hierarchy;
mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use aya::maps::{Map, MapData};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::{Btf, Ebpf, EbpfLoader};

pub use error::ProbeError;
pub use hierarchy::{Hierarchy, HierarchyKind};

/// What the counters of one target are kept under. Never used again for another target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// One counter as the kernel has it: totals since the slot was made, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Whose.
    pub slot: Slot,
    /// Number of the system call on this architecture. [`Tally::COMPAT`] is set where it was made through the
    /// 32-bit ABI, whose numbers mean other calls.
    pub syscall: u32,
    /// Calls that have returned.
    pub calls: u64,
    /// Those of them that returned an error.
    pub errors: u64,
}

impl Tally {
    /// Flag in [`Tally::syscall`]: made through the 32-bit ABI.
    pub const COMPAT: u32 = 1 << 31;
}

/// What tells targets apart, and how much room the kernel side gets. Fixed when the probe is loaded.
#[derive(Debug, Clone, Copy)]
pub struct ProbeConfig {
    /// Count for cgroups of this kind of hierarchy; none: for processes only.
    pub cgroups: Option<HierarchyKind>,
    /// Count for processes and what they fork.
    pub processes: bool,
    /// Most pairs of target and system call that are counted at once. Each takes 64 bytes and 16 more for each CPU
    /// in the kernel; calls beyond are counted as lost.
    pub tallies: u32,
    /// Most cgroups (nested ones included), and most processes, that are bound to slots at once.
    pub bindings: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            cgroups: Some(HierarchyKind::V2),
            processes: false,
            tallies: 16_384,
            bindings: 8_192,
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
}

/// A program of the object, and the tracepoint it belongs to.
struct Hook {
    program: &'static str,
    tracepoint: &'static str,
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
const PROCESS_HOOKS: [Hook; 2] = [
    Hook {
        program: "vigia_forked",
        tracepoint: "sched_process_fork",
    },
    Hook {
        program: "vigia_exited",
        tracepoint: "sched_process_exit",
    },
];

/// The kernel's programs and maps, and who is counted.
pub struct Probe {
    ebpf: Ebpf,
    config: ProbeConfig,
    cgroups: MapData,
    processes: MapData,
    tallies: MapData,
    lost: MapData,
    reader: batch::PerCpuReader,
    attached: Vec<BtfTracePointLink>,
    next_slot: u32,
    targets: BTreeMap<Slot, Bound>,
}

/// What user space has bound to a slot. What the kernel side bound by itself goes when it dies.
#[derive(Default)]
struct Bound {
    cgroups: BTreeSet<u64>,
    processes: BTreeSet<u32>,
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe.bpf.o"));

impl Probe {
    /// Loads the programs and maps; attaches nothing yet.
    ///
    /// # Errors
    ///
    /// Says which of BTF, a capability, a tracepoint or the verifier's consent is missing.
    pub fn load(config: ProbeConfig) -> Result<Self, ProbeError> {
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
            .map_max_entries("TALLIES", config.tallies)
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
        for hook in hooks(&config) {
            load_program(&mut ebpf, &btf, hook)?;
        }
        let [cgroups, processes, tallies, lost] =
            ["CGROUPS", "PROCESSES", "TALLIES", "LOST"].map(|name| take_map(&mut ebpf, name));
        let reader = batch::PerCpuReader::new(kernel::possible_cpus()?);
        // BTF of the whole kernel was parsed for a moment: some 30 MB that the allocator would keep.
        drop(btf);
        kernel::return_free_memory();
        Ok(Self {
            ebpf,
            config,
            cgroups: cgroups?,
            processes: processes?,
            tallies: tallies?,
            lost: lost?,
            reader,
            attached: Vec::new(),
            next_slot: 1,
            targets: BTreeMap::new(),
        })
    }

    /// Makes a target of a cgroup, by its id (the inode of its folder). The first target attaches the programs.
    ///
    /// Cgroups made inside it from now on are counted with it; for those that exist already see [`Self::bind_cgroup`].
    ///
    /// # Errors
    ///
    /// When the table of cgroups is full or the programs cannot be attached; there is no target then.
    pub fn add_target(&mut self, cgroup: u64) -> Result<Slot, ProbeError> {
        let slot = self.new_slot()?;
        self.undo_on_error(slot, |probe| probe.bind_cgroup(slot, cgroup))
    }

    /// Makes a target of a process and what it forks from now on. The first target attaches the programs.
    ///
    /// # Errors
    ///
    /// When the table of processes is full or the programs cannot be attached; there is no target then.
    pub fn add_process(&mut self, process: u32) -> Result<Slot, ProbeError> {
        let slot = self.new_slot()?;
        self.undo_on_error(slot, |probe| probe.bind_process(slot, process))
    }

    /// Counts a further cgroup under a target's slot: one nested in it that existed before.
    ///
    /// # Errors
    ///
    /// When the table of cgroups is full.
    pub fn bind_cgroup(&mut self, slot: Slot, cgroup: u64) -> Result<(), ProbeError> {
        batch::update(
            self.cgroups.fd().as_fd(),
            &cgroup.to_ne_bytes(),
            &slot.0.to_ne_bytes(),
        )
        .map_err(|source| ProbeError::Map {
            what: "bind a cgroup",
            source,
        })?;
        self.targets.entry(slot).or_default().cgroups.insert(cgroup);
        Ok(())
    }

    /// Counts a further process under a target's slot: a child that existed before.
    ///
    /// # Errors
    ///
    /// When the table of processes is full.
    pub fn bind_process(&mut self, slot: Slot, process: u32) -> Result<(), ProbeError> {
        batch::update(
            self.processes.fd().as_fd(),
            &process.to_ne_bytes(),
            &slot.0.to_ne_bytes(),
        )
        .map_err(|source| ProbeError::Map {
            what: "bind a process",
            source,
        })?;
        self.targets.entry(slot).or_default().processes.insert(process);
        Ok(())
    }

    /// Ends a target and forgets its counters. The last one detaches the programs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map operation other than for an entry that is gone already.
    pub fn remove_target(&mut self, slot: Slot) -> Result<(), ProbeError> {
        let Some(bound) = self.targets.remove(&slot) else {
            return Ok(());
        };
        let unbind = |source| ProbeError::Map {
            what: "unbind a target",
            source,
        };
        if self.targets.is_empty() {
            self.attached.clear();
        }
        for id in &bound.cgroups {
            batch::delete(self.cgroups.fd().as_fd(), &id.to_ne_bytes()).map_err(unbind)?;
        }
        for id in &bound.processes {
            batch::delete(self.processes.fd().as_fd(), &id.to_ne_bytes()).map_err(unbind)?;
        }
        // What the kernel side bound to this slot is found by its value, and counters by their slot.
        for (map, key_size) in [(&self.cgroups, 8), (&self.processes, 4)] {
            batch::retain(map.fd().as_fd(), key_size, |_, value| {
                value != slot.0.to_ne_bytes()
            })
            .map_err(unbind)?;
        }
        self.forget_counters()
    }

    /// Appends every counter of every target, summed over the CPUs, in no order.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read. What was appended before stays valid: counters are totals.
    pub fn drain(&mut self, into: &mut Vec<Tally>) -> Result<(), ProbeError> {
        if self.targets.is_empty() {
            return Ok(());
        }
        let targets = &self.targets;
        self.reader
            .read(self.tallies.fd().as_fd(), |key, [calls, errors]| {
                let slot = Slot(key.slot);
                if targets.contains_key(&slot) {
                    into.push(Tally {
                        slot,
                        syscall: key.syscall,
                        calls,
                        errors,
                    });
                }
            })
            .map_err(|source| ProbeError::Map {
                what: "read the counters",
                source,
            })
    }

    /// What the probe is doing, and what was lost since it was loaded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn stats(&self) -> Result<ProbeStats, ProbeError> {
        let read = |cause: u32| {
            self.reader
                .sum(self.lost.fd().as_fd(), cause)
                .map_err(|source| ProbeError::Map {
                    what: "read what was lost",
                    source,
                })
        };
        Ok(ProbeStats {
            targets: self.targets.len(),
            attached: self.attached.len(),
            lost_calls: read(0)?,
            lost_bindings: read(1)?,
        })
    }

    fn new_slot(&mut self) -> Result<Slot, ProbeError> {
        if self.attached.is_empty() {
            self.attach()?;
        }
        let slot = Slot(self.next_slot);
        self.next_slot = self.next_slot.checked_add(1).ok_or(ProbeError::OutOfSlots)?;
        self.targets.insert(slot, Bound::default());
        Ok(slot)
    }

    fn undo_on_error(
        &mut self,
        slot: Slot,
        bind: impl FnOnce(&mut Self) -> Result<(), ProbeError>,
    ) -> Result<Slot, ProbeError> {
        match bind(self) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.remove_target(slot)?;
                Err(error)
            }
        }
    }

    /// Inheritance first, so that nothing can slip between a binding and it; counting last.
    fn attach(&mut self) -> Result<(), ProbeError> {
        let mut links = Vec::new();
        for hook in hooks(&self.config) {
            let refused = |source| ProbeError::Attach {
                tracepoint: hook.tracepoint,
                source: Box::new(source),
            };
            let program = program(&mut self.ebpf, hook)?;
            let link = program.attach().map_err(refused)?;
            links.push(program.take_link(link).map_err(refused)?);
        }
        self.attached = links;
        Ok(())
    }

    /// Deletes counters whose target is gone, also those that a CPU made just after the target was unbound.
    fn forget_counters(&mut self) -> Result<(), ProbeError> {
        let targets = &self.targets;
        let mut stale = Vec::new();
        let forget = |source| ProbeError::Map {
            what: "forget a target's counters",
            source,
        };
        self.reader
            .read(self.tallies.fd().as_fd(), |key, _| {
                if !targets.contains_key(&Slot(key.slot)) {
                    stale.push(key);
                }
            })
            .map_err(forget)?;
        for key in stale {
            batch::delete(self.tallies.fd().as_fd(), &key.to_bytes()).map_err(forget)?;
        }
        Ok(())
    }
}

fn hooks(config: &ProbeConfig) -> impl Iterator<Item = &'static Hook> + use<> {
    let cgroups = config
        .cgroups
        .is_some()
        .then_some(&CGROUP_HOOKS)
        .into_iter()
        .flatten();
    let processes = config.processes.then_some(&PROCESS_HOOKS).into_iter().flatten();
    cgroups.chain(processes).chain([&COUNT])
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
        Some(Map::HashMap(data) | Map::PerCpuHashMap(data) | Map::PerCpuArray(data)) => Ok(data),
        _ => Err(ProbeError::Incomplete(name)),
    }
}
