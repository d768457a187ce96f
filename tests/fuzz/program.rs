//! What is run: lanes of operations on two hosts, drawn from a seed, plain data that can be shrunk
//! and printed.
//!
//! An operation names its objects by number. It takes the next one of its kind from there on and
//! does nothing when there is none, so that every part of a program is a program too.

use quoit::sim::Chance;

/// The places for objects of each kind that a host has.
pub(crate) const PLACES: usize = 6;

/// What becomes of a future. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// Awaited, for as long as anything can still happen.
    Full,
    /// Polled so many times, and dropped.
    Cut(usize),
    /// In a `time::timeout`.
    Within(u64),
    /// With its own `.timeout`, where it has one.
    Limit(u64),
    /// Polled so many times, and forgotten: neither polled nor dropped again.
    Forget(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    Recv,
    RecvInto,
    Slice,
    Exact,
    Until,
    Peek,
    Readable,
    Try,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Send,
    SendAll,
    Lease,
    Slice,
    All,
    Vectored,
    Flush,
    Writable,
    Try,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum OnFile {
    Read,
    ReadExact,
    Write,
    WriteAll,
    SetLength,
    Allocate,
    SyncAll,
    SyncData,
    Metadata,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Listen {
        at: usize,
        port: u16,
    },
    Accept {
        from: usize,
        into: usize,
        how: How,
    },
    CloseListener {
        at: usize,
        how: How,
    },
    DropListener(usize),
    Connect {
        host: usize,
        port: u16,
        into: usize,
        how: How,
    },
    Read {
        at: usize,
        by: Read,
        length: usize,
        how: How,
    },
    Write {
        at: usize,
        by: Write,
        length: usize,
        how: How,
    },
    Shutdown {
        at: usize,
        how: How,
    },
    Detach {
        at: usize,
        how: How,
    },
    Close {
        at: usize,
        how: How,
    },
    Abort(usize),
    Drop(usize),
    Split {
        at: usize,
        into: usize,
    },
    Reunite(usize),
    SplitLease(usize),
    DropLease(usize),
    Open {
        into: usize,
        how: How,
    },
    File {
        at: usize,
        by: OnFile,
        offset: usize,
        length: usize,
        how: How,
    },
    CloneFile {
        at: usize,
        into: usize,
    },
    CloseFile {
        at: usize,
        how: How,
    },
    DropFile(usize),
    Spawn {
        core: usize,
        into: usize,
        op: Box<Self>,
    },
    Join {
        at: usize,
        how: How,
    },
    AbortTask(usize),
    DropTask(usize),
    AbortLane(usize),
    /// At the same time, begun in this order.
    Together(Vec<Self>),
    Blocking {
        how: How,
    },
    Sleep(u64),
    Yield,
}

#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) host: usize,
    pub(crate) core: usize,
    pub(crate) ops: Vec<Op>,
}

/// How a host's life ends early. Times are microseconds of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Its program returns, and its runtimes are shut down.
    Exit(u64),
    Kill(u64),
    PowerLoss(u64),
}

/// What happens to the world around the hosts. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Nothing gets through between the hosts, for so long.
    Partition(u64),
    /// Nothing gets from this host to the other, for so long.
    Cut { from: usize, time: u64 },
    /// A middle box resets their connections.
    Reset,
    /// A host's clock jumps forwards, and its timers with it.
    Jump { host: usize, by: u64 },
    /// A host's time of day is set.
    Wall { host: usize, by: u64, forwards: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) seed: u64,
    /// Of each host.
    pub(crate) cores: [usize; 2],
    /// The program's buffers of a socket; none: what the seed draws.
    pub(crate) tight: Option<usize>,
    /// How long streams linger, in microseconds; none: as they do by default.
    pub(crate) linger: Option<u64>,
    /// The disks fail.
    pub(crate) disk_errors: bool,
    /// The cores are kept after their end, to look at their books.
    pub(crate) keeps: bool,
    pub(crate) ends: Vec<(usize, End)>,
    /// When a host that is down starts again.
    pub(crate) restarts: Vec<(usize, u64)>,
    /// And when.
    pub(crate) events: Vec<(u64, Event)>,
    pub(crate) lanes: Vec<Lane>,
}

impl Event {
    fn draw(chance: &mut Chance) -> Self {
        let host = chance.below(2);
        // Most are short, some outlast what is waited for.
        let longest = if chance.one_in(4) { 8_000_000 } else { 20_000 };
        let time = chance.below(longest) as u64;
        match chance.below(6) {
            0 | 1 => Self::Partition(time),
            2 => Self::Cut { from: host, time },
            3 => Self::Reset,
            4 => Self::Jump { host, by: time },
            _ => Self::Wall { host, by: time, forwards: chance.one_in(2) },
        }
    }
}

impl Program {
    pub(crate) fn draw(seed: u64) -> Self {
        let chance = &mut Chance::new(seed ^ 0x00F0_0DED);
        let cores = [chance.up_to(3), chance.up_to(2)];
        let (mut ends, mut restarts) = (Vec::new(), Vec::new());
        for host in 0..2 {
            if chance.one_in(4) {
                let at = chance.below(60_000) as u64;
                ends.push((
                    host,
                    match chance.below(4) {
                        0 => End::Kill(at),
                        1 => End::PowerLoss(at),
                        _ => End::Exit(at),
                    },
                ));
                if chance.one_in(3) {
                    restarts.push((host, at + chance.below(20_000) as u64));
                }
            }
        }
        let events = if chance.one_in(3) { chance.up_to(3) } else { 0 };
        let events = (0..events).map(|_| (chance.below(40_000) as u64, Event::draw(chance)));
        let events = events.collect();
        let lanes = (0..chance.up_to(3) + 2).map(|lane| Lane::draw(lane, cores, chance)).collect();
        Self {
            seed,
            cores,
            tight: chance.one_in(3).then(|| 1 << chance.up_to(9)),
            linger: chance.one_in(3).then(|| chance.below(20_000) as u64),
            disk_errors: chance.one_in(4),
            keeps: !chance.one_in(4),
            ends,
            restarts,
            events,
            lanes,
        }
    }

    /// How many operations it has.
    pub(crate) fn size(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ops.len()).sum()
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, cores, tight, linger, disk_errors, keeps, .. } = self;
        let Self { ends, restarts, events, .. } = self;
        writeln!(f, "cores {cores:?}, sockets of {tight:?}, disk errors {disk_errors}")?;
        writeln!(f, "ends {ends:?}, restarts {restarts:?}, cores kept {keeps}, seed {seed}")?;
        writeln!(f, "linger {linger:?}, events {events:?}")?;
        for (number, Lane { host, core, ops }) in self.lanes.iter().enumerate() {
            writeln!(f, "lane {number} on host {host}, core {core}:")?;
            ops.iter().try_for_each(|op| writeln!(f, "  {op:?}"))?;
        }
        Ok(())
    }
}

impl Lane {
    fn draw(number: usize, cores: [usize; 2], chance: &mut Chance) -> Self {
        let host = number % 2;
        let core = chance.below(cores[host]);
        let mut ops = Vec::new();
        // Most programs need a connection to be about something.
        match number {
            0 => {
                ops.push(Op::Listen { at: 0, port: 1000 });
                for into in 0..chance.up_to(3) {
                    ops.push(Op::Accept { from: 0, into, how: How::Full });
                }
            }
            1 => {
                for into in 0..chance.up_to(3) {
                    ops.push(Op::Connect { host: 0, port: 1000, into, how: How::Full });
                }
            }
            _ => {}
        }
        let count = chance.up_to(24);
        ops.extend((0..count).map(|_| Op::draw(chance)));
        Self { host, core, ops }
    }
}

impl How {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(24) {
            0..=3 => Self::Cut(chance.up_to(4)),
            4..=7 => Self::Within(chance.below(3000) as u64),
            8..=11 => Self::Limit(chance.below(3000) as u64),
            12 => Self::Forget(chance.below(4)),
            _ => Self::Full,
        }
    }

    /// For a future that owns what the program would lose with it: dropped instead of forgotten.
    pub(crate) fn unforgotten(self) -> Self {
        if let Self::Forget(polls) = self { Self::Cut(polls.max(1)) } else { self }
    }
}

impl Op {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(22) {
            20 => Self::draw_together(chance),
            21 => Self::draw_end(chance),
            0..=4 => Self::draw_read(chance),
            5..=9 => Self::draw_write(chance),
            10 | 11 => Self::draw_connection(chance),
            12 | 13 => Self::draw_end(chance),
            14..=16 => Self::draw_file(chance),
            17 => Self::draw_pause(chance),
            _ => Self::draw_task(chance),
        }
    }

    /// On one stream.
    fn draw_together(chance: &mut Chance) -> Self {
        let place = chance.below(PLACES);
        let detach = Self::Detach { at: place, how: How::Full };
        let on_it = |mut op| {
            if let Self::Read { at, .. } | Self::Write { at, .. } = &mut op {
                *at = place;
            }
            op
        };
        // What waits or is half-way while its stream moves is a rare sight otherwise.
        let draw = |(shape, index): (usize, usize), chance: &mut Chance| match (shape, index) {
            (0..=2, 1) => detach.clone(),
            (0 | 1, _) => {
                let (by, length) = (Write::Send, 500 + chance.below(1500));
                Self::Write { at: place, by, length, how: How::Full }
            }
            (2, 0) => {
                let how = How::Forget(1 + chance.below(4));
                Self::Read { at: place, by: Read::Exact, length: 64, how }
            }
            (2, _) => {
                let op = Box::new(on_it(Self::draw_read(chance)));
                Self::Spawn { core: chance.below(3), into: chance.below(PLACES), op }
            }
            _ => match chance.below(8) {
                0 => detach.clone(),
                1..=3 => on_it(Self::draw_read(chance)),
                _ => on_it(Self::draw_write(chance)),
            },
        };
        let shape = chance.below(6);
        Self::Together((0..4).map(|index| draw((shape, index), chance)).collect())
    }

    fn draw_read(chance: &mut Chance) -> Self {
        const BY: [Read; 8] = [
            Read::Recv,
            Read::RecvInto,
            Read::Slice,
            Read::Exact,
            Read::Until,
            Read::Peek,
            Read::Readable,
            Read::Try,
        ];
        let by = if chance.one_in(4) { Read::Recv } else { BY[chance.below(BY.len())] };
        let (at, length) = (chance.below(PLACES), chance.up_to(64));
        Self::Read { at, by, length, how: How::draw(chance) }
    }

    fn draw_write(chance: &mut Chance) -> Self {
        const BY: [Write; 9] = [
            Write::Send,
            Write::SendAll,
            Write::Lease,
            Write::Slice,
            Write::All,
            Write::Vectored,
            Write::Flush,
            Write::Writable,
            Write::Try,
        ];
        let by = if chance.one_in(4) { Write::Send } else { BY[chance.below(BY.len())] };
        let longest = if chance.one_in(6) { 2000 } else { 100 };
        let (at, length) = (chance.below(PLACES), chance.below(longest));
        Self::Write { at, by, length, how: How::draw(chance) }
    }

    fn draw_connection(chance: &mut Chance) -> Self {
        let (at, port) = (chance.below(PLACES), 1000 + chance.below(2) as u16);
        match chance.below(7) {
            0 => Self::Listen { at, port },
            1..=3 => Self::Accept { from: at, into: chance.below(PLACES), how: How::draw(chance) },
            _ => Self::Connect { host: chance.below(2), port, into: at, how: How::draw(chance) },
        }
    }

    fn draw_end(chance: &mut Chance) -> Self {
        let at = chance.below(PLACES);
        match chance.below(20) {
            0 => Self::CloseListener { at, how: How::draw(chance) },
            1 => Self::DropListener(at),
            2 | 3 => Self::Shutdown { at, how: How::draw(chance) },
            4..=6 => Self::Detach { at, how: How::draw(chance) },
            7 | 8 => Self::Close { at, how: How::draw(chance) },
            9 => Self::Abort(at),
            10 | 16 | 17 => Self::Drop(at),
            11 | 12 | 18 | 19 => Self::Split { at, into: chance.below(PLACES) },
            13 => Self::Reunite(at),
            14 => Self::SplitLease(at),
            _ => Self::DropLease(at),
        }
    }

    fn draw_file(chance: &mut Chance) -> Self {
        const BY: [OnFile; 9] = [
            OnFile::Read,
            OnFile::ReadExact,
            OnFile::Write,
            OnFile::WriteAll,
            OnFile::SetLength,
            OnFile::Allocate,
            OnFile::SyncAll,
            OnFile::SyncData,
            OnFile::Metadata,
        ];
        let (at, how) = (chance.below(PLACES), How::draw(chance));
        match chance.below(12) {
            0..=2 => Self::Open { into: at, how },
            3 => Self::CloneFile { at, into: chance.below(PLACES) },
            4 => Self::CloseFile { at, how },
            5 => Self::DropFile(at),
            _ => {
                let by = if chance.one_in(3) { OnFile::Write } else { BY[chance.below(BY.len())] };
                let (offset, length) = (chance.below(1500), chance.up_to(500));
                Self::File { at, by, offset, length, how }
            }
        }
    }

    fn draw_pause(chance: &mut Chance) -> Self {
        match chance.below(4) {
            0 => Self::Yield,
            1 => Self::Blocking { how: How::draw(chance) },
            _ => Self::Sleep(chance.below(5000) as u64),
        }
    }

    fn draw_task(chance: &mut Chance) -> Self {
        let at = chance.below(PLACES);
        match chance.below(8) {
            0 => Self::Join { at, how: How::draw(chance) },
            1 => Self::AbortTask(at),
            2 => Self::DropTask(at),
            3 if chance.one_in(3) => Self::AbortLane(at),
            _ => {
                let op = Box::new(Self::draw(chance));
                Self::Spawn { core: chance.below(3), into: at, op }
            }
        }
    }
}
