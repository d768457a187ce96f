//! Files of a host: numbers of the disk's handles, and requests that a disk works on.

use super::disk::{Disk, Handle, Step, Work};
use super::pending::descriptor_of;
use super::plan::{Fault, Site};
use super::state::{Kind, State};
use super::world::{self, FIRST};
use crate::io::request::{ReadAt, Request, WriteAt};

/// What a disk has come to with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It is busy until then.
    Until(u64),
    /// There is more to do.
    GoesOn,
    Over(i32),
}

impl State {
    /// The disk of a host, which knows what time it is.
    pub(crate) fn disk(&mut self, host: usize) -> &mut Disk {
        let time = self.time_of_day(self.hosts[host].boot);
        let disk = &mut self.hosts[host].disk;
        disk.set_time(time);
        disk
    }

    /// The disk that a life of a host has.
    pub(super) fn disk_of(&mut self, boot: usize) -> &mut Disk {
        self.disk(self.boots[boot].host)
    }

    pub(super) fn file(&mut self, number: i32) -> Result<Handle, i32> {
        // A number of the machine's is none of a file here.
        if number < FIRST {
            return Err(-libc::EBADF);
        }
        match self.socket(number)?.kind {
            Kind::File(handle) => Ok(handle),
            _ => Err(-libc::ESPIPE),
        }
    }

    /// The flags of an open file, or none.
    pub(super) fn status_flags(&mut self, number: i32) -> i32 {
        let file = self.file(number);
        file.map_or(0, |handle| self.disk_of(world::boot_of(number)).flags(handle))
    }

    /// Lets the disk go on with a request.
    pub(super) fn work(
        &mut self,
        boot: usize,
        work: &mut Work,
        request: &Request,
        is_cancelled: bool,
    ) -> Progress {
        let number = match request {
            Request::Close(close) => Some(close.descriptor),
            _ => descriptor_of(request),
        };
        let file = number.map_or(Err(-libc::EBADF), |number| self.file(number));
        let now = self.now();
        let disk = self.disk_of(boot);
        if is_cancelled {
            if let Some(result) = work.cancel(request, file, disk) {
                return Progress::Over(result);
            }
        }
        match (work.step(request, file, disk, now), number) {
            (Step::Until(due), _) => Progress::Until(due),
            (Step::GoesOn, _) => Progress::GoesOn,
            (Step::Over(result), _) => Progress::Over(result),
            (Step::Opened(handle), _) => {
                Progress::Over(self.open(boot, Kind::File(handle), true, Vec::new()))
            }
            (Step::Close, number) => {
                Progress::Over(self.close(number.expect("a close names a number")))
            }
        }
    }

    /// Cuts a request for a file down to the least that it may be about.
    pub(super) fn shorten(&mut self, request: &mut Request) {
        let (number, length) = match request {
            Request::ReadAt(ReadAt { descriptor, length, .. })
            | Request::WriteAt(WriteAt { descriptor, length, .. }) => (*descriptor, length),
            _ => return,
        };
        let is_direct = self.status_flags(number) & libc::O_DIRECT != 0;
        let least = if is_direct { self.disk_of(world::boot_of(number)).alignment() } else { 1 };
        *length = (*length).min(least);
    }

    /// A read that is answered at once if it can be; `None` if not.
    pub(super) fn try_read(
        &mut self,
        boot: usize,
        mut read: ReadAt,
    ) -> Option<Result<Vec<u8>, i32>> {
        match self.ask(boot, Site::ReadNow) {
            Some(Fault::Fails(libc::EAGAIN)) => return None,
            Some(Fault::Fails(error)) => return Some(Err(-error)),
            Some(Fault::Short) => {
                let mut request = Request::ReadAt(read);
                self.shorten(&mut request);
                let Request::ReadAt(shorter) = request else { unreachable!("it is the same") };
                read = shorter;
            }
            _ => {}
        }
        match self.file(read.descriptor) {
            Ok(handle) => {
                let disk = self.disk_of(world::boot_of(read.descriptor));
                disk.try_read(handle, read.offset, read.length)
            }
            Err(error) => Some(Err(error)),
        }
    }
}
