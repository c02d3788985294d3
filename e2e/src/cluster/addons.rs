//! What is applied to a new cluster: DNS and volumes.

use super::layout::{DNS_SERVICE, NodeLayout};

/// The image of CoreDNS.
pub const COREDNS: &str = "vigia.local/coredns:1";

/// The volumes that each node's disk is divided into; `node.sh` makes their folders.
const VOLUMES: u8 = 4;

/// All manifests, for that many nodes.
pub fn manifests(nodes: &[NodeLayout]) -> String {
    let replicas = nodes.len().min(2).to_string();
    let mut text = include_str!("addons.yaml")
        .replace("DNS_SERVICE", &DNS_SERVICE.to_string())
        .replace("DNS_REPLICAS", &replicas)
        .replace("COREDNS_IMAGE", COREDNS);
    for node in nodes {
        for volume in 1..=VOLUMES {
            text += &volume_manifest(&node.name, volume);
        }
    }
    text
}

fn volume_manifest(node: &str, volume: u8) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {node}-{volume}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: node-disk
  local: {{path: /var/lib/volumes/{volume}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::Layout;

    #[test]
    fn every_placeholder_is_filled_and_every_node_has_its_volumes() {
        let layout = Layout::new("a").unwrap();
        let text = manifests(&[layout.node(1), layout.node(2)]);
        assert!(!text.contains("DNS_") && !text.contains("COREDNS_"));
        assert_eq!(
            text.matches("kind: PersistentVolume").count(),
            2 * usize::from(VOLUMES)
        );
        assert!(text.contains("values: [node-2]"));
    }
}
