//! A smaller session that differs in the same way.

use bytes::Bytes;

use crate::generate::{Session, Step};

/// The most sessions that are tried.
pub const TRIES: usize = 400;

/// Everything a session could be with one thing less, the largest steps first.
pub fn smaller(session: &Session) -> Vec<Session> {
    let mut all = Vec::new();
    if session.steps.len() > 1 {
        for at in 0..session.steps.len() {
            let mut less = session.clone();
            less.steps.remove(at);
            all.push(less);
        }
    }
    for at in 0..session.steps.len() {
        for step in smaller_steps(&session.steps[at]) {
            let mut less = session.clone();
            less.steps[at] = step;
            all.push(less);
        }
    }
    all
}

fn smaller_steps(step: &Step) -> Vec<Step> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Step)| {
        let mut less = step.clone();
        change(&mut less);
        if less != *step {
            all.push(less);
        }
    };
    with(&|step| step.asked.body.clear());
    with(&|step| step.script.body.clear());
    with(&|step| step.asked.trailers.clear());
    with(&|step| step.script.trailers.clear());
    for at in 0..step.asked.fields.len() {
        // Who asks stays: without it clients share what is counted for each.
        if step.asked.fields[at].0 != "x-client" {
            with(&|step| drop(step.asked.fields.remove(at)));
        }
    }
    for at in 0..step.script.fields.len() {
        with(&|step| drop(step.script.fields.remove(at)));
    }
    with(&|step| "GET".clone_into(&mut step.asked.method));
    with(&|step| step.script.status = 200);
    with(&|step| {
        if let Some(end) = step.asked.target.find('?') {
            step.asked.target.truncate(end);
        }
    });
    for body in [asked_body, script_body] {
        with(&|step| {
            let body = body(step);
            if body.len() > 1 {
                *body = vec![body.concat().into()];
            }
        });
        with(&|step| {
            let body = body(step);
            if let [one] = body.as_mut_slice()
                && one.len() > 1
            {
                one.truncate(one.len() / 2);
            }
        });
    }
    all
}

fn asked_body(step: &mut Step) -> &mut Vec<Bytes> {
    &mut step.asked.body
}

fn script_body(step: &mut Step) -> &mut Vec<Bytes> {
    &mut step.script.body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shrinks with a test of its own, as the command does with two proxies.
    fn shrink(mut session: Session, differs: impl Fn(&Session) -> bool) -> Session {
        for _ in 0..TRIES {
            match smaller(&session).into_iter().find(|less| differs(less)) {
                Some(less) => session = less,
                None => break,
            }
        }
        session
    }

    #[test]
    fn what_does_not_matter_goes() {
        let has_range = |session: &Session| {
            session
                .steps
                .iter()
                .any(|step| step.asked.text("range").is_some())
        };
        let session = (0..)
            .map(Session::generate)
            .find(|session| session.steps.len() > 4 && has_range(session))
            .expect("one of them");
        let least = shrink(session, has_range);
        assert_eq!(least.steps.len(), 1);
        let step = &least.steps[0];
        let names: Vec<&str> = step
            .asked
            .fields
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["x-client", "range"]);
        assert!(step.script.fields.is_empty() && step.script.body.is_empty());
    }

    #[test]
    fn every_try_is_smaller_or_plainer() {
        for seed in 0..50 {
            let session = Session::generate(seed);
            assert!(smaller(&session).iter().all(|less| *less != session));
        }
    }
}
