//! Models on the node: fetched by digest, verified before use, swapped between two windows.

pub mod cache;
pub mod load;
pub mod shelf;
