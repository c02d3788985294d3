/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The few kernel types that the probe reads, each with only the fields that it
 * reads. `preserve_access_index` makes the loader look up every field's real
 * offset in the running kernel's BTF (CO-RE), so no vmlinux.h dump is needed
 * and the same object loads on every kernel that has BTF.
 */
#ifndef VIGIA_KERNEL_H
#define VIGIA_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };

/* The value is relocated: it differs with the kernel's configuration. */
enum cgroup_subsys_id { memory_cgrp_id = 4 };

#define TCP_SYN_SENT 2

#define CORE __attribute__((preserve_access_index))

struct kernfs_node {
	__u64 id;
} CORE;

struct cgroup;

struct cgroup_root {
	unsigned int subsys_mask;
	int hierarchy_id;
} CORE;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} CORE;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
} CORE;

struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
} CORE;

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} CORE;

struct thread_info {
	unsigned long flags;
	__u32 status;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	struct css_set *cgroups;
	struct signal_struct *signal;
} CORE;

/* Our mark of calls by the 32-bit ABI. */
#define COMPAT (1u << 31)
/* More than any table has. */
#define NUMBERS 512
/* Stands for all that no table has: whoever invents numbers must not fill ours. Fits in a pair with its marks. */
#define UNKNOWN 0x3fffu

/* User registers, as far as they hold the number of the system call. */
#if defined(VIGIA_ARCH_x86_64)

struct pt_regs {
	unsigned long orig_ax;
} CORE;

/* Set in thread_info.status while a 32-bit system call runs. */
#define TS_COMPAT 0x0002
#define NR_RT_SIGRETURN 15
/* The kernel's own mark of calls by x32, whose own numbers come after all that it shares with x86_64. */
#define X32 (1u << 30)
#define X32_NUMBERS 548
#define IS_CLONE(nr) \
	((nr) == 56 || (nr) == 57 || (nr) == 58 || (nr) == 435 || \
	 (nr) == (COMPAT | 2) || (nr) == (COMPAT | 120) || (nr) == (COMPAT | 190) || (nr) == (COMPAT | 435))

#elif defined(VIGIA_ARCH_aarch64)

struct user_pt_regs {
	__u64 regs[31];
} CORE;

struct pt_regs {
	__s32 syscallno;
} CORE;

/* Bit of thread_info.flags of a 32-bit process. Its calls are marked, and have no name: their table is not ours. */
#define TIF_32BIT 22
#define NR_RT_SIGRETURN 139
#define IS_CLONE(nr) \
	((nr) == 220 || (nr) == 435 || \
	 (nr) == (COMPAT | 2) || (nr) == (COMPAT | 120) || (nr) == (COMPAT | 190) || (nr) == (COMPAT | 435))

#else
#error "the probe knows the system call registers of x86_64 and aarch64 only"
#endif

#endif
