//! The API as people and our own programs see it, on a real API server of this test's own.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, too, say where they fail by failing"
)]

mod chart;
mod columns;
mod decodable;
mod generated;
mod manifests;
mod reasons;
mod rights;
mod upgrade;
