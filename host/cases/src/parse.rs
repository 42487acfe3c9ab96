//! From TOML or YAML to cases. Errors name file, line, field and value; a key that is unknown, the nearest one there is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use crate::content::{self, Body};
use crate::expect::{self, Expect};
use crate::model::{Answer, Budget, Case, File, Filter, Request, Response, Step};
use crate::source::{Node, Problem, Source, Table};
use crate::{time, yaml};

/// The client where a case names none (RFC 5737: an address for documentation).
pub const PEER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    40_000,
);
/// The most cases of a file, and the most steps of a case.
const MANY: usize = 10_000;

/// Reads a file of cases.
pub fn read(file: &Path) -> Result<File, Problem> {
    let (text, error) = match std::fs::read_to_string(file) {
        Ok(text) => (text, None),
        Err(error) => (String::new(), Some(error)),
    };
    let source = Source {
        file: file.to_owned(),
        text,
    };
    match error {
        Some(error) => Err(source.problem(0..0, "", format!("it cannot be read: {error}"))),
        None => parse(source),
    }
}

/// Reads the text of a file of cases.
pub fn parse(source: Source) -> Result<File, Problem> {
    let tree = yaml::is(&source)
        .then(|| yaml::parse(&source))
        .transpose()?;
    let parsed = match &tree {
        Some(tree) => yaml::table(&source, tree)?,
        None => DeTable::parse(&source.text).map_err(|error| {
            source.problem(error.span().unwrap_or(0..0), "", error.message().trim())
        })?,
    };
    let top = Table::new(&source, String::new(), parsed.span(), parsed.get_ref());
    let chains = chains(&top)?;
    let defaults = Defaults::read(&top)?;
    let mut cases: Vec<Case> = Vec::new();
    let listed = top.get("case");
    let listed = match &listed {
        Some(listed) => listed.list()?,
        None => return top.fail("there is no [[case]]"),
    };
    top.finish()?;
    if listed.len() > MANY {
        return top.fail(format!("{} cases, at most {MANY}", listed.len()));
    }
    let mut names = BTreeMap::new();
    for node in &listed {
        for (abi, chain) in &chains {
            let mut case = case(node, chain.clone(), &defaults)?;
            if let Some(before) = names.insert((case.name.clone(), abi.clone()), case.line) {
                return node.fail(format!(
                    "there is a case {:?} already, in line {before}",
                    case.name
                ));
            }
            if let Some(abi) = abi {
                case.name = format!("{} [{abi}]", case.name);
            }
            cases.push(case);
        }
    }
    Ok(File {
        cases,
        source: source.clone(),
    })
}

type Chain = (Option<String>, Vec<Filter>);

/// The chains every case runs on: one for each module named, or the one listed.
fn chains(top: &Table<'_>) -> Result<Vec<Chain>, Problem> {
    let filters = top.get("filter");
    let module = top.get("module");
    let config = config(top)?;
    let settings = settings(top)?;
    match (module, filters) {
        (Some(_), Some(filters)) => filters.fail("there is `module` already: one of them"),
        (None, None) => {
            top.fail("`module` (a .wasm file or a list of them) or [[filter]] is missing")
        }
        (None, Some(filters)) => {
            let mut chain = Vec::new();
            for filter in filters.list()? {
                let table = filter.table()?;
                let module = table.need("module")?;
                let mut filter = self::filter(&module, &self::config(&table)?)?;
                apply(&mut filter, self::settings(&table)?);
                if let Some(name) = table.get("name") {
                    filter.name = name.text()?.to_owned();
                }
                table.finish()?;
                chain.push(filter);
            }
            Ok(vec![(None, chain)])
        }
        (Some(module), None) if module.is_list() => {
            let mut chains = Vec::new();
            for node in module.list()? {
                let mut filter = filter(&node, &config)?;
                apply(&mut filter, settings.clone());
                let file = filter.module.file_stem().unwrap_or_default();
                chains.push((Some(file.to_string_lossy().into_owned()), vec![filter]));
            }
            if chains.is_empty() {
                return module.fail("want at least one module");
            }
            Ok(chains)
        }
        (Some(module), None) => {
            let mut filter = filter(&module, &config)?;
            apply(&mut filter, settings);
            Ok(vec![(None, vec![filter])])
        }
    }
}

fn filter(module: &Node<'_>, config: &str) -> Result<Filter, Problem> {
    let file = module.source.resolve(module.text()?);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(Filter {
        name: name.split('.').next().unwrap_or_default().to_owned(),
        module: file,
        line: module.line(),
        config: config.to_owned(),
        root_id: String::new(),
        allow_on_headers_stop_iteration: false,
        vm_config: String::new(),
        environment: BTreeMap::new(),
        variables: BTreeMap::new(),
    })
}

#[derive(Clone, Default)]
struct Settings {
    root_id: String,
    allow_on_headers_stop_iteration: bool,
    vm_config: String,
    environment: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

fn settings(table: &Table<'_>) -> Result<Settings, Problem> {
    let text = |node: Option<Node<'_>>| {
        node.map_or(Ok(String::new()), |node| node.text().map(str::to_owned))
    };
    let texts = |node: Option<Node<'_>>| match node {
        None => Ok(BTreeMap::new()),
        Some(node) => node
            .table()?
            .entries()
            .into_iter()
            .map(|(name, value)| Ok((name.to_owned(), value.text()?.to_owned())))
            .collect::<Result<_, Problem>>(),
    };
    Ok(Settings {
        root_id: text(table.get("root_id"))?,
        allow_on_headers_stop_iteration: table
            .get("allow_on_headers_stop_iteration")
            .map_or(Ok(false), |it| it.flag())?,
        vm_config: text(table.get("vm_config"))?,
        environment: texts(table.get("environment"))?,
        variables: texts(table.get("variables"))?,
    })
}

fn apply(filter: &mut Filter, settings: Settings) {
    filter.root_id = settings.root_id;
    filter.allow_on_headers_stop_iteration = settings.allow_on_headers_stop_iteration;
    filter.vm_config = settings.vm_config;
    filter.environment = settings.environment;
    filter.variables = settings.variables;
}

/// `config` (a table, as JSON), `config_text`, or `config_file`.
fn config(table: &Table<'_>) -> Result<String, Problem> {
    let given = [
        table.get("config"),
        table.get("config_text"),
        table.get("config_file"),
    ];
    match given {
        [None, None, None] => Ok(String::new()),
        [Some(config), None, None] => Ok(config.json()?.to_string()),
        [None, Some(text), None] => Ok(text.text()?.to_owned()),
        [None, None, Some(file)] => match String::from_utf8(content::read_file(&file)?) {
            Ok(text) => Ok(text),
            Err(_) => file.fail("it is no UTF-8"),
        },
        _ => table.fail("one of `config`, `config_text`, `config_file`"),
    }
}

/// What every step begins with.
struct Defaults {
    fields: Vec<(String, String)>,
    upstream: Answer,
}

impl Defaults {
    fn read(top: &Table<'_>) -> Result<Defaults, Problem> {
        let mut defaults = Defaults {
            fields: vec![("host".to_owned(), "example.com".to_owned())],
            upstream: Answer::Response(Response::default()),
        };
        let Some(node) = top.get("defaults") else {
            return Ok(defaults);
        };
        let table = node.table()?;
        if let Some(fields) = table.get("fields") {
            defaults.fields = merged(&defaults.fields, content::fields(&fields)?);
        }
        if let Some(upstream) = table.get("upstream") {
            defaults.upstream = answer(&upstream, &defaults.upstream)?;
        }
        table.finish()?;
        Ok(defaults)
    }
}

/// The second's fields in place of those of the first with the same name.
fn merged(first: &[(String, String)], second: content::Fields) -> Vec<(String, String)> {
    let kept = first
        .iter()
        .filter(|(name, _)| !second.iter().any(|(other, _)| other == name));
    let mut all: Vec<_> = kept.cloned().collect();
    all.extend(content::lines(second));
    all
}

fn case(node: &Node<'_>, mut filters: Vec<Filter>, defaults: &Defaults) -> Result<Case, Problem> {
    let table = node.table()?;
    let name = table.need("name")?;
    let name = match name.text()?.trim() {
        "" => return name.fail("it is empty, want a name"),
        name => name.to_owned(),
    };
    let config = config(&table)?;
    if !config.is_empty() {
        let [filter] = &mut filters[..] else {
            return table.fail("a configuration for a case needs a single filter");
        };
        filter.config = config;
    }
    let at = table.get("at");
    let peer = match table.get("peer") {
        None => PEER,
        Some(peer) => match peer.text()?.parse() {
            Ok(peer) => peer,
            Err(_) => return peer.fail("want an address and a port, such as \"192.0.2.7:40000\""),
        },
    };
    let mut case = Case {
        name,
        line: table.line(),
        filters,
        timed: at.is_some(),
        at: at.map_or(Ok(time::START), |at| time::moment(&at))?,
        workers: table.get("workers").map_or(Ok(1), |it| it.number(1, 16))? as u32,
        peer,
        properties: Vec::new(),
        shared: Vec::new(),
        clusters: BTreeMap::new(),
        budget: budget(table.get("budget"))?,
        torture: table.get("torture").map_or(Ok(true), |it| it.flag())?,
        envoy: table.get("envoy").map_or(Ok(true), |it| it.flag())?,
        steps: Vec::new(),
    };
    if let Some(properties) = table.get("properties") {
        for (path, value) in properties.table()?.entries() {
            let value = value.text()?.to_owned();
            case.properties.push((path.to_owned(), value));
        }
    }
    if let Some(shared) = table.get("shared") {
        for (key, value) in shared.table()?.entries() {
            case.shared.push((key.to_owned(), content::bytes(&value)?));
        }
    }
    if let Some(clusters) = table.get("clusters") {
        for (name, answers) in clusters.table()?.entries() {
            let default = Answer::Response(Response::default());
            let answers: Vec<_> = answers
                .list()?
                .iter()
                .map(|node| answer(node, &default))
                .collect::<Result<_, _>>()?;
            if answers.is_empty() {
                return clusters.fail(format!("`{name}` has no answer"));
            }
            case.clusters.insert(name.to_owned(), answers);
        }
    }
    for node in table.need("step")?.list()? {
        case.steps.push(step(&node, defaults)?);
    }
    table.finish()?;
    if case.steps.is_empty() || case.steps.len() > MANY {
        return table.fail(format!("{} steps, want 1 to {MANY}", case.steps.len()));
    }
    Ok(case)
}

fn budget(node: Option<Node<'_>>) -> Result<Budget, Problem> {
    let Some(node) = node else {
        return Ok(Budget::default());
    };
    let table = node.table()?;
    let most = |node: Option<Node<'_>>| node.map(|it| it.number(0, u64::MAX >> 1)).transpose();
    let budget = Budget {
        fuel: most(table.get("fuel"))?,
        memory: most(table.get("memory_bytes"))?,
        host_calls: most(table.get("host_calls"))?,
        bytes_copied: most(table.get("bytes_copied"))?,
        wall: table
            .get("wall")
            .map(|it| time::duration(&it))
            .transpose()?,
    };
    table.finish()?;
    Ok(budget)
}

fn step(node: &Node<'_>, defaults: &Defaults) -> Result<Step, Problem> {
    let table = node.table()?;
    let step = Step {
        line: table.line(),
        advance: table
            .get("advance")
            .map_or(Ok(Duration::ZERO), |it| time::duration(&it))?,
        times: table
            .get("times")
            .map_or(Ok(1), |it| it.number(1, 100_000))? as u32,
        request: request(&table.need("request")?, defaults)?,
        upstream: match table.get("upstream") {
            None => defaults.upstream.clone(),
            Some(node) => answer(&node, &defaults.upstream)?,
        },
        expect: match table.get("expect") {
            None => Expect {
                line: table.line(),
                ..Expect::default()
            },
            Some(node) => expect::read(&node)?,
        },
    };
    table.finish()?;
    Ok(step)
}

/// `"GET /path"`, or a table.
fn request(node: &Node<'_>, defaults: &Defaults) -> Result<Request, Problem> {
    let mut request = Request {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        fields: defaults.fields.clone(),
        body: Body::default(),
    };
    let line = |request: &mut Request, text: &str| match text.split_once(' ') {
        Some((method, path)) => {
            request.method = method.to_owned();
            request.path = path.to_owned();
        }
        None => request.path = text.to_owned(),
    };
    if let Some(text) = node.as_text() {
        line(&mut request, text);
    } else {
        let table = node.table()?;
        if let Some(method) = table.get("method") {
            request.method = method.text()?.to_owned();
        }
        if let Some(path) = table.get("path") {
            request.path = path.text()?.to_owned();
        }
        if let Some(fields) = table.get("fields") {
            request.fields = merged(&request.fields, content::fields(&fields)?);
        }
        request.body = content::read(&table, &Body::default())?;
        table.finish()?;
    }
    // RFC 9110 §9.1: method = token.
    if http::Method::from_bytes(request.method.as_bytes()).is_err() {
        return node.fail(format!("{:?} is no method", request.method));
    }
    // A target in origin-form (RFC 9112 §3.2.1), every byte of which is sent: a fragment would not be.
    let target = request.path.parse::<http::uri::PathAndQuery>();
    let whole = target.is_ok_and(|it| it.as_str() == request.path);
    if !whole || !request.path.starts_with('/') || !request.path.is_ascii() {
        return node.fail(format!(
            "{:?} is no path that can be asked for, such as \"/index.html?lang=en\"",
            request.path
        ));
    }
    Ok(request)
}

/// A text for a body, `"refused"` and the like as `{ fails = … }`, or a table; what it does not name is as in `default`.
fn answer(node: &Node<'_>, default: &Answer) -> Result<Answer, Problem> {
    let mut response = match default {
        Answer::Response(response) => response.clone(),
        _ => Response::default(),
    };
    if let Some(text) = node.as_text() {
        response.body.bytes = text.as_bytes().to_vec();
        return match response.body.misfit() {
            Some(why) => node.fail(why),
            None => Ok(Answer::Response(response)),
        };
    }
    let table = node.table()?;
    if table.entries().is_empty() {
        return Ok(default.clone());
    }
    if let Some(fails) = table.get("fails") {
        let answer = match fails.text()? {
            "refused" => Answer::Refused,
            "closed" => Answer::Closed,
            "silent" => Answer::Silent,
            other => {
                return fails.fail(format!("{other:?} is none of refused, closed, silent"));
            }
        };
        table.finish()?;
        return Ok(answer);
    }
    if let Some(status) = table.get("status") {
        response.status = status.number(200, 599)? as u16;
    }
    if let Some(fields) = table.get("fields") {
        response.fields = merged(&response.fields, content::fields(&fields)?);
    }
    if let Some(delay) = table.get("delay") {
        response.delay = time::duration(&delay)?;
    }
    response.body = content::read(&table, &response.body)?;
    table.finish()?;
    Ok(Answer::Response(response))
}
