//! Requests to the disk, through the ring: what they answer, and what becomes of lent memory.

use std::rc::Rc;

use super::*;
use crate::io::request::{
    Close, Completion, Open, ReadAt, Request, SetLength, Synchronize, Token, Whence, WriteAt,
};
use crate::io::ring::simulated::Simulated;
use crate::io::ring::simulated::tests::alone;
use crate::io::ring::simulated::world::{Entered, World};

/// A ring in a world of its own, with `/file` open.
struct Bench {
    ring: Simulated,
    world: Rc<World>,
    file: i32,
    _entered: Entered,
}

impl Bench {
    fn new(seed: u64, options: DiskOptions, bytes: &[u8], flags: i32) -> Self {
        let (world, entered, ring) = alone(seed);
        world.with_disk(|disk| disk.put("/file", bytes));
        let mut bench = Self { ring, world, file: -1, _entered: entered };
        bench.file = bench.open(c"/file", flags);
        assert!(bench.file >= 0, "{}", bench.file);
        bench.world.with_disk(|disk| disk.set_options(options));
        bench
    }

    fn open(&mut self, path: &CStr, flags: i32) -> i32 {
        self.answer(Request::Open(Open { path: path.as_ptr(), flags, mode: 0o666 }))
    }

    fn submit(&mut self, token: u64, request: Request) {
        // SAFETY: each test keeps its memory until the answer, or until the ring is dropped, which
        // touches nothing.
        unsafe { self.ring.submit(Token(token), &request) };
    }

    fn until(&mut self, count: usize) -> Vec<Completion> {
        let mut found = Vec::new();
        while found.len() < count {
            self.ring.turn_in_time(&mut found);
        }
        found
    }

    fn answer(&mut self, request: Request) -> i32 {
        self.submit(7, request);
        self.until(1)[0].result
    }

    fn read(&self, into: &mut [u8], offset: u64) -> Request {
        let (address, length) = (into.as_mut_ptr(), into.len() as u32);
        let whence = Whence::Cache;
        Request::ReadAt(ReadAt { descriptor: self.file, address, length, offset, whence })
    }

    fn write(&self, from: &[u8], offset: u64) -> Request {
        let (address, length) = (from.as_ptr(), from.len() as u32);
        let whence = Whence::Cache;
        Request::WriteAt(WriteAt { descriptor: self.file, address, length, offset, whence })
    }

    fn contents(&self) -> Vec<u8> {
        self.world.with_disk(|disk| disk.contents("/file")).unwrap()
    }
}

use std::ffi::CStr;

#[test]
fn a_short_count_is_of_what_was_done_and_comes_as_often_as_asked() {
    let options = DiskOptions::new().short_reads(2).short_writes(2);
    let (mut short_reads, mut short_writes) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, options.clone(), &[1; 100], libc::O_RDWR);
        let mut into = [9; 200];
        let request = bench.read(&mut into, 50);
        let count = bench.answer(request) as usize;
        assert!((1..=50).contains(&count));
        assert!(into[..count] == vec![1; count] && into[count..] == vec![9; 200 - count]);
        short_reads += u32::from(count < 50);
        let from = [2; 80];
        let request = bench.write(&from, 60);
        let count = bench.answer(request) as usize;
        assert!((1..=80).contains(&count));
        let mut expected = vec![1; 100];
        expected.resize(100.max(60 + count), 0);
        expected[60..60 + count].fill(2);
        assert_eq!(bench.contents(), expected);
        short_writes += u32::from(count < 80);
    }
    let half = SEEDS as u32 / 2;
    for often in [short_reads, short_writes] {
        assert!((half - 60..=half + 60).contains(&often), "{often} of {SEEDS}");
    }
}

#[test]
fn a_failed_write_may_have_written_its_front_and_nothing_else() {
    let mut fronts = 0;
    for seed in 0..SEEDS {
        let options = DiskOptions::new().write_errors(1);
        let mut bench = Bench::new(seed, options, &[1; 100], libc::O_RDWR);
        let from = [2; 100];
        let request = bench.write(&from, 0);
        assert_eq!(bench.answer(request), -libc::EIO);
        let left = bench.contents();
        let front = left.iter().take_while(|byte| **byte == 2).count();
        assert!(left.len() == 100 && left[front..].iter().all(|byte| *byte == 1));
        fronts += u32::from(front > 0);
    }
    assert!(fronts > 0);
}

#[test]
fn a_cancelled_write_tells_exactly_how_much_of_it_was_done() {
    let (mut clean, mut partial, mut whole) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, DiskOptions::new(), &[], libc::O_RDWR);
        let from = [2; 1000];
        let request = bench.write(&from, 0);
        bench.submit(1, request);
        let mut found = Vec::new();
        for _ in 0..seed % 8 {
            bench.ring.turn_in_time(&mut found);
        }
        bench.ring.cancel(Token(1));
        while found.is_empty() {
            bench.ring.turn_in_time(&mut found);
        }
        let result = found[0].result;
        let count = if [-libc::ECANCELED, -libc::EINTR].contains(&result) { 0 } else { result };
        assert_eq!(bench.contents(), vec![2; count as usize], "seed {seed}: {result}");
        clean += u32::from(count == 0);
        partial += u32::from((1..1000).contains(&count));
        whole += u32::from(count == 1000);
        let next = [3; 10];
        let request = bench.write(&next, 0);
        assert_eq!(bench.answer(request), 10, "nobody else has the file");
    }
    assert!(clean > 0 && partial > 0 && whole > 0, "{clean} {partial} {whole}");
}

#[test]
fn writes_do_not_mix_and_appends_do_not_overlap() {
    let mut orders = std::collections::HashSet::new();
    for seed in 0..SEEDS {
        let flags = libc::O_WRONLY | libc::O_APPEND;
        let mut bench = Bench::new(seed, DiskOptions::new(), b"0", flags);
        let all = [[1; 300], [2; 300], [3; 300]];
        for (token, from) in all.iter().enumerate() {
            let request = bench.write(from, 0);
            bench.submit(token as u64, request);
        }
        assert!(bench.until(3).iter().all(|completion| completion.result == 300));
        let left = bench.contents();
        assert_eq!((left.len(), left[0]), (901, b'0'));
        let runs = left[1..].chunks(300);
        assert!(runs.clone().all(|run| run.iter().all(|byte| *byte == run[0])), "seed {seed}");
        orders.insert(runs.map(|run| run[0]).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 6, "all orders of three");
}

#[test]
fn requests_of_one_file_pass_each_other() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, DiskOptions::new(), b"", libc::O_RDWR);
        let from = [1; 10];
        let (write, descriptor) = (bench.write(&from, 0), bench.file);
        bench.submit(1, write);
        bench.submit(2, Request::SetLength(SetLength { descriptor, length: 0 }));
        bench.submit(3, Request::Synchronize(Synchronize { descriptor, data_only: true }));
        bench.until(3);
        let left = bench.contents();
        before += u32::from(left.is_empty());
        after += u32::from(left == from);
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[test]
fn memory_of_a_read_is_noise_until_the_answer_is_there() {
    let mut noisy = 0;
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, DiskOptions::new(), &[1; 100], libc::O_RDONLY);
        let mut into = vec![9; 1000];
        let address = into.as_mut_ptr();
        let request = bench.read(&mut into, 0);
        bench.submit(1, request);
        let mut found = Vec::new();
        while found.is_empty() {
            // SAFETY: within the memory; nobody else looks at it just now.
            let seen = unsafe { (address.read(), address.add(999).read()) };
            noisy += u32::from(seen != (9, 9));
            bench.ring.turn_in_time(&mut found);
        }
        let mut expected = vec![1; 100];
        expected.resize(1000, 9);
        assert_eq!((found[0].result, &into), (100, &expected));
    }
    assert!(noisy > 0);
}

#[test]
#[should_panic(expected = "the bytes of a write changed while it was in flight")]
fn bytes_of_a_write_must_not_change() {
    let mut bench = Bench::new(0, DiskOptions::new(), b"", libc::O_RDWR);
    let mut bytes = vec![1; 50];
    let address = bytes.as_mut_ptr();
    let request = bench.write(&bytes, 0);
    bench.submit(1, request);
    // SAFETY: within the bytes, which nobody else looks at just now.
    unsafe { address.add(49).write(7) };
    bench.until(1);
}

#[test]
#[should_panic(expected = "is named by 1 requests in flight")]
fn a_file_in_use_must_not_be_closed() {
    let mut bench = Bench::new(0, DiskOptions::new(), b"bytes", libc::O_RDWR);
    let mut into = [0; 5];
    let request = bench.read(&mut into, 0);
    bench.submit(1, request);
    bench.world.close(bench.file);
}

#[test]
fn a_close_tells_what_went_wrong_and_frees_the_number() {
    let options = DiskOptions::new().close_errors(1);
    let mut bench = Bench::new(0, options, b"", libc::O_RDWR);
    let descriptor = bench.file;
    assert_eq!(bench.answer(Request::Close(Close { descriptor })), -libc::EIO);
    assert_eq!(bench.answer(Request::Close(Close { descriptor })), -libc::EBADF);
    assert_eq!(bench.open(c"/file", libc::O_RDONLY), descriptor, "the lowest that is free");
}

#[test]
fn a_crash_ends_what_is_in_flight() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, DiskOptions::new(), &[1; 2000], libc::O_RDWR);
        let from = [2; 2000];
        let request = bench.write(&from, 0);
        bench.submit(1, request);
        let mut found = Vec::new();
        for _ in 0..seed % 8 {
            bench.ring.turn_in_time(&mut found);
        }
        bench.world.with_disk(Disk::crash);
        let left = bench.contents();
        while found.is_empty() {
            bench.ring.turn_in_time(&mut found);
        }
        assert!([2000, -libc::EIO].contains(&found[0].result), "{found:?}");
        assert_eq!(bench.contents(), left, "written after the crash");
    }
}
