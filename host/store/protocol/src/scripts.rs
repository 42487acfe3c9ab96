//! Lua that Redis runs as one atomic step each; what they take and give is said at the top of each file.

/// Goes before those on entries: whether an entry counts still.
pub const ALIVE: &str = include_str!("scripts/alive.lua");
/// Remembers a prefix or pattern that is invalid from now on.
pub const BAN: &str = include_str!("scripts/ban.lua");
/// Removes an entry.
pub const DELETE: &str = include_str!("scripts/delete.lua");
/// Reads an entry.
pub const GET: &str = include_str!("scripts/get.lua");
/// Decides on limits.
pub const LIMIT: &str = include_str!("scripts/limit.lua");
/// Writes an entry.
pub const PUT: &str = include_str!("scripts/put.lua");
/// Reads news since a mark.
pub const SINCE: &str = include_str!("scripts/since.lua");
/// Adds a line of news.
pub const TELL: &str = include_str!("scripts/tell.lua");
