//! Maps of slices: what is answered where there is one, and where there is none.

use ichor_core::Uid;

use crate::support::Site;

fn of(study: &Uid, name: &str, slice: u32, what: &str) -> String {
    format!("/api/studies/{study}/slices/{}/{what}", Uid::derive(["slice", name, &slice.to_string()]))
}

#[tokio::test]
async fn a_map_is_had_as_it_is_and_over_the_slice() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let viewer = site.user(&admin, "vera", "viewer").await;
    let study = site.study("a", "X^Y").await;
    assert!(site.get(&admin, &of(&study, "a", 1, "map")).await.refusal(422).contains("has no finding"));
    site.analyse(Some(true)).await;
    let map = site.get(&viewer, &of(&study, "a", 1, "map")).await;
    assert_eq!((map.text.as_str(), &map.headers["content-type"]), ("first", &"image/png".parse().unwrap()));
    assert_eq!(map.headers["cache-control"], "no-store");
    assert_eq!(site.get(&viewer, &of(&study, "a", 2, "map")).await.text, "second");
    let over = site.get(&viewer, &of(&study, "a", 2, "picture?overlay=map&window=blood")).await;
    assert_eq!(over.text, "(60.0, 40.0) map 5 6");
    for (word, drawn) in [("true", "outline"), ("mask", "outline"), ("false", "nothing")] {
        let picture = site.get(&viewer, &of(&study, "a", 2, &format!("picture?overlay={word}"))).await;
        assert_eq!(picture.text, format!("(40.0, 80.0) {drawn}"));
    }
    assert!(site.get(&viewer, &of(&study, "a", 2, "picture?overlay=heat")).await.refusal(400).contains("heat"));
    // Once an hour and user, whatever the picture.
    let audit = site.get(&admin, "/api/audit").await.json();
    let entries = audit["items"].as_array().or(audit.as_array()).unwrap().iter();
    assert_eq!(entries.filter(|entry| entry["action"] == "slices-viewed").count(), 1, "{audit}");

    let view = site.get(&viewer, &format!("/api/studies/{study}")).await.json();
    let has: Vec<bool> = view["slices"].as_array().unwrap().iter().map(|s| s["has_map"].as_bool().unwrap()).collect();
    assert_eq!(has, [false, true, true, false]);
    let page = site.get(&viewer, &format!("/studies/{study}")).await.text;
    assert!(page.contains("data-overlay=\"map\"") && page.contains("not a probability of blood"), "{page}");
    assert_eq!(page.matches("data-map=\"true\"").count(), 2);
}

#[tokio::test]
async fn where_there_is_none_it_is_said_why() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X^Y").await;
    site.analyse(Some(true)).await;
    for what in ["map", "picture?overlay=map"] {
        assert!(site.get(&admin, &of(&study, "a", 0, what)).await.refusal(422).contains("is not positive"), "{what}");
    }
    assert!(site.get(&admin, &of(&study, "a", 7, "map")).await.refusal(404).contains("none that was analysed"));
    assert!(site.get(&admin, &of(&study, "a", 1, "map?frame=3")).await.refusal(404).contains("frame 3"));
    assert!(site.get(&admin, &of(&study, "a", 1, "map?frame=x")).await.refusal(400).contains("frame"));
    assert_eq!(site.get(&admin, &of(&Uid::derive(["none"]), "a", 1, "map")).await.status, 404);
    let negative = site.study("b", "X^Y").await;
    site.analyse(Some(false)).await;
    assert!(site.get(&admin, &of(&negative, "b", 1, "map")).await.refusal(422).contains("not positive"));
    let page = site.get(&admin, &format!("/studies/{negative}")).await.text;
    assert!(!page.contains("data-overlay=\"map\""), "nothing to switch to");

    site.sql("UPDATE attribution_map SET removed_at = 5").await;
    assert!(site.get(&admin, &of(&study, "a", 1, "map")).await.refusal(410).contains("no longer kept"));
    site.sql("DELETE FROM attribution_map").await;
    let never = site.get(&admin, &of(&study, "a", 1, "map")).await.refusal(404);
    assert!(never.contains("analysis.keep_maps"), "{never}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_map() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X^Y").await;
    site.analyse(Some(true)).await;
    site.sql("UPDATE slice_score SET map_bytes = 900 WHERE map_offset = 5").await;
    let refusal = site.get(&admin, &of(&study, "a", 2, "map")).await.refusal(500);
    assert!(refusal.contains("cannot be read") && !refusal.contains("blobs"), "{refusal}");
}
