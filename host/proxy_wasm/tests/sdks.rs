//! Modules in the shapes that the SDKs of other languages give them: what they export, import and expect at their start.
//!
//! Written by hand after what the compilers emit, so that no toolchain of theirs is needed; each keeps a count of how it was
//! started and says it in a field of the request. Two that SDKs really made are in `data`, with their sources.

mod support;

use support::{Edge, Origin, PRELUDE, data};

/// The module's text: imports of its SDK, the prelude without its allocator's export, and the way it is started.
/// `$started` is added to the request as `started: <letter>`.
fn module(imports: &str, allocator: &str, abi: &str, start: &str) -> String {
    let prelude = PRELUDE.replace("proxy_on_memory_allocate", allocator);
    format!(
        r#"(module {imports} {prelude}
             (global $started (mut i32) (i32.const 0))
             (func $count (param i32) (global.set $started (i32.add (i32.mul (global.get $started) (i32.const 10)) (local.get 0))))
             {start}
             (func (export "{abi}"))
             (func (export "free") (param i32))
             (func (export "proxy_on_context_create") (param i32 i32))
             (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
             (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
             (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
               (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.div_u (global.get $started) (i32.const 10))))
               (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (global.get $started) (i32.const 10))))
               (call $ok (call $put (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 16) (i32.const 2)))
               (i32.const 0))
             (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
             (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
             (func (export "proxy_on_log") (param i32))
             (func (export "proxy_on_delete") (param i32))
             {})"#,
        data(0, "started"),
    )
}

const WASI: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"#;

/// What a runtime asks for when it starts.
const BOOT: &str = r#"
  (call $ok (call $args_sizes (i32.const 200) (i32.const 204)))
  (call $ok (call $args (i32.const 208) (i32.const 212)))
  (call $ok (call $environ_sizes (i32.const 200) (i32.const 204)))
  (call $ok (call $environ (i32.const 300) (i32.const 400)))
  (call $ok (call $clock (i32.const 0) (i64.const 1) (i32.const 200)))
  (call $ok (call $clock (i32.const 1) (i64.const 1) (i32.const 200)))
  (call $ok (call $random (i32.const 200) (i32.const 32)))
  (call $ok (call $fdstat (i32.const 1) (i32.const 200)))
  ;; No folder is open: EBADF ends a runtime's search.
  (call $must (call $prestat (i32.const 3) (i32.const 200)) (i32.const 8))
  (call $ok (call $yield))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sdks_shape_starts_as_its_runtime_wants() {
    let emscripten =
        format!(r#"{WASI} (import "env" "emscripten_notify_memory_growth" (func (param i32)))"#);
    let assembly_script = r#"
      (import "env" "abort" (func $abort (param i32 i32 i32 i32)))
      (import "env" "seed" (func $seed (result f64)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#;
    for (name, imports, allocator, abi, start, want) in [
        (
            "C++, a reactor",
            emscripten.as_str(),
            "malloc",
            "proxy_abi_version_0_2_1",
            format!(r#"(func (export "_initialize") {BOOT} (call $count (i32.const 1)))"#),
            "01",
        ),
        (
            "C++, a reactor with main",
            emscripten.as_str(),
            "malloc",
            "proxy_abi_version_0_2_0",
            r#"(func (export "_initialize") (call $count (i32.const 1)))
               (func (export "main") (param i32 i32) (result i32) (call $count (i32.const 2)) (i32.const 0))"#.to_owned(),
            "12",
        ),
        (
            "C++, main without arguments",
            emscripten.as_str(),
            "malloc",
            "proxy_abi_version_0_2_1",
            r#"(func (export "_initialize") (call $count (i32.const 1)))
               (func (export "__main_void") (result i32) (call $count (i32.const 3)) (i32.const 0))"#.to_owned(),
            "13",
        ),
        (
            "C++, a command that ends",
            emscripten.as_str(),
            "malloc",
            "proxy_abi_version_0_2_0",
            r#"(func (export "_start") (call $count (i32.const 1)) (call $exit (i32.const 0)))"#.to_owned(),
            "01",
        ),
        (
            "TinyGo, a command that returns",
            WASI,
            "proxy_on_memory_allocate",
            "proxy_abi_version_0_2_0",
            format!(
                r#"(func (export "malloc") (param i32) (result i32) unreachable)
                   (func (export "calloc") (param i32 i32) (result i32) unreachable)
                   (func (export "realloc") (param i32 i32) (result i32) unreachable)
                   (func (export "_start") {BOOT} (call $count (i32.const 1)))"#
            ),
            "01",
        ),
        (
            "Go 1.24, a reactor",
            WASI,
            "proxy_on_memory_allocate",
            "proxy_abi_version_0_2_1",
            format!(r#"(func (export "_initialize") {BOOT} (call $count (i32.const 1)))"#),
            "01",
        ),
        (
            "AssemblyScript",
            assembly_script,
            "malloc",
            "proxy_abi_version_0_2_0",
            r#"(func (export "_start") (drop (call $seed)) (call $count (i32.const 1)))"#.to_owned(),
            "01",
        ),
        (
            "AssemblyScript, with a start function",
            assembly_script,
            "malloc",
            "proxy_abi_version_0_2_0",
            r#"(func $begin (call $count (i32.const 4))) (start $begin)
               (func (export "_start") (call $count (i32.const 1)))"#.to_owned(),
            "41",
        ),
        (
            "Rust, a reactor",
            WASI,
            "proxy_on_memory_allocate",
            "proxy_abi_version_0_2_1",
            r#"(func (export "_initialize") (call $count (i32.const 1)))"#.to_owned(),
            "01",
        ),
        (
            "nothing to start",
            "",
            "malloc",
            "proxy_abi_version_0_2_1",
            String::new(),
            "00",
        ),
    ] {
        let text = module(imports, allocator, abi, &start);
        let edge = Edge::try_new(text.as_bytes(), Origin::text("fine"), |plugin| {
            plugin.environment.insert("NAME".to_owned(), "value".to_owned());
        })
        .await
        .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let got = edge.get("/", &[]).await;
        assert_eq!((got.status, got.body.as_str()), (200, "fine"), "{name}");
        let started = format!("started={want}");
        assert!(got.all("x-seen").contains(&started.as_str()), "{name}: {got:?}");
        assert_eq!(edge.meter().traps, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_is_a_trap_that_says_where() {
    let text = module(
        r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#,
        "malloc",
        "proxy_abi_version_0_2_0",
        r#"(func (export "proxy_on_request_trailers") (param i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (i32.const 0))
           (func (export "_start") (call $abort (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 9)))"#,
    );
    let error = Edge::try_new(text.as_bytes(), Origin::text(""), |_| {})
        .await
        .err();
    let error = format!("{:#}", error.expect("it aborts"));
    assert!(error.contains("abort") && error.contains("7:9"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_is_the_plugins_own() {
    // NAME=value\0 is twelve bytes of one entry.
    let start = r#"(func (export "_initialize")
      (call $ok (call $environ_sizes (i32.const 200) (i32.const 204)))
      (call $must (i32.load (i32.const 200)) (i32.const 1))
      (call $must (i32.load (i32.const 204)) (i32.const 11))
      (call $ok (call $environ (i32.const 300) (i32.const 400)))
      (call $must (i32.load (i32.const 300)) (i32.const 400))
      (call $must (i32.load (i32.const 400)) (i32.const 0x454d414e))
      (call $must (i32.load8_u (i32.const 410)) (i32.const 0)))"#;
    let text = module(WASI, "malloc", "proxy_abi_version_0_2_1", start);
    let edge = Edge::try_new(text.as_bytes(), Origin::text("fine"), |plugin| {
        plugin
            .environment
            .insert("NAME".to_owned(), "value".to_owned());
    });
    assert_eq!(
        edge.await.expect("it starts").get("/", &[]).await.body,
        "fine"
    );
}

#[tokio::test]
async fn modules_that_other_sdks_made() {
    for (name, module, root, from) in [
        (
            "AssemblyScript, SDK 0.1.8",
            &include_bytes!("data/assemblyscript.wasm")[..],
            "add",
            "x-from=AssemblyScript",
        ),
        (
            "Rust, SDK 0.1.4",
            &include_bytes!("data/rust-0.1.4.wasm")[..],
            "",
            "x-from=Rust 0.1.4",
        ),
    ] {
        let edge = Edge::try_new(module, Origin::text("fine"), |plugin| {
            plugin.root_id = root.to_owned();
            plugin.configuration = b"a greeting".to_vec();
        })
        .await
        .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        for _ in 0..3 {
            let got = edge.get("/", &[]).await;
            assert_eq!((got.status, got.body.as_str()), (200, "fine"), "{name}");
            assert_eq!(got.all("hello"), ["a greeting"], "{name}");
            assert!(got.all("x-seen").contains(&from), "{name}: {got:?}");
        }
        assert_eq!(edge.meter().traps, 0, "{name}");
    }
}
