//! Which series is analysed, and for each other one the reason why not.
//!
//! Each series passes the rules of the [gate](crate::gate); all outcomes are kept. What an attribute leaves in doubt (a
//! Series Description, an extent beyond the head) ranks a series lower but does not exclude it, and axial reformats are
//! eligible: often they are the only soft-tissue series kept.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::convert::Infallible;

use ichor_core::{ImagePlane, Reason, RuleOutcome, RuleVerdict, Uid};

pub use crate::gate::GateOptions;
use crate::gate::{
    Extent, GateRule, Judgement, Looked, describe, extent, is_reformatted, judge, judge_stack, look, without_strays,
};
use crate::header::InstanceHeader;
use crate::volume::{PlacedSlice, Slice, Stack};
use crate::words::Description;

/// What was decided about one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesOutcome {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Whether it is the one that is analysed.
    pub chosen: bool,
    /// Why, or why not, and what of it was left out.
    pub reasons: Vec<Reason>,
    /// Every rule of the gate, in the order of [`GateRule::ALL`].
    pub rules: Vec<RuleOutcome>,
}

/// The choice.
#[derive(Clone, Debug, Default)]
pub struct SeriesChoice {
    /// The slices to analyse, in order; `None`: nothing is eligible.
    pub chosen: Option<(Uid, Stack)>,
    /// One for each series.
    pub outcomes: Vec<SeriesOutcome>,
}

/// 1 − cosine below which two directions are the same (about 0.8°).
const PARALLEL: f64 = 1e-4;

/// Slice distance that is preferred among eligible series, in mm: what the model was trained on.
const PREFERRED_DISTANCE_MM: f64 = 5.0;

/// Coverage that is a whole head, in mm: what lies beyond makes no series better.
const HEAD_MM: f64 = 160.0;

/// Coverage that is no whole head, in mm: a few original images are no better than the whole head reformatted.
const PART_MM: f64 = 100.0;

/// Coverage from which on a series is of more than the head, in mm.
const BEYOND_HEAD_MM: f64 = 260.0;

/// A series that passed, with what the choice among several needs.
struct Candidate {
    stack: Stack,
    description: Description,
    reformatted: bool,
    named_other: bool,
    extent: Extent,
    distance_mm: f64,
    acquired_s: f64,
    number: f64,
    outcome: SeriesOutcome,
}

impl Candidate {
    /// What speaks against its being the non-contrast head.
    fn doubts(&self) -> Vec<&'static str> {
        let doubts = [
            (self.extent.coverage_mm > BEYOND_HEAD_MM, "covers more than a head"),
            (self.description.contrast, "Series Description tells of contrast"),
            (self.description.trunk, "Series Description names more than the head"),
            (self.named_other, "Body Part Examined names another part"),
        ];
        doubts.into_iter().filter_map(|(holds, doubt)| holds.then_some(doubt)).collect()
    }

    /// Whether this one is better than another one, and by what: fewest doubts, then a head and not a part of one,
    /// then original before reformatted images, then most of the head in whole centimetres, then not for bone, then
    /// the distance nearest to what the model knows, then the later scan (who scans again had a reason), then the lower
    /// number.
    fn compare(&self, other: &Self) -> (Ordering, &'static str) {
        let of_head = |c: &Self| (c.extent.coverage_mm.min(HEAD_MM) / 10.0).round();
        let is_part = |c: &Self| c.extent.coverage_mm < PART_MM;
        let off = |c: &Self| (c.distance_mm - PREFERRED_DISTANCE_MM).abs();
        let criteria = [
            (self.doubts().len().cmp(&other.doubts().len()), "less speaks against it"),
            (is_part(self).cmp(&is_part(other)), "it is of the whole head"),
            (self.reformatted.cmp(&other.reformatted), "its images are original"),
            (of_head(other).total_cmp(&of_head(self)), "it covers more of the head"),
            (self.description.bone.cmp(&other.description.bone), "it is not for bone"),
            (off(self).total_cmp(&off(other)), "its slices lie nearer to 5 mm apart"),
            (other.acquired_s.total_cmp(&self.acquired_s), "it was scanned later"),
            (self.number.total_cmp(&other.number), "its number is lower"),
            (self.outcome.series_instance.cmp(&other.outcome.series_instance), "its UID is lower"),
        ];
        criteria.into_iter().find(|(order, _)| order.is_ne()).unwrap_or((Ordering::Equal, "they are the same"))
    }

    /// Its extent, and what speaks against it.
    fn summary(&self) -> String {
        let extent = format!("{:.0} mm in steps of {:.1} mm", self.extent.coverage_mm, self.distance_mm);
        let kind = self.reformatted.then_some("reformatted");
        std::iter::once(extent.as_str()).chain(kind).chain(self.doubts()).collect::<Vec<_>>().join(", ")
    }
}

/// Chooses among all instances of a study. `read` decodes a slice where no attribute names the head: `None` if the slice
/// cannot be read.
///
/// # Errors
/// What `read` gives: nothing can be decided then.
pub fn choose_series<E>(
    headers: Vec<InstanceHeader>,
    options: &GateOptions,
    mut read: impl FnMut(&PlacedSlice) -> Result<Option<Slice>, E>,
) -> Result<SeriesChoice, E> {
    let mut by_series: BTreeMap<Uid, Vec<InstanceHeader>> = BTreeMap::new();
    for header in headers {
        by_series.entry(header.series_instance.clone()).or_default().push(header);
    }
    let mut choice = SeriesChoice::default();
    let mut candidates = Vec::new();
    for (series, headers) in by_series {
        let mut examination = Examination::of(headers, options);
        examination.look(options, &mut read)?;
        match examination.candidate(series) {
            Ok(candidate) => candidates.push(candidate),
            Err(outcome) => choice.outcomes.push(outcome),
        }
    }
    candidates.sort_by(|a, b| a.compare(b).0);
    let mut candidates = candidates.into_iter();
    if let Some(mut best) = candidates.next() {
        for mut other in candidates {
            let (preferred, own) = (best.summary(), other.summary());
            let text = format!(
                "eligible, but {} was preferred because {}: {preferred} against {own}",
                best.outcome.series_instance,
                best.compare(&other).1
            );
            other.outcome.reasons.insert(0, Reason::new("other-series-preferred", text));
            choice.outcomes.push(other.outcome);
        }
        let text = format!("axial soft-tissue head series: {} slices over {}", best.stack.slices.len(), best.summary());
        best.outcome.reasons.insert(0, Reason::new("eligible", text));
        best.outcome.chosen = true;
        choice.chosen = Some((best.outcome.series_instance.clone(), best.stack));
        choice.outcomes.push(best.outcome);
    }
    Ok(choice)
}

/// Chooses by attributes alone.
#[must_use]
pub fn choose_series_by_attributes(headers: Vec<InstanceHeader>, options: &GateOptions) -> SeriesChoice {
    let options = GateOptions { look_at_pixels: false, ..*options };
    let nothing = |_: &PlacedSlice| Ok::<_, Infallible>(None);
    choose_series(headers, &options, nothing).unwrap_or_else(|never| match never {})
}

/// Whether a single slice may belong to an eligible series, and where it lies: what can be said before the rest of its
/// series is known. Its offset is 0, and it stands for its own thickness.
///
/// # Errors
/// The reason why it cannot.
pub fn place(header: InstanceHeader, options: &GateOptions) -> Result<PlacedSlice, Reason> {
    for rule in GateRule::ALL.into_iter().filter(|rule| !options.is_off(*rule)) {
        if let Some(Judgement::Failed(reason)) = judge(rule, &header, options) {
            return Err(reason);
        }
    }
    let plane = header.plane.clone()?;
    let slab_mm = header.slice_thickness.unwrap_or(1.0);
    Ok(PlacedSlice { header, plane, offset_mm: 0.0, slab_mm })
}

/// One series before its rules: what is left of it, and what was said.
struct Examination {
    stack: Stack,
    extent: Extent,
    first: Option<InstanceHeader>,
    reformatted: bool,
    named_other: bool,
    rules: Vec<RuleOutcome>,
    /// Why it is not eligible, in the order of the rules.
    failed: Vec<(GateRule, Reason)>,
    /// What is left out of it, and what is odd.
    notes: Vec<Reason>,
}

impl Examination {
    fn of(headers: Vec<InstanceHeader>, options: &GateOptions) -> Self {
        let mut examination = Self {
            stack: Stack::default(),
            extent: Extent::default(),
            first: None,
            reformatted: false,
            named_other: false,
            rules: Vec::with_capacity(GateRule::ALL.len()),
            failed: Vec::new(),
            notes: Vec::new(),
        };
        let mut images = headers;
        for rule in GateRule::ALL {
            if options.is_off(rule) {
                examination.rules.push(rule.outcome(RuleVerdict::NotAsked, "switched off by the configuration"));
                continue;
            }
            if examination.has_failed(GateRule::Ct) || examination.has_failed(GateRule::SingleFrame) {
                examination.rules.push(rule.outcome(RuleVerdict::NotAsked, "there are no images to ask it of"));
                continue;
            }
            match rule {
                GateRule::Slices | GateRule::Coverage | GateRule::Spacing | GateRule::Gaps => {
                    examination.ask_stack(rule, &images, options);
                }
                _ => images = examination.ask_instances(rule, images, options),
            }
        }
        examination
    }

    fn has_failed(&self, rule: GateRule) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == rule)
    }

    fn fail(&mut self, rule: GateRule, reason: Reason) {
        self.rules.push(rule.outcome(RuleVerdict::Failed, reason.text.clone()));
        self.failed.push((rule, reason));
    }

    /// Asks each instance. Those that break a rule which others keep are set aside by themselves; where none keeps it,
    /// the series breaks it, and goes on whole to the rules that are left.
    fn ask_instances(
        &mut self,
        rule: GateRule,
        images: Vec<InstanceHeader>,
        options: &GateOptions,
    ) -> Vec<InstanceHeader> {
        let (mut said, mut stays) = (None, Vec::with_capacity(images.len()));
        let mut reasons: Vec<(Reason, Vec<String>)> = Vec::new();
        for header in &images {
            let judgement = judge(rule, header, options);
            stays.push(!matches!(judgement, Some(Judgement::Failed(_))));
            match judgement {
                Some(Judgement::Failed(reason)) => {
                    let instance = header.label();
                    match reasons.iter_mut().find(|(known, _)| *known == reason) {
                        Some((_, instances)) => instances.push(instance),
                        None => reasons.push((reason, vec![instance])),
                    }
                }
                Some(Judgement::Passed(text)) if said.is_none() => said = Some((RuleVerdict::Passed, text)),
                Some(Judgement::Unknown(text)) if said.is_none() => said = Some((RuleVerdict::Unknown, text)),
                _ => {}
            }
        }
        let Some((verdict, text)) = said else {
            match reasons.is_empty() {
                true => self.rules.push(rule.outcome(RuleVerdict::NotAsked, "there are no images to ask it of")),
                false => {
                    self.named_other |= rule == GateRule::Head;
                    let mut reasons = reasons.into_iter().map(|(reason, _)| reason);
                    if let Some(first) = reasons.next() {
                        self.fail(rule, first);
                    }
                    self.notes.extend(reasons);
                }
            }
            return images;
        };
        // A slice without Hounsfield units stays: it is refused by name when it is read, never passed over.
        if rule == GateRule::Hounsfield {
            let aside = reasons.iter().map(|(_, instances)| instances.len()).sum();
            self.rules.push(rule.outcome(verdict, with_aside(text, aside)));
            return images;
        }
        let count = images.len();
        let (mut stays, mut kept) = (stays.into_iter(), images);
        kept.retain(|_| stays.next().unwrap_or(true));
        for (reason, instances) in reasons {
            match (rule, instances.as_slice()) {
                (GateRule::Geometry, all) | (_, all @ [_]) => {
                    self.notes.extend(all.iter().map(|instance| named(instance, &reason)));
                }
                (_, several) => {
                    let text = format!("{} instances: {}", several.len(), reason.text);
                    self.notes.push(Reason { code: reason.code, text });
                }
            }
        }
        if rule == GateRule::Geometry {
            let (group, odd) = largest_group(kept);
            self.notes.extend(odd);
            kept = group;
        }
        self.rules.push(rule.outcome(verdict, with_aside(text, count - kept.len())));
        kept
    }

    /// Asks the slices together; at the first such rule they are put in order.
    fn ask_stack(&mut self, rule: GateRule, images: &[InstanceHeader], options: &GateOptions) {
        if self.has_failed(GateRule::Geometry) || images.is_empty() {
            self.rules.push(rule.outcome(RuleVerdict::NotAsked, "there are no slices in order to ask it of"));
            return;
        }
        if self.first.is_none() {
            self.first = images.first().cloned();
            self.reformatted = images.iter().any(is_reformatted);
            self.stack = Stack::new(images.to_vec());
            if !options.is_off(GateRule::Gaps) {
                self.stack = without_strays(std::mem::take(&mut self.stack), options);
            }
            self.extent = extent(&self.stack);
            self.notes.extend(self.stack.left_out.iter().map(|(uid, reason)| named(uid.as_str(), reason)));
        }
        match judge_stack(rule, self.stack.slices.len(), &self.extent, options) {
            Some(Judgement::Failed(reason)) => self.fail(rule, reason),
            Some(Judgement::Passed(text)) => self.rules.push(rule.outcome(RuleVerdict::Passed, text)),
            Some(Judgement::Unknown(text)) => self.rules.push(rule.outcome(RuleVerdict::Unknown, text)),
            None => {}
        }
    }

    /// Looks at the pixels if only they can say whether it is the head.
    fn look<E>(
        &mut self,
        options: &GateOptions,
        read: &mut impl FnMut(&PlacedSlice) -> Result<Option<Slice>, E>,
    ) -> Result<(), E> {
        let name = GateRule::Head.name();
        let Some(rule) = self.rules.iter_mut().find(|outcome| outcome.rule == name) else { return Ok(()) };
        let is_open = matches!(rule.verdict, RuleVerdict::Unknown | RuleVerdict::Failed);
        let others_failed = self.failed.iter().any(|(rule, _)| *rule != GateRule::Head);
        if !is_open || !options.look_at_pixels || others_failed || self.stack.slices.is_empty() {
            return Ok(());
        }
        let looked = look(&self.stack, read)?;
        rule.attributes.push("PixelData".to_owned());
        let Looked { read, brains } = looked;
        let Some(is_head) = looked.is_head() else {
            rule.text = format!("{}; only {read} slices could be looked at", rule.text);
            return Ok(());
        };
        let seen = format!("a skull with a brain in it is seen on {brains} of {read} slices looked at");
        rule.text = format!("{}; {seen}", rule.text);
        self.failed.retain(|(rule, _)| *rule != GateRule::Head);
        if is_head {
            rule.verdict = RuleVerdict::Passed;
        } else {
            rule.verdict = RuleVerdict::Failed;
            self.failed.push((GateRule::Head, Reason::new("not-head", rule.text.clone())));
        }
        Ok(())
    }

    fn candidate(self, series_instance: Uid) -> Result<Candidate, SeriesOutcome> {
        let mut outcome = SeriesOutcome { series_instance, chosen: false, reasons: self.notes, rules: self.rules };
        let Some(first) = self.first.filter(|_| self.failed.is_empty()) else {
            outcome.reasons.splice(0..0, self.failed.into_iter().map(|(_, reason)| reason));
            return Err(outcome);
        };
        let count = self.stack.slices.len().max(1);
        Ok(Candidate {
            description: describe(&first),
            reformatted: self.reformatted,
            named_other: self.named_other,
            distance_mm: self.extent.coverage_mm / count as f64,
            extent: self.extent,
            acquired_s: first.acquired_s.unwrap_or(f64::NEG_INFINITY),
            number: first.series_number.unwrap_or(f64::INFINITY),
            stack: self.stack,
            outcome,
        })
    }
}

fn with_aside(text: String, aside: usize) -> String {
    match aside {
        0 => text,
        1 => format!("{text}; 1 instance does not keep the rule"),
        _ => format!("{text}; {aside} instances do not keep the rule"),
    }
}

/// A reason about one instance, as it stands among its series' reasons.
fn named(instance: &str, reason: &Reason) -> Reason {
    Reason { code: reason.code.clone(), text: format!("instance {instance}: {}", reason.text) }
}

/// The largest set of images with one matrix, spacing, orientation and frame of reference; the rest is named. Positions
/// in different frames of reference do not compare (PS3.3 C.7.4.1).
fn largest_group(images: Vec<InstanceHeader>) -> (Vec<InstanceHeader>, Vec<Reason>) {
    let mut groups: Vec<(ImagePlane, Option<Uid>, Vec<InstanceHeader>)> = Vec::new();
    for image in images {
        let Ok(plane) = image.plane else { continue };
        let alike = |other: &ImagePlane, frame_of_reference: &Option<Uid>| {
            *frame_of_reference == image.frame_of_reference
                && other.rows == plane.rows
                && other.columns == plane.columns
                && other.spacing.iter().zip(plane.spacing).all(|(a, b)| (a - b).abs() <= 1e-3 * b)
                && other.is_parallel_to(&plane, PARALLEL)
        };
        match groups.iter_mut().find(|(other, frame_of_reference, _)| alike(other, frame_of_reference)) {
            Some((_, _, members)) => members.push(image),
            None => groups.push((plane, image.frame_of_reference.clone(), vec![image])),
        }
    }
    let mut reasons = Vec::new();
    let Some(largest) = (0..groups.len()).max_by_key(|index| (groups[*index].2.len(), usize::MAX - index)) else {
        return (Vec::new(), reasons);
    };
    let (_, _, kept) = groups.swap_remove(largest);
    for image in groups.iter().flat_map(|(_, _, members)| members) {
        let text = "another matrix, pixel spacing, orientation or frame of reference than most of the series";
        reasons.push(named(&image.label(), &Reason::new("other-geometry", text)));
    }
    (kept, reasons)
}
