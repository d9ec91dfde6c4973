//! `[telemetry]`: traces for OpenTelemetry.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keys::{resolve, with_tls_files};
use super::{Durations, Fault, at_least_one, between, fault};

with_tls_files! {
    /// `[telemetry]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct TelemetryConfig {
        /// Whole URL of a collector's OTLP/HTTP service for traces.
        pub(crate) endpoint: String,
        /// File with further headers, one `Name: value` a line.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) headers_file: Option<PathBuf>,
        /// `service.name`
        #[serde(default = "default::service_name")]
        pub(crate) service_name: String,
        /// `service.instance.id`; absent: the AE title.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) service_instance: Option<String>,
        /// The part of the traces that is exported, 0 to 1.
        #[serde(default = "default::sampling_ratio")]
        pub(crate) sampling_ratio: f64,
        /// So long after a study's last event it is exported, if nothing is on its way, in seconds.
        #[serde(default = "default::settle_s")]
        pub(crate) settle_s: f64,
        /// So long after its first event it is exported as far as it has come, in seconds.
        #[serde(default = "default::longest_wait_s")]
        pub(crate) longest_wait_s: f64,
        /// Spans of one request.
        #[serde(default = "default::spans_a_request")]
        pub(crate) spans_a_request: usize,
        /// Time for connecting and for the answer, in seconds.
        #[serde(default = "default::timeout_s")]
        pub(crate) timeout_s: f64,
        /// First wait after a failure, in seconds; doubles up to the longest, with jitter.
        #[serde(default = "default::first_backoff_s")]
        pub(crate) first_backoff_s: f64,
        /// Longest wait, in seconds.
        #[serde(default = "default::max_backoff_s")]
        pub(crate) max_backoff_s: f64,
    }
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let is_secure = self.endpoint.starts_with("https://");
        if !is_secure && !self.endpoint.starts_with("http://") {
            let what = format!("{:?} does not start with http:// or https://", self.endpoint);
            return fault("telemetry.endpoint", what);
        }
        self.tls_files().identity().or_else(|message| fault("telemetry.tls_certificate_file", message))?;
        self.tls_files().http(&self.endpoint).or_else(|message| fault("telemetry.tls_ca_file", message))?;
        if self.service_name.trim().is_empty() {
            return fault("telemetry.service_name", "is empty".to_owned());
        }
        at_least_one("telemetry.spans_a_request", self.spans_a_request)?;
        between("telemetry.sampling_ratio", self.sampling_ratio, 1.0)
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.resolve_tls_files(folder);
        resolve([&mut self.headers_file], folder);
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("telemetry.settle_s".to_owned(), self.settle_s),
            ("telemetry.longest_wait_s".to_owned(), self.longest_wait_s),
            ("telemetry.timeout_s".to_owned(), self.timeout_s),
            ("telemetry.first_backoff_s".to_owned(), self.first_backoff_s),
            ("telemetry.max_backoff_s".to_owned(), self.max_backoff_s),
        ]
    }
}

/// The defaults of single keys.
mod default {
    pub(super) fn service_name() -> String {
        "ichor".to_owned()
    }
    pub(super) const fn sampling_ratio() -> f64 {
        1.0
    }
    pub(super) const fn settle_s() -> f64 {
        5.0
    }
    pub(super) const fn longest_wait_s() -> f64 {
        3600.0
    }
    pub(super) const fn spans_a_request() -> usize {
        500
    }
    pub(super) const fn timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn first_backoff_s() -> f64 {
        1.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        300.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let of = |text: &str| toml::from_str::<TelemetryConfig>(text).unwrap().check();
        of("endpoint = 'http://localhost:4318/v1/traces'").unwrap();
        for (line, key) in [
            ("endpoint = 'localhost:4318'", "telemetry.endpoint"),
            ("endpoint = 'https://c'\ntls_key_file = 'k'", "telemetry.tls_certificate_file"),
            ("endpoint = 'http://c'\ntls_ca_file = 'a'", "telemetry.tls_ca_file"),
            ("endpoint = 'http://c'\nsampling_ratio = 1.5", "telemetry.sampling_ratio"),
            ("endpoint = 'http://c'\nservice_name = ' '", "telemetry.service_name"),
            ("endpoint = 'http://c'\nspans_a_request = 0", "telemetry.spans_a_request"),
        ] {
            assert_eq!(of(line).unwrap_err().0, key, "{line}");
        }
    }
}
