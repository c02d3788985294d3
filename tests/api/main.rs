//! The API as people and our own programs see it, on a real API server of this test's own.

mod chart;
mod columns;
mod generated;
mod manifests;
mod rights;
