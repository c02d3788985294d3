//! What passes, what does not, and how long to wait in between.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the operator may not know us: a pod is younger than its place in a cache.
const GRACE: Duration = Duration::from_secs(60);
/// How long it may refuse our token. The API server knows a pod's token before the pod has it, so one that is refused is of
/// an account that is no more: of an installation that was taken away.
const TOKEN_GRACE: Duration = Duration::from_secs(10);

/// Why a rank gives up. [`Fault::exit_code`] tells them apart for a Job's podFailurePolicy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The data or the plan make no model. A retry makes none either.
    #[error("{0}")]
    Input(String),
    /// The other side refuses us.
    #[error("refused: {0}")]
    Refused(String),
    /// Flags or mounted files are wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// It did not pass in time, but may yet: worth another pod.
    #[error("gave up waiting: {0}")]
    Passing(String),
}

impl Fault {
    /// As in sysexits.h: 65 data, 77 permission, 78 configuration; 75 is the only one to try again after.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 65,
            Self::Passing(_) => 75,
            Self::Refused(_) => 77,
            Self::Config(_) => 78,
        }
    }
}

/// Why one call failed.
#[derive(Debug)]
pub enum CallError {
    /// The other side, or the way to it.
    Status(Status),
    /// No further call helps.
    Fault(Fault),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<tonic::transport::Error> for CallError {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Status(Status::unavailable(chain(&error)))
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// An error and what caused it, in one line: tonic's own words alone are "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// What to do after a failed call.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The other side has waited for us long enough.
    AskAgain,
    Pause,
    /// As [`Next::Pause`], but not for longer than this.
    PauseFor(Duration),
    GiveUp(Fault),
}

fn next(status: &Status) -> Next {
    let text = || format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::DeadlineExceeded => Next::AskAgain,
        Code::Unauthenticated => Next::PauseFor(TOKEN_GRACE),
        Code::PermissionDenied | Code::NotFound => Next::PauseFor(GRACE),
        Code::InvalidArgument | Code::OutOfRange => Next::GiveUp(Fault::Input(text())),
        Code::FailedPrecondition | Code::Unimplemented | Code::AlreadyExists => {
            Next::GiveUp(Fault::Refused(text()))
        }
        _ => Next::Pause,
    }
}

/// When to give up.
#[derive(Debug, Clone)]
pub struct Budget {
    until: Instant,
    rank: u32,
}

impl Budget {
    /// Until `after` from now. Ranks pause differently, so that they do not come back all at once.
    pub fn new(after: Duration, rank: u32) -> Self {
        Self {
            until: Instant::now() + after,
            rank,
        }
    }

    /// Runs `future` unless it takes until the deadline.
    pub async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::time::timeout_at(self.until, future)
            .await
            .map_err(|_| Fault::Passing(format!("{what}: the deadline is over")))
    }

    fn pause(&self, failures: u32) -> Duration {
        let doubled = PAUSES
            .0
            .saturating_mul(1 << failures.saturating_sub(1).min(10))
            .min(PAUSES.1);
        doubled.mul_f64(0.75 + 0.5 * f64::from(self.rank % 8) / 8.0)
    }
}

/// Calls until an answer comes, the fault does not pass, or the budget is spent.
pub async fn retry<T, F>(what: &str, budget: &Budget, mut call: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut patience = Patience::new(budget.clone());
    loop {
        match budget.within(what, call()).await? {
            Ok(answer) => return Ok(answer),
            Err(error) => patience.after(what, error).await?,
        }
    }
}

/// The pauses of one series of tries.
pub struct Patience {
    budget: Budget,
    failures: u32,
    unknown_since: Option<Instant>,
}

impl Patience {
    /// No failure yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            failures: 0,
            unknown_since: None,
        }
    }

    /// Something worked: the next failure is a first one.
    pub fn calm(&mut self) {
        self.failures = 0;
        self.unknown_since = None;
    }

    /// Waits as long as this failure asks for.
    ///
    /// # Errors
    /// It does not pass, or the budget ends first.
    pub async fn after(&mut self, what: &str, error: CallError) -> Result<(), Fault> {
        let status = match error {
            CallError::Fault(fault) => return Err(fault),
            CallError::Status(status) => status,
        };
        let pause = match next(&status) {
            Next::GiveUp(fault) => return Err(fault),
            Next::AskAgain => {
                tracing::info!(what, reason = status.message(), "waiting");
                // The answer came after a wait on the other side; a broken clock there must not make us spin.
                PAUSES.0
            }
            Next::Pause => self.count(),
            Next::PauseFor(grace) => {
                let since = *self.unknown_since.get_or_insert_with(Instant::now);
                if since.elapsed() > grace {
                    return Err(Fault::Refused(format!(
                        "{what}: {:?}: {}",
                        status.code(),
                        status.message()
                    )));
                }
                self.count()
            }
        };
        if Instant::now() + pause >= self.budget.until {
            return Err(Fault::Passing(format!(
                "{what}: {:?}: {}",
                status.code(),
                status.message()
            )));
        }
        if self.failures > 0 {
            tracing::warn!(what, code = ?status.code(), error = status.message(), failures = self.failures, ?pause, "trying again");
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn count(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.budget.pause(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ_by_rank() {
        let (zero, three) = (Budget::new(GRACE, 0), Budget::new(GRACE, 3));
        assert!(zero.pause(2) > zero.pause(1));
        assert_eq!(zero.pause(40), zero.pause(30));
        assert_ne!(zero.pause(1), three.pause(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let budget = Budget::new(Duration::from_secs(3600), 0);
        let mut calls = 0;
        let answer = retry("a call", &budget, || {
            calls += 1;
            let now = calls;
            async move {
                if now < 5 {
                    Err(Status::unavailable("not yet").into())
                } else {
                    Ok(now)
                }
            }
        });
        assert_eq!(answer.await, Ok(5));
        let refused = retry("a call", &budget, || async {
            Err::<(), _>(Status::invalid_argument("no").into())
        })
        .await;
        assert_eq!(refused.expect_err("refused").exit_code(), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_given_a_minute_and_everyone_the_deadline() {
        let budget = Budget::new(Duration::from_secs(3600), 0);
        let start = Instant::now();
        let stranger = retry("a call", &budget, || async {
            Err::<(), _>(Status::not_found("who?").into())
        })
        .await;
        assert_eq!(stranger.expect_err("refused").exit_code(), 77);
        assert!((60..70).contains(&start.elapsed().as_secs()));

        let start = Instant::now();
        let refused = retry("a call", &budget, || async {
            Err::<(), _>(Status::unauthenticated("the token is not valid").into())
        })
        .await;
        assert_eq!(refused.expect_err("refused").exit_code(), 77);
        assert!((10..20).contains(&start.elapsed().as_secs()));

        let late = retry("a call", &budget, || async {
            Err::<(), _>(Status::unavailable("gone").into())
        })
        .await;
        assert_eq!(late, Err(Fault::Passing("a call: Unavailable: gone".to_owned())));
        let silent = retry(
            "a call",
            &Budget::new(GRACE, 0),
            std::future::pending::<Result<(), _>>,
        )
        .await;
        assert_eq!(silent.expect_err("late").exit_code(), 75);
    }
}
