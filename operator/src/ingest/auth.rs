//! Who calls: a TokenReview of the bearer token, remembered for a short while.
//!
//! The API server says which service account a token is of, and, in `extra`, which pod and node it was bound
//! to (KEP-4193). Only tokens for our own audience count, so a token that leaks from elsewhere is worth
//! nothing here, and one that leaks from here is worth nothing elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use tonic::Status;
use tonic::metadata::MetadataMap;
use vigia_proto::TOKEN_AUDIENCE;

/// A good token is asked about again after this; a pod that is gone is refused no later.
const GOOD: Duration = Duration::from_secs(120);
/// A bad one after this, so that an agent whose account was just created is not kept out for long.
const BAD: Duration = Duration::from_secs(5);
/// Tokens that are remembered.
const REMEMBERED: usize = 20_000;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The agent of a node.
    Agent {
        /// The node.
        node: String,
    },
    /// A training pod.
    Trainer {
        /// Name of the pod.
        pod: String,
        /// UID of the pod.
        uid: String,
    },
}

/// The way to ask what a token is worth.
#[tonic::async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Reviews a token for our audience.
    ///
    /// # Errors
    /// Nobody could be asked.
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String>;
}

/// Asks the API server.
pub struct ApiServer(pub Client);

#[tonic::async_trait]
impl Reviewer for ApiServer {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = Api::<TokenReview>::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| e.to_string())?;
        Ok(answer.status.unwrap_or_default())
    }
}

/// The service accounts that may call.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// `system:serviceaccount:<namespace>:<agents>`.
    pub agent: String,
    /// `system:serviceaccount:<namespace>:<trainers>`.
    pub trainer: String,
}

impl Accounts {
    /// Of the operator's namespace.
    pub fn new(namespace: &str, agent: &str, trainer: &str) -> Self {
        let user = |name| format!("system:serviceaccount:{namespace}:{name}");
        Self {
            agent: user(agent),
            trainer: user(trainer),
        }
    }

    /// What a review says, or why it is not enough. Pure.
    fn identify(&self, review: &TokenReviewStatus) -> Result<Identity, String> {
        if review.authenticated != Some(true) {
            return Err("the token is not valid".to_owned());
        }
        let ours = |audiences: &Vec<String>| audiences.iter().any(|a| a == TOKEN_AUDIENCE);
        if !review.audiences.as_ref().is_some_and(ours) {
            return Err(format!("the token is not for audience {TOKEN_AUDIENCE}"));
        }
        let user = review.user.clone().unwrap_or_default();
        let extra = user.extra.unwrap_or_default();
        let claim = |name: &str| match extra.get(name).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Ok(value.clone()),
            _ => Err(format!(
                "the token has no {name}: it must be a projected token of a pod"
            )),
        };
        let name = user.username.unwrap_or_default();
        if name == self.agent {
            Ok(Identity::Agent {
                node: claim(NODE_NAME)?,
            })
        } else if name == self.trainer {
            Ok(Identity::Trainer {
                pod: claim(POD_NAME)?,
                uid: claim(POD_UID)?,
            })
        } else {
            Err(format!("{name} may not call the operator"))
        }
    }
}

type Known = HashMap<[u8; 32], (Instant, Result<Identity, String>)>;

/// Turns tokens into callers.
pub struct Authenticator {
    reviewer: Arc<dyn Reviewer>,
    accounts: Accounts,
    known: Mutex<Known>,
}

impl Authenticator {
    /// An authenticator that asks `reviewer`.
    pub fn new(reviewer: Arc<dyn Reviewer>, accounts: Accounts) -> Self {
        Self {
            reviewer,
            accounts,
            known: Mutex::default(),
        }
    }

    /// Who sent a request with this metadata.
    ///
    /// # Errors
    /// `Unauthenticated` or `PermissionDenied`; `Unavailable` where the API server cannot be asked.
    pub async fn identify(&self, metadata: &MetadataMap) -> Result<Identity, Status> {
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
            .ok_or_else(|| {
                Status::unauthenticated("send the pod's token as \"authorization: Bearer ...\"")
            })?;
        // The hash, so that a dump of the operator's memory holds no more tokens than it must.
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.recall(&key) {
            return known.map_err(Status::unauthenticated);
        }
        let review = self
            .reviewer
            .review(token)
            .await
            .map_err(|e| Status::unavailable(format!("the token cannot be reviewed now: {e}")))?;
        let identity = self.accounts.identify(&review);
        if let Err(why) = &identity {
            tracing::warn!(target: "audit", why, "a caller is refused");
        }
        self.remember(key, identity.clone());
        identity.map_err(Status::unauthenticated)
    }

    /// The caller as the agent of a node.
    ///
    /// # Errors
    /// As [`Self::identify`], or it is none.
    pub async fn agent(&self, metadata: &MetadataMap) -> Result<String, Status> {
        match self.identify(metadata).await? {
            Identity::Agent { node } => Ok(node),
            Identity::Trainer { .. } => Err(Status::permission_denied("training pods do not report")),
        }
    }

    /// The caller as a training pod: its name and UID.
    ///
    /// # Errors
    /// As [`Self::identify`], or it is none.
    pub async fn trainer(&self, metadata: &MetadataMap) -> Result<(String, String), Status> {
        match self.identify(metadata).await? {
            Identity::Trainer { pod, uid } => Ok((pod, uid)),
            Identity::Agent { .. } => Err(Status::permission_denied("agents do not train")),
        }
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Result<Identity, String>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, identity) = known.get(key)?;
        (*until > Instant::now()).then(|| identity.clone())
    }

    fn remember(&self, key: [u8; 32], identity: Result<Identity, String>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, identity)| identity.is_ok());
        }
        if known.len() < REMEMBERED {
            let keep = if identity.is_ok() { GOOD } else { BAD };
            known.insert(key, (now + keep, identity));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(crate) fn review(account: &str, extra: &[(&str, &str)]) -> TokenReviewStatus {
        let extra: BTreeMap<_, _> = extra
            .iter()
            .map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]))
            .collect();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some(format!("system:serviceaccount:vigia-system:{account}")),
                extra: Some(extra),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    /// Stands in for the API server's TokenReview: a token `agent:<node>` is of that node's agent,
    /// `trainer:<pod>:<uid>` of that training pod, `down` finds nobody to ask, anything else is no token.
    #[derive(Default)]
    pub(crate) struct FakeTokenReview {
        pub asked: AtomicUsize,
    }

    #[tonic::async_trait]
    impl Reviewer for FakeTokenReview {
        async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let parts: Vec<&str> = token.split(':').collect();
            match parts.as_slice() {
                ["agent", node] => Ok(review("vigia-agent", &[(NODE_NAME, node)])),
                ["trainer", pod, uid] => Ok(review("vigia-trainer", &[(POD_NAME, pod), (POD_UID, uid)])),
                ["down"] => Err("no API server".to_owned()),
                _ => Ok(TokenReviewStatus::default()),
            }
        }
    }

    pub(crate) fn accounts() -> Accounts {
        Accounts::new("vigia-system", "vigia-agent", "vigia-trainer")
    }

    fn bearer(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        metadata
    }

    #[test]
    fn only_bound_tokens_of_our_accounts_for_our_audience_count() {
        let accounts = accounts();
        let node = [(NODE_NAME, "n1")];
        let agent = Identity::Agent { node: "n1".into() };
        assert_eq!(accounts.identify(&review("vigia-agent", &node)), Ok(agent));
        let good = review("vigia-agent", &node);
        let bad = [
            TokenReviewStatus::default(),
            TokenReviewStatus {
                authenticated: Some(false),
                ..good.clone()
            },
            TokenReviewStatus {
                audiences: Some(vec!["https://kubernetes.default.svc".into()]),
                ..good.clone()
            },
            TokenReviewStatus {
                audiences: None,
                ..good
            },
            review("default", &node),
            review("vigia-agent", &[]),
            review("vigia-agent", &[(NODE_NAME, "")]),
            review("vigia-trainer", &[(POD_NAME, "p")]),
        ];
        for review in bad {
            assert!(accounts.identify(&review).is_err(), "{review:?}");
        }
    }

    #[tokio::test]
    async fn answers_are_remembered_and_outages_are_not() {
        let fake = Arc::new(FakeTokenReview::default());
        let auth = Authenticator::new(fake.clone(), accounts());
        for _ in 0..3 {
            assert_eq!(auth.agent(&bearer("agent:n1")).await.unwrap(), "n1");
            let refused = auth.agent(&bearer("nonsense")).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
        for _ in 0..2 {
            let down = auth.agent(&bearer("down")).await.unwrap_err();
            assert_eq!(down.code(), tonic::Code::Unavailable);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn agents_do_not_train_and_trainers_do_not_report() {
        let auth = Authenticator::new(Arc::new(FakeTokenReview::default()), accounts());
        let code = |r: Result<_, Status>| r.map(|_: String| ()).unwrap_err().code();
        assert_eq!(
            code(auth.agent(&bearer("trainer:p:u")).await),
            tonic::Code::PermissionDenied
        );
        let train = auth.trainer(&bearer("agent:n")).await.map(|(pod, _)| pod);
        assert_eq!(code(train), tonic::Code::PermissionDenied);
        assert_eq!(
            code(auth.agent(&MetadataMap::new()).await),
            tonic::Code::Unauthenticated
        );
        let long = auth.agent(&bearer(&"x".repeat(MAX_TOKEN + 1))).await;
        assert_eq!(code(long), tonic::Code::Unauthenticated);
    }
}
