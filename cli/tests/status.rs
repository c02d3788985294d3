//! `vigia status` against an API server that answers what a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// An API server on a port of its own, until the test ends. `answer` is given the path and query of each request.
fn serve(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = talk(stream, &answer);
        }
    });
    address
}

/// One request, one answer, and the connection ends.
fn talk(mut stream: TcpStream, answer: impl Fn(&str) -> (u16, Value)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.by_ref().take(64 << 10).read_line(&mut first)?;
    let mut line = String::new();
    while reader.by_ref().take(64 << 10).read_line(&mut line)? > 2 {
        line.clear();
    }
    let (code, body) = answer(first.split(' ').nth(1).unwrap_or_default());
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn status(folder: &Path, server: &str, args: &[&str]) -> Output {
    let config = folder.join("config");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(&config, text.to_string()).expect("written");
    // As kubectl runs it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-vigia"));
    command.arg("status").args(args).env("KUBECONFIG", config);
    command
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .expect("runs")
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {}, "code": code,
        "reason": "Said", "message": message,
    });
    (code, status)
}

fn model(name: &str) -> Value {
    json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"task": "Anomaly"},
    })
}

fn run(name: &str, since: &str) -> Value {
    json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"modelRef": {"name": "a"}, "data": {"since": since}},
    })
}

#[test]
fn a_cluster_is_shown_page_by_page_as_far_as_it_may_be_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(|path| {
        let list = |items: Vec<Value>, more: &str| {
            (
                200,
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"continue": more}, "items": items}),
            )
        };
        match path {
            p if p.contains("/nodeplans") => failure(403, "nodeplans is forbidden: not yours"),
            p if p.contains("/models?") && p.contains("continue=more") => list(vec![model("b")], ""),
            p if p.contains("/models?") => list(vec![model("a")], "more"),
            p if p.contains("/trainingruns?") => list(
                vec![
                    run("good", "2026-01-01T00:00:00Z"),
                    run("far", "9999-12-31T23:59:59Z"),
                ],
                "",
            ),
            p if p.contains("/events?") && !p.contains("SyscallAnomaly") => failure(400, "all events?"),
            _ => list(vec![], ""),
        }
    });
    let (code, text) = said(&status(folder.path(), &server, &[]));
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "  shop       a     -",
        "  shop       b     -",
        "cannot be seen: nodeplans is forbidden: not yours",
        "  shop       good  a      Waiting",
        "  cannot be read: shop/far: ",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let output = status(folder.path(), &server, &["-n", "shop", "-o", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(document["models"]["items"][1]["name"], "b");
    assert_eq!(document["alerts"]["items"], json!([]));
    assert_eq!(document["trainings"]["items"][0]["name"], "good");
    assert_eq!(
        document["trainings"]["unreadable"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_namespace_that_is_not_there_is_told_from_an_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(|path| match path.trim_end_matches('?') {
        "/api/v1/namespaces/nope" => {
            let (code, mut body) = failure(404, "namespaces nope not found");
            body["reason"] = json!("NotFound");
            (code, body)
        }
        "/api/v1/namespaces/hidden" => failure(403, "namespaces is forbidden"),
        p if p.starts_with("/api/v1/namespaces/") => (
            200,
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "empty"}}),
        ),
        _ => (
            200,
            json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []}),
        ),
    });
    let (code, text) = said(&status(folder.path(), &server, &["-n", "nope"]));
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("no namespace nope") && text.contains("next:"),
        "{text}"
    );
    for there in ["empty", "hidden"] {
        let (code, text) = said(&status(folder.path(), &server, &["-n", there]));
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn a_cluster_without_vigia_and_one_that_is_away_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(|_| failure(404, "the server could not find the requested resource"));
    let (code, text) = said(&status(folder.path(), &server, &[]));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("helm install vigia"), "{text}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (code, text) = said(&status(folder.path(), &nobody, &[]));
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("cannot be asked") && text.contains("next:"),
        "{text}"
    );
}
