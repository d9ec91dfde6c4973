//! Which attributes are of studies, series and instances, and which an answer holds (PS3.18 tables 10.6.3-3 to -5).

use serde_json::{Value, json};

use crate::server::archive::JsonDataSet;
use crate::server::route::Level;

/// Attributes of every study in an answer.
const OF_STUDIES: [&str; 14] = [
    "00080005", "00080020", "00080030", "00080050", "00080090", "00080201", "00081030", "00100010", "00100020",
    "00100030", "00100040", "0020000D", "00200010", "00080061",
];
/// Attributes of every series.
const OF_SERIES: [&str; 9] =
    ["00080005", "00080060", "00080201", "0008103E", "0020000E", "00200011", "00400244", "00400245", "00400275"];
/// Attributes of every instance.
const OF_INSTANCES: [&str; 9] =
    ["00080005", "00080016", "00080018", "00080201", "00200013", "00280008", "00280010", "00280011", "00280100"];

/// Attributes of the general study modules (PS3.3 C.7.2) that do not tell so by their group.
const STUDY: [&str; 26] = [
    "00080005", "00080020", "00080030", "00080050", "00080051", "00080056", "00080061", "00080062", "00080090",
    "00080096", "0008009C", "0008009D", "00080201", "00081030", "00081032", "00081048", "00081049", "00081060",
    "00081062", "00081110", "0020000D", "00200010", "00201070", "00201200", "00201206", "00201208",
];
/// Those of series and equipment (PS3.3 C.7.3, C.7.5).
const SERIES: [&str; 34] = [
    "00080021", "00080031", "00080060", "00080064", "00080068", "00080070", "00080080", "00080081", "00081010",
    "0008103E", "0008103F", "00081040", "00081050", "00081052", "00081070", "00081072", "00081090", "00081111",
    "00081250", "00180015", "00181000", "00181020", "00181030", "00185100", "0020000E", "00200011", "00200052",
    "00200060", "00201040", "00201209", "00400244", "00400245", "00400253", "00400275",
];

/// What an attribute describes.
pub(super) fn level_of(tag: &str) -> Level {
    match tag {
        tag if tag.starts_with("0010") || STUDY.contains(&tag) => Level::Study,
        tag if SERIES.contains(&tag) => Level::Series,
        _ => Level::Instance,
    }
}

/// What of a data set goes into an answer.
pub(super) struct Selection<'a> {
    pub(super) level: Level,
    /// The level whose attributes stand in the URL already.
    pub(super) within: Option<Level>,
    pub(super) include: &'a [String],
    pub(super) include_all: bool,
}

impl Selection<'_> {
    /// Takes what is wanted out of a data set.
    pub(super) fn of(&self, data_set: JsonDataSet) -> JsonDataSet {
        let levels = [Level::Study, Level::Series, Level::Instance];
        let is_usual = |tag: &str| {
            let lists = levels.into_iter().zip([&OF_STUDIES[..], &OF_SERIES[..], &OF_INSTANCES[..]]);
            lists.into_iter().any(|(level, list)| {
                level <= self.level && self.within.is_none_or(|within| level > within) && list.contains(&tag)
            })
        };
        let is_wanted = |tag: &str| {
            let level = level_of(tag);
            // What is of each of several below says nothing of the one above.
            level <= self.level
                && (self.include_all || is_usual(tag) || self.include.iter().any(|wanted| wanted == tag))
                || UIDS[..=self.level as usize].contains(&tag)
        };
        data_set.into_iter().filter(|(tag, _)| is_wanted(tag)).collect()
    }
}

/// UIDs of studies, series and instances.
const UIDS: [&str; 3] = ["0020000D", "0020000E", "00080018"];

/// Puts an attribute into a data set.
pub(super) fn put(data_set: &mut JsonDataSet, tag: &str, vr: &str, values: impl IntoIterator<Item = Value>) {
    let values: Vec<Value> = values.into_iter().collect();
    let attribute = if values.is_empty() { json!({ "vr": vr }) } else { json!({ "vr": vr, "Value": values }) };
    data_set.insert(tag.to_owned(), attribute);
}

/// The first value of an attribute, as text.
pub(super) fn first(data_set: &JsonDataSet, tag: &str) -> Option<String> {
    let value = data_set.get(tag)?.get("Value")?.as_array()?.first()?;
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_its_own() {
        let mut set = JsonDataSet::new();
        for tag in
            ["00100010", "00081030", "0020000D", "0020000E", "00080018", "0008103E", "00200013", "00181210", "00400253"]
        {
            put(&mut set, tag, "XX", [json!(1)]);
        }
        let of = |level, within, include: &[&str], include_all| {
            let include: Vec<String> = include.iter().map(|tag| (*tag).to_owned()).collect();
            let selection = Selection { level, within, include: &include, include_all };
            selection.of(set.clone()).into_iter().map(|(tag, _)| tag).collect::<Vec<_>>()
        };
        assert_eq!(of(Level::Study, None, &["0008103E"], false), ["00081030", "00100010", "0020000D"]);
        assert_eq!(of(Level::Series, Some(Level::Study), &[], false), ["0008103E", "0020000D", "0020000E"]);
        assert_eq!(
            of(Level::Series, None, &["00400253"], false),
            ["00081030", "0008103E", "00100010", "0020000D", "0020000E", "00400253"]
        );
        assert_eq!(
            of(Level::Instance, Some(Level::Series), &["00181210"], false),
            ["00080018", "00181210", "0020000D", "0020000E", "00200013"]
        );
        assert_eq!(of(Level::Instance, None, &[], true).len(), set.len());
    }
}
