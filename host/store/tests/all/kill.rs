//! The embedded back-end ended by `kill -9` under writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgeweir_host_store::limit::Limit;
use edgeweir_host_store::wire::{Ask, answers, ask_bytes};

use crate::process::{Client, Store};

const WRITERS: u32 = 4;

#[test]
fn killed_twenty_times_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("killed.redb");
    let file = file.to_str().expect("text");
    let arguments = ["--file", file];
    let kept: Arc<Mutex<HashMap<String, Option<String>>>> = Arc::default();
    let mut acknowledged = 0;
    let mut admitted = 0;
    for round in 0..20_u32 {
        let store = Store::start(&arguments);
        check(&mut store.client(), &kept.lock().expect("kept"), round);
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (kept, address) = (kept.clone(), store.address);
                std::thread::spawn(move || write(Client::connect(address), writer, round, &kept))
            })
            .collect();
        // Some rounds end before the first fold into the file, some in the middle of one.
        std::thread::sleep(Duration::from_millis(40 + u64::from(round % 7) * 190));
        store.kill();
        for thread in threads {
            let (wrote, limit) = thread.join().expect("wrote");
            acknowledged += wrote;
            admitted += limit;
        }
    }
    let store = Store::start(&arguments);
    check(&mut store.client(), &kept.lock().expect("kept"), 20);
    // What was admitted stays used: an hour's quota of 100 is not given twice.
    let left = limit(&mut store.client(), 0).map(|(_, remaining)| remaining);
    assert!(
        admitted > 0 && left.is_some_and(|left| left <= 100 - admitted),
        "{admitted} {left:?}"
    );
    assert!(store.stop(), "ends well");
    let logs = std::fs::read_dir(folder.path()).expect("read");
    let logs = logs
        .flatten()
        .filter(|it| it.file_name().to_string_lossy().contains(".log."));
    assert_eq!(logs.count(), 0, "a clean end folds all");
    println!("{acknowledged} writes were acknowledged over 20 kills, {admitted} cells admitted");
}

fn check(client: &mut Client, kept: &HashMap<String, Option<String>>, round: u32) {
    for (path, want) in kept {
        let got = client.ask("GET", path, &[], b"");
        match want {
            Some(value) => assert_eq!(got.body, value.as_bytes(), "round {round}: {path}"),
            None => assert_eq!(got.status, 404, "round {round}: {path}"),
        }
    }
}

/// Writes and deletes until the store is gone; remembers what was acknowledged, and forgets what it does not know.
fn write(
    mut client: Client,
    writer: u32,
    round: u32,
    kept: &Mutex<HashMap<String, Option<String>>>,
) -> (u32, u32) {
    let (mut wrote, mut admitted) = (0, 0);
    for step in 0.. {
        let path = format!("/kv/{writer}-{}", step % 300);
        let value = format!("{round} {step} {}", "x".repeat((step as usize * 37) % 900));
        let delete = step % 11 == 10;
        kept.lock().expect("kept").remove(&path);
        let answer = match delete {
            true => client.try_ask("DELETE", &path, &[], b""),
            false => client.try_ask("PUT", &path, &[("edgeweir-ttl", "9000")], value.as_bytes()),
        };
        let Ok(answer) = answer else { break };
        assert!(matches!(answer.status, 201 | 204 | 404), "{answer:?}");
        let value = (!delete).then_some(value);
        kept.lock().expect("kept").insert(path, value);
        wrote += 1;
        if writer == 0 && step % 40 == 0 {
            match limit(&mut client, 1) {
                Some((true, _)) => admitted += 1,
                Some(_) => {}
                None => break,
            }
        }
    }
    (wrote, admitted)
}

fn limit(client: &mut Client, cost: u32) -> Option<(bool, u32)> {
    let hour = 3_600_000_000_000;
    let ask = Ask {
        key: b"l".to_vec(),
        cost,
        charge: false,
        limits: vec![Limit::Gcra {
            interval: hour,
            tolerance: 99 * hour,
        }],
    };
    let answer = client
        .try_ask("POST", "/limit", &[], &ask_bytes(&[ask]))
        .ok()?;
    let (_, decisions) = answers(&answer.body).ok()?;
    Some((decisions[0][0].wait == 0, decisions[0][0].remaining))
}
