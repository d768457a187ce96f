//! Random programs on one file. The model keeps the file as it was after each step since the last
//! sync; a crash may mix these, and nothing else.

use super::*;

/// All that a file has been since the last sync. The first is what the sync has kept.
struct History(Vec<Vec<u8>>);

impl History {
    fn now(&self) -> &Vec<u8> {
        self.0.last().expect("there is always one")
    }

    fn then(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.0.push(next);
    }

    fn forget(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    /// Whether a crash may leave this.
    fn allows(&self, left: &[u8]) -> Result<(), String> {
        let lengths = || self.0.iter().map(Vec::len);
        let (least, most) = (lengths().min().unwrap(), lengths().max().unwrap());
        if left.len() < least || left.len() > most {
            return Err(format!("{} bytes, not {least} to {most}", left.len()));
        }
        for (at, byte) in left.iter().enumerate() {
            let was = |past: &Vec<u8>| past.get(at).copied().unwrap_or(0) == *byte;
            if !self.0.iter().any(was) {
                return Err(format!("byte {at} is {byte}, which it never was"));
            }
        }
        Ok(())
    }
}

/// Puts bytes into the model of a file.
fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn a_crash_leaves_what_was_synced_and_a_mix_of_what_came_after() {
    const FAR: usize = 20_000;
    for seed in 0..SEEDS {
        for survival in both() {
            let mut chance = Chance::new(!seed);
            let sector = if chance.one_in(2) { 512 } else { 4096 };
            let options = DiskOptions::new().survival(survival).sector(sector);
            let mut disk = disk(seed, options);
            disk.put("/var/file", b"");
            let mut handle = read_write(&mut disk, "/var/file");
            let mut history = History(vec![Vec::new()]);
            for step in 0..60_u8 {
                match chance.below(12) {
                    0..=4 => {
                        let (at, length) = (chance.below(FAR), chance.up_to(6000));
                        let bytes = vec![step + 1; length];
                        assert_eq!(write(&mut disk, handle, at as u64, &bytes), length);
                        history.then(|file| put(file, at, &bytes));
                    }
                    5 | 6 => {
                        let length = chance.below(FAR);
                        assert_eq!(disk.set_length(handle, length as u64), Some(0));
                        history.then(|file| file.resize(length, 0));
                    }
                    7 => {
                        let (at, length) = (chance.below(FAR), chance.up_to(6000));
                        assert_eq!(disk.allocate(handle, at as u64, length as u64), Some(0));
                        history.then(|file| file.resize(file.len().max(at + length), 0));
                    }
                    8 => {
                        assert_eq!(disk.synchronize(handle), 0);
                        history.forget();
                    }
                    9 => {
                        let (at, room) = (chance.below(FAR), chance.up_to(FAR));
                        let (now, end) = (history.now(), (at + room).min(history.now().len()));
                        let read = disk.read(handle, 0, at as u64, room as u32).unwrap();
                        assert_eq!(read, now[at.min(end)..end], "seed {seed}");
                    }
                    10 => (0..32).for_each(|_| disk.write_back()),
                    _ => {
                        disk.crash();
                        let left = disk.contents("/var/file").expect("its name was synced");
                        if let Err(what) = history.allows(&left) {
                            panic!("{what}: seed {seed}, {survival:?}, step {step}");
                        }
                        history = History(vec![left]);
                        handle = read_write(&mut disk, "/var/file");
                    }
                }
                assert_eq!(disk.contents("/var/file").as_ref(), Some(history.now()), "seed {seed}");
            }
        }
    }
}

#[test]
fn in_order_an_appended_file_is_a_prefix_of_itself() {
    let (mut kept, mut cut) = (0, 0);
    for seed in 0..SEEDS {
        let mut chance = Chance::new(!seed);
        let mut disk = disk(seed, DiskOptions::new().survival(Survival::Ordered));
        disk.put("/log", b"");
        let handle = read_write(&mut disk, "/log");
        let (mut log, mut synced) = (Vec::new(), 0);
        for step in 0..chance.up_to(40) {
            let bytes = vec![step as u8 + 1; chance.up_to(3000)];
            write(&mut disk, handle, log.len() as u64, &bytes);
            log.extend(bytes);
            if chance.one_in(6) {
                disk.write_back();
            }
            if chance.one_in(8) {
                assert_eq!(disk.synchronize(handle), 0);
                synced = log.len();
            }
        }
        disk.crash();
        let left = disk.contents("/log").unwrap();
        assert!(left.len() >= synced && log.starts_with(&left), "seed {seed}: {}", left.len());
        kept += u32::from(left.len() == log.len());
        cut += u32::from(left.len() > synced && left.len() < log.len());
    }
    assert!(kept > 0 && cut > 0, "{kept} kept, {cut} cut");
}

/// A log that is cut and written on: the disk has it as it was, or as far as it has come since.
/// What was written behind the cut is never seen in what was there before.
#[test]
fn in_order_what_follows_a_cut_waits_for_it() {
    let (mut before, mut cut, mut on) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut chance = Chance::new(!seed);
        let sector = if chance.one_in(2) { 512 } else { 4096 };
        let options = DiskOptions::new().survival(Survival::Ordered).sector(sector);
        let mut disk = disk(seed, options);
        let old = vec![1; chance.up_to(9000)];
        disk.put("/log", &old);
        let handle = read_write(&mut disk, "/log");
        let kept = chance.below(old.len());
        assert_eq!(disk.set_length(handle, kept as u64), Some(0));
        let mut new = old[..kept].to_vec();
        for step in 0..chance.up_to(4) {
            let bytes = vec![step as u8 + 2; chance.up_to(2000)];
            write(&mut disk, handle, new.len() as u64, &bytes);
            new.extend(bytes);
            (0..4).for_each(|_| disk.write_back());
        }
        disk.crash();
        let left = disk.contents("/log").unwrap();
        let is_new = left.len() >= kept && new.starts_with(&left);
        assert!(left == old || is_new, "seed {seed}: {kept} of {}, {left:?}", old.len());
        before += u32::from(left == old);
        cut += u32::from(left.len() == kept);
        on += u32::from(is_new && left.len() > kept);
    }
    assert!(before > 0 && cut > 0 && on > 0, "{before} as before, {cut} cut, {on} written on");
}

#[test]
fn writes_are_torn_between_sectors_and_reordered() {
    for sector in [512, 4096] {
        let (mut torn, mut reordered) = (0, 0);
        for seed in 0..SEEDS {
            let mut disk = disk(seed, DiskOptions::new().sector(sector));
            disk.put("/file", &[0; 4 * 4096]);
            let handle = read_write(&mut disk, "/file");
            write(&mut disk, handle, 0, &[1; 4 * 4096]);
            write(&mut disk, handle, 4096, &[2; 4096]);
            disk.crash();
            let left = disk.contents("/file").unwrap();
            for sector in left.chunks(sector) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is atomic");
            }
            let second = &left[4096..2 * 4096];
            torn += u32::from(second.contains(&2) && second.contains(&0));
            reordered += u32::from(left[0] == 0 && second[0] == 2);
        }
        assert!(reordered > 0, "the later write without the earlier");
        assert_eq!(torn > 0, sector == 512, "a page is torn between its sectors");
    }
}

#[test]
fn a_failed_sync_is_told_once_and_loses_some() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..SEEDS {
        let mut disk = disk(seed, DiskOptions::new().sync_errors(1));
        disk.put("/file", &[0; 4096]);
        let handle = read_write(&mut disk, "/file");
        write(&mut disk, handle, 0, &[1; 4096]);
        assert_eq!(disk.synchronize(handle), -libc::EIO);
        disk.set_options(DiskOptions::new());
        assert_eq!(disk.synchronize(handle), 0, "told once");
        assert_eq!(disk.contents("/file").unwrap(), [1; 4096], "reads do not show it");
        disk.crash();
        let left = disk.contents("/file").unwrap();
        lost += u32::from(left.contains(&0));
        kept += u32::from(left.contains(&1));
        disk.crash();
        assert_eq!(disk.contents("/file").unwrap(), left, "what a crash leaves stays");
    }
    assert!(lost > 0 && kept > 0);
}

#[test]
fn space_is_counted_in_pages_and_a_hole_takes_none() {
    let mut disk = disk(0, DiskOptions::new().capacity(3 * 4096));
    let handle = read_write(&mut disk, "/file");
    assert_eq!(write(&mut disk, handle, 3 << 40, b"far"), 3);
    assert_eq!(disk.read(handle, 0, (3 << 40) - 2, 9).unwrap(), b"\0\0far");
    assert_eq!(disk.metadata(handle).unwrap().read().blocks, 8);
    assert_eq!(write(&mut disk, handle, 100, &[1; 3 * 4096]), 2 * 4096 - 100, "what fits");
    assert_eq!(write(&mut disk, handle, 5 * 4096, &[1]), 0);
    assert_eq!(write(&mut disk, handle, 200, &[2; 4096]), 4096, "over what is there");
    assert_eq!(disk.allocate(handle, 0, 2 * 4096), Some(0));
    assert_eq!(disk.allocate(handle, 0, 2 * 4096 + 1), Some(-libc::ENOSPC));
    assert_eq!(disk.set_length(handle, 1), Some(0));
    assert_eq!(disk.allocate(handle, 0, 3 * 4096), Some(0), "what was cut off is free");
    assert_eq!(disk.metadata(handle).unwrap().read().blocks, 24);
    assert_eq!(disk.contents("/file").unwrap()[1..], [0; 3 * 4096 - 1]);
}
