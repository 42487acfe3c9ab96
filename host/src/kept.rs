//! Files in which a configuration keeps keys and databases: whether they can be had, and where each of them is named.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;

use edgeweir_host_formats::spin::Store;
use edgeweir_host_wasi_http::Unopened;

use crate::config::{Config, ConfigError};
use crate::load::databases;

/// What every file of SQLite begins with.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// Looks at the files and makes none.
///
/// # Errors
/// At the place where it is named: a file that cannot be opened or is no database, and a folder that is not there.
pub(crate) fn look_at(config: &Config) -> Result<(), ConfigError> {
    let default = || Unopened::Store("default".to_owned());
    if let Some(path) = &config.state.store {
        let looked = folder(path).and_then(|()| file(path));
        looked.map_err(|why| at(config, &default(), told(path, &why)))?;
    }
    for (label, store) in &config.stores {
        if let Store::File(Some(path)) = store {
            let what = Unopened::Store(label.clone());
            file(path).map_err(|why| at(config, &what, told(path, &why)))?;
        }
    }
    for (label, path) in databases(config) {
        if let Some(path) = path {
            let what = Unopened::Database(label);
            file(&path).map_err(|why| at(config, &what, told(&path, &why)))?;
        }
    }
    Ok(())
}

fn told(path: &Path, why: &str) -> String {
    format!("{}: {why}", path.display())
}

/// A folder that an operator names is theirs to make: it may be misspelt. Those of Spin's are made, as Spin does.
fn folder(path: &Path) -> Result<(), String> {
    if path.file_name().is_none() {
        return Err("it is no name of a file".to_owned());
    }
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let Some(folder) = folder else { return Ok(()) };
    match std::fs::metadata(folder) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is not a folder", folder.display())),
        Err(error) => Err(format!(
            "there is no folder {}: {error}: make it, or name another",
            folder.display()
        )),
    }
}

fn file(path: &Path) -> Result<(), String> {
    let cannot = |error: io::Error| format!("it cannot be opened: {error}");
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => return Err("it is not a file".to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(error)),
    }
    // Whether it may be written is asked as well; nothing is.
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let mut first = Vec::new();
    let most = SQLITE.len() as u64;
    opened
        .and_then(|file| file.take(most).read_to_end(&mut first))
        .map_err(cannot)?;
    match first.is_empty() || first == SQLITE {
        true => Ok(()),
        false => Err("it is not a database of SQLite".to_owned()),
    }
}

/// The error of a runtime that does not start, at the place of what it could not open.
pub(crate) fn refused(config: &Config, error: anyhow::Error) -> anyhow::Error {
    let Some(what) = error.downcast_ref::<Unopened>() else {
        return error;
    };
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    at(config, what, causes.join(": ")).into()
}

fn at(config: &Config, what: &Unopened, message: String) -> ConfigError {
    let given = &config.given;
    let (section, label) = match what {
        Unopened::Store(label) => ("key_value_store", label),
        Unopened::Database(label) => ("sqlite_database", label),
    };
    if let Some(source) = &given.runtime {
        for field in ["path", "url"] {
            if let Some(place) = source.place_of(&[section, label, field]) {
                let field = format!("{section}.{label}.{field}");
                return ConfigError::at(source, place, &field, message);
            }
        }
        if let (false, Some(place)) = (given.state_dir, source.place_of(&["state_dir"])) {
            return ConfigError::at(source, place, "state_dir", message);
        }
    }
    if given.state_dir {
        return ConfigError::option(&config.source.file, "--state-dir", message);
    }
    let place = config.source.place_of(&["state", "store"]);
    ConfigError::at(
        &config.source,
        place.unwrap_or(0..0),
        "state.store",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = |name: &str| folder.path().join(name);
        std::fs::write(inside("text"), "no database, but long enough to be one").expect("written");
        std::fs::write(inside("short"), "SQL").expect("written");
        std::fs::write(inside("empty"), "").expect("written");
        std::fs::write(inside("good"), [&SQLITE[..], &[16, 0]].concat()).expect("written");
        for (name, want) in [
            ("good", None),
            ("empty", None),
            ("new", None),
            ("text", Some("not a database")),
            ("short", Some("not a database")),
            ("text/new", Some("cannot be opened: Not a directory")),
            ("", Some("not a file")),
        ] {
            let path = inside(name);
            let why = file(&path).err();
            match want {
                None => assert_eq!(why, None, "{name}"),
                Some(want) => assert!(why.is_some_and(|it| it.contains(want)), "{name}"),
            }
        }
        assert!(!inside("new").exists());
    }

    #[test]
    fn a_folder_that_an_operator_names_must_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("text"), "").expect("written");
        for (path, want) in [
            ("store.db", None),
            ("./store.db", None),
            ("", Some("no name of a file")),
            ("/", Some("no name of a file")),
            ("absent/store.db", Some("there is no folder absent")),
        ] {
            let why = super::folder(Path::new(path)).err();
            match want {
                None => assert_eq!(why, None, "{path}"),
                Some(want) => assert!(why.is_some_and(|it| it.contains(want)), "{path}"),
            }
        }
        let below = folder.path().join("text/store.db");
        let why = super::folder(&below).expect_err("a file");
        assert!(why.contains("is not a folder"), "{why}");
    }
}
