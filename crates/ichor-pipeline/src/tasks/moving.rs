//! Input by C-MOVE: a configured peer is asked to send it here over DIMSE, into the stage that everything comes in by.

use ichor_core::chain;
use ichor_dimse::scu::{MoveKeys, Moved, ScuError, StorageScu};
use ichor_store::{Store, StoreError, Task};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::fetch::Fetched;
use super::offer::Input;
use super::{InputMover, TaskList};

/// So many tries with the same failures show that what failed never comes.
const SAME_FAILURES: u32 = 3;

/// What came: how many instances, of how many of them the peer had something to say, and what is done without.
type Came = (u64, u64, Option<String>);

/// Has an input sent here: of what it names by instance, what is missing; else all of it.
///
/// # Errors
/// The store's.
pub(super) async fn fetch(
    store: &Store,
    list: &TaskList,
    mover: &InputMover,
    (task, input): (&Task, &Input),
    stop: &CancellationToken,
) -> Result<Result<Came, Fetched>, StoreError> {
    let study = &task.new.study_instance;
    let missing = store.missing_instances(study, &input.instances).await?;
    let keys = MoveKeys { study, series: input.series.as_ref(), instances: &missing };
    let moved = match ask(list, mover, &keys, stop).await {
        Ok(moved) => moved,
        Err(words) => return Ok(Err(Fetched::NotYet(words))),
    };
    let title = &mover.peer.called_ae;
    info!(list = %list.name, %title, %study, status = %moved.status, completed = moved.completed, failed = moved.failed,
        warning = moved.warning, "input of a task moved");
    let said = judge(title.as_str(), mover.destination.as_str(), &moved);
    Ok(settle(store, mover, (task, input), said).await?.map_err(Fetched::NotYet))
}

/// Holds what the peer says against what is here: what was sent has been committed before it was answered, so it is here now, or it
/// went to somebody else.
async fn settle(
    store: &Store,
    mover: &InputMover,
    (task, input): (&Task, &Input),
    said: Said,
) -> Result<Result<Came, String>, StoreError> {
    let (study, title, here) = (&task.new.study_instance, &mover.peer.called_ae, &mover.destination);
    let elsewhere = |sent: u64, held: u64| {
        Err(format!(
            "{title} says that it has sent {sent} instances to {here}, and {held} are here: does it know {here} by another address?"
        ))
    };
    if !input.instances.is_empty() {
        // What failed beside them is none of its input.
        let missing = store.missing_instances(study, &input.instances).await?.len() as u64;
        let held = (input.instances.len() as u64).saturating_sub(missing);
        return Ok(match said {
            Said::Sent((sent, warned)) | Said::Partly((sent, warned), _) if missing == 0 => Ok((sent, warned, None)),
            Said::NotSent(_) if missing == 0 => Ok((0, 0, None)),
            Said::Sent((sent, _)) => elsewhere(sent, held),
            Said::Partly(_, words) | Said::NotSent(words) => Err(words),
        });
    }
    let ((sent, warned), failures) = match said {
        Said::Sent(counts) => (counts, None),
        Said::Partly(counts, words) => (counts, Some(words)),
        Said::NotSent(words) => return Ok(Err(words)),
    };
    // Since the claim: what passes through another on its way may come when the peer has long answered.
    let since = task.claimed_at.unwrap_or(task.seen_at);
    let held = store.instances_come(study, input.series.as_ref(), since).await?;
    if held < sent {
        return Ok(elsewhere(sent, held));
    }
    Ok(match failures {
        Some(words) if sent == 0 || !are_the_same_again(task, &words) => Err(words),
        Some(words) => {
            let workitem = &task.new.workitem;
            warn!(%workitem, %study, words, "what a peer never sends is done without; the rest of the input is here");
            Ok((sent, warned, Some(words)))
        }
        None => Ok((sent, warned, None)),
    })
}

/// Whether the tries before failed in the same way.
fn are_the_same_again(task: &Task, words: &str) -> bool {
    task.failures + 1 >= SAME_FAILURES && task.last_words.as_deref() == Some(words)
}

async fn ask(
    list: &TaskList,
    mover: &InputMover,
    keys: &MoveKeys<'_>,
    stop: &CancellationToken,
) -> Result<Moved, String> {
    let (title, here) = (&mover.peer.called_ae, &mover.destination);
    let connected = StorageScu::connect_to_move(&mover.peer).await;
    let mut scu = connected.map_err(|error| format!("{title} cannot be asked for its input: {}", chain(&error)))?;
    // As for what is fetched by HTTP: nobody holds a claim for ever.
    let longest = list.give_up_after.max(mover.peer.response_timeout);
    // Some abort the association instead of saying that they do not know the destination.
    let broken = |error: ScuError| {
        format!("{title} broke the C-MOVE off: {}; does it know {here} as a destination?", chain(&error))
    };
    let moved = scu.move_to(keys, here, longest, stop.cancelled()).await.map_err(broken)?;
    if let Err(error) = scu.release().await {
        debug!(%error, "release after a retrieval");
    }
    Ok(moved)
}

/// What the last response comes to; counts are how many were sent, and how many of them with a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// Everything was sent.
    Sent((u64, u64)),
    /// Some were; what failed, in words.
    Partly((u64, u64), String),
    /// None of it counts; why.
    NotSent(String),
}

fn judge(title: &str, here: &str, moved: &Moved) -> Said {
    let Moved { status, comment, completed, failed, warning, failed_instances } = moved;
    let said = comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
    let (sent, failed) = (u64::from(*completed) + u64::from(*warning), u64::from(*failed));
    match status.code() {
        0x0000 if failed == 0 && sent == 0 => Said::NotSent(format!("{title} has nothing of its input")),
        // 0xB000 is that of warnings too (PS3.4 table C.4-2).
        0x0000 | 0xB000..=0xBFFF if failed == 0 && sent > 0 => Said::Sent((sent, u64::from(*warning))),
        0xA801 => Said::NotSent(format!("{title} does not know {here} as a destination of C-MOVE (0xA801{said})")),
        0xFE00 => {
            Said::NotSent(format!("{title} has canceled the C-MOVE after {sent} instances, as asked or by itself"))
        }
        code @ (0x0000 | 0xB000..=0xBFFF) => {
            let named = failed_instances.first().map(|first| format!(", among them {first}")).unwrap_or_default();
            let words =
                format!("{title} could not send {failed} of {} instances (0x{code:04X}{said}){named}", sent + failed);
            Said::Partly((sent, u64::from(*warning)), words)
        }
        _ => Said::NotSent(format!(
            "{title} refuses the C-MOVE with {status}{said}; {sent} instances were sent, {failed} were not"
        )),
    }
}

#[cfg(test)]
mod tests {
    use ichor_core::{AeTitle, Uid};
    use ichor_dimse::scu::ScuOptions;
    use ichor_dimse::status::StoreStatus;
    use ichor_store::{NewInstance, NewTask, SeriesAttributes, StoreOptions, StudyAttributes, Timestamp};

    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
    }

    /// Records an instance of study 1.9.
    async fn arrives(store: &Store, series: &str, instance: &str, now: Timestamp) {
        let mut blob = store.blobs().begin_with_header(b"header").await.unwrap();
        blob.write(instance.as_bytes()).await.unwrap();
        let instance = NewInstance {
            sop_instance: uid(instance),
            sop_class: uid("1.2.840.10008.5.1.4.1.1.2"),
            study: StudyAttributes {
                study_instance: uid("1.9"),
                patient_id: None,
                patient_name: None,
                accession_number: None,
                study_date: None,
                description: None,
            },
            series: SeriesAttributes { series_instance: uid(series), modality: None, description: None, number: None },
            transfer_syntax: uid("1.2.840.10008.1.2.1"),
            association: None,
            source_ae: None,
            arrived: store.blobs().finish_in_place(blob).await.unwrap(),
            quiet_period_ms: 1_000,
            own: false,
            max_study_instances: 100,
        };
        store.record_instance(instance, now).await.unwrap();
    }

    /// What the peer says is held against the series that was asked for, since it was asked; what is named, against its names.
    #[tokio::test]
    async fn what_is_here_decides_and_not_what_else_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
        let store = Store::open(&options).await.unwrap();
        store.recover(at(0)).await.unwrap();
        let title = |text: &str| AeTitle::parse(text).unwrap();
        let peer = ScuOptions::new(title("ICHOR"), title("PACS"), "127.0.0.1:9");
        let mover = InputMover { peer, destination: title("ICHOR") };
        for number in 0..3 {
            arrives(&store, "1.9.1", &format!("1.9.1.{number}"), at(10)).await;
        }
        let new = NewTask {
            list: "TASKS".to_owned(),
            workitem: uid("2.25.1"),
            transaction: uid("2.25.2"),
            study_instance: uid("1.9"),
            urgent: false,
            request: serde_json::Value::Null,
        };
        let mut task = store.begin_task(&new, at(20)).await.unwrap().unwrap();
        let of = |series: Option<&str>, instances: &[&str]| Input {
            series: series.map(uid),
            instances: instances.iter().map(|text| uid(text)).collect(),
            urls: Vec::new(),
            titles: Vec::new(),
        };
        let sent = Said::Sent((3, 0));
        let partly = Said::Partly((3, 0), "could not send 1 of 4".to_owned());
        for input in [of(Some("1.9.2"), &[]), of(None, &[])] {
            let words = settle(&store, &mover, (&task, &input), sent.clone()).await.unwrap().unwrap_err();
            assert!(words.contains("3 instances to ICHOR, and 0 are here"), "a sibling is here: {words}");
        }
        for number in 0..3 {
            arrives(&store, "1.9.2", &format!("1.9.2.{number}"), at(30)).await;
        }
        for input in [of(Some("1.9.2"), &[]), of(None, &[])] {
            assert_eq!(settle(&store, &mover, (&task, &input), sent.clone()).await.unwrap(), Ok((3, 0, None)));
        }

        // What fails is asked for again; what always fails is done without, if the rest is here.
        let whole = of(Some("1.9.2"), &[]);
        let failed = settle(&store, &mover, (&task, &whole), partly.clone()).await.unwrap().unwrap_err();
        (task.failures, task.last_words) = (SAME_FAILURES - 1, Some("another failure".to_owned()));
        assert_eq!(settle(&store, &mover, (&task, &whole), partly.clone()).await.unwrap(), Err(failed.clone()));
        task.last_words = Some(failed.clone());
        let without = Ok((3, 0, Some(failed.clone())));
        assert_eq!(settle(&store, &mover, (&task, &whole), partly.clone()).await.unwrap(), without);
        let nothing = Said::Partly((0, 0), failed.clone());
        assert_eq!(settle(&store, &mover, (&task, &whole), nothing).await.unwrap(), Err(failed.clone()));
        assert!(settle(&store, &mover, (&task, &of(Some("1.9.3"), &[])), partly.clone()).await.unwrap().is_err());

        // Of what is named nothing else counts.
        (task.failures, task.last_words) = (0, None);
        let named = of(Some("1.9.1"), &["1.9.1.0", "1.9.1.1"]);
        assert_eq!(settle(&store, &mover, (&task, &named), partly.clone()).await.unwrap(), Ok((3, 0, None)));
        let missing = of(Some("1.9.1"), &["1.9.1.0", "1.9.1.7"]);
        assert_eq!(settle(&store, &mover, (&task, &missing), partly).await.unwrap(), Err(failed));
        let words = settle(&store, &mover, (&task, &missing), sent).await.unwrap().unwrap_err();
        assert!(words.contains("and 1 are here"), "{words}");
    }

    #[test]
    fn last_responses_are_told_apart() {
        let moved = |code: u16, (completed, failed, warning): (u16, u16, u16)| Moved {
            status: StoreStatus::from_code(code),
            comment: Some("words".to_owned()),
            completed,
            failed,
            warning,
            failed_instances: if failed > 0 { vec![Uid::parse("1.2.3").unwrap()] } else { Vec::new() },
        };
        let judged = |code, counts| judge("PACS", "ICHOR", &moved(code, counts));
        assert_eq!(judged(0x0000, (7, 0, 2)), Said::Sent((9, 2)));
        assert_eq!(judged(0xB000, (7, 0, 2)), Said::Sent((9, 2)), "with warnings alone");
        for (code, counts, words) in [
            (0x0000, (0, 0, 0), "has nothing"),
            (0x0000, (7, 1, 0), "could not send 1 of 8 instances (0x0000: words), among them 1.2.3"),
            (0xB000, (7, 2, 1), "could not send 2 of 10 instances (0xB000"),
            (0xA801, (0, 0, 0), "does not know ICHOR as a destination of C-MOVE (0xA801: words)"),
            (0xFE00, (3, 0, 0), "canceled the C-MOVE after 3 instances"),
            (0xA702, (0, 0, 0), "refuses the C-MOVE with 0xA702 out of resources: words"),
            (0xC000, (0, 4, 0), "refuses the C-MOVE with 0xC000"),
        ] {
            let (is_partly, said) = match judged(code, counts) {
                Said::Partly(sent, said) => {
                    assert_eq!(sent.0, u64::from(counts.0) + u64::from(counts.2));
                    (true, said)
                }
                Said::NotSent(said) => (false, said),
                Said::Sent(counts) => panic!("{counts:?} where {words}"),
            };
            assert!(said.contains(words) && is_partly == words.contains("could not send"), "{words}: {said}");
        }
    }
}
