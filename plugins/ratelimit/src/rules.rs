//! The rules, checked and ready to be applied.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use edgeweir_filter::{ConfigError, RequestHead, bounded, comparable};

use crate::address::{Block, Client};
use crate::answer::Answers;
use crate::check::{self, Refused};
use crate::concurrency::{Adaptive, UnderWay};
use crate::config::{Action, Condition, Config, OnStoreFailure, Rule, Scope};
use crate::cost::Cost;
use crate::limit::Limit;
use crate::meter::{Meter, Timing};
use crate::part::Part;
use crate::path::Pattern;
use crate::quota::{MOST_BYTES, Quota, Tables};
use crate::store::Store;
use crate::subject::Subject;
use crate::wire::MOST_SPAN;

/// All rules, and what they share.
pub struct Rules {
    /// How refusals and fields are written.
    pub answers: Answers,
    /// Where rules of global scope are decided.
    pub store: Option<Rc<Store>>,
    rules: Vec<Rc<Ready>>,
    groups: Vec<Vec<Block>>,
    group_names: Vec<String>,
    client: Client,
    wants_address: bool,
    wants_group: bool,
}

/// One rule.
pub struct Ready {
    /// Its name.
    pub name: String,
    /// Its counters.
    pub meter: Meter,
    /// Which decisions are timed.
    pub timing: Timing,
    /// What happens.
    pub action: Action,
    /// What makes a client.
    pub key: Vec<Part>,
    /// What a request costs.
    pub cost: Cost,
    /// How many a client may have under way, and how many has.
    pub concurrency: Option<(u32, Rc<UnderWay>)>,
    /// The limit that follows latency.
    pub adaptive: Option<Rc<Adaptive>>,
    /// Percent of the limits at the emergency levels 1 to 3.
    pub emergency: [u8; 3],
    /// It never refuses.
    pub shadow: bool,
    /// Where its limits are counted.
    pub scope: Scope,
    /// What happens without the shared state.
    pub on_store_failure: OnStoreFailure,
    /// The rule's own limits; `None` when only `concurrency` or `adaptive` limit.
    quota: Option<Rc<Quota>>,
    tiers: Option<(Part, Vec<Tier>)>,
    paths: Vec<Pattern>,
    methods: Vec<String>,
    clients: Vec<Clients>,
    when: Vec<Condition>,
}

struct Tier {
    value: String,
    /// The first part of its keys: no rule's name has a slash.
    name: String,
    quota: Rc<Quota>,
}

/// Some clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clients {
    /// A group by its number.
    Group(usize),
    /// A block.
    Block(Block),
}

impl Rules {
    /// Checks every bound.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let trusted_hops = bounded("trusted_hops", config.trusted_hops, 0, 16)?;
        let ipv6_prefix = bounded("ipv6_prefix", config.ipv6_prefix, 32, 128)?;
        let count = config.rules.len();
        if !(1..=64).contains(&count) {
            let message = format!("{count} rules is out of bounds: 1 to 64");
            return Err(ConfigError::new("rules", message));
        }
        let answers = Answers::new(&config)?;
        let store = config.store.map(Store::new).transpose()?.map(Rc::new);
        let (names, groups) = check::groups(&config.groups)?;
        let (mut policies, mut tables) = (BTreeSet::new(), Tables::default());
        let mut rules: Vec<Rc<Ready>> = Vec::with_capacity(count);
        for (at, rule) in config.rules.into_iter().enumerate() {
            if let Some(other) = rules.iter().find(|it| check::alike(&it.name, &rule.name)) {
                let message = format!(
                    "{:?} is another rule's, {:?}: metrics have '_' for '-' and '.', give each a name of its own",
                    rule.name, other.name
                );
                return Err(ConfigError::new(format!("rules[{at}].name"), message));
            }
            let ready = Ready::new(rule, &names, &mut tables).map_err(|(field, message)| {
                ConfigError::new(format!("rules[{at}].{field}"), message)
            })?;
            if ready.scope == Scope::Global && store.is_none() {
                let message = "a rule of global scope needs `store`: where it is decided";
                return Err(ConfigError::new(format!("rules[{at}].scope"), message));
            }
            // Draft §3: a policy is known by its name, in fields and in problem details.
            if let Some(name) = ready.policies().find(|name| !policies.insert(name.clone())) {
                let message = format!(
                    "{name:?} is the name of two limits in the fields: give this rule or its tier another"
                );
                return Err(ConfigError::new(format!("rules[{at}].name"), message));
            }
            rules.push(Rc::new(ready));
        }
        let wants_group = rules
            .iter()
            .any(|rule| rule.looks_at(|part| *part == Part::Group));
        let by_address =
            |rule: &Rc<Ready>| !rule.clients.is_empty() || rule.looks_at(Part::is_of_address);
        Ok(Self {
            answers,
            store,
            wants_address: rules.iter().any(by_address),
            wants_group,
            rules,
            groups,
            group_names: names,
            client: Client {
                trusted_hops,
                ipv6_prefix,
            },
        })
    }

    /// Whether any rule looks at the client's address.
    pub fn wants_address(&self) -> bool {
        self.wants_address
    }

    /// Whether any rule leaves less in an emergency.
    pub fn wants_emergency(&self) -> bool {
        self.rules.iter().any(|rule| rule.emergency != [100; 3])
    }

    /// Whether any rule keeps state that the edge shares; what a store keeps is its own business.
    pub fn shares_state(&self) -> bool {
        let shares = |rule: &Rc<Ready>| {
            rule.scope == Scope::Local && (rule.quota.is_some() || rule.tiers.is_some())
        };
        self.rules.iter().any(shares)
    }

    /// Whether any rule looks at a request, beside its client's address and the emergency level.
    pub fn reads_requests(&self) -> bool {
        let reads = |rule: &Rc<Ready>| {
            !rule.paths.is_empty()
                || !rule.methods.is_empty()
                || rule.cost.is_of_request()
                || rule.looks_at(|part| !part.is_of_address())
        };
        self.client.trusted_hops > 0 || self.rules.iter().any(reads)
    }

    /// Whether any rule looks at responses.
    pub fn reads_responses(&self) -> bool {
        let reads = |rule: &Rc<Ready>| {
            rule.concurrency.is_some() || rule.adaptive.is_some() || rule.cost.is_of_response()
        };
        self.rules.iter().any(reads)
    }

    /// What the operator should know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let decides_all = |rule: &Rc<Ready>| rule.matches_all() && !rule.shadow;
        if let Some(at) = self.rules.iter().position(decides_all)
            && at + 1 < self.rules.len()
            && let Some(rule) = self.rules.get(at)
        {
            let name = &rule.name;
            notes.push(format!(
                "rule {name}: it matches every request, so that no rule behind it is asked"
            ));
        }
        for rule in &self.rules {
            let name = &rule.name;
            for (idle, before) in rule.quotas().flat_map(|quota| quota.idle()) {
                notes.push(format!(
                    "rule {name}: the limit {idle} never refuses, {before} always does before it"
                ));
            }
            if rule.looks_at(|part| matches!(part, Part::Claim(_))) {
                notes.push(format!(
                    "rule {name}: claims are read without verifying the token; let a filter in front do that"
                ));
            }
            if rule.scope == Scope::Global && rule.on_store_failure == OnStoreFailure::Open {
                notes.push(format!(
                    "rule {name}: while the store can't be reached, its limits hold for each edge by itself"
                ));
            }
            if rule.concurrency.is_some() || rule.adaptive.is_some() {
                notes.push(format!(
                    "rule {name}: what is under way is counted by each worker or instance for itself"
                ));
            }
        }
        let is_asked = self.rules.iter().any(|rule| rule.scope == Scope::Global);
        if self.store.is_some() && !is_asked {
            notes.push("no rule has the scope global: the store is never asked".to_owned());
        }
        notes
    }

    /// The first rule from this place on that matches, with the place behind it and the request as it sees it.
    pub fn find<'r>(
        &'r self,
        from: usize,
        head: &'r RequestHead,
    ) -> Option<(usize, Rc<Ready>, Subject<'r>)> {
        let address = match self.wants_address {
            true => self.client.address(head),
            false => None,
        };
        let mut subject = Subject {
            head,
            path: comparable(head.path_only()),
            address,
            client: address.map(|address| self.client.masked(address)),
            group: address.filter(|_| self.wants_group).and_then(|address| {
                self.groups
                    .iter()
                    .position(|blocks| blocks.iter().any(|block| block.has(address)))
                    .and_then(|at| self.group_names.get(at))
                    .map(String::as_str)
            }),
            matched: None,
        };
        for (at, rule) in self.rules.iter().enumerate().skip(from) {
            subject.matched = None;
            if !rule.paths.is_empty() {
                let mut patterns = rule.paths.iter().enumerate();
                let Some(found) = patterns.find(|(_, path)| path.matches(&subject.path)) else {
                    continue;
                };
                subject.matched = Some(found);
            }
            if rule.matches(&subject, &self.groups) {
                return Some((at + 1, Rc::clone(rule), subject));
            }
        }
        None
    }
}

impl Ready {
    fn new(rule: Rule, groups: &[String], tables: &mut Tables) -> Result<Self, Refused> {
        let refuse = |field: &str, message: String| Err((field.to_owned(), message));
        if !check::is_name(&rule.name) {
            return refuse("name", check::not_a_name(&rule.name));
        }
        check::idle(&rule)?;
        let paths = check::patterns(&rule.paths)?;
        check::methods(&rule.methods)?;
        let clients = check::clients(&rule.clients, groups)?;
        let when = check::conditions(rule.when, &paths, groups)?;
        let key = check::key(rule.key, &paths, groups)?;
        let [first, second, third] = rule.emergency;
        if !(1 <= third && third <= second && second <= first && first <= 100) {
            let message = format!(
                "{:?} is out of bounds: three times 1 to 100, none more than the one before",
                rule.emergency
            );
            return refuse("emergency", message);
        }
        let adaptive = rule.adaptive.map(check::followed).transpose()?;
        let concurrency = match rule.concurrency {
            None => None,
            Some(limit) if (1..=1_000_000).contains(&limit) => {
                Some((limit, Rc::new(UnderWay::default())))
            }
            Some(limit) => {
                return refuse(
                    "concurrency",
                    format!("{limit} is out of bounds: 1 to 1000000"),
                );
            }
        };
        let only_under_way = concurrency.is_some() || adaptive.is_some();
        let limits = match rule.limits {
            Some(limits) => limits,
            None if only_under_way || rule.action != Action::Limit => Vec::new(),
            None => vec![rule.preset.limit()],
        };
        if limits.is_empty() && rule.action == Action::Limit && !only_under_way {
            let message = "a rule needs at least one limit, like {\"rate\": \"100/minute\"}";
            return refuse("limits", message.to_owned());
        }
        if rule.scope == Scope::Global && limits.is_empty() && rule.tiers.is_none() {
            let message = match rule.action {
                Action::Limit => {
                    "a rule of global scope needs `limits` or `tiers`: `concurrency` and `adaptive` are counted by each worker or instance for itself"
                }
                _ => "a rule that allows or denies counts nothing",
            };
            return refuse("scope", message.to_owned());
        }
        let mut at_once = u32::MAX;
        let mut made = |name: &str, field: &str, limits: &[Limit]| {
            for (at, limit) in limits.iter().enumerate() {
                limit
                    .check()
                    .map_err(|(part, message)| (format!("{field}[{at}].{part}"), message))?;
                at_once = at_once.min(limit.at_once());
            }
            let quota = Quota::new(name, limits, rule.emergency).map_err(|bytes| {
                let message = format!(
                    "they need {bytes} bytes of state, at most {MOST_BYTES}: use fewer limits in one rule"
                );
                (field.to_owned(), message)
            })?;
            // Beyond it the arithmetic of a state saturates, and a limit that saturates would admit everything.
            let too_long = |span: u64| {
                let days = span / 86_400_000_000_000;
                let message = format!(
                    "a burst that takes {days} days to come back is out of bounds: at most ten years, at emergency levels too"
                );
                (field.to_owned(), message)
            };
            if quota.span() > MOST_SPAN {
                return Err(too_long(quota.span()));
            }
            let quota = quota.kept_apart(tables);
            if rule.scope == Scope::Local {
                return Ok::<_, Refused>(Rc::new(quota));
            }
            let quota = quota.global(rule.emergency).map_err(too_long)?;
            Ok(Rc::new(quota))
        };
        let quota = match limits.is_empty() {
            true => None,
            false => Some(made(&rule.name, "limits", &limits)?),
        };
        let tiers = match rule.tiers {
            None => None,
            Some(tiers) => {
                let by = check::tiers_by(tiers.by, &paths, groups)?;
                let count = tiers.limits.len();
                if !(1..=16).contains(&count) {
                    return refuse(
                        "tiers.limits",
                        format!("{count} tiers is out of bounds: 1 to 16"),
                    );
                }
                let mut ready = Vec::with_capacity(count);
                for (value, limits) in tiers.limits {
                    let field = format!("tiers.limits.{value}");
                    if !check::is_name(&value) {
                        return refuse(&field, check::not_a_name(&value));
                    }
                    if let Err(message) = by.value_of(&value, groups) {
                        return refuse(&field, message);
                    }
                    if limits.is_empty() {
                        let message = "a tier needs at least one limit".to_owned();
                        return refuse(&field, message);
                    }
                    let quota = made(&format!("{}-{value}", rule.name), &field, &limits)?;
                    let name = format!("{}/{value}", rule.name);
                    ready.push(Tier { value, name, quota });
                }
                Some((by, ready))
            }
        };
        let cost = match rule.cost.checked(at_once) {
            Ok(cost) => cost,
            Err((field, message)) => return refuse(field, message),
        };
        Ok(Self {
            meter: Meter::of(&rule.name),
            timing: Timing::default(),
            name: rule.name,
            action: rule.action,
            key,
            cost,
            concurrency,
            adaptive,
            emergency: rule.emergency,
            shadow: rule.shadow,
            scope: rule.scope,
            on_store_failure: rule.on_store_failure,
            quota,
            tiers,
            paths,
            methods: rule.methods,
            clients,
            when,
        })
    }

    /// The limits that hold for a request, with the key of their state.
    pub fn quota(&self, subject: &Subject<'_>) -> Option<(Rc<Quota>, bytes::Bytes)> {
        let tier = self.tiers.as_ref().and_then(|(by, tiers)| {
            let value = subject.value(by)?;
            tiers.iter().find(|tier| tier.value.as_bytes() == &*value)
        });
        let (name, quota) = match tier {
            Some(tier) => (&tier.name, &tier.quota),
            None => (&self.name, self.quota.as_ref()?),
        };
        let key = subject.key(name, quota.layout(), &self.key);
        Some((Rc::clone(quota), key))
    }

    /// So much of a number of requests under way is left at an emergency level, at least one.
    pub fn left(&self, limit: u32, level: u8) -> u32 {
        let [first, second, third] = self.emergency;
        let percent = match level {
            0 => return limit,
            1 => first,
            2 => second,
            _ => third,
        };
        let left = u64::from(limit) * u64::from(percent) / 100;
        u32::try_from(left.max(1)).unwrap_or(limit)
    }

    fn matches(&self, subject: &Subject<'_>, groups: &[Vec<Block>]) -> bool {
        let head = subject.head;
        let by_method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| method.as_bytes() == head.method);
        let is_one_of = |address: IpAddr| {
            self.clients.iter().any(|clients| match clients {
                Clients::Block(block) => block.has(address),
                Clients::Group(at) => groups
                    .get(*at)
                    .is_some_and(|blocks| blocks.iter().any(|block| block.has(address))),
            })
        };
        by_method
            && (self.clients.is_empty() || subject.address.is_some_and(is_one_of))
            && self.when.iter().all(|condition| {
                subject.value(&condition.by).is_some_and(|value| {
                    condition.is.is_empty()
                        || condition.is.iter().any(|one| one.as_bytes() == &*value)
                })
            })
    }

    /// Whether there is no condition to it.
    fn matches_all(&self) -> bool {
        self.paths.is_empty()
            && self.methods.is_empty()
            && self.clients.is_empty()
            && self.when.is_empty()
    }

    /// Its limits and those of its tiers.
    fn quotas(&self) -> impl Iterator<Item = &Quota> {
        let tiers = self.tiers.iter().flat_map(|(_, tiers)| tiers);
        let tiers = tiers.map(|tier| &*tier.quota);
        self.quota.as_deref().into_iter().chain(tiers)
    }

    /// The names its limits have in the fields.
    fn policies(&self) -> impl Iterator<Item = String> {
        let named = |what: &str, is_set: bool| is_set.then(|| format!("{}-{what}", self.name));
        self.quotas()
            .flat_map(|quota| quota.policies(0))
            .map(|policy| policy.name.clone())
            .chain(named("concurrency", self.concurrency.is_some()))
            .chain(named("adaptive", self.adaptive.is_some()))
    }

    fn looks_at(&self, which: impl Fn(&Part) -> bool) -> bool {
        let tiers = self.tiers.iter().map(|(by, _)| by);
        let when = self.when.iter().map(|condition| &condition.by);
        self.key.iter().chain(tiers).chain(when).any(which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_unlike_limits_are_kept_apart() {
        let presets = r#"{"rules":[{"name":"a","preset":"strict"},{"name":"b","preset":"generous"},{"name":"c"}]}"#;
        let tiers = r#"{"rules":[{"limits":[{"rate":"1000/hour","burst":50},{"rate":"20/second"}],"tiers":
            {"by":{"header":"x-plan"},"limits":{"gold":[{"rate":"100/minute","burst":"20/second"}]}}}]}"#;
        let alike = r#"{"rules":[{"name":"a"},{"name":"b","preset":"standard"}]}"#;
        for (config, want) in [(presets, 3), (tiers, 2), (alike, 1)] {
            let rules = Rules::new(serde_json::from_str(config).unwrap()).unwrap();
            let quotas = rules.rules.iter().flat_map(|rule| rule.quotas());
            let tables: BTreeSet<&str> = quotas.map(Quota::table).collect();
            assert_eq!(tables.len(), want, "{config}: {tables:?}");
        }
    }
}
