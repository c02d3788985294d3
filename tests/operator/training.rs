//! From reports to a signed version: a real TokenReview, a real TLS connection, real training; only the Job
//! controller, the kubelet and the probe are stood in for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rand::RngExt;
use serde_json::json;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use vigia_crds::{Model, ModelVersion, RetrainingPolicy, RunPhase, TrainingRun};
use vigia_model::schema::Schema;
use vigia_proto::v1::node_client::NodeClient;
use vigia_proto::v1::{FetchRequest, ReportAck, ReportBatch, Sample};
use vigia_trainer::rounds::{self, OperatorConfig, Outcome, RoundsTls};

use crate::objects::{self, AGENT, SYSTEM};
use crate::world::{DEADLINE, World, eventually};

pub(crate) const NS: &str = "shop";
const TRAINER: &str = "vigia-trainer";

/// A token of a pod's account for the operator, as the kubelet projects it.
async fn token(client: &Client, account: &str, pod: &Pod) -> Result<String> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec!["vigia".to_owned()],
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(3600),
        },
        ..TokenRequest::default()
    };
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.context("a token")?.token)
}

async fn ca(client: &Client) -> Result<String> {
    eventually("the CA is published", || async {
        let map = Api::<ConfigMap>::namespaced(client.clone(), SYSTEM)
            .get_opt("vigia-ca")
            .await?;
        let ca = map.and_then(|m| m.data?.remove("ca.crt"));
        Ok(ca.ok_or_else(|| "no ConfigMap vigia-ca".to_owned()))
    })
    .await
}

/// The windows of a workload that goes about its business: rates that vary a little.
pub(crate) fn samples(n: usize) -> Vec<Sample> {
    let schema = Schema::syscalls_v1();
    let now = Timestamp::now().as_millisecond();
    let mut random = rand::rng();
    (0..n)
        .map(|i| {
            let mut features = vec![0.0; schema.width()];
            for feature in features.iter_mut().step_by(5) {
                *feature = 3.0 + random.random_range(-0.3..0.3f32);
            }
            Sample {
                namespace: NS.to_owned(),
                profile: "redis".to_owned(),
                source: (i % 3) as u64,
                window_start_unix_ms: now - 600_000 + i as i64 * 2000,
                window_ms: 2000,
                schema: schema.hash().to_string(),
                features,
                above_threshold: false,
                sequences: vec![0x0102, 0x0203, 0x0102_0304_0506],
                sequence_counts: vec![90, 3, 1 + i as u32 % 9],
                past: (0..32).map(|_| random.random_range(5.8..6.2f32)).collect(),
                capture: String::new(),
                unscored: i % 2 == 0,
            }
        })
        .collect()
}

/// Reports as the agent of n1, again until it is acknowledged.
pub(crate) async fn report(world: &World, sequence: u64, samples: &[Sample]) -> Result<ReportAck> {
    let batch = ReportBatch {
        samples: samples.to_vec(),
        ..ReportBatch::default()
    };
    tell(world, sequence, batch).await
}

/// The same of what else an agent has to say.
pub(crate) async fn tell(world: &World, sequence: u64, batch: ReportBatch) -> Result<ReportAck> {
    let (ca, token) = agent(world).await?;
    eventually("the report is acknowledged", || async {
        let batch = ReportBatch {
            instance: "a1".to_owned(),
            sequence,
            sent_unix_ms: Timestamp::now().as_millisecond(),
            ..batch.clone()
        };
        Ok(send(world, &ca, &token, batch)
            .await
            .map_err(|e| format!("{e:#}")))
    })
    .await
}

/// What the agent of n1 calls the operator with: its CA and a token.
async fn agent(world: &World) -> Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), SYSTEM);
    let token = token(&world.client, AGENT, &pods.get("agent-n1").await?).await?;
    Ok((ca(&world.client).await?, token))
}

/// Fetches an artifact as the agent of n1; says with which code the operator refuses it.
pub(crate) async fn fetch(world: &World, digest: &str) -> Result<Option<Code>> {
    let (ca, token) = agent(world).await?;
    let digest = digest.to_owned();
    let (mut client, request) = call(world, &ca, &token, FetchRequest { digest }).await?;
    Ok(client.fetch(request).await.err().map(|status| status.code()))
}

async fn send(world: &World, ca: &str, token: &str, batch: ReportBatch) -> Result<ReportAck> {
    let (mut client, request) = call(world, ca, token, batch).await?;
    Ok(client.report(request).await?.into_inner())
}

/// A connection to the operator, and what is to be asked with its token.
async fn call<T>(
    world: &World,
    ca: &str,
    token: &str,
    message: T,
) -> Result<(NodeClient<Channel>, tonic::Request<T>)> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let channel: Channel = Endpoint::from_shared(world.grpc())?
        .tls_config(tls)?
        .connect()
        .await?;
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse()?);
    Ok((NodeClient::new(channel), request))
}

/// A shop with a traced pod, a Model that promotes by itself, and a policy that trains a first version.
pub(crate) async fn shop(world: &World) -> Result<()> {
    let client = &world.client;
    objects::namespace(client, NS).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
    let account = serde_json::from_value(json!({"metadata": {"name": TRAINER}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let models: Api<Model> = Api::namespaced(client.clone(), NS);
    let model = objects::model(
        NS,
        "m",
        json!({"promotion": {"mode": "Auto"}, "rollout": {"steps": [{"nodes": "100%", "mode": "Active"}], "gates": []}}),
    )?;
    models.create(&PostParams::default(), &model).await?;
    let profiles = Api::namespaced(client.clone(), NS);
    profiles
        .create(
            &PostParams::default(),
            &objects::profile(NS, "redis", "redis", &["m"])?,
        )
        .await?;
    objects::pod(
        client,
        NS,
        "redis-0",
        "n1",
        "default",
        &[("app", "redis")],
        &["redis"],
    )
    .await?;
    let policy: RetrainingPolicy = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "RetrainingPolicy",
        "metadata": {"namespace": NS, "name": "p"},
        "spec": {"modelRef": {"name": "m"}, "coldStart": {"minWindows": 200}, "cooldown": "10s",
                 "training": {"workers": 1, "estimator": {"types": ["Deviation", "IsolationForest", "NGram", "STIDE", "ETS", "ARIMA"], "trees": 20, "sampleSize": 32}, "data": {"minWindows": 200}, "timeout": "5m"}},
    }))?;
    Api::namespaced(client.clone(), NS)
        .create(&PostParams::default(), &policy)
        .await?;
    eventually("the node's plan names the profile", || async {
        let plan = world.plan("n1").await.ok();
        let named = plan.is_some_and(|p| p.spec.profiles.iter().any(|p| p.name == "redis"));
        Ok(if named { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .await
}

async fn run(world: &World) -> Result<Option<TrainingRun>> {
    Ok(Api::namespaced(world.client.clone(), NS).get_opt("p-1").await?)
}

async fn jobs(world: &World) -> Result<Vec<Job>> {
    let api: Api<Job> = Api::namespaced(world.client.clone(), SYSTEM);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// What the Job controller and a kubelet do for the one worker of a Job: a pod, its token, its certificate.
/// The training itself is the real one.
pub(crate) async fn train(client: Client, grpc: String) -> Result<Outcome> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), SYSTEM);
    let job = eventually("there is a Job", || async {
        let all = jobs.list(&ListParams::default()).await?;
        Ok(all.items.into_iter().next().ok_or_else(|| "no Job".to_owned()))
    })
    .await?;
    let template = job.spec.as_ref().context("a spec")?.template.clone();
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let mut environment = containers.flat_map(|container| container.env.iter().flatten());
    let traceparent = environment.find(|variable| variable.name == "TRACEPARENT");
    let traceparent = traceparent.and_then(|variable| variable.value.clone());
    let labels = template
        .metadata
        .and_then(|m| m.labels)
        .context("labels of the pods")?;
    let mut labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    labels.push(("batch.kubernetes.io/job-completion-index", "0"));
    let name = format!("{}-0", job.name_any());
    let pod = objects::pod(&client, SYSTEM, &name, "n1", TRAINER, &labels, &["trainer"]).await?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("token"), token(&client, TRAINER, &pod).await?)?;
    std::fs::write(file("operator-ca.crt"), ca(&client).await?)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let secret = eventually("the workers' certificate is there", || async {
        let secret = secrets.get_opt(&job.name_any()).await?;
        Ok(secret.ok_or_else(|| "no Secret".to_owned()))
    })
    .await?;
    for (key, value) in secret.data.context("data")? {
        std::fs::write(file(&key), value.0)?;
    }
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = rounds::Config {
        rank: 0,
        workers: 1,
        operator: OperatorConfig {
            url: grpc,
            ca: file("operator-ca.crt"),
            token: file("token"),
        },
        rank_zero: format!("{}.{}.{SYSTEM}.svc:8444", name, job.name_any()),
        listen,
        tls: RoundsTls::load(folder.path()).map_err(|e| anyhow::anyhow!("{e}"))?,
        checkpoints: folder.path().to_owned(),
        deadline: DEADLINE,
        traceparent,
    };
    rounds::run(&config, &|_| async {}.boxed())
        .await
        .map_err(|e| anyhow::anyhow!("{e}"))
}

pub(crate) async fn succeeded(world: &World) -> Result<TrainingRun> {
    eventually("the run has succeeded", || async {
        let Some(run) = run(world).await? else {
            return Ok(Err("no run".to_owned()));
        };
        let status = run.status.clone().unwrap_or_default();
        ensure!(
            status.phase != Some(RunPhase::Failed),
            "the run failed: {status:?}"
        );
        Ok(if status.phase == Some(RunPhase::Succeeded) {
            Ok(run)
        } else {
            Err(format!("{status:?}"))
        })
    })
    .await
}

async fn versions(world: &World) -> Result<Vec<ModelVersion>> {
    let api: Api<ModelVersion> = Api::namespaced(world.client.clone(), NS);
    Ok(api.list(&ListParams::default()).await?.items)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enough_windows_become_a_signed_version_that_serves() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    let samples = samples(240);
    assert_eq!(report(&world, 1, &samples[..100]).await?.sequence, 1);
    assert!(run(&world).await?.is_none(), "100 windows are not 200");
    assert_eq!(report(&world, 2, &samples[100..]).await?.sequence, 2);
    // Sent again, because its answer was lost.
    assert_eq!(report(&world, 2, &samples[100..]).await?.sequence, 2);

    let outcome = train(world.client.clone(), world.grpc()).await?;
    assert!(matches!(outcome, Outcome::Submitted { .. }), "{outcome:?}");
    let run = succeeded(&world).await?;
    let status = run.status.clone().context("a status")?;
    assert_eq!((status.windows, run.spec.reason.as_str()), (240, "ColdStart"));
    let looked =
        vigia_crds::conditions::find(&status.conditions, "WindowsScored").context("WindowsScored")?;
    assert!(
        looked.status == "False" && looked.message.starts_with("120 of 240 windows were never scored"),
        "{looked:?}"
    );
    assert_eq!(status.model_version.as_deref(), Some("m-v1"));
    let made = world.version(NS, "m-v1").await?;
    let provenance = made.spec.provenance.context("provenance")?;
    assert_eq!(
        (provenance.training_run.as_str(), provenance.data_digest),
        ("p-1", status.data_digest.context("a digest")?)
    );
    eventually("m-v1 serves", || async {
        let serving = world
            .model(NS, "m")
            .await?
            .status
            .and_then(|s| s.serving)
            .map(|s| s.name);
        Ok(if serving.as_deref() == Some("m-v1") {
            Ok(())
        } else {
            Err(format!("{serving:?}"))
        })
    })
    .await?;
    for reason in ["TrainingStarted", "TrainingSucceeded"] {
        assert_eq!(world.events(NS, "p-1", reason).await?.len(), 1, "{reason}");
    }

    // It is over, and holds nothing up: its namespace can go where there is no operator any more.
    eventually("the run has no finalizer", || async {
        let held = self::run(&world).await?.map(|run| run.finalizers().to_vec());
        Ok(match held.as_deref() {
            Some([]) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;

    // Who deletes the run takes everything of it away.
    let api: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    api.delete("p-1", &DeleteParams::default()).await?;
    eventually("the run and its Job are gone", || async {
        let left = (api.get_opt("p-1").await?.is_some(), jobs(&world).await?.len());
        let files = world.operator().store.run_uids().await?.len();
        Ok(if (left, files) == ((false, 0), 0) {
            Ok(())
        } else {
            Err(format!("{left:?} {files}"))
        })
    })
    .await
}

/// Refuses every Event about a TrainingRun, as a quota or a webhook of the namespace may.
async fn refuse_events(client: &Client) -> Result<()> {
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
    "metadata": {"name": "no-events-of-runs"},
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["events"]}]},
        "validations": [{"expression": "object.regarding.kind != 'TrainingRun'", "message": "no Events"}],
    }}))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": "no-events-of-runs"},
        "spec": {"policyName": "no-events-of-runs", "validationActions": ["Deny"]}}))?;
    let params = PostParams::default();
    Api::all(client.clone()).create(&params, &policy).await?;
    Api::all(client.clone()).create(&params, &binding).await?;
    let event: Event = serde_json::from_value(json!({
        "metadata": {"generateName": "try-"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "Try", "action": "Try", "reportingController": "test", "reportingInstance": "test",
        "regarding": {"kind": "TrainingRun", "namespace": NS, "name": "p-1"}}))?;
    let api: Api<Event> = Api::namespaced(client.clone(), NS);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("such Events are refused", || async {
        Ok(match api.create(&dry, &event).await {
            Err(kube::Error::Api(status)) if status.message.contains("no Events") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_others_and_events_that_are_refused_hold_up_no_training() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    let client = &world.client;
    refuse_events(client).await?;
    // Another Model's, under the names that would be next.
    let params = PostParams::default();
    let other: Model = objects::model(NS, "other", json!({}))?;
    Api::namespaced(client.clone(), NS)
        .create(&params, &other)
        .await?;
    let version: ModelVersion = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
        "metadata": {"namespace": NS, "name": "m-v7"},
        "spec": {"modelRef": {"name": "other"}, "digest": format!("sha256:{:064}", 0)}}))?;
    Api::namespaced(client.clone(), NS)
        .create(&params, &version)
        .await?;
    let runs: Api<TrainingRun> = Api::namespaced(client.clone(), NS);
    let run: TrainingRun = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
        "metadata": {"namespace": NS, "name": "p-1"}, "spec": {"modelRef": {"name": "other"}}}))?;
    runs.create(&params, &run).await?;
    let phase = async |name: &str| -> Result<Option<RunPhase>> {
        let run = runs.get_opt(name).await?;
        Ok(run.and_then(|r| r.status).and_then(|s| s.phase))
    };
    eventually("the other Model's run has failed", || async {
        Ok(match phase("p-1").await? {
            Some(RunPhase::Failed) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;

    // One of its own that was deleted: its name never stands for other bytes.
    let versions: Api<ModelVersion> = Api::namespaced(client.clone(), NS);
    let former: ModelVersion = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
        "metadata": {"namespace": NS, "name": "m-v6"},
        "spec": {"modelRef": {"name": "m"}, "digest": format!("sha256:{:064}", 6)}}))?;
    versions.create(&params, &former).await?;
    // And one whose name ends with no number of a version, though it reads like one.
    let named: ModelVersion = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
        "metadata": {"namespace": NS, "name": "m-v4294967295"},
        "spec": {"modelRef": {"name": "m"}, "digest": format!("sha256:{:064}", 7)}}))?;
    versions.create(&params, &named).await?;
    eventually("its number is remembered", || async {
        let status = world.model(NS, "m").await?.status.unwrap_or_default();
        Ok(match status.last_sequence {
            6 => Ok(()),
            other => Err(other.to_string()),
        })
    })
    .await?;
    versions.delete("m-v6", &DeleteParams::default()).await?;

    report(&world, 1, &samples(240)).await?;
    let outcome = train(client.clone(), world.grpc()).await?;
    assert!(matches!(outcome, Outcome::Submitted { .. }), "{outcome:?}");
    eventually("the policy's run has succeeded", || async {
        Ok(match phase("p-2").await? {
            Some(RunPhase::Succeeded) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    assert_eq!(world.version(NS, "m-v7").await?.spec.model_ref.name, "other");
    let made = world.version(NS, "m-v8").await?;
    assert_eq!(made.spec.model_ref.name, "m");
    let provenance = made.spec.provenance.context("provenance")?;
    assert_eq!(provenance.training_run, "p-2");
    assert_eq!(provenance.window_ms, [2000]);
    assert!(world.events(NS, "p-2", "TrainingSucceeded").await?.is_empty());
    Ok(())
}

/// Helm's uninstall and another install while workers train: their tokens are of an account that is no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_whose_account_was_made_anew_are_started_again() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    report(&world, 1, &samples(240)).await?;
    let job = eventually("there is a Job", || async {
        Ok(jobs(&world).await?.pop().ok_or_else(|| "no Job".to_owned()))
    })
    .await?;
    let (name, params) = (job.name_any(), DeleteParams::default());
    let services: Api<Service> = Api::namespaced(world.client.clone(), SYSTEM);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), SYSTEM);
    eventually("all of it is there", || async {
        let there = (
            secrets.get_opt(&name).await?.is_some(),
            services.get_opt(&name).await?.is_some(),
        );
        Ok(if there == (true, true) {
            Ok(())
        } else {
            Err(format!("{there:?}"))
        })
    })
    .await?;
    eventually("its pods are let go", || async {
        let job = jobs(&world).await?.pop().context("a Job")?;
        // It was made without them: no kubelet looks for the Secret in vain.
        ensure!(
            job.metadata.generation == Some(1) || job.spec.as_ref().and_then(|s| s.suspend) == Some(false)
        );
        Ok(match job.metadata.generation {
            Some(2) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), SYSTEM);
    accounts.delete(TRAINER, &params).await?;
    let account = serde_json::from_value(json!({"metadata": {"name": TRAINER}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    eventually("the Job is gone", || async {
        let left = jobs(&world)
            .await?
            .into_iter()
            .filter(|j| j.uid() == job.uid())
            .count();
        Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
    })
    .await?;
    // As the garbage collector does, which no test has; until then there is no other Job.
    secrets.delete(&name, &params).await?;
    services.delete(&name, &params).await?;
    let outcome = train(world.client.clone(), world.grpc()).await?;
    assert!(matches!(outcome, Outcome::Submitted { .. }), "{outcome:?}");
    succeeded(&world).await?;
    Ok(())
}

/// Its workers would work on for nothing, with tokens that nobody may know any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_of_a_run_that_fails_are_ended() -> Result<()> {
    let mut world = World::new(&["n1"]).await?;
    shop(&world).await?;
    report(&world, 1, &samples(240)).await?;
    eventually("there is a Job", || async {
        Ok(match jobs(&world).await?.len() {
            1 => Ok(()),
            n => Err(n.to_string()),
        })
    })
    .await?;
    world.kill().await;
    world.empty_store()?;
    world.start().await?;
    eventually("the run has failed, and its Job is gone", || async {
        let status = run(&world).await?.and_then(|run| run.status).unwrap_or_default();
        let left = jobs(&world).await?.len();
        Ok(if status.phase == Some(RunPhase::Failed) && left == 0 {
            Ok(())
        } else {
            Err(format!("{left} Jobs; {status:?}"))
        })
    })
    .await
}

/// The Job controller's part is stood in for: the Job came to its deadline, and one pod ended before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_out_of_time_says_so_and_keeps_what_its_workers_said() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    report(&world, 1, &samples(240)).await?;
    let job = eventually("there is a Job", || async {
        Ok(jobs(&world).await?.pop().ok_or_else(|| "no Job".to_owned()))
    })
    .await?;
    let spec = job.spec.clone().unwrap_or_default();
    let of_pods = spec.template.spec.and_then(|pod| pod.active_deadline_seconds);
    assert!(
        of_pods < spec.active_deadline_seconds && of_pods > Some(300),
        "a kubelet ends the workers, not the Job, which would delete them: {of_pods:?}"
    );
    let name = job.name_any();
    let worker = objects::pod(&world.client, SYSTEM, "worker", "n1", TRAINER, &[], &["trainer"]).await?;
    let uid = job.labels().get("vigia.dev/run-uid").context("a label")?;
    let label = json!({"metadata": {"labels": {"vigia.dev/run-uid": uid}}});
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), SYSTEM);
    let params = PatchParams::default();
    pods.patch(&worker.name_any(), &params, &Patch::Merge(&label))
        .await?;
    let ended = json!({"status": {"phase": "Failed", "containerStatuses": [{
        "name": "trainer", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 75, "message": "gave up waiting: for rank 1"}}}]}});
    pods.patch_status(&worker.name_any(), &params, &Patch::Merge(&ended))
        .await?;
    let at = Timestamp::now().to_string();
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "DeadlineExceeded", "message": "was active longer",
               "lastTransitionTime": at, "lastProbeTime": at})
    };
    let failed = json!({"status": {"startTime": at,
        "conditions": [condition("FailureTarget"), condition("Failed")]}});
    let api: Api<Job> = Api::namespaced(world.client.clone(), SYSTEM);
    api.patch_status(&name, &params, &Patch::Merge(&failed)).await?;
    eventually("the run says so", || async {
        let status = run(&world).await?.and_then(|run| run.status).unwrap_or_default();
        let ready = vigia_crds::conditions::find(&status.conditions, "Ready").cloned();
        let said = ready.as_ref().is_some_and(|ready| {
            ready.reason == "Timeout"
                && ready.message.contains("spec.timeout of 5m")
                && ready.message.contains("gave up waiting: for rank 1")
        });
        Ok(if said && status.phase == Some(RunPhase::Failed) {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        })
    })
    .await?;
    assert_eq!(jobs(&world).await?.len(), 1, "its pods' logs go with it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_survives_an_operator_that_is_killed_again_and_again() -> Result<()> {
    let mut world = World::new(&["n1"]).await?;
    shop(&world).await?;
    report(&world, 1, &samples(240)).await?;
    let mut training = tokio::spawn(train(world.client.clone(), world.grpc()));
    let deadline = std::time::Instant::now() + DEADLINE;
    let mut kills = 0u64;
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let phase = run(&world).await?.and_then(|r| r.status).and_then(|s| s.phase);
        seen.insert(format!("{phase:?}"));
        if phase == Some(RunPhase::Succeeded) {
            break;
        }
        ensure!(phase != Some(RunPhase::Failed), "failed after {kills} kills");
        if std::time::Instant::now() > deadline {
            let trainer = (&mut training).now_or_never();
            anyhow::bail!("not done after {kills} kills: {phase:?}; the trainer: {trainer:?}");
        }
        // Long enough for some writes, not for all: a kill comes at any of them. Lives grow longer, so that a
        // busy machine, on which a trainer takes seconds to find the operator again, gets to the end too.
        let life = Duration::from_millis(rand::rng().random_range(10..300 * (kills + 1)));
        tokio::time::timeout(life, std::future::pending::<()>())
            .await
            .expect_err("pending never ends");
        world.kill().await;
        kills += 1;
        world.start().await?;
    }
    println!("{kills} kills; seen: {seen:?}");
    training.await??;
    assert!(kills > 0);
    assert_eq!(versions(&world).await?.len(), 1, "one run makes one version");
    assert_eq!(jobs(&world).await?.len(), 1);
    let runs: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    assert_eq!(runs.list(&ListParams::default()).await?.items.len(), 1);
    let windows = world
        .operator()
        .store
        .count(NS, "redis", (i64::MIN, i64::MAX), |_, _| true);
    assert_eq!(windows, 240, "what was acknowledged is there, once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_asks_for_and_cannot_be_done_is_said() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    // As a profile of mode Counts has them.
    let bare = samples(60).into_iter().map(|sample| Sample {
        sequences: vec![],
        sequence_counts: vec![],
        ..sample
    });
    report(&world, 1, &bare.collect::<Vec<_>>()).await?;
    let api: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    let wanted = [
        (
            "too-few",
            json!({"modelRef": {"name": "m"}, "data": {"minWindows": 100}}),
            "TooFewWindows",
        ),
        (
            "no-sequences",
            json!({"modelRef": {"name": "m"}, "data": {"minWindows": 50}, "estimator": {"types": ["Deviation", "NGram"]}}),
            "TooFewSequences",
        ),
        ("orphan", json!({"modelRef": {"name": "none"}}), "ModelNotFound"),
    ];
    for (name, spec, reason) in wanted {
        let run: TrainingRun = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"namespace": NS, "name": name}, "spec": spec}))?;
        api.create(&PostParams::default(), &run).await?;
        eventually(name, || async {
            let status = api.get(name).await?.status.unwrap_or_default();
            let ready = vigia_crds::conditions::find(&status.conditions, "Ready").cloned();
            let said = ready
                .as_ref()
                .is_some_and(|c| c.reason == reason && c.status == "False");
            Ok(if said && status.phase == Some(RunPhase::Failed) {
                Ok(())
            } else {
                Err(format!("{ready:?}"))
            })
        })
        .await?;
        assert_eq!(world.events(NS, name, "TrainingFailed").await?.len(), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_five_minutes_off_and_a_stranger_s_token() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world).await?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), SYSTEM);
    let agent = pods.get("agent-n1").await?;
    let ca = ca(&world.client).await?;
    let late = 300_000;
    let now = Timestamp::now().as_millisecond();
    let mut sample = samples(1);
    sample[0].window_start_unix_ms = now + late - 2000;
    let good = token(&world.client, AGENT, &agent).await?;
    let batch = ReportBatch {
        instance: "a1".to_owned(),
        sequence: 1,
        sent_unix_ms: now + late,
        samples: sample,
        ..ReportBatch::default()
    };
    eventually("the report is acknowledged", || async {
        Ok(send(&world, &ca, &good, batch.clone())
            .await
            .map_err(|e| format!("{e:#}")))
    })
    .await?;
    let store = &world.operator().store;
    let now = Timestamp::now().as_millisecond();
    let mut starts = vec![];
    store
        .each_row(NS, "redis", (i64::MIN, i64::MAX), |row| {
            starts.push(row.start_ms);
            i64::MIN
        })
        .await?;
    assert!(
        starts.len() == 1 && (now - starts[0]).abs() < 30_000,
        "{starts:?} at {now}"
    );

    // Another account of the same namespace, and a token for another audience.
    let other = objects::pod(&world.client, SYSTEM, "other", "n1", "default", &[], &["c"]).await?;
    let stranger = token(&world.client, "default", &other).await?;
    for bad in [stranger.as_str(), "nonsense"] {
        let error = send(&world, &ca, bad, batch.clone())
            .await
            .expect_err("a stranger may not report");
        assert!(
            format!("{error:#}").contains("authentication credentials"),
            "{error:#}"
        );
    }
    Ok(())
}
