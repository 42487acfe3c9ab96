//! A scenario on a host.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{io, net::SocketAddr};

use anyhow::Result;

use crate::hosts::{self, Host, Running, pure::Pure};
use crate::{Origin, Request, Seen, Setup, client, origin};

/// The edge a scenario talks to: filters on one of the hosts, an origin behind them.
pub struct Edge {
    host: Host,
    segment: String,
    setup: Setup,
    way: Way,
}

enum Way {
    Pure(Box<Pure>),
    Socket(Running),
}

impl Edge {
    /// Which host this is.
    pub fn host(&self) -> Host {
        self.host
    }

    /// Sends a request on a connection of its own; the origin does as told.
    pub fn send(&mut self, request: &Request, origin: &Origin) -> Seen {
        match self.try_send(request, origin) {
            Ok(seen) => seen,
            Err(error) => panic!("{} {}: no response: {error}", request.method, request.path),
        }
    }

    /// As `send`; an error is a connection that ended without a response.
    pub fn try_send(&mut self, request: &Request, origin: &Origin) -> io::Result<Seen> {
        let path = self.path(&request.path);
        match &mut self.way {
            Way::Pure(pure) => Ok(pure.send(request, &path, origin, self.segment.len() + 1)),
            Way::Socket(running) => {
                let server = origin::server();
                server.answer(&self.segment, origin);
                server.received(&self.segment);
                let mut seen = client::exchange(running.address, request, &path)?;
                seen.upstream = server.received(&self.segment);
                Ok(seen)
            }
        }
    }

    /// Does something under a first segment of its own, so that what its origin does is not this scenario's.
    pub fn aside<T>(&mut self, part: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        let own = format!("{}.{part}", self.segment);
        let before = std::mem::replace(&mut self.segment, own);
        let done = run(self);
        self.segment = before;
        done
    }

    /// What time the edge takes it for.
    pub fn now(&self) -> SystemTime {
        match &self.way {
            Way::Pure(pure) => pure.now(),
            Way::Socket(_) => SystemTime::now(),
        }
    }

    /// The same again, without anything it had in memory.
    pub fn restart(&mut self) {
        let fresh = match self.host {
            Host::Pure => Pure::new(&self.setup).map(|pure| Some(Way::Pure(Box::new(pure)))),
            host => hosts::start(host, &self.setup).map(|running| running.map(Way::Socket)),
        };
        match fresh {
            Ok(Some(way)) => self.way = way,
            Ok(None) => panic!("{} is not there any more", self.host),
            Err(error) => panic!("it does not start again: {error:#}"),
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        match &mut self.way {
            Way::Pure(pure) => pure.pass(time),
            Way::Socket(_) => std::thread::sleep(time),
        }
    }

    /// The path as it is on the wire: the scenario's own first segment is put before it.
    pub fn path(&self, path: &str) -> String {
        format!("/{}{path}", self.segment)
    }

    /// Where to connect; `None` on the pure contract.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.way {
            Way::Pure(_) => None,
            Way::Socket(running) => Some(running.address),
        }
    }

    /// What the origin does from now on, and drops what it received; for scenarios that use a client themselves.
    pub fn origin_does(&self, origin: &Origin) {
        origin::server().answer(&self.segment, origin);
        origin::server().received(&self.segment);
    }

    /// What the origin received since the last exchange.
    pub fn received(&self) -> Vec<crate::Received> {
        origin::server().received(&self.segment)
    }

    fn start(host: Host, scenario: &str, setup: &Setup) -> Result<Option<Self>> {
        let way = match host {
            Host::Pure => Way::Pure(Box::new(Pure::new(setup)?)),
            _ => match hosts::running(host, setup)? {
                Some(running) => Way::Socket(running),
                None => return Ok(None),
            },
        };
        let segment = format!("{scenario}.{}", host.name());
        Ok(Some(Self {
            host,
            segment,
            setup: setup.clone(),
            way,
        }))
    }
}

static RAN: Mutex<Vec<(Host, String, Outcome)>> = Mutex::new(Vec::new());

#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Held,
    Failed,
    Skipped(&'static str),
    Absent,
}

/// Runs a scenario on each host, each with its filters; panics naming the hosts where it does not hold.
pub fn on_each_host(scenario: &str, setup: &Setup, run: impl Fn(&mut Edge)) {
    let mut failures = Vec::new();
    for host in hosts::chosen() {
        let outcome = if let Some(reason) = setup.skips(host) {
            Outcome::Skipped(reason)
        } else {
            match Edge::start(host, scenario, setup) {
                Ok(None) => Outcome::Absent,
                Ok(Some(mut edge)) => match catch_unwind(AssertUnwindSafe(|| run(&mut edge))) {
                    Ok(()) => Outcome::Held,
                    Err(panic) => {
                        failures.push(format!("on {host}: {}", message(&*panic)));
                        Outcome::Failed
                    }
                },
                Err(error) => {
                    failures.push(format!("on {host}: it does not start: {error:#}"));
                    Outcome::Failed
                }
            }
        };
        let mut ran = RAN.lock().unwrap_or_else(PoisonError::into_inner);
        ran.push((host, scenario.to_owned(), outcome));
    }
    // Rewritten each time: a test program has no last word of its own. `cargo edge test` prints it.
    let lines = hosts_that_ran();
    let file = cargo_edge::test::scenarios();
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.and_then(|()| std::fs::write(&file, lines)) {
        eprintln!("which hosts ran is not written: {error}");
    }
    assert!(
        failures.is_empty(),
        "{scenario} does not hold\n{}",
        failures.join("\n")
    );
}

/// A line for each host: how many scenarios ran on it so far, which were left out, and why.
pub fn hosts_that_ran() -> String {
    let ran = RAN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = String::new();
    for host in Host::ALL {
        let of = |wanted: fn(&Outcome) -> bool| {
            ran.iter()
                .filter(|(h, _, outcome)| *h == host && wanted(outcome))
                .count()
        };
        let held = of(|outcome| *outcome == Outcome::Held);
        let failed = of(|outcome| *outcome == Outcome::Failed);
        let absent = of(|outcome| *outcome == Outcome::Absent);
        if held + failed == 0 && absent > 0 {
            lines.push_str(&format!(
                "{host}: not there, {absent} scenarios did not run\n"
            ));
            continue;
        }
        lines.push_str(&format!("{host}: {held} scenarios hold, {failed} fail\n"));
        for (_, scenario, outcome) in ran.iter().filter(|(h, ..)| *h == host) {
            if let Outcome::Skipped(reason) = outcome {
                lines.push_str(&format!("    left out: {scenario} ({reason})\n"));
            }
        }
    }
    lines
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<String>() {
        return text.clone();
    }
    let text = panic.downcast_ref::<&str>();
    (*text.unwrap_or(&"a panic without a message")).to_owned()
}
