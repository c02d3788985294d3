//! The wire contracts.
