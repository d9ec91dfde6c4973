use std::time::Duration;

use ichor_core::Reason;
use ichor_store::Timestamp;

use crate::support::Site;

#[tokio::test]
async fn of_two_operators_at_once_one_wins() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let (one, two) = (site.user(&admin, "one", "operator").await, site.user(&admin, "two", "operator").await);
    let study = site.study("a", "X").await;
    site.analyse(Some(true)).await;
    let path = format!("/api/studies/{study}/retry");
    let (first, second) = tokio::join!(site.post(&one, &path, ""), site.post(&two, &path, ""));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let loser = if first.status == 409 { first } else { second };
    assert!(loser.refusal(409).contains("queued already"));
}

#[tokio::test]
async fn deliveries_are_released_and_sent_again() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    site.study("a", "X").await;
    site.analyse(Some(true)).await;
    let later = Timestamp::from_millis(1_900_000_000_000);
    let claim = site.store.claim_delivery("pacs", later).await.unwrap().unwrap();
    let id = claim.id;
    let act = async |what: &str| site.post(&admin, &format!("/api/deliveries/{id}/{what}"), "").await;
    assert!(act("retry").await.refusal(409).contains("sending"));
    let reason = || Reason::new("refused", "no");
    let next = later.after(Duration::from_secs(600));
    site.store.delivery_failed(claim, reason(), Some(next), later).await.unwrap();
    assert_eq!(act("release").await.status, 200);
    assert!(act("release").await.refusal(409).contains("due already"), "the other operator is told");
    let claim = site.store.claim_delivery("pacs", later).await.unwrap().unwrap();
    site.store.delivery_failed(claim, reason(), None, later).await.unwrap();
    assert!(act("release").await.refusal(409).contains("dead"));
    let (one, two) = tokio::join!(act("retry"), act("retry"));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(site.post(&admin, "/api/deliveries/999/retry", "").await.status, 404);
    assert!(site.post(&admin, "/api/messages/999/retry", "").await.refusal(409).contains("999"));
    assert_eq!(site.post(&admin, "/api/messages/999/release", "").await.status, 404);
}

#[tokio::test]
async fn an_analysis_that_waits_is_released() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X").await;
    let soon = Timestamp::from_millis(1_900_000_000_000);
    let claim = site.store.claim_analysis("w", soon).await.unwrap().unwrap();
    let far = soon.after(Duration::from_secs(3_600));
    site.store.fail_analysis(claim, Reason::new("x", "y"), Some(far), soon).await.unwrap();
    assert!(site.store.claim_analysis("w", soon).await.unwrap().is_none(), "it waits");
    let path = format!("/api/studies/{study}/release");
    assert_eq!(site.post(&admin, &path, "").await.status, 200);
    assert!(site.post(&admin, &path, "").await.refusal(409).contains("due already"));
    assert!(site.store.claim_analysis("w", soon).await.unwrap().is_some());
    assert_eq!(site.post(&admin, "/api/studies/1.2.3/release", "").await.status, 404);
}
