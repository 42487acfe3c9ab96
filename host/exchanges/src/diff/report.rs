//! What was found, for a terminal and as data.

use edgeweir_host_launch::Side;
use serde_json::{Value, json};

use super::{Found, SHOWN};
use crate::pair::{answer_shown, shown};

/// For a terminal.
pub(super) fn text(found: &Found, sides: &[Side], took: f64) -> String {
    let times: u64 = found.ways.values().map(|way| way.times).sum();
    let mut text = if found.ways.is_empty() {
        format!(
            "no difference in {} exchanges ({} sessions, {took:.1} s)\n",
            found.exchanges, found.sessions
        )
    } else {
        format!(
            "{times} of {} exchanges differ, in {} ways ({} sessions, {took:.1} s)\n",
            found.exchanges,
            found.ways.len(),
            found.sessions
        )
    };
    text.push_str(&format!("first:  {}\nsecond: {}\n", sides[0], sides[1]));
    if found.unsteady > 0 {
        text.push_str(&format!(
            "{} sessions differed once and not again when repeated: a matter of time\n",
            found.unsteady
        ));
    }
    if found.unsent > 0 {
        text.push_str(&format!(
            "{} not sent: the body of the request or of its response was not recorded\n",
            found.unsent
        ));
    }
    match &found.callbacks {
        Ok(0) => {}
        Ok(mixed) => text.push_str(&format!(
            "callbacks of {mixed} exchanges are not compared: their contexts cannot be told apart\n"
        )),
        Err(why) => text.push_str(&format!("callbacks are not compared: {why}\n")),
    }
    for (number, way) in found.ways.values().enumerate().take(SHOWN) {
        let name = &way.name;
        text.push_str(&format!("\n{}. {name}: {} times\n", number + 1, way.times));
        for (at, step) in way.session.steps.iter().enumerate() {
            let mark = if at == way.at { ">" } else { " " };
            text.push_str(&indented(&format!("{mark} "), &shown(&step.asked)));
            text.push_str(&indented("      origin: ", &answer_shown(&step.script)));
        }
        for difference in &way.differences {
            text.push_str(&format!(
                "  {}\n    first:  {}\n    second: {}\n",
                difference.what, difference.first, difference.second
            ));
        }
    }
    text
}

/// The first line after a mark, the others below it.
fn indented(mark: &str, text: &str) -> String {
    let below = " ".repeat(mark.chars().count() + 4);
    let mut lines = text.lines();
    let mut all = format!("  {mark}{}\n", lines.next().unwrap_or_default());
    for line in lines {
        all.push_str(&format!("{below}{line}\n"));
    }
    all
}

/// As data.
pub(super) fn json(found: &Found, sides: &[Side]) -> Value {
    let ways: Vec<Value> = found
        .ways
        .values()
        .map(|way| {
            json!({
                "way": way.name,
                "times": way.times,
                "seed": way.session.seed,
                "requests": way.session.steps.iter().map(|step| shown(&step.asked)).collect::<Vec<_>>(),
                "origin": way.session.steps.iter().map(|step| answer_shown(&step.script)).collect::<Vec<_>>(),
                "differences": way.differences.iter().map(|difference| json!({
                    "what": difference.what, "first": difference.first, "second": difference.second,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "first": sides[0].to_string(),
        "second": sides[1].to_string(),
        "exchanges": found.exchanges,
        "sessions": found.sessions,
        "unsteady": found.unsteady,
        "not_sent": found.unsent,
        "callbacks": match &found.callbacks {
            Ok(mixed) => json!({ "compared": true, "mixed": mixed }),
            Err(why) => json!({ "compared": false, "why": why }),
        },
        "ways": ways,
    })
}
