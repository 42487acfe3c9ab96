//! What a filter says against its configuration, as an error of the file that the operator wrote.

use std::ops::Range;

use edgeweir_host_wasi_http::Refused;

use crate::config::{Config, ConfigError, Filter};

/// A field by its path, and what is wrong with it, as filters of this project say it.
struct Said<'a> {
    field: &'a str,
    what: &'a str,
}

impl<'a> Said<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (_, rest) = text.rsplit_once("configuration field `")?;
        let (field, what) = rest.split_once("`: ")?;
        Some(Self { field, what })
    }
}

/// Where a filter has its configuration from.
struct Given {
    /// The field below the filter's own.
    field: String,
    span: Range<usize>,
    /// The operator wrote fields, not a text: places in a text mean nothing to them.
    fields: bool,
}

/// The error of a filter that does not start.
pub(crate) fn of(
    config: &Config,
    name: &str,
    filter: &Filter,
    error: &anyhow::Error,
) -> ConfigError {
    if let Some(placed) = error.downcast_ref::<ConfigError>() {
        return placed.clone();
    }
    let refused = error.downcast_ref::<Refused>();
    let text = refused.map_or_else(|| format!("{error:#}"), |refused| refused.0.clone());
    let given = given(config, name, filter, refused.is_some().then_some(&text));
    let source = &config.source;
    let own = format!("filter.{name}");
    let Some(said) = Said::of(&text) else {
        let field = match refused {
            Some(_) if !given.field.is_empty() => format!("{own}.{}", given.field),
            _ => own,
        };
        let text = text + &config.given.told(source, &given.span);
        return ConfigError::at(source, given.span, &field, text);
    };
    if given.fields {
        let place = source.below(given.span, said.field);
        let field = format!("{own}.{}.{}", given.field, said.field);
        return ConfigError::at(source, place, &field, in_words(without_place(said.what)));
    }
    let field = match given.field.as_str() {
        "" => own,
        field => format!("{own}.{field}"),
    };
    let filled = config.given.told(source, &given.span);
    let message = format!("in `{}`: {}{filled}", said.field, in_words(said.what));
    ConfigError::at(source, given.span, &field, message)
}

fn given(config: &Config, name: &str, filter: &Filter, refused: Option<&String>) -> Given {
    let read_from = refused.and_then(|text| text.split_once(": "));
    let read_from = read_from
        .map(|(read_from, _)| read_from)
        .unwrap_or_default();
    let text = |table: &str, variable: &str, all: Range<usize>| Given {
        field: format!("{table}.{variable}"),
        span: place_of_variable(config, name, filter, table, variable).unwrap_or(all),
        fields: false,
    };
    if let Some(all) = &filter.environment
        && all.get_ref().contains_key(read_from)
    {
        return text("environment", read_from, all.span());
    }
    if let Some(all) = &filter.variables
        && let Some(variable) = read_from.strip_prefix("variable `")
    {
        return text("variables", variable.trim_end_matches('`'), all.span());
    }
    let raw = filter
        .raw
        .as_ref()
        .and_then(|raw| raw.configuration.as_ref());
    match (&filter.config, raw) {
        (Some(config), _) => Given {
            field: "config".to_owned(),
            span: config.span(),
            fields: !config.get_ref().is_str(),
        },
        (None, raw) => Given {
            field: String::new(),
            span: raw.map_or_else(|| filter.module.span(), |raw| raw.span.clone()),
            fields: false,
        },
    }
}

/// Where a variable of a component's is set. In a manifest of Spin's a middleware may inherit it of the component behind it.
pub(crate) fn place_of_variable(
    config: &Config,
    name: &str,
    filter: &Filter,
    table: &str,
    variable: &str,
) -> Option<Range<usize>> {
    let source = &config.source;
    if filter.grants.is_none() {
        return source.place_of(&["filter", name, table, variable]);
    }
    let (own, behind) = name.split_once('@').unwrap_or((name, name));
    [own, behind, "*"]
        .into_iter()
        .find_map(|component| source.place_of(&["component", component, table, variable]))
}

/// Without the place in a JSON text that the host made of a table.
fn without_place(message: &str) -> &str {
    let Some((before, column)) = message.rsplit_once(" column ") else {
        return message;
    };
    let Some((before, line)) = before.rsplit_once(" at line ") else {
        return message;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if number(line) && number(column) {
        before
    } else {
        message
    }
}

/// Names of Rust's types as what they are in JSON.
fn in_words(message: &str) -> String {
    let Some((before, wanted)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let (wanted, place) = match wanted.split_once(" at line ") {
        Some((wanted, place)) => (wanted, format!(" at line {place}")),
        None => (wanted, String::new()),
    };
    let words = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{before}, expected {words}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_text_nobody_wrote_are_left_out() {
        for (message, want) in [
            ("no unit of time at line 1 column 111", "no unit of time"),
            ("no unit of time", "no unit of time"),
            ("at line x column 3", "at line x column 3"),
            ("there is no column ", "there is no column "),
        ] {
            assert_eq!(without_place(message), want);
        }
    }

    #[test]
    fn types_are_said_in_words() {
        for (message, want) in [
            (
                "invalid type: string \"5\", expected u32",
                "invalid type: string \"5\", expected a whole number from 0 to 4294967295",
            ),
            (
                "invalid type: map, expected a sequence at line 1 column 9",
                "invalid type: map, expected a list at line 1 column 9",
            ),
            (
                "unknown field `a`, expected one of `b`, `c`",
                "unknown field `a`, expected one of `b`, `c`",
            ),
            ("7 is out of bounds: 1 to 5", "7 is out of bounds: 1 to 5"),
        ] {
            assert_eq!(in_words(message), want);
        }
    }

    fn config(text: &str) -> Config {
        Config::parse(std::path::Path::new("a.toml"), text.to_owned()).expect("a configuration")
    }

    const HEAD: &str = "[[listener]]\nname = \"m\"\nlisten = \"127.0.0.1:0\"\nupstream = \"o\"\n[upstream.o]\naddress = \"127.0.0.1:9\"\n[filter.f]\nmodule = \"m\"\n";

    #[test]
    fn the_error_stands_where_the_field_does() {
        let module = anyhow::anyhow!(
            "plugin f: m: it said: edgeweir f: configuration field `a[1].b`: invalid type: string \"x\", expected u8 at line 1 column 20"
        );
        let component = |detail: &str| anyhow::Error::new(Refused(detail.to_owned()));
        for (name, text, error, place, field, message) in [
            (
                "a table",
                "[[filter.f.config.a]]\nb = 1\n[[filter.f.config.a]]\nb = \"x\"\n",
                module,
                (12, 5),
                "filter.f.config.a[1].b",
                "invalid type: string \"x\", expected a whole number from 0 to 255",
            ),
            (
                "a text",
                "config = '{\"a\": 1}'\n",
                component("EDGEWEIR_F: configuration field `a`: 1 is odd at line 1 column 7"),
                (9, 10),
                "filter.f.config",
                "in `a`: 1 is odd at line 1 column 7",
            ),
            (
                "the environment",
                "environment = { A = \"1\", EDGEWEIR_F = '{\"a\": 1}' }\n",
                component("EDGEWEIR_F: configuration field `a`: 1 is odd at line 1 column 7"),
                (9, 39),
                "filter.f.environment.EDGEWEIR_F",
                "in `a`: 1 is odd at line 1 column 7",
            ),
            (
                "a variable",
                "[filter.f.variables]\nedgeweir_f = '{'\n",
                component("variable `edgeweir_f`: configuration: EOF at line 1 column 1"),
                (10, 14),
                "filter.f.variables.edgeweir_f",
                "variable `edgeweir_f`: configuration: EOF at line 1 column 1",
            ),
            (
                "another",
                "",
                anyhow::anyhow!("it traps"),
                (8, 10),
                "filter.f",
                "it traps",
            ),
        ] {
            let config = config(&format!("{HEAD}{text}"));
            let error = of(&config, "f", &config.filters["f"], &error);
            assert_eq!(error.place, Some(place), "{name}: {error}");
            assert_eq!(error.field, field, "{name}");
            assert_eq!(error.message, message, "{name}");
        }
    }
}
