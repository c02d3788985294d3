//! The gRPC contracts between the parts: agent → operator, worker → operator, worker → worker.
//!
//! The contract is `proto/vigia/v1/vigia.proto`; what is here is made from it at build time, so
//! it cannot be stale. Messages change type once, where they enter a part.

pub mod bounded;

/// Version 1 of the contracts.
#[expect(
    missing_docs,
    reason = "generated; the documentation is the .proto file's comments"
)]
pub mod v1 {
    tonic::include_proto!("vigia.v1");
}

/// Audience of the projected service-account tokens that every call carries.
pub const TOKEN_AUDIENCE: &str = "vigia";

/// Largest message that either side reads. Larger things are streamed as [`v1::Chunk`]s.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Largest `data` of a [`v1::Chunk`].
pub const MAX_CHUNK: usize = 256 << 10;

/// Most alerts of a [`v1::ReportBatch`].
pub const MAX_ALERTS: usize = 1024;

/// Most scores of a [`v1::ReportBatch`].
pub const MAX_SCORES: usize = 4096;

/// Most samples of a [`v1::ReportBatch`].
pub const MAX_SAMPLES: usize = 16_384;
/// Most sequences of calls of one sample.
pub const MAX_GRAMS: usize = 512;

/// Most drivers of a [`v1::Verdict`] that are read; three are kept.
pub const MAX_DRIVERS: usize = 16;

/// Most sequences of a [`v1::Verdict`] that are read, and most calls of one; three, of six calls, are kept.
pub const MAX_SEQUENCES: usize = 16;

/// Most values of a histogram that are read.
pub const MAX_BINS: usize = 64;

/// Most [`v1::VersionSpan`]s of a [`v1::ReportBatch`].
pub const MAX_SPANS: usize = 64;

/// Most stages of a [`v1::TraceRequest`].
pub const MAX_STAGES: usize = 16;

/// Most metrics of a [`v1::SubmitHeader`], as many as a status may have.
pub const MAX_METRICS: usize = 32;
