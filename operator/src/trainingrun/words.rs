//! What a worker says at its end: kubelets keep it in the pod's status. Whoever ended such that another try would end the
//! same way is heard first.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::RUN_UID;
use super::job::FINAL_CODES;
use crate::context::Context;
use crate::controller::Error;

/// Characters of it that are told.
const MOST: usize = 600;

/// The words of the first worker of a run that ended for good, or else of the first that failed.
///
/// # Errors
/// The API server.
pub(super) async fn last(uid: &str, context: &Context) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &context.config.namespace);
    let pods = api
        .list(&ListParams::default().labels(&format!("{RUN_UID}={uid}")))
        .await?;
    let find = |counts: fn(i32) -> bool| pods.items.iter().find_map(|pod| of(pod, counts));
    Ok(find(|code| FINAL_CODES.contains(&code)).or_else(|| find(|code| code != 0)))
}

/// Pure. A worker is not trusted: one line of what can be printed is taken.
fn of(pod: &Pod, counts: fn(i32) -> bool) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = containers
        .iter()
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref());
    let message = ends
        .filter(|end| counts(end.exit_code))
        .find_map(|end| end.message.as_deref())?;
    let words = message.split(|c: char| c.is_control() || c.is_whitespace());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line: String = words.join(" ").chars().take(MOST).collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(code: i32, message: &str) -> Pod {
        serde_json::from_value(json!({"status": {"containerStatuses": [{
            "name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "message": message}},
        }]}}))
        .expect("a pod")
    }

    #[test]
    fn one_line_of_an_end_for_good_is_taken() {
        let last = |code, message: &str| of(&pod(code, message), |code| code == 65 || code == 78);
        let said = last(65, "n-gram needs pairs:\n\u{1b}[2J set capture.mode\n");
        assert_eq!(said.as_deref(), Some("n-gram needs pairs: [2J set capture.mode"));
        assert_eq!(last(1, "a crash that is tried again"), None);
        assert_eq!(last(65, "\n"), None);
        assert_eq!(last(78, &"x".repeat(5000)).map(|line| line.len()), Some(MOST));
        assert_eq!(of(&Pod::default(), |_| true), None);
    }
}
