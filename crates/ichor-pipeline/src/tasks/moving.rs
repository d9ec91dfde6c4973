//! Input by C-MOVE: a configured peer is asked to send it here over DIMSE, into the stage that everything comes in by.

use ichor_core::{Uid, chain};
use ichor_dimse::scu::{MoveKeys, Moved, ScuError, StorageScu};
use ichor_store::{Store, StoreError, StudyKey};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::fetch::Fetched;
use super::offer::Input;
use super::{InputMover, TaskList};

/// Has an input sent here; how many instances came, and of how many the peer had something to say.
///
/// # Errors
/// The store's.
pub(super) async fn fetch(
    store: &Store,
    list: &TaskList,
    mover: &InputMover,
    (study, input): (&Uid, &Input),
    stop: &CancellationToken,
) -> Result<Result<(u64, u64), Fetched>, StoreError> {
    let (title, here) = (&mover.peer.called_ae, &mover.destination);
    let keys = MoveKeys { study, series: input.series.as_ref(), instances: &input.instances };
    let moved = match ask(list, mover, &keys, stop).await {
        Ok(moved) => moved,
        Err(words) => return Ok(Err(Fetched::NotYet(words))),
    };
    info!(list = %list.name, %title, %study, status = %moved.status, completed = moved.completed, failed = moved.failed,
        warning = moved.warning, "input of a task moved");
    let counts = match judge(title.as_str(), here.as_str(), &moved) {
        Ok(counts) => counts,
        Err(words) => return Ok(Err(Fetched::NotYet(words))),
    };
    // What was sent has been committed before it was answered: it is here now, or it went to somebody else.
    let held = match store.study(&StudyKey::Uid(study.clone())).await {
        Ok(detail) => u64::from(detail.summary.instances),
        Err(StoreError::NotFound { .. }) => 0,
        Err(error) => return Err(error),
    };
    if held < counts.0 {
        let words = format!(
            "{title} says that it has sent {} instances to {here}, and {held} are here: does it know {here} by another address?",
            counts.0
        );
        return Ok(Err(Fetched::NotYet(words)));
    }
    Ok(Ok(counts))
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

/// What the last response comes to: how many were sent, and how many of them with a warning.
fn judge(title: &str, here: &str, moved: &Moved) -> Result<(u64, u64), String> {
    let Moved { status, comment, completed, failed, warning, failed_instances } = moved;
    let said = comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
    let (sent, failed) = (u64::from(*completed) + u64::from(*warning), u64::from(*failed));
    match status.code() {
        0x0000 if failed == 0 && sent == 0 => Err(format!("{title} has nothing of its input")),
        0x0000 if failed == 0 => Ok((sent, u64::from(*warning))),
        0xA801 => Err(format!("{title} does not know {here} as a destination of C-MOVE (0xA801{said})")),
        0xFE00 => Err(format!("{title} has canceled the C-MOVE after {sent} instances, as asked or by itself")),
        0x0000 | 0xB000..=0xBFFF => {
            let named = failed_instances.first().map(|first| format!(", among them {first}")).unwrap_or_default();
            let code = status.code();
            Err(format!("{title} could not send {failed} of {} instances (0x{code:04X}{said}){named}", sent + failed))
        }
        _ => Err(format!(
            "{title} refuses the C-MOVE with {status}{said}; {sent} instances were sent, {failed} were not"
        )),
    }
}

#[cfg(test)]
mod tests {
    use ichor_dimse::status::StoreStatus;

    use super::*;

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
        assert_eq!(judged(0x0000, (7, 0, 2)), Ok((9, 2)));
        for (code, counts, words) in [
            (0x0000, (0, 0, 0), "has nothing"),
            (0x0000, (7, 1, 0), "could not send 1 of 8 instances (0x0000: words), among them 1.2.3"),
            (0xB000, (7, 2, 1), "could not send 2 of 10 instances (0xB000"),
            (0xA801, (0, 0, 0), "does not know ICHOR as a destination of C-MOVE (0xA801: words)"),
            (0xFE00, (3, 0, 0), "canceled the C-MOVE after 3 instances"),
            (0xA702, (0, 0, 0), "refuses the C-MOVE with 0xA702 out of resources: words"),
            (0xC000, (0, 4, 0), "refuses the C-MOVE with 0xC000"),
        ] {
            let said = judged(code, counts).unwrap_err();
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
