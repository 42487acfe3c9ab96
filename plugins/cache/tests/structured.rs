//! Structured fields: the parser that targeted directives and groups are read with takes what RFC 9651 says and nothing else
//! (vectors of httpwg/structured-field-tests in `tests/data/structured-fields`), and what the cache says parses.

use std::fs;
use std::path::Path;

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, load};
use proptest::prelude::*;
use serde_json::{Value, json};
use sfv::{BareItem, Dictionary, FieldType as _, Item, List, ListEntry, Parameters, Parser};

fn bare(item: &BareItem) -> Value {
    match item {
        BareItem::Boolean(it) => json!(it),
        BareItem::Integer(it) => json!(i64::from(*it)),
        BareItem::Decimal(it) => json!(f64::from(*it)),
        BareItem::String(it) => json!(it.as_str()),
        BareItem::Token(it) => json!({ "__type": "token", "value": it.as_str() }),
        BareItem::Date(it) => json!({ "__type": "date", "value": i64::from(it.unix_seconds()) }),
        BareItem::ByteSequence(it) => json!({ "__type": "binary", "value": base32(it) }),
        BareItem::DisplayString(it) => json!({ "__type": "displaystring", "value": it }),
    }
}

/// RFC 4648 §6, as the vectors write bytes.
fn base32(bytes: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    for five in bytes.chunks(5) {
        let mut all = [0; 8];
        all[3..3 + five.len()].copy_from_slice(five);
        let bits = u64::from_be_bytes(all);
        let used = (five.len() * 8).div_ceil(5);
        for at in 0..8 {
            let letter = letters[(bits >> (35 - 5 * at) & 31) as usize];
            out.push(if at < used { letter.into() } else { '=' });
        }
    }
    out
}

fn parameters(all: &Parameters) -> Value {
    all.iter()
        .map(|(name, value)| json!([name.as_str(), bare(value)]))
        .collect()
}

fn item(item: &Item) -> Value {
    json!([bare(&item.bare_item), parameters(&item.params)])
}

fn entry(entry: &ListEntry) -> Value {
    match entry {
        ListEntry::Item(one) => item(one),
        ListEntry::InnerList(list) => {
            let items: Value = list.items.iter().map(item).collect();
            json!([items, parameters(&list.params)])
        }
    }
}

/// What a field of this type is read as, and how it is written again; `None` when it is not one.
fn parsed(kind: &str, text: &str) -> Option<(Value, Option<String>)> {
    let parser = Parser::new(text);
    match kind {
        "item" => {
            let it = parser.parse::<Item>().ok()?;
            Some((item(&it), Some(it.serialize())))
        }
        "list" => {
            let it = parser.parse::<List>().ok()?;
            Some((it.iter().map(entry).collect(), it.serialize()))
        }
        "dictionary" => {
            let it = parser.parse::<Dictionary>().ok()?;
            let members = it.iter();
            let members = members.map(|(name, member)| json!([name.as_str(), entry(member)]));
            Some((members.collect(), it.serialize()))
        }
        other => panic!("no type {other}"),
    }
}

/// 1.0 and 1 are the same number in JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b,
    }
}

#[test]
fn the_parser_reads_what_the_vectors_say() {
    // Cargo runs a test in its package's folder; where it was compiled may be another clone that shares the target folder.
    let folder = Path::new("../../tests/data/structured-fields");
    let (mut good, mut bad) = (0, 0);
    for file in fs::read_dir(folder).expect("the vectors are there") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("reads");
        let vectors: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        for vector in vectors {
            let name = format!("{}: {}", path.display(), vector["name"]);
            let lines = vector["raw"].as_array().expect("lines");
            let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
            // RFC 9651 §4.2: "if field_name is [repeated], combine … with a comma", as `Fields::joined` does.
            let raw = lines.join(", ");
            let kind = vector["header_type"].as_str().expect("a type");
            let got = parsed(kind, &raw);
            if vector["must_fail"] == true {
                assert!(got.is_none(), "{name}: {raw:?} was read as {got:?}");
                bad += 1;
                continue;
            }
            let Some((value, written)) = got else {
                assert!(vector["can_fail"] == true, "{name}: {raw:?} was not read");
                continue;
            };
            let want = &vector["expected"];
            assert!(same(&value, want), "{name}: {value}, not {want}");
            let canonical = vector.get("canonical").and_then(Value::as_array);
            let canonical: Vec<&str> = match canonical {
                Some(lines) => lines.iter().filter_map(Value::as_str).collect(),
                None => lines,
            };
            assert_eq!(written.unwrap_or_default(), canonical.join(", "), "{name}");
            good += 1;
        }
    }
    assert!(good >= 100 && bad >= 60, "{good} read, {bad} refused");
}

proptest! {
    /// Whatever is asked for, configured and answered: `Cache-Status` is a list whose last member is this cache's.
    #[test]
    fn what_the_cache_says_parses(
        name in "[!-~]{1,64}", path in "/[ -~]{0,40}", status in 200u16..600,
        control in "(max-age=[0-9]{1,4})?(, ?(private|no-store|no-cache|public|\"))?", debug: bool,
        before in proptest::option::of("[a-z]{1,8}; hit(; ttl=[0-9]{1,3})?"), again: bool
    ) {
        let config = json!({ "name": name, "debug_key": debug }).to_string();
        let Ok(cache) = load::<Cache>(config.as_bytes()) else {
            // A name that it would have to quote is refused.
            return Ok(());
        };
        let mut edge = Script::new(cache);
        edge.request(&["GET", &path, "a.example"], &[]);
        let mut fields = vec![("cache-control", control.as_str())];
        fields.extend(before.as_deref().map(|it| ("cache-status", it)));
        edge.answers(status, &fields, &[b"body"]);
        let mut seen = edge.run();
        if again {
            seen = edge.run();
        }
        let text = seen.text("cache-status");
        let list = Parser::new(&text).parse::<List>();
        prop_assert!(list.is_ok(), "{text:?}: {list:?}");
        let list = list.unwrap_or_default();
        let Some(ListEntry::Item(last)) = list.last() else {
            return Err(TestCaseError::fail(text));
        };
        let said = match &last.bare_item {
            BareItem::Token(it) => it.as_str().to_owned(),
            BareItem::String(it) => it.as_str().to_owned(),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(said, name);
    }
}
