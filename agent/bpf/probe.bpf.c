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
 * Latencies and 2-grams cost as much as counting does, so they are taken in a duty cycle: while VIGIA_CYCLE is not 0
 * and the entry hook is attached. Counting goes on unchanged meanwhile.
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
/* Whether there will be duty cycles; fixed when the probe is loaded, too. */
volatile const __u32 VIGIA_DETAIL = 0;

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

/* Buckets by the logarithm of nanoseconds, base 2; the last one holds all that is longer, some four seconds. */
#define BUCKETS 32

/* Bucket counts may wrap: user space takes differences. */
struct latency {
	__u64 sum_ns;
	__u32 buckets[BUCKETS];
};

/* By the same key as tallies. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tally_key);
	__type(value, struct latency);
} LATENCIES SEC(".maps");

struct gram_key {
	__u32 slot;
	__u16 first;
	__u16 second;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct gram_key);
	__type(value, __u64);
} GRAMS SEC(".maps");

/* The call that a task is in, and the one before. */
struct progress {
	__u64 entered_ns;
	__u32 cycle;
	__u16 current;
	__u16 started;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct progress);
} PROGRESS SEC(".maps");

struct control {
	/* Number of the duty cycle's active phase, 0 between them: what a task did in another one must not be mixed in. */
	__u32 cycle;
	/* Raised with each change of CGROUPS by user space. */
	__u32 generation;
};

/* Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} CONTROL SEC(".maps");

/* The cgroup seen last, and its slot, 0 for none. */
struct seen {
	__u64 cgroup;
	__u32 generation;
	__u32 slot;
};

/*
 * Spares most look-ups in CGROUPS, because calls come in runs of one task. Ids of cgroups are never used again, and what
 * the kernel side binds by itself is bound before it is seen, so only changes by user space make this stale.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} SEEN SEC(".maps");

/* What could not be kept, by cause. */
enum { LOST_CALLS = 0, LOST_INHERITED = 1, LOST_DETAIL = 2, LOST_CAUSES = 3 };

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

/* A task's slot, 0 for none. */
static __always_inline __u32 slot_of(struct task_struct *task, struct control *control)
{
	__u32 *slot = 0;

	if (VIGIA_BY & (BY_CGROUP_V2 | BY_CGROUP_V1)) {
		/* Read before the look-up: a change after it makes what is remembered stale. */
		__u32 zero = 0, generation = *(volatile __u32 *)&control->generation;
		struct seen *seen = bpf_map_lookup_elem(&SEEN, &zero);
		__u64 id = cgroup_of(task);

		if (!seen)
			return 0;
		if (seen->cgroup != id || seen->generation != generation) {
			slot = bpf_map_lookup_elem(&CGROUPS, &id);
			seen->cgroup = id;
			seen->generation = generation;
			seen->slot = slot ? *slot : 0;
		}
		if (seen->slot || !(VIGIA_BY & BY_PROCESS))
			return seen->slot;
	}
	if (VIGIA_BY & BY_PROCESS) {
		__u32 tgid = task->tgid;

		slot = bpf_map_lookup_elem(&PROCESSES, &tgid);
	}
	return slot ? *slot : 0;
}

static __always_inline struct control *control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&CONTROL, &zero);
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

/* Also of tasks that are in a call when a phase begins, or came from another one: those have no start. */
static __always_inline void measure(struct task_struct *task, struct tally_key *key, __u32 cycle)
{
	struct progress *progress = bpf_task_storage_get(&PROGRESS, task, 0, 0);
	struct latency *latency;
	__u64 ns, rest;
	__u32 bucket = 0;

	if (!progress || progress->cycle != cycle || !progress->started)
		return;
	progress->started = 0;
	ns = bpf_ktime_get_ns() - progress->entered_ns;

	latency = bpf_map_lookup_elem(&LATENCIES, key);
	if (!latency) {
		static const struct latency zero;

		bpf_map_update_elem(&LATENCIES, key, &zero, BPF_NOEXIST);
		latency = bpf_map_lookup_elem(&LATENCIES, key);
		if (!latency) {
			lose(LOST_DETAIL);
			return;
		}
	}
	latency->sum_ns += ns;
	/* The logarithm, by halves; there is no instruction for it. */
	rest = ns;
	if (rest >> 32)
		rest = 0xffffffff;
	if (rest >> 16) { bucket += 16; rest >>= 16; }
	if (rest >> 8) { bucket += 8; rest >>= 8; }
	if (rest >> 4) { bucket += 4; rest >>= 4; }
	if (rest >> 2) { bucket += 2; rest >>= 2; }
	if (rest >> 1) bucket += 1;
	latency->buckets[bucket & (BUCKETS - 1)] += 1;
}

SEC("tp_btf/sys_exit")
int vigia_count(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	__s64 ret = ctx[1];
	struct control *ctl = control();
	struct tally_key key;
	struct tally *tally;
	__u64 error;

	if (!ctl)
		return 0;
	key.slot = slot_of(task, ctl);
	if (!key.slot)
		return 0;
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

	if (VIGIA_DETAIL && ctl->cycle)
		measure(task, &key, ctl->cycle);
	return 0;
}

/* Attached in the active phase of the duty cycle only. */
SEC("tp_btf/sys_enter")
int vigia_enter(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct control *ctl = control();
	struct progress *progress;
	struct gram_key key;
	__u32 cycle;
	__u64 *count;

	if (!ctl)
		return 0;
	cycle = ctl->cycle;
	if (!cycle)
		return 0;
	key.slot = slot_of(task, ctl);
	if (!key.slot)
		return 0;
	progress = bpf_task_storage_get(&PROGRESS, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!progress) {
		lose(LOST_DETAIL);
		return 0;
	}
	key.first = progress->current;
	key.second = ctx[1] & 0x7fff;
#if defined(VIGIA_ARCH_x86_64)
	if (task->thread_info.status & TS_COMPAT)
		key.second |= 1 << 15;
#endif
	progress->current = key.second;
	progress->started = 1;
	if (progress->cycle == cycle) {
		count = bpf_map_lookup_elem(&GRAMS, &key);
		if (count) {
			*count += 1;
		} else {
			__u64 zero = 0;

			bpf_map_update_elem(&GRAMS, &key, &zero, BPF_NOEXIST);
			count = bpf_map_lookup_elem(&GRAMS, &key);
			if (count)
				*count += 1;
			else
				lose(LOST_DETAIL);
		}
	}
	progress->cycle = cycle;
	/* Last, so that our own work is not in it. */
	progress->entered_ns = bpf_ktime_get_ns();
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
