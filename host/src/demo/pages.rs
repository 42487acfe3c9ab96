//! What the demo's origin serves.

use std::fmt::Write;

/// `/`.
pub const INDEX: &str = "\
The demo's origin. Its pages, and what to look for:

  /json      20 KB of pretty-printed JSON, good for a minute: miss and hit, minified, compressed
  /html      100 KB of HTML, good for a minute: compressed once, served many times
  /stream    server-sent events, one every half second: compressed and still live
  /slow      takes two seconds, then is good for half a minute
  /no-store  never stored: its number grows with every request
  /post      POST up to 1 MiB: says how much it received; makes a stored /post unusable

Every answer of the origin has X-Origin-Request; a hit repeats the number of the answer that was stored.
";

const CITIES: [(&str, &str, f64, f64); 8] = [
    ("Reykjavík", "IS", 64.1466, -21.9426),
    ("Valparaíso", "CL", -33.0472, -71.6127),
    ("Lagos", "NG", 6.5244, 3.3792),
    ("Kyōto", "JP", 35.0116, 135.7681),
    ("Zürich", "CH", 47.3769, 8.5417),
    ("Halifax", "CA", 44.6488, -63.5752),
    ("Hobart", "AU", -42.8821, 147.3272),
    ("Århus", "DK", 56.1629, 10.2039),
];

/// About 20 KB as a person would indent it: numbers beyond a double's precision, escapes and white space in strings,
/// which have to come through as they are.
pub fn json() -> String {
    let mut text = String::from(
        "{\n  \"catalogue\": \"river gauges\",\n  \"note\": \"two  spaces,\\ta tab and \\u00e9\",\n  \"stations\": [\n",
    );
    const STATIONS: usize = 88;
    for index in 0..STATIONS {
        let (city, country, latitude, longitude) = CITIES[index % CITIES.len()];
        let comma = if index + 1 < STATIONS { "," } else { "" };
        let _ = write!(
            text,
            "    {{\n      \"id\": {id},\n      \"name\": \"{city} gauge {index}\",\n      \"country\": \"{country}\",\n      \
             \"position\": [\n        {latitude},\n        {longitude}\n      ],\n      \
             \"level_m\": {level}.{fraction:02},\n      \"online\": {online},\n      \"comment\": null\n    }}{comma}\n",
            id = 9_007_199_254_740_993_u64 + index as u64,
            level = index % 7,
            fraction = index * 37 % 100,
            online = index % 5 != 0,
        );
    }
    text.push_str("  ]\n}\n");
    text
}

/// About 100 KB of HTML.
pub fn html() -> String {
    let mut text = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>River gauges</title>\n</head>\n<body>\n  \
         <h1>River gauges</h1>\n  <table>\n    <thead><tr><th>Station</th><th>Country</th><th>Level</th></tr></thead>\n    <tbody>\n",
    );
    for index in 0..720 {
        let (city, country, ..) = CITIES[index % CITIES.len()];
        let _ = write!(
            text,
            "      <tr class=\"{parity}\">\n        <td><a href=\"/stations/{index}\">{city} gauge {index}</a></td>\n        \
             <td>{country}</td>\n        <td class=\"number\">{level}.{fraction:02} m</td>\n      </tr>\n",
            parity = if index % 2 == 0 { "even" } else { "odd" },
            level = index % 7,
            fraction = index * 37 % 100,
        );
    }
    text.push_str("    </tbody>\n  </table>\n</body>\n</html>\n");
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_json_is_json_of_the_promised_size() {
        let text = super::json();
        assert!((18_000..24_000).contains(&text.len()), "{}", text.len());
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        let html = super::html().len();
        assert!((90_000..130_000).contains(&html), "{html}");
    }
}
