//! Databases of SQLite, as components open them by `spin:sqlite`, each by its label.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params_from_iter};
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to one database at once.
const CONNECTIONS: usize = 64;
/// How long a statement may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Instructions of SQLite between two looks at the clock: some 10 µs.
const LOOK: i32 = 1_000;
/// One statement, one text or blob, and all that a statement gives, bytes.
const MAX_BYTES: usize = 16 << 20;
/// What a row and what a value of it cost beside their bytes.
const OVERHEAD: usize = 32;
/// Pages of 4 KiB in a database, a gibibyte; one that is larger already grows no more.
const MAX_PAGES: i64 = 262_144;

/// A database: its file, and how many are at it.
pub(crate) struct Database {
    path: PathBuf,
    /// Of one that nobody keeps.
    _folder: Option<TempDir>,
    pages: i64,
    connections: Arc<Semaphore>,
}

/// A connection of a component; what it began and did not commit is undone with it.
pub(crate) struct Opened {
    connection: Mutex<Connection>,
    _permit: OwnedSemaphorePermit,
}

/// Why a statement gives nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The database is as large as it may be.
    Full,
    /// Anything else, in words.
    Other(String),
}

/// What a statement gives.
#[derive(Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Database {
    /// A database in a file, or in one that goes when the host does.
    ///
    /// # Errors
    /// Names a file that cannot be opened or is no database.
    pub(crate) fn new(file: Option<&Path>) -> anyhow::Result<Arc<Self>> {
        let (path, folder) = match file {
            Some(file) => (file.to_owned(), None),
            None => {
                let folder = tempfile::tempdir().context("a folder for a database")?;
                (folder.path().join("database.db"), Some(folder))
            }
        };
        open(&path).with_context(|| format!("database file {}", path.display()))?;
        Ok(Arc::new(Self {
            path,
            _folder: folder,
            pages: MAX_PAGES,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        }))
    }

    pub(crate) async fn connect(self: Arc<Self>) -> Result<Opened, String> {
        let permit =
            self.connections.clone().try_acquire_owned().map_err(|_| {
                format!("{CONNECTIONS} connections are open, as many as there may be")
            })?;
        let opened = tokio::task::spawn_blocking(move || self.guarded()).await;
        let connection = opened.map_err(|error| error.to_string()).flatten()?;
        Ok(Opened {
            connection: Mutex::new(connection),
            _permit: permit,
        })
    }

    /// A connection that reaches no other file and bends no rule, whatever it is told.
    fn guarded(&self) -> Result<Connection, String> {
        let mut connection = open(&self.path).map_err(|error| format!("{error:#}"))?;
        let mut prepared = || -> rusqlite::Result<()> {
            // Neither ATTACH nor VACUUM INTO, which would read and write wherever this process may.
            connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
            let most = i32::try_from(MAX_BYTES).unwrap_or(i32::MAX);
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, most)?;
            connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, most)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.pragma_update(None, "max_page_count", self.pages)?;
            connection.authorizer(Some(allowed))
        };
        prepared().map_err(refused)?;
        Ok(connection)
    }
}

impl Opened {
    pub(crate) async fn execute(
        self: Arc<Self>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, Failed> {
        self.with(move |connection| rows(connection, &statement, parameters))
            .await
            .map_err(Failed::Other)?
    }

    /// The row of the last INSERT.
    pub(crate) async fn last_row(self: Arc<Self>) -> Result<i64, String> {
        self.with(|connection| connection.last_insert_rowid()).await
    }

    /// Rows that the last INSERT, UPDATE or DELETE changed.
    pub(crate) async fn changes(self: Arc<Self>) -> Result<u64, String> {
        self.with(|connection| connection.changes()).await
    }

    async fn with<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, String> {
        let done = tokio::task::spawn_blocking(move || {
            let connection = self.connection.lock();
            work(&mut connection.unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(|error| error.to_string())
    }
}

fn rows(connection: &mut Connection, statement: &str, values: Vec<Value>) -> Result<Rows, Failed> {
    let until = Instant::now() + PATIENCE;
    let looked = connection.progress_handler(LOOK, Some(move || Instant::now() > until));
    looked.map_err(failed)?;
    let mut prepared = connection.prepare_cached(statement).map_err(failed)?;
    let columns: Vec<String> = prepared.column_names().map(ToOwned::to_owned).collect();
    let mut found = prepared.query(params_from_iter(values)).map_err(failed)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().map_err(failed)? {
        let values = (0..columns.len()).map(|at| row.get::<_, Value>(at));
        let values: Vec<Value> = values.collect::<Result<_, _>>().map_err(failed)?;
        bytes += OVERHEAD + values.iter().map(size).sum::<usize>();
        if bytes > MAX_BYTES {
            let message = format!("the statement gives more than {MAX_BYTES} bytes");
            return Err(Failed::Other(message));
        }
        rows.push(values);
    }
    Ok(Rows { columns, rows })
}

fn size(value: &Value) -> usize {
    OVERHEAD
        + match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        }
}

fn failed(error: rusqlite::Error) -> Failed {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Failed::Full,
        Some(ErrorCode::OperationInterrupted) => {
            Failed::Other(format!("the statement took longer than {PATIENCE:?}"))
        }
        _ => Failed::Other(refused(error)),
    }
}

/// Opens a file of SQLite, and makes it where there is none.
///
/// What was written is there after this process ends, however it does; the last moments before the machine stops may be lost,
/// as a write waits for no disk.
pub(crate) fn open(path: &Path) -> anyhow::Result<Connection> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).context("its folder cannot be made")?;
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Settings that would lift a bound, in memory or on the disk, or change the file for whoever else has it open.
const KEPT: [&str; 11] = [
    "cache_size",
    "data_store_directory",
    "default_cache_size",
    "hard_heap_limit",
    "journal_mode",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "soft_heap_limit",
    "temp_store",
    "temp_store_directory",
];

fn allowed(asked: AuthContext<'_>) -> Authorization {
    match asked.action {
        AuthAction::Pragma {
            pragma_name,
            pragma_value: Some(_),
        } if KEPT.iter().any(|it| pragma_name.eq_ignore_ascii_case(it)) => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

/// An error of SQLite in words.
pub(crate) fn refused(error: rusqlite::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(opened: &Arc<Opened>, statement: &str) -> Result<Vec<Vec<Value>>, Failed> {
        let asked = opened.clone().execute(statement.to_owned(), Vec::new());
        asked.await.map(|told| told.rows)
    }

    async fn connect(database: &Arc<Database>) -> Arc<Opened> {
        Arc::new(database.clone().connect().await.expect("connects"))
    }

    fn why(told: Result<Vec<Vec<Value>>, Failed>) -> String {
        match told {
            Err(Failed::Other(why)) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn connections_see_what_others_committed() {
        let database = Database::new(None).expect("a database");
        let (one, other) = (connect(&database).await, connect(&database).await);
        ask(&one, "CREATE TABLE t (a, b)").await.expect("made");
        let told = one.clone().execute(
            "INSERT INTO t VALUES (?1, ?2) RETURNING a, b, NULL AS c".into(),
            vec![Value::Integer(7), Value::Blob(vec![0, 1])],
        );
        let told = told.await.expect("inserted");
        assert_eq!(told.columns, ["a", "b", "c"]);
        let row = vec![Value::Integer(7), Value::Blob(vec![0, 1]), Value::Null];
        assert_eq!(told.rows, [row]);
        assert_eq!(one.clone().last_row().await, Ok(1));
        assert_eq!(one.clone().changes().await, Ok(1));
        ask(&one, "BEGIN").await.expect("begins");
        ask(&one, "INSERT INTO t VALUES (1.5, 'text')")
            .await
            .expect("inserted");
        let count = "SELECT COUNT(*) FROM t";
        assert_eq!(ask(&other, count).await, Ok(vec![vec![Value::Integer(1)]]));
        drop(one);
        let one = connect(&database).await;
        assert_eq!(ask(&one, count).await, Ok(vec![vec![Value::Integer(1)]]));
    }

    #[tokio::test]
    async fn no_statement_reaches_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside.db");
        let database = Database::new(None).expect("a database");
        let opened = connect(&database).await;
        ask(&opened, "CREATE TABLE t (a)").await.expect("made");
        let outside = outside.display();
        for statement in [
            format!("ATTACH '{outside}' AS other"),
            format!("VACUUM INTO '{outside}'"),
            "SELECT load_extension('x')".to_owned(),
            "PRAGMA max_page_count = 1000000".to_owned(),
            "PRAGMA Journal_Mode = DELETE".to_owned(),
        ] {
            let told = ask(&opened, &statement).await;
            assert!(told.is_err(), "{statement}: {told:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[tokio::test]
    async fn bounds_are_named() {
        let mut database = Database::new(None).expect("a database");
        Arc::get_mut(&mut database).expect("no other").pages = 10;
        let opened = connect(&database).await;
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
        let told = ask(
            &opened,
            &format!("{endless} SELECT zeroblob(100000) FROM n"),
        )
        .await;
        assert!(why(told).contains("more than 16777216 bytes"));
        let told = ask(&opened, &format!("{endless} SELECT max(i) FROM n")).await;
        assert!(why(told).contains("longer than 5s"));
        let told = ask(&opened, "SELECT zeroblob(20000000)").await;
        assert!(why(told).contains("too big"));
        ask(&opened, "CREATE TABLE t (a)").await.expect("made");
        let told = ask(&opened, "INSERT INTO t VALUES (zeroblob(100000))").await;
        assert_eq!(told, Err(Failed::Full));
        let mut others = Vec::new();
        let refused = loop {
            match database.clone().connect().await {
                Ok(opened) => others.push(opened),
                Err(why) => break why,
            }
        };
        assert_eq!(others.len(), CONNECTIONS - 1);
        assert!(refused.contains("64 connections"), "{refused}");
    }
}
