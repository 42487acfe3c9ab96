;; Holds each head until its body has been seen whole, and says so in a field. A request of four bytes is refused; one of
;; five lets go of its head with the first piece, and the rest goes as it comes: Envoy still takes fields for a head that waits for a
;; connection, so a second one would be sent or not by chance.
(module
  (import "env" "proxy_add_header_map_value" (func $put (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "x-body")
  (data (i32.const 8) "seen")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func $head (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (i32.eqz (local.get $end)))
  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (call $head (local.get $context) (local.get $count) (local.get $end)))
  (global $gone (mut i32) (i32.const 0))
  (func $say (param $map i32) (result i32)
    (drop (call $put (local.get $map) (i32.const 0) (i32.const 6) (i32.const 8) (i32.const 4)))
    (i32.const 0))
  (func (export "proxy_on_request_body") (param $context i32) (param $size i32) (param $end i32) (result i32)
    (if (i32.eq (local.get $context) (global.get $gone)) (then (return (i32.const 0))))
    (if (i32.eq (local.get $size) (i32.const 5)) (then
      (global.set $gone (local.get $context))
      (return (call $say (i32.const 0)))))
    (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
    (if (i32.eq (local.get $size) (i32.const 4)) (then
      ;; Refused, or let go if that cannot be said.
      (return (i32.eqz (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1))))))
    (call $say (i32.const 0)))
  (func (export "proxy_on_response_body") (param $context i32) (param $size i32) (param $end i32) (result i32)
    (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
    (call $say (i32.const 2))))
