//! What the rings of a world are like: how much a turn hands in and brings back, and how often the
//! kernel is interrupted, for the program's tests to choose.
//!
//! ```text
//!   submit, cancel ──► submission queue ──► kernel ──► completion queue ──► the core's turn
//!                        full: in order,      │           full: the rest comes later,
//!                        later                │           and multishots end
//!                                             └── interrupted: asked again
//! ```

use std::fmt;

use super::random::Chance;

/// What the rings of a world are like. Nothing of it is to be seen by a program but in time: the
/// runtime hands in later what has found no room, and asks again for what was interrupted.
///
/// # Examples
///
/// ```
/// use quoit::sim::{Rings, Sim};
///
/// let mut sim = Sim::new(1);
/// sim.rings(Rings::new().submissions(1).completions(1).interruptions(2));
/// sim.client("client", async {
///     let listener = quoit::net::TcpListener::bind("0.0.0.0:80").await?;
///     let client = quoit::net::TcpStream::connect("client:80").await?;
///     let (server, _) = listener.accept().await?;
///     client.send_all("hello").await?;
///     let mut hello = [0; 5];
///     server.read_exact(&mut hello).await?;
///     assert_eq!(&hello, b"hello");
///     std::io::Result::Ok(())
/// });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Rings {
    pub(super) submissions: usize,
    pub(super) completions: usize,
    pub(super) interruptions: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self::new()
    }
}

impl Rings {
    /// Rings as large as those of io_uring, and a kernel that nothing interrupts.
    pub fn new() -> Self {
        Self { submissions: 256, completions: 2048, interruptions: 0 }
    }

    /// Any of all rings: from one entry to as many as io_uring's have, interrupted often, rarely or
    /// never.
    pub fn drawn(chance: &mut Chance) -> Self {
        let rings =
            Self::new().submissions(1 << chance.below(9)).completions(1 << chance.below(12));
        let is_calm = chance.one_in(4);
        rings.interruptions(if is_calm { 0 } else { 4 << chance.below(6) })
    }

    /// How many requests and cancellations the submission queue holds. What finds it full is held
    /// back, and handed in later, in order; a turn hands in as many at least, unless the kernel is
    /// interrupted. At least one. Default: 256.
    pub fn submissions(mut self, count: usize) -> Self {
        self.submissions = count.max(1);
        self
    }

    /// How many completions a turn brings. The rest waits for the next one, and meanwhile each
    /// answer of a multishot request is its last. At least one. Default: 2048.
    pub fn completions(mut self, count: usize) -> Self {
        self.completions = count.max(1);
        self
    }

    /// One in so many requests is answered `EINTR`, `EAGAIN` or the like, having done nothing, and
    /// one in so many calls to hand in requests takes only some of them. Zero is never; one is
    /// taken for two, since with every request interrupted nothing would ever be done. Default: 0.
    pub fn interruptions(mut self, one_in: u32) -> Self {
        self.interruptions = if one_in == 1 { 2 } else { one_in };
        self
    }

    /// Whether the kernel is interrupted this time.
    pub(super) fn interrupt(&self, chance: &mut Chance) -> bool {
        self.interruptions > 0 && chance.one_in(self.interruptions as usize)
    }
}

impl fmt::Display for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries to submit, {} to collect, ", self.submissions, self.completions)?;
        match self.interruptions {
            0 => f.write_str("never interrupted"),
            one_in => write!(f, "one request in {one_in} interrupted"),
        }
    }
}
