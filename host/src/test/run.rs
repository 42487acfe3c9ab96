//! All cases of a run: at once where they can be, reported in their order.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use edgeweir_host_cases::judge::{Reach, Verdict, judge};
use edgeweir_host_cases::model::{Case, File, Filter};
use edgeweir_host_cases::report::{End, Outcome, Run, Tortured};
use edgeweir_host_cases::seen::Seen;
use edgeweir_host_cases::torture::{self, Fault};
use edgeweir_host_cases::{content, parse};
use edgeweir_host_launch::find_envoy;

use super::local::{Local, Ran};
use super::{On, Test, envoy, files};
use crate::load::Abi;

/// The most cases that share an Envoy: each has its virtual machines in it.
const ON_ONE_ENVOY: usize = 16;

/// Reads and runs everything; `before` it runs the files it depends on are told.
pub fn all(arguments: &Test, before: &mut dyn FnMut(&[PathBuf])) -> anyhow::Result<Run> {
    let began = Instant::now();
    let mut run = Run {
        on: match arguments.on {
            On::Host => "host".to_owned(),
            On::Envoy => "envoy".to_owned(),
        },
        ..Run::default()
    };
    let paths = files(&arguments.paths)?;
    let mut read: Vec<File> = Vec::new();
    for path in &paths {
        match parse::read(path) {
            Ok(file) => read.push(file),
            Err(problem) => run.problems.push(problem.to_string()),
        }
    }
    let wanted = |case: &Case| {
        let filter = arguments.filter.as_deref().unwrap_or_default();
        case.name.contains(filter)
    };
    let cases: Vec<(&Path, &Case)> = read
        .iter()
        .flat_map(|file| file.cases.iter().map(|case| (&*file.source.file, case)))
        .filter(|(_, case)| wanted(case))
        .collect();
    if cases.is_empty() && run.problems.is_empty() {
        run.problems.push(match arguments.filter.as_deref() {
            Some(filter) => format!("no case has {filter:?} in its name"),
            None => "no file named *.test.toml or *.test.yaml was found".to_owned(),
        });
    }
    let mut dependencies = paths;
    for (_, case) in &cases {
        dependencies.extend(case.filters.iter().map(|filter| filter.module.clone()));
    }
    dependencies.sort();
    dependencies.dedup();
    before(&dependencies);
    let host = Host::new(arguments, &cases)?;
    run.outcomes = at_once(arguments, &cases, &host);
    run.took = began.elapsed();
    Ok(run)
}

/// Where the cases run.
enum Host {
    /// Without and with counting fuel, which costs up to half of the speed.
    Local(Local, Local),
    Envoy(PathBuf),
}

impl Host {
    fn new(arguments: &Test, cases: &[(&Path, &Case)]) -> anyhow::Result<Self> {
        match arguments.on {
            On::Host => {
                let cache = arguments.cache_dir.clone().or_else(crate::load::user_cache);
                let local = |fuel| Local::new(fuel, cache.clone());
                let host = Self::Local(local(false)?, local(true)?);
                for (_, case) in cases {
                    for filter in &case.filters {
                        // Compiled once, before cases wait for it; what is wrong with it each of them says.
                        let _ = host.local(case).map(|it| it.compile(&filter.module));
                    }
                }
                Ok(host)
            }
            On::Envoy => find_envoy(arguments.envoy.as_deref()).map(Self::Envoy),
        }
    }

    /// Where a case runs, if that is here.
    fn local(&self, case: &Case) -> Option<&Local> {
        match self {
            Self::Local(_, counting) if case.budget.fuel.is_some() => Some(counting),
            Self::Local(plain, _) => Some(plain),
            Self::Envoy(_) => None,
        }
    }
}

/// Which cases run together: on Envoy those that can share one, else each alone.
fn together(cases: &[(&Path, &Case)], host: &Host) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, (_, case)) in cases.iter().enumerate() {
        let runs = matches!(host, Host::Envoy(_)) && envoy::refuses(case).is_none();
        let group = groups.iter_mut().find(|group| {
            let first = group.first().and_then(|first| cases.get(*first));
            let shares = |(_, first): &(&Path, &Case)| {
                envoy::refuses(first).is_none() && envoy::shares(first, case)
            };
            runs && group.len() < ON_ONE_ENVOY && first.is_some_and(shares)
        });
        match group {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

fn at_once(arguments: &Test, cases: &[(&Path, &Case)], host: &Host) -> Vec<Outcome> {
    let groups = together(cases, host);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let threads = match arguments.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let progress = std::io::stderr().is_terminal();
    let keep = |at: usize, end: End, began: Instant| {
        let Some((file, case)) = cases.get(at) else {
            return;
        };
        let outcome = Outcome {
            file: file.to_path_buf(),
            name: case.name.clone(),
            line: line(case, &end),
            end,
            took: began.elapsed(),
        };
        let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
        if progress {
            let all = cases.len();
            let _ = write!(std::io::stderr(), "\r\x1b[K{finished} of {all} cases");
        }
        let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((at, outcome));
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(groups.len()) {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    some(arguments, cases, group, host, &keep);
                }
            });
        }
    });
    if progress {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let mut all = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Where to look: of a module that is not there, where it is named.
fn line(case: &Case, end: &End) -> usize {
    let absent = |filter: &&Filter| !filter.module.is_file();
    match (end, case.filters.iter().find(absent)) {
        (End::Broken(_), Some(filter)) => filter.line,
        _ => case.line,
    }
}

/// Runs a group and gives each case's end to `keep`.
fn some(
    arguments: &Test,
    cases: &[(&Path, &Case)],
    group: &[usize],
    host: &Host,
    keep: &dyn Fn(usize, End, Instant),
) {
    let of = |at: &usize| cases.get(*at).map(|(_, case)| *case);
    let mut began = Instant::now();
    match host {
        Host::Local(..) => {
            for (at, case) in group.iter().filter_map(|at| Some((*at, of(at)?))) {
                if let Some(local) = host.local(case) {
                    keep(at, one(arguments, case, local), began);
                }
            }
        }
        Host::Envoy(program) => {
            let shared: Vec<&Case> = group.iter().filter_map(of).collect();
            if let [case] = shared[..]
                && let Some(why) = envoy::refuses(case)
            {
                return group
                    .iter()
                    .for_each(|at| keep(*at, End::Skipped(why.clone()), began));
            }
            let mut each = group.iter().zip(&shared);
            envoy::run(program, &shared, &mut |seen| {
                let Some((at, case)) = each.next() else {
                    return;
                };
                let end = match seen {
                    Ok(seen) => judged(case, &seen, Reach::ENVOY, None),
                    Err(error) => End::Broken(format!("{error:#}")),
                };
                keep(*at, end, began);
                began = Instant::now();
            });
        }
    }
}

/// A case on this host.
fn one(arguments: &Test, case: &Case, local: &Local) -> End {
    if let Some(fault) = &arguments.torture_at {
        return under(local, case, fault);
    }
    match plainly(local, case) {
        End::Judged {
            verdict,
            cost,
            splits,
            split,
            ..
        } if arguments.torture && case.torture && verdict.failures.is_empty() => End::Judged {
            torture: Some(tortured(local, case, arguments.torture_most as usize)),
            verdict,
            cost,
            splits,
            split,
        },
        end => end,
    }
}

fn judged(case: &Case, seen: &Seen, reach: Reach, split: Option<usize>) -> End {
    End::Judged {
        verdict: judge(case, seen, reach),
        cost: seen.cost,
        splits: 1,
        split,
        torture: None,
    }
}

fn reach(case: &Case) -> Reach {
    let is_module = |filter: &Filter| Abi::of(&filter.module).is_ok_and(|it| it == Abi::ProxyWasm);
    match case.filters.iter().any(is_module) {
        true => Reach::MODULES,
        false => Reach::COMPONENTS,
    }
}

/// A case as it is, at each split until one fails.
fn plainly(local: &Local, case: &Case) -> End {
    let splits = case.splits().min(content::SPLITS);
    let mut held = 0;
    for split in 1..=splits {
        let ran = match local.run(case, split, None) {
            Ok(ran) => ran,
            Err(error) => return End::Broken(format!("{error:#}")),
        };
        let mut verdict = judge(case, &ran.seen, reach(case));
        held += verdict.held;
        verdict.held = held;
        if split == splits || !verdict.failures.is_empty() {
            return End::Judged {
                split: (splits > 1 && !verdict.failures.is_empty()).then_some(split),
                verdict,
                cost: ran.seen.cost,
                splits,
                torture: None,
            };
        }
    }
    End::Broken("it has no split".to_owned())
}

/// The split a body that is split at each point has under faults.
fn middle(case: &Case) -> usize {
    (case.splits() / 2).max(1)
}

fn tortured(local: &Local, case: &Case, most: usize) -> Tortured {
    let mut tortured = Tortured::default();
    let plain = match local.run(case, middle(case), None) {
        Ok(plain) => plain,
        Err(error) => {
            tortured
                .broke
                .push(("nothing".to_owned(), format!("{error:#}")));
            return tortured;
        }
    };
    let mut faults = faults(&plain);
    if faults.len() > most {
        let all = faults.len();
        faults = (0..most)
            .filter_map(|at| faults.get(at * all / most).cloned())
            .collect();
    }
    for fault in faults {
        tortured.faults += 1;
        let outcome = match local.run(case, middle(case), Some(&fault)) {
            Ok(ran) => torture::judge(case, &fault, &plain.seen, &ran.seen),
            Err(error) => Err(format!("{error:#}")),
        };
        match outcome {
            Ok(fate) => tortured.fates[fate as usize] += 1,
            Err(how) => tortured.broke.push((fault.to_string(), how)),
        }
    }
    tortured
}

fn faults(plain: &Ran) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (call, count) in &plain.calls {
        for nth in 1..=*count {
            for status in torture::statuses(call) {
                faults.push(Fault {
                    call: (*call).to_owned(),
                    nth,
                    status: *status,
                });
            }
        }
    }
    faults
}

/// A case under one fault.
fn under(local: &Local, case: &Case, fault: &Fault) -> End {
    let ran = local
        .run(case, middle(case), None)
        .and_then(|plain| Ok((plain, local.run(case, middle(case), Some(fault))?)));
    let (plain, ran) = match ran {
        Ok(ran) => ran,
        Err(error) => return End::Broken(format!("{error:#}")),
    };
    if !ran.hit {
        let count = plain.calls.get(fault.call.as_str()).copied().unwrap_or(0);
        return End::Skipped(format!("`{}` is called {count} times", fault.call));
    }
    let mut tortured = Tortured {
        faults: 1,
        ..Tortured::default()
    };
    match torture::judge(case, fault, &plain.seen, &ran.seen) {
        Ok(fate) => tortured.fates[fate as usize] += 1,
        Err(how) => tortured.broke.push((fault.to_string(), how)),
    }
    End::Judged {
        verdict: Verdict::default(),
        cost: ran.seen.cost,
        splits: 1,
        split: None,
        torture: Some(tortured),
    }
}
