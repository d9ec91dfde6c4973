//! Goes through what may fit, and keeps what does.

use serde_json::json;
use tracing::error;

use super::attributes::{Selection, first, put};
use super::matching::{Pattern, Test, fits};
use super::query::Search;
use crate::server::archive::{Archive, ArchiveFault, Candidates, Held, HeldStudy, JsonDataSet};
use crate::server::route::Level;

/// Studies that are looked at in one go.
const PAGE: u32 = 100;

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most results of an answer.
    pub(crate) results: usize,
    /// Most headers that are read for one.
    pub(crate) examined: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) items: Vec<JsonDataSet>,
    /// Whether more fits than is in the answer.
    pub(crate) has_more: bool,
    /// Whether it was given up: too much would have to be looked at.
    pub(crate) is_too_broad: bool,
}

/// Searches. `base` is the URL that resources begin with.
pub(crate) fn search(
    archive: &dyn Archive,
    search: &Search,
    base: &str,
    limits: Limits,
) -> Result<Found, ArchiveFault> {
    let limit = search.limit.unwrap_or(limits.results).min(limits.results);
    let mut run = Run { archive, search, base, limits, limit, skipped: 0, examined: 0, found: Found::default() };
    let candidates = candidates(search);
    let mut after = None;
    loop {
        let page = archive.studies(&candidates, after, PAGE)?;
        let is_last = page.len() < PAGE as usize;
        for study in page {
            after = Some(study.place);
            if run.study(&study)? {
                return Ok(run.found);
            }
        }
        if is_last {
            return Ok(run.found);
        }
    }
}

/// What the index can say of a search.
fn candidates(search: &Search) -> Candidates {
    let uids = |tag: &str, of_path: Option<&ichor_core::Uid>| match (of_path, search.test(tag)) {
        (Some(uid), _) => vec![uid.clone()],
        (None, Some(Test::Uids(uids))) => uids.clone(),
        _ => Vec::new(),
    };
    let text = |tag: &str| match search.test(tag) {
        Some(Test::Words(patterns)) => match patterns.as_slice() {
            [one] => Some(Pattern::text(one)),
            _ => None,
        },
        Some(Test::Name(pattern)) => Some(format!("*{}*", pattern.text())),
        _ => None,
    };
    let dates = match search.test("00080020") {
        Some(Test::Dates(range)) => (range.from.clone(), range.to.clone()),
        _ => (None, None),
    };
    Candidates {
        studies: uids("0020000D", search.study.as_ref()),
        series: uids("0020000E", search.series.as_ref()),
        instances: uids("00080018", None),
        patient_id: text("00100020"),
        patient_name: text("00100010"),
        accession_number: text("00080050"),
        dates,
    }
}

struct Run<'a> {
    archive: &'a dyn Archive,
    search: &'a Search,
    base: &'a str,
    limits: Limits,
    limit: usize,
    skipped: usize,
    examined: usize,
    found: Found,
}

impl Run<'_> {
    /// Looks at a study; whether that was enough.
    fn study(&mut self, study: &HeldStudy) -> Result<bool, ArchiveFault> {
        let held = self.archive.instances(&study.study, None, None)?;
        let mut series: Vec<&[Held]> = held.chunk_by(|one, next| one.series == next.series).collect();
        if let Some(wanted) = &self.search.series {
            series.retain(|instances| instances[0].series == *wanted);
        }
        if let Some(Test::Uids(wanted)) = self.search.test("0020000E") {
            series.retain(|instances| wanted.contains(&instances[0].series));
        }
        let needs_modalities = self.search.level == Level::Study || self.search.test("00080061").is_some();
        let mut whole = JsonDataSet::new();
        put(&mut whole, "00201206", "IS", [json!(held.chunk_by(|one, next| one.series == next.series).count())]);
        put(&mut whole, "00201208", "IS", [json!(held.len())]);
        if needs_modalities {
            self.of_all_series(study, &held, &mut whole)?;
        }
        if self.search.level == Level::Study {
            let Some(one) = held.first() else { return Ok(false) };
            let url = format!("{}/studies/{}", self.base, study.study);
            return self.consider(study, one, &whole, &url);
        }
        for instances in series {
            let series = &instances[0].series;
            let url = format!("{}/studies/{}/series/{series}", self.base, study.study);
            let mut whole = whole.clone();
            put(&mut whole, "00201209", "IS", [json!(instances.len())]);
            if self.search.level == Level::Series {
                if self.consider(study, &instances[0], &whole, &url)? {
                    return Ok(true);
                }
                continue;
            }
            for one in instances {
                if let Some(Test::Uids(wanted)) = self.search.test("00080018")
                    && !wanted.contains(&one.instance)
                {
                    continue;
                }
                if let Some(Test::Uids(wanted)) = self.search.test("00080016")
                    && !wanted.contains(&one.sop_class)
                {
                    continue;
                }
                let url = format!("{url}/instances/{}", one.instance);
                if self.consider(study, one, &whole, &url)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Modalities and SOP classes of all series of a study.
    fn of_all_series(&mut self, study: &HeldStudy, held: &[Held], whole: &mut JsonDataSet) -> Result<(), ArchiveFault> {
        let (mut modalities, mut classes) = (Vec::new(), Vec::new());
        for instances in held.chunk_by(|one, next| one.series == next.series) {
            let known = first(&instances[0].attributes, "00080060");
            let modality = match known {
                Some(modality) => Some(modality),
                None => first(&self.header(study, &instances[0])?, "00080060"),
            };
            modalities.extend(modality);
            classes.extend(instances.iter().map(|one| one.sop_class.to_string()));
        }
        for (tag, vr, mut values) in [("00080061", "CS", modalities), ("00080062", "UI", classes)] {
            values.sort();
            values.dedup();
            put(whole, tag, vr, values.into_iter().map(|value| json!(value)));
        }
        Ok(())
    }

    /// The data set of an instance, or what the index knows of it if its file cannot be read: a study is not lost to a search
    /// because one of its files is.
    fn header(&mut self, study: &HeldStudy, held: &Held) -> Result<JsonDataSet, ArchiveFault> {
        self.examined += 1;
        let (mut data_set, availability) = match self.archive.metadata(held, "") {
            Ok(mut data_set) => {
                data_set.retain(|_, attribute| attribute.get("BulkDataURI").is_none());
                (data_set, "ONLINE")
            }
            Err(ArchiveFault::Unavailable(why)) => return Err(ArchiveFault::Unavailable(why)),
            Err(fault) => {
                error!(sop_instance = %held.instance, reason = %fault, "an instance that is kept cannot be read");
                (JsonDataSet::new(), "UNAVAILABLE")
            }
        };
        for (tag, attribute) in study.attributes.iter().chain(&held.attributes) {
            let is_there = data_set.get(tag).is_some_and(|found| found.get("Value").is_some());
            if !is_there {
                data_set.insert(tag.clone(), attribute.clone());
            }
        }
        put(&mut data_set, "00080016", "UI", [json!(held.sop_class)]);
        put(&mut data_set, "00080018", "UI", [json!(held.instance)]);
        put(&mut data_set, "0020000D", "UI", [json!(held.study)]);
        put(&mut data_set, "0020000E", "UI", [json!(held.series)]);
        put(&mut data_set, "00080056", "CS", [json!(availability)]);
        Ok(data_set)
    }

    /// Takes a result if it fits; whether the answer is complete.
    fn consider(
        &mut self,
        study: &HeldStudy,
        held: &Held,
        whole: &JsonDataSet,
        url: &str,
    ) -> Result<bool, ArchiveFault> {
        if self.examined >= self.limits.examined {
            self.found.is_too_broad = true;
            return Ok(true);
        }
        let mut data_set = self.header(study, held)?;
        data_set.extend(whole.clone());
        if !fits(&self.search.conditions, &data_set) {
            return Ok(false);
        }
        if self.skipped < self.search.offset {
            self.skipped += 1;
            return Ok(false);
        }
        if self.found.items.len() >= self.limit {
            self.found.has_more = true;
            return Ok(true);
        }
        let within = match (&self.search.study, &self.search.series) {
            (_, Some(_)) => Some(Level::Series),
            (Some(_), None) => Some(Level::Study),
            (None, None) => None,
        };
        let availability = data_set.get("00080056").cloned();
        let asked = self.search.conditions.iter().map(|condition| condition.way[0].clone());
        let include: Vec<String> = self.search.include.iter().cloned().chain(asked).collect();
        let selection =
            Selection { level: self.search.level, within, include: &include, include_all: self.search.include_all };
        let mut item = selection.of(data_set);
        let counts = match self.search.level {
            Level::Study => &["00080062", "00201206", "00201208"][..],
            Level::Series => &["00201209"],
            Level::Instance => &[],
        };
        for tag in counts {
            item.extend(whole.get(*tag).map(|value| ((*tag).to_owned(), value.clone())));
        }
        if self.search.level != Level::Series {
            item.extend(availability.map(|value| ("00080056".to_owned(), value)));
        } else if within.is_none() {
            for tag in ["00201206", "00201208"] {
                item.extend(whole.get(tag).map(|value| (tag.to_owned(), value.clone())));
            }
        }
        put(&mut item, "00081190", "UR", [json!(url)]);
        self.found.items.push(item);
        Ok(false)
    }
}
