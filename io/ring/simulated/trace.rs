//! What has happened in a simulation, as one number, and as lines for who has to read it.
//!
//! Two runs of a seed that give the same hash made the same choices in the same order. With
//! `QUOIT_SIMULATION_TRACE` set, each event is a line on standard error.

use std::env;
use std::net::SocketAddr;

use super::plan::{Fault, Site};
use super::random::mix;
use crate::io::request::Request;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    Submitted { token: u64, request: &'a Request },
    Cancelled { token: u64 },
    Completed { token: u64, result: i32, flags: u32 },
    Connected { number: i32 },
    Closed { number: i32 },
    Disconnected { number: i32 },
    ShutDown { number: i32, result: i32 },
    Sent { number: i32, result: i32 },
    Received { number: i32, result: i32 },
    Arrived { at: SocketAddr, count: usize },
    FinArrived { at: SocketAddr },
    ResetArrived { at: SocketAddr },
    Planned { site: Site, fault: Fault },
}

impl Event<'_> {
    /// The same for the same event in every run: no address of memory is in it.
    fn words(self) -> [u64; 4] {
        let signed = |value: i32| value as u64;
        match self {
            Self::Submitted { token, request } => {
                [1, token, signed(request.descriptor().unwrap_or(-1)), 0]
            }
            Self::Cancelled { token } => [2, token, 0, 0],
            Self::Completed { token, result, flags } => [3, token, signed(result), flags.into()],
            Self::Connected { number } => [4, signed(number), 0, 0],
            Self::Closed { number } => [5, signed(number), 0, 0],
            Self::ShutDown { number, result } => [6, signed(number), signed(result), 0],
            Self::Sent { number, result } => [7, signed(number), signed(result), 0],
            Self::Received { number, result } => [8, signed(number), signed(result), 0],
            Self::Arrived { at, count } => [9, at.port().into(), count as u64, 0],
            Self::FinArrived { at } => [10, at.port().into(), 0, 0],
            Self::ResetArrived { at } => [11, at.port().into(), 0, 0],
            Self::Disconnected { number } => [12, signed(number), 0, 0],
            Self::Planned { site, fault } => match fault {
                Fault::Fails(error) => [13, site as u64, 0, signed(error)],
                Fault::Late => [13, site as u64, 1, 0],
                Fault::Short => [13, site as u64, 2, 0],
            },
        }
    }
}

#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    is_told: bool,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        Self { hash: mix(seed), is_told: env::var_os("QUOIT_SIMULATION_TRACE").is_some() }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(&mut self, event: Event<'_>) {
        if self.is_told {
            eprintln!("{event:x?}");
        }
        for word in event.words() {
            self.hash = mix(self.hash.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ word);
        }
    }
}
