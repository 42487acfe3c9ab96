;; Counts requests in shared data, and says the count and its own name in fields of the response.
(module
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "count")
  (data (i32.const 16) "x-count")
  (data (i32.const 32) "x-module")
  (data (i32.const 48) "NAME")
  (global $heap (mut i32) (i32.const 4096))
  ;; What the host asks memory of is used at once: a ring of it will do.
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $at i32)
    (if (i32.gt_u (i32.add (global.get $heap) (local.get $size)) (i32.const 60000))
      (then (global.set $heap (i32.const 4096))))
    (local.set $at (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (global.get $heap) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_context_create") (param i32 i32))
  ;; The count as eight decimal digits at 256, its compare-and-swap number at 300.
  (func $next
    (local $at i32) (local $value i32) (local $i i32) (local $carry i32)
    (block $stored
      (loop $again
        (i32.store (i32.const 300) (i32.const 0))
        (if (i32.eqz (call $get (i32.const 0) (i32.const 5) (i32.const 304) (i32.const 308) (i32.const 300)))
          (then (memory.copy (i32.const 256) (i32.load (i32.const 304)) (i32.const 8)))
          (else (i64.store (i32.const 256) (i64.const 0x3030303030303030))))
        (local.set $i (i32.const 7))
        (block $done
          (loop $digit
            (local.set $at (i32.add (i32.const 256) (local.get $i)))
            (local.set $value (i32.load8_u (local.get $at)))
            (if (i32.lt_u (local.get $value) (i32.const 57))
              (then
                (i32.store8 (local.get $at) (i32.add (local.get $value) (i32.const 1)))
                (br $done)))
            (i32.store8 (local.get $at) (i32.const 48))
            (local.set $i (i32.sub (local.get $i) (i32.const 1)))
            (br_if $digit (i32.ge_s (local.get $i) (i32.const 0)))))
        (br_if $stored (i32.eqz (call $set (i32.const 0) (i32.const 5) (i32.const 256) (i32.const 8) (i32.load (i32.const 300)))))
        (br $again))))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $next)
    (drop (call $add (i32.const 2) (i32.const 16) (i32.const 7) (i32.const 256) (i32.const 8)))
    (drop (call $add (i32.const 2) (i32.const 32) (i32.const 8) (i32.const 48) (i32.const 5)))
    (i32.const 0))
)
