//! The control plane's programs and their flags.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::layout::{CONTROL_PLANE, KUBERNETES_SERVICE, Layout, NETWORK, SERVICE_CIDR};
use super::space::Space;
use crate::parts::Parts;
use crate::pki::{Authority, ServerNames};

/// Where the API server listens inside the cluster.
const API_PORT: u16 = 6443;
/// What an API server needs to know, whether a cluster's or a test's.
pub struct ApiServerSettings<'a> {
    /// Folder of certificates, filled by [`write_api_server_files`].
    pub pki: &'a str,
    /// Where etcd is.
    pub etcd: &'a str,
    /// Where it listens and what it tells others.
    pub address: Ipv4Addr,
    /// The port of both.
    pub port: u16,
}

/// etcd's command line. It does not wait for the disk: a machine's power loss ends the cluster anyway.
pub fn etcd(program: String, data: &str, client: &str, peer: &str) -> Vec<String> {
    [
        program,
        "--unsafe-no-fsync".into(),
        format!("--data-dir={data}"),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--auto-compaction-retention=5m".into(),
        "--quota-backend-bytes=4294967296".into(),
        "--log-level=warn".into(),
    ]
    .into()
}

/// The API server's command line.
pub fn api_server(program: String, settings: &ApiServerSettings<'_>) -> Vec<String> {
    let ApiServerSettings {
        pki,
        etcd,
        address,
        port,
    } = settings;
    [
        program,
        format!("--etcd-servers={etcd}"),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        format!("--secure-port={port}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--tls-cert-file={pki}/api-server.crt"),
        format!("--tls-private-key-file={pki}/api-server.key"),
        format!("--service-account-key-file={pki}/service-accounts.pub"),
        format!("--service-account-signing-key-file={pki}/service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--kubelet-client-certificate={pki}/api-server-client.crt"),
        format!("--kubelet-client-key={pki}/api-server-client.key"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged".into(),
        // Webhooks are called at their pods' addresses: no kube-proxy serves the control plane.
        "--enable-aggregator-routing".into(),
        "--v=1".into(),
    ]
    .into()
}

/// Writes what [`api_server`] names, and the administrator's kubeconfig for a server at `url`.
pub fn write_api_server_files(authority: &Authority, address: Ipv4Addr, url: &str) -> Result<()> {
    authority.server(
        "api-server",
        &ServerNames {
            dns: &[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
            addresses: &[address, Ipv4Addr::LOCALHOST, KUBERNETES_SERVICE],
        },
    )?;
    authority.key_pair("service-accounts")?;
    authority.client(
        "api-server-client",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        url,
    )?;
    authority.client("admin", "admin", Some("system:masters"), url)?;
    Ok(())
}

/// The controller manager's command line.
pub fn controller_manager(program: String, pki: &str) -> Vec<String> {
    [
        program,
        format!("--kubeconfig={pki}/controller-manager.kubeconfig"),
        format!("--service-account-private-key-file={pki}/service-accounts.key"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        // A node without power is seen as such after this; upstream's 50 s only make tests slower.
        "--node-monitor-grace-period=24s".into(),
        // Upstream's 20 requests a second make the start of the controllers take three seconds longer.
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
        "--v=1".into(),
    ]
    .into()
}

/// Starts etcd, the API server, controllers, scheduler, and the way from this machine to the API server.
pub fn start(
    layout: &Layout,
    space: &Space,
    parts: &Parts,
    authority: &Authority,
    host_port: u16,
) -> Result<()> {
    let inside = format!("https://{CONTROL_PLANE}:{API_PORT}");
    write_api_server_files(
        authority,
        CONTROL_PLANE,
        &format!("https://127.0.0.1:{host_port}"),
    )?;
    authority.client(
        "controller-manager",
        "system:kube-controller-manager",
        None,
        &inside,
    )?;
    authority.client("scheduler", "system:kube-scheduler", None, &inside)?;
    authority.client("kube-proxy", "system:kube-proxy", None, &inside)?;

    let client = "http://127.0.0.1:2379";
    let etcd = etcd(
        parts.program("etcd")?,
        &layout.path("etcd"),
        client,
        "http://127.0.0.1:2380",
    );
    space.start_daemon("etcd", Some(NETWORK), &etcd)?;
    start_api_server(layout, space, parts)?;

    let pki = layout.path("pki");
    let controllers = controller_manager(parts.program("kube-controller-manager")?, &pki);
    space.start_daemon("controller-manager", Some(NETWORK), &controllers)?;
    let scheduler = [
        parts.program("kube-scheduler")?,
        format!("--kubeconfig={pki}/scheduler.kubeconfig"),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--v=1".into(),
    ];
    space.start_daemon("scheduler", Some(NETWORK), &scheduler)?;

    // The control plane's network is not the machine's; a unix socket joins the two.
    let socket = layout.path("api.sock");
    let from_socket = [
        "socat".into(),
        format!("UNIX-LISTEN:{socket},fork,unlink-early,backlog=256"),
        format!("TCP:{CONTROL_PLANE}:{API_PORT}"),
    ];
    let to_socket = [
        "socat".into(),
        format!("TCP-LISTEN:{host_port},bind=127.0.0.1,fork,reuseaddr,backlog=256"),
        format!("UNIX-CONNECT:{socket}"),
    ];
    space.start_daemon("api-inside", Some(NETWORK), &from_socket)?;
    space.start_daemon("api-outside", None, &to_socket)
}

/// Starts the API server alone, at first or after [`Space::stop_daemon`].
pub fn start_api_server(layout: &Layout, space: &Space, parts: &Parts) -> Result<()> {
    let settings = ApiServerSettings {
        pki: &layout.path("pki"),
        etcd: "http://127.0.0.1:2379",
        address: CONTROL_PLANE,
        port: API_PORT,
    };
    space.start_daemon(
        API_SERVER,
        Some(NETWORK),
        &api_server(parts.program("kube-apiserver")?, &settings),
    )
}

/// The API server's daemon.
pub const API_SERVER: &str = "api-server";
