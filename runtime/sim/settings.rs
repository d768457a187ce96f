//! What the seed draws for a world, unless the test has set it.

use std::fmt;
use std::time::Duration;

use crate::io::ring::simulated::{self, Chance, Rings, Weather};
use crate::runtime::builder::nanoseconds;
use crate::runtime::{Builder, Runtime};

/// What one direction between two hosts is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    least: Duration,
    most: Duration,
    bandwidth: Option<u64>,
}

impl Link {
    /// A link on which everything takes between `least` and `most`, drawn anew each time, however
    /// much it is. What is sent on one connection never overtakes itself.
    ///
    /// # Panics
    ///
    /// When `least` is more than `most`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::sim::{Link, Sim};
    ///
    /// let mut sim = Sim::new(3);
    /// let (least, most) = (Duration::from_millis(20), Duration::from_millis(30));
    /// sim.links(Link::new(least, most).bandwidth(1_000_000));
    /// ```
    #[must_use]
    pub fn new(least: Duration, most: Duration) -> Self {
        assert!(least <= most, "the least latency is not more than the most");
        Self { least, most, bandwidth: None }
    }

    /// Limits it to so many bytes in a second, at least one, which all connections share.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second.max(1));
        self
    }

    pub(crate) fn to_io(self) -> simulated::Link {
        simulated::Link::new((nanoseconds(self.least), nanoseconds(self.most)), self.bandwidth)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}", self.least, self.most)?;
        match self.bandwidth {
            Some(bytes) => write!(f, ", {bytes} bytes/s"),
            None => Ok(()),
        }
    }
}

/// The limits of a host's runtime.
#[derive(Clone, Copy, Debug)]
struct Limits {
    buffers: (u16, u32, u16),
    accept_ahead: usize,
    receive_ahead: usize,
    send_ahead: usize,
    /// `None`: by load.
    send_inline: Option<bool>,
    task_budget: usize,
}

/// Everything that is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) link: Link,
    pub(crate) capacity_max: usize,
    pub(crate) rings: Rings,
    limits: Limits,
}

impl Settings {
    pub(crate) fn draw(seed: u64) -> Self {
        const LATENCIES: [u64; 6] = [20, 200, 1_000, 5_000, 30_000, 100_000];
        let mut chance = Chance::of(seed, 4);
        let least = LATENCIES[chance.below(LATENCIES.len())];
        let jitter = [0, least / 10, least, 10 * least][chance.below(4)];
        let micros = Duration::from_micros;
        let is_tight = chance.one_in(4);
        let count = chance.up_to(8) as u16;
        Self {
            link: Link::new(micros(least), micros(least + jitter)),
            capacity_max: if is_tight { 16 << chance.below(5) } else { 4096 << chance.below(7) },
            limits: Limits {
                buffers: (count, 16 << chance.below(9), count + chance.below(16) as u16),
                accept_ahead: chance.up_to(16),
                receive_ahead: 16 << chance.below(13),
                send_ahead: 16 << chance.below(13),
                send_inline: [None, Some(true), Some(false)][chance.below(3)],
                task_budget: chance.up_to(64),
            },
            rings: Rings::drawn(&mut chance),
        }
    }

    pub(crate) fn weather(&self) -> Weather {
        let loopback = Link::new(Duration::ZERO, Duration::from_micros(50));
        Weather {
            link: self.link.to_io(),
            loopback: loopback.to_io(),
            capacity_max: self.capacity_max,
        }
    }

    pub(crate) fn builder(&self) -> Builder {
        let Limits { buffers: (count, size, limit), .. } = self.limits;
        let builder = Runtime::builder()
            .buffers(count, size, limit)
            .accept_ahead(self.limits.accept_ahead)
            .receive_ahead(self.limits.receive_ahead)
            .send_ahead(self.limits.send_ahead)
            .task_budget(self.limits.task_budget);
        match self.limits.send_inline {
            Some(inline) => builder.send_inline(inline),
            None => builder,
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { buffers: (count, size, limit), .. } = self.limits;
        writeln!(f, "  links: {}", self.link)?;
        writeln!(f, "  socket buffers: up to {} bytes", self.capacity_max)?;
        writeln!(f, "  rings: {}", self.rings)?;
        writeln!(f, "  runtimes: {count} to {limit} buffers of {size} bytes, at most")?;
        writeln!(
            f,
            "    {} connections ahead, {} bytes received and {} bytes sent ahead,",
            self.limits.accept_ahead, self.limits.receive_ahead, self.limits.send_ahead
        )?;
        let inline = match self.limits.send_inline {
            Some(true) => "tried at once",
            Some(false) => "submitted",
            None => "by load",
        };
        writeln!(f, "    {} polls before the ring's turn, sends {inline}", self.limits.task_budget)
    }
}
