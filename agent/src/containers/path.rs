//! Folder names as kubelets and runtimes make them, with either cgroup driver.
//!
//! | driver | pod | container |
//! | --- | --- | --- |
//! | cgroupfs | `kubepods/<qos>/pod<uid>` | `<id>` |
//! | systemd | `kubepods-<qos>-pod<uid with _>.slice` | `cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope` |
//!
//! Sources: kubelet's `cm.CgroupName` (`pkg/kubelet/cm/cgroup_manager_linux.go`) and the runtimes' scope prefixes.

/// The pod UID that a folder is named after, in its usual form: lower case, with dashes where it has them.
///
/// Pods from the API server have a UUID; static pods, the hash of their file: 32 hexadecimal digits.
pub fn pod_uid(folder: &str) -> Option<String> {
    let name = folder.strip_suffix(".slice").unwrap_or(folder);
    // With the systemd driver the name repeats its ancestors': kubepods-burstable-pod<uid>.
    let at = name.rfind("pod")?;
    if at > 0 && !name[..at].ends_with('-') {
        return None;
    }
    let uid = name[at + 3..].replace('_', "-");
    let hex = uid.bytes().filter(|byte| *byte != b'-').collect::<Vec<_>>();
    let shaped = hex.len() == 32 && hex.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let dashed = uid.len() == 32 || is_uuid(&uid);
    (shaped && dashed).then_some(uid)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-')
}

/// The container id that a folder is named after.
///
/// conmon's own scope, which CRI-O puts beside its container's, is none.
pub fn container_id(folder: &str) -> Option<&str> {
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    let id = match name.rsplit_once('-') {
        Some((prefix, _)) if prefix.ends_with("conmon") => return None,
        Some((_, id)) => id,
        None => name,
    };
    (id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

/// Whether pods may be somewhere below a folder that is neither a pod's nor a container's.
pub fn may_hold_pods(folder: &str) -> bool {
    !folder.ends_with(".scope") && !folder.ends_with(".service") && container_id(folder).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0f3c2b1a-90ab-4cde-8f01-23456789abcd";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn both_drivers_name_pods() {
        let slashed = UID.replace('-', "_");
        for folder in [
            format!("pod{UID}"),
            format!("kubepods-pod{slashed}.slice"),
            format!("kubepods-besteffort-pod{slashed}.slice"),
            format!("kubelet-kubepods-burstable-pod{slashed}.slice"),
        ] {
            assert_eq!(pod_uid(&folder).as_deref(), Some(UID), "{folder}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(pod_uid(&format!("pod{hash}")).as_deref(), Some(hash));
    }

    #[test]
    fn what_only_looks_like_a_pod_is_none() {
        for folder in [
            "kubepods",
            "kubepods.slice",
            "kubepods-burstable.slice",
            "pods",
            "pod",
            "podman",
            "xpod",
            "-",
        ] {
            assert_eq!(pod_uid(folder), None, "{folder}");
        }
        assert_eq!(pod_uid(&format!("x{UID}")), None);
        assert_eq!(pod_uid(&format!("mypod{UID}")), None);
        assert_eq!(pod_uid(&format!("pod{}", UID.to_uppercase())), None);
        assert_eq!(pod_uid(&format!("pod{}", UID.replacen('-', "0", 1))), None);
    }

    #[test]
    fn runtimes_name_containers() {
        for folder in [
            id(),
            format!("cri-containerd-{}.scope", id()),
            format!("crio-{}.scope", id()),
            format!("docker-{}.scope", id()),
            format!("crio-{}", id()),
        ] {
            assert_eq!(container_id(&folder), Some(id().as_str()), "{folder}");
        }
        assert_eq!(container_id(&format!("crio-conmon-{}.scope", id())), None);
        assert_eq!(container_id(&id()[1..]), None);
        assert_eq!(container_id("init.scope"), None);
    }

    proptest! {
        #[test]
        fn any_uid_survives_both_drivers(uid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                                         prefix in "([a-z]{1,8}-){0,3}") {
            let systemd = format!("{prefix}pod{}.slice", uid.replace('-', "_"));
            prop_assert_eq!(pod_uid(&systemd), Some(uid.clone()));
            prop_assert_eq!(pod_uid(&format!("pod{uid}")), Some(uid));
        }

        #[test]
        fn any_id_survives_any_runtime(id in "[0-9a-f]{64}", prefix in "([a-bd-z]{1,8}-){0,2}") {
            let scope = format!("{prefix}{id}.scope");
            prop_assert_eq!(container_id(&scope), Some(id.as_str()));
        }

        #[test]
        fn nothing_panics(folder in "\\PC{0,100}") {
            let _ = (pod_uid(&folder), container_id(&folder), may_hold_pods(&folder));
        }
    }
}
