//! The API server that tests of the API stand on.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use vigia_e2e::{ApiServer, ApiServerOptions};

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

#[tokio::test]
async fn servers_beside_each_other_do_not_share_objects_and_leave_nothing() -> Result<()> {
    let options = ApiServerOptions::default();
    let (one, two) = tokio::try_join!(ApiServer::up(options), ApiServer::up(options))?;
    let namespaces = |client| Api::<Namespace>::all(client);
    namespaces(one.client().await?)
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "only-here"}}))?,
        )
        .await?;
    let list = namespaces(two.client().await?)
        .list(&ListParams::default())
        .await?;
    assert!(
        list.iter()
            .all(|namespace| namespace.metadata.name.as_deref() != Some("only-here"))
    );

    let folders = [one.folder().to_owned(), two.folder().to_owned()];
    let clients = [one.client().await?, two.client().await?];
    drop((one, two));
    for (folder, client) in folders.iter().zip(clients) {
        assert!(!folder.exists());
        assert!(client.apiserver_version().await.is_err(), "it still answers");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_good_for_its_own_audience_only() -> Result<()> {
    let server = ApiServer::up(ApiServerOptions::default()).await?;
    let client = server.client().await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    accounts
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "agent"}}))?,
        )
        .await?;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec!["vigia".into()],
            ..Default::default()
        },
        ..Default::default()
    };
    let token = accounts
        .create_token_request("agent", &PostParams::default(), &request)
        .await?;
    let token = token.status.map(|status| status.token);

    let reviews = Api::<TokenReview>::all(client);
    for (audience, good) in [("vigia", true), ("someone-else", false)] {
        let spec = TokenReviewSpec {
            token: token.clone(),
            audiences: Some(vec![audience.into()]),
        };
        let review = TokenReview {
            spec,
            ..Default::default()
        };
        let status = reviews.create(&PostParams::default(), &review).await?.status;
        assert_eq!(
            status.and_then(|status| status.authenticated).unwrap_or(false),
            good,
            "{audience}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn controllers_are_there_when_asked_for() -> Result<()> {
    let server = ApiServer::up(ApiServerOptions { controllers: true }).await?;
    let maps = Api::<ConfigMap>::namespaced(server.client().await?, "default");
    let deadline = Instant::now() + Duration::from_secs(30);
    // A controller publishes the authority in every namespace.
    let mut ask = tokio::time::interval(Duration::from_millis(50));
    while maps.get_opt("kube-root-ca.crt").await?.is_none() {
        assert!(Instant::now() < deadline, "no controller has worked");
        ask.tick().await;
    }
    Ok(())
}
