//! Without a target nothing is attached: asked of the kernel, by the descriptors that this process holds.
//!
//! A file of its own, because other tests of the same process would hold links too.

use std::fs;

use vigia_agent::probe::{Hierarchy, Probe, ProbeConfig};

fn links() -> usize {
    fs::read_dir("/proc/self/fd")
        .expect("own descriptors can be listed")
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| {
            target.to_string_lossy().contains("bpf_link") || target.to_string_lossy().contains("bpf-link")
        })
        .count()
}

#[test]
fn the_first_target_attaches_and_the_last_detaches() {
    let hierarchy = Hierarchy::detect("/sys/fs/cgroup".as_ref()).expect("a cgroup hierarchy");
    let mut probe = Probe::load(ProbeConfig {
        cgroups: Some(hierarchy.kind),
        ..ProbeConfig::default()
    })
    .expect("the probe loads: run as root");
    assert_eq!((links(), probe.stats().expect("stats").attached), (0, 0));

    // Ids far beyond any real cgroup's.
    let one = probe.add_target(u64::MAX - 1).expect("a target");
    let attached = links();
    assert!(attached > 0);
    assert_eq!(attached, probe.stats().expect("stats").attached);
    let two = probe.add_target(u64::MAX - 2).expect("a target");
    assert_eq!(links(), attached);

    probe.remove_target(one).expect("removed");
    assert_eq!(links(), attached);
    probe.remove_target(two).expect("removed");
    assert_eq!((links(), probe.stats().expect("stats").attached), (0, 0));

    let three = probe.add_target(u64::MAX - 3).expect("a target again");
    assert_eq!(links(), attached);
    probe.remove_target(three).expect("removed");
    assert_eq!(links(), 0);
}
