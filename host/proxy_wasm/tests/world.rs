//! What a test puts in place of the world: a clock, a witness, calls that fail.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use edgeweir_host_chain::{Clock, Faults, Layer, Next, Witness, World};
use edgeweir_host_proxy_wasm::{Limits, Plugin, Program, Properties, Runtime, RuntimeOptions};
use support::{Origin, data, guest, seen};

/// A million seconds after 1970.
struct Million;

impl Clock for Million {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Default)]
struct Watching(Mutex<Vec<String>>);

impl Witness for Watching {
    fn log(&self, level: Option<u8>, line: &str) {
        self.0.lock().unwrap().push(format!("{level:?} {line}"));
    }
    fn callback(&self, context: u32, name: &'static str) {
        if context > 1 && name.starts_with("proxy_on_re") {
            self.0.lock().unwrap().push(name.to_owned());
        }
    }
}

/// The second call of the clock answers `InternalFailure`.
#[derive(Default)]
struct Second(AtomicU32);

impl Faults for Second {
    fn hit(&self, call: &'static str) -> Option<u32> {
        let clock = call == "proxy_get_current_time_nanoseconds";
        let second = clock && self.0.fetch_add(1, Ordering::Relaxed) == 1;
        second.then_some(10)
    }
}

/// Keeps the time of each request in a gauge, its property in shared data, and says so; answers 500 and the status when
/// it is told no time.
fn telling() -> Vec<u8> {
    let text = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $ok (call $metric (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 104)))
             (i32.const 1))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (local $status i32)
             (local.set $status (call $now (i32.const 112)))
             (if (local.get $status) (then
               (call $ok (call $reply (i32.add (local.get $status) (i32.const 500)) (i32.const 0) (i32.const 0)
                 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
               (return (i32.const 1))))
             (call $ok (call $record (i32.load (i32.const 104))
               (i64.div_u (i64.load (i32.const 112)) (i64.const 1000000000))))
             (call $ok (call $log (i32.const 3) (i32.const 0) (i32.const 3)))
             (call $ok (call $get_property (i32.const 16) (i32.const 9) (i32.const 120) (i32.const 124)))
             (call $ok (call $set_shared (i32.const 0) (i32.const 3) (i32.load (i32.const 120))
               (i32.load (i32.const 124)) (i32.const 0)))
             (i32.const 0))
           {} {}"#,
        data(0, "now"),
        data(16, "xds\0place"),
    ));
    wat::parse_str(text).expect("the guest is good")
}

#[tokio::test]
async fn the_world_is_what_a_test_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.wasm");
    std::fs::write(&file, telling()).unwrap();
    let whole = Runtime::new(RuntimeOptions::default()).unwrap();
    let program = Program::compile(&whole, &file, &Limits::default()).unwrap();
    for _ in 0..2 {
        let runtime = whole.fork();
        let watching = Arc::new(Watching::default());
        let world = World {
            clock: Some(Arc::new(Million)),
            witness: Some(watching.clone()),
            faults: Some(Arc::new(Second::default())),
            clusters: None,
        };
        let mut plugin = Plugin::new("guest", &file);
        plugin.instances = 1;
        let layer = program.start(&runtime, plugin, world).unwrap();
        let chain = Next::new(vec![
            Arc::clone(&layer) as Arc<dyn Layer>,
            Origin::text("ok"),
        ]);
        let ask = || async {
            let mut request = http::Request::new(edgeweir_host_chain::empty());
            let place = ("xds.place".to_owned(), b"here".to_vec());
            request.extensions_mut().insert(Properties(vec![place]));
            seen(chain.clone().run(request).await.unwrap()).await
        };
        assert!(
            runtime.get_shared("", b"now").is_none(),
            "a fork has its own"
        );
        assert_eq!(ask().await.status, 200);
        assert_eq!(runtime.get_shared("", b"now").unwrap(), "here");
        assert_eq!(layer.meter().unwrap().snapshot().counters["now"], 1_000_000);
        assert_eq!(ask().await.status, 510, "the second call fails");
        assert_eq!(ask().await.status, 200);
        let said = watching.0.lock().unwrap().clone();
        let (headers, line) = ("proxy_on_request_headers", "Some(3) now");
        assert_eq!(said, [headers, line, headers, headers, line]);
    }
}

/// Go's runtime gives up where the monotonic clock says 0.
#[tokio::test]
async fn the_monotonic_clock_is_never_zero() {
    let text = r#"(module
      (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_context_create") (param i32 i32))
      (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
        (if (call $clock (i32.const 1) (i64.const 1) (i32.const 8)) (then (unreachable)))
        (i64.ne (i64.load (i32.const 8)) (i64.const 0))))"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.wasm");
    std::fs::write(&file, wat::parse_str(text).unwrap()).unwrap();
    let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
    let program = Program::compile(&runtime, &file, &Limits::default()).unwrap();
    let world = World {
        clock: Some(Arc::new(AtRest)),
        ..World::default()
    };
    program
        .start(&runtime, Plugin::new("guest", &file), world)
        .expect("it starts");
}

/// A clock that has not begun to run.
struct AtRest;

impl Clock for AtRest {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}
