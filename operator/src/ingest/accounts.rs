//! Who a token is of, as a TokenReview says it: an agent of a node, or a training pod.
//!
//! The API server says which service account a token is of, and, in `extra`, which pod and node it was bound
//! to (KEP-4193). Only tokens for our own audience count, so a token that leaks from elsewhere is worth
//! nothing here, and one that leaks from here is worth nothing elsewhere.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tonic::{Request, Status};
use vigia_proto::TOKEN_AUDIENCE;

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

impl Identity {
    /// The caller of a request, as the gate found it.
    ///
    /// # Errors
    /// It did not come through the gate.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        let found = request.extensions().get::<Self>();
        found.ok_or_else(|| Status::unauthenticated("nobody knows who calls"))
    }

    /// The node whose agent calls.
    ///
    /// # Errors
    /// It is no agent.
    pub fn agent(&self) -> Result<&str, Status> {
        match self {
            Self::Agent { node } => Ok(node),
            Self::Trainer { .. } => Err(Status::permission_denied("training pods do not report")),
        }
    }

    /// Name and UID of the training pod that calls.
    ///
    /// # Errors
    /// It is none.
    pub fn trainer(&self) -> Result<(&str, &str), Status> {
        match self {
            Self::Trainer { pod, uid } => Ok((pod, uid)),
            Self::Agent { .. } => Err(Status::permission_denied("agents do not train")),
        }
    }

    /// What tells it from other callers.
    pub fn key(&self) -> &str {
        match self {
            Self::Agent { node } => node,
            Self::Trainer { uid, .. } => uid,
        }
    }
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
    pub(super) fn identify(&self, review: &TokenReviewStatus) -> Result<Identity, String> {
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
}
