//! The summary as a page of text.

use std::fmt::Write as _;

use super::Auc;
use super::summary::{CalibrationErrors, Counts, Overlap, Report};
use crate::metrics::Summary;

impl Report {
    /// The report as a page of text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = String::new();
        let mut line = |text: String| {
            let _ = writeln!(page, "{text}");
        };
        let Counts { studies, positive_studies, slices, bleeding_slices } = self.counts;
        line(format!("{}: {}", self.model, self.notice));
        line(format!(
            "held-out phantoms {}..{}: {studies} studies ({positive_studies} positive), {slices} slices ({bleeding_slices} bleeding)",
            self.seeds.first,
            self.seeds.first + self.seeds.studies - 1
        ));
        line(format!(
            "slice AUC            {}, each slice by itself {}",
            show_auc(self.slices.auc),
            show_auc(self.lone_slices)
        ));
        line(format!(
            "  brightness rule    {}, each slice by itself {}",
            show_auc(self.slices_by_consistent_brightness),
            show_auc(self.slices_by_brightness)
        ));
        for (name, d) in [("slices", &self.slices), ("studies", &self.studies)] {
            line(format!(
                "{name:<20} sensitivity {:.3}, specificity {:.3}, F1 {:.3}",
                d.sensitivity, d.specificity, d.f1
            ));
        }
        line("Dice / IoU on bleeding slices (mean ± SD [95 % over studies]):".to_owned());
        for (method, overlap) in &self.maps {
            let mark = if *method == self.thresholds.served { " (served)" } else { "" };
            line(format!("  {:<44} {}", format!("{}{mark}", method.title()), show_overlap(overlap)));
        }
        for (method, overlap) in &self.refined {
            line(format!("  {:<44} {}", format!("{}, refined", method.title()), show_overlap(overlap)));
        }
        line(format!("  {:<44} {}", "as served, slices not called count 0", show_overlap(&self.served)));
        line(format!("  {:<44} {}", "brightness rule", show_overlap(&self.brightness)));
        for (name, group) in &self.groups {
            let dice =
                group.dice.map_or_else(|| "-".to_owned(), |d| format!("{:.3} ± {:.3} (n = {})", d.mean, d.sd, d.n));
            line(format!("  {name:<24} sensitivity {:.3}, Dice {dice}", group.sensitivity));
        }
        line(format!("study AUC            {}", show_auc(self.studies.auc)));
        if let Some(CalibrationErrors { slices, studies }) = self.calibration {
            line(format!("expected calibration error: slices {slices:.3}, studies {studies:.3}"));
        }
        if let Some(volume) = self.volume {
            line(format!(
                "volume of positive studies: error {:+.1} ± {:.1} mL, absolute {:.1} mL",
                volume.error_ml.mean, volume.error_ml.sd, volume.absolute_error_ml.mean
            ));
        }
        page
    }
}

fn show_auc(auc: Option<Auc>) -> String {
    let Some(auc) = auc else { return "-".to_owned() };
    let interval = auc.interval.map_or_else(String::new, |i| format!(" [{:.3}, {:.3}]", i.low, i.high));
    format!("{:.4}{interval}", auc.auc)
}

fn show_overlap(overlap: &Overlap) -> String {
    let show = |summary: Option<Summary>| {
        let Some(s) = summary else { return "-".to_owned() };
        let interval = s.interval.map_or_else(String::new, |i| format!(" [{:.3}, {:.3}]", i.low, i.high));
        format!("{:.3} ± {:.3}{interval}", s.mean, s.sd)
    };
    format!("{} / {}", show(overlap.dice), show(overlap.iou))
}
