//! Layers with timers, and the client that is made of them.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use ecosystem::timed::{RateLimitLayer, TimeoutLayer};
use ecosystem::tower_client::{LIMIT, TRIES, client};
use futures::future::join_all;
use http_body_util::Full;
use hyper::Request;
use quoit::net::TcpListener;
use quoit::time::{Elapsed, Instant, sleep, timeout};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const SOON: Duration = Duration::from_secs(20);

/// Counts what is asked of it; fails as often as it is told.
async fn start() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::<String>::new()));
    let log = asked.clone();
    let flaky = move |Path((name, failures)): Path<(String, usize)>| async move {
        let mut asked = log.lock().unwrap();
        asked.push(name.clone());
        let before = asked.iter().filter(|one| **one == name).count() - 1;
        if before < failures { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let slow = |Path(milliseconds): Path<u64>| async move {
        sleep(Duration::from_millis(milliseconds)).await;
    };
    let router = Router::new()
        .route("/flaky/{name}/{failures}", get(flaky.clone()))
        .route("/flaky/{name}/{failures}", post(flaky))
        .route("/slow/{milliseconds}", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    quoit::spawn(quoit_http::serve(listener, router).into_future());
    (address, asked)
}

#[quoit::test]
async fn what_fails_is_tried_again() {
    let (address, asked) = start().await;
    let count = |name: &str| asked.lock().unwrap().iter().filter(|one| *one == name).count();
    let client = client();
    let work = async {
        let ask = async |method: &str, path: &str| {
            let uri = format!("http://{address}{path}");
            let request = Request::builder().method(method).uri(uri).body(Full::default());
            client.clone().oneshot(request.unwrap()).await.map(|response| response.status())
        };
        let started = Instant::now();
        assert_eq!(ask("GET", "/flaky/twice/2").await.unwrap(), 200);
        assert_eq!(count("twice"), 3);
        // At least half of 50 ms, and half of 100 ms.
        assert!(started.elapsed() >= Duration::from_millis(75), "{:?}", started.elapsed());
        assert_eq!(ask("GET", "/flaky/always/99").await.unwrap(), 503);
        assert_eq!(count("always"), TRIES as usize);
        assert_eq!(ask("POST", "/flaky/post/99").await.unwrap(), 503);
        assert_eq!(count("post"), 1, "what may not be repeated is not");

        let started = Instant::now();
        let error = ask("GET", "/slow/60000").await.unwrap_err();
        assert!(error.is::<Elapsed>(), "{error}");
        assert!(started.elapsed() >= LIMIT * TRIES, "each try has its time");
        // Nobody listens there.
        let request = ecosystem::tower_client::get("http://127.0.0.1:1/").unwrap();
        assert!(client.clone().oneshot(request).await.is_err());
    };
    timeout(SOON, work).await.expect("it hangs");
}

/// Under a clock of the test's own: times are exact.
#[quoit::test(start_paused = true)]
async fn a_rate_is_kept_and_nobody_is_passed_over() {
    let start = Instant::now();
    let answer = move |number: u64| async move { Ok::<_, Infallible>((number, start.elapsed())) };
    let service = RateLimitLayer::new(10, Duration::from_secs(1), 3).layer(service_fn(answer));
    let calls = (0..8).map(|number| service.clone().oneshot(number));
    let times: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let mut wanted = [0, 0, 0, 100, 200, 300, 400, 500].into_iter().zip(0..);
    for (number, time) in times {
        let (milliseconds, next) = wanted.next().unwrap();
        assert_eq!(number, next);
        let milliseconds = Duration::from_millis(milliseconds);
        assert!(time >= milliseconds && time < milliseconds + Duration::from_millis(5), "{time:?}");
    }
    // A pause, and there may be a few at once again.
    sleep(Duration::from_secs(10)).await;
    let before = start.elapsed();
    let again = join_all((0..3).map(|number| service.clone().oneshot(number))).await;
    assert!(again.into_iter().all(|call| call.unwrap().1 < before + Duration::from_millis(5)));
}

#[quoit::test(start_paused = true)]
async fn a_time_limit_drops_what_takes_longer() {
    struct Dropped(Rc<Cell<u32>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let service = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::from_secs(1)));
    let held = dropped.clone();
    let service = service.service(service_fn(move |length: u64| {
        let held = Dropped(held.clone());
        async move {
            let _held = held;
            sleep(Duration::from_secs(length)).await;
            Ok::<_, Infallible>(length)
        }
    }));
    assert!(service.clone().oneshot(3600).await.unwrap_err().is::<Elapsed>());
    assert_eq!(dropped.get(), 1);
    assert_eq!(service.oneshot(0).await.unwrap(), 0);
}
