//! Statements of users whom a provider vouches for.

use super::super::failure::During;
use super::{DURING, Sqlite, USER_COLUMNS, UserRow, end_sessions};
use crate::provided::{Provided, ProvidedLogout, ProvidedSession, ProvidedUser};
use crate::{SecretDigest, StoreError, Timestamp};

impl Sqlite {
    pub(crate) async fn admit_provided(&self, user: &ProvidedUser, now: Timestamp) -> Result<Provided, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let is_taken: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM admin_user WHERE name = ? AND subject IS NOT ?)")
                .bind(&user.name)
                .bind(&user.subject)
                .fetch_one(&mut *tx)
                .await
                .during(DURING)?;
        if is_taken {
            return Ok(Provided::NameTaken);
        }
        let statement = format!(
            "SELECT {USER_COLUMNS} FROM admin_user
             WHERE subject = ? AND name = ? COLLATE BINARY AND role = ? AND enabled = 1"
        );
        let unchanged: Option<UserRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(&user.subject)
            .bind(&user.name)
            .bind(user.role.as_str())
            .fetch_optional(&mut *tx)
            .await
            .during(DURING)?;
        if let Some(row) = unchanged {
            // What changes nothing has no row in the audit trail.
            return row.user().map(Provided::Admitted);
        }
        let statement = format!(
            "INSERT INTO admin_user (name, role, created_at, source, subject) VALUES (?, ?, ?, 'oidc', ?)
             ON CONFLICT (subject) WHERE subject IS NOT NULL DO UPDATE SET name = excluded.name, role = excluded.role
                 WHERE enabled = 1
             RETURNING {USER_COLUMNS}"
        );
        let row: Option<UserRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(&user.name)
            .bind(user.role.as_str())
            .bind(now.as_millis())
            .bind(&user.subject)
            .fetch_optional(&mut *tx)
            .await
            .during(DURING)?;
        let Some(row) = row else { return Ok(Provided::PutOut) };
        tx.commit().await.during(DURING)?;
        row.user().map(Provided::Admitted)
    }

    pub(crate) async fn withdraw_provided(&self, subject: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let user: Option<i64> = sqlx::query_scalar("SELECT id FROM admin_user WHERE subject = ?")
            .bind(subject)
            .fetch_optional(&mut *tx)
            .await
            .during(DURING)?;
        let Some(user) = user else { return Ok(false) };
        let has_any: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM admin_session WHERE user_id = ?1)
                 OR EXISTS (SELECT 1 FROM admin_token WHERE user_id = ?1 AND revoked_at IS NULL)",
        )
        .bind(user)
        .fetch_one(&mut *tx)
        .await
        .during(DURING)?;
        if !has_any {
            return Ok(true);
        }
        end_sessions(&mut tx, user).await?;
        sqlx::query("UPDATE admin_token SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
            .bind(now.as_millis())
            .bind(user)
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        tx.commit().await.during(DURING)?;
        Ok(true)
    }
}

impl Sqlite {
    pub(crate) async fn provided_session(&self, digest: SecretDigest) -> Result<Option<ProvidedSession>, StoreError> {
        let found: Option<(Option<String>, Option<String>)> =
            sqlx::query_as("SELECT sid, id_token FROM admin_session WHERE hash = ? AND is_provided = 1")
                .bind(&digest[..])
                .fetch_optional(&self.read)
                .await
                .during(DURING)?;
        Ok(found.map(|(sid, id_token)| ProvidedSession { sid, id_token }))
    }

    pub(crate) async fn end_provided_sessions(&self, logout: &ProvidedLogout) -> Result<Vec<String>, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let users: Vec<String> = sqlx::query_scalar(
            "DELETE FROM admin_session WHERE is_provided = 1
                 AND user_id IN (SELECT id FROM admin_user WHERE subject IS NOT NULL AND json_extract(subject, '$[0]') = ?1
                     AND (?2 IS NULL OR subject = ?2))
                 AND (?3 IS NULL OR sid = ?3 OR (sid IS NULL AND ?2 IS NOT NULL))
             RETURNING (SELECT name FROM admin_user WHERE id = user_id)",
        )
        .bind(&logout.issuer)
        .bind(&logout.subject)
        .bind(&logout.sid)
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        if !users.is_empty() {
            tx.commit_with(&users).await.during(DURING)?;
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::options;
    use super::*;
    use crate::access::{AuditFilter, NewAudit, Witness};
    use crate::folder;
    use crate::{NewSession, Role};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn user(subject: &str, name: &str, role: Role) -> ProvidedUser {
        ProvidedUser { subject: subject.to_owned(), name: name.to_owned(), role }
    }

    #[tokio::test]
    async fn a_provider_says_who_they_are_and_what_they_may() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        let admitted = async |user: &ProvidedUser| index.admit_provided(user, at(1)).await.unwrap();
        let Provided::Admitted(anna) = admitted(&user("1", "anna", Role::Viewer)).await else { panic!() };
        assert_eq!((anna.role, anna.has_password, anna.source.as_str()), (Role::Viewer, false, "oidc"));
        assert_eq!(admitted(&user("2", "ANNA", Role::Admin)).await, Provided::NameTaken, "somebody else");
        let Provided::Admitted(again) = admitted(&user("1", "anna.b", Role::Admin)).await else { panic!() };
        assert_eq!((again.id, again.name.as_str(), again.role), (anna.id, "anna.b", Role::Admin));

        // No local user is taken over, and no password is chosen by one who has none.
        let local = index.add_user("bob", Role::Admin, at(1)).await.unwrap();
        assert_eq!(admitted(&user("3", "bob", Role::Admin)).await, Provided::NameTaken);
        assert!(index.invite([9; 32], Some(anna.id), at(1), at(100)).await.is_err());
        index.invite([9; 32], Some(local), at(1), at(100)).await.unwrap();
        assert!(!index.has_admin().await.unwrap(), "a provider may be away: the way in is a local admin's");

        let session =
            NewSession { digest: [2; 32], user: anna.id, csrf: "w".to_owned(), expires_at: at(200), provided: None };
        index.begin_session(&session, at(2)).await.unwrap();
        index.add_token([3; 32], anna.id, "test", at(2), None).await.unwrap();
        assert!(index.withdraw_provided("1", at(3)).await.unwrap());
        assert!(!index.withdraw_provided("4", at(3)).await.unwrap());
        assert!(index.session([2; 32], at(4)).await.unwrap().is_none());
        assert!(index.token([3; 32], at(4)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn changes_by_the_provider_stand_in_the_audit_trail() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        let entry = NewAudit::of_ourselves(at(1), "changed", serde_json::json!({}));
        let witnessed = index.witnessed(Witness::new(entry));
        let rows = async || index.audited(&AuditFilter::default(), 100).await.unwrap().len();
        witnessed.admit_provided(&user("1", "anna", Role::Viewer), at(1)).await.unwrap();
        assert_eq!(rows().await, 1);
        witnessed.admit_provided(&user("1", "anna", Role::Viewer), at(2)).await.unwrap();
        witnessed.admit_provided(&user("2", "anna", Role::Viewer), at(2)).await.unwrap();
        assert!(!witnessed.withdraw_provided("4", at(2)).await.unwrap());
        assert_eq!(rows().await, 1, "nothing has changed");
        witnessed.admit_provided(&user("1", "Anna", Role::Viewer), at(3)).await.unwrap();
        let admin = witnessed.admit_provided(&user("1", "Anna", Role::Admin), at(3)).await.unwrap();
        let Provided::Admitted(anna) = admin else { panic!() };
        assert!(witnessed.withdraw_provided("1", at(4)).await.unwrap());
        assert_eq!(rows().await, 3, "there was nothing to end");
        index.add_token([3; 32], anna.id, "test", at(4), None).await.unwrap();
        assert!(witnessed.withdraw_provided("1", at(5)).await.unwrap());
        assert_eq!((rows().await, anna.name.as_str(), anna.role), (4, "Anna", Role::Admin));
    }

    #[tokio::test]
    async fn a_providers_logout_ends_what_it_names() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        let (anna, bob) = (r#"["https://a","1"]"#, r#"["https://a","2"]"#);
        let mut users = Vec::new();
        for (subject, name) in [(anna, "anna"), (bob, "bob"), (r#"["https://b","1"]"#, "eve")] {
            let admitted = index.admit_provided(&user(subject, name, Role::Viewer), at(1)).await.unwrap();
            let Provided::Admitted(row) = admitted else { panic!() };
            users.push(row.id);
        }
        let provided = |sid: Option<&str>| {
            Some(ProvidedSession { sid: sid.map(str::to_owned), id_token: Some("a.b.c".to_owned()) })
        };
        let begin = async |number: u8, user: i64, provided: Option<ProvidedSession>| {
            let csrf = "w".to_owned();
            let session = NewSession { digest: [number; 32], user, csrf, expires_at: at(200), provided };
            index.begin_session(&session, at(2)).await.unwrap();
        };
        let all = async || {
            for (number, user, sid) in
                [(1, 0, Some("x")), (2, 0, Some("y")), (3, 0, None), (4, 1, Some("x")), (5, 2, Some("x"))]
            {
                begin(number, users[user], provided(sid)).await;
            }
            begin(6, users[0], None).await;
        };
        let left = async || {
            let mut left = Vec::new();
            for number in 1..=6 {
                if index.session([number; 32], at(3)).await.unwrap().is_some() {
                    left.push(number);
                    index.end_session([number; 32]).await.unwrap();
                }
            }
            left
        };
        let logout = |subject: Option<&str>, sid: Option<&str>| ProvidedLogout {
            issuer: "https://a".to_owned(),
            subject: subject.map(str::to_owned),
            sid: sid.map(str::to_owned),
        };
        for (asked, ended, rest) in [
            (logout(Some(anna), None), 3, vec![4, 5, 6]),
            (logout(Some(anna), Some("x")), 2, vec![2, 4, 5, 6]),
            (logout(None, Some("x")), 2, vec![2, 3, 5, 6]),
            (logout(Some(anna), Some("z")), 1, vec![1, 2, 4, 5, 6]),
            (logout(Some(r#"["https://b","1"]"#), None), 0, vec![1, 2, 3, 4, 5, 6]),
        ] {
            all().await;
            let users = index.end_provided_sessions(&asked).await.unwrap();
            assert_eq!((users.len(), left().await), (ended, rest), "{asked:?}: {users:?}");
        }
        all().await;
        assert_eq!(index.provided_session([1; 32]).await.unwrap(), provided(Some("x")));
        assert_eq!(index.provided_session([6; 32]).await.unwrap(), None, "by a password");
        let entry = NewAudit::of_ourselves(at(1), "logged-out", serde_json::json!({ "by": "oidc" }));
        let witnessed = index.witnessed(Witness::with_outcome(entry, "users"));
        assert_eq!(witnessed.end_provided_sessions(&logout(Some(bob), None)).await.unwrap(), ["bob"]);
        assert!(witnessed.end_provided_sessions(&logout(Some(bob), None)).await.unwrap().is_empty());
        let rows = index.audited(&AuditFilter::default(), 100).await.unwrap();
        assert_eq!(
            (rows.len(), &rows[0].detail["users"]),
            (1, &serde_json::json!(["bob"])),
            "what changed nothing has none"
        );
        assert!(!format!("{:?}", provided(None)).contains("a.b.c"));
    }

    #[tokio::test]
    async fn who_was_put_out_stays_out_and_roles_are_the_providers() {
        let folder = folder();
        let index = Sqlite::open(&options(&folder)).await.unwrap();
        let anna = user("1", "anna", Role::Viewer);
        let Provided::Admitted(row) = index.admit_provided(&anna, at(1)).await.unwrap() else { panic!() };
        assert!(index.change_user(row.id, Role::Admin, true, at(3)).await.is_err(), "the provider's word");
        let root = user("2", "root", Role::Admin);
        let Provided::Admitted(root) = index.admit_provided(&root, at(1)).await.unwrap() else { panic!() };
        index.change_user(row.id, Role::Viewer, false, at(3)).await.unwrap();
        assert_eq!(index.admit_provided(&anna, at(2)).await.unwrap(), Provided::PutOut);
        assert!(index.change_user(root.id, Role::Admin, false, at(3)).await.is_err(), "there would be no admin");
    }
}
