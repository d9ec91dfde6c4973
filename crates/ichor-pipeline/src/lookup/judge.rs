//! What of an answer is believed. A peer may name other studies, other patients, numbers that cannot be; each is left out, with
//! a sentence that holds nothing of the patient.

use std::collections::{BTreeMap, BTreeSet};

use ichor_core::Uid;
use ichor_store::{LookupAnswer, ToldInstances, ToldSeries};

use super::{LookupOptions, MatchBy};

/// Longest accession number (VR SH, PS3.5 table 6.2-1).
const LONGEST_ACCESSION: usize = 16;

/// One match, whichever way it came: values as text, without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) study: Option<String>,
    pub(super) series: Option<String>,
    pub(super) modality: Option<String>,
    pub(super) patient_id: Option<String>,
    pub(super) accession_number: Option<String>,
    /// Of the study, or of the series.
    pub(super) instances: Option<String>,
}

/// Whom the answer must be about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) study: &'a Uid,
    pub(super) patient_id: Option<&'a str>,
    pub(super) by: MatchBy,
}

impl About<'_> {
    /// Whether a match says that it is of this study, or of this patient.
    fn is(&self, told: &Told) -> bool {
        match self.by {
            MatchBy::Study => told.study.as_deref() == Some(self.study.as_str()),
            MatchBy::Patient => self.patient_id.is_some() && told.patient_id.as_deref() == self.patient_id,
        }
    }
}

/// The accession number of matches about a study, into `answer`.
pub(super) fn accession(matches: &[Told], about: About<'_>, answer: &mut LookupAnswer) {
    let ours: Vec<&Told> = matches.iter().filter(|told| about.is(told)).collect();
    if ours.is_empty() {
        if !matches.is_empty() {
            let what = if about.by == MatchBy::Study { "study" } else { "patient" };
            answer.doubts.push(format!("{} matches, none of which is of this {what}", matches.len()));
        }
        return;
    }
    let other_patient = |told: &&Told| match (&told.patient_id, about.patient_id) {
        (Some(told), Some(known)) => told != known,
        _ => false,
    };
    if ours.iter().any(other_patient) {
        answer.doubts.push("the study has another patient ID there: its accession number is not taken over".to_owned());
        return;
    }
    let numbers: BTreeSet<&str> = ours.iter().filter_map(|told| told.accession_number.as_deref()).collect();
    let mut numbers = numbers.into_iter();
    match (numbers.next(), numbers.next()) {
        (Some(_), Some(_)) => answer.doubts.push(format!("{} accession numbers", 2 + numbers.count())),
        (Some(number), None) if is_accession(number) => answer.accession_number = Some(number.to_owned()),
        (Some(number), None) => answer.doubts.push(format!(
            "an accession number of {} characters that is not 1 to {LONGEST_ACCESSION} printable characters of ASCII",
            number.chars().count()
        )),
        (None, _) => {}
    }
}

/// Whether it can be an accession number, and be told on in any character set.
fn is_accession(number: &str) -> bool {
    (1..=LONGEST_ACCESSION).contains(&number.len())
        && number.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\')
}

/// The number of instances of a study, into `answer`.
pub(super) fn study_instances(matches: &[Told], about: About<'_>, options: &LookupOptions, answer: &mut LookupAnswer) {
    let ours = matches.iter().filter(|told| told.study.as_deref() == Some(about.study.as_str()));
    let told: BTreeSet<&str> = ours.filter_map(|told| told.instances.as_deref()).collect();
    let mut told = told.into_iter();
    match (told.next(), told.next()) {
        (Some(_), Some(_)) => answer.doubts.push("several numbers of instances for one study".to_owned()),
        (Some(text), None) => match number(text, options.most_instances) {
            Ok(instances) => answer.instances = Some(ToldInstances::Study(instances)),
            Err(doubt) => answer.doubts.push(doubt),
        },
        (None, _) => {}
    }
}

/// The numbers of instances of a study's series, into `answer`: all of them, or none.
pub(super) fn series_instances(matches: &[Told], about: About<'_>, options: &LookupOptions, answer: &mut LookupAnswer) {
    match read_series(matches, about, options) {
        Ok(series) if series.is_empty() => {}
        Ok(series) => answer.instances = Some(ToldInstances::Series(series)),
        Err(doubt) => answer.doubts.push(doubt),
    }
}

fn read_series(matches: &[Told], about: About<'_>, options: &LookupOptions) -> Result<Vec<ToldSeries>, String> {
    let mut series: BTreeMap<Uid, ToldSeries> = BTreeMap::new();
    let mut total: u32 = 0;
    for told in matches {
        // The series level need not repeat the study; another one is another.
        if told.study.as_deref().is_some_and(|study| study != about.study.as_str()) {
            return Err("series of another study".to_owned());
        }
        let uid = told.series.as_deref().and_then(|text| Uid::parse(text).ok()).ok_or("a series without UID")?;
        // A peer that does not count series says nothing about any.
        let Some(text) = told.instances.as_deref() else { return Ok(Vec::new()) };
        let instances = number(text, options.most_instances)?;
        total = total.saturating_add(instances);
        if total > options.most_instances {
            return Err(format!("more than {} instances", options.most_instances));
        }
        let is_awaited = |modality: &String| options.modalities.iter().any(|known| known == modality);
        let counts = options.modalities.is_empty() || told.modality.as_ref().is_none_or(is_awaited);
        let told = ToldSeries { series_instance: uid.clone(), instances, counts };
        if series.insert(uid, told.clone()).is_some_and(|before| before != told) {
            return Err("several numbers of instances for one series".to_owned());
        }
    }
    Ok(series.into_values().collect())
}

/// A number of instances (VR IS), at least one: nought is what is said by peers that do not count.
fn number(text: &str, most: u32) -> Result<u32, String> {
    match text.trim().parse::<i64>() {
        Ok(number) if number >= 1 && number <= i64::from(most) => {
            u32::try_from(number).map_err(|_| "a number of instances that cannot be".to_owned())
        }
        Ok(0) => Err("0 instances, of a study that is arriving".to_owned()),
        Ok(number) if number < 0 => Err("a negative number of instances".to_owned()),
        Ok(_) => Err(format!("more than {most} instances")),
        Err(_) => Err("a number of instances that is none".to_owned()),
    }
}

#[cfg(test)]
mod tests;
