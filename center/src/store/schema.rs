//! The database's schema, one step a version. A step that has been released is never changed.

use anyhow::Context;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

const STEPS: &[M<'_>] = &[
    // 0.1: records are JSON documents, so that a new field needs no step; `serde(default)` reads older ones.
    M::up(
        "CREATE TABLE records (
             kind  TEXT NOT NULL,
             key   TEXT NOT NULL,
             value TEXT NOT NULL,
             PRIMARY KEY (kind, key)
         ) WITHOUT ROWID;
         CREATE TABLE events (
             id      INTEGER PRIMARY KEY AUTOINCREMENT,
             at      TEXT NOT NULL,
             machine TEXT,
             node    TEXT,
             kind    TEXT NOT NULL,
             text    TEXT NOT NULL,
             detail  TEXT
         );
         CREATE INDEX events_by_machine ON events (machine, id);",
    ),
];

/// Bring a database to the newest schema.
pub fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    Migrations::from_slice(STEPS).to_latest(connection).context("bringing the database to the newest schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_valid() {
        Migrations::from_slice(STEPS).validate().unwrap();
    }
}
