use ichor_store::StoreError;

use crate::support::{Site, Who};

#[tokio::test]
async fn the_machine_itself_lets_an_admin_back_in() {
    let site = Site::new().await;
    assert!(matches!(site.admin.link_for("anna").await, Err(StoreError::NotFound { .. })));
    let admin = site.first_admin().await;
    let me = site.get(&admin, "/api/me").await.json();
    let name = me["name"].as_str().unwrap().to_owned();
    let link = site.admin.link_for(&name).await.unwrap();
    assert_eq!(site.get(&admin, "/api/me").await.status, 200, "the link alone changes nothing");
    let code = link.split_once("code=").unwrap().1.to_owned();
    let back = site.choose_password(&code, "").await;
    assert_eq!(site.get(&admin, "/api/me").await.status, 401, "the sessions of before have ended");
    assert_eq!(site.get(&back, "/api/me").await.json()["name"], name);
    let trail = site.get(&back, "/api/audit").await.text;
    assert!(trail.contains("user-invited") && trail.contains("command line"), "{trail}");
    assert_eq!(site.get(&Who::default(), &format!("/welcome?code={code}")).await.status, 404, "it is good once");
}
