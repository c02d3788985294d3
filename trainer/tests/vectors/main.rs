//! The estimators of pipelines: in agreement with scikit-learn and statsmodels, and with themselves.

mod agreement;
mod allocation;
mod beside;
mod components;
mod definitions;
mod exec;
mod labels;
mod planted;
mod properties;
mod rates;
mod support;
