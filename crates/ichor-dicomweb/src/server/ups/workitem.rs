//! What may become of a workitem: creation, updates, states and cancellation (PS3.4 CC.2.1, CC.2.2, CC.2.5, CC.2.6), as
//! functions from one workitem to the next. Nothing here waits or stores.

use ichor_core::Uid;
use time::OffsetDateTime;
use time::macros::format_description;

use super::attributes::{
    DataSet, LABEL, MODIFIED, PERFORMED, PRIORITY, PROGRESS, READINESS, SOP_CLASS, SOP_INSTANCE, START, STATE,
    TRANSACTION, WORKITEM_CODE, WORKLIST_LABEL, attribute, has_value, items, sequence, text, uid,
};
use super::fault::{Fault, INCONSISTENT, TRANSACTION_INCORRECT, TRANSACTION_MISSING};
use super::report;

/// UPS Push SOP Class, which every workitem has.
const UPS_PUSH: &str = "1.2.840.10008.5.1.4.34.6.1";

/// Procedure Step Cancellation DateTime.
const CANCELED_AT: &str = "00404052";

/// Procedure Step State (0074,1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpsState {
    /// Nobody has begun.
    Scheduled,
    /// Somebody has claimed it.
    InProgress,
    /// Done.
    Completed,
    /// Given up.
    Canceled,
}

impl UpsState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Scheduled, Self::InProgress, Self::Completed, Self::Canceled];

    /// The defined term.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::InProgress => "IN PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Canceled => "CANCELED",
        }
    }

    /// Reads a defined term.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Canceled)
    }
}

/// A unified procedure step.
#[derive(Clone, Debug, PartialEq)]
pub struct Workitem {
    /// SOP Instance UID.
    pub uid: Uid,
    /// Where it stands.
    pub state: UpsState,
    /// Transaction UID of whoever has claimed it. It is a secret of theirs: no answer holds it.
    pub transaction: Option<Uid>,
    /// How often it was changed; what is stored under another one is somebody else's.
    pub revision: i64,
    /// Everything else.
    pub attributes: DataSet,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// It is as was asked already; a warning says so.
    Same(&'static str),
    /// Another workitem, and what subscribers hear.
    Changed(Workitem, Vec<DataSet>),
}

impl Workitem {
    /// Scheduled Procedure Step Priority: 0 high, 1 medium, 2 low.
    #[must_use]
    pub fn priority(&self) -> u8 {
        match text(&self.attributes, PRIORITY) {
            Some("HIGH") => 0,
            Some("LOW") => 2,
            _ => 1,
        }
    }

    /// Scheduled Procedure Step Start DateTime.
    #[must_use]
    pub fn starts(&self) -> &str {
        text(&self.attributes, START).unwrap_or_default()
    }

    fn set_state(&mut self, state: UpsState) {
        self.state = state;
        self.attributes.insert(STATE.to_owned(), attribute("CS", state.as_str()));
    }

    fn touch(&mut self, now: OffsetDateTime) {
        self.attributes.insert(MODIFIED.to_owned(), attribute("DT", date_time(now)));
    }
}

/// DT (PS3.5 6.2).
#[must_use]
pub fn date_time(at: OffsetDateTime) -> String {
    at.format(format_description!("[year][month][day][hour][minute][second].[subsecond digits:6]+0000"))
        .unwrap_or_default()
}

/// A workitem to be done (N-CREATE, table CC.2.5-3).
///
/// # Errors
/// [`Fault`] with the attribute that is missing or may not be there.
pub fn create(uid_asked: Option<&Uid>, mut set: DataSet, now: OffsetDateTime) -> Result<Workitem, Fault> {
    let named = uid(&set, SOP_INSTANCE).map_err(Fault::bad_request)?;
    let name = match (uid_asked.cloned(), named) {
        (Some(asked), Some(named)) if asked != named => {
            return Err(Fault::bad_request("the workitem in the URL is not the one in the body"));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => Uid::derive(["workitem", &date_time(now), &serde_json::Value::Object(set.clone()).to_string()]),
    };
    if text(&set, STATE).and_then(UpsState::parse) != Some(UpsState::Scheduled) {
        return Err(Fault::bad_request("a workitem is created SCHEDULED (0074,1000)"));
    }
    if text(&set, SOP_CLASS).is_some_and(|class| class != UPS_PUSH) {
        return Err(Fault::bad_request("SOP Class UID is not that of UPS Push"));
    }
    for (tag, why) in [
        (TRANSACTION, "Transaction UID (0008,1195) belongs to whoever claims it"),
        (PROGRESS, "Procedure Step Progress Information Sequence (0074,1002) is for work that has begun"),
        (PERFORMED, "Unified Procedure Step Performed Procedure Sequence (0074,1216) is for work that has begun"),
    ] {
        if has_value(&set, tag) {
            return Err(Fault::bad_request(why));
        }
    }
    check_scheduled(&set)?;
    for (tag, name) in [
        (PRIORITY, "Scheduled Procedure Step Priority (0074,1200)"),
        (LABEL, "Procedure Step Label (0074,1204)"),
        (START, "Scheduled Procedure Step Start DateTime (0040,4005)"),
        (READINESS, "Input Readiness State (0040,4041)"),
    ] {
        if text(&set, tag).is_none() {
            return Err(Fault::bad_request(format!("{name} is missing")));
        }
    }
    if !set.contains_key(WORKITEM_CODE) {
        return Err(Fault::bad_request("Scheduled Workitem Code Sequence (0040,4018) is missing"));
    }
    set.remove(TRANSACTION);
    set.insert(SOP_CLASS.to_owned(), attribute("UI", UPS_PUSH));
    set.insert(SOP_INSTANCE.to_owned(), attribute("UI", name.as_str()));
    if text(&set, WORKLIST_LABEL).is_none() {
        set.insert(WORKLIST_LABEL.to_owned(), attribute("LO", "ichor"));
    }
    let mut item = Workitem { uid: name, state: UpsState::Scheduled, transaction: None, revision: 1, attributes: set };
    item.touch(now);
    Ok(item)
}

/// Values of defined terms and dates, where they are there.
fn check_scheduled(set: &DataSet) -> Result<(), Fault> {
    for (tag, terms) in
        [(PRIORITY, &["HIGH", "MEDIUM", "LOW"][..]), (READINESS, &["INCOMPLETE", "UNAVAILABLE", "READY"][..])]
    {
        if set.contains_key(tag) && !text(set, tag).is_some_and(|word| terms.contains(&word)) {
            return Err(Fault::bad_request(format!("attribute {tag} is none of {}", terms.join(", "))));
        }
    }
    let is_date = |text: &str| text.len() >= 4 && text.bytes().take(4).all(|b| b.is_ascii_digit()) && text.len() <= 26;
    if set.contains_key(START) && !text(set, START).is_some_and(is_date) {
        return Err(Fault::bad_request("Scheduled Procedure Step Start DateTime (0040,4005) is no date and time"));
    }
    Ok(())
}

/// Other values of attributes (N-SET, CC.2.6).
pub(super) fn update(
    item: &Workitem,
    mut set: DataSet,
    shown: Option<&Uid>,
    now: OffsetDateTime,
) -> Result<Next, Fault> {
    let in_body = uid(&set, TRANSACTION).map_err(Fault::bad_request)?;
    set.remove(TRANSACTION);
    match (item.state, shown.or(in_body.as_ref())) {
        (state, _) if state.is_final() => return Err(Fault::conflict(INCONSISTENT)),
        (UpsState::Scheduled, Some(_)) => return Err(Fault::conflict(INCONSISTENT)),
        (UpsState::InProgress, shown) => check_transaction(item, shown)?,
        _ => {}
    }
    for (tag, why) in [
        (STATE, "the state is changed at the workitem's state resource"),
        (SOP_CLASS, "SOP Class UID stays as it is"),
        (SOP_INSTANCE, "SOP Instance UID stays as it is"),
        ("00100010", "who the patient is stays as it is"),
        ("00100020", "who the patient is stays as it is"),
    ] {
        if set.contains_key(tag) {
            return Err(Fault::bad_request(why));
        }
    }
    check_scheduled(&set)?;
    let reports = report::of_update(item, &set);
    let mut next = item.clone();
    next.attributes.extend(set);
    next.touch(now);
    Ok(Next::Changed(next, reports))
}

/// Whoever updates again and again does not fill the memory of whoever reads: a workitem has at most so many bytes as JSON.
pub(super) fn check_size(next: &Next, most: usize) -> Result<(), Fault> {
    let Next::Changed(item, _) = next else { return Ok(()) };
    if serde_json::Value::Object(item.attributes.clone()).to_string().len() <= most {
        return Ok(());
    }
    Err(Fault::new(413, format!("the workitem would be longer than {most} bytes")))
}

/// Another state (N-ACTION, CC.2.1, table CC.1.1-2).
pub(super) fn change_state(item: &Workitem, set: &DataSet, now: OffsetDateTime) -> Result<Next, Fault> {
    use UpsState::{Canceled, Completed, InProgress, Scheduled};

    let wanted = text(set, STATE).ok_or_else(|| Fault::bad_request("Procedure Step State (0074,1000) is missing"))?;
    let wanted = UpsState::parse(wanted).ok_or_else(|| {
        Fault::bad_request("Procedure Step State (0074,1000) is none of IN PROGRESS, COMPLETED, CANCELED")
    })?;
    let shown = uid(set, TRANSACTION).map_err(Fault::bad_request)?;
    let Some(shown) = shown else { return Err(Fault::new(400, TRANSACTION_MISSING)) };
    let mut next = item.clone();
    match (item.state, wanted) {
        (_, Scheduled) | (Completed, InProgress | Canceled) | (Canceled, InProgress | Completed) => {
            return Err(Fault::conflict(INCONSISTENT));
        }
        (Completed, Completed) => return Ok(Next::Same("The UPS is already in the requested state of COMPLETED.")),
        (Canceled, Canceled) => return Ok(Next::Same("The UPS is already in the requested state of CANCELED.")),
        // Whoever comes second, be it with the UID of the first, has not claimed it.
        (InProgress, InProgress) | (Scheduled, Completed | Canceled) => return Err(Fault::conflict(INCONSISTENT)),
        (Scheduled, InProgress) => next.transaction = Some(shown),
        (InProgress, Completed | Canceled) => {
            check_transaction(item, Some(&shown))?;
            if wanted == Completed {
                check_completed(item)?;
            } else {
                mark_canceled(&mut next, now);
            }
        }
    }
    next.set_state(wanted);
    next.touch(now);
    let report = report::of_state(&next);
    Ok(Next::Changed(next, vec![report]))
}

fn check_transaction(item: &Workitem, shown: Option<&Uid>) -> Result<(), Fault> {
    match (shown, &item.transaction) {
        (None, _) => Err(Fault::new(400, TRANSACTION_MISSING)),
        (Some(shown), Some(kept)) if shown == kept => Ok(()),
        (Some(_), _) => Err(Fault::conflict(TRANSACTION_INCORRECT)),
    }
}

/// What must stand in a completed workitem (table CC.2.5-3, final state).
fn check_completed(item: &Workitem) -> Result<(), Fault> {
    let performed = items(&item.attributes, PERFORMED);
    let is_timed = |item: &&DataSet| text(item, "00404050").is_some() && text(item, "00404051").is_some();
    if performed.iter().any(is_timed) { Ok(()) } else { Err(Fault::conflict(INCONSISTENT)) }
}

/// When it was canceled stands in the progress information.
fn mark_canceled(item: &mut Workitem, now: OffsetDateTime) {
    let mut progress: Vec<DataSet> = items(&item.attributes, PROGRESS).into_iter().cloned().collect();
    if progress.is_empty() {
        progress.push(DataSet::new());
    }
    if let Some(first) = progress.first_mut() {
        first.entry(CANCELED_AT).or_insert_with(|| attribute("DT", date_time(now)));
    }
    item.attributes.insert(PROGRESS.to_owned(), sequence(progress));
}

/// Somebody who has not claimed it wants it canceled (N-ACTION, CC.2.2). What nobody has begun is canceled at once; whoever
/// has begun is told, and decides.
pub(super) fn request_cancel(
    item: &Workitem,
    set: &DataSet,
    requester: &str,
    now: OffsetDateTime,
) -> Result<Next, Fault> {
    match item.state {
        UpsState::Completed => Err(Fault::conflict("The UPS is already COMPLETED.")),
        UpsState::Canceled => Ok(Next::Same("The UPS is already in the requested state of CANCELED.")),
        UpsState::InProgress => Ok(Next::Changed(item.clone(), vec![report::of_cancel_request(item, set, requester)])),
        UpsState::Scheduled => {
            let mut next = item.clone();
            let reasons = ["00741238", "0074100E", "0074100C", "0074100A"];
            let said = reasons.into_iter().filter_map(|tag| Some((tag.to_owned(), set.get(tag)?.clone()))).collect();
            next.attributes.insert(PROGRESS.to_owned(), sequence(vec![said]));
            mark_canceled(&mut next, now);
            next.set_state(UpsState::Canceled);
            next.touch(now);
            let report = report::of_state(&next);
            Ok(Next::Changed(next, vec![report]))
        }
    }
}

#[cfg(test)]
mod tests;
