//! The operator on a real API server, with nodes and pods that only exist there, and agents that
//! do what a real one does with a plan, short of tracing.

mod agent;
mod artifact;
mod kills;
mod leader;
mod objects;
mod profiles;
mod rollouts;
mod scale;
mod traces;
mod training;
mod turns;
mod unreadable;
mod versions;
mod world;
