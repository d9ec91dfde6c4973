//! Tell: one task a channel follows the event log and says what happened to a study, in the order in which it happened to
//! that study, until the peer itself says that it has it. A channel that does not answer delays no other.

use std::time::Duration;

use ichor_core::{Finding, Reason, Subject, chain};
use ichor_store::{MessageClaim, Store, StoreError, Topic};
use ichor_worklist::fhir::FhirClient;
use ichor_worklist::hl7::Hl7Client;
use ichor_worklist::webhook::WebhookClient;
use ichor_worklist::{Announcement, Patient, Series, Study, SuspiciousSlices, TellError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::backoff::Backoff;
use crate::now;
use crate::telemetry::Tracing;

/// Longest time between two looks at the event log, whatever the wake-ups say.
const POLL: Duration = Duration::from_millis(500);

/// Who is told, and how.
#[derive(Debug)]
pub struct Channel {
    /// Name in the configuration and in the job log.
    pub name: String,
    /// What is told.
    pub subjects: Vec<Subject>,
    /// How messages travel.
    pub transport: Transport,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// How long after the event a message that is about an order waits for the accession number that names it.
    pub order_wait: Duration,
    /// Program and version.
    pub software: String,
    /// Whether messages by HTTP say to which trace they belong.
    pub traced: Option<Tracing>,
}

/// The ways to tell.
#[derive(Debug)]
pub enum Transport {
    /// HL7 v2 over MLLP.
    Hl7(Hl7Client),
    /// A transaction of FHIR resources.
    Fhir(FhirClient),
    /// A signed POST.
    Webhook(WebhookClient),
}

/// Tells until `shutdown`. An attempt in flight at that moment is dropped; its message goes back to the queue at the next
/// start, under the same number.
pub async fn run(store: Store, channel: Channel, shutdown: CancellationToken) {
    run_until_retired(store, channel, CancellationToken::new(), shutdown).await;
}

/// [`run`], and no more than the message in hand once `retired`: another takes the channel over.
pub async fn run_until_retired(
    store: Store,
    channel: Channel,
    retired: CancellationToken,
    shutdown: CancellationToken,
) {
    let (mut alerts, mut results) = (store.changes(Topic::Alert), store.changes(Topic::Outbox));
    let mut retries = store.changes(Topic::Messages);
    // After an error of the store a claim may be lost: its message must not wait for a restart.
    let mut claim_lost = false;
    let mut is_taken_up = false;
    loop {
        let work = async {
            if claim_lost {
                store.requeue_messages(Some(&channel.name), now()).await?;
            }
            if !is_taken_up {
                // They may have been put off under another setting.
                store.release_waiting_messages(&channel.name, &reason_of(&TellError::NoOrder), now()).await?;
                is_taken_up = true;
            }
            tell_due(&store, &channel, &retired).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        claim_lost = result.is_err();
        let wait = result.unwrap_or_else(|error| {
            error!(channel = channel.name, %error, "messages failed; trying again");
            POLL
        });
        if retired.is_cancelled() && !claim_lost {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = retired.cancelled(), if !claim_lost => return,
            () = tokio::time::sleep(wait) => {}
            () = alerts.changed(), if !claim_lost => {}
            () = results.changed(), if !claim_lost => {}
            () = retries.changed(), if !claim_lost => {}
        }
    }
}

/// Queues again what waits, or was given up, for want of an order that is known by now.
async fn revive(store: &Store, channel: &Channel) -> Result<(), StoreError> {
    if let Transport::Hl7(_) = channel.transport {
        let revived = store.revive_messages(&channel.name, &reason_of(&TellError::NoOrder), now()).await?;
        if revived > 0 {
            info!(channel = channel.name, revived, "the orders that messages lacked are known now");
        }
    }
    Ok(())
}

/// Tells everything that is due and says how long to wait for the next.
async fn tell_due(store: &Store, channel: &Channel, retired: &CancellationToken) -> Result<Duration, StoreError> {
    loop {
        if retired.is_cancelled() {
            return Ok(POLL);
        }
        // Before each message: an alert must not wait for a queue of others.
        store.follow_events(&channel.name, &channel.subjects, now()).await?;
        // And before a later message of the study has taken the place of one that can be sent now.
        revive(store, channel).await?;
        let Some(claim) = store.claim_message(&channel.name, now()).await? else { break };
        let traceparent = channel.traced.map(|tracing| tracing.traceparent(&claim.study.study_instance, claim.version));
        let told = match announcement(&claim, &channel.software).map(|told| Announcement { traceparent, ..told }) {
            Ok(announcement) => match &channel.transport {
                Transport::Hl7(client) => client.tell(&announcement).await,
                Transport::Fhir(client) => client.tell(&announcement).await,
                Transport::Webhook(client) => client.tell(&announcement).await,
            },
            Err(error) => Err(error),
        };
        record(store, channel, claim, told).await?;
    }
    let next = store.next_message_deadline(&channel.name).await?;
    Ok(next.map_or(POLL, |deadline| deadline.since(now())).clamp(Duration::from_millis(1), POLL))
}

async fn record(
    store: &Store,
    channel: &Channel,
    claim: MessageClaim,
    told: Result<String, TellError>,
) -> Result<(), StoreError> {
    let (name, study, subject) = (&channel.name, claim.study.study_instance.clone(), claim.subject);
    let error = match told {
        Ok(words) => {
            let latency_ms = store.message_acknowledged(claim, &words, now()).await?;
            info!(channel = name, %study, %subject, answer = words, latency_ms, "told");
            return Ok(());
        }
        Err(error) => error,
    };
    let reason = reason_of(&error);
    let wait_until = claim.at.after(channel.order_wait);
    if matches!(error, TellError::NoOrder) && now() < wait_until {
        debug!(channel = name, %study, %subject, "its order is not known yet");
        // Once and for all: whoever looks before each message sees when its number has come.
        return store.message_waits(claim, &reason, wait_until, now()).await;
    }
    let next = match error.is_permanent() {
        true => None,
        false => channel.backoff.after(claim.attempts).map(|wait| now().after(wait)),
    };
    match next {
        Some(_) => warn!(channel = name, %study, %subject, attempt = claim.attempts, %reason, "not told; trying again"),
        None => error!(channel = name, %study, %subject, attempts = claim.attempts, %reason, "telling given up"),
    }
    store.message_failed(claim, &reason, next, now()).await
}

fn reason_of(error: &TellError) -> Reason {
    Reason::new(code(error), chain(error))
}

const fn code(error: &TellError) -> &'static str {
    match error {
        TellError::Connection { .. } | TellError::Timeout(_) => "unreachable",
        TellError::Answer(_) => "unusable-answer",
        TellError::Refused(_) | TellError::RefusedForGood(_) => "refused",
        TellError::Message(_) => "no-message",
        TellError::NoOrder => "no-order",
    }
}

/// What the event of an analysis says, as the store wrote it.
#[derive(Deserialize)]
struct AlertDetail {
    series_instance: String,
    slices: Vec<String>,
    probability: f64,
    latency_ms: i64,
}

/// A result that a version without one does not take back.
#[derive(Deserialize)]
struct StandingDetail {
    version: u64,
    finding: Finding,
}

/// The announcement of a message: the same at every attempt.
fn announcement(claim: &MessageClaim, software: &str) -> Result<Announcement, TellError> {
    let MessageClaim { subject, detail, study, .. } = claim;
    let at = i128::from(claim.at.as_millis()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at)
        .map_err(|error| TellError::Message(format!("its moment is out of range: {error}")))?;
    let has_none = matches!(subject, Subject::NotAnalysed | Subject::Failed);
    let standing: Option<StandingDetail> = if has_none { part(&detail["standing"])? } else { None };
    let alert = match subject {
        Subject::Alert => part::<AlertDetail>(detail)?,
        // The result that stands has borne it out.
        _ if has_none && standing.is_none() => part(&detail["alert"])?,
        _ => None,
    };
    let alert = alert.map(|alert| SuspiciousSlices {
        series_instance_uid: alert.series_instance,
        slices: alert.slices,
        probability: alert.probability,
        latency_ms: alert.latency_ms,
    });
    let reason: Option<Reason> = match part(&detail["outcome"]["reason"])? {
        Some(reason) => Some(reason),
        None if *subject == Subject::Failed => part(&detail["reason"])?,
        None => None,
    };
    let stands = *subject != Subject::Alert && alert.is_some();
    let line = match (&reason, &standing) {
        (Some(reason), Some(StandingDetail { version, .. })) => {
            format!("the positive result of version {version} stands; not analysed again, because {reason}")
        }
        (Some(reason), None) if stands => format!("the alert stands; the study was not analysed, because {reason}"),
        _ => claim.text.clone(),
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let series = claim.series.iter().map(|series| Series {
        series_instance_uid: series.series_instance.clone(),
        modality: series.modality.clone(),
        description: series.description.clone(),
        number: series.number,
    });
    Ok(Announcement {
        id: identity(claim),
        subject: *subject,
        urgent: subject.is_urgent() || stands || standing.is_some(),
        at,
        text: line,
        version: detail["version"].as_u64(),
        study: Study {
            study_instance_uid: study.study_instance.clone(),
            accession_number: study.accession_number.clone(),
            study_date: study.study_date.clone(),
            description: study.description.clone(),
            source_ae: claim.source_ae.as_ref().map(ToString::to_string),
            patient: Some(Patient { id: study.patient_id.clone(), name: study.patient_name.clone() }),
            series: series.collect(),
        },
        finding: match standing {
            Some(standing) => Some(standing.finding),
            None => part(&detail["outcome"]["finding"])?,
        },
        alert,
        reason,
        model: text(&detail["model"]).map(|model| model.split_whitespace().next().unwrap_or_default().to_owned()),
        notice: text(&detail["notice"]),
        software: software.to_owned(),
        traceparent: None,
    })
}

/// A part of an event, if it is there.
fn part<T: DeserializeOwned>(value: &serde_json::Value) -> Result<Option<T>, TellError> {
    serde_json::from_value(value.clone()).map_err(|error| TellError::Message(format!("its event is damaged: {error}")))
}

/// The moment of the event and the number of the message, at most 20 characters (MSH-10): the number alone would be that
/// of another message once the database was made anew.
fn identity(claim: &MessageClaim) -> String {
    let (moment, number) = (base36(claim.at.as_millis().unsigned_abs()), base36(claim.id.unsigned_abs()));
    let text = format!("{moment}-{number}");
    text[text.len().saturating_sub(20)..].to_owned()
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod orders;

#[cfg(test)]
mod tests {
    use ichor_core::{Uid, Verdict};
    use ichor_store::{StudyAttributes, Timestamp};
    use serde_json::json;

    use super::*;

    fn claim(subject: Subject, detail: serde_json::Value) -> MessageClaim {
        MessageClaim {
            id: 42,
            channel: "ris".to_owned(),
            subject,
            at: Timestamp::from_millis(1_700_000_000_123),
            text: "text".to_owned(),
            detail,
            study: StudyAttributes {
                study_instance: Uid::derive(["study"]),
                patient_id: Some("P".to_owned()),
                patient_name: None,
                accession_number: Some("A".to_owned()),
                study_date: None,
                description: None,
            },
            source_ae: None,
            series: Vec::new(),
            since: Timestamp::from_millis(1_700_000_000_000),
            version: 1,
            attempts: 1,
        }
    }

    #[test]
    fn events_become_announcements() {
        let finding = json!({ "verdict": "positive", "probability": 0.9, "volume_ml": 12.0, "positive_slices": 4,
            "slices": 30, "lesions_ml": [12.0] });
        let detail =
            json!({ "version": 2, "outcome": { "finding": finding }, "model": "m@1+ab", "notice": "research" });
        let positive = announcement(&claim(Subject::Positive, detail), "ichor 1").unwrap();
        assert_eq!(positive.finding.unwrap().verdict, Verdict::Positive);
        assert_eq!((positive.version, positive.model.as_deref()), (Some(2), Some("m@1+ab")));
        assert_eq!((positive.notice.as_deref(), positive.urgent), (Some("research"), true));
        assert!(positive.alert.is_none() && positive.reason.is_none());

        let detail = json!({ "series_instance": "1.2", "slices": ["1.3"], "probability": 0.7, "latency_ms": 9,
            "model": "m@1+ab physionet", "notice": null });
        let alert = announcement(&claim(Subject::Alert, detail), "ichor 1").unwrap();
        assert_eq!((alert.model.as_deref(), alert.notice), (Some("m@1+ab"), None));
        assert_eq!(alert.alert.unwrap().latency_ms, 9);

        let reason = json!({ "code": "model", "text": "no" });
        let failed = announcement(&claim(Subject::Failed, json!({ "version": 1, "reason": reason })), "i").unwrap();
        assert_eq!(failed.reason.unwrap().code.as_str(), "model");
        let not = announcement(&claim(Subject::NotAnalysed, json!({ "outcome": { "reason": reason } })), "i").unwrap();
        assert_eq!((not.reason.unwrap().text.as_str(), not.alert.is_none(), not.urgent), ("no", true, false));
        let alert = json!({ "series_instance": "1.2", "slices": ["1.3"], "probability": 0.7, "latency_ms": 9 });
        let detail = json!({ "outcome": { "reason": reason }, "alert": alert, "standing": null });
        let stands = announcement(&claim(Subject::NotAnalysed, detail), "i").unwrap();
        assert!(stands.alert_stands() && stands.urgent, "{stands:?}");
        assert!(stands.text.starts_with("the alert stands; the study was not analysed, because no"), "{}", stands.text);

        let finding = json!({ "verdict": "positive", "probability": 0.9, "volume_ml": 12.0, "positive_slices": 4,
            "slices": 30, "lesions_ml": [12.0] });
        let detail = json!({ "version": 2, "outcome": { "reason": reason }, "alert": alert,
            "standing": { "version": 1, "finding": finding } });
        let stands = announcement(&claim(Subject::NotAnalysed, detail), "i").unwrap();
        assert!(stands.result_stands() && !stands.alert_stands() && stands.urgent, "{stands:?}");
        assert_eq!(stands.text, "the positive result of version 1 stands; not analysed again, because no (model)");
        let detail = json!({ "version": 2, "reason": reason, "standing": { "version": 1, "finding": finding } });
        assert!(announcement(&claim(Subject::Failed, detail), "i").unwrap().result_stands());

        let damaged = announcement(&claim(Subject::Alert, json!({ "slices": 3 })), "ichor 1").unwrap_err();
        assert!(damaged.is_permanent() && damaged.to_string().contains("damaged"), "{damaged}");
    }

    #[test]
    fn identities_are_short_and_stay() {
        let claim = claim(Subject::Alert, json!({}));
        assert_eq!(identity(&claim), identity(&MessageClaim { attempts: 9, ..claim.clone() }));
        assert_ne!(identity(&claim), identity(&MessageClaim { id: 43, ..claim.clone() }));
        assert_eq!(identity(&claim), "LOYW3V5N-16");
        let long = MessageClaim { id: i64::MAX, ..claim };
        assert!(identity(&long).len() <= 20, "{}", identity(&long));
    }
}
