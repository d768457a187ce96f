//! tokio-postgres on quoit's streams, against a PostgreSQL of the tests' own.

mod servers;

use std::cell::RefCell;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use ecosystem::postgres::{Queue, connect, limited, open, pool};
use futures::future::{join_all, select};
use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use quoit::time::{Instant, sleep, timeout};
use servers::{Postgres, SOON};
use tokio::sync::oneshot;
use tokio_postgres::AsyncMessage;
use tokio_postgres::error::SqlState;

/// One server for all tests that run at a time; the last of them stops it.
fn shared() -> Option<Arc<Postgres>> {
    static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    let started = Arc::new(Postgres::start()?);
    *shared = Arc::downgrade(&started);
    Some(started)
}

#[quoit::test]
async fn queries_and_transactions() {
    let Some(server) = shared() else { return };
    let mut client = open(&server.config()).await.unwrap();
    client
        .batch_execute("CREATE TEMP TABLE t (id int PRIMARY KEY, name text, data bytea)")
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3)").await.unwrap();
    let large = (0..300_000).map(|byte| byte as u8).collect::<Vec<_>>();
    for id in 0..10_i32 {
        let name = (id % 2 == 0).then(|| format!("grüße {id}"));
        assert_eq!(client.execute(&insert, &[&id, &name, &large]).await.unwrap(), 1);
    }
    let rows = client.query("SELECT id, name, data FROM t ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows.len(), 10);
    for (id, row) in rows.iter().enumerate() {
        assert_eq!(row.get::<_, i32>(0), id as i32);
        assert_eq!(row.get::<_, Option<&str>>(1).is_some(), id % 2 == 0);
        assert!(row.get::<_, &[u8]>(2) == large);
    }

    let error = client.execute(&insert, &[&0_i32, &"again", &large]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));

    let count = "SELECT count(*) FROM t";
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM t WHERE id < 5", &[]).await.unwrap();
    let inner = transaction.savepoint("part").await.unwrap();
    inner.execute("DELETE FROM t", &[]).await.unwrap();
    inner.rollback().await.unwrap();
    assert_eq!(transaction.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 5);
    // Dropped, it is rolled back.
    drop(transaction);
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 10);
    let transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM t WHERE id < 5", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 5);
}

#[quoit::test]
async fn copies_in_and_out() {
    let Some(server) = shared() else { return };
    let client = open(&server.config()).await.unwrap();
    client.batch_execute("CREATE TEMP TABLE t (id int, text text)").await.unwrap();
    let mut sink = pin!(client.copy_in("COPY t FROM STDIN").await.unwrap());
    let lines = (0..50_000).map(|id| format!("{id}\tline {id} of the copy\n"));
    let lines = lines.collect::<Vec<_>>();
    let mut parts = stream::iter(lines.chunks(1000).map(|part| Ok(Bytes::from(part.concat()))));
    sink.send_all(&mut parts).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 50_000);

    let copy = client.copy_out("COPY (SELECT * FROM t ORDER BY id) TO STDOUT").await.unwrap();
    let parts: Vec<Bytes> = copy.try_collect().await.unwrap();
    assert!(parts.concat() == lines.concat().into_bytes());

    // Given up half-way: nothing is kept, and the connection goes on.
    let mut sink = Box::pin(client.copy_in("COPY t FROM STDIN").await.unwrap());
    sink.send(Bytes::from_static(b"1\tx\n")).await.unwrap();
    drop(sink);
    let count = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 50_000);
}

/// Queries that are under way together go out together; each gets its own answer.
#[quoit::test]
async fn concurrent_queries_are_pipelined() {
    let Some(server) = shared() else { return };
    let client = open(&server.config()).await.unwrap();
    let statement = client.prepare("SELECT $1::int * 2").await.unwrap();
    let queries = (0..500_i32).map(async |number| {
        let row = client.query_one(&statement, &[&number]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), number * 2);
    });
    timeout(SOON, join_all(queries)).await.unwrap();
    // Some are given up: their answers are nobody else's.
    let mut given_up = join_all((0..50_i32).map(|number| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[&number]).await.map(drop) }
    }));
    assert!(futures::poll!(&mut given_up).is_pending());
    drop(given_up);
    let row = client.query_one(&statement, &[&21]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
}

#[quoit::test]
async fn notifications_come() {
    let Some(server) = shared() else { return };
    let (client, mut connection) = connect(&server.config()).await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    quoit::spawn(async move {
        let mut messages = stream::poll_fn(|cx| connection.poll_message(cx));
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(note) = message.unwrap() {
                sender.send((note.channel().to_owned(), note.payload().to_owned())).unwrap();
            }
        }
    });
    let channel = format!(
        "news{}",
        client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0)
    );
    client.batch_execute(&format!("LISTEN {channel}")).await.unwrap();
    let other = open(&server.config()).await.unwrap();
    for number in 0..100 {
        other.batch_execute(&format!("NOTIFY {channel}, '{number}'")).await.unwrap();
    }
    for number in 0..100 {
        let note = timeout(SOON, heard.recv()).await.unwrap().unwrap();
        assert_eq!(note, (channel.clone(), number.to_string()));
    }
}

/// A query that takes too long is cancelled at the server, and the connection goes on.
#[quoit::test]
async fn what_takes_too_long_is_cancelled() {
    let Some(server) = shared() else { return };
    let config = server.config();
    let client = open(&config).await.unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let sleeping = client.batch_execute("SELECT pg_sleep(30)");
        let error =
            limited(Duration::from_millis(50), &config, &client, sleeping).await.unwrap_err();
        let error = error.downcast::<tokio_postgres::Error>().unwrap();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(started.elapsed() < Duration::from_secs(10));
        let quick = client.query_one("SELECT 1", &[]);
        let row = limited(SOON, &config, &client, quick).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 1);
    }
}

#[quoit::test]
async fn a_lost_server_is_an_error_and_the_pool_connects_again() {
    let Some(server) = Postgres::start() else { return };
    let config = server.config();
    let pool = pool(config.clone(), 2).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let pid: i32 = two.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let ended = async {
        let error = two.batch_execute("SELECT pg_sleep(30)").await.unwrap_err();
        assert!(error.code() == Some(&SqlState::ADMIN_SHUTDOWN) || error.is_closed(), "{error}");
    };
    let end = async {
        sleep(Duration::from_millis(50)).await;
        one.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    };
    timeout(SOON, async { futures::join!(ended, end) }).await.unwrap();
    assert!(timeout(SOON, two.batch_execute("SELECT 1")).await.unwrap().is_err());
    drop((one, two));

    let server = server.restart();
    // While it was restarted this thread could not notice.
    sleep(Duration::from_millis(20)).await;
    for _ in 0..2 {
        let client = timeout(SOON, pool.get()).await.unwrap().unwrap();
        let row = client.query_one("SELECT 7", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7);
    }
    drop(server);
    let error = timeout(SOON, open(&config)).await.unwrap().unwrap_err();
    let error = error.downcast::<std::io::Error>().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Every job is done once, by whoever has time; one that fails is tried again, and then given up.
#[quoit::test]
async fn jobs_are_done_once() {
    let Some(server) = Postgres::start() else { return };
    let queue = Queue::new(pool(server.config(), 5).unwrap()).await.unwrap();
    let done = RefCell::new(Vec::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = futures::FutureExt::shared(stopped);
    let work = async |job: &ecosystem::postgres::Job| {
        sleep(Duration::from_millis(1)).await;
        done.borrow_mut().push((job.number, job.attempt));
        if job.text == "bad" { Err("it is bad".into()) } else { Ok(()) }
    };
    let workers = join_all((0..4).map(|_| queue.work(stopped.clone(), work)));
    let push = async {
        // Idle first, so that it is the notification that wakes them.
        sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        for number in 0..100 {
            queue.push(if number == 50 { "bad" } else { "good" }).await.unwrap();
        }
        while done.borrow().len() < 102 {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(started.elapsed() < ecosystem::postgres::POLL, "nobody was woken");
        sleep(Duration::from_millis(50)).await;
        stop.send(()).unwrap();
    };
    let all = async { futures::join!(workers, push) };
    timeout(SOON, select(pin!(all), pin!(queue.listen()))).await.unwrap();
    let mut done = done.take();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), 102);
    let client = open(&server.config()).await.unwrap();
    let count = "SELECT count(*) FILTER (WHERE state = 'done'), \
                 count(*) FILTER (WHERE state = 'failed') FROM jobs";
    let row = client.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (99, 1));

    // A worker that goes away in the middle leaves its job to others.
    queue.push("left").await.unwrap();
    let forever = queue.step(async |_| {
        std::future::pending::<()>().await;
        Ok(())
    });
    assert!(timeout(Duration::from_millis(100), forever).await.is_err());
    let mut left = RefCell::new(false);
    let step = async {
        // Free again when the server has heard of the rollback.
        while !*left.borrow() {
            let take = queue.step(async |job| {
                assert_eq!((&*job.text, job.attempt), ("left", 1));
                left.replace(true);
                Ok(())
            });
            take.await.unwrap();
        }
    };
    timeout(SOON, step).await.unwrap();
    assert!(*left.get_mut());
    assert!(!queue.step(async |_| Ok(())).await.unwrap());

    // The end does not wait until there is nothing to do.
    for _ in 0..3 {
        queue.push("late").await.unwrap();
    }
    timeout(SOON, queue.work(async {}, async |_| Ok(()))).await.unwrap();
    let waiting = "SELECT count(*) FROM jobs WHERE state = 'waiting'";
    assert_eq!(client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0), 2);
}

/// The program itself: what one pushes, another does.
#[quoit::test]
async fn the_program_does_what_is_pushed() {
    let Some(server) = Postgres::start() else { return };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
    let program = env!("CARGO_BIN_EXE_postgres");
    let mut command = Command::new(program);
    command.args([&url, "work", "2"]).stdout(Stdio::piped());
    let mut worker = servers::Running(command.spawn().unwrap());
    let pushed = Command::new(program).args([&url, "push", "one two", "three"]).output().unwrap();
    assert_eq!(pushed.status.code(), Some(0));
    assert_eq!(pushed.stdout.split(|byte| *byte == b'\n').count(), 3);
    let client = open(&server.config()).await.unwrap();
    let done = async {
        let count = "SELECT count(*) FROM jobs WHERE state = 'done'";
        while client.query_one(count, &[]).await.unwrap().get::<_, i64>(0) < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, done).await.unwrap();
    worker.tell("-TERM");
    servers::until("it ends", || worker.0.try_wait().unwrap().is_some());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut worker.0.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains(": one two has 2 words\n"), "{said}");
}
