//! Simulation: your program, unchanged, in a world that a seed decides.

pub mod explore;
