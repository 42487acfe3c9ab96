//! What is read of manifests, and what is said about them.

use std::collections::BTreeMap;

use edgeweir_host_formats::Level;
use edgeweir_host_formats::spin::{self, Shown, Source};

const BASE: &str = r#"spin_manifest_version = 2
[application]
name = "app"
[variables]
greeting = { default = "hello" }
token = { required = true, secret = true }
[[trigger.http]]
route = "/..."
component = "main"
dependencies.middleware = [
  { component = "limit", inherit_configuration = ["environment", "files", "key_value_stores"] },
  { component = "trim" },
]
[[trigger.http]]
route = "/a/:id"
component = "main"
[component.main]
source = "main.wasm"
allowed_outbound_hosts = ["http://{{ greeting }}.test:80", "https://*.b.org"]
key_value_stores = ["default"]
files = ["*.html", { source = "a", destination = "/b" }]
exclude_files = ["x.html"]
environment = { A = "b" }
variables = { said = "{{ greeting }}, {{ token }}" }
[component.limit]
source = "limit.wasm"
[component.trim]
source = "trim.wasm"
"#;

fn given() -> BTreeMap<String, String> {
    let environment = [
        ("SPIN_VARIABLE_TOKEN", "t0k"),
        ("HOME", "/"),
        ("SPIN_VARIABLE_OTHER", ""),
    ];
    spin::variables_of(
        environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

#[test]
fn a_component_may_stand_where_it_is_used_and_be_somewhere_else() {
    let digest = "0a".repeat(32);
    let text = format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n\
         [[trigger.http]]\nroute = \"/a\"\ncomponent = {{ source = \"a.wasm\", sqlite_databases = [\"default\"] }}\n\
         [[trigger.http]]\nroute = \"/b\"\ncomponent = {{ source = {{ url = \"https://b.test/b.wasm\", digest = \"sha256:{digest}\" }} }}\n"
    );
    let (app, findings) = spin::read(&text, &given());
    assert_eq!(findings, []);
    let [a, b] = app.triggers.as_slice() else {
        panic!("two routes")
    };
    let (a, b) = (&a.service.component, &b.service.component);
    assert_ne!(a.id.value, b.id.value);
    assert_eq!(a.source.value, Source::File("a.wasm".into()));
    assert_eq!(a.sqlite_databases.len(), 1);
    let Source::Remote(remote) = &b.source.value else {
        panic!("it is somewhere else")
    };
    assert_eq!(
        (remote.url.as_str(), &remote.sha256),
        ("https://b.test/b.wasm", &digest)
    );
}

#[test]
fn a_dependency_has_what_it_inherits() {
    let text = format!(
        "{BASE}[component.main.dependencies]\n\"a:b/c@1.0.0\" = {{ path = \"a.wasm\" }}\n\
         \"a:d\" = {{ path = \"d.wasm\", export = \"x:y/z\", inherit_configuration = true }}\n\"a:e\" = {{ component = \"trim\" }}\n"
    );
    // As a template leaves it.
    let trim = "source = \"trim.wasm\"\n";
    let text = text.replace(
        trim,
        &format!("{trim}allowed_outbound_hosts = []\nvariables = {{}}\n"),
    );
    let (app, findings) = spin::read(&text, &given());
    assert_eq!(findings, []);
    let main = &app.triggers[0].service.component;
    let [c, d, e] = main.dependencies.as_slice() else {
        panic!("three")
    };
    assert_eq!(e.source.value, Source::File("trim.wasm".into()));
    assert_eq!(c.imports.value.as_str(), "a:b/c@1.0.0");
    assert_eq!(c.source.value, Source::File("a.wasm".into()));
    let all = [
        "allowed_outbound_hosts",
        "environment",
        "files",
        "key_value_stores",
        "variables",
    ];
    assert_eq!(main.withholds(c), all);
    assert_eq!((d.export.as_deref(), d.inherits), (Some("x:y/z"), true));
    assert!(main.withholds(d).is_empty());
    let source = "source = \"main.wasm\"\n";
    let inherits = format!("{source}dependencies_inherit_configuration = true\n");
    let (app, findings) = spin::read(&text.replace(source, &inherits), &given());
    assert_eq!(findings, []);
    assert!(app.triggers[0].service.component.dependencies[0].inherits);
}

#[test]
fn a_manifest_is_read_whole() {
    let (app, findings) = spin::read(BASE, &given());
    assert_eq!(findings, []);
    let routes: Vec<_> = app
        .triggers
        .iter()
        .map(|it| it.route.value.as_str())
        .collect();
    assert_eq!(routes, ["/a/:id", "/..."], "the most particular first");
    let (unrooted, findings) = spin::read(&BASE.replace("\"/a/:id\"", "\"a/*\""), &given());
    assert_eq!(findings, []);
    assert_eq!(unrooted.triggers[0].route.value, "/a/*");
    let all = &app.triggers[1];
    assert_eq!(all.service.component.variables["said"], "hello, t0k");
    assert!(all.service.component.outbound[0].allows("http", "hello.test", None));
    let [limit, trim] = all.service.middleware.as_slice() else {
        panic!("two layers")
    };
    assert_eq!(limit.environment, all.service.component.environment);
    assert_eq!(limit.key_value_stores.len(), 1);
    let verbatim = BASE.replace("A = \"b\"", "A = \"Hello {{ name }}\"");
    let (greeting, _) = spin::read(&verbatim, &given());
    let main = &greeting.triggers[0].service.component;
    assert_eq!(main.environment["A"], "Hello {{ name }}");
    let shown: Vec<_> = limit.files.shown.iter().map(|it| &it.value).collect();
    let elsewhere = Shown::Elsewhere {
        source: "a".into(),
        destination: "/b".into(),
    };
    assert_eq!(shown, [&Shown::InPlace("*.html".into()), &elsewhere]);
    assert_eq!(limit.files.hidden[0].value, "x.html");
    assert_eq!(trim.files.shown, []);
    assert!(
        limit.variables.is_empty() && limit.outbound.is_empty(),
        "not inherited"
    );
    assert!(trim.environment.is_empty() && trim.key_value_stores.is_empty());
    assert_eq!(app.triggers[0].service.middleware, []);
}

#[test]
fn what_is_left_out_is_named() {
    use Level::{Advice, Error, Unsupported, Warning};
    for (name, from, to, level, path, words) in [
        (
            "version",
            "= 2",
            "= 1",
            Error,
            "spin_manifest_version",
            "version 2",
        ),
        (
            "component",
            "component = \"trim\"",
            "component = \"trym\"",
            Error,
            "middleware[1].component",
            "there is no [component.trym]",
        ),
        (
            "route",
            "\"/...\"",
            "\"/.../x\"",
            Error,
            "trigger.http[0].route",
            "at its end only",
        ),
        (
            "required",
            "token = {",
            "other = {",
            Error,
            "component.main.variables.said",
            "no variable `token`",
        ),
        (
            "inherited",
            "\"environment\", ",
            "\"env\", ",
            Error,
            "inherit_configuration[0]",
            "cannot be inherited",
        ),
        (
            "outbound",
            "https://*.b.org",
            "b.org",
            Error,
            "allowed_outbound_hosts[1]",
            "scheme://host:port",
        ),
        (
            "outbound without a scheme",
            "https://*.b.org",
            "b.org:443",
            Error,
            "allowed_outbound_hosts[1]",
            "it has no scheme",
        ),
        (
            "outbound with a network of 99 bits",
            "https://*.b.org",
            "http://10.0.0.0/99:80",
            Error,
            "allowed_outbound_hosts[1]",
            "no more bits",
        ),
        (
            "name with a hyphen",
            "greeting = {",
            "Api-Key = { default = \"x\" }\ngreeting = {",
            Error,
            "variables.Api-Key",
            "name of a variable",
        ),
        (
            "name with an empty word",
            "greeting = {",
            "api__key = { default = \"x\" }\ngreeting = {",
            Error,
            "variables.api__key",
            "name of a variable",
        ),
        (
            "name of a component's variable",
            "variables = { said =",
            "variables = { said_ =",
            Error,
            "component.main.variables.said_",
            "name of a variable",
        ),
        (
            "required with a default",
            "required = true,",
            "required = true, default = \"x\",",
            Error,
            "variables.token",
            "either required",
        ),
        (
            "template in the environment",
            "A = \"b\"",
            "A = \"{{ b }}\"",
            Advice,
            "component.main.environment.A",
            "as it is written",
        ),
        (
            "trigger",
            "[component.trim]",
            "[trigger.redis]\nx = 1\n[component.trim]",
            Warning,
            "trigger.redis",
            "only http",
        ),
        (
            "files",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\nfiles = [\"a\"]",
            Warning,
            "component.trim",
            "what it inherits",
        ),
        (
            "sqlite",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\nsqlite_databases = [\"default\"]",
            Warning,
            "component.trim",
            "what it inherits",
        ),
        (
            "fetched",
            "source = \"trim.wasm\"",
            "source = { url = \"https://a\", digest = \"sha256:0\" }",
            Error,
            "component.trim.source",
            "no SHA-256",
        ),
        (
            "registry",
            "source = \"trim.wasm\"",
            "source = { registry = \"a\", package = \"b:c\", version = \"1.0.0\" }",
            Unsupported,
            "component.trim.source",
            "no registry",
        ),
        (
            "version of a dependency",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\ndependencies = { \"a:b/c\" = \">= 1.0.0\" }",
            Unsupported,
            "component.trim.dependencies.a:b/c",
            "a registry",
        ),
        (
            "registry of a dependency",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\ndependencies = { \"a:b/c\" = { version = \"1.0.0\", registry = \"a\" } }",
            Unsupported,
            "component.trim.dependencies.a:b/c",
            "no registry",
        ),
        (
            "dependency that is no component",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\ndependencies.\"a:b\" = { component = \"no\" }",
            Error,
            "dependencies.a:b.component",
            "no [component.no]",
        ),
        (
            "dependency with grants of its own",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\ndependencies.\"a:b\" = { component = \"main\" }",
            Error,
            "dependencies.a:b.component",
            "allowed_outbound_hosts, environment, files, key_value_stores, variables of its own",
        ),
        (
            "part of a configuration",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\ndependencies.\"a:b\" = { path = \"a\", inherit_configuration = [\"files\"] }",
            Unsupported,
            "dependencies.a:b.inherit_configuration",
            "all or nothing",
        ),
        (
            "unknown",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\nbogus = 1",
            Warning,
            "component.trim.bogus",
            "ignored",
        ),
        (
            "granted",
            "source = \"trim.wasm\"",
            "source = \"trim.wasm\"\nenvironment = { A = \"b\" }",
            Warning,
            "component.trim",
            "what it inherits",
        ),
        (
            "private",
            "\"/a/:id\"",
            "{ private = false }",
            Error,
            "trigger.http[1].route",
            "private = true",
        ),
    ] {
        let text = BASE.replacen(from, to, 1);
        let (_, findings) = spin::read(&text, &given());
        let one = findings
            .iter()
            .find(|it| it.path.ends_with(path) && it.message.contains(words));
        let one = one.unwrap_or_else(|| panic!("{name}: {findings:#?}"));
        assert_eq!(one.level, level, "{name}");
        assert!(one.place(&text).is_some(), "{name}");
    }
    let (_, findings) = spin::read(BASE, &BTreeMap::new());
    assert!(
        findings
            .iter()
            .any(|it| it.message.contains("set SPIN_VARIABLE_TOKEN")),
        "{findings:?}"
    );
}
