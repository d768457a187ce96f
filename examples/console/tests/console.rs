//! What tokio-console would see of the program: asked by the console's own client, over gRPC.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use console_api::field::{Name, Value};
use console_api::instrument::InstrumentRequest;
use console_api::instrument::instrument_client::InstrumentClient;
use console_api::tasks::{Stats, Task, task};

/// Ends the program with the test.
struct Program(Child);

impl Program {
    fn start(ring: &str) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_console"));
        let command = command.arg("0").env("QUOIT_RING", ring).stdout(Stdio::piped());
        let mut program = Self(command.spawn().expect("it starts"));
        let mut line = String::new();
        let out = program.0.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("tokio-console ").expect("a line of its own");
        (program, address.to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that the updates have told.
#[derive(Default)]
struct Seen {
    names: HashMap<u64, Vec<String>>,
    tasks: HashMap<u64, Task>,
    stats: HashMap<u64, Stats>,
}

impl Seen {
    fn field(&self, task: &Task, name: &str) -> Option<String> {
        let metadata = task.metadata.as_ref().map_or(0, |metadata| metadata.id);
        let is_it = |field: &&console_api::Field| match &field.name {
            Some(Name::StrName(text)) => text == name,
            Some(Name::NameIdx(index)) => self.names[&metadata][*index as usize] == name,
            None => false,
        };
        let value = task.fields.iter().find(is_it)?.value.as_ref()?;
        Some(match value {
            Value::DebugVal(text) | Value::StrVal(text) => text.clone(),
            Value::U64Val(number) => number.to_string(),
            Value::I64Val(number) => number.to_string(),
            Value::BoolVal(truth) => truth.to_string(),
        })
    }

    /// The tasks of this name, with what is counted of them.
    fn named(&self, name: &str) -> Vec<(&Task, &Stats)> {
        let tasks = self.tasks.iter();
        let named =
            tasks.filter(|(_, task)| self.field(task, "task.name").as_deref() == Some(name));
        named.filter_map(|(id, task)| Some((task, self.stats.get(id)?))).collect()
    }

    fn polls(&self, name: &str) -> u64 {
        let polls = |stats: &Stats| stats.poll_stats.as_ref().map_or(0, |stats| stats.polls);
        self.named(name).iter().map(|(_, stats)| polls(stats)).sum()
    }
}

/// Follows the console's updates until they have told enough.
async fn follow(address: String, mut enough: impl FnMut(&Seen) -> bool) -> Seen {
    let connect = async {
        loop {
            match InstrumentClient::connect(address.clone()).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let mut client = connect.await;
    let updates = client.watch_updates(InstrumentRequest {}).await.expect("it is watched");
    let mut updates = updates.into_inner();
    let mut seen = Seen::default();
    while !enough(&seen) {
        let update = updates.message().await.expect("it goes on").expect("it does not end");
        for metadata in update.new_metadata.into_iter().flat_map(|new| new.metadata) {
            let id = metadata.id.expect("it has an id").id;
            let names = metadata.metadata.expect("it is described").field_names;
            seen.names.insert(id, names);
        }
        let Some(tasks) = update.task_update else { continue };
        assert_eq!(tasks.dropped_events, 0);
        for task in tasks.new_tasks {
            seen.tasks.insert(task.id.as_ref().expect("it has an id").id, task);
        }
        seen.stats.extend(tasks.stats_update);
    }
    seen
}

#[test]
fn tasks_are_seen_with_their_names_places_polls_and_wakers() {
    for ring in ["uring", "readiness"] {
        let (_program, address) = Program::start(ring);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let seen = runtime.expect("a runtime for the client").block_on(async {
            let enough = |seen: &Seen| {
                seen.polls("ticker") > 5 && seen.polls("client") > 20 && seen.polls("busy") > 5
            };
            let followed = tokio::time::timeout(Duration::from_secs(30), follow(address, enough));
            followed.await.expect("the console tells enough in time")
        });

        let names = ["server", "client", "ticker", "busy", "forgotten", "connection"];
        for name in names {
            let tasks = seen.named(name);
            assert_eq!(tasks.len(), 1, "{name}");
            let (task, stats) = tasks[0];
            let place = task.location.as_ref().expect("where it was spawned");
            assert!(place.file.as_deref().is_some_and(|file| file.ends_with("src/main.rs")));
            assert!(place.line > Some(20) && place.column > Some(1), "{name}: {place:?}");
            assert_eq!(task.kind, task::Kind::Spawn as i32);
            assert!(task.parents.is_empty(), "{name}: {:?}", task.parents);
            assert_eq!(seen.field(task, "kind").as_deref(), Some("task"));
            assert!(seen.field(task, "task.id").is_some_and(|id| id.parse() != Ok(0_u64)));
            assert!(stats.dropped_at.is_none(), "{name} is alive");
            assert!(seen.polls(name) > 0, "{name}");
        }
        let stats = |name| seen.named(name)[0].1;
        let polls = |name| stats(name).poll_stats.as_ref().expect("it is polled");
        let time = polls("busy").busy_time.as_ref().expect("it is timed");
        let each = (time.seconds as f64 + f64::from(time.nanos) / 1e9) / polls("busy").polls as f64;
        assert!(each > 0.000_5, "a millisecond in the middle: {each}");
        assert!(stats("busy").self_wakes > 0, "it yields");
        assert!(stats("client").wakes > 0 && stats("client").self_wakes == 0);
        let waiting = stats("client");
        assert!(waiting.waker_clones > waiting.waker_drops.saturating_sub(1));
        let forgotten = stats("forgotten");
        assert_eq!((forgotten.waker_clones, forgotten.wakes), (0, 0), "nobody will wake it");

        // Tasks that end are told as well, and the root and blocking work are of their own kinds.
        assert!(seen.stats.values().any(|stats| stats.dropped_at.is_some()), "blocking work");
        let kinds = |kind: &str| {
            let is_it = |task: &&Task| seen.field(task, "kind").as_deref() == Some(kind);
            seen.tasks.values().filter(is_it).count()
        };
        assert_eq!(kinds("block_on"), 1);
        assert!(kinds("blocking") > 0);
    }
}
