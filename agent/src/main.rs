//! The node agent's process.

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use vigia_agent::node::config::Config;
use vigia_agent::node::run::run;

fn main() -> ExitCode {
    let config = Config::parse();
    // What kube's client says of a failed call, we say with what it means.
    let filter = match EnvFilter::try_new(format!("kube_client=off,{}", config.log)) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "vigia-agent: --log {:?}: {error}; write a level such as info",
                config.log
            );
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    // An error only says that there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    }
}
