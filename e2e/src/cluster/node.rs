//! A node: its settings, its start, and what can befall it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layout::{CONTROL_PLANE, DNS_SERVICE, Layout, NETWORK, NodeLayout, POD_CIDR};
use super::space::Space;
use crate::parts::Parts;
use crate::pki::{Authority, ServerNames};

/// The image of every pod's sandbox container.
pub const PAUSE: &str = "vigia.local/pause:1";

/// Writes a node's certificates and settings.
pub fn write_files(layout: &Layout, node: &NodeLayout, parts: &Parts, authority: &Authority) -> Result<()> {
    fs::create_dir_all(node.dir.join("cni"))?;
    fs::create_dir_all(node.dir.join("images-seen"))?;
    let server = format!("https://{CONTROL_PLANE}:6443");
    authority.client(
        &node.name,
        &format!("system:node:{}", node.name),
        Some("system:nodes"),
        &server,
    )?;
    authority.server(
        &format!("{}-kubelet", node.name),
        &ServerNames {
            dns: &[&node.name],
            addresses: &[node.address()],
        },
    )?;
    for (file, text) in [
        ("containerd.toml", containerd(node, &parts.folder_of("ptp")?)),
        ("kubelet.yaml", format!("{:#}\n", kubelet(layout, node))),
        ("kube-proxy.yaml", format!("{:#}\n", kube_proxy(layout, node))),
        ("cni/10-vigia.conflist", format!("{:#}\n", cni(node))),
        // Nothing answers outside the cluster.
        ("resolv.conf", "nameserver 127.0.0.1\n".to_owned()),
    ] {
        fs::write(node.dir.join(file), text).with_context(|| format!("cannot write {}", node.path(file)))?;
    }
    Ok(())
}

/// Gives the node power: its network, then its process tree.
pub fn start(layout: &Layout, space: &Space, node: &NodeLayout, parts: &Parts) -> Result<()> {
    let address = node.address().to_string();
    space.sh(
        r#"bash "$@""#,
        &[
            &layout.path("node-net.sh"),
            &node.name,
            &address,
            &CONTROL_PLANE.to_string(),
            &node.pod_cidr(),
        ],
    )?;
    let path = ["containerd", "kubelet", "init"]
        .iter()
        .map(|program| parts.folder_of(program))
        .collect::<Result<Vec<_>>>()?
        .join(":");
    let command = [
        "env".to_owned(),
        format!("PATH={path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        format!("NODE_ADDRESS={address}"),
        "unshare".into(),
        "--mount".into(),
        "--pid".into(),
        "--uts".into(),
        "--fork".into(),
        "--kill-child".into(),
        "--".into(),
        "bash".into(),
        layout.path("node.sh"),
        layout.dir().display().to_string(),
        node.name.clone(),
        node.cgroup.clone(),
    ];
    space.start_daemon(&node.name, Some(&node.name), &command)?;
    // Until its process 1 has said its number, the node would pass for one without power.
    space
        .sh(
            r#"for _ in {1..500}; do [[ ! -e $1 ]] || exit 0; sleep 0.02; done; tail -n 5 "$2" >&2; exit 1"#,
            &[
                &init_file(layout, node),
                &layout.log(&node.name).display().to_string(),
            ],
        )
        .map(drop)
}

/// Holds the process id of the node's process 1, as the cluster's processes see it, while the node has power.
fn init_file(layout: &Layout, node: &NodeLayout) -> String {
    layout.path(&format!("run/{}.init", node.name))
}

/// Cuts the node's power: every process of it is killed at once, its network is gone, its disk stays.
pub fn power_off(layout: &Layout, space: &Space, node: &NodeLayout) -> Result<()> {
    space.stop_daemon(&node.name)?;
    // The keeper and `unshare` are gone; the node's process 1 goes when its last pod's process has.
    space.sh(
        r#"file=$1; node=$2
           [[ ! -e $file ]] || { kill -KILL "$(<"$file")" 2>/dev/null || true
             while kill -0 "$(<"$file")" 2>/dev/null; do sleep 0.02; done; rm -f "$file"; }
           ip netns delete "$node" 2>/dev/null || true
           ip -n control-plane link delete "$node" 2>/dev/null || true"#,
        &[&init_file(layout, node), &node.name],
    )?;
    Ok(())
}

/// Whether the node has power.
pub fn has_power(layout: &Layout, space: &Space, node: &NodeLayout) -> Result<bool> {
    let file = init_file(layout, node);
    let answer = space.sh(
        r#"[[ -e $1 ]] && kill -0 "$(<"$1")" 2>/dev/null && echo on || echo off"#,
        &[&file],
    )?;
    Ok(answer.trim() == "on")
}

/// Takes the node's cable out, or puts it back.
pub fn set_link(space: &Space, node: &NodeLayout, up: bool) -> Result<()> {
    space
        .sh(
            r#"ip -n "$1" link set "$2" "$3""#,
            &[NETWORK, &node.name, if up { "up" } else { "down" }],
        )
        .map(drop)
}

fn containerd(node: &NodeLayout, cni: &str) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "{socket}"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{cni}"]
conf_dir = "{cni_settings}"

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "runc"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        socket = node.containerd(),
        cni_settings = node.path("cni"),
    )
}

fn kubelet(layout: &Layout, node: &NodeLayout) -> Value {
    let pki = layout.path("pki");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{pki}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{pki}/{}-kubelet.crt", node.name),
        "tlsPrivateKeyFile": format!("{pki}/{}-kubelet.key", node.name),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        // Tolerates kernel settings that a container of a build machine may not change.
        "featureGates": {"KubeletInUserNamespace": true},
        "containerRuntimeEndpoint": format!("unix://{}", node.containerd()),
        "clusterDNS": [DNS_SERVICE.to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": node.path("resolv.conf"),
        // The disk is the whole machine's, so its being full is not this node's to mend.
        "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "nodeLeaseDurationSeconds": 16,
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn kube_proxy(layout: &Layout, node: &NodeLayout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": POD_CIDR,
        "clientConnection": {"kubeconfig": layout.path("pki/kube-proxy.kubeconfig")},
        // These settings are the machine's, and it has its own reasons for them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

fn cni(node: &NodeLayout) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "vigia",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": node.pod_cidr()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}
