//! Exchanges as HAR 1.2, the form browsers and proxies write and read.
//!
//! Beyond the format, in members that begin with `_` as it asks: trailers, bytes that are no text, bodies that were cut.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use edgeweir_host_cases::coding;
use serde_json::{Value, json};

use crate::message::{Answer, Asked, Exchange, Fields, of_the_connection};

/// The most of a file that is read, bytes.
const MOST: u64 = 1 << 30;
/// What follows the last entry.
const END: &str = "\n]}}\n";
/// Who writes a recording of this program.
const CREATOR: &str = "edgeweir";
/// The size of what is not known.
const UNKNOWN: i64 = -1;
/// What is said of a body that was left out.
const TOO_LARGE: &str = "the body was too large to be kept";
/// What is put in place of a secret.
pub const REDACTED: &str = "[redacted]";
/// Fields whose values are not written unless that is asked for.
pub const SECRET: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

/// A HAR file that grows by entries and is whole after each of them.
pub struct Writer {
    file: File,
    written: u64,
    most: u64,
    any: bool,
}

impl Writer {
    /// A new file that takes at most so many bytes; one that is there is replaced, unless another writer has it.
    pub fn create(path: &Path, most: u64) -> Result<Self> {
        let creator = json!({ "name": CREATOR, "version": env!("CARGO_PKG_VERSION") });
        let start = format!("{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[");
        let says = || format!("{} cannot be written", path.display());
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(says)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{} is being written by another recording", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(says),
        }
        // Not before it is this writer's alone.
        file.set_len(0).with_context(says)?;
        file.write_all(start.as_bytes())?;
        file.write_all(END.as_bytes())?;
        Ok(Self {
            file,
            written: (start.len() + END.len()) as u64,
            most,
            any: false,
        })
    }

    /// Appends an exchange; `false` when it has no room any more.
    pub fn append(&mut self, exchange: &Exchange, redacts: &[String]) -> Result<bool> {
        let entry = entry(exchange, redacts).to_string();
        let comma = if self.any { ",\n" } else { "\n" };
        let more = (entry.len() + comma.len()) as u64;
        if self.written + more > self.most {
            return Ok(false);
        }
        self.file.seek(SeekFrom::End(-(END.len() as i64)))?;
        self.file
            .write_all(format!("{comma}{entry}{END}").as_bytes())?;
        self.written += more;
        self.any = true;
        Ok(true)
    }
}

/// Reads the exchanges of a file.
pub fn read(path: &Path) -> Result<Vec<Exchange>> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.take(MOST)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let har: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let Some(entries) = har["log"]["entries"].as_array() else {
        bail!("{} is no HAR: it has no log.entries", path.display());
    };
    // Programs beside this one write what a coded body says (HAR 1.2, `content`: "decoded").
    let raw = har["log"]["creator"]["name"] == CREATOR;
    entries
        .iter()
        .enumerate()
        .map(|(at, entry)| {
            exchange(entry, raw).with_context(|| format!("{}: log.entries[{at}]", path.display()))
        })
        .collect()
}

fn entry(exchange: &Exchange, redacts: &[String]) -> Value {
    let Exchange { asked, answer, .. } = exchange;
    let url = format!("http://{}{}", asked.authority, asked.target);
    let query: Vec<Value> = asked
        .target
        .split_once('?')
        .map_or("", |(_, query)| query)
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let mut request = json!({
        "method": asked.method,
        "url": url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(&asked.fields, redacts),
        "queryString": query,
        "headersSize": -1,
        "bodySize": if asked.left_out { UNKNOWN } else { size(&asked.body) },
    });
    if !asked.body.is_empty() {
        let kind = asked.text("content-type").unwrap_or_default();
        let mut data = content(&asked.body);
        data["mimeType"] = kind.into();
        // HAR has no encoding for what is posted.
        if let Some(encoding) = data
            .as_object_mut()
            .and_then(|data| data.remove("encoding"))
        {
            data["_encoding"] = encoding;
        }
        request["postData"] = data;
    }
    if !asked.trailers.is_empty() {
        request["_trailers"] = headers(&asked.trailers, redacts);
    }
    if asked.left_out {
        request["comment"] = TOO_LARGE.into();
        request["_leftOut"] = true.into();
    }
    let mut content = content(&answer.body);
    content["size"] = size(&answer.body).into();
    content["mimeType"] = answer.text("content-type").unwrap_or_default().into();
    let mut response = json!({
        "status": answer.status,
        "statusText": "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(&answer.fields, redacts),
        "content": content,
        "redirectURL": answer.text("location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": if answer.left_out { UNKNOWN } else { size(&answer.body) },
    });
    if !answer.trailers.is_empty() {
        response["_trailers"] = headers(&answer.trailers, redacts);
    }
    if answer.cut {
        response["_cut"] = true.into();
    }
    if answer.left_out {
        response["content"]["comment"] = TOO_LARGE.into();
        response["_leftOut"] = true.into();
    }
    json!({
        "startedDateTime": timestamp(exchange.started_ms),
        "time": exchange.took_ms,
        "request": request,
        "response": response,
        "cache": {},
        "timings": { "send": 0, "wait": exchange.took_ms, "receive": 0 },
    })
}

/// An exchange; `raw`: bodies are as they were on the wire.
fn exchange(entry: &Value, raw: bool) -> Result<Exchange> {
    let request = &entry["request"];
    let response = &entry["response"];
    let url = request["url"].as_str().context("request.url is missing")?;
    let (_, rest) = url.split_once("://").context("request.url has no scheme")?;
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(cut);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    let mut fields = fields(&request["headers"], "request.headers")?;
    // A browser's record of HTTP/2 has pseudo-fields.
    fields.retain(|(name, _)| !name.starts_with(':') && name != "host" && name != "content-length");
    let data = &request["postData"];
    let body = body(data, &data["_encoding"]).context("request.postData")?;
    let status = response["status"]
        .as_u64()
        .context("response.status is missing")?;
    let mut answered = self::fields(&response["headers"], "response.headers")?;
    answered.retain(|(name, _)| !name.starts_with(':'));
    let content = &response["content"];
    let answer = Answer {
        status: u16::try_from(status).context("response.status")?,
        fields: answered,
        body: self::body(content, &content["encoding"]).context("response.content")?,
        trailers: self::fields(&response["_trailers"], "response._trailers")?,
        cut: response["_cut"].as_bool().unwrap_or(false),
        // `text` is optional: browsers leave it out, and say the size.
        left_out: response["_leftOut"].as_bool().unwrap_or(false)
            || content["text"].is_null() && content["size"].as_i64().is_some_and(|size| size > 0),
        decoded: false,
    };
    let coded = |codings: String| coding::decoded(&codings, &answer.whole()).is_ok();
    let decoded = !raw
        && !answer.body.is_empty()
        && answer.text("content-encoding").is_some_and(|it| !coded(it));
    Ok(Exchange {
        started_ms: entry["startedDateTime"]
            .as_str()
            .and_then(parse_timestamp)
            .unwrap_or_default(),
        took_ms: entry["time"].as_f64().unwrap_or_default(),
        asked: Asked {
            method: request["method"]
                .as_str()
                .context("request.method is missing")?
                .to_owned(),
            authority: authority.to_owned(),
            target,
            fields,
            body,
            trailers: self::fields(&request["_trailers"], "request._trailers")?,
            left_out: request["_leftOut"].as_bool().unwrap_or(false),
        },
        answer: Answer { decoded, ..answer },
    })
}

fn headers(fields: &Fields, redacts: &[String]) -> Value {
    fields
        .iter()
        .map(|(name, value)| {
            if redacts.iter().any(|secret| secret == name) {
                return json!({ "name": name, "value": redacted(name, value) });
            }
            match std::str::from_utf8(value) {
                Ok(text) => json!({ "name": name, "value": text }),
                Err(_) => {
                    json!({ "name": name, "value": BASE64.encode(value), "_encoding": "base64" })
                }
            }
        })
        .collect()
}

/// What stands for a secret: of credentials the scheme stays, which is none (RFC 9110 §11.4), of a cookie that it is one.
fn redacted(name: &str, value: &[u8]) -> String {
    match name {
        "authorization" | "proxy-authorization" => {
            let end = value.iter().position(|byte| *byte == b' ');
            let scheme = end.and_then(|end| std::str::from_utf8(value.get(..end)?).ok());
            scheme.map_or_else(|| REDACTED.to_owned(), |it| format!("{it} {REDACTED}"))
        }
        "cookie" => format!("redacted={REDACTED}"),
        _ => REDACTED.to_owned(),
    }
}

fn fields(list: &Value, what: &str) -> Result<Fields> {
    let Some(list) = list.as_array() else {
        return Ok(Fields::new());
    };
    let read = list.iter().map(|field| {
        let name = field["name"].as_str()?.to_ascii_lowercase();
        let value = field["value"].as_str()?;
        let value = if field["_encoding"] == "base64" {
            BASE64.decode(value).ok()?
        } else {
            value.as_bytes().to_vec()
        };
        Some((name, value))
    });
    let read: Option<Fields> = read.collect();
    let mut read = read.with_context(|| format!("{what}: a field without name or value"))?;
    read.retain(|(name, _)| !of_the_connection(name));
    Ok(read)
}

/// Text as it is, anything else as base64.
fn content(body: &[Bytes]) -> Value {
    let whole = body.concat();
    match String::from_utf8(whole) {
        Ok(text) => json!({ "text": text }),
        Err(error) => json!({ "text": BASE64.encode(error.as_bytes()), "encoding": "base64" }),
    }
}

fn body(content: &Value, encoding: &Value) -> Result<Vec<Bytes>> {
    let Some(text) = content["text"].as_str() else {
        return Ok(Vec::new());
    };
    let bytes = if *encoding == "base64" {
        BASE64.decode(text).context("text is no base64")?
    } else {
        text.as_bytes().to_vec()
    };
    Ok(if bytes.is_empty() {
        Vec::new()
    } else {
        vec![bytes.into()]
    })
}

fn size(body: &[Bytes]) -> i64 {
    let sizes = body.iter().map(|piece| piece.len() as i64);
    sizes.fold(0, i64::saturating_add)
}

/// `2026-11-21T15:30:00.250Z`.
fn timestamp(ms: u64) -> String {
    let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(ms / 1_000));
    // Sat, 21 Nov 2026 15:30:00 GMT
    let words: Vec<&str> = http.split(' ').collect();
    let [_, day, month, year, time, _] = words.as_slice() else {
        return http;
    };
    let month = MONTHS.iter().position(|it| it == month).unwrap_or(0) + 1;
    format!("{year}-{month:02}-{day}T{time}.{:03}Z", ms % 1_000)
}

/// The moment of a date as HAR has it; an offset from UTC is not looked at, as only differences are used.
fn parse_timestamp(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let numbers = |text: &str, between: char| {
        let all: Option<Vec<u64>> = text.split(between).map(|part| part.parse().ok()).collect();
        all.filter(|all| all.len() == 3)
    };
    let (date, clock) = (numbers(date, '-')?, numbers(time.get(..8)?, ':')?);
    let [year, month, day] = date[..] else {
        return None;
    };
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the day that is not always there comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let since_1970 = days.checked_sub(719_468)?;
    let seconds = since_1970 * 86_400 + clock[0] * 3_600 + clock[1] * 60 + clock[2];
    let digits: String = time
        .get(8..)
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .take(3)
        .collect();
    let ms: u64 = format!("{digits:0<3}").parse().ok()?;
    Some(seconds * 1_000 + ms)
}

/// Now, in the units of an exchange.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> Exchange {
        Exchange {
            started_ms: 1_795_275_000_250,
            took_ms: 3.5,
            asked: Asked {
                method: "POST".to_owned(),
                authority: "app.test:81".to_owned(),
                target: "/a?b=c&d".to_owned(),
                fields: vec![
                    ("content-type".to_owned(), b"text/plain".to_vec()),
                    ("authorization".to_owned(), b"Bearer x".to_vec()),
                    ("x-odd".to_owned(), vec![0xe9, b'a']),
                ],
                body: vec!["hello".into()],
                trailers: vec![("x-sum".to_owned(), b"1".to_vec())],
                left_out: false,
            },
            answer: Answer {
                status: 200,
                fields: vec![
                    ("set-cookie".to_owned(), b"a=1".to_vec()),
                    ("vary".to_owned(), b"accept".to_vec()),
                    ("vary".to_owned(), b"accept-encoding".to_vec()),
                ],
                body: vec![vec![0, 159, 146, 150].into()],
                trailers: Vec::new(),
                cut: true,
                left_out: false,
                decoded: false,
            },
        }
    }

    #[test]
    fn an_exchange_comes_back_as_it_was() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path(), 1 << 20).expect("created");
        assert_eq!(read(file.path()).expect("read"), []);
        for _ in 0..2 {
            assert!(writer.append(&sample(), &[]).expect("appended"));
        }
        assert_eq!(read(file.path()).expect("read"), [sample(), sample()]);
    }

    #[test]
    fn a_body_that_was_left_out_is_said_to_be() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path(), 1 << 20).expect("created");
        let mut exchange = sample();
        exchange.asked.body.clear();
        exchange.asked.left_out = true;
        exchange.answer.body.clear();
        exchange.answer.left_out = true;
        writer.append(&exchange, &[]).expect("appended");
        let text = std::fs::read_to_string(file.path()).expect("read");
        assert!(!text.contains("postData"), "{text}");
        assert_eq!(text.matches(r#""bodySize":-1"#).count(), 2, "{text}");
        assert_eq!(read(file.path()).expect("read"), [exchange]);
    }

    #[test]
    fn a_file_has_one_writer() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path(), 1 << 20).expect("created");
        writer.append(&sample(), &[]).expect("appended");
        let refused = Writer::create(file.path(), 1 << 20).err().expect("refused");
        assert!(
            refused.to_string().contains("another recording"),
            "{refused}"
        );
        writer.append(&sample(), &[]).expect("appended");
        assert_eq!(read(file.path()).expect("read").len(), 2);
        drop(writer);
        drop(Writer::create(file.path(), 1 << 20).expect("created"));
        assert_eq!(read(file.path()).expect("read"), []);
    }

    #[test]
    fn secrets_are_not_written() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path(), 1 << 20).expect("created");
        writer
            .append(&sample(), &SECRET.map(str::to_owned))
            .expect("appended");
        let text = std::fs::read_to_string(file.path()).expect("read");
        assert!(
            !text.contains("Bearer x") && !text.contains("a=1"),
            "{text}"
        );
        assert_eq!(text.matches(REDACTED).count(), 2);
    }

    #[test]
    fn what_stands_for_a_secret_says_what_kind_it_was() {
        for (name, value, want) in [
            ("authorization", "Bearer x", "Bearer [redacted]"),
            ("proxy-authorization", "Basic eDp5", "Basic [redacted]"),
            ("authorization", "x", "[redacted]"),
            ("cookie", "a=1; b=2", "redacted=[redacted]"),
            ("x-api-key", "x y", "[redacted]"),
        ] {
            assert_eq!(redacted(name, value.as_bytes()), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_full_file_is_whole() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path(), 2_500).expect("created");
        let mut taken = 0;
        while writer.append(&sample(), &[]).expect("appended") {
            taken += 1;
        }
        assert!((1..5).contains(&taken), "{taken}");
        assert_eq!(read(file.path()).expect("read").len(), taken);
        assert!(file.path().metadata().expect("a length").len() <= 2_500);
    }

    #[test]
    fn dates_of_other_programs_are_read() {
        for (text, ms) in [
            ("1970-01-02T00:00:01.250Z", Some(86_401_250)),
            ("1970-01-02T00:00:01Z", Some(86_401_000)),
            ("1970-01-02T00:00:01.2+01:00", Some(86_401_200)),
            ("2026-11-21T15:30:00.25Z", Some(1_795_275_000_250)),
            ("yesterday", None),
        ] {
            assert_eq!(parse_timestamp(text), ms, "{text}");
        }
        assert_eq!(timestamp(86_401_250), "1970-01-02T00:00:01.250Z");
    }

    /// Of other programs bodies are what the codings say, unless they can be decoded still.
    #[test]
    fn bodies_of_other_programs_are_decoded() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let coded = json!([{ "name": "Content-Encoding", "value": "deflate" }]);
        let base64 = json!({ "text": "eJxLVChPzSwCAAc7Ajk=", "encoding": "base64" });
        for (case, creator, headers, content, want) in [
            (
                "a browser",
                "Browser",
                &coded,
                json!({ "text": "a weir" }),
                (true, false),
            ),
            (
                "its bytes",
                "Browser",
                &coded,
                base64.clone(),
                (false, false),
            ),
            (
                "not coded",
                "Browser",
                &json!([]),
                json!({ "text": "a weir" }),
                (false, false),
            ),
            (
                "our own",
                "edgeweir",
                &coded,
                json!({ "text": "a weir" }),
                (false, false),
            ),
            (
                "no text",
                "Browser",
                &coded,
                json!({ "size": 6 }),
                (false, true),
            ),
            (
                "nothing",
                "Browser",
                &coded,
                json!({ "size": 0 }),
                (false, false),
            ),
        ] {
            let har = json!({ "log": { "creator": { "name": creator }, "entries": [{
                "request": { "method": "GET", "url": "http://a.test/", "headers": [] },
                "response": { "status": 200, "headers": headers, "content": content },
            }] } });
            std::fs::write(file.path(), har.to_string()).expect("written");
            let answer = read(file.path()).expect("read").remove(0).answer;
            assert_eq!((answer.decoded, answer.left_out), want, "{case}");
        }
    }

    #[test]
    fn what_is_no_har_says_so() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, words) in [
            ("{", "is no JSON"),
            ("{}", "it has no log.entries"),
            (
                "{\"log\":{\"entries\":[{}]}}",
                "log.entries[0]: request.url is missing",
            ),
        ] {
            std::fs::write(file.path(), text).expect("written");
            let error = format!("{:#}", read(file.path()).expect_err(text));
            assert!(error.contains(words), "{error}");
        }
    }
}
