//! The sizes of what each connection has, for the test that adds them up.

use std::sync::atomic::AtomicUsize;

use super::handle::StreamHandle;
use super::stream::{Socket, Stream};
use crate::io::slab::Slab;

/// The two counts of an `Arc`, which stand before what it shares.
const COUNTS: usize = 2 * size_of::<AtomicUsize>();

pub(crate) const ENTRY: usize = Slab::<Stream>::ENTRY;
pub(crate) const SOCKET: usize = COUNTS + size_of::<Socket>();
pub(crate) const HANDLE: usize = COUNTS + size_of::<StreamHandle>();
