//! What becomes of components and their dependencies.

use edgeweir_host_formats::spin::Imports;
use edgeweir_host_package::{Dependency, Part, link, read_manifest};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

const NAME: &str = "local:count/number@0.1.0";

/// Exports `run`, which gives what the import gives.
fn application() -> Part {
    part(
        "app",
        &format!(
            r#"(component
                (import "{NAME}" (instance $number (export "give" (func (result u32)))))
                (alias export $number "give" (func $give))
                (core func $give (canon lower (func $give)))
                (core module $m
                    (import "" "give" (func $give (result i32)))
                    (func (export "run") (result i32) (call $give)))
                (core instance $i (instantiate $m (with "" (instance (export "give" (func $give))))))
                (func (export "run") (result u32) (canon lift (core func $i "run"))))"#
        ),
    )
}

/// Gives how many variables the environment has and, hundredfold, how many folders there are.
fn counter(export: &str) -> Part {
    part(
        NAME,
        &format!(
            r#"(component
                (import "wasi:filesystem/types@0.2.3" (instance $types (export "descriptor" (type (sub resource)))))
                (alias export $types "descriptor" (type $descriptor))
                (import "wasi:filesystem/preopens@0.2.3" (instance $folders
                    (alias outer 1 $descriptor (type $outer))
                    (export "descriptor" (type $descriptor (eq $outer)))
                    (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))
                (import "wasi:cli/environment@0.2.3" (instance $environment
                    (export "get-environment" (func (result (list (tuple string string)))))
                    (export "get-arguments" (func (result (list string))))
                    (export "initial-cwd" (func (result (option string))))))
                (core module $memory
                    (memory (export "memory") 1)
                    (global $next (mut i32) (i32.const 64))
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                        (global.set $next (i32.add (global.get $next) (i32.const 64)))
                        (global.get $next)))
                (core instance $memory (instantiate $memory))
                (alias core export $memory "memory" (core memory $bytes))
                (alias core export $memory "realloc" (core func $realloc))
                (alias export $environment "get-environment" (func $variables))
                (alias export $folders "get-directories" (func $directories))
                (core func $variables (canon lower (func $variables) (memory $bytes) (realloc $realloc)))
                (core func $directories (canon lower (func $directories) (memory $bytes) (realloc $realloc)))
                (core module $m
                    (import "" "memory" (memory 1))
                    (import "" "variables" (func $variables (param i32)))
                    (import "" "directories" (func $directories (param i32)))
                    (func (export "give") (result i32)
                        (call $variables (i32.const 8))
                        (call $directories (i32.const 16))
                        (i32.add (i32.load (i32.const 12)) (i32.mul (i32.load (i32.const 20)) (i32.const 100)))))
                (core instance $i (instantiate $m (with "" (instance
                    (export "memory" (memory $bytes))
                    (export "variables" (func $variables))
                    (export "directories" (func $directories))))))
                (func $give (result u32) (canon lift (core func $i "give")))
                (instance (export "{export}") (export "give" (func $give))))"#
        ),
    )
}

fn part(name: &str, text: &str) -> Part {
    Part {
        name: name.to_owned(),
        wasm: wat::parse_str(text).expect(text),
    }
}

fn dependency(part: Part, imports: &str, withheld: &[&'static str]) -> Dependency {
    Dependency {
        part,
        imports: Imports::new(imports),
        export: None,
        withheld: withheld.to_vec(),
    }
}

/// What `run` gives where there are two variables and a folder.
fn run(wasm: &[u8]) -> u32 {
    let engine = Engine::default();
    let component = Component::new(&engine, wasm).expect("a component");
    let mut linker = Linker::<()>::new(&engine);
    let two = || ("a".to_owned(), "b".to_owned());
    let mut environment = linker
        .instance("wasi:cli/environment@0.2.3")
        .expect("a name");
    environment
        .func_wrap("get-environment", move |_, (): ()| {
            Ok((vec![two(), two()],))
        })
        .expect("one");
    environment
        .func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))
        .expect("one");
    environment
        .func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))
        .expect("one");
    struct Descriptor;
    let ty = wasmtime::component::ResourceType::host::<Descriptor>();
    let mut types = linker
        .instance("wasi:filesystem/types@0.2.3")
        .expect("a name");
    types
        .resource("descriptor", ty, |_, _| Ok(()))
        .expect("one");
    let mut folders = linker
        .instance("wasi:filesystem/preopens@0.2.3")
        .expect("a name");
    folders
        .resource("descriptor", ty, |_, _| Ok(()))
        .expect("one");
    folders
        .func_wrap("get-directories", |_, (): ()| {
            let one = wasmtime::component::Resource::<Descriptor>::new_own(1);
            Ok((vec![(one, "/".to_owned())],))
        })
        .expect("one");
    let mut store = Store::new(&engine, ());
    let instance = linker
        .instantiate(&mut store, &component)
        .expect("instantiates");
    let run = instance
        .get_typed_func::<(), (u32,)>(&mut store, "run")
        .expect("run");
    run.call(&mut store, ()).expect("no trap").0
}

#[test]
fn a_dependency_takes_the_place_of_an_import() {
    for (imports, withheld, want) in [
        (NAME, &[][..], 102),
        (
            "local:count/number",
            &["variables", "sqlite_databases"],
            102,
        ),
        ("local:count", &["environment"], 100),
        ("local:count@0.1.0", &["files"], 2),
        (NAME, &["allowed_outbound_hosts", "environment", "files"], 0),
    ] {
        let dependency = dependency(counter(NAME), imports, withheld);
        let linked = link(&application(), &[dependency]).expect(imports);
        assert_eq!(run(&linked), want, "{imports} {withheld:?}");
    }
    let renamed = Dependency {
        export: Some("other:name/number".to_owned()),
        ..dependency(counter("other:name/number"), NAME, &[])
    };
    assert_eq!(
        run(&link(&application(), &[renamed]).expect("it fits")),
        102
    );
}

#[test]
fn what_does_not_fit_is_told_by_its_name() {
    let other = part(
        "other",
        &format!(
            r#"(component
                (core module $m (func (export "give") (param i32)))
                (core instance $i (instantiate $m))
                (func $give (param "a" u32) (canon lift (core func $i "give")))
                (instance (export "{NAME}") (export "give" (func $give))))"#
        ),
    );
    let store = part(
        "store",
        &format!(
            r#"(component
                (import "wasi:keyvalue/store@0.2.0-draft2" (instance))
                (core module $m (func (export "give") (result i32) (i32.const 1)))
                (core instance $i (instantiate $m))
                (func $give (result u32) (canon lift (core func $i "give")))
                (instance (export "{NAME}") (export "give" (func $give))))"#
        ),
    );
    let broken = Part {
        name: "broken".to_owned(),
        wasm: b"\0asm\x01\0\0\0".to_vec(),
    };
    for (dependencies, want) in [
        (
            vec![dependency(counter(NAME), "local:counter/number", &[])],
            "app imports nothing of this name; it imports local:count/number@0.1.0",
        ),
        (
            vec![dependency(counter("other:name/number"), NAME, &[])],
            "it does not export local:count/number@0.1.0; it exports other:name/number",
        ),
        (
            vec![
                dependency(counter(NAME), NAME, &[]),
                dependency(counter(NAME), "local:count", &[]),
            ],
            "local:count/number@0.1.0 is satisfied by local:count/number@0.1.0 already",
        ),
        (vec![dependency(other, NAME, &[])], "other: "),
        (vec![dependency(broken, NAME, &[])], "broken: "),
        (
            vec![dependency(store.clone(), NAME, &["key_value_stores"])],
            "store: it imports wasi:keyvalue/store@0.2.0-draft2 and does not inherit key_value_stores: ",
        ),
    ] {
        let error = link(&application(), &dependencies).expect_err(want);
        assert!(error.to_string().contains(want), "{error}");
    }
    let granted = dependency(store, NAME, &["files"]);
    link(&application(), &[granted]).expect("it has no files, and asks for none");
}

#[test]
fn a_manifest_says_what_is_linked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("app.wasm"), application().wasm).expect("writes");
    std::fs::write(file("counter.wasm"), counter(NAME).wasm).expect("writes");
    let read = |dependencies: &str| {
        let text = format!(
            "spin_manifest_version = 2\napplication = {{ name = \"a\" }}\n[[trigger.http]]\nroute = \"/\"\ncomponent = \"app\"\n\
             [component.app]\nsource = \"app.wasm\"\nenvironment = {{ A = \"b\" }}\n{dependencies}"
        );
        read_manifest(&text, folder.path()).map(|it| it.application.components[0].wasm.clone())
    };
    for (dependencies, want) in [
        (
            "dependencies.\"local:count\" = { path = \"counter.wasm\" }",
            100,
        ),
        (
            "dependencies_inherit_configuration = true\n[component.app.dependencies]\n\"local:count\" = { path = \"counter.wasm\" }",
            102,
        ),
        (
            "dependencies.\"local:count\" = { component = \"counter\", inherit_configuration = true }\n\
             [component.counter]\nsource = \"counter.wasm\"\n",
            102,
        ),
    ] {
        assert_eq!(
            run(&read(dependencies).expect(dependencies)),
            want,
            "{dependencies}"
        );
    }
    for (dependencies, want) in [
        (
            "dependencies.\"a:b\" = { path = \"counter.wasm\" }",
            "component.app: a:b: app imports nothing of this name",
        ),
        (
            "dependencies.\"local:count\" = { path = \"gone.wasm\" }",
            "component.app.dependencies.\"local:count\".path: ",
        ),
        ("dependencies.\"local:count\" = \"1.0.0\"", "line 9"),
        (
            "dependencies.\"local:count\" = {}",
            "it needs a path or a component",
        ),
        (
            "dependencies.\"local:count\" = { component = \"app\" }",
            "[component.app] has grants or dependencies of its own",
        ),
    ] {
        let error = read(dependencies).expect_err(dependencies).to_string();
        assert!(error.contains(want), "{error}");
    }
}
