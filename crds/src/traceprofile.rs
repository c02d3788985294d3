//! TraceProfile: which pods to trace, how, and by which Models they are scored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::LocalRef;

/// Which pods of this namespace to trace, and what to do with what is seen.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "TraceProfile",
    plural = "traceprofiles",
    shortname = "tp",
    category = "vigia",
    namespaced,
    status = "TraceProfileStatus",
    derive = "PartialEq",
    doc = "TraceProfile says which pods to trace and by which Models their behaviour is scored.",
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.matchedPods"),
    printcolumn(
        name = "Containers",
        type_ = "integer",
        json_path = ".status.tracedContainers"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Models", type_ = "string", json_path = ".spec.models[*].name"),
    printcolumn(
        name = "Milli-cores",
        type_ = "integer",
        json_path = ".status.overhead.milliCores",
        priority = 1
    ),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.lost", priority = 1),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = fewer_alerts_than_windows())]
#[serde(rename_all = "camelCase")]
pub struct TraceProfileSpec {
    /// Pods of this namespace, by label. An empty selector selects every pod of the namespace.
    #[schemars(schema_with = "selector_schema")]
    #[x_kube(validation = Rule::new("(!has(self.matchLabels) || self.matchLabels.all(k, k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))) && (!has(self.matchExpressions) || self.matchExpressions.all(e, e.key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')))")
        .message("podSelector has a key that no label can have: write up to 63 letters, digits, '-', '_' and '.', after a domain and '/' where there is one, for example app.kubernetes.io/name"))]
    #[x_kube(validation = Rule::new("(!has(self.matchLabels) || self.matchLabels.all(k, self.matchLabels[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))) && (!has(self.matchExpressions) || self.matchExpressions.all(e, !has(e.values) || e.values.all(v, v.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))))")
        .message("podSelector has a value that no label can have: write up to 63 letters, digits, '-', '_' and '.', the first and the last a letter or a digit"))]
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))")
        .message("matchExpressions: write operator In or NotIn with values, or Exists or DoesNotExist without"))]
    pub pod_selector: LabelSelector,

    /// Containers by name; `*` stands for all of a pod's containers.
    #[serde(default = "all_containers")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = Rule::new("size(self) > 0")
        .message("containers names none: write [\"*\"] for all of a pod's containers, or the names of some"))]
    #[x_kube(validation = Rule::new("self.all(c, c == '*' || c.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))")
        .message("containers lists container names (lower-case letters, digits and '-'), or \"*\" alone for all of them"))]
    #[x_kube(validation = Rule::new("!self.exists(c, c == '*') || size(self) == 1")
        .message("\"*\" already means every container: write containers: [\"*\"] alone, or list names without it"))]
    #[x_kube(validation = Rule::new("self.all(c, c == '*' || self.exists_one(d, d == c))")
        .message("containers names one twice: name each one once"))]
    pub containers: Vec<String>,

    /// Length of a window: system calls are counted over it, and it is scored as one. A Go
    /// duration between 1s and 5m.
    #[serde(default = "default_window")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("1s", "5m")
        .message("window must be a duration between 1s and 5m, for example 10s"))]
    pub window: Duration,

    /// What is seen of system calls, and of which.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(self.signals) || self.signals.all(s, self.signals.exists_one(t, t == s))")
        .message("signals names one twice: name each one once"))]
    #[x_kube(validation = Rule::new("!has(self.syscalls) || !has(self.syscalls.include) || self.syscalls.include.all(s, self.syscalls.include.exists_one(t, t == s))")
        .message("include names a system call or a class twice: name each one once"))]
    #[x_kube(validation = Rule::new("!has(self.syscalls) || !has(self.syscalls.exclude) || self.syscalls.exclude.all(s, self.syscalls.exclude.exists_one(t, t == s))")
        .message("exclude names a system call or a class twice: name each one once"))]
    #[x_kube(validation = Rule::new("!has(self.syscalls) || !has(self.syscalls.include) || !has(self.syscalls.exclude) || !self.syscalls.include.exists(s, s in self.syscalls.exclude)")
        .message("syscalls has a name in include and in exclude, which leaves it out: remove it from one of them"))]
    pub capture: Capture,

    /// Models, of this namespace, that score the windows. None: windows are traced and collected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(validation = Rule::new("self.all(m, self.exists_one(n, n.name == m.name))")
        .message("models names a Model twice: name each one once"))]
    pub models: Vec<LocalRef>,

    /// When a score is an alert.
    #[serde(default)]
    pub detection: Detection,

    /// Where alerts go, beside the metrics of the agents and of the operator.
    #[serde(default)]
    pub outputs: Outputs,

    /// What tracing may cost. Without it, nothing is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<TraceBudget>,
}

fn all_containers() -> Vec<String> {
    vec!["*".to_owned()]
}

fn default_window() -> Duration {
    std::time::Duration::from_secs(10).into()
}

/// A Go duration, as CEL's `duration()` reads it. The length keeps the rules' cost small; its form is asked for by
/// [`between`], in whose words the API server refuses it.
pub(crate) fn duration_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 32})
}

/// A rule that a text is a Go duration of at least and at most so much. So few digits and parts that `duration()` can
/// read it, or the API server would refuse it in words of its own; it holds 292 years.
pub(crate) fn between(least: &str, most: &str) -> kube::core::Rule {
    kube::core::Rule::new(format!(
        "self.matches('{DURATION}') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    ))
}

/// What a Go duration looks like.
const DURATION: &str = "^([0-9]{1,5}([.][0-9]+)?h|[0-9]{1,7}([.][0-9]+)?m|[0-9]{1,9}([.][0-9]+)?s|[0-9]{1,12}([.][0-9]+)?(ns|us|µs|ms)){1,8}$";

/// A rule that a pod's alert budget is less than an alert for each window of a container: with more, each window may be
/// one. What is no duration is left to [`between`]; what CEL's `getMilliseconds` answers of more than a second is not
/// agreed on (all of it, or what is beyond the seconds), so only those beyond the seconds are asked of it.
fn fewer_alerts_than_windows() -> kube::core::Rule {
    let ms =
        |of: &str| format!("(duration({of}).getSeconds() * 1000 + duration({of}).getMilliseconds() % 1000)");
    let (window, budget) = ("self.window", "self.detection.alertBudget");
    let every = format!("{budget}.every");
    kube::core::Rule::new(format!(
        "{budget}.per != 'Pod' || !{window}.matches('{DURATION}') || !{every}.matches('{DURATION}') || {budget}.count * {} < {}",
        ms(window),
        ms(&every),
    ))
    .message("detection.alertBudget allows a pod as many alerts as a container has windows in that time, or more, and nearly all of them would be alerts: write a smaller count or a longer every, for example {count: 1, per: Pod, every: 24h}")
}

/// A label selector whose keys and values are bounded, or the cost of rules on them would not be.
fn selector_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that a pod must have, with their values. At most 16.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 253},
            },
            "matchExpressions": {
                "description": "What else must hold of a pod's labels, all of it. At most 16.",
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"description": "Key of the label.", "type": "string", "maxLength": 317},
                        "operator": {"description": "In, NotIn, Exists or DoesNotExist.", "type": "string", "maxLength": 32},
                        "values": {
                            "description": "Values, for In and NotIn.",
                            "type": "array",
                            "maxItems": 32,
                            "items": {"type": "string", "maxLength": 253},
                        },
                    },
                },
            },
        },
    })
}

/// What is seen of system calls, and of which.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capture {
    /// How much is kept of a call: Counts costs the least, Full the most.
    pub mode: CaptureMode,
    /// With mode Sampled: the share of time in which latencies and sequences are kept is one in this
    /// many. Between 2 and 1000.
    #[schemars(range(min = 2, max = 1000))]
    pub sample_one_in: i32,
    /// Which system calls windows are made of.
    #[serde(skip_serializing_if = "SyscallFilter::is_default")]
    pub syscalls: SyscallFilter,
    /// What is told of containers beside system calls, as metrics. Nothing by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub signals: Vec<SignalKind>,
}

/// What is told of a container beside its system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum SignalKind {
    /// Processor time, memory, page faults, kills for want of memory, disk traffic, pressure.
    Resources,
    /// Processes and programs that begin.
    Processes,
    /// Checks of capabilities, and those that were denied.
    Capabilities,
    /// TCP connections that are begun: how many, not where to.
    Connections,
    /// Signals that its processes get.
    Signals,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            mode: CaptureMode::Counts,
            sample_one_in: 16,
            syscalls: SyscallFilter::default(),
            signals: Vec::new(),
        }
    }
}

impl Capture {
    /// Whether it says nothing but defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How much is kept of a system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum CaptureMode {
    /// Calls and errors.
    #[default]
    Counts,
    /// Calls and errors; in one part of the time also how long calls take and which follows which.
    Sampled,
    /// Calls and errors, how long calls take and which follows which.
    Full,
}

impl CaptureMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counts => "Counts",
            Self::Sampled => "Sampled",
            Self::Full => "Full",
        }
    }
}

/// Which system calls windows are made of. Others are in no window, no feature and no report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyscallFilter {
    /// Names of system calls, and classes of them: file, network, process, memory, ipc, signal,
    /// desc. Nothing here stands for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[a-z0-9_]+$'))")
        .message("include lists names of system calls such as openat (lower-case letters, digits and '_'), or classes such as network"))]
    pub include: Vec<String>,
    /// The same, for what is left out of what `include` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(s, s.matches('^[a-z0-9_]+$'))")
        .message("exclude lists names of system calls such as futex (lower-case letters, digits and '_'), or classes such as memory"))]
    pub exclude: Vec<String>,
}

impl SyscallFilter {
    /// Whether all are in.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a score becomes an alert.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Detection {
    /// How many false alarms are worth it.
    pub alert_budget: AlertBudget,
    /// An alert needs this many windows in a row above the threshold; one alone is enough where it is ten
    /// times rarer than the alert budget asks for. Between 1 and 10.
    #[schemars(range(min = 1, max = 10))]
    pub consecutive_windows: i32,
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            alert_budget: AlertBudget::default(),
            consecutive_windows: 2,
        }
    }
}

/// A rate of false alarms: `count` for each `per` in each `every`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertBudget {
    /// False alarms in each period: fewer than the windows that share the budget, or all of them would be alerts. Between
    /// 1 and 1000.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// What the budget is for.
    #[serde(default)]
    pub per: BudgetPer,
    /// The period, a Go duration between 1m and 720h.
    #[serde(default = "default_every")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("1m", "720h")
        .message("every must be a duration between 1m and 720h, for example 24h"))]
    pub every: Duration,
}

impl Default for AlertBudget {
    fn default() -> Self {
        Self {
            count: default_count(),
            per: BudgetPer::Pod,
            every: default_every(),
        }
    }
}

fn default_count() -> i32 {
    1
}

fn default_every() -> Duration {
    std::time::Duration::from_secs(86_400).into()
}

/// What an alert budget is counted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum BudgetPer {
    /// Each pod has the budget for itself; its containers share it.
    #[default]
    Pod,
    /// The pods of this profile share the budget.
    Profile,
}

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Outputs {
    /// Kubernetes Events on the pod.
    pub events: bool,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { events: true }
    }
}

/// What tracing may cost on each node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceBudget {
    /// Processor time that the probe may take for all containers of this profile on one node, as a
    /// share of a core such as 10m, a hundredth. Between 1m and 99. What the kernel itself takes for
    /// the way into a tracepoint is not in it.
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}m|[0-9]{1,2}([.][0-9]{1,3})?)$') && !self.matches('^[0.]+m?$')")
        .message("cpu must be a share of a core between 1m and 99, for example 10m, which is a hundredth"))]
    pub cpu: String,
    /// What gives way where it takes more.
    #[serde(default)]
    pub on_exceed: OnExceed,
}

/// What gives way where tracing costs more than its budget. It comes back by itself, step by step, once there is room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnExceed {
    /// Step by step: from mode Full to Sampled to Counts, and then the containers are not counted.
    #[default]
    Degrade,
    /// The containers are not counted, at once.
    Suspend,
}

/// What tracing takes at most, in steps of 1, 2 and 5: what swings around a step stays what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overhead {
    /// On all nodes together, in thousandths of a core, rounded up; no less than on one of them.
    #[serde(default)]
    pub milli_cores: i64,
    /// On the node where it is the most.
    #[serde(default)]
    pub most_milli_cores: i64,
    /// That node.
    #[serde(default)]
    pub most_on: String,
}

/// What is traced at present.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceProfileStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Running pods that the selector matches.
    #[serde(default)]
    pub matched_pods: i32,
    /// Containers that agents report as traced for this profile.
    #[serde(default)]
    pub traced_containers: i32,
    /// Nodes on which matched pods run.
    #[serde(default)]
    pub nodes: i32,
    /// Processor time that the probe takes for this profile, as measured; it is rounded so that it changes seldom.
    #[serde(default)]
    pub overhead: Overhead,
    /// System calls of this profile's containers that were not counted, since their agents started; rounded up to
    /// powers of two.
    #[serde(default)]
    pub lost: i64,
    /// Windows that would have been told as alerts, had `spec.detection.alertBudget` not been spent, on all nodes
    /// together; rounded up to powers of two. Of each node it is 0 again an hour after the last one.
    #[serde(default)]
    pub alerts_withheld: i64,
    /// `Ready`, `Reconciling`, `Stalled`, `Traced`, `WithinBudget`, `AlertsTold`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
