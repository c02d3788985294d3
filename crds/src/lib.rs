//! The API `vigia.dev/v1alpha1`: one file a kind.
