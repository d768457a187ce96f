//! What is left when the power goes: exactly what was synced, and of the rest anything.

use quoit::__private::{DiskOptions, Survival};
use quoit::fs::{File, OpenOptions};

use super::{PATH, contents, disk, file_on, retried, settle, stamp, without_errors};
use crate::dice::Dice;
use crate::under_seeds;

/// Writes, and syncs now and then. Each step is the file as it was; the last sync was after step
/// `.1`.
async fn history(file: &File, dice: &Dice) -> (Vec<Vec<u8>>, usize) {
    let (mut past, mut synced) = (vec![Vec::new()], 0);
    for id in 1..=dice.up_to(12) as u8 {
        let mut next = past[past.len() - 1].clone();
        let (at, length) = (dice.below(6000), dice.up_to(3000));
        match dice.below(8) {
            0 => {
                file.set_len(at as u64).await.unwrap();
                next.resize(at, 0);
            }
            1 => {
                match dice.one_in(2) {
                    true => file.sync_all().await.unwrap(),
                    false => file.sync_data().await.unwrap(),
                }
                synced = past.len() - 1;
            }
            _ => {
                file.write_all_at(stamp(id, length), at as u64).await.unwrap();
                next.resize(next.len().max(at + length), 0);
                next[at..at + length].fill(id);
            }
        }
        past.push(next);
    }
    (past, synced)
}

#[test]
fn a_crash_keeps_what_was_synced_and_makes_nothing_up() {
    under_seeds(1500, |dice| async move {
        let file = file_on(without_errors(&dice)).await;
        let (past, synced) = history(&file, &dice).await;
        disk(|disk| disk.crash());
        // The program does not know yet: its file fails from now on, and closes.
        let failed = file.write_at(stamp(99, 10), 0).await.unwrap_err();
        assert_eq!(failed.error().raw_os_error(), Some(libc::EIO));
        drop(file);

        let left = contents();
        let since = &past[synced..];
        let lengths = || since.iter().map(Vec::len);
        let possible = lengths().min().unwrap()..=lengths().max().unwrap();
        assert!(possible.contains(&left.len()), "{} bytes, not {possible:?}", left.len());
        for (at, byte) in left.iter().enumerate() {
            let was = |file: &Vec<u8>| file.get(at).copied().unwrap_or(0) == *byte;
            assert!(since.iter().any(was), "byte {at} is {byte}, which it never was");
        }
        // Life goes on.
        let file = OpenOptions::new().read(true).write(true).open(PATH).await.unwrap();
        file.write_all_at(stamp(100, 10), 0).await.unwrap();
        file.sync_all().await.unwrap();
        disk(|disk| disk.crash());
        assert_eq!(contents()[..10], stamp(100, 10));
    });
}

/// A record of the journal: its number and its length, a check of both, and its bytes. Nothing of
/// it is zero, so that a hole is no record.
fn record(id: u8, length: u8) -> Vec<u8> {
    let check = id.wrapping_mul(31) ^ length | 1;
    let body = (0..length).map(|at| id.wrapping_mul(7).wrapping_add(at) | 1);
    [id, length, check].into_iter().chain(body).collect()
}

/// The numbers of the records at the front of a journal that are whole.
fn replay(mut journal: &[u8]) -> Vec<u8> {
    let mut ids = Vec::new();
    while let [id @ 1..=99, length, ..] = *journal {
        let whole = record(id, length);
        let Some(rest) = journal.strip_prefix(&whole[..]) else { break };
        ids.push(id);
        journal = rest;
    }
    ids
}

#[test]
fn a_journal_that_syncs_each_record_loses_none_that_it_has_acknowledged() {
    under_seeds(1500, |dice| async move {
        let file = file_on(without_errors(&dice)).await;
        let (mut end, mut acknowledged) = (0, Vec::new());
        for id in 1..=dice.up_to(20) as u8 {
            let bytes = record(id, dice.up_to(200) as u8);
            let length = bytes.len() as u64;
            file.write_all_at(bytes, end).await.unwrap();
            end += length;
            if dice.one_in(3) {
                file.sync_data().await.unwrap();
                acknowledged = (1..=id).collect();
            }
        }
        // Something is in flight when it happens, now and then.
        drop(dice.cut(file.write_at(record(99, 100), end)).await);
        disk(|disk| disk.crash());
        settle().await;
        let found = replay(&contents());
        assert!(found.starts_with(&acknowledged), "{found:?} of {acknowledged:?}");
    });
}

#[test]
fn a_failed_sync_is_no_acknowledgement() {
    under_seeds(800, |dice| async move {
        let file = file_on(without_errors(&dice).sync_errors(3)).await;
        let (mut end, mut acknowledged) = (0, Vec::new());
        for id in 1..=10 {
            let bytes = record(id, dice.up_to(200) as u8);
            let length = bytes.len() as u64;
            if file.write_all_at(bytes, end).await.is_err() {
                break;
            }
            end += length;
            if file.sync_data().await.is_err() {
                // Whatever the program tries now: without the file's memory, the next sync would
                // answer that all is well.
                assert!(file.sync_data().await.is_err() && file.sync_all().await.is_err());
                break;
            }
            acknowledged.push(id);
        }
        disk(|disk| disk.crash());
        let found = replay(&contents());
        assert!(found.starts_with(&acknowledged), "{found:?} of {acknowledged:?}");
    });
}

#[test]
fn a_new_file_is_certain_when_its_directory_was_synced() {
    under_seeds(800, |dice| async move {
        let survival = if dice.one_in(2) { Survival::Posix } else { Survival::Ordered };
        let options = DiskOptions::new().survival(survival).open_errors(2 * dice.below(3) as u32);
        disk(|disk| {
            disk.make_directory("/data");
            disk.set_options(options);
        });
        let file = retried(async || File::create(PATH).await).await.unwrap();
        file.write_all_at("it is there", 0).await.unwrap();
        file.sync_all().await.unwrap();
        let syncs_directory = dice.one_in(2);
        if syncs_directory {
            let directory = retried(async || File::open("/data").await).await.unwrap();
            directory.sync_all().await.unwrap();
        }
        disk(|disk| disk.crash());
        let left = disk(|disk| disk.contents(PATH));
        match &left {
            Some(bytes) => assert_eq!(bytes, b"it is there"),
            None => assert!(!syncs_directory && survival == Survival::Posix),
        }
        left.is_some()
    });
}
