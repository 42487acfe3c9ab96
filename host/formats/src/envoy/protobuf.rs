//! JSON as the bytes of a `google.protobuf.Struct`.

use serde_json::Value;

/// A message: fields in the order they come.
pub(super) fn message(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            // map<string, Value> fields = 1, an entry being { string key = 1; Value value = 2; }.
            let mut entry = Vec::new();
            bytes(&mut entry, 1, name.as_bytes());
            bytes(&mut entry, 2, &self::value(value));
            bytes(&mut out, 1, &entry);
        }
    }
    out
}

fn value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Null => out.extend([0x08, 0]),
        Value::Number(number) => {
            out.push(0x11);
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::String(text) => bytes(&mut out, 3, text.as_bytes()),
        Value::Bool(flag) => out.extend([0x20, u8::from(*flag)]),
        Value::Object(_) => bytes(&mut out, 5, &message(value)),
        Value::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                bytes(&mut list, 1, &self::value(item));
            }
            bytes(&mut out, 6, &list);
        }
    }
    out
}

/// A field with a length: wire type 2.
fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(content);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_struct_is_written_as_protobuf_writes_it() {
        for (name, json, want) in [
            ("nothing", json!({}), &b""[..]),
            (
                "text",
                json!({"a": "b"}),
                b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01b",
            ),
            (
                "truth",
                json!({"a": true}),
                b"\x0a\x07\x0a\x01a\x12\x02\x20\x01",
            ),
            (
                "null",
                json!({"a": null}),
                b"\x0a\x07\x0a\x01a\x12\x02\x08\x00",
            ),
            (
                "number",
                json!({"a": 1}),
                b"\x0a\x0e\x0a\x01a\x12\x09\x11\0\0\0\0\0\0\xf0\x3f",
            ),
            (
                "list",
                json!({"a": ["b"]}),
                b"\x0a\x0c\x0a\x01a\x12\x07\x32\x05\x0a\x03\x1a\x01b",
            ),
        ] {
            assert_eq!(message(&json), want, "{name}");
        }
        let long = message(&json!({"a": "x".repeat(300)}));
        assert_eq!(&long[..3], b"\x0a\xb5\x02");
    }
}
