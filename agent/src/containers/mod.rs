//! Where the containers of a plan are in cgroupfs, and when they go or are made anew.
//!
//! The agent has no access to the runtime or to other processes (no host PID), so cgroupfs is all it asks: the
//! folder's path holds the pod's UID and the container's id, and its inode is the id that the kernel counts by.
//! There is no inotify here: a container's folder is looked at once a second, which is one `stat`, and the tree is
//! walked only while a container of the plan is missing. Watching would need a descriptor for each folder and
//! still a walk after every lost event.

mod finder;
pub mod path;
pub mod resources;

pub use finder::{ContainerId, Finder, Found, is_inhabited};
