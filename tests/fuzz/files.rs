//! Operations on files. One at a time is awaited on each file; those that were dropped go on.

use std::io;
use std::time::Duration;

use quoit::fs::{File, OpenOptions};

use crate::model::FileModel;
use crate::place::{Place, run};
use crate::program::{How, OnFile, Op};

/// An open file, and the number of its model.
#[derive(Debug)]
pub(crate) struct Opened {
    file: Option<File>,
    number: usize,
    place: crate::ledger::Shared,
    host: usize,
}

impl Opened {
    fn new(place: &Place, file: File, number: usize) -> Self {
        place.shared.lock().files[place.host][number].handles += 1;
        Self { file: Some(file), number, place: place.shared.clone(), host: place.host }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("it is taken by a close, which owns it")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.place.lock().files[self.host][self.number].handles -= 1;
    }
}

pub(crate) fn path(number: usize) -> String {
    format!("/data/{number}")
}

pub(crate) async fn perform(place: &Place, op: Op) {
    match op {
        Op::Open { into, how } => open(place, into, how).await,
        Op::File { at, by, offset, length, how } => {
            let Some(opened) = place.file(at) else { return };
            let Some(busy) = Busy::new(place, opened.number, how) else { return };
            let undone = run(how, change(&busy, opened.file(), by, (offset, length), how)).await;
            if undone.is_none() && matches!(how, How::Forget(1..)) {
                // It goes on as if it was awaited: others would be concurrent to it.
                std::mem::forget(busy);
            }
        }
        Op::CloneFile { at, into } => {
            let Some(opened) = place.file(at) else { return };
            let clone = Opened::new(place, opened.file().clone(), opened.number);
            drop(opened);
            let before = place.objects().files[into].replace(clone.into());
            drop(before);
        }
        Op::CloseFile { at, how } => {
            let Some(opened) = place.take_file(at).and_then(std::sync::Arc::into_inner) else {
                return;
            };
            run(how.unforgotten(), close(place, opened)).await;
        }
        Op::DropFile(at) => drop(place.take_file(at)),
        _ => unreachable!("not about a file: {op:?}"),
    }
}

async fn open(place: &Place, into: usize, how: How) {
    let number = {
        let files = &mut place.shared.lock().files[place.host];
        // Only of one that was closed, and awaited, is it known what it holds.
        let closed = files.iter().position(|file| file.closed && file.handles == 0);
        closed.unwrap_or_else(|| {
            files.push(FileModel::new());
            files.len() - 1
        })
    };
    place.shared.lock().files[place.host][number].closed = false;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    let opening = async {
        match how {
            How::Limit(limit) => {
                options.open(path(number)).timeout(Duration::from_micros(limit)).await
            }
            _ => options.open(path(number)).await,
        }
    };
    match run(how, opening).await {
        Some(Ok(file)) => {
            let opened = Opened::new(place, file, number);
            let before = place.objects().files[into].replace(opened.into());
            drop(before);
        }
        Some(Err(error)) => place.look_at("an open", &error),
        None => {}
    }
}

pub(crate) async fn close(place: &Place, mut opened: Opened) {
    let file = opened.file.take().expect("nobody else takes it");
    let outcome = file.close().await;
    let mut ledger = place.shared.lock();
    let model = &mut ledger.files[place.host][opened.number];
    match outcome {
        Ok(()) => {
            if model.failed {
                ledger.fail("a file whose sync has failed closes as if nothing was");
            } else {
                model.unsettled = false;
                model.closed = model.handles == 1;
            }
        }
        Err(error) => {
            drop(ledger);
            place.look_at("a close", &error);
        }
    }
}

/// A file's turn, until it is dropped.
struct Busy<'a> {
    place: &'a Place,
    number: usize,
    how: How,
}

impl<'a> Busy<'a> {
    fn new(place: &'a Place, number: usize, how: How) -> Option<Self> {
        let mut ledger = place.shared.lock();
        let model = &mut ledger.files[place.host][number];
        let was_busy = std::mem::replace(&mut model.busy, true);
        drop(ledger);
        (!was_busy).then(|| Self { place, number, how })
    }

    fn with<R>(&self, look: impl FnOnce(&mut FileModel) -> R) -> R {
        let mut ledger = self.place.shared.lock();
        ledger.done += 1;
        look(&mut ledger.files[self.place.host][self.number])
    }

    fn found(&self, at: usize, bytes: &[u8]) {
        let all = bytes.is_empty();
        if let Err(text) = self.with(|model| model.read(at, bytes, all)) {
            self.place.shared.lock().fail(format!("file {}: {text}", self.number));
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.with(|model| model.busy = false);
    }
}

async fn change(
    busy: &Busy<'_>,
    file: &File,
    by: OnFile,
    (offset, length): (usize, usize),
    how: How,
) {
    let at = offset as u64;
    let limit = match how {
        How::Limit(limit) => Duration::from_micros(limit),
        _ => Duration::from_secs(3600),
    };
    let outcome: io::Result<()> = match by {
        OnFile::Read => {
            let read = file.read_at(Vec::with_capacity(length), at).timeout(limit).await;
            read.map_err(Into::into).map(|(_, bytes)| busy.found(offset, &bytes))
        }
        OnFile::ReadExact => {
            let read = file.read_exact_at(Vec::with_capacity(length), at).timeout(limit).await;
            read.map_err(Into::into).map(|bytes| busy.found(offset, &bytes))
        }
        OnFile::Write | OnFile::WriteAll => write(busy, file, by, (offset, length), limit).await,
        OnFile::SetLength => {
            busy.with(|model| model.begin_cut(offset));
            let cut = file.set_len(at).timeout(limit).await;
            cut.map(|()| busy.with(|model| model.was_cut(offset)))
        }
        OnFile::Allocate => {
            let was = busy.with(|model| model.before());
            busy.with(|model| model.begin_allocate(offset + length));
            let allocated = file.allocate(at, length as u64).timeout(limit).await;
            allocated.map(|()| busy.with(|model| model.allocated(offset + length, was)))
        }
        OnFile::SyncAll => synced(busy, file.sync_all().timeout(limit).await),
        OnFile::SyncData => synced(busy, file.sync_data().timeout(limit).await),
        OnFile::Metadata => file.metadata().timeout(limit).await.map(|metadata| {
            let length = metadata.len() as usize;
            if !busy.with(|model| model.is_length(length)) {
                busy.place.shared.lock().fail(format!("file {} has {length}", busy.number));
            }
        }),
    };
    if let Err(error) = outcome {
        busy.place.look_at("a file operation", &error);
    }
}

fn synced(busy: &Busy<'_>, outcome: io::Result<()>) -> io::Result<()> {
    let failed = outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EIO));
    let too_good = busy.with(|model| {
        if outcome.is_ok() {
            model.unsettled = false;
        }
        model.failed |= failed;
        outcome.is_ok() && model.failed
    });
    if too_good {
        busy.place.shared.lock().fail("a sync succeeds after one that has failed");
    }
    outcome
}

async fn write(
    busy: &Busy<'_>,
    file: &File,
    by: OnFile,
    (offset, length): (usize, usize),
    limit: Duration,
) -> io::Result<()> {
    let range = offset..offset + length;
    let (id, was) = busy.with(|model| (model.next_id(), model.before()));
    busy.with(|model| model.begin(range.clone(), id));
    let buffer = busy.place.shared.counted(vec![id; length]);
    if matches!(busy.how, How::Forget(_)) {
        busy.place.shared.lock().may_lose(&buffer);
    }
    let written = match by {
        OnFile::Write => file.write_at(buffer, offset as u64).timeout(limit).await,
        _ => {
            let written = file.write_all_at(buffer, offset as u64).timeout(limit).await;
            written.map(|buffer| (length, buffer))
        }
    };
    let (count, buffer) = written?;
    if buffer.bytes != vec![id; length] {
        busy.place.shared.lock().fail("a write gives another buffer back");
    }
    busy.with(|model| model.wrote(range, id, count, was));
    Ok(())
}
