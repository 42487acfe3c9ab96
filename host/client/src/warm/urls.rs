//! What is to be asked for: arguments, files, sitemaps; each URL once.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use http::Method;
use quick_xml::events::Event;

use super::{MOST, Warm};
use crate::ask::{Asker, Keep};

/// The largest list or sitemap; sitemaps.org allows 50 MB.
const LARGEST: usize = 50 << 20;
/// Sitemaps of an index.
const SITEMAPS: usize = 1_000;

/// All URLs, in order.
pub async fn all(arguments: &Warm, asker: &Asker) -> anyhow::Result<Vec<String>> {
    let mut found = Found::default();
    for url in &arguments.urls {
        found.add(url.clone());
    }
    for file in &arguments.file {
        let text = read(file).with_context(|| format!("--file {}", file.display()))?;
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                found.add(line.to_owned());
            }
        }
    }
    for sitemap in &arguments.sitemap {
        let says = || format!("--sitemap {sitemap}");
        let (urls, further) =
            parse(&fetch(sitemap, asker).await.with_context(says)?).with_context(says)?;
        urls.into_iter().for_each(|url| found.add(url));
        if further.len() > SITEMAPS {
            bail!(
                "{sitemap} names {} sitemaps, at most {SITEMAPS} are read",
                further.len()
            );
        }
        for one in further {
            let says = || format!("--sitemap {sitemap}: {one}");
            let text = fetch(&one, asker).await.with_context(says)?;
            // An index of indexes is not allowed by sitemaps.org; what it names is not followed.
            let (urls, _) = parse(&text).with_context(says)?;
            urls.into_iter().for_each(|url| found.add(url));
        }
    }
    Ok(found.urls)
}

#[derive(Default)]
struct Found {
    urls: Vec<String>,
    seen: HashSet<String>,
}

impl Found {
    fn add(&mut self, url: String) {
        // One too many is enough to say that there are too many.
        if self.urls.len() <= MOST && self.seen.insert(url.clone()) {
            self.urls.push(url);
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = LARGEST as u64 + 1;
    match file == Path::new("-") {
        true => std::io::stdin().take(most).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?
            .take(most)
            .read_to_string(&mut text)?,
    };
    if text.len() > LARGEST {
        bail!("it is larger than {} MB", LARGEST >> 20);
    }
    Ok(text)
}

async fn fetch(from: &str, asker: &Asker) -> anyhow::Result<String> {
    if !from.contains("://") && Path::new(from).is_file() {
        return read(Path::new(from));
    }
    let answer = asker
        .ask(Method::GET, from, &[], Keep::UpTo(LARGEST))
        .await?;
    if !answer.status.is_success() {
        bail!("status {}", answer.status.as_u16());
    }
    String::from_utf8(answer.body.to_vec()).context("it is not UTF-8")
}

/// The `loc` of each `url`, and of each `sitemap`.
fn parse(xml: &str) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut urls, mut sitemaps) = (Vec::new(), Vec::new());
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut text = String::new();
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().with_context(|| format!("byte {at}"))?;
        match event {
            Event::Start(tag) => {
                if path.len() >= 16 {
                    bail!("byte {at}: it is nested too deeply for a sitemap");
                }
                path.push(tag.local_name().as_ref().to_vec());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part.decode()?),
            Event::CData(part) => text.push_str(&part.decode()?),
            Event::GeneralRef(name) => {
                if let Some(character) = name.resolve_char_ref()? {
                    text.push(character);
                } else if let Some(known) =
                    quick_xml::escape::resolve_predefined_entity(&name.decode()?)
                {
                    text.push_str(known);
                }
            }
            Event::End(_) => {
                let url = text.trim().to_owned();
                match path.as_slice() {
                    _ if url.is_empty() => {}
                    [.., kind, loc] if loc == b"loc" && kind == b"url" => urls.push(url),
                    [.., kind, loc] if loc == b"loc" && kind == b"sitemap" => sitemaps.push(url),
                    _ => {}
                }
                path.pop();
                text.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if urls.is_empty() && sitemaps.is_empty() {
        bail!("it has no <url><loc>: not a sitemap");
    }
    Ok((urls, sitemaps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sitemaps_and_indexes_are_read() {
        let map = r#"<?xml version="1.0" encoding="UTF-8"?>
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="urn:i">
              <url><loc> http://a.test/?x=1&amp;y=2 </loc><lastmod>2026-01-01</lastmod>
                <image:image><image:loc>http://a.test/i.png</image:loc></image:image></url>
              <url><loc><![CDATA[http://a.test/b]]></loc></url>
              <url><loc>http://a.test/caf&#233;</loc></url>
            </urlset>"#;
        let (urls, further) = parse(map).unwrap();
        assert_eq!(
            urls,
            [
                "http://a.test/?x=1&y=2",
                "http://a.test/b",
                "http://a.test/café"
            ]
        );
        assert!(further.is_empty());
        let index =
            "<sitemapindex><sitemap><loc>http://a.test/1.xml</loc></sitemap></sitemapindex>";
        assert_eq!(
            parse(index).unwrap(),
            (vec![], vec!["http://a.test/1.xml".to_owned()])
        );
        for (name, text) in [
            ("a page", "<html><body>no</body></html>"),
            ("nothing", ""),
            ("broken", "<urlset><url><loc>http://a.test</url>"),
        ] {
            assert!(parse(text).is_err(), "{name}");
        }
        assert!(parse(&"<a>".repeat(1_000)).is_err(), "nested");
    }
}
