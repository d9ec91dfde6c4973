//! One question to a peer, over one association where there is such a thing.

use ichor_core::{Uid, chain};
use ichor_dicomweb::{StowClient, StowError, WebMatch};
use ichor_dimse::scu::{Queried, QueryModel, ScuError, ScuOptions, StorageScu, WorklistKeys, attribute};
use ichor_store::{DueLookup, LookupAnswer};
use tracing::debug;

use super::judge::{self, About, Told};
use super::{Count, Inquiry, LookupOptions, MatchBy};

/// What came of a question.
pub(super) enum Asked {
    Answered(LookupAnswer),
    /// The peer is there, and does not answer this question.
    Refused(String),
    /// Nobody is there, or nobody who speaks to us.
    Unreachable(String),
}

/// What is asked by C-FIND.
#[derive(Clone, Copy)]
enum Question<'q> {
    Study(&'q Uid),
    Series(&'q Uid),
    Worklist(&'q WorklistKeys),
}

impl Question<'_> {
    const fn model(self) -> QueryModel {
        match self {
            Self::Study(_) | Self::Series(_) => QueryModel::StudyRoot,
            Self::Worklist(_) => QueryModel::Worklist,
        }
    }
}

/// Asks one question after the other.
pub(super) struct Asker<'a> {
    options: &'a LookupOptions,
    open: Option<Box<StorageScu>>,
}

impl<'a> Asker<'a> {
    pub(super) const fn new(options: &'a LookupOptions) -> Self {
        Self { options, open: None }
    }

    /// Asks for what is still wanted.
    pub(super) async fn ask(&mut self, study: &DueLookup, accession: bool, count: bool) -> Asked {
        let about = About { study: &study.study_instance, patient_id: study.patient_id.as_deref(), by: MatchBy::Study };
        let options = self.options;
        match &options.inquiry {
            Inquiry::Worklist(scu, matching) => {
                let about = About { by: matching.by, ..about };
                if about.by == MatchBy::Patient && !is_one_patient(about.patient_id, study.study_date.as_deref()) {
                    let doubts = vec!["not asked: the study has no patient ID or no study date".to_owned()];
                    return Asked::Answered(LookupAnswer { doubts, ..LookupAnswer::default() });
                }
                match self.find(scu, Question::Worklist(&keys(study, matching))).await {
                    Ok(matches) => answered(&matches, |told, answer| judge::accession(told, about, answer)),
                    Err(other) => other,
                }
            }
            Inquiry::Find(scu, counting) => {
                let mut answer = LookupAnswer::default();
                if accession || *counting == Count::Study {
                    match self.find(scu, Question::Study(&study.study_instance)).await {
                        Ok(matches) => of_study(&matches, about, options, (accession, count), &mut answer),
                        Err(other) => return other,
                    }
                }
                if count && *counting == Count::Series {
                    match self.find(scu, Question::Series(&study.study_instance)).await {
                        Ok(matches) => judge::series_instances(&matches, about, options, &mut answer),
                        Err(other) => return other,
                    }
                }
                Asked::Answered(answer)
            }
            Inquiry::Web(client, _) => match search(client, about, options, (accession, count)).await {
                Ok(answer) => Asked::Answered(answer),
                Err(error) if error.is_of_peer() => Asked::Unreachable(chain(&error)),
                Err(error) => Asked::Refused(chain(&error)),
            },
        }
    }

    /// Asks by C-FIND, over the association that is open, or over a new one.
    async fn find(&mut self, options: &ScuOptions, question: Question<'_>) -> Result<Vec<Told>, Asked> {
        let mut scu = match self.open.take() {
            Some(scu) => scu,
            None => {
                let connected = StorageScu::connect_to_query(options, question.model()).await;
                Box::new(connected.map_err(|error| Asked::Unreachable(chain(&error)))?)
            }
        };
        // An association whose question is cut off by the clock is dropped with it.
        let most = self.options.most_matches;
        let asked = match question {
            Question::Study(study) => scu.find_study(study, most).await,
            Question::Series(study) => scu.find_series(study, most).await,
            Question::Worklist(keys) => scu.find_worklist(keys, most).await,
        };
        match asked {
            Ok(Queried::Matches(matches)) => {
                self.open = Some(scu);
                Ok(matches.iter().map(|found| told(|tag| found.get(tag).map(str::to_owned))).collect())
            }
            Ok(Queried::Refused(response)) => {
                self.open = Some(scu);
                let comment = response.comment.map_or_else(String::new, |comment| format!(" ({comment})"));
                Err(Asked::Refused(format!("the query is answered with {}{comment}", response.status)))
            }
            // It has answered, and wrongly; the association is over.
            Err(error @ ScuError::Protocol(_)) => Err(Asked::Refused(chain(&error))),
            Err(error) => Err(Asked::Unreachable(chain(&error))),
        }
    }

    /// Forgets the association, whatever state it is in.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }

    pub(super) async fn hang_up(self) {
        if let Some(scu) = self.open
            && let Err(error) = scu.release().await
        {
            debug!(peer = self.options.name, %error, "release after a look-up failed");
        }
    }
}

/// Whether a patient can be asked about: with either key empty the question would be about all patients, or all days.
fn is_one_patient(patient_id: Option<&str>, date: Option<&str>) -> bool {
    let is_date = |date: &str| date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
    patient_id.is_some_and(|id| !id.trim().is_empty()) && date.is_some_and(is_date)
}

/// What a worklist is asked for.
fn keys(study: &DueLookup, matching: &super::Match) -> WorklistKeys {
    let by_patient = matching.by == MatchBy::Patient;
    WorklistKeys {
        // Providers need not match by it; whoever does spares us the rest.
        study: (!by_patient).then(|| study.study_instance.clone()),
        patient_id: study.patient_id.clone(),
        modality: by_patient.then(|| "CT".to_owned()),
        station: matching.station.clone(),
        date: study.study_date.clone().filter(|_| by_patient),
    }
}

async fn search(
    client: &StowClient,
    about: About<'_>,
    options: &LookupOptions,
    (accession, count): (bool, bool),
) -> Result<LookupAnswer, StowError> {
    let mut answer = LookupAnswer::default();
    if accession || options.count() == Count::Study {
        let matches = web(&client.find_study(about.study).await?);
        of_study(&matches, about, options, (accession, count), &mut answer);
    }
    if count && options.count() == Count::Series {
        let matches = web(&client.find_series(about.study).await?);
        judge::series_instances(&matches, about, options, &mut answer);
    }
    Ok(answer)
}

fn web(matches: &[WebMatch]) -> Vec<Told> {
    matches.iter().map(|found| told(|tag| found.get(tag))).collect()
}

fn of_study(
    matches: &[Told],
    about: About<'_>,
    options: &LookupOptions,
    (accession, count): (bool, bool),
    answer: &mut LookupAnswer,
) {
    if accession {
        judge::accession(matches, about, answer);
    }
    if count && options.count() == Count::Study {
        judge::study_instances(matches, about, options, answer);
    }
}

fn answered(matches: &[Told], judge: impl FnOnce(&[Told], &mut LookupAnswer)) -> Asked {
    let mut answer = LookupAnswer::default();
    judge(matches, &mut answer);
    Asked::Answered(answer)
}

/// The values of one match.
fn told(get: impl Fn((u16, u16)) -> Option<String>) -> Told {
    Told {
        // Written otherwise, it is the same UID.
        study: get(attribute::STUDY_INSTANCE).map(|text| Uid::parse(&text).map_or(text, |uid| uid.to_string())),
        series: get(attribute::SERIES_INSTANCE),
        modality: get(attribute::MODALITY),
        patient_id: get(attribute::PATIENT_ID),
        accession_number: get(attribute::ACCESSION_NUMBER),
        instances: get(attribute::SERIES_INSTANCES).or_else(|| get(attribute::STUDY_INSTANCES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_by_patient_has_a_patient_and_a_day() {
        assert!(is_one_patient(Some("P-1"), Some("20260131")));
        for (patient, date) in [
            (None, Some("20260131")),
            (Some(" "), Some("20260131")),
            (Some("P-1"), None),
            (Some("P-1"), Some("")),
            (Some("P-1"), Some("2026-1-3")),
            (Some("P-1"), Some("20260101-20261231")),
        ] {
            assert!(!is_one_patient(patient, date), "{patient:?} {date:?}");
        }
    }
}
