//! Tracing by ptrace(2): every call of a task as it is made, at the price of two stops for each.
//!
//! This is what prints lines as strace does, and what counts where eBPF may not be used. One thread is the tracer;
//! it tells what it sees to a [`watch::Watch`].

mod decode;
mod lines;
mod memory;
mod start;
mod sys;
mod tracer;
pub mod watch;

pub use lines::{Lines, Style};
pub use start::{Session, Target, begin};
pub use sys::{hold_changes, let_changes_through};
pub use tracer::{Ending, process_of};
