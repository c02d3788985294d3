//! The agent's process: one loop that turns the engine, and tasks for whatever waits.
//!
//! Everything runs on one thread: a node's work is a few milliseconds in ten seconds, and a second thread would cost
//! memory. What is slow (the API server, the operator, the disk's sync) is never waited for by the loop's turn, apart
//! from the small files of [`State`].

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use vigia_crds::NodePlanStatus;
use vigia_model::budget::Told;

use super::cluster::{self, Seen, Statuses};
use super::config::Config;
use super::desired::Desired;
use super::engine::{Engine, EngineConfig, ProbeHealth, Tick};
use super::http::{self, Health};
use super::metrics::Metrics;
use super::models::cache::Cache;
use super::models::load::{Loaded, Pinned};
use super::models::shelf::{Refusal, Step, VersionKey};
use super::obtain::{Fetcher, Obtained};
use super::report::client::Operator;
use super::report::{Findings, Limits, Outbox};
use super::score::Scorer;
use super::state::{LastPlan, LastSpent, State};
use super::status::{self, View};
use super::told;
use super::trace::Trace;
use super::withheld::{LastWithheld, Withheld};
use crate::window::Now;

/// How long the last reports may take when the agent is told to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often artifacts that are kept beside those of the plan are looked through.
const SWEEP: Duration = Duration::from_secs(300);

/// Why the agent cannot start. Once it runs, nothing ends it but a signal.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder.
    #[error("cannot use the state folder: {0}")]
    State(#[source] io::Error),
    /// Its cache.
    #[error(transparent)]
    Cache(#[from] super::models::cache::CacheError),
    /// Its pinned keys.
    #[error("cannot read the pinned keys: {0}")]
    Keys(String),
    /// Its port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Its way to the API server.
    #[error("no way to the API server is configured: {0}")]
    Cluster(String),
    /// Signals.
    #[error("cannot wait for signals: {0}")]
    Signal(#[source] io::Error),
}

/// Runs the agent until it is told to end.
///
/// # Errors
///
/// When it cannot start.
pub async fn run(config: Config) -> Result<(), StartError> {
    let client = client().await?;
    let agent = Agent::start(config, client).await?;
    agent.run().await
}

async fn client() -> Result<kube::Client, StartError> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| StartError::Cluster(error.to_string()))?;
    kube::Client::try_from(config).map_err(|error| StartError::Cluster(error.to_string()))
}

struct Agent {
    engine: Engine,
    fetcher: Fetcher,
    state: State,
    cache: Arc<Cache>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    clock: Instant,
    plans: mpsc::Receiver<Option<Seen>>,
    obtained: mpsc::Receiver<Obtained>,
    statuses: watch::Sender<Statuses>,
    status: NodePlanStatus,
    withheld: Withheld,
    trace: Trace,
    /// The plan that is followed. Its generation alone would not tell a plan that was deleted and made anew.
    followed: Option<LastPlan>,
    /// The API server has been heard since the start.
    heard: bool,
    /// Digests of the versions of the plan.
    listed: BTreeSet<String>,
    /// When old artifacts are looked for next.
    sweep_at: Duration,
}

impl Agent {
    async fn start(config: Config, client: kube::Client) -> Result<Self, StartError> {
        let state = State::open(&config.state_dir).map_err(StartError::State)?;
        let cache = Arc::new(Cache::open(&state.models())?);
        let pinned = Pinned::read(config.pinned_keys.as_deref()).map_err(StartError::Keys)?;
        let secret = state.secret().map_err(StartError::State)?;
        let random = || getrandom::u64().map_err(|error| StartError::State(io::Error::other(error)));
        let (seed, instance) = (random()?, format!("{:016x}{:016x}", random()?, random()?));
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Listen {
                address: config.listen,
                source,
            })?;

        let engine_config = EngineConfig {
            cgroup_root: config.cgroup_root.clone(),
            tallies: config.tallies,
        };
        let mut scorer = Scorer::new(secret, seed);
        if let Some(last) = state.spent() {
            // A clock that was set back brings nothing back.
            let hours = wall_ms().saturating_sub(last.at_ms) as f64 / 3.6e6;
            scorer.restore(last.spent, hours, Duration::ZERO);
        }
        let mut withheld = Withheld::default();
        if let Some(last) = state.withheld() {
            let ago = Duration::from_millis(wall_ms().saturating_sub(last.at_ms));
            withheld.restore(last.profiles, ago, Duration::ZERO);
        }
        let engine = Engine::new(engine_config, state.serving(), scorer);
        let operator = Operator::new(config.operator());
        let (done, obtained) = mpsc::channel(16);
        let (seen, plans) = mpsc::channel(4);
        let (statuses, wanted) = watch::channel(Statuses::default());
        let metrics = Arc::new(Metrics::default());
        let health = Arc::new(Health::default());
        let outbox = Arc::new(Outbox::new(
            instance,
            Limits::default(),
            config.report_interval(),
            state.clone(),
        ));

        tokio::spawn(http::serve(listener, metrics.clone(), health.clone()));
        tokio::spawn(cluster::watch_plan(
            client.clone(),
            config.node_name.clone(),
            seen,
        ));
        tokio::spawn(cluster::write_status(client, config.node_name.clone(), wanted));
        tokio::spawn(outbox.clone().deliver(operator.clone(), metrics.clone()));

        let fetcher = Fetcher::new(cache.clone(), pinned, operator, done);
        let mut agent = Self {
            engine,
            fetcher,
            state,
            cache,
            outbox,
            metrics,
            health,
            clock: Instant::now(),
            plans,
            obtained,
            statuses,
            status: NodePlanStatus::default(),
            withheld,
            trace: Trace::default(),
            followed: None,
            heard: false,
            listed: BTreeSet::new(),
            sweep_at: SWEEP,
        };
        if let Some(plan) = agent.state.plan() {
            tracing::info!(
                generation = plan.generation,
                "going on with the last plan until the API server is heard"
            );
            agent.follow(&plan, true);
        }
        Ok(agent)
    }

    async fn run(mut self) -> Result<(), StartError> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(StartError::Signal)?;
        loop {
            self.turn();
            let wait = self.engine.wake_at().saturating_sub(self.clock.elapsed());
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
                Some((key, result)) = self.obtained.recv() => {
                    self.take(&key, result);
                    self.keep_serving();
                }
                Some(seen) = self.plans.recv() => self.see(seen),
                () = tokio::time::sleep(wait) => {}
            }
        }
        tracing::info!("ending: the last windows are closed and told");
        let last = self.engine.end(self.now());
        self.tell(last);
        // Whoever comes after knows nothing of them.
        self.tell_unsaid(u64::MAX);
        self.keep_spent();
        self.keep_withheld(true);
        self.outbox.finish(FAREWELL).await;
        Ok(())
    }

    fn now(&self) -> Now {
        Now {
            mono: self.clock.elapsed(),
            wall_ms: wall_ms(),
        }
    }

    /// One turn of the loop: whatever is due, and what became of it.
    fn turn(&mut self) {
        let start = Instant::now();
        let tick = self.engine.tick(self.now());
        if tick.windows > 0 {
            self.metrics.verdict.observe(start.elapsed().as_secs_f64());
        }
        self.tell(tick);
        self.tell_unsaid(wall_ms());
        self.tell_trace();
        if self.clock.elapsed() >= self.sweep_at {
            self.sweep();
        }
        self.publish();
        self.health.turned();
    }

    fn tell(&mut self, tick: Tick) {
        for alert in &tick.findings.alerts {
            tracing::info!(
                namespace = alert.namespace,
                pod = alert.pod,
                container = alert.container,
                model = alert.model,
                score = alert.score,
                estimator = alert.estimator,
                class = told::of_class(alert),
                sequences = told::in_short(&alert.sequences),
                drivers = alert
                    .drivers
                    .iter()
                    .map(|driver| driver.syscall.as_str())
                    .collect::<Vec<_>>()
                    .join(","),
                "alert"
            );
        }
        // No Event has these: what drove them is said in full.
        for aside in tick.scored.iter().filter_map(|one| one.aside.as_deref()) {
            let verdict = &aside.verdict;
            tracing::info!(
                namespace = verdict.namespace,
                profile = verdict.profile,
                pod = verdict.pod,
                container = verdict.container,
                model = verdict.model,
                window_start = %told::time(verdict.window_start_unix_ms),
                score = verdict.score,
                estimator = verdict.estimator,
                class = told::of_class(verdict),
                sequences = told::in_short(&verdict.sequences),
                drivers = told::rates(&verdict.drivers),
                unsaid_before = aside.unsaid,
                "no alert: the alert budget is spent"
            );
        }
        self.withheld.turn(&tick.scored, self.clock.elapsed());
        self.keep_withheld(false);
        // Rare, by what it keeps: an alert that was begun must not be forgotten by a crash.
        if tick.scored.iter().any(|one| one.told == Told::Begins) {
            self.keep_spent();
        }
        self.metrics.windows.inc_by(tick.windows as u64);
        self.metrics.scored(&tick.scored, tick.changed);
        self.metrics
            .containers
            .closed(&tick.closed, self.engine.desired());
        self.metrics.containers.measured(tick.signals);
        self.outbox.push(tick.findings, self.engine.stats().lost_calls);
    }

    /// The end of what an alert budget held back, where not all of it had a line of its own.
    fn tell_unsaid(&mut self, now_ms: u64) {
        let time = |ms: u64| told::time(i64::try_from(ms).unwrap_or(i64::MAX));
        for one in self.engine.unsaid(now_ms) {
            let burst = one.burst;
            tracing::info!(
                namespace = one.profile.namespace,
                profile = one.profile.name,
                pod = one.pod,
                container = one.container,
                model = one.model.name,
                estimator = burst.estimator.api_name(),
                first_window_start = %time(burst.first_ms),
                last_window_start = %time(burst.last_ms),
                windows = burst.windows,
                unsaid = burst.unsaid,
                "no more, of what was no alert because the alert budget is spent"
            );
        }
    }

    /// Tells of versions that have come to do what the plan says.
    fn tell_trace(&mut self) {
        let (shelf, models) = (self.engine.shelf(), &self.engine.desired().models);
        let versions = self
            .trace
            .turn(models, |name, version| shelf.state(name, version), wall_us());
        if !versions.is_empty() {
            let findings = Findings {
                versions,
                ..Findings::default()
            };
            self.outbox.push(findings, self.engine.stats().lost_calls);
        }
    }

    fn see(&mut self, seen: Option<Seen>) {
        let (plan, observed) = match seen {
            Some(seen) => (
                LastPlan {
                    generation: seen.generation,
                    spec: seen.spec,
                },
                Some(seen.status),
            ),
            // No plan: nothing to do. It is kept too, so that a restart does not bring the last one back.
            None => (
                LastPlan {
                    generation: 0,
                    spec: Default::default(),
                },
                None,
            ),
        };
        if let Some(observed) = observed.as_ref().filter(|_| !self.heard) {
            // A former life's: the times of what has not changed go on.
            self.heard = true;
            self.status = observed.clone();
        }
        self.statuses.send_if_modified(|statuses| {
            let next = Statuses {
                wanted: observed
                    .is_some()
                    .then(|| statuses.wanted.clone().unwrap_or_default()),
                observed: observed.clone().unwrap_or_default(),
            };
            let changed = *statuses != next;
            *statuses = next;
            changed
        });
        if self.followed.as_ref() != Some(&plan) {
            if let Err(error) = self.state.keep_plan(&plan) {
                tracing::warn!(%error, "the plan cannot be kept for a restart");
            }
            self.follow(&plan, false);
        }
    }

    /// Carries out a plan, or goes on with one that `is_known` from a former life.
    fn follow(&mut self, plan: &LastPlan, is_known: bool) {
        let desired = Desired::parse(&plan.spec, plan.generation);
        for problem in &desired.problems {
            tracing::error!(problem, "a part of the plan is left out");
        }
        tracing::info!(
            generation = plan.generation,
            containers = desired.targets.len(),
            models = desired.models.len(),
            "plan"
        );
        if is_known {
            self.engine
                .recall(&desired, self.state.plan_age(SystemTime::now()));
        }
        let models = desired.models.clone();
        self.trace.plan(&models, is_known, wall_us());
        let pods: BTreeSet<(&str, &str)> = desired
            .targets
            .values()
            .flat_map(|target| {
                target
                    .profiles
                    .iter()
                    .map(|key| (key.namespace.as_str(), target.pod.as_str()))
            })
            .collect();
        self.metrics
            .keep_pods(|namespace, pod| pods.contains(&(namespace, pod)));
        let before = std::mem::take(&mut self.listed);
        for step in self.engine.plan(desired, self.clock.elapsed()) {
            match step {
                Step::Forget(key) => self.fetcher.forget(&key),
                Step::Obtain(key, version) => {
                    let obtained = models
                        .get(&key.model)
                        .map(|model| self.fetcher.obtain(&key, &version, model));
                    if let Some(Some(result)) = obtained {
                        self.take(&key, result);
                    }
                }
            }
        }
        let listed = models.values().flat_map(|model| &model.versions);
        self.listed = listed.map(|version| version.digest.clone()).collect();
        for digest in before.difference(&self.listed) {
            if let Err(error) = self.cache.leave(digest, SystemTime::now()) {
                tracing::warn!(%error, digest, "that an artifact left the plan is not noted: it may go sooner");
            }
        }
        self.sweep();
        self.keep_serving();
        self.metrics.containers.retain(self.engine.desired());
        self.followed = Some(plan.clone());
    }

    /// Deletes artifacts that left the plan long ago.
    fn sweep(&mut self) {
        self.sweep_at = self.clock.elapsed() + SWEEP;
        let listed = self.listed.iter().map(String::as_str).collect();
        if let Err(error) = self.cache.retain(&listed, SystemTime::now()) {
            tracing::warn!(%error, "old artifacts stay");
        }
    }

    fn take(&mut self, key: &VersionKey, result: Result<Arc<Loaded>, Refusal>) {
        match &result {
            Ok(_) => tracing::info!(model = %key.model, digest = key.digest, "verified"),
            Err(refusal) => {
                self.metrics.refused.inc();
                tracing::error!(
                    model = %key.model, digest = key.digest, reason = refusal.reason, message = refusal.message,
                    "refused"
                );
            }
        }
        if self.engine.obtained(key, result) {
            tracing::info!(model = %key.model, serving = ?self.engine.shelf().serving().get(&key.model), "swapped");
        }
    }

    fn keep_spent(&self) {
        let spent = LastSpent {
            at_ms: wall_ms(),
            spent: self.engine.spent(self.clock.elapsed()),
        };
        if let Err(error) = self.state.keep_spent(&spent) {
            tracing::warn!(%error, "what is spent of alert budgets cannot be kept for a restart");
        }
    }

    /// Whoever can make the agent end must not thereby remove the trace of what was not told.
    fn keep_withheld(&mut self, last: bool) {
        let Some(profiles) = self.withheld.to_keep(self.clock.elapsed(), last) else {
            return;
        };
        let withheld = LastWithheld {
            at_ms: wall_ms(),
            profiles,
        };
        if let Err(error) = self.state.keep_withheld(&withheld) {
            self.withheld.not_kept();
            tracing::warn!(%error, "what alert budgets held back cannot be kept for a restart");
        }
    }

    fn keep_serving(&self) {
        if let Err(error) = self.state.keep_serving(self.engine.shelf().serving()) {
            tracing::warn!(%error, "what serves cannot be kept for a restart");
        }
    }

    /// Metrics and status of how things are; written only where they differ.
    fn publish(&mut self) {
        let traced: Vec<_> = self.engine.traced().keys().collect();
        self.metrics
            .targets
            .set(i64::try_from(traced.len()).unwrap_or(i64::MAX));
        self.metrics
            .probe_ready
            .set(i64::from(*self.engine.health() == ProbeHealth::Ready));
        self.metrics
            .lost_cgroups
            .set(i64::try_from(self.engine.lost_cgroups()).unwrap_or(i64::MAX));
        self.metrics.probed(&self.engine.stats());
        let costs = self.engine.costs();
        let profiles = &self.engine.desired().profiles;
        self.metrics
            .costs(&costs, |key| profiles.get(key).map(|profile| profile.mode));
        let view = View {
            desired: self.engine.desired(),
            costs: &costs,
            held_down: &self.engine.held_down(self.clock.elapsed()),
            withheld: &self.withheld,
            shelf: self.engine.shelf(),
            traced: &traced,
            health: self.engine.health(),
            lost: self.engine.stats().lost_calls,
            lost_cgroups: self.engine.lost_cgroups(),
            lost_detail: self.engine.stats().noticeable_loss(),
            no_detail: self.engine.no_detail(),
            no_signals: self.engine.no_signals(),
            misfits: self.engine.misfits(),
        };
        self.status = status::build(&view, &self.status, Timestamp::now());
        self.statuses.send_if_modified(|statuses| {
            // Without a plan there is nothing to write to.
            let changed = statuses
                .wanted
                .as_ref()
                .is_some_and(|wanted| *wanted != self.status);
            if changed {
                statuses.wanted = Some(self.status.clone());
            }
            changed
        });
    }
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

fn wall_us() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)
}
