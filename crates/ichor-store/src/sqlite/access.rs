//! Statements of access: users, invitations, sessions, tokens.

mod audit;
mod provided;

use super::failure::During;
use super::values::word;
use super::{Connection, Sqlite};
use crate::access::{Admitted, NewSession, Role, SecretDigest, TokenSummary, User};
use crate::{StoreError, Timestamp};

pub(super) use audit::insert as insert_audit;

const DURING: &str = "looking after users";

#[derive(sqlx::FromRow)]
struct UserRow {
    id: i64,
    name: String,
    role: String,
    enabled: bool,
    password_hash: Option<String>,
    created_at: i64,
    source: String,
}

const USER_COLUMNS: &str = "id, name, role, enabled, password_hash, created_at, source";

impl UserRow {
    fn user(self) -> Result<User, StoreError> {
        Ok(User {
            id: self.id,
            name: self.name,
            role: word(&self.role)?,
            enabled: self.enabled,
            has_password: self.password_hash.is_some(),
            created_at: Timestamp::from_millis(self.created_at),
            source: self.source,
        })
    }
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    id: i64,
    name: String,
    label: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

const HAS_ADMIN: &str =
    "SELECT EXISTS (SELECT 1 FROM admin_user WHERE role = 'admin' AND enabled = 1 AND password_hash IS NOT NULL)";

/// Admins, those of a provider among them.
const ANY_ADMIN: &str = "SELECT EXISTS (SELECT 1 FROM admin_user WHERE role = 'admin' AND enabled = 1
    AND (password_hash IS NOT NULL OR source = 'oidc'))";

impl Sqlite {
    pub(crate) async fn has_admin(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar(HAS_ADMIN).fetch_one(&self.read).await.during(DURING)
    }

    pub(crate) async fn add_user(&self, name: &str, role: Role, now: Timestamp) -> Result<i64, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let id = insert_user(&mut tx, name, role, now).await?;
        tx.commit_with(&id).await.during(DURING)?;
        Ok(id)
    }

    pub(crate) async fn change_user(
        &self,
        id: i64,
        role: Role,
        enabled: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let is_anothers: Option<bool> =
            sqlx::query_scalar("SELECT source = 'oidc' AND role <> ? FROM admin_user WHERE id = ?")
                .bind(role.as_str())
                .bind(id)
                .fetch_optional(&mut *tx)
                .await
                .during(DURING)?;
        if is_anothers == Some(true) {
            return Err(StoreError::Filter { what: "the role of this user is the provider's to give".to_owned() });
        }
        let had_admin: bool = sqlx::query_scalar(HAS_ADMIN).fetch_one(&mut *tx).await.during(DURING)?;
        let changed = sqlx::query("UPDATE admin_user SET role = ?, enabled = ? WHERE id = ?")
            .bind(role.as_str())
            .bind(enabled)
            .bind(id)
            .execute(&mut *tx)
            .await
            .during(DURING)?
            .rows_affected();
        if changed == 0 {
            return Err(StoreError::NotFound { what: format!("user {id}") });
        }
        // Who can come in without the provider does not go, while there is one.
        let needed = if had_admin { HAS_ADMIN } else { ANY_ADMIN };
        if !sqlx::query_scalar::<_, bool>(needed).fetch_one(&mut *tx).await.during(DURING)? {
            return Err(StoreError::Filter { what: "there would be no admin left".to_owned() });
        }
        if !enabled {
            end_sessions(&mut tx, id).await?;
            // They are not good again when the user is let in once more.
            revoke_tokens(&mut tx, id, now).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn users(&self) -> Result<Vec<User>, StoreError> {
        let statement = format!("SELECT {USER_COLUMNS} FROM admin_user ORDER BY name");
        let rows: Vec<UserRow> =
            sqlx::query_as(sqlx::AssertSqlSafe(statement)).fetch_all(&self.read).await.during(DURING)?;
        rows.into_iter().map(UserRow::user).collect()
    }

    pub(crate) async fn invite(
        &self,
        digest: SecretDigest,
        user: Option<i64>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let is_anothers: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM admin_user WHERE id = ? AND source = 'oidc')")
                .bind(user)
                .fetch_one(&mut *tx)
                .await
                .during(DURING)?;
        if is_anothers {
            return Err(StoreError::Filter {
                what: "this user has no password here: the provider lets them in".to_owned(),
            });
        }
        sqlx::query("DELETE FROM admin_invitation WHERE user_id IS ? OR expires_at <= ?")
            .bind(user)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        sqlx::query("INSERT INTO admin_invitation (hash, user_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(&digest[..])
            .bind(user)
            .bind(now.as_millis())
            .bind(expires_at.as_millis())
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn invitation(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<String>, StoreError> {
        let mut connection = self.read.acquire().await.during(DURING)?;
        Ok(open_invitation(&mut connection, digest, now).await?.map(|(_, name)| name))
    }

    pub(crate) async fn accept_invitation(
        &self,
        digest: SecretDigest,
        name: &str,
        password_hash: &str,
        now: Timestamp,
    ) -> Result<User, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let id = match open_invitation(&mut tx, digest, now).await? {
            Some((id, _)) => id,
            None => insert_user(&mut tx, name, Role::Admin, now).await?,
        };
        sqlx::query("DELETE FROM admin_invitation WHERE hash = ?")
            .bind(&digest[..])
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        sqlx::query("UPDATE admin_user SET password_hash = ? WHERE id = ?")
            .bind(password_hash)
            .bind(id)
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        end_sessions(&mut tx, id).await?;
        // A new password is asked for when the old one may be known to others.
        revoke_tokens(&mut tx, id, now).await?;
        let statement = format!("SELECT {USER_COLUMNS} FROM admin_user WHERE id = ?");
        let row: UserRow =
            sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(id).fetch_one(&mut *tx).await.during(DURING)?;
        tx.commit().await.during(DURING)?;
        row.user()
    }

    pub(crate) async fn password_of(&self, name: &str) -> Result<Option<(User, String)>, StoreError> {
        let statement = format!("SELECT {USER_COLUMNS} FROM admin_user WHERE name = ? AND enabled = 1");
        let row: Option<UserRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(name)
            .fetch_optional(&self.read)
            .await
            .during(DURING)?;
        let Some(row) = row else { return Ok(None) };
        let Some(hash) = row.password_hash.clone() else { return Ok(None) };
        Ok(Some((row.user()?, hash)))
    }

    pub(crate) async fn begin_session(&self, session: &NewSession, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        sqlx::query("DELETE FROM admin_session WHERE expires_at <= ?")
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        sqlx::query(
            "INSERT INTO admin_session (hash, user_id, csrf, created_at, expires_at, is_provided, sid, id_token)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&session.digest[..])
        .bind(session.user)
        .bind(&session.csrf)
        .bind(now.as_millis())
        .bind(session.expires_at.as_millis())
        .bind(session.provided.is_some())
        .bind(session.provided.as_ref().and_then(|provided| provided.sid.as_deref()))
        .bind(session.provided.as_ref().and_then(|provided| provided.id_token.as_deref()))
        .execute(&mut *tx)
        .await
        .during(DURING)?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn end_session(&self, digest: SecretDigest) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        sqlx::query("DELETE FROM admin_session WHERE hash = ?")
            .bind(&digest[..])
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn session(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<Admitted>, StoreError> {
        let row: Option<(i64, String, String, String)> = sqlx::query_as(
            "SELECT u.id, u.name, u.role, s.csrf FROM admin_session s JOIN admin_user u ON u.id = s.user_id
             WHERE s.hash = ? AND s.expires_at > ? AND u.enabled = 1",
        )
        .bind(&digest[..])
        .bind(now.as_millis())
        .fetch_optional(&self.read)
        .await
        .during(DURING)?;
        let admitted = |(user, name, role, csrf): (_, _, String, _)| {
            Ok(Admitted { user, name, role: word(&role)?, csrf: Some(csrf) })
        };
        row.map(admitted).transpose()
    }

    pub(crate) async fn add_token(
        &self,
        digest: SecretDigest,
        user: i64,
        label: &str,
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<i64, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO admin_token (hash, user_id, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(&digest[..])
        .bind(user)
        .bind(label)
        .bind(now.as_millis())
        .bind(expires_at.map(Timestamp::as_millis))
        .fetch_one(&mut *tx)
        .await
        .during(DURING)?;
        tx.commit_with(&id).await.during(DURING)?;
        Ok(id)
    }

    pub(crate) async fn revoke_token(&self, id: i64, user: Option<i64>, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let changed = sqlx::query(
            "UPDATE admin_token SET revoked_at = ?1 WHERE id = ?2 AND revoked_at IS NULL AND (?3 IS NULL OR user_id = ?3)",
        )
        .bind(now.as_millis())
        .bind(id)
        .bind(user)
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        if changed == 0 {
            return Err(StoreError::NotFound { what: format!("a token {id} in force") });
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn tokens(&self, user: Option<i64>) -> Result<Vec<TokenSummary>, StoreError> {
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT t.id, u.name, t.label, t.created_at, t.expires_at, t.revoked_at
             FROM admin_token t JOIN admin_user u ON u.id = t.user_id WHERE (?1 IS NULL OR t.user_id = ?1) ORDER BY t.id",
        )
        .bind(user)
        .fetch_all(&self.read)
        .await
        .during(DURING)?;
        let token = |row: TokenRow| TokenSummary {
            id: row.id,
            user: row.name,
            label: row.label,
            created_at: Timestamp::from_millis(row.created_at),
            expires_at: row.expires_at.map(Timestamp::from_millis),
            revoked_at: row.revoked_at.map(Timestamp::from_millis),
        };
        Ok(rows.into_iter().map(token).collect())
    }

    pub(crate) async fn token(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<Admitted>, StoreError> {
        let row: Option<(i64, String, String)> = sqlx::query_as(
            "SELECT u.id, u.name, u.role FROM admin_token t JOIN admin_user u ON u.id = t.user_id
             WHERE t.hash = ?1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?2) AND u.enabled = 1",
        )
        .bind(&digest[..])
        .bind(now.as_millis())
        .fetch_optional(&self.read)
        .await
        .during(DURING)?;
        let admitted = |(user, name, role): (_, _, String)| Ok(Admitted { user, name, role: word(&role)?, csrf: None });
        row.map(admitted).transpose()
    }
}

async fn insert_user(connection: &mut Connection, name: &str, role: Role, now: Timestamp) -> Result<i64, StoreError> {
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO admin_user (name, role, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING id",
    )
    .bind(name)
    .bind(role.as_str())
    .bind(now.as_millis())
    .fetch_optional(connection)
    .await
    .during(DURING)?;
    id.ok_or_else(|| StoreError::Filter { what: format!("the name {name:?} is taken") })
}

/// The user of an invitation that is still good; `None` of the first admin's, which is good while there is no admin.
async fn open_invitation(
    connection: &mut Connection,
    digest: SecretDigest,
    now: Timestamp,
) -> Result<Option<(i64, String)>, StoreError> {
    let none = || StoreError::NotFound { what: "an invitation that is still good".to_owned() };
    let found: Option<(Option<i64>, Option<String>)> = sqlx::query_as(
        "SELECT i.user_id, u.name FROM admin_invitation i LEFT JOIN admin_user u ON u.id = i.user_id
         WHERE i.hash = ? AND i.expires_at > ? AND (u.id IS NULL OR u.enabled = 1)",
    )
    .bind(&digest[..])
    .bind(now.as_millis())
    .fetch_optional(&mut *connection)
    .await
    .during(DURING)?;
    match found.ok_or_else(none)? {
        (Some(id), Some(name)) => Ok(Some((id, name))),
        _ if sqlx::query_scalar::<_, bool>(HAS_ADMIN).fetch_one(connection).await.during(DURING)? => Err(none()),
        _ => Ok(None),
    }
}

async fn end_sessions(connection: &mut Connection, user: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM admin_session WHERE user_id = ?").bind(user).execute(connection).await.during(DURING)?;
    Ok(())
}

async fn revoke_tokens(connection: &mut Connection, user: i64, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE admin_token SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
        .bind(now.as_millis())
        .bind(user)
        .execute(connection)
        .await
        .during(DURING)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ichor_core::Uid;
    use serde_json::json;

    use super::super::tests::options;
    use super::*;
    use crate::access::{AuditFilter, NewAudit};
    use crate::folder;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[tokio::test]
    async fn the_audit_trail_only_grows() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        for number in 0..5 {
            let entry = NewAudit {
                at: at(number),
                actor: if number % 2 == 0 { "anna" } else { "bob" }.to_owned(),
                role: Some(Role::Viewer),
                address: "127.0.0.1".to_owned(),
                action: "study-viewed",
                study: Some(Uid::derive(["nobody has this study"])),
                detail: json!({ "number": number }),
            };
            index.audit(&entry).await.unwrap();
        }
        for statement in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "DELETE FROM audit WHERE id = 1"] {
            let refused = sqlx::query(statement).execute(&index.write).await.unwrap_err();
            assert!(refused.to_string().contains("audit trail is never"), "{refused}");
        }
        let of_anna = AuditFilter { actor: Some("anna".to_owned()), ..AuditFilter::default() };
        let rows = index.audited(&of_anna, 2).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [5, 3]);
        let older = index.audited(&AuditFilter { before: Some(3), ..of_anna }, 2).await.unwrap();
        assert_eq!(older.iter().map(|row| row.id).collect::<Vec<_>>(), [1]);
    }

    #[tokio::test]
    async fn what_has_ended_admits_nobody() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        index.invite([1; 32], None, at(0), at(100)).await.unwrap();
        assert!(index.invitation([1; 32], at(100)).await.is_err(), "the link has ended");
        assert_eq!(index.invitation([1; 32], at(99)).await.unwrap(), None);
        let anna = index.accept_invitation([1; 32], "anna", "hash", at(50)).await.unwrap();
        assert_eq!((anna.role, index.has_admin().await.unwrap()), (Role::Admin, true));
        assert!(index.accept_invitation([1; 32], "eve", "hash", at(50)).await.is_err(), "once");
        let session =
            NewSession { digest: [2; 32], user: anna.id, csrf: "word".to_owned(), expires_at: at(200), provided: None };
        index.begin_session(&session, at(60)).await.unwrap();
        index.add_token([3; 32], anna.id, "test", at(60), Some(at(300))).await.unwrap();
        assert!(index.session([2; 32], at(199)).await.unwrap().is_some());
        assert!(index.session([2; 32], at(200)).await.unwrap().is_none());
        assert!(index.session([3; 32], at(60)).await.unwrap().is_none(), "a token is no session");
        assert!(index.token([3; 32], at(299)).await.unwrap().is_some());
        assert!(index.token([3; 32], at(300)).await.unwrap().is_none());
        // A new password ends what was begun with the old one.
        index.invite([4; 32], Some(anna.id), at(70), at(100)).await.unwrap();
        index.accept_invitation([4; 32], "", "other hash", at(80)).await.unwrap();
        assert!(index.session([2; 32], at(90)).await.unwrap().is_none());
        assert!(index.token([3; 32], at(90)).await.unwrap().is_none());
        assert_eq!(index.password_of("ANNA").await.unwrap().unwrap().1, "other hash");
    }
}
