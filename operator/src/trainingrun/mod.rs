//! Started from [`crate::run`]; ends with the context's shutdown.

use std::sync::Arc;

use crate::context::Context;

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    context.shutdown.cancelled().await;
}
