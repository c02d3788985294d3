// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Counts system calls per target and number, in the kernel.
 *
 * Everything here runs on every system call of the machine while a target
 * exists, so the path of a task that is no target is as short as it can be: one
 * look-up of its cgroup id. Counting happens on exit only: the entry hook costs as much
 * again and adds nothing to a count. Counters only ever grow; user space takes
 * differences, so that a drain that comes late loses nothing.
 *
 * A target is a slot. Cgroups (and, for the command line, processes) point to a
 * slot; what they create points to the same one before it can make its first
 * system call, so nesting cannot hide a process.
 */
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* What identifies a task's target; fixed when the probe is loaded, so the verifier drops the others. */
enum { BY_CGROUP_V2 = 1, BY_CGROUP_V1 = 2, BY_PROCESS = 4 };
volatile const __u32 VIGIA_BY = BY_CGROUP_V2;

struct tally_key {
	__u32 slot;
	__u32 nr;
};

struct tally {
	__u64 calls;
	__u64 errors;
};

/* Cgroup id to slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u32);
} CGROUPS SEC(".maps");

/* Process (thread group) id to slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u32);
} PROCESSES SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tally_key);
	__type(value, struct tally);
} TALLIES SEC(".maps");

/* What could not be kept, by cause. */
enum { LOST_CALLS = 0, LOST_INHERITED = 1, LOST_CAUSES = 2 };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_CAUSES);
	__type(key, __u32);
	__type(value, __u64);
} LOST SEC(".maps");

static __always_inline void lose(__u32 cause)
{
	__u64 *n = bpf_map_lookup_elem(&LOST, &cause);

	if (n)
		*n += 1;
}

/* The cgroup that a task is in, in the hierarchy that containers are told apart by. */
static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	if (VIGIA_BY & BY_CGROUP_V2)
		return task->cgroups->dfl_cgrp->kn->id;
	return task->cgroups->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)]->cgroup->kn->id;
}

static __always_inline __u32 *slot_of(struct task_struct *task)
{
	if (VIGIA_BY & (BY_CGROUP_V2 | BY_CGROUP_V1)) {
		__u64 id = cgroup_of(task);
		__u32 *slot = bpf_map_lookup_elem(&CGROUPS, &id);

		if (slot)
			return slot;
	}
	if (VIGIA_BY & BY_PROCESS) {
		__u32 tgid = task->tgid;

		return bpf_map_lookup_elem(&PROCESSES, &tgid);
	}
	return 0;
}

/* The number of the system call that ends; calls of the 32-bit ABI get bit 31, as their numbers mean other calls. */
static __always_inline __u32 number(struct task_struct *task, struct pt_regs *regs)
{
#if defined(VIGIA_ARCH_x86_64)
	__s32 nr = regs->orig_ax;

	/* Its own restoring of registers has erased the number. */
	if (nr == -1)
		return NR_RT_SIGRETURN;
	if (task->thread_info.status & TS_COMPAT)
		nr |= 1u << 31;
#else
	__s32 nr = regs->syscallno;

	if (nr == -1)
		return NR_RT_SIGRETURN;
#endif
	return nr;
}

SEC("tp_btf/sys_exit")
int vigia_count(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	__s64 ret = ctx[1];
	__u32 *slot = slot_of(task);
	struct tally_key key;
	struct tally *tally;
	__u64 error;

	if (!slot)
		return 0;
	key.slot = *slot;
	key.nr = number(task, regs);
	/* A new task leaves the call that made it, too; one call is one count. */
	if (ret == 0 && IS_CLONE(key.nr))
		return 0;
	error = (__u64)ret > -4096UL;

	tally = bpf_map_lookup_elem(&TALLIES, &key);
	if (!tally) {
		struct tally zero = {};

		/* Another CPU may have made it meanwhile: only the second look-up tells. */
		bpf_map_update_elem(&TALLIES, &key, &zero, BPF_NOEXIST);
		tally = bpf_map_lookup_elem(&TALLIES, &key);
		if (!tally) {
			lose(LOST_CALLS);
			return 0;
		}
	}
	tally->calls += 1;
	tally->errors += error;
	return 0;
}

/* Ids of cgroups are unique within one hierarchy only. */
static __always_inline int in_our_hierarchy(struct cgroup *cgroup)
{
	if (VIGIA_BY & BY_CGROUP_V2)
		return cgroup->root->hierarchy_id == 0;
	return (cgroup->root->subsys_mask >> bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)) & 1;
}

SEC("tp_btf/cgroup_mkdir")
int vigia_cgroup_made(__u64 *ctx)
{
	struct cgroup *child = (void *)ctx[0];
	__u64 parent, id;
	__u32 *slot, inherited;

	if (!in_our_hierarchy(child))
		return 0;
	parent = child->self.parent->cgroup->kn->id;
	slot = bpf_map_lookup_elem(&CGROUPS, &parent);
	if (!slot)
		return 0;
	id = child->kn->id;
	inherited = *slot;
	if (bpf_map_update_elem(&CGROUPS, &id, &inherited, BPF_ANY))
		lose(LOST_INHERITED);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int vigia_cgroup_gone(__u64 *ctx)
{
	struct cgroup *cgroup = (void *)ctx[0];
	__u64 id;

	if (!in_our_hierarchy(cgroup))
		return 0;
	id = cgroup->kn->id;
	bpf_map_delete_elem(&CGROUPS, &id);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int vigia_forked(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0];
	struct task_struct *child = (void *)ctx[1];
	__u32 from = parent->tgid, to = child->tgid;
	__u32 *slot, inherited;

	/* A thread. */
	if (from == to)
		return 0;
	slot = bpf_map_lookup_elem(&PROCESSES, &from);
	if (!slot)
		return 0;
	inherited = *slot;
	if (bpf_map_update_elem(&PROCESSES, &to, &inherited, BPF_ANY))
		lose(LOST_INHERITED);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int vigia_exited(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 tgid = task->tgid;

	/* Other threads of the process may live on. */
	if (task->signal->live.counter == 0)
		bpf_map_delete_elem(&PROCESSES, &tgid);
	return 0;
}
