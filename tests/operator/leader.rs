//! Two whole operators, of which one decides.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vigia_operator::config::Config;
use vigia_operator::run::run;

use crate::objects;
use crate::world::eventually;

struct Operator {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
    _store: tempfile::TempDir,
}

fn start(client: &Client, name: &str) -> Result<Operator> {
    let store = tempfile::tempdir()?;
    let folder = store.path().display().to_string();
    let config = Config::try_parse_from([
        "vigia-operator",
        "--store",
        &folder,
        "--pod-name",
        name,
        "--grpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--lease-seconds",
        "3",
    ])?;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(config, client.clone(), shutdown.clone()));
    Ok(Operator {
        shutdown,
        task,
        _store: store,
    })
}

async fn holder(client: &Client, expected: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), objects::SYSTEM);
    eventually(&format!("{expected} holds the Lease"), || async {
        let lease = leases.get_opt("vigia-operator").await?;
        let holder = lease.and_then(|l| l.spec).and_then(|s| s.holder_identity);
        Ok(if holder.as_deref() == Some(expected) {
            Ok(())
        } else {
            Err(format!("{holder:?}"))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operator_decides_and_another_takes_over() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (_server, client) = vigia_tests::server().await?;
    objects::namespace(&client, objects::SYSTEM).await?;
    let first = start(&client, "a")?;
    holder(&client, "a").await?;
    let second = start(&client, "b")?;

    // Told to end, it gives the Lease back, and the other need not wait for its end.
    first.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(30), first.task).await???;
    holder(&client, "b").await?;

    // Cut off in the middle, it is followed too.
    second.task.abort();
    let third = start(&client, "c")?;
    holder(&client, "c").await?;
    third.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(30), third.task).await???;
    Ok(())
}
