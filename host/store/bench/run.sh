#!/bin/sh
# Operations a second of each back-end, with wrk (16 connections, 1 thread, 3 s each). From the project's root, after
#   cargo build --release -p edgeweir-host-store
# Needs wrk and redis-server. STORE names another program.
set -eu
store=${STORE:-${CARGO_TARGET_DIR:-target}/release/edgeweir-store}
here=$(dirname "$0")
folder=$(mktemp -d)
redis_port=${REDIS_PORT:-7441}
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$folder" > /dev/null &
redis=$!
trap 'kill $redis; rm -r "$folder"' EXIT
sleep 1
measure() {
    name=$1
    shift
    "$store" --listen 127.0.0.1:0 "$@" > "$folder/out" &
    pid=$!
    sleep 1
    address=$(sed -n 's/^store \(http[^ ]*\).*/\1/p' "$folder/out")
    for what in put get limit; do
        rate=$(wrk -t1 -c16 -d3 --latency -s "$here/$what.lua" "$address" |
            awk '/99%/ { p99 = $2 } /Requests.sec/ { rate = $2 } /Non-2xx/ { bad = " bad: " $NF } END { print rate " p99 " p99 bad }')
        echo "$name $what $rate"
    done
    kill "$pid"
    wait "$pid"
}
measure memory --memory
measure embedded-os --file "$folder/os.redb"
measure embedded-disk --file "$folder/disk.redb" --sync disk
measure redis --redis "redis://127.0.0.1:$redis_port"
