//! The objects of a run's Job, all in the operator's namespace. Pure.
//!
//! Training pods hold no key of the API server's and no signing key; what they may do is ask the
//! operator for their shard and hand over one result. They run as nobody, on a read-only root.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::json;
use vigia_crds::TrainingRun;

use super::identity::Identity;
use super::{RUN_UID, trace};
use crate::config::Config;
use crate::watch::{RUN_NAME, RUN_NAMESPACE};

/// Port of rank 0.
const PORT: u16 = 8444;
/// Pods of one worker that may fail for a passing reason.
const RETRIES: i32 = 4;
/// What a worker that waits for another is given after the run's time to say for whom, before the kubelet ends it. Not
/// the Job: that would delete the pods that still run, and their logs with them.
const WORDS_SECONDS: i64 = 10;
/// When the Job ends what was started after that.
pub(super) const BACKSTOP_SECONDS: i64 = 60;
/// How long a Job that ended stays, for its logs.
const KEPT_SECONDS: i32 = 3600;
/// Exit codes of the trainer that another try would repeat: wrong flags, data that make no model,
/// refused, wrong configuration.
pub(super) const FINAL_CODES: [i32; 4] = [64, 65, 77, 78];

/// Annotation of a Job: UID of the service account that its pods' tokens are of.
pub(super) const ACCOUNT_UID: &str = "vigia.dev/service-account-uid";

/// Name of a run's Job, Service and Secret: short enough for a DNS label with an index behind it.
pub(super) fn name(run: &TrainingRun) -> String {
    format!("vigia-train-{}", run.uid().unwrap_or_default())
}

fn labels(run: &TrainingRun) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "vigia-trainer".to_owned()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "vigia-operator".to_owned(),
        ),
        (RUN_NAMESPACE.to_owned(), run.namespace().unwrap_or_default()),
        (RUN_NAME.to_owned(), run.name_any()),
        (RUN_UID.to_owned(), run.uid().unwrap_or_default()),
    ])
}

/// The command that shows the logs of a run's workers, which are in the operator's namespace.
pub(super) fn logs(run: &TrainingRun, config: &Config) -> String {
    let labels = labels(run);
    let selector: Vec<String> = [RUN_NAMESPACE, RUN_NAME]
        .into_iter()
        .filter_map(|label| Some(format!("{label}={}", labels.get(label)?)))
        .collect();
    format!("kubectl logs -n {} -l {}", config.namespace, selector.join(","))
}

fn host(run: &TrainingRun, config: &Config) -> String {
    let name = name(run);
    format!("{name}-0.{name}.{}.svc", config.namespace)
}

/// Names that rank 0 may be called by.
pub(super) fn names(run: &TrainingRun, config: &Config) -> Vec<String> {
    vec![host(run, config)]
}

/// The Job.
///
/// # Errors
/// The object cannot be built: a bug.
pub(super) fn job(
    run: &TrainingRun,
    config: &Config,
    account: Option<&str>,
) -> Result<Job, serde_json::Error> {
    let (name, labels, workers) = (name(run), labels(run), run.spec.workers.max(1));
    let pod = &config.trainer_pod;
    // A node that is gone must not hold up a training that has other nodes.
    let gone = ["not-ready", "unreachable"].map(|taint| {
        json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30})
    });
    let tolerations: Vec<_> = gone
        .into_iter()
        .chain(pod.tolerations.iter().map(|t| json!(t)))
        .collect();
    let resources = pod.resources.as_ref().map_or_else(
        || json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}),
        |resources| json!(resources),
    );
    let deadline = i64::try_from(std::time::Duration::from(run.spec.timeout).as_secs()).unwrap_or(i64::MAX);
    let traced = run.status.as_ref().and_then(trace::of_job);
    // The account goes with the installation, and its tokens are no good from then on: the Job goes too.
    let owners = account.map(|uid| {
        json!([{
            "apiVersion": ServiceAccount::api_version(&()), "kind": ServiceAccount::kind(&()),
            "name": config.trainer_service_account, "uid": uid,
        }])
    });
    let environment: Vec<_> = traced
        .map(|span| json!({"name": "TRACEPARENT", "value": span.to_string()}))
        .into_iter()
        .collect();
    let container = json!({
        "name": "trainer",
        "env": environment,
        "image": config.trainer_image,
        "imagePullPolicy": pod.image_pull_policy.as_deref().unwrap_or("IfNotPresent"),
        "args": [
            format!("--operator=https://{}.{}.svc:{}", config.service, config.namespace, config.grpc_listen.port()),
            "--ca=/etc/vigia/ca/ca.crt",
            "--token=/var/run/secrets/vigia/token",
            "--rounds-tls=/etc/vigia/rounds",
            format!("--rank-zero={}:{PORT}", host(run, config)),
            format!("--listen=0.0.0.0:{PORT}"),
            format!("--workers={workers}"),
            format!("--deadline={deadline}"),
            "--checkpoints=/var/lib/vigia-trainer",
        ],
        "ports": [{"name": "rounds", "containerPort": PORT}],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "ca", "mountPath": "/etc/vigia/ca", "readOnly": true},
            {"name": "token", "mountPath": "/var/run/secrets/vigia", "readOnly": true},
            {"name": "rounds", "mountPath": "/etc/vigia/rounds", "readOnly": true},
            {"name": "checkpoints", "mountPath": "/var/lib/vigia-trainer"},
        ],
    });
    let volumes = json!([
        {"name": "ca", "configMap": {"name": "vigia-ca"}},
        {"name": "token", "projected": {"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"path": "token", "audience": vigia_proto::TOKEN_AUDIENCE, "expirationSeconds": 3600}},
        ]}},
        {"name": "rounds", "secret": {"secretName": name, "defaultMode": 0o440}},
        {"name": "checkpoints", "emptyDir": {"sizeLimit": "512Mi"}},
    ]);
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": config.namespace, "labels": labels,
            "annotations": account.map(|uid| json!({ACCOUNT_UID: uid})),
            "ownerReferences": owners,
        },
        "spec": {
            // Until what its pods mount is there: [`begun`].
            "suspend": true,
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "backoffLimitPerIndex": RETRIES,
            "activeDeadlineSeconds": deadline.saturating_add(BACKSTOP_SECONDS),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "FailJob", "onExitCodes": {"containerName": "trainer", "operator": "In", "values": FINAL_CODES}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "activeDeadlineSeconds": deadline.saturating_add(WORDS_SECONDS),
                    "serviceAccountName": config.trainer_service_account,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "subdomain": name,
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "nodeSelector": pod.node_selector,
                    "priorityClassName": pod.priority_class_name,
                    "tolerations": tolerations,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {RUN_UID: run.uid()}},
                    }],
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }))
}

/// The same Job with its pods let go; nothing where they are.
pub(super) fn begun(job: &Job) -> Option<Job> {
    let mut job = job.clone();
    let spec = job.spec.as_mut().filter(|spec| spec.suspend == Some(true))?;
    spec.suspend = Some(false);
    // Its controller writes what it sees of it meanwhile.
    job.metadata.resource_version = None;
    job.metadata.managed_fields = None;
    Some(job)
}

fn owned(run: &TrainingRun, config: &Config, job: &Job) -> ObjectMeta {
    ObjectMeta {
        name: Some(name(run)),
        namespace: Some(config.namespace.clone()),
        labels: Some(labels(run)),
        owner_references: Some(vec![OwnerReference {
            api_version: Job::api_version(&()).into_owned(),
            kind: Job::kind(&()).into_owned(),
            name: job.name_any(),
            uid: job.uid().unwrap_or_default(),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    }
}

/// The headless Service by which workers find rank 0. It goes with the Job.
///
/// # Errors
/// The object cannot be built: a bug.
pub(super) fn service(run: &TrainingRun, config: &Config, job: &Job) -> Result<Service, serde_json::Error> {
    let mut service: Service = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": {RUN_UID: run.uid()},
            "ports": [{"name": "rounds", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }))?;
    service.metadata = owned(run, config, job);
    Ok(service)
}

/// The Secret with the workers' identity. It goes with the Job.
pub(super) fn secret(run: &TrainingRun, config: &Config, job: &Job, identity: Identity) -> Secret {
    Secret {
        metadata: owned(run, config, job),
        type_: Some("Opaque".to_owned()),
        string_data: Some(BTreeMap::from([
            ("ca.crt".to_owned(), identity.ca),
            ("tls.crt".to_owned(), identity.certificate),
            ("tls.key".to_owned(), identity.key),
        ])),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use k8s_openapi::api::batch::v1::JobSpec;

    fn run() -> TrainingRun {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "r".repeat(63), "namespace": "shop", "uid": "0b1c2d3e-0000-4000-8000-000000000000"},
            "spec": {"modelRef": {"name": "m"}, "workers": 3, "timeout": "10m"},
        }))
        .expect("a TrainingRun")
    }

    #[test]
    fn no_pod_is_let_go_before_what_it_mounts_is_there_and_each_once() {
        let mut made = job(&run(), &Config::parse_from(["vigia-operator"]), None).expect("a Job");
        assert_eq!(made.spec.as_ref().and_then(|spec| spec.suspend), Some(true));
        made.metadata.resource_version = Some("7".to_owned());
        let begun_job = begun(&made).expect("it waits");
        assert_eq!(begun_job.metadata.resource_version, None);
        let spec = |job: &Job| {
            job.spec.clone().map(|spec| JobSpec {
                suspend: None,
                ..spec
            })
        };
        assert_eq!(spec(&begun_job), spec(&made), "nothing else changes");
        assert_eq!(begun(&begun_job), None);
    }

    #[test]
    fn the_job_holds_no_privilege_and_no_api_token() {
        let config = Config::parse_from(["vigia-operator"]);
        let job = job(&run(), &config, Some("uid-1")).expect("a Job");
        assert_eq!(job.annotations()[ACCOUNT_UID], "uid-1");
        let owner = &job.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()),
            ("ServiceAccount", config.trainer_service_account.as_str(), "uid-1"),
            "no worker outlives its account"
        );
        let spec = job.spec.expect("a spec");
        assert_eq!((spec.completions, spec.parallelism), (Some(3), Some(3)));
        assert_eq!(spec.active_deadline_seconds, Some(660));
        let pod = spec.template.spec.expect("a pod");
        assert_eq!(
            pod.active_deadline_seconds,
            Some(610),
            "its kubelet ends it, and keeps its logs"
        );
        assert_eq!(pod.automount_service_account_token, Some(false));
        let security = pod.containers[0].security_context.clone().expect("a context");
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert!(
            pod.containers[0]
                .args
                .iter()
                .flatten()
                .any(|a| a == "--workers=3")
        );
    }

    #[test]
    fn where_workers_run_is_for_the_cluster_s_owner_to_say() {
        let said = r#"{"imagePullPolicy": "Always", "nodeSelector": {"pool": "batch"},
            "tolerations": [{"key": "batch", "operator": "Exists"}], "resources": {"limits": {"memory": "4Gi"}}}"#;
        let config = Config::parse_from(["vigia-operator", "--trainer-pod", said]);
        let job = job(&run(), &config, None).expect("a Job");
        let pod = job.spec.expect("a spec").template.spec.expect("a pod");
        assert_eq!(
            pod.node_selector,
            Some(BTreeMap::from([("pool".to_owned(), "batch".to_owned())]))
        );
        assert_eq!(pod.tolerations.map(|all| all.len()), Some(3));
        assert_eq!(pod.containers[0].image_pull_policy.as_deref(), Some("Always"));
        let limits = pod.containers[0]
            .resources
            .clone()
            .and_then(|r| r.limits)
            .expect("limits");
        assert_eq!(limits["memory"].0, "4Gi");
        for wrong in ["", "3", r#"{"hostNetwork": true}"#] {
            assert!(
                Config::try_parse_from(["vigia-operator", "--trainer-pod", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn logs_are_looked_for_where_the_pods_are_and_by_the_labels_that_they_have() {
        let config = Config::parse_from(["vigia-operator", "--namespace", "watch"]);
        let job = job(&run(), &config, None).expect("a Job");
        let said = logs(&run(), &config);
        let selector = said.strip_prefix("kubectl logs -n watch -l ").expect(&said);
        assert_eq!(job.metadata.namespace.as_deref(), Some("watch"));
        let pods = job.spec.expect("a spec").template.metadata.expect("metadata");
        let pods = pods.labels.expect("labels");
        let pairs: Vec<_> = selector
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        assert_eq!(pairs.len(), 2, "{said}");
        assert!(
            pairs.iter().all(|(label, value)| pods[*label] == *value),
            "{said}"
        );
    }

    #[test]
    fn names_fit_where_they_go() {
        let run = run();
        // A pod's host name is the Job's name, a dash and the index.
        assert!(name(&run).len() + 3 <= 63);
        assert!(labels(&run).values().all(|value| value.len() <= 63));
    }
}
