//! What programs, and people without a password, show instead of one: API tokens, links, second factors.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Result, Store, User, now, optional_time, parsed, timestamp, unique, users};
use crate::model::Scope;

/// An API token as stored.
#[derive(Debug, Clone)]
pub struct Token {
    /// What it is called where it is listed.
    pub id: Uuid,
    /// SHA-256 of it.
    pub token_hash: Vec<u8>,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was last shown, to within a minute.
    pub last_used: Option<Timestamp>,
    /// Whose it is.
    pub user: User,
}

/// The columns of both tables; those of `tokens` come first, where both have them.
const SELECT: &str =
    "SELECT tokens.id AS token_id, token_hash, tokens.name AS token_name, scopes, tokens.created AS token_created,
    expires, last_used, users.* FROM tokens JOIN users ON users.id = user_id";

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let scopes: String = row.get("scopes")?;
    Ok(Token {
        id: parsed(row, "token_id")?,
        token_hash: row.get("token_hash")?,
        name: row.get("token_name")?,
        // a word that this version does not know gives nothing
        scopes: scopes.split(' ').filter_map(|word| word.parse().ok()).collect(),
        created: timestamp(row, "token_created")?,
        expires: timestamp(row, "expires")?,
        last_used: optional_time(row, "last_used")?,
        user: users::user(row)?,
    })
}

impl Store {
    /// Adds a token that lasts `seconds`; forgets those that ran out.
    pub fn add_token(
        &self,
        user: Uuid,
        name: &str,
        token_hash: &[u8],
        scopes: &[Scope],
        seconds: i64,
    ) -> Result<Token> {
        let id = Uuid::new_v4();
        let words: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        self.change(|transaction| {
            transaction.execute("DELETE FROM tokens WHERE expires <= ?1", [now()])?;
            let sql = "INSERT INTO tokens (id, token_hash, user_id, name, scopes, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![id.to_string(), token_hash, user.to_string(), name, words.join(" "), now(), now() + seconds];
            transaction.execute(sql, values).map_err(|error| unique(error, "token", name))?;
            Ok(transaction.query_row(&format!("{SELECT} WHERE tokens.id = ?1"), [id.to_string()], token)?)
        })
    }

    /// The token with this hash, if it is still good for something.
    pub fn token(&self, token_hash: &[u8]) -> Result<Option<Token>> {
        let connection = self.connection();
        let good = "token_hash = ?1 AND expires > ?2 AND NOT disabled AND NOT must_change";
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE {good}"))?;
        let found = statement.query_row(params![token_hash, now()], token).optional()?;
        if found.is_some() {
            let sql = "UPDATE tokens SET last_used = ?2 WHERE token_hash = ?1 AND coalesce(last_used, 0) < ?2 - 60";
            connection.prepare_cached(sql)?.execute(params![token_hash, now()])?;
        }
        Ok(found)
    }

    /// The tokens of a user, or all, by name.
    pub fn tokens(&self, user: Option<Uuid>) -> Result<Vec<Token>> {
        let connection = self.connection();
        let order = "WHERE (?1 IS NULL OR user_id = ?1) AND expires > ?2 ORDER BY tokens.name, users.name";
        let mut statement = connection.prepare_cached(&format!("{SELECT} {order}"))?;
        let user = user.map(|id| id.to_string());
        Ok(statement.query_map(params![user, now()], token)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The token with this id.
    pub fn token_by_id(&self, id: &str) -> Result<Option<Token>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE tokens.id = ?1"))?;
        Ok(statement.query_row([id], token).optional()?)
    }

    /// Ends a token.
    pub fn delete_token(&self, id: Uuid) -> Result<()> {
        self.connection().execute("DELETE FROM tokens WHERE id = ?1", [id.to_string()])?;
        Ok(())
    }

    /// Gives a user a link that lasts `seconds`, instead of any that they have.
    pub fn add_link(&self, user: Uuid, token_hash: &[u8], seconds: i64) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO links (token_hash, user_id, expires) VALUES (?1, ?2, ?3)";
        self.connection().execute(sql, params![token_hash, user.to_string(), now() + seconds])?;
        Ok(())
    }

    /// Whose a link is, if it can still be used.
    pub fn link(&self, token_hash: &[u8]) -> Result<Option<User>> {
        let connection = self.connection();
        let sql = "SELECT users.* FROM links JOIN users ON users.id = user_id WHERE token_hash = ?1 AND links.expires > ?2 AND NOT disabled";
        let found = connection.query_row(sql, params![token_hash, now()], users::user);
        Ok(found.optional()?)
    }

    /// Uses a link up: its user has this password from now on, and no session or token from before. Whether the link was good.
    pub fn use_link(&self, token_hash: &[u8], user: Uuid, password_hash: &str) -> Result<bool> {
        self.change(|transaction| {
            let sql = "DELETE FROM links WHERE token_hash = ?1 AND user_id = ?2 AND expires > ?3";
            if transaction.execute(sql, params![token_hash, user.to_string(), now()])? == 0 {
                return Ok(false);
            }
            users::set_password(transaction, user, password_hash, false, None)?;
            Ok(true)
        })
    }

    /// The key of a user's authenticator, and the step of the last code; if it was confirmed.
    pub fn second_factor(&self, user: Uuid) -> Result<Option<(Vec<u8>, i64)>> {
        self.factor(user, true)
    }

    /// The key that a user has yet to confirm with a code.
    pub fn unconfirmed_factor(&self, user: Uuid) -> Result<Option<Vec<u8>>> {
        Ok(self.factor(user, false)?.map(|(key, _)| key))
    }

    fn factor(&self, user: Uuid, confirmed: bool) -> Result<Option<(Vec<u8>, i64)>> {
        let sql = "SELECT totp_secret, totp_step FROM users WHERE id = ?1 AND totp_confirmed = ?2 AND totp_secret IS NOT NULL";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        Ok(self.connection().query_row(sql, params![user.to_string(), confirmed], row).optional()?)
    }

    /// Keeps a key until it is confirmed. Whether it was kept: not while another is in use.
    pub fn set_unconfirmed_factor(&self, user: Uuid, key: &[u8]) -> Result<bool> {
        let sql = "UPDATE users SET totp_secret = ?2, totp_step = 0 WHERE id = ?1 AND totp_confirmed = 0";
        Ok(self.connection().execute(sql, params![user.to_string(), key])? == 1)
    }

    /// From now on the user shows codes; `recovery` are hashes of those for when the authenticator is lost.
    pub fn confirm_factor(&self, user: Uuid, step: i64, recovery: &[Vec<u8>]) -> Result<()> {
        self.change(|transaction| {
            let user = user.to_string();
            let sql = "UPDATE users SET totp_confirmed = 1, totp_step = ?2 WHERE id = ?1 AND totp_secret IS NOT NULL";
            transaction.execute(sql, params![user, step])?;
            transaction.execute("DELETE FROM recovery_codes WHERE user_id = ?1", [&user])?;
            for hash in recovery {
                let sql = "INSERT INTO recovery_codes (user_id, code_hash) VALUES (?1, ?2)";
                transaction.execute(sql, params![user, hash])?;
            }
            Ok(())
        })
    }

    /// A code of this step was shown. False if it, or a later one, was shown before.
    pub fn use_step(&self, user: Uuid, step: i64) -> Result<bool> {
        let sql = "UPDATE users SET totp_step = ?2 WHERE id = ?1 AND totp_step < ?2 AND totp_confirmed = 1";
        Ok(self.connection().execute(sql, params![user.to_string(), step])? == 1)
    }

    /// Uses up a recovery code. Whether there was one.
    pub fn use_recovery_code(&self, user: Uuid, code_hash: &[u8]) -> Result<bool> {
        let sql = "DELETE FROM recovery_codes WHERE user_id = ?1 AND code_hash = ?2";
        Ok(self.connection().execute(sql, params![user.to_string(), code_hash])? == 1)
    }

    /// The user shows no codes any more.
    pub fn remove_factor(&self, user: Uuid) -> Result<()> {
        self.change(|transaction| {
            let user = user.to_string();
            let sql = "UPDATE users SET totp_secret = NULL, totp_confirmed = 0, totp_step = 0 WHERE id = ?1";
            transaction.execute(sql, [&user])?;
            transaction.execute("DELETE FROM recovery_codes WHERE user_id = ?1", [&user])?;
            Ok(())
        })
    }
}
