//! A worker: one OS thread with its own runtime, pools, timers, random numbers and statistics shard.

pub mod timer;
