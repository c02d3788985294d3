//! The vector estimators: in agreement with scikit-learn, and with themselves.

mod agreement;
mod allocation;
mod properties;
mod support;
