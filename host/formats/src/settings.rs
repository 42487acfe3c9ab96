//! What a filter is given of its `config`.

use serde_json::Value as Json;

/// A filter's configuration as it is handed over, and as the JSON that a schema is held against.
///
/// A table is handed over as JSON, a text as it is: modules of other SDKs may read anything.
pub fn of(value: &toml::Value) -> Result<(String, Json), String> {
    Ok(match to_json(value)? {
        Json::String(text) => {
            let json = serde_json::from_str(&text);
            let json = json.unwrap_or_else(|_| Json::String(text.clone()));
            (text, json)
        }
        json => (json.to_string(), json),
    })
}

/// Why a text is no JSON, for where that is wanted of it; what is held in a table is.
pub fn unreadable(json: &Json) -> Option<String> {
    let text = json.as_str()?;
    let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
    read.err().map(|error| format!("it is no JSON: {error}"))
}

fn to_json(value: &toml::Value) -> Result<Json, String> {
    Ok(match value {
        toml::Value::String(text) => Json::String(text.clone()),
        toml::Value::Integer(number) => Json::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Json::Number)
            .ok_or_else(|| format!("{number} cannot be written in JSON"))?,
        toml::Value::Boolean(flag) => Json::Bool(*flag),
        // JSON has no dates; RFC 3339 text is what a filter would parse.
        toml::Value::Datetime(date) => Json::String(date.to_string()),
        toml::Value::Array(items) => {
            Json::Array(items.iter().map(to_json).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => Json::Object(
            table
                .iter()
                .map(|(key, value)| Ok((key.clone(), to_json(value)?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_handed_over_as_json_and_a_text_as_it_is() {
        for (config, given, json) in [
            (
                "config = { a = [1, true], b.c = \"x\" }",
                r#"{"a":[1,true],"b":{"c":"x"}}"#,
                r#"{"a":[1,true],"b":{"c":"x"}}"#,
            ),
            ("config = \"a greeting\"", "a greeting", r#""a greeting""#),
            ("config = '{ \"a\": 1 }'", "{ \"a\": 1 }", r#"{"a":1}"#),
            ("config = \"\"", "", r#""""#),
        ] {
            let table: toml::Table = config.parse().expect("TOML");
            let (text, held) = of(&table["config"]).expect(config);
            assert_eq!((text.as_str(), held.to_string().as_str()), (given, json));
        }
        let text = |text: &str| unreadable(&Json::String(text.to_owned()));
        assert!(text("{\"a\": }").is_some_and(|why| why.contains("column 7")));
        assert!(text("").is_some());
        assert_eq!(text("{}"), None);
        assert_eq!(unreadable(&Json::Null), None);
        let table: toml::Table = "config = { a = nan }".parse().expect("TOML");
        assert!(of(&table["config"]).is_err_and(|why| why.contains("cannot be written in JSON")));
    }
}
