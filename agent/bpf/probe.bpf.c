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
 * Latencies and sequences of calls cost as much as counting does, so each target has a mode: none of them, all the time, or
 * in a duty cycle's active phases. The entry hook is attached only while some target wants it, and notes a time and
 * nothing else. Counting goes on unchanged meanwhile.
 *
 * What is found on every call is found in arrays, which the JIT compiles to an address: a hash map costs a call, a
 * hash and a comparison each time. So counters have places in small per-CPU arrays that the first target and call to
 * come keep: near what was seen last, which is at hand anyhow, else in further ones. Hash maps take what finds both
 * taken. What not every call comes to is in functions of its own: from 64 bytes of stack on, programs get one that costs
 * a dozen instructions.
 *
 * A target is a slot. Cgroups (and, for the command line, processes) point to a
 * slot; what they create points to the same one before it can make its first
 * system call, so nesting cannot hide a process.
 */
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* What identifies a task's target; fixed when the probe is loaded, so the verifier drops the others. */
enum { BY_CGROUP_V2 = 1, BY_CGROUP_V1 = 2, BY_PROCESS = 4 };
volatile const __u32 VIGIA_BY = BY_CGROUP_V2;
/* Whether there will be duty cycles; fixed when the probe is loaded, too. */
volatile const __u32 VIGIA_DETAIL = 0;
/* Whether sequences of calls are kept in them, beside latencies. */
volatile const __u32 VIGIA_SEQUENCES = 0;
/* Most elements of one target in TALLIES, so that none can fill what all share. */
volatile const __u32 VIGIA_TALLIES = 256;

struct tally_key {
	__u32 slot;
	__u32 nr;
};

struct tally {
	__u64 calls;
	__u64 errors;
};

/* What a target wants beside counts. */
enum { MODE_COUNTS = 1, MODE_SAMPLED = 2, MODE_FULL = 3 };

/* Slot to mode: the slots that are in use. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u32);
} SLOTS SEC(".maps");

/* Things that are rare beside system calls. Each is attached only while a target wants it. */
enum {
	SIGNAL_PROCESSES = 0,
	SIGNAL_PROGRAMS = 1,
	SIGNAL_CAPABILITIES = 2,
	SIGNAL_DENIALS = 3,
	SIGNAL_CONNECTIONS = 4,
	SIGNAL_SIGNALS = 5,
	SIGNAL_OOM_KILLS = 6,
	SIGNALS = 7,
};

/* What is rare of a target: what it has of the tables that all share, and signals. Made by user space. */
struct used {
	/* Calls that were not counted. */
	__u64 lost;
	__u32 tallies;
	__u32 pad;
	__u64 signals[SIGNALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct used);
} USED SEC(".maps");

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

/* Who keeps a place in an array. */
struct owner {
	/* slot and number as one word, so that it changes hands at once; 0 for nobody. */
	__u64 key;
	/* The targets' generation at which the owner was last found alive. */
	__u32 checked;
	__u32 pad;
};

/* Places for tallies. A value is as large as per-CPU maps allow, so that it is read at once. */
#define PLACES 1024
#define GROUPS 4

struct tally_place {
	struct owner owner;
	struct tally tally;
};

struct tally_places {
	struct tally_place of[PLACES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GROUPS);
	__type(key, __u32);
	__type(value, struct tally_places);
} TALLY_PLACES SEC(".maps");

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

#define LATENCY_PLACES 128

struct latency_place {
	struct owner owner;
	struct latency latency;
};

struct latency_places {
	struct latency_place of[LATENCY_PLACES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GROUPS);
	__type(key, __u32);
	__type(value, struct latency_places);
} LATENCY_PLACES_MAP SEC(".maps");

/*
 * A call and what its thread called before, as one word: a code of CODE_BITS for each, of which the last call is the
 * lowest. 0 is no call.
 */
#define CODE_BITS 10
#define SEQUENCE (((__u64)1 << (6 * CODE_BITS)) - 1)

struct gram {
	__u64 sequence;
	/* 0: the place is free. */
	__u32 slot;
	__u32 count;
};

/* A line of the cache: what one hash leads to. */
#define WAYS 4
#define GRAM_SETS 256

struct gram_places {
	struct gram of[GRAM_SETS][WAYS];
};

/*
 * There are far more sequences than calls, and other ones all the time, so their places are emptied when they have been
 * read. For that there are two halves of them: user space reads the one that is not in use.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * GROUPS);
	__type(key, __u32);
	__type(value, struct gram_places);
} GRAMS SEC(".maps");

/* Places of one CPU that one target may take in a half, so that none can fill what all share. */
#define GRAM_SHARE 1024
#define SHARES 1024

/* What is taken of a half: in each group, and by targets, of which those that meet in one place share. */
struct gram_shares {
	__u32 groups[GROUPS];
	__u16 targets[SHARES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct gram_shares);
} GRAM_SHARES SEC(".maps");

/*
 * The call that a thread is in, and the one before. By the thread's id modulo the table's size, which costs an address
 * where task storage costs two calls; threads that meet in one place lose a latency, which is counted. A place is a
 * cache line, because neighbours run on other CPUs.
 */
struct progress {
	__u64 entered_ns;
	__u32 pid;
	/* Of the entry, and of the call before: what was seen in another phase must not be mixed in. */
	__u32 phase;
	/* As in struct gram; 0 where nothing came before. */
	__u64 sequence;
	__u32 pad[10];
};

#define THREADS 8192

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, THREADS);
	__type(key, __u32);
	__type(value, struct progress);
} PROGRESS SEC(".maps");

struct control {
	/* Number of the duty cycle's active phase, 0 between them, never ALWAYS. */
	__u32 phase;
	/* Raised with each change of CGROUPS and SLOTS by user space, and with each cgroup that is removed. */
	__u32 generation;
	/* The half of GRAMS that is in use. */
	__u32 half;
	__u32 pad;
};

/* The phase of a target that is in one all the time. */
#define ALWAYS 0xffffffff

/*
 * The first is written by user space, the second by the kernel side, so that neither undoes the other's change. Sections
 * of their own, hence maps of their own; the JIT makes addresses of them.
 */
volatile struct control USERS SEC(".data.users");
volatile struct control OURS SEC(".data.ours");

/* What our own programs take: one run in so many is timed. */
#define TIMED_IN 1024
/* The exit program, where a call is only counted; the entry program; the exit program, where it is measured, too. */
enum { PROGRAM_EXIT = 0, PROGRAM_ENTER = 1, PROGRAM_MEASURE = 2, PROGRAMS = 3 };

struct cost {
	__u64 runs;
	__u64 timed_runs;
	__u64 timed_ns;
};

/* Places beside what was seen last, which cost no look-up of their own. */
#define NEAR 512

/* The cgroup seen last, by address, its slot, 0 for none, and that one's mode. */
struct seen {
	__u64 address;
	__u32 generation;
	__u32 slot;
	__u32 mode;
	__u32 pad;
	/* When a run that is timed began. */
	__u64 begun;
	struct cost costs[PROGRAMS];
	struct tally_place near[NEAR];
};

/*
 * Spares most look-ups in CGROUPS, because calls come in runs of one task. A cgroup's address is two loads away where its
 * id is four or five. It cannot be another cgroup's before its own was removed, and what the kernel side binds by itself
 * is bound before it is seen: so only removals and changes by user space make this stale.
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

/* What stands for that cgroup as long as it exists. */
static __always_inline __u64 address_of(struct task_struct *task)
{
	if (VIGIA_BY & BY_CGROUP_V2)
		return (__u64)task->cgroups->dfl_cgrp;
	return (__u64)task->cgroups->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)];
}

/* Looks for the slot of a task's cgroup, which was not the one seen last. The task may be moved meanwhile: one load of
 * where it is, so that none gets another's slot. */
static __noinline int see(struct task_struct *task, struct seen *seen, __u32 generation)
{
	__u64 id, address;
	__u32 *found, slot;

	if (VIGIA_BY & BY_CGROUP_V2) {
		struct cgroup *cgroup = task->cgroups->dfl_cgrp;

		address = (__u64)cgroup;
		id = cgroup->kn->id;
	} else {
		struct cgroup_subsys_state *css =
			task->cgroups->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)];

		address = (__u64)css;
		id = css->cgroup->kn->id;
	}
	found = bpf_map_lookup_elem(&CGROUPS, &id);
	slot = found ? *found : 0;
	found = slot ? bpf_map_lookup_elem(&SLOTS, &slot) : 0;
	seen->address = address;
	seen->generation = generation;
	/* A slot that is in use no more is none. */
	seen->slot = found ? slot : 0;
	seen->mode = found ? *found : 0;
	return 0;
}

/* A task's slot, 0 for none, and its mode. */
static __always_inline __u32 slot_of(struct task_struct *task, struct seen *seen, __u32 generation, __u32 *mode)
{
	__u32 *found;

	if (VIGIA_BY & (BY_CGROUP_V2 | BY_CGROUP_V1)) {
		if (unlikely(seen->address != address_of(task) || seen->generation != generation))
			see(task, seen, generation);
		*mode = seen->mode;
		if (seen->slot || !(VIGIA_BY & BY_PROCESS))
			return seen->slot;
	}
	if (VIGIA_BY & BY_PROCESS) {
		__u32 tgid = task->tgid, slot;

		found = bpf_map_lookup_elem(&PROCESSES, &tgid);
		if (!found)
			return 0;
		slot = *found;
		*mode = MODE_COUNTS;
		if (VIGIA_DETAIL) {
			found = bpf_map_lookup_elem(&SLOTS, &slot);
			if (found)
				*mode = *found;
		}
		return slot;
	}
	return 0;
}

static __always_inline struct seen *seen_last(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&SEEN, &zero);
}

/* Read before any look-up: a change after it makes what is remembered stale. */
static __always_inline __u32 generation_now(void)
{
	return USERS.generation + OURS.generation;
}

/* The phase that a target is in, 0 for none. */
static __always_inline __u32 phase_of(__u32 mode)
{
	if (mode == MODE_FULL)
		return ALWAYS;
	return mode == MODE_SAMPLED ? USERS.phase : 0;
}

/* Whether this run of a program is timed; asked anew at its end, because a register kept until then costs more. */
static __always_inline int timed(struct cost *runs)
{
	return unlikely(!(runs->runs & (TIMED_IN - 1)));
}

static __always_inline void begin(struct seen *seen, __u32 program)
{
	struct cost *cost = &seen->costs[program];

	cost->runs += 1;
	if (timed(cost))
		seen->begun = bpf_ktime_get_ns();
}

/* Of a run that began as one program and may have turned out to be another's. */
static __always_inline void end(struct seen *seen, __u32 began_as, __u32 program)
{
	if (timed(&seen->costs[began_as])) {
		seen->costs[program].timed_ns += bpf_ktime_get_ns() - seen->begun;
		seen->costs[program].timed_runs += 1;
	}
}

/*
 * Whether a place is free to take: nobody's, or of a target that is gone. Asked once for each change of the targets,
 * else a place that two want would cost its loser a look-up each time.
 */
static __always_inline int vacant(struct owner *owner, __u32 generation)
{
	__u32 slot;

	if (!owner->key)
		return 1;
	if (owner->checked == generation)
		return 0;
	slot = (__u32)owner->key;
	if (!bpf_map_lookup_elem(&SLOTS, &slot))
		return 1;
	owner->checked = generation;
	return 0;
}

static __always_inline __u64 word_of(struct tally_key *key)
{
	return (__u64)key->nr << 32 | key->slot;
}

/* Takes a place whose counters are zero already; user space reads the key first. */
static __always_inline void take(struct owner *owner, __u64 key, __u32 generation)
{
	owner->checked = generation;
	__sync_lock_test_and_set(&owner->key, key);
}

static __always_inline void add_to(struct tally *tally, __u32 failed)
{
	tally->calls += 1;
	tally->errors += failed;
}

/* Adds to a place's counters, if they are this key's or nobody else's. */
static __always_inline int add_at(struct tally_place *place, struct tally_key *key, __u32 failed, __u32 generation)
{
	if (place->owner.key != word_of(key)) {
		if (!vacant(&place->owner, generation))
			return 0;
		/* Of the former owner's counters none must be seen as ours. */
		*(volatile __u64 *)&place->owner.key = 0;
		place->tally.calls = 0;
		place->tally.errors = 0;
		take(&place->owner, word_of(key), generation);
	}
	add_to(&place->tally, failed);
	return 1;
}

/* Counts a call for whose counters no place was kept near by. */
static __noinline int count_elsewhere(struct tally_place *near, __u64 word, __u32 failed, __u32 generation)
{
	struct tally_key key = {.slot = word, .nr = word >> 32};
	__u32 group = key.slot & (GROUPS - 1);
	__u32 at = (key.nr + (key.slot >> 2) * 131) & (PLACES - 1);
	struct tally_places *places;
	struct tally *tally;

	if (add_at(near, &key, failed, generation))
		return 0;
	places = bpf_map_lookup_elem(&TALLY_PLACES, &group);
	if (places && add_at(&places->of[at], &key, failed, generation))
		return 0;
	tally = bpf_map_lookup_elem(&TALLIES, &key);
	if (!tally) {
		struct used *used = bpf_map_lookup_elem(&USED, &key.slot);
		struct tally zero = {};

		if (used && used->tallies < VIGIA_TALLIES) {
			/* Another CPU may have made it meanwhile: only the second look-up tells. */
			if (!bpf_map_update_elem(&TALLIES, &key, &zero, BPF_NOEXIST))
				__sync_fetch_and_add(&used->tallies, 1);
			tally = bpf_map_lookup_elem(&TALLIES, &key);
		}
		if (!tally) {
			lose(LOST_CALLS);
			if (used)
				__sync_fetch_and_add(&used->lost, 1);
			return 0;
		}
	}
	add_to(tally, failed);
	return 0;
}

/* Counts one call. */
static __always_inline void count(struct seen *seen, __u64 word, __u32 failed, __u32 generation)
{
	__u32 slot = word, nr = word >> 32;
	struct tally_place *near = &seen->near[(nr + slot * 131) & (NEAR - 1)];

	if (likely(near->owner.key == word))
		add_to(&near->tally, failed);
	else
		count_elsewhere(near, word, failed, generation);
}

static __always_inline struct latency *latency_of(struct tally_key *key, __u32 generation)
{
	__u32 group = key->slot & (GROUPS - 1);
	__u32 at = (key->nr + (key->slot >> 2) * 37) & (LATENCY_PLACES - 1);
	struct latency_places *places = bpf_map_lookup_elem(&LATENCY_PLACES_MAP, &group);
	static const struct latency zero;
	struct latency_place *place;
	struct latency *latency;

	if (places) {
		place = &places->of[at];
		if (place->owner.key == word_of(key))
			return &place->latency;
		if (vacant(&place->owner, generation)) {
			*(volatile __u64 *)&place->owner.key = 0;
			place->latency = zero;
			take(&place->owner, word_of(key), generation);
			return &place->latency;
		}
	}
	latency = bpf_map_lookup_elem(&LATENCIES, key);
	if (!latency) {
		bpf_map_update_elem(&LATENCIES, key, &zero, BPF_NOEXIST);
		latency = bpf_map_lookup_elem(&LATENCIES, key);
	}
	return latency;
}

static __always_inline __u32 known(__u32 nr)
{
	return nr < NUMBERS ? nr : UNKNOWN;
}

/*
 * The number of the system call that ends; calls of the 32-bit ABI get bit 31, as their numbers mean other calls. What
 * x32 shares with x86_64 is the same call.
 */
static __always_inline __u32 number(struct task_struct *task, struct pt_regs *regs)
{
#if defined(VIGIA_ARCH_x86_64)
	__s32 nr = regs->orig_ax;

	if (likely((__u32)nr < NUMBERS && !(task->thread_info.status & TS_COMPAT)))
		return nr;
	/* Its own restoring of registers has erased the number. */
	if (nr == -1)
		return NR_RT_SIGRETURN;
	if (task->thread_info.status & TS_COMPAT)
		return COMPAT | known(nr);
	if ((__u32)nr & X32) {
		nr &= ~X32;
		return (__u32)nr >= NUMBERS && (__u32)nr < X32_NUMBERS ? X32 | nr : known(nr);
	}
#else
	__s32 nr = regs->syscallno;

	if (nr == -1)
		return NR_RT_SIGRETURN;
	if (task->thread_info.flags & (1ul << TIF_32BIT))
		return COMPAT | known(nr);
#endif
	return known(nr);
}

/* The logarithm, base 2, by halves; there is no instruction for it. */
static __always_inline __u32 logarithm(__u64 of)
{
	__u32 log = 0, rest = of;

	if (of >> 32)
		rest = 0xffffffff;
	if (rest >> 16) { log += 16; rest >>= 16; }
	if (rest >> 8) { log += 8; rest >>= 8; }
	if (rest >> 4) { log += 4; rest >>= 4; }
	if (rest >> 2) { log += 2; rest >>= 2; }
	if (rest >> 1) log += 1;
	return log & (BUCKETS - 1);
}

/* Calls of the 32-bit ABI have codes of their own; numbers that x32 alone has, and those that are none, share one. */
static __always_inline __u64 code_of(__u32 nr)
{
	if (nr < NUMBERS)
		return nr + 1;
	if ((nr & COMPAT) && (nr & ~COMPAT) < NUMBERS - 2)
		return (nr & ~COMPAT) + NUMBERS + 2;
	return NUMBERS + 1;
}

static __always_inline void follow(__u32 slot, __u64 sequence)
{
	/* A multiplication spreads to the highest bits. */
	__u64 hash = (sequence ^ (__u64)slot << 40) * 0x9e3779b97f4a7c15ULL;
	__u32 half = USERS.half & 1, group = half * GROUPS + (hash >> 62);
	__u32 set = (hash >> 54) & (GRAM_SETS - 1);
	struct gram_places *places = bpf_map_lookup_elem(&GRAMS, &group);
	struct gram_shares *shares;
	struct gram *gram;

	if (!places)
		return;
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		gram = &places->of[set][way];
		if (gram->sequence == sequence && gram->slot == slot) {
			gram->count += 1;
			return;
		}
		if (!gram->slot)
			goto vacant;
	}
	lose(LOST_DETAIL);
	return;
vacant:
	shares = bpf_map_lookup_elem(&GRAM_SHARES, &half);
	if (!shares)
		return;
	if (shares->targets[slot & (SHARES - 1)] >= GRAM_SHARE) {
		lose(LOST_DETAIL);
		return;
	}
	shares->targets[slot & (SHARES - 1)] += 1;
	shares->groups[group & (GROUPS - 1)] += 1;
	gram->sequence = sequence;
	gram->slot = slot;
	gram->count = 1;
}

static __always_inline struct progress *progress_of(__u32 pid)
{
	__u32 at = pid & (THREADS - 1);

	return bpf_map_lookup_elem(&PROGRESS, &at);
}

/* Also of threads that are in a call when a phase begins, or were in another one: those have no start. */
static __always_inline void measure(struct task_struct *task, struct tally_key *key, __u32 phase, __u32 generation)
{
	__u32 pid = task->pid;
	struct progress *progress = progress_of(pid);
	struct latency *latency;
	__u64 ns = 0, before = 0, sequence;

	if (!progress)
		return;
	if (progress->pid == pid && progress->phase == phase) {
		before = progress->sequence;
		if (progress->entered_ns)
			ns = bpf_ktime_get_ns() - progress->entered_ns;
	} else {
		progress->pid = pid;
		progress->phase = phase;
	}
	progress->entered_ns = 0;
	sequence = (before << CODE_BITS | code_of(key->nr)) & SEQUENCE;
	progress->sequence = sequence;
	/* A thread that met ours in its place may have written it just now. */
	if (ns && !(ns >> 63)) {
		latency = latency_of(key, generation);
		if (latency) {
			latency->sum_ns += ns;
			latency->buckets[logarithm(ns)] += 1;
		} else {
			lose(LOST_DETAIL);
		}
	}
	if (VIGIA_SEQUENCES && before)
		follow(key->slot, sequence);
}

static __noinline int measure_apart(struct task_struct *task, __u64 word, __u32 phase, __u32 generation)
{
	struct tally_key key = {.slot = word, .nr = word >> 32};

	measure(task, &key, phase, generation);
	return 0;
}

SEC("tp_btf/sys_exit")
int vigia_count(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct seen *seen = seen_last();
	__u32 generation, mode = 0, phase, slot, nr;
	__u64 word;
	__s64 ret;

	if (!seen)
		return 0;
	begin(seen, PROGRAM_EXIT);
	generation = generation_now();
	slot = slot_of(task, seen, generation, &mode);
	if (!slot)
		return 0;
	nr = number(task, (void *)ctx[0]);
	ret = ctx[1];
	/* A new task leaves the call that made it, too; one call is one count. */
	if (ret == 0 && IS_CLONE(nr))
		return 0;

	word = (__u64)nr << 32 | slot;
	count(seen, word, (__u64)ret > -4096UL, generation);
	if (VIGIA_DETAIL) {
		phase = phase_of(mode);
		if (phase) {
			measure_apart(task, word, phase, generation);
			end(seen, PROGRAM_EXIT, PROGRAM_MEASURE);
			return 0;
		}
	}
	end(seen, PROGRAM_EXIT, PROGRAM_EXIT);
	return 0;
}

/* Attached only while a target is in a phase. */
SEC("tp_btf/sys_enter")
int vigia_enter(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct seen *seen = seen_last();
	struct progress *progress;
	__u32 mode = 0, phase, pid;

	(void)ctx;
	if (!seen)
		return 0;
	begin(seen, PROGRAM_ENTER);
	if (!slot_of(task, seen, generation_now(), &mode))
		return 0;
	phase = phase_of(mode);
	if (!phase)
		return 0;
	pid = task->pid;
	progress = progress_of(pid);
	if (!progress)
		return 0;
	if (progress->pid != pid || progress->phase != phase) {
		if (progress->entered_ns && progress->pid != pid && progress->phase == phase)
			lose(LOST_DETAIL);
		progress->pid = pid;
		progress->phase = phase;
		progress->sequence = 0;
	}
	end(seen, PROGRAM_ENTER, PROGRAM_ENTER);
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
	/* Its address may be another's from now on. */
	__sync_fetch_and_add(&OURS.generation, 1);
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

/* Without SEEN: an interrupt may bring a signal while that is being written. */
static __always_inline void note(struct task_struct *task, __u32 what)
{
	__u64 id = cgroup_of(task);
	__u32 *slot = bpf_map_lookup_elem(&CGROUPS, &id);
	struct used *used = slot ? bpf_map_lookup_elem(&USED, slot) : 0;

	if (used)
		__sync_fetch_and_add(&used->signals[what], 1);
}

SEC("tp_btf/sched_process_fork")
int vigia_born(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0];
	struct task_struct *child = (void *)ctx[1];

	/* Not a thread. */
	if (parent->tgid != child->tgid)
		note(parent, SIGNAL_PROCESSES);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int vigia_executed(__u64 *ctx)
{
	note((void *)ctx[0], SIGNAL_PROGRAMS);
	return 0;
}

SEC("tp_btf/cap_capable")
int vigia_capable(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	note(task, SIGNAL_CAPABILITIES);
	if ((__s32)ctx[4])
		note(task, SIGNAL_DENIALS);
	return 0;
}

/* TCP alone; a connection is begun by the task that calls connect. */
SEC("tp_btf/inet_sock_set_state")
int vigia_connecting(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	if ((__s32)ctx[2] == TCP_SYN_SENT)
		note(task, SIGNAL_CONNECTIONS);
	return 0;
}

/* Counted for who gets it. */
SEC("tp_btf/signal_generate")
int vigia_signalled(__u64 *ctx)
{
	note((void *)ctx[2], SIGNAL_SIGNALS);
	return 0;
}

/* The victim, whoever it was that needed the memory. Its cgroup may be gone before user space looks. */
SEC("tp_btf/mark_victim")
int vigia_killed(__u64 *ctx)
{
	note((void *)ctx[0], SIGNAL_OOM_KILLS);
	return 0;
}
