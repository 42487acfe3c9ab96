//! Modules that misbehave: each costs its own request, or is refused with a clear error. Never the host.

mod support;

use std::time::{Duration, Instant};

use edgeweir_host_chain::Layer;
use edgeweir_host_proxy_wasm::OnTrap;
use std::sync::Arc;
use support::{Edge, Origin, PRELUDE, chunks, data, guest, seen};

/// Does what `bad` says when the request has the header `bad`.
fn misbehaving(bad: &str) -> String {
    guest(&format!(
        r#"(func $bad {bad})
           (func $recurse (param i32) (result i32)
             (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
           (func $twice (param $deep i32) (result i32)
             (if (result i32) (local.get $deep)
               (then (i32.add (call $twice (i32.sub (local.get $deep) (i32.const 1)))
                              (call $twice (i32.sub (local.get $deep) (i32.const 1)))))
               (else (i32.const 1))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (if (i32.eqz (call $get (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 100) (i32.const 104)))
               (then (call $bad)))
             (i32.const 0))
           {}"#,
        data(0, "bad"),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_traps_costs_one_request() {
    for (name, bad, says) in [
        ("unreachable", "unreachable", "unreachable"),
        ("recursion", "(drop (call $recurse (i32.const 0)))", "stack"),
        ("endless loop", "(loop $on (br $on))", "deadline"),
        (
            "calls without end",
            "(drop (call $twice (i32.const 60)))",
            "deadline",
        ),
        (
            "memory",
            "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            "unreachable",
        ),
        (
            "outside memory",
            "(drop (i32.load (i32.const -8)))",
            "out of bounds",
        ),
        (
            "an allocator gone mad",
            "(global.set $heap (i32.const 2147483000)) (loop $on (br $on))",
            "deadline",
        ),
    ] {
        let edge = Edge::new(misbehaving(bad), Origin::text("fine"), |plugin| {
            plugin.limits.deadline = Duration::from_millis(200);
            plugin.limits.memory_bytes = 32 << 20;
        });
        let edge = edge.await;
        assert_eq!(edge.get("/", &[]).await.body, "fine", "{name}");
        let started = Instant::now();
        assert_eq!(edge.get("/", &[("bad", "1")]).await.status, 500, "{name}");
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{name}: {:?}",
            started.elapsed()
        );
        assert_eq!(
            edge.get("/", &[]).await.body,
            "fine",
            "{name}: a fresh instance"
        );
        let meter = edge.meter();
        assert_eq!((meter.traps, meter.instances), (1, 2), "{name}");
        let trap = meter.last_trap.unwrap();
        assert_eq!(trap.callback, "proxy_on_request_headers", "{name}");
        assert!(
            trap.message.contains(says) && trap.message.contains("wasm"),
            "{name}: {}",
            trap.message
        );
        assert!(
            meter.memory_peak <= 32 << 20,
            "{name}: {}",
            meter.memory_peak
        );
        assert!(
            meter.memory_now <= 2 << 20,
            "{name}: the old memory is returned, {}",
            meter.memory_now
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_is_as_deep_as_its_limit() {
    let text = guest(
        r#"(func $down (param i32) (result i32)
             (if (result i32) (local.get 0)
               (then (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))
               (else (i32.const 0))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $must (call $down (i32.const 8000)) (i32.const 8000))
             (i32.const 0))"#,
    );
    for (stack, status) in [(1 << 20, 200), (64 << 10, 500)] {
        let edge = Edge::new(&text, Origin::text("fine"), |plugin| {
            plugin.limits.stack_bytes = stack;
        });
        assert_eq!(edge.await.get("/", &[]).await.status, status, "{stack}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_passes_on_where_that_is_asked() {
    let edge = Edge::new(misbehaving("unreachable"), Origin::text("fine"), |plugin| {
        plugin.on_trap = OnTrap::PassThrough;
    });
    let got = edge.await.get("/", &[("bad", "1")]).await;
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_in_a_body_answers_resets_or_passes() {
    let text = guest(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (if (i32.eqz (i32.load (i32.const 0))) (then (i32.store (i32.const 0) (i32.const 1)) (return (i32.const 1))))
             unreachable)"#,
    );
    let origin =
        || Origin::answering(|_| async { Ok(http::Response::new(chunks(&["one", "two"], None))) });
    let edge = Edge::new(&text, origin(), |_| {}).await;
    let request = || {
        http::Request::get("/")
            .body(edgeweir_host_chain::empty())
            .unwrap()
    };
    let response = edge.send(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        http_body_util::BodyExt::collect(response.into_body())
            .await
            .is_err(),
        "the head is gone: a reset"
    );
    let edge = Edge::new(&text, origin(), |plugin| {
        plugin.on_trap = OnTrap::PassThrough
    })
    .await;
    assert_eq!(
        seen(edge.send(request()).await.unwrap()).await.body,
        "onetwo",
        "what was held back too"
    );
    // With a declared length the head waits for the first chunk, and the answer can still be another one.
    let text = guest(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) unreachable)"#,
    );
    let edge = Edge::new(&text, Origin::text("body"), |_| {}).await;
    assert_eq!(edge.get("/", &[]).await.status, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beside_a_trap_are_answered() {
    // The first request waits for ever; the second one traps.
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (if (i32.eqz (call $get (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 100) (i32.const 104)))
               (then unreachable))
             (i32.const 1)) {}"#,
        data(0, "bad"),
    ));
    let edge = Arc::new(Edge::new(&text, Origin::text(""), |_| {}).await);
    let beside = Arc::clone(&edge);
    let waiting = tokio::spawn(async move { beside.get("/", &[]).await.status });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(edge.get("/", &[("bad", "1")]).await.status, 500);
    let waited = tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(waited, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_deadline_a_callback_has_all_the_time_it_takes() {
    // Some tenths of a second of a loop that ends by itself.
    let long = "(local $n i64) (loop $on (local.set $n (i64.add (local.get $n) (i64.const 1))) \
                (br_if $on (i64.lt_u (local.get $n) (i64.const 600000000))))";
    for (deadline, status) in [(Duration::from_millis(20), 500), (Duration::ZERO, 200)] {
        let edge = Edge::new(misbehaving(long), Origin::text("fine"), |plugin| {
            plugin.limits.deadline = deadline;
        });
        let seen = edge.await.get("/", &[("bad", "1")]).await;
        assert_eq!(seen.status, status, "{deadline:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_callback_known_to_spin_holds_up_nobody_else() {
    let edge = Edge::new(
        misbehaving("(loop $on (br $on))"),
        Origin::text(""),
        |plugin| {
            plugin.limits.deadline = Duration::from_millis(600);
        },
    );
    let edge = edge.await;
    // The first time nobody knows.
    assert_eq!(edge.get("/", &[("bad", "1")]).await.status, 500);
    let spinning = tokio::spawn(async move { edge.get("/", &[("bad", "1")]).await.status });
    let beats = tokio::spawn(async {
        let mut longest = Duration::ZERO;
        for _ in 0..60 {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(before.elapsed());
        }
        longest
    });
    let longest = beats.await.unwrap();
    assert!(
        longest < Duration::from_millis(400),
        "with one worker thread the others waited {longest:?}"
    );
    assert_eq!(spinning.await.unwrap(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_pointers_are_told_and_harm_nothing() {
    // Every call has one pointer or size outside memory: the status is InvalidMemoryAccess.
    let bad = ["-16", "16777216", "1048575"];
    let calls = |p: &str| {
        let p = format!("(i32.const {p})");
        let ok = "(i32.const 0) (i32.const 4)";
        [
            format!("(call $log (i32.const 2) {p} (i32.const 100))"),
            format!("(call $log (i32.const 2) (i32.const 0) {p})").replace("1048575", "-1"),
            format!("(call $now {p})"),
            format!("(call $log_level {p})"),
            format!("(call $get (i32.const 0) {p} (i32.const 64) (i32.const 100) (i32.const 104))"),
            format!("(call $get (i32.const 0) (i32.const 0) (i32.const 5) {p} (i32.const 104))"),
            format!("(call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100) {p})"),
            format!("(call $pairs (i32.const 0) {p} (i32.const 104))"),
            format!("(call $pairs (i32.const 0) (i32.const 104) {p})"),
            format!("(call $set_pairs (i32.const 0) {p} (i32.const 400))"),
            format!("(call $put (i32.const 0) {ok} {p} (i32.const 9))"),
            format!("(call $replace (i32.const 0) {p} (i32.const 9) {ok})"),
            format!("(call $remove (i32.const 0) {p} (i32.const 9))"),
            format!("(call $map_size (i32.const 0) {p})"),
            format!("(call $get_buffer (i32.const 7) (i32.const 0) (i32.const 9) {p} (i32.const 104))"),
            format!("(call $set_buffer (i32.const 0) (i32.const 0) (i32.const 0) {p} (i32.const 9))"),
            format!("(call $buffer_status (i32.const 7) {p} (i32.const 0))"),
            format!("(call $get_property {p} (i32.const 9) (i32.const 100) (i32.const 104))"),
            format!("(call $get_property (i32.const 16) (i32.const 11) {p} (i32.const 104))"),
            format!("(call $set_property {ok} {p} (i32.const 9))"),
            format!("(call $set_shared {p} (i32.const 9) {ok} (i32.const 0))"),
            format!("(call $get_shared {p} (i32.const 9) (i32.const 100) (i32.const 104) (i32.const 108))"),
            format!("(call $register {p} (i32.const 9) (i32.const 100))"),
            format!("(call $dequeue (i32.const 1) {p} (i32.const 100))"),
            format!("(call $enqueue (i32.const 1) {p} (i32.const 9))"),
            format!("(call $metric (i32.const 0) {p} (i32.const 9) (i32.const 100))"),
            format!("(call $foreign {p} (i32.const 9) {ok} (i32.const 100) (i32.const 104))"),
            format!("(call $status {p} (i32.const 100) (i32.const 104))"),
            format!(
                "(call $reply (i32.const 200) (i32.const 0) (i32.const 0) {p} (i32.const 9) {ok} (i32.const -1))"
            ),
            format!(
                "(call $call {ok} {p} (i32.const 9) {ok} (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100))"
            )
            .replacen("(call $call (i32.const 0) (i32.const 4)", "(call $call (i32.const 32) (i32.const 1)", 1),
        ]
    };
    let checks: String = bad
        .iter()
        .flat_map(|p| calls(p))
        .map(|call| format!("(call $must {call} (i32.const 6))\n"))
        .collect();
    let text = guest(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {checks} (i32.const 0))
           {} {} {}"#,
        data(0, ":path"),
        data(16, "plugin_name"),
        data(32, "c"),
    ));
    let edge = Edge::new(&text, Origin::text("fine"), |plugin| {
        plugin.configuration = b"configuration".to_vec();
        plugin.clusters.insert("c".into(), "127.0.0.1:1".into());
    });
    let edge = edge.await;
    let got = edge.get("/", &[]).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (200, "fine"),
        "{:?}",
        edge.meter().last_trap
    );
    assert_eq!(edge.meter().counters.len(), 0);
}

/// Every host function and the kinds of its parameters; `l` is 64 bits wide. Those that end or answer the stream are not
/// here: they have tests of their own.
const CALLS: [(&str, &str, &str); 54] = [
    ("env", "proxy_log", "iii"),
    ("env", "proxy_get_log_level", "i"),
    ("env", "proxy_get_current_time_nanoseconds", "i"),
    ("env", "proxy_get_property", "iiii"),
    ("env", "proxy_set_property", "iiii"),
    ("env", "proxy_get_buffer_bytes", "iiiii"),
    ("env", "proxy_set_buffer_bytes", "iiiii"),
    ("env", "proxy_get_buffer_status", "iii"),
    ("env", "proxy_get_header_map_size", "ii"),
    ("env", "proxy_get_header_map_pairs", "iii"),
    ("env", "proxy_get_header_map_value", "iiiii"),
    ("env", "proxy_http_call", "iiiiiiiiii"),
    ("env", "proxy_grpc_call", "iiiiiiiiiiii"),
    ("env", "proxy_grpc_stream", "iiiiiiiii"),
    ("env", "proxy_grpc_send", "iiii"),
    ("env", "proxy_grpc_cancel", "i"),
    ("env", "proxy_grpc_close", "i"),
    ("env", "proxy_get_status", "iii"),
    ("env", "proxy_get_shared_data", "iiiii"),
    ("env", "proxy_set_shared_data", "iiiii"),
    ("env", "proxy_register_shared_queue", "iii"),
    ("env", "proxy_resolve_shared_queue", "iiiii"),
    ("env", "proxy_dequeue_shared_queue", "iii"),
    ("env", "proxy_enqueue_shared_queue", "iii"),
    ("env", "proxy_define_metric", "iiii"),
    ("env", "proxy_increment_metric", "il"),
    ("env", "proxy_record_metric", "il"),
    ("env", "proxy_get_metric", "ii"),
    ("env", "proxy_call_foreign_function", "iiiiii"),
    ("env", "proxy_get_configuration", "ii"),
    ("env", "proxy_clear_route_cache", ""),
    ("env", "proxy_set_tick_period_milliseconds", "i"),
    ("env", "proxy_set_header_map_pairs", "iii"),
    ("env", "proxy_add_header_map_value", "iiiii"),
    ("env", "proxy_replace_header_map_value", "iiiii"),
    ("env", "proxy_remove_header_map_value", "iii"),
    ("wasi_snapshot_preview1", "args_get", "ii"),
    ("wasi_snapshot_preview1", "args_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "environ_get", "ii"),
    ("wasi_snapshot_preview1", "environ_sizes_get", "ii"),
    ("wasi_snapshot_preview1", "clock_res_get", "ii"),
    ("wasi_snapshot_preview1", "clock_time_get", "ili"),
    ("wasi_snapshot_preview1", "fd_close", "i"),
    ("wasi_snapshot_preview1", "fd_fdstat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_fdstat_set_flags", "ii"),
    ("wasi_snapshot_preview1", "fd_prestat_get", "ii"),
    ("wasi_snapshot_preview1", "fd_prestat_dir_name", "iii"),
    ("wasi_snapshot_preview1", "fd_read", "iiii"),
    ("wasi_snapshot_preview1", "fd_seek", "ilii"),
    ("wasi_snapshot_preview1", "fd_write", "iiii"),
    ("wasi_snapshot_preview1", "path_open", "iiiiilliii"),
    ("wasi_snapshot_preview1", "poll_oneoff", "iiii"),
    ("wasi_snapshot_preview1", "random_get", "ii"),
    ("wasi_snapshot_preview1", "sched_yield", ""),
];

/// A module that makes every call with every parameter in turn at each of the bounds of an address, a size, a number.
fn sweeping() -> String {
    // The memory has 16 pages.
    let bounds = [
        "0",
        "1",
        "3",
        "1048575",
        "1048576",
        "2147483647",
        "-2147483648",
        "-1",
    ];
    let (mut imports, mut sweeps) = (String::new(), String::new());
    for (at, (from, name, parameters)) in CALLS.iter().enumerate() {
        let kinds: Vec<&str> = parameters
            .chars()
            .map(|kind| if kind == 'l' { "i64" } else { "i32" })
            .collect();
        imports.push_str(&format!(
            "(import \"{from}\" \"{name}\" (func $f{at} (param {}) (result i32)))\n",
            kinds.join(" ")
        ));
        let mut calls = String::new();
        // What stands in the other places: nothing, and an address with a small size.
        for usual in ["0", "64"] {
            for place in 0..kinds.len().max(1) {
                for bound in bounds {
                    let values = kinds.iter().enumerate().map(|(other, kind)| {
                        let value = if other == place { bound } else { usual };
                        format!("({kind}.const {value})")
                    });
                    let values: Vec<String> = values.collect();
                    calls.push_str(&format!("(drop (call $f{at} {}))\n", values.join(" ")));
                }
            }
        }
        sweeps.push_str(&format!(
            "(func $s{at} {calls})\n(export \"s{at}\" (func $s{at}))\n"
        ));
    }
    let all: String = (0..CALLS.len())
        .map(|at| format!("(call $s{at})"))
        .collect();
    format!(
        r#"(module {imports}
             (memory (export "memory") 16)
             (func (export "proxy_on_memory_allocate") (param i32) (result i32)
               (if (result i32) (i32.gt_u (local.get 0) (i32.const 500000)) (then (i32.const 0)) (else (i32.const 524288))))
             (func (export "proxy_abi_version_0_2_1"))
             {sweeps}
             (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {all} (i32.const 0)))"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_with_any_number_harms_anything() {
    let edge = Edge::new(sweeping(), Origin::text("fine"), |plugin| {
        plugin.configuration = b"configuration".to_vec();
        plugin.limits.deadline = Duration::from_secs(20);
    });
    let edge = edge.await;
    let got = edge.get("/", &[]).await;
    let meter = edge.meter();
    assert_eq!(meter.traps, 0, "{:?}", meter.last_trap);
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
    assert!(meter.memory_now <= 4 << 20, "{}", meter.memory_now);
    assert_eq!(edge.get("/", &[]).await.body, "fine", "and once more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_loaded_says_why() {
    let abi = r#"(func (export "proxy_abi_version_0_2_1"))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let refusing = guest(&format!(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
             (call $ok (call $log (i32.const 4) (i32.const 0) (i32.const 21))) (i32.const 0)) {}"#,
        data(0, "unknown field `levle`"),
    ));
    let trapping =
        guest(r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)"#);
    for (name, module, wants) in [
        ("not Wasm", b"#!/bin/sh".to_vec(), vec!["guest.wasm", "not Wasm"]),
        ("empty", Vec::new(), vec!["not Wasm"]),
        ("component", b"\0asm\x0d\0\x01\0".to_vec(), vec!["component"]),
        ("broken", b"\0asm\x01\0\0\0\x01\xff".to_vec(), vec!["not valid Wasm"]),
        ("no ABI", format!("(module {memory})").into(), vec!["proxy_abi_version"]),
        (
            "another ABI",
            format!(r#"(module {memory} (func (export "proxy_abi_version_0_9_9")))"#).into(),
            vec!["proxy_abi_version_0_9_9"],
        ),
        ("no memory", format!("(module {abi})").into(), vec!["memory"]),
        (
            "unknown imports",
            format!(
                r#"(module (import "env" "proxy_fly" (func)) (import "wasi_snapshot_preview1" "fd_fly" (func))
                   (import "env" "proxy_done" (func (param i64))) {abi} {memory})"#
            )
            .into(),
            vec!["env.proxy_fly", "wasi_snapshot_preview1.fd_fly", "env.proxy_done"],
        ),
        (
            "wrong signature",
            format!(r#"(module {abi} {memory} (func (export "proxy_on_log") (param f32)))"#).into(),
            vec!["proxy_on_log"],
        ),
        ("refused", refusing.into_bytes(), vec!["guest.wasm", "proxy_on_configure", "unknown field `levle`"]),
        ("trap at start", trapping.into_bytes(), vec!["proxy_on_vm_start", "unreachable"]),
        (
            "a start function that spins",
            guest("(func $spin (loop (br 0))) (start $spin)").into_bytes(),
            vec!["trapped in start", "deadline of 5s"],
        ),
        (
            "memory between threads",
            guest("(memory 1 1 shared)").into_bytes(),
            vec!["shares memory between threads"],
        ),
    ] {
        let error = Edge::try_new(&module, Origin::text(""), |_| {}).await.err().unwrap_or_else(|| panic!("{name}"));
        let error = format!("{error:#}");
        for want in wants {
            assert!(error.contains(want), "{name}: {want:?} in {error}");
        }
    }
    let error = Edge::try_new(guest("").as_bytes(), Origin::text(""), |plugin| {
        plugin.limits.stack_bytes = 1
    })
    .await;
    let error = format!("{:#}", error.err().unwrap());
    assert!(
        error.contains("stack_bytes is 1, want 65536 to 1048576"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_abis_run() {
    let prelude = PRELUDE.replace("proxy_on_memory_allocate", "malloc");
    let short = format!(
        r#"(module
             (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
             (import "env" "proxy_continue_request" (func $resume (result i32)))
             (import "env" "proxy_continue_response" (func $resume_response (result i32)))
             (import "env" "proxy_clear_route_cache" (func $clear (result i32)))
             (import "env" "proxy_grpc_call"
               (func $grpc (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
             (import "wasi_unstable" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
             (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
             {prelude}
             (func (export "proxy_abi_version_0_1_0"))
             (func (export "_start") (call $exit (i32.const 0)))
             (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
               (call $ok (call $configuration (i32.const 100) (i32.const 104)))
               (call $ok (call $put (i32.const 0) (i32.const 0) (i32.const 1) (i32.load (i32.const 100))
                 (i32.load (i32.const 104))))
               (call $ok (call $clear))
               (call $ok (call $resume))
               (i32.const 1))
             (func (export "proxy_on_response_headers") (param i32 i32) (result i32) (i32.const 0))
             {})"#,
        data(0, "c"),
    );
    let edge = Edge::new(short, Origin::text(""), |plugin| {
        plugin.configuration = b"given".to_vec()
    })
    .await;
    let got = edge.get("/", &[]).await;
    assert!(got.all("x-seen").contains(&"c=given"), "{got:?}");
    let middle = format!(
        r#"(module {prelude} (func (export "proxy_abi_version_0_2_0"))
             (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
               (call $must (local.get 2) (i32.const 1))
               (call $ok (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 100) (i32.const 104)))
               (i32.const 0)) {})"#,
        data(0, ":path"),
    );
    let edge = Edge::new(middle, Origin::text("fine"), |_| {}).await;
    assert_eq!(edge.get("/", &[]).await.body, "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cpu_time_is_measured_where_that_is_asked() {
    use edgeweir_host_proxy_wasm::{Plugin, Runtime, RuntimeOptions, load};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.wasm");
    let text = guest(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (local $n i32)
             (loop $on (br_if $on (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))
             (i32.const 1))"#,
    );
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    for cpu_time in [false, true] {
        let options = RuntimeOptions {
            cpu_time,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(options).unwrap();
        let layer: Arc<dyn Layer> = load(&runtime, Plugin::new("busy", &path)).await.unwrap();
        let call = layer.meter().unwrap().snapshot().calls["proxy_on_configure"];
        let measured = call.cpu_ns > 0 && call.cpu_ns <= call.wall_ns * 2;
        assert_eq!(measured, cpu_time && cfg!(target_os = "linux"), "{call:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_found_in_the_cache_runs_the_same() {
    use edgeweir_host_proxy_wasm::{Plugin, Runtime, RuntimeOptions, load};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, wat::parse_str(guest("")).unwrap()).unwrap();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("of-someone-else"), "kept").unwrap();
    for _ in 0..2 {
        let runtime = Runtime::new(RuntimeOptions {
            cache_dir: Some(cache.clone()),
            fuel: true,
            ..RuntimeOptions::default()
        })
        .unwrap();
        let layer: Arc<dyn Layer> = load(&runtime, Plugin::new("cached", &path)).await.unwrap();
        assert_eq!(layer.name(), "cached");
        assert_eq!(layer.meter().unwrap().snapshot().instances, 2);
    }
    // Beside what was there, only a folder of its own: wasmtime empties the folder it caches in of all else.
    let mut names: Vec<_> = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["compiled", "of-someone-else"]);
    assert!(std::fs::read_dir(cache.join("compiled")).unwrap().count() > 0);
}
