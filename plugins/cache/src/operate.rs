//! What an operator's request does, and what it is answered.

use bytes::Bytes;
use edgeweir_filter::{Cx, Reply};
use serde_json::{Value, json};

use crate::admin::{Command, Purge, What};
use crate::groups;
use crate::invalidate::Updates;
use crate::key::{self, Key};
use crate::news;
use crate::standing::{Ban, Mark, Wide, matches};
use crate::store::{self, Core};
use crate::stored::Stored;
use crate::tiers::Tier;

/// Keys shown in an answer at most.
const SHOWN: usize = 20;

impl Core {
    /// The changes that a command asks for, and the answer to send after them.
    pub(crate) fn administer(&self, command: &Command, cx: &mut Cx<'_>) -> (Updates, Reply) {
        match command {
            Command::Stats => (Updates::default(), answer(&self.statistics())),
            Command::Purge(purge) => {
                let touched = self.touched(&purge.what);
                let mut updates = Updates::default();
                if !purge.dry_run {
                    cx.count("cache.purged");
                    self.purge(purge, &mut updates, cx);
                }
                let shown: Vec<_> = touched.iter().take(SHOWN).collect();
                let body = json!({
                    "invalidated": !purge.dry_run,
                    "soft": purge.soft,
                    "what": said(&purge.what),
                    "held_here": touched.len(),
                    "for_example": shown,
                });
                (updates, answer(&body))
            }
        }
    }

    fn purge(&self, purge: &Purge, updates: &mut Updates, cx: &mut Cx<'_>) {
        let mark = match purge.soft {
            true => Mark::soft(cx.now, purge.spread),
            false => Mark::hard(cx.now),
        };
        match &purge.what {
            What::Key(target) if purge.soft => {
                let Ok(key) = Key::of_target(target, self.settings.key_of(target)) else {
                    // Too long for a key: nothing is ever stored under it.
                    return;
                };
                let name = store::uri_mark_name(key.uri_part());
                updates.push(name, store::MARKED, move |before| Some(mark.over(before)));
                self.push_wide(Wide::Marks, updates, cx);
                // It keeps no marks, and what it has would be fresh after a restart.
                self.forget_third(&key, mark, updates);
            }
            What::Key(target) => self.invalidate_key(target, updates, cx),
            What::Groups(names) => {
                let all = names
                    .iter()
                    .flat_map(|name| self.settings.dependencies.cascade(name));
                let mut all: Vec<u64> = all.map(|name| groups::named(name.as_bytes())).collect();
                all.sort_unstable();
                all.dedup();
                self.invalidate_groups(&all, mark, updates, cx);
            }
            What::Pattern(pattern) => {
                if let Some(ban) = Ban::new(mark, pattern.as_bytes()) {
                    self.ban(&ban, updates, cx);
                }
                let query = format!("pattern={}", encoded(pattern.as_bytes()));
                let news = news::of_pattern(pattern.as_bytes());
                self.tell_third(&query, self.news(mark, &news), updates);
            }
            What::All => {
                self.push_wide(Wide::All(mark), updates, cx);
                self.tell_third("all=1", self.news(mark, news::OF_ALL), updates);
            }
        }
    }

    fn tell_third(&self, query: &str, news: String, updates: &mut Updates) {
        if let Some(third) = &self.settings.l3 {
            updates.tell_third(third.invalidate(query, Some(&news)));
        }
    }

    /// What of this worker's own memory a purge is about.
    fn touched(&self, what: &What) -> Vec<String> {
        let uri = match what {
            What::Key(target) => Key::of_target(target, self.settings.key_of(target))
                .map(|key| key.uri_part().clone())
                .unwrap_or_default(),
            _ => Bytes::new(),
        };
        let groups: Vec<u64> = match what {
            What::Groups(names) => names
                .iter()
                .flat_map(|name| self.settings.dependencies.cascade(name))
                .map(|name| groups::named(name.as_bytes()))
                .collect(),
            _ => Vec::new(),
        };
        let is_meant = |primary: &[u8], stored: &Stored| match what {
            What::All => true,
            What::Key(_) => !uri.is_empty() && key::is_of(primary, &uri),
            What::Groups(_) => stored.groups.iter().any(|group| groups.contains(group)),
            What::Pattern(pattern) => {
                key::host_and_path(primary).is_some_and(|uri| matches(pattern.as_bytes(), &uri))
            }
        };
        let memory = self.memory.borrow();
        memory
            .iter()
            .filter_map(|(object, stored)| Some((store::primary_of(object)?, stored)))
            .filter(|(primary, stored)| is_meant(primary, stored))
            .map(|(primary, _)| {
                let uri = key::host_and_path(primary).unwrap_or_default();
                String::from_utf8_lossy(&uri).into_owned()
            })
            .collect()
    }

    fn statistics(&self) -> Value {
        let (entries, bytes) = self.memory.borrow().size();
        let settings = &self.settings;
        let with = |tier: Tier, more: &[(&str, usize)]| {
            let mut all = self.tiers.statistics(tier);
            all.extend(
                more.iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).into())),
            );
            all
        };
        let l1 = with(
            Tier::L1,
            &[
                ("entries", entries),
                ("bytes", bytes),
                ("most_entries", settings.bounds.entries),
                ("most_bytes", settings.bounds.bytes),
            ],
        );
        let mut l2 = with(Tier::L2, &[("most_bytes", settings.l2_bytes)]);
        l2.insert("shared".to_owned(), settings.shared.into());
        json!({
            "l1": l1,
            "l2": l2,
            "l3": settings.l3.as_ref().map(|_| self.tiers.statistics(Tier::L3)),
            "successors": self.successors.borrow().statistics(),
        })
    }
}

fn said(what: &What) -> String {
    match what {
        What::Key(target) => {
            let whole = [&target.origin()[..], &target.path].concat();
            format!("key {}", String::from_utf8_lossy(&whole))
        }
        What::Groups(names) => format!("groups {}", names.join(", ")),
        What::Pattern(pattern) => format!("pattern {pattern}"),
        What::All => "everything".to_owned(),
    }
}

fn answer(body: &Value) -> Reply {
    let fields = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
    ];
    Reply::new(200, &fields, format!("{body}\n"))
}

/// Percent-encoding of all but unreserved characters (RFC 3986 §2.3).
pub(crate) fn encoded(text: &[u8]) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.iter().copied().map(one).collect()
}
