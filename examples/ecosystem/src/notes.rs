//! Notes: JSON in and out, a file that every note goes to, and server-sent events.
//!
//! ```text
//!   POST /notes ──► end of the file ──► synced ──► 201 and the note
//!                                          └─────► everybody at GET /events
//!   GET /notes, GET /notes/{number}    from memory
//!   GET /file                          the file, as it is on disk
//! ```

use std::convert::Infallible;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{self, Json, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures::Stream;
use futures::stream::unfold;
use quoit::fs::{File, OpenOptions};
use quoit::time::timeout;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

/// How long a stream of events may be silent: proxies close what says nothing.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events that a slow listener may fall behind; then it is told how many it has missed.
const BEHIND: usize = 64;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Note {
    pub number: usize,
    pub text: String,
}

#[derive(Debug, Deserialize)]
struct NewNote {
    text: String,
}

/// The state that all handlers share.
#[derive(Clone, Debug)]
pub struct Notes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    /// Held while a note is written: one after the other, so that the file has them in order.
    book: tokio::sync::Mutex<Book>,
    events: Mutex<Option<broadcast::Sender<Note>>>,
}

#[derive(Debug)]
struct Book {
    notes: Vec<Note>,
    /// Where the file's next line goes.
    end: u64,
    /// There may be something behind the end: a write has begun, and did not complete.
    unsure: bool,
}

impl Notes {
    /// Opens the file, or creates it, and reads what is there: a note per line.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).open(path).await?;
        let text = whole(&file, file.metadata().await?.len()).await?;
        let mut book = Book { notes: Vec::new(), end: 0, unsure: false };
        // A line without an end was never confirmed, and the next note goes over it.
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
        {
            book.notes.push(serde_json::from_slice(line)?);
            book.end += line.len() as u64;
        }
        file.set_len(book.end).await?;
        let events = Mutex::new(Some(broadcast::Sender::new(BEHIND)));
        Ok(Self(Arc::new(Shared { file, book: tokio::sync::Mutex::new(book), events })))
    }

    /// Ends the streams of events, which have no end of their own: a shutdown would wait for them.
    pub fn close(&self) {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/notes", get(list).post(add))
            .route("/notes/{number}", get(one))
            .route("/file", get(file))
            .route("/events", get(events))
            .with_state(self.clone())
    }
}

impl Book {
    async fn append(&mut self, file: &File, note: &Note) -> io::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        if mem::replace(&mut self.unsure, true) {
            file.set_len(self.end).await?;
        }
        let line = file.write_all_at(line, self.end).await?;
        file.sync_data().await?;
        self.end += line.len() as u64;
        self.unsure = false;
        self.notes.push(note.clone());
        Ok(())
    }
}

async fn whole(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    Ok(file.read_exact_at(vec![0; length], 0).await?)
}

/// A client that goes away drops this future, in the middle of a write too. What that has written
/// is behind the end, and is cut off before the next note: the kernel may still be at it, but never
/// after a later change of the same file has returned.
async fn add(
    State(Notes(shared)): State<Notes>,
    Json(new): Json<NewNote>,
) -> Result<(StatusCode, Json<Note>), (StatusCode, String)> {
    let mut book = shared.book.lock().await;
    let note = Note { number: book.notes.len(), text: new.text };
    let failed = |error: io::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    book.append(&shared.file, &note).await.map_err(failed)?;
    if let Some(events) = &*shared.events.lock().unwrap_or_else(PoisonError::into_inner) {
        // An error says that nobody listens.
        let _ = events.send(note.clone());
    }
    Ok((StatusCode::CREATED, Json(note)))
}

async fn list(State(Notes(shared)): State<Notes>) -> Json<Vec<Note>> {
    Json(shared.book.lock().await.notes.clone())
}

async fn one(
    State(Notes(shared)): State<Notes>,
    extract::Path(number): extract::Path<usize>,
) -> Result<Json<Note>, StatusCode> {
    let book = shared.book.lock().await;
    book.notes.get(number).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn file(State(Notes(shared)): State<Notes>) -> Result<impl IntoResponse, StatusCode> {
    let end = shared.book.lock().await.end;
    let text = whole(&shared.file, end).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], text))
}

async fn events(
    State(Notes(shared)): State<Notes>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, StatusCode> {
    let events = shared.events.lock().unwrap_or_else(PoisonError::into_inner);
    let receiver = events.as_ref().ok_or(StatusCode::SERVICE_UNAVAILABLE)?.subscribe();
    drop(events);
    Ok(Sse::new(unfold(receiver, async |mut receiver| {
        let event = match timeout(HEARTBEAT, receiver.recv()).await {
            Ok(Ok(note)) => Event::default()
                .id(note.number.to_string())
                .json_data(note)
                .unwrap_or_else(|error| Event::default().comment(error.to_string())),
            Ok(Err(RecvError::Lagged(count))) => {
                Event::default().event("missed").data(count.to_string())
            }
            Ok(Err(RecvError::Closed)) => return None,
            Err(_) => Event::default().comment("still here"),
        };
        Some((Ok(event), receiver))
    })))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Wherever a note is given up, the file has the confirmed ones, and nothing else.
    #[quoit::test]
    async fn an_abandoned_note_leaves_nothing_behind() {
        let name = format!("abandoned-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let Notes(shared) = Notes::open(&path).await.unwrap();
        let mut book = shared.book.lock().await;
        for polls in 1..12 {
            let long = Note { number: book.notes.len(), text: "long".repeat(1000) };
            let mut append = Box::pin(book.append(&shared.file, &long));
            for _ in 0..polls {
                if futures::poll!(append.as_mut()).is_ready() {
                    break;
                }
                quoit::time::sleep(Duration::from_micros(50)).await;
            }
            drop(append);
            let short = Note { number: book.notes.len(), text: "short".to_owned() };
            pin!(book.append(&shared.file, &short)).await.unwrap();
            let disk = std::fs::read_to_string(&path).unwrap();
            let lines = disk.lines().map(|line| serde_json::from_str(line).unwrap());
            assert_eq!(lines.collect::<Vec<Note>>(), book.notes, "after {polls} polls");
        }
        drop(book);
        std::fs::remove_file(&path).unwrap();
    }
}
