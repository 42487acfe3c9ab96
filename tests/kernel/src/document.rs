//! Documents like the answers of an API: a page of orders, pretty-printed by two spaces a level.
//!
//! Names are of different lengths, values are identifiers, times, prices, sentences, flags, nulls, short lists and objects
//! in objects; now and then a string has an escape or a letter outside ASCII. The same size gives the same bytes.

use serde_json::{Value, json};

/// A document of `bytes` bytes and at most one order more.
pub fn pretty(bytes: usize) -> Vec<u8> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut text = b"{\n  \"object\": \"list\",\n  \"data\": [\n".to_vec();
    let mut id = 10_000_000;
    while text.len() < bytes {
        if id > 10_000_000 {
            text.extend_from_slice(b",\n");
        }
        id += 1 + chance.below(900);
        let order = serde_json::to_string_pretty(&order(id, &mut chance)).unwrap_or_default();
        for (at, line) in order.lines().enumerate() {
            text.extend_from_slice(if at > 0 { b"\n    " } else { b"    " });
            text.extend_from_slice(line.as_bytes());
        }
    }
    text.extend_from_slice(b"\n  ],\n  \"has_more\": false\n}\n");
    text
}

fn order(id: u64, chance: &mut Chance) -> Value {
    let items: Vec<Value> = (0..1 + chance.below(3)).map(|_| item(chance)).collect();
    let tags: Vec<&str> = (0..chance.below(4)).map(|_| chance.word()).collect();
    let status = ["open", "paid", "shipped", "returned"][chance.below(4) as usize];
    json!({
        "id": id,
        "uuid": format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", chance.below(1 << 32), chance.below(1 << 16), chance.below(1 << 12), chance.below(1 << 12), chance.below(1 << 48)),
        "created_at": format!("2026-{:02}-{:02}T{:02}:{:02}:{:02}Z", 1 + chance.below(12), 1 + chance.below(28), chance.below(24), chance.below(60), chance.below(60)),
        "status": status,
        "paid": chance.below(2) == 0,
        "cancelled_at": Value::Null,
        "total": chance.below(1_000_000) as f64 / 100.0,
        "currency": "EUR",
        "customer": {
            "id": chance.below(100_000),
            "name": format!("{} {}", chance.name(), chance.name()),
            "email": format!("{}.{}@example.com", chance.word(), chance.word()),
            "address": {
                "street": format!("{} street {}", chance.word(), chance.below(200)),
                "city": if chance.below(5) == 0 { "Zürich" } else { "Springfield" },
                "postal_code": format!("{:05}", chance.below(100_000)),
                "location": { "lat": chance.below(180_000_000) as f64 / 1e6 - 90.0, "lon": chance.below(360_000_000) as f64 / 1e6 - 180.0 }
            }
        },
        "items": items,
        "tags": tags,
        "note": chance.sentence(),
        "url": format!("https://api.example.com/v1/orders/{id}")
    })
}

fn item(chance: &mut Chance) -> Value {
    json!({
        "sku": format!("SKU-{:06}", chance.below(1_000_000)),
        "title": chance.sentence(),
        "quantity": 1 + chance.below(9),
        "price": chance.below(10_000) as f64 / 100.0,
        "in_stock": chance.below(3) != 0,
        "discount": if chance.below(4) == 0 { json!(chance.below(50)) } else { Value::Null }
    })
}

/// A sequence of numbers that look like chance (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 16] = [
            "river", "blue", "of", "stone", "quick", "and", "lamp", "paper", "with", "garden",
            "seven", "north", "to", "window", "copper", "slow",
        ];
        WORDS[self.below(16) as usize]
    }

    fn name(&mut self) -> &'static str {
        const NAMES: [&str; 8] = [
            "Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Niklaus", "Margaret",
        ];
        NAMES[self.below(8) as usize]
    }

    fn sentence(&mut self) -> String {
        let mut words: Vec<&str> = (0..2 + self.below(9)).map(|_| self.word()).collect();
        match self.below(12) {
            0 => words.push("\"quoted\""),
            1 => words.push("é"),
            2 => words.push("a\nnew line"),
            _ => {}
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_of_the_size_asked_for() {
        for bytes in [0, 50_000] {
            let text = pretty(bytes);
            assert!(text.len() >= bytes && text.len() < bytes + 4096);
            let value: Value = serde_json::from_slice(&text).expect("valid");
            let orders = value["data"].as_array().map(Vec::len);
            assert_eq!(orders > Some(0), bytes > 0);
        }
    }
}
