//! Backups of a store in use, and the way back.

use std::path::Path;

use ichor_core::{DeliveryStatus, StudyStatus};
use ichor_store::{
    Copied, FileKind, Forwarding, HeaderLength, MapPlace, NewSession, Role, SliceMap, Store, StoreError, StoreOptions,
    examine, in_backup, restore, verify,
};
use tempfile::TempDir;

use crate::support::*;

/// What stands before the data set in the suite's files.
const HEADER: HeaderLength = |first| first.starts_with(b"header").then_some(6);

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn restored_in(folder: &Path) -> StoreOptions {
    StoreOptions::new(&folder.join("new/ichor.db"), &folder.join("new/blobs"))
}

/// One study analysed and on its way to the PACS, one that is being received.
async fn busy(backend: &SqliteFolder) -> Store {
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    closed_study(&store, "done", 3, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    store.claim_delivery("pacs", at(21)).await.unwrap().unwrap();
    Slice::of("receiving", 1).record(&store, at(30)).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_store_again() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let to = folder.path().join("backup");
    // What an interrupted backup left does no harm.
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("ichor.db.partial"), "half").unwrap();
    let first = store.back_up(&to, HEADER).await.unwrap();
    assert_eq!((first.blobs, first.copied, first.missing.len()), (5, 5, 0), "four slices and an object");
    assert_eq!(names(&to), ["blobs", "ichor.db"]);
    // What comes later belongs to the next one, which copies nothing twice.
    Slice::of("receiving", 2).record(&store, at(31)).await;
    let options = restored_in(folder.path());
    assert_eq!(restore(&to, &options, HEADER, None).await.unwrap(), Copied { copied: 5, ..first.clone() });
    let second = store.back_up(&to, HEADER).await.unwrap();
    assert_eq!((second.blobs, second.copied), (6, 1));
    assert!(second.bytes > 0 && second.bytes < first.bytes);

    let again = Store::open(&options).await.unwrap();
    let recovery = again.recover(at(40)).await.unwrap();
    assert_eq!((recovery.requeued_deliveries, recovery.missing_blobs.len(), recovery.removed_orphans), (1, 0, 0));
    assert_eq!(detail(&again, "receiving").await.summary.status, StudyStatus::Receiving);
    assert_eq!(detail(&again, "receiving").await.summary.instances, 1);
    assert_eq!(detail(&again, "done").await.deliveries[0].status, DeliveryStatus::Queued);
    let claim = again.claim_delivery("pacs", at(41)).await.unwrap().unwrap();
    let original = detail(&store, "done").await.objects[0].path.clone();
    assert_eq!(std::fs::read(&claim.object.path).unwrap(), std::fs::read(original).unwrap());
    assert!(claim.object.path.starts_with(&options.blobs));
    // And takes what comes.
    Slice::of("receiving", 2).record(&again, at(42)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribution_maps_are_backed_up_and_verified() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    closed_study(&store, "a", 2, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    let mut outcome = outcome(&store, &claim, true, &[]).await;
    outcome.slices[1].map = Some(MapPlace { offset: 0, bytes: 4 });
    outcome.maps = Some(stage_made(&store, b"maps").await);
    store.complete_analysis(claim, outcome, at(20)).await.unwrap();
    let to = folder.path().join("backup");
    let copied = store.back_up(&to, HEADER).await.unwrap();
    assert_eq!((copied.blobs, copied.copied, copied.missing.len()), (4, 4, 0), "two slices, an object and the maps");
    let options = restored_in(folder.path());
    restore(&to, &options, HEADER, None).await.unwrap();
    let again = Store::open(&options).await.unwrap();
    let (study, slice) = (study_uid("a"), slice_uid("a", 1));
    let SliceMap::Kept(map) = again.slice_map(&study, &slice, None).await.unwrap() else { panic!("no map") };
    assert_eq!(std::fs::read(&map.path).unwrap(), b"maps");
    drop(again);
    std::fs::write(&map.path, b"mops").unwrap();
    let verified = verify(&options, HEADER, None).await.unwrap();
    assert_eq!((verified.blobs, verified.unsound.len()), (4, 1));
    assert_eq!((verified.unsound[0].kind.as_str(), &verified.unsound[0].path), ("attribution_map", &map.path));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_a_receiver_is_of_one_moment() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 2..200 {
                Slice::of("receiving", number).record(&store, at(31)).await;
            }
        })
    };
    let mut taken = 0;
    while !writer.is_finished() {
        let to = folder.path().join(format!("backup-{taken}"));
        let copied = store.back_up(&to, HEADER).await.unwrap();
        assert!(copied.missing.is_empty() && copied.copied == copied.blobs, "{copied:?}");
        let place = folder.path().join(format!("place-{taken}"));
        let options = StoreOptions::new(&place.join("ichor.db"), &place.join("blobs"));
        restore(&to, &options, HEADER, None).await.unwrap();
        let again = Store::open(&options).await.unwrap();
        assert_eq!(again.recover(at(50)).await.unwrap().missing_blobs, []);
        assert_eq!(detail(&again, "receiving").await.summary.instances + 4, u32::try_from(copied.blobs).unwrap());
        taken += 1;
    }
    writer.await.unwrap();
    assert!(taken > 0);
}

#[tokio::test]
async fn what_is_no_backup_is_refused_and_nothing_is_overwritten() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let to = folder.path().join("backup");
    let error = restore(&to, &restored_in(folder.path()), HEADER, None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }) && error.to_string().contains("backup/ichor.db"), "{error}");
    store.back_up(&to, HEADER).await.unwrap();
    let before = std::fs::read(&backend.options().database).unwrap();
    let error = restore(&to, &backend.options(), HEADER, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Occupied { .. }), "{error}");
    assert_eq!(std::fs::read(&backend.options().database).unwrap(), before);

    // A log without its database is somebody's too: it would be taken for that of the restored one.
    let log = restored_in(folder.path()).database.with_file_name("ichor.db-wal");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "left by another").unwrap();
    let error = restore(&to, &restored_in(folder.path()), HEADER, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Occupied { .. }) && error.to_string().contains("ichor.db-wal"), "{error}");
    std::fs::remove_file(&log).unwrap();

    let whole = std::fs::read(to.join("ichor.db")).unwrap();
    let mut damaged = whole.clone();
    damaged[8192..16384].fill(0xa5);
    for (content, kind) in [(damaged, "damaged"), (b"no database at all".to_vec(), "foreign")] {
        std::fs::write(to.join("ichor.db"), content).unwrap();
        let error = restore(&to, &restored_in(folder.path()), HEADER, None).await.unwrap_err();
        let told = match kind {
            "damaged" => matches!(error, StoreError::Corrupt { .. } | StoreError::Database { .. }),
            _ => matches!(error, StoreError::ForeignDatabase { .. }),
        };
        assert!(told, "{kind}: {error}");
        assert!(!restored_in(folder.path()).database.exists());
    }
    std::fs::write(to.join("ichor.db"), whole).unwrap();

    // A blob that is gone, and one that was cut short, are named; all the others come along.
    let blobs = files(&to.join("blobs"));
    std::fs::remove_file(&blobs[0]).unwrap();
    std::fs::write(&blobs[1], "cut").unwrap();
    let copied = restore(&to, &restored_in(folder.path()), HEADER, None).await.unwrap();
    assert_eq!((copied.blobs, copied.copied, copied.missing.len()), (5, 3, 2), "{copied:?}");
    assert!(copied.missing.iter().any(|one| one.reason.starts_with("has 3 bytes, the database says ")), "{copied:?}");
    // The next backup mends them.
    assert_eq!(store.back_up(&to, HEADER).await.unwrap().copied, 2);
}

#[tokio::test]
async fn a_backup_is_not_put_into_the_store() {
    let backend = SqliteFolder::new();
    let store = busy(&backend).await;
    let database = backend.options().database;
    let (folder, blobs) = (database.parent().unwrap().to_owned(), backend.blobs());
    for own in [folder.clone(), folder.join("../db"), blobs.clone(), blobs.join("deep/in/it"), blobs.join("..")] {
        let error = store.back_up(&own, HEADER).await.unwrap_err();
        assert!(matches!(error, StoreError::OwnFolder { .. }), "{}: {error}", own.display());
    }
    assert!(!folder.join("ichor.db.partial").exists());
    assert_eq!(detail(&store, "receiving").await.summary.instances, 1);
    // A folder of its own beside the database is one.
    assert_eq!(store.back_up(&folder.join("backup"), HEADER).await.unwrap().copied, 5);
}

#[tokio::test]
async fn copies_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;

    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let to = folder.path().join("backup");
    // Made by somebody who did not think of it.
    std::fs::create_dir(&to).unwrap();
    store.back_up(&to, HEADER).await.unwrap();
    let options = restored_in(folder.path());
    restore(&to, &options, HEADER, None).await.unwrap();
    drop(Store::open(&options).await.unwrap());
    for file in files(&to).into_iter().chain(files(&folder.path().join("new"))) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "{} has mode {mode:o}", file.display());
    }
}

#[tokio::test]
async fn a_database_is_looked_at_without_touching_it() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let nowhere = folder.path().join("none.db");
    assert_eq!(examine(&nowhere).await.unwrap().schema, None);
    assert!(!nowhere.exists());
    drop(busy(&backend).await);
    let found = examine(&backend.options().database).await.unwrap();
    assert_eq!(found.schema, Some(found.newest));
    let foreign = folder.path().join("notes.txt");
    std::fs::write(&foreign, "nothing of ours").unwrap();
    assert!(matches!(examine(&foreign).await, Err(StoreError::ForeignDatabase { .. })));
    assert_eq!(std::fs::read(&foreign).unwrap(), b"nothing of ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_kept_is_not_backed_up() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = backend.open().await;
    closed_study(&store, "a", 3, 0).await;
    analyse(&store, true, &[], at(20)).await;
    for study in store.undecided_studies(10).await.unwrap() {
        store.forward(&study, &Forwarding::default(), at(30)).await.unwrap();
    }
    let candidates = store.retention_candidates(FileKind::Received, at(100), &[], None, 10).await.unwrap();
    assert_eq!(store.given_up_instances(&study_uid("a"), None).await.unwrap(), 0);
    store.remove_files(&candidates[0], FileKind::Received, "by age", &[], at(40)).await.unwrap();
    assert_eq!(store.given_up_instances(&study_uid("a"), None).await.unwrap(), 3);
    assert_eq!(store.given_up_instances(&study_uid("a"), Some(&uid(&["series", "a"]))).await.unwrap(), 3);
    assert_eq!(store.given_up_instances(&study_uid("a"), Some(&uid(&["seg series"]))).await.unwrap(), 0);
    let to = folder.path().join("backup");
    let copied = store.back_up(&to, HEADER).await.unwrap();
    assert_eq!((copied.blobs, copied.copied, copied.missing.len()), (1, 1, 0), "the result alone");
    let options = restored_in(folder.path());
    restore(&to, &options, HEADER, None).await.unwrap();
    let again = Store::open(&options).await.unwrap();
    let recovery = again.recover(at(50)).await.unwrap();
    assert!(recovery.missing_blobs.is_empty(), "{recovery:?}");
    assert_eq!(again.remove_doomed(10).await.unwrap(), Some(3), "they never came here: there is nothing to remove");
    assert_eq!(again.retention_figures().await.unwrap().doomed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_logged_in_is_not_logged_in_again() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = backend.open().await;
    let user = store.add_user("anna", Role::Admin, at(0)).await.unwrap();
    let (cookie, token) = ([7; 32], [8; 32]);
    let session = NewSession { digest: cookie, user, csrf: "x".to_owned(), expires_at: at(1_000), provided: None };
    store.begin_session(&session, at(1)).await.unwrap();
    store.add_token(token, user, "script", at(1), None).await.unwrap();
    let to = folder.path().join("backup");
    store.back_up(&to, HEADER).await.unwrap();
    let options = restored_in(folder.path());
    let restored = restore(&to, &options, HEADER, None).await.unwrap();
    assert_eq!((restored.ended_sessions, restored.valid_tokens), (1, 1));
    let again = Store::open(&options).await.unwrap();
    assert!(again.session(cookie, at(2)).await.unwrap().is_none());
    assert_eq!(again.tokens(Some(user)).await.unwrap().len(), 1);
    assert!(again.token(token, at(2)).await.unwrap().is_some());
    again.close().await;
    // Or those are revoked, too.
    let without = StoreOptions::new(&folder.path().join("second/ichor.db"), &folder.path().join("second/blobs"));
    let restored = restore(&to, &without, HEADER, Some(at(3))).await.unwrap();
    assert_eq!((restored.ended_sessions, restored.valid_tokens, restored.revoked_tokens), (1, 0, 1));
    let again = Store::open(&without).await.unwrap();
    assert!(again.token(token, at(4)).await.unwrap().is_none());
    assert_eq!(again.tokens(Some(user)).await.unwrap()[0].revoked_at, Some(at(3)));
    assert_eq!(names(options.database.parent().unwrap()).iter().filter(|name| name.contains("restoring")).count(), 0);
    // While somebody works at the place, nothing is restored there.
    let other = StoreOptions::new(&folder.path().join("third/ichor.db"), &folder.path().join("third/blobs"));
    std::fs::create_dir(folder.path().join("third")).unwrap();
    let lock = std::fs::File::create(folder.path().join("third/ichor.db-owner")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(restore(&to, &other, HEADER, None).await, Err(StoreError::InUse { .. })));
    assert!(!other.database.exists());
}

/// Flips one bit of a file, which keeps its length.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_named_and_not_copied() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let to = folder.path().join("backup");
    let file = detail(&store, "done").await.objects[0].path.clone();
    damage(&file);
    let copied = store.back_up(&to, HEADER).await.unwrap();
    assert_eq!((copied.blobs, copied.copied, copied.missing.len()), (5, 4, 1), "{copied:?}");
    let unsound = &copied.missing[0];
    assert_eq!((unsound.kind.as_str(), &unsound.study_instance), ("object", &study_uid("done")));
    assert_eq!(
        (&unsound.path, unsound.sop_instance.clone()),
        (&file, detail(&store, "done").await.objects[0].sop_instance.clone())
    );
    assert!(unsound.reason.starts_with("is damaged"), "{unsound:?}");
    assert_eq!(files(&to.join("blobs")).len(), 4, "neither the damaged one nor a part of it");
    // Once it is whole again it comes along.
    damage(&file);
    assert_eq!(store.back_up(&to, HEADER).await.unwrap().copied, 1);
    // A good copy is not replaced by what the medium has made of the original since.
    damage(&file);
    assert_eq!(store.back_up(&to, HEADER).await.unwrap().copied, 0);

    // On the way back too: of the bytes in the backup.
    let instance =
        files(&to.join("blobs")).into_iter().find(|file| std::fs::read(file).unwrap().starts_with(b"header"));
    damage(&instance.unwrap());
    let restored = restore(&to, &restored_in(folder.path()), HEADER, None).await.unwrap();
    assert_eq!((restored.copied, restored.missing.len()), (4, 1), "{restored:?}");
    assert!(restored.missing[0].reason.starts_with("is damaged"), "{restored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_at_its_place_is_restored_if_it_is_damaged() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let to = folder.path().join("backup");
    store.back_up(&to, HEADER).await.unwrap();
    // The database is lost, the files are still there; of one the medium has forgotten something.
    let options = restored_in(folder.path());
    restore(&to, &options, HEADER, None).await.unwrap();
    std::fs::remove_file(&options.database).unwrap();
    let object = detail(&store, "done").await.objects[0].path.clone();
    let kept = options.blobs.join(object.strip_prefix(backend.blobs()).unwrap());
    damage(&kept);
    let restored = restore(&to, &options, HEADER, None).await.unwrap();
    assert_eq!((restored.copied, restored.missing.len()), (1, 0), "{restored:?}");
    assert_eq!(std::fs::read(&kept).unwrap(), std::fs::read(&object).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_everything_finds_what_a_medium_forgot() {
    let (backend, folder) = (SqliteFolder::new(), TempDir::new().unwrap());
    let store = busy(&backend).await;
    let options = backend.options();
    let sound = verify(&options, HEADER, None).await.unwrap();
    assert_eq!((sound.blobs, sound.unsound.len()), (5, 0), "{sound:?}");
    assert!(sound.bytes > 0);
    let kept = files(&backend.blobs());
    damage(&kept[0]);
    std::fs::remove_file(&kept[1]).unwrap();
    std::fs::write(&kept[2], b"cut").unwrap();
    let found = verify(&options, HEADER, Some(1 << 20)).await.unwrap();
    assert_eq!((found.blobs, found.unsound.len()), (5, 3), "{found:?}");
    for (file, words) in [(&kept[0], "is damaged"), (&kept[1], "No such file"), (&kept[2], "has 3 bytes")] {
        let unsound = found.unsound.iter().find(|one| one.path == **file).unwrap();
        assert!(unsound.reason.starts_with(words), "{unsound:?}");
    }
    // A rate is kept: what is kept has more than this.
    let begun = std::time::Instant::now();
    let bytes = verify(&options, HEADER, Some(sound.bytes)).await.unwrap().bytes;
    let least = bytes as f64 / sound.bytes as f64;
    assert!(begun.elapsed().as_secs_f64() >= least, "{:?} for {bytes} bytes", begun.elapsed());

    // A backup is read like a store.
    let to = folder.path().join("backup");
    store.back_up(&to, HEADER).await.unwrap();
    let of_backup = verify(&in_backup(&to), HEADER, None).await.unwrap();
    assert_eq!((of_backup.blobs, of_backup.unsound.len()), (5, 3), "what was damaged is not in it");
    let error = verify(&in_backup(folder.path()), HEADER, None).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}
