//! The pods of the cluster, as little of each as the operator needs.
//!
//! A cluster of 5,000 nodes may have 150,000 pods: each is cut down where it comes in, and found by
//! node, by namespace and by UID without a walk over the others.

mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use self::wire::WatchedPod;

/// A pod, cut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID in the API.
    pub uid: String,
    /// The UID that its cgroup is named after; another one for static pods.
    pub cgroup_uid: String,
    /// The node that it is bound to; empty while there is none.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that run now (those of init sidecars too), by name, with the runtime's id.
    pub containers: Vec<(String, String)>,
    /// Names of all containers that it declares.
    pub declared: Vec<String>,
    /// It ran to its end, or is being deleted.
    pub ended: bool,
}

/// Pods that are remembered after they have gone.
const DEPARTED: usize = 4096;

#[derive(Debug, Default)]
struct Index {
    departed: VecDeque<Arc<PodView>>,
    by_uid: HashMap<String, Arc<PodView>>,
    by_node: HashMap<String, BTreeSet<String>>,
    by_namespace: HashMap<String, BTreeSet<String>>,
}

impl Index {
    fn put(&mut self, pod: PodView) -> Option<Arc<PodView>> {
        let former = self.take(&pod.uid);
        if !pod.node.is_empty() {
            let on_node = self.by_node.entry(pod.node.clone()).or_default();
            on_node.insert(pod.uid.clone());
        }
        let in_namespace = self.by_namespace.entry(pod.namespace.clone()).or_default();
        in_namespace.insert(pod.uid.clone());
        self.by_uid.insert(pod.uid.clone(), Arc::new(pod));
        former
    }

    fn remember(&mut self, pod: Arc<PodView>) {
        if self.departed.len() >= DEPARTED {
            self.departed.pop_front();
        }
        self.departed.push_back(pod);
    }

    fn take(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let pod = self.by_uid.remove(uid)?;
        for (index, key) in [
            (&mut self.by_node, &pod.node),
            (&mut self.by_namespace, &pod.namespace),
        ] {
            if let Some(uids) = index.get_mut(key) {
                uids.remove(uid);
                if uids.is_empty() {
                    index.remove(key);
                }
            }
        }
        Some(pod)
    }
}

/// All pods, by UID, node and namespace.
#[derive(Debug, Default)]
pub struct Pods {
    index: RwLock<Index>,
}

impl Pods {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pod or takes a newer one in; gives the former one.
    pub fn put(&self, pod: PodView) -> Option<Arc<PodView>> {
        self.write().put(pod)
    }

    /// Forgets a pod; gives it.
    pub fn take(&self, uid: &str) -> Option<Arc<PodView>> {
        let mut index = self.write();
        let pod = index.take(uid)?;
        index.remember(pod.clone());
        Some(pod)
    }

    /// Forgets every pod that is not among `uids`; gives them.
    pub fn retain(&self, uids: &BTreeSet<String>) -> Vec<Arc<PodView>> {
        let mut index = self.write();
        let gone: Vec<String> = index
            .by_uid
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        let gone: Vec<_> = gone.iter().filter_map(|uid| index.take(uid)).collect();
        gone.iter().for_each(|pod| index.remember(pod.clone()));
        gone
    }

    /// The pod with this UID.
    pub fn by_uid(&self, uid: &str) -> Option<Arc<PodView>> {
        self.read().by_uid.get(uid).cloned()
    }

    /// The pods of a node, by UID.
    pub fn on_node(&self, node: &str) -> Vec<Arc<PodView>> {
        let index = self.read();
        let uids = index.by_node.get(node).into_iter().flatten();
        uids.filter_map(|uid| index.by_uid.get(uid).cloned()).collect()
    }

    /// Pods of a node that have gone, the latest first; not all that ever were.
    pub fn departed(&self, node: &str) -> Vec<Arc<PodView>> {
        let index = self.read();
        let gone = index.departed.iter().rev();
        gone.filter(|pod| pod.node == node).cloned().collect()
    }

    /// The pods of a namespace, by UID.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<PodView>> {
        let index = self.read();
        let uids = index.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| index.by_uid.get(uid).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> PodView {
        let pod: WatchedPod = serde_json::from_value(value).expect("a pod");
        pod.view().cloned().expect("has name and UID")
    }

    fn plain(uid: &str, node: &str) -> PodView {
        pod(
            json!({"metadata": {"namespace": "shop", "name": uid, "uid": uid}, "spec": {"nodeName": node, "containers": []}}),
        )
    }

    #[test]
    fn only_running_containers_with_an_id_count() {
        let view = pod(json!({
            "metadata": {"namespace": "shop", "name": "a", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "app"}, {"name": "late"}],
                     "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "late", "state": {"waiting": {}}, "image": "", "imageID": "", "ready": false, "restartCount": 0},
                {"name": "app", "containerID": "containerd://c1", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0}],
              "initContainerStatuses": [
                {"name": "setup", "containerID": "containerd://c2", "state": {"terminated": {"exitCode": 0}}, "image": "", "imageID": "", "ready": true, "restartCount": 0},
                {"name": "proxy", "containerID": "containerd://c3", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0}]},
        }));
        assert_eq!(
            view.containers,
            [
                ("app".to_owned(), "c1".to_owned()),
                ("proxy".to_owned(), "c3".to_owned())
            ]
        );
        assert_eq!(view.declared, ["proxy", "app", "late"]);
        assert!(!view.ended);
    }

    #[test]
    fn a_static_pod_is_known_to_cgroups_by_its_hash() {
        let view = pod(
            json!({"metadata": {"namespace": "kube-system", "name": "etcd-a", "uid": "api",
            "annotations": {"kubernetes.io/config.hash": "hash", "kubernetes.io/config.mirror": "hash"}}}),
        );
        assert_eq!((view.uid.as_str(), view.cgroup_uid.as_str()), ("api", "hash"));
        // Whoever writes pods may write a hash, and is traced all the same.
        let view = pod(
            json!({"metadata": {"namespace": "shop", "name": "hidden", "uid": "api",
            "annotations": {"kubernetes.io/config.hash": "hash"}}}),
        );
        assert_eq!(view.cgroup_uid, "api");
    }

    #[test]
    fn indexes_follow_a_pod_that_is_bound_and_goes() {
        let pods = Pods::default();
        pods.put(plain("u1", ""));
        assert_eq!(pods.on_node("n1").len(), 0);
        assert_eq!(
            pods.put(plain("u1", "n1")).map(|p| p.node.clone()),
            Some(String::new())
        );
        pods.put(plain("u2", "n1"));
        assert_eq!(pods.on_node("n1").len(), 2);
        assert_eq!(pods.in_namespace("shop").len(), 2);
        let gone = pods.retain(&BTreeSet::from(["u2".to_owned()]));
        assert_eq!(gone.len(), 1);
        assert_eq!(pods.on_node("n1").len(), 1);
        assert_eq!(pods.departed("n1").len(), 1);
        pods.take("u2");
        assert_eq!(pods.departed("n1")[0].uid, "u2");
        assert!(pods.on_node("n1").is_empty() && pods.by_uid("u2").is_none());
        assert!(pods.read().by_node.is_empty() && pods.read().by_namespace.is_empty());
    }
}
