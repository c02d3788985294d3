//! The whole loop on a cluster of its own: the demo's story with assertions on the API's objects, and what
//! must survive faults. Both use the demo's manifests. The images come from `scripts/build-images.sh`.

mod faults;
mod story;
mod world;
