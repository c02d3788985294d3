//! Why the probe cannot run, said so that a person knows what to change.

use std::io;

use aya::EbpfError;
use aya::programs::ProgramError;

/// Why the probe could not be loaded, attached or read.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel does not publish its types.
    #[error(
        "the kernel's BTF cannot be read from {path}: {source}; it needs CONFIG_DEBUG_INFO_BTF=y, and the folder mounted"
    )]
    NoBtf {
        /// Where it was looked for.
        path: &'static str,
        /// What reading it said.
        source: io::Error,
    },
    /// What was read is not usable BTF.
    #[error("the kernel's BTF cannot be used: {0}")]
    BadBtf(#[source] aya::BtfError),
    /// The process may not load programs.
    #[error("missing {}: give the process these capabilities (or CAP_SYS_ADMIN)", .missing.join(" and "))]
    Capability {
        /// Names of what is missing.
        missing: Vec<&'static str>,
    },
    /// The process has the capabilities, and the kernel still says no.
    #[error(
        "the kernel refuses {what} although CAP_BPF and CAP_PERFMON are there: kernel lockdown or a security module forbids it"
    )]
    Forbidden {
        /// What was tried.
        what: &'static str,
    },
    /// This kernel lacks a tracepoint.
    #[error(
        "the kernel has no BTF tracepoint {tracepoint}: Linux 5.11 or later with CONFIG_FTRACE_SYSCALLS and CONFIG_CGROUPS is needed"
    )]
    NoTracepoint {
        /// Which.
        tracepoint: &'static str,
    },
    /// The verifier refused a program.
    #[error("the kernel's verifier refuses the program for {tracepoint}: {source}")]
    Refused {
        /// Which.
        tracepoint: &'static str,
        /// Its log.
        source: Box<ProgramError>,
    },
    /// The program cannot be attached.
    #[error("cannot attach to {tracepoint}: {source}")]
    Attach {
        /// To what.
        tracepoint: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The object does not fit this kernel.
    #[error("the probe's object cannot be loaded: {0}")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a part: a build gone wrong.
    #[error("the probe's object lacks {0}: it was built from other sources")]
    Incomplete(&'static str),
    /// A map operation was refused.
    #[error("cannot {what}: {source}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither kind of cgroup hierarchy is there to be read.
    #[error(
        "no cgroup hierarchy under {root}: neither cgroup v2 nor the v1 memory controller is mounted there"
    )]
    NoCgroups {
        /// Where it was looked for.
        root: String,
    },
    /// Something about the machine cannot be read.
    #[error("cannot read {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// 2³² targets were made since the start.
    #[error("every slot has been used: restart the process")]
    OutOfSlots,
}

impl ProbeError {
    /// A short name for conditions and metrics, in the form that Kubernetes wants for reasons.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoBtf { .. } | Self::BadBtf(_) => "NoBTF",
            Self::Capability { .. } => "MissingCapability",
            Self::Forbidden { .. } => "Forbidden",
            Self::NoTracepoint { .. } => "NoTracepoint",
            Self::Refused { .. } | Self::Object(_) | Self::Incomplete(_) => "ProgramRefused",
            Self::Attach { .. } => "AttachFailed",
            Self::Map { .. } | Self::OutOfSlots => "MapFailed",
            Self::NoCgroups { .. } => "NoCgroups",
            Self::System { .. } => "SystemUnreadable",
        }
    }

    pub(super) fn object(error: EbpfError) -> Self {
        if denied(&error) {
            Self::Forbidden { what: "a map" }
        } else {
            Self::Object(Box::new(error))
        }
    }

    pub(super) fn program(tracepoint: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::Btf(_) => Self::NoTracepoint { tracepoint },
            other if denied(&other) => Self::Forbidden {
                what: "a tracing program",
            },
            other => Self::Refused {
                tracepoint,
                source: Box::new(other),
            },
        }
    }
}

/// Whether a permission is at the bottom of it.
fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}
