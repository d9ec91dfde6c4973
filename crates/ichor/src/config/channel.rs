//! `[[channel]]`: who is told what happens to studies.

use std::path::{Path, PathBuf};

use ichor_core::Subject;
use ichor_dimse::tls::ClientTls;
use ichor_worklist::fhir::{ImagingStudyPolicy, Naming};
use ichor_worklist::hl7::{Charset, Template};
use serde::{Deserialize, Serialize};

use super::keys::{HttpTls, named, resolve, with_tls_files};
use super::{Durations, Fault, host_and_port, none_is_set};

with_tls_files! {
    /// `[[channel]]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct ChannelConfig {
        /// Name, unique; stands in the job log.
        pub(crate) name: String,
        /// `hl7`, `fhir` or `webhook`.
        pub(crate) kind: ChannelKind,
        /// What it is told.
        #[serde(default = "default::subjects")]
        pub(crate) subjects: Vec<Subject>,
        /// First wait after a failure, in seconds; doubles up to the longest, with jitter.
        #[serde(default = "default::first_backoff_s")]
        pub(crate) first_backoff_s: f64,
        /// Longest wait, in seconds.
        #[serde(default = "default::max_backoff_s")]
        pub(crate) max_backoff_s: f64,
        /// Attempts before a message is given up as dead; 0: never.
        #[serde(default)]
        pub(crate) attempts: u32,
        /// Time for connecting and for the answer, in seconds.
        #[serde(default = "default::timeout_s")]
        pub(crate) timeout_s: f64,
        /// HL7: `host:port`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) address: Option<String>,
        /// HL7: `oru` (default), `orm`, `omg`, or the file of a template.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) template: Option<String>,
        /// HL7: how long a message about an order waits for the accession number, in seconds; absent: 10.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) order_wait_s: Option<f64>,
        /// HL7: MSH-3; absent: ICHOR.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) sending_application: Option<String>,
        /// HL7: MSH-4.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) sending_facility: Option<String>,
        /// HL7: MSH-5.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) receiving_application: Option<String>,
        /// HL7: MSH-6.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) receiving_facility: Option<String>,
        /// HL7: MSH-11, `P`, `T` or `D`; absent: `P`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) processing_id: Option<String>,
        /// HL7: `utf-8`, `8859-1` or `ascii`; absent: `utf-8`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) charset: Option<CharsetName>,
        /// HL7: whether to speak TLS; absent: no.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) tls: Option<bool>,
        /// HL7: name that the receiver's certificate must have, if not the host of its address.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) tls_server_name: Option<String>,
        /// HL7: whether the receiver's certificate must have that name; absent: yes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) tls_check_name: Option<bool>,
        /// Webhook, FHIR: where to.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) url: Option<String>,
        /// Webhook: file that holds the signing secret.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) secret_file: Option<PathBuf>,
        /// FHIR: file that holds the bearer token.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) bearer_token_file: Option<PathBuf>,
        /// Webhook: whether the receiver is told who the patient is; absent: no.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) with_patient: Option<bool>,
        /// FHIR: namespace of Patient IDs, a URI; absent: none is named.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) patient_system: Option<String>,
        /// FHIR: namespace of accession numbers, a URI; absent: none is named.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) accession_system: Option<String>,
        /// FHIR: `create` or `update`; absent: `create`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) imaging_study: Option<ImagingStudyName>,
    }
}

/// The ways to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChannelKind {
    /// HL7 v2 over MLLP.
    Hl7,
    /// A transaction of FHIR resources.
    Fhir,
    /// A signed POST.
    Webhook,
}

/// What becomes of the FHIR server's record of the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ImagingStudyName {
    /// Created where there is none.
    Create,
    /// Kept up to date.
    Update,
}

/// MSH-18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CharsetName {
    /// UNICODE UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// 8859/1.
    #[serde(rename = "8859-1")]
    Latin1,
    /// None named.
    #[serde(rename = "ascii")]
    Ascii,
}

/// A channel's kind together with the keys that belong to it.
#[derive(Clone, Debug)]
pub(crate) enum ChannelEnd {
    /// HL7 v2 over MLLP.
    Hl7 {
        /// `host:port`.
        address: String,
        /// Which message.
        template: Template,
        /// MSH-3 and MSH-4.
        sending: (String, String),
        /// MSH-5 and MSH-6.
        receiving: (String, String),
        /// MSH-11.
        processing_id: String,
        /// MSH-18.
        charset: Charset,
        /// How to speak TLS, if so.
        tls: Option<ClientTls>,
    },
    /// A transaction of FHIR resources.
    Fhir {
        /// Base URL.
        url: String,
        /// The bearer token.
        token_file: Option<PathBuf>,
        /// Certificates.
        tls: HttpTls,
        /// Names of the site.
        naming: Naming,
    },
    /// A signed POST.
    Webhook {
        /// Where to.
        url: String,
        /// The signing secret.
        secret_file: PathBuf,
        /// Certificates.
        tls: HttpTls,
        /// Whether it is told who the patient is.
        with_patient: bool,
    },
}

impl ChannelConfig {
    /// The kind together with its keys.
    ///
    /// # Errors
    /// A sentence about the key that is missing, belongs to the other kind, or cannot be right.
    pub(crate) fn end(&self) -> Result<ChannelEnd, String> {
        named(&self.name)?;
        if self.subjects.is_empty() {
            return Err("subjects is empty: nothing would be told".to_owned());
        }
        let hl7_keys = [
            ("address", self.address.is_some()),
            ("template", self.template.is_some()),
            ("order_wait_s", self.order_wait_s.is_some()),
            ("sending_application", self.sending_application.is_some()),
            ("sending_facility", self.sending_facility.is_some()),
            ("receiving_application", self.receiving_application.is_some()),
            ("receiving_facility", self.receiving_facility.is_some()),
            ("processing_id", self.processing_id.is_some()),
            ("charset", self.charset.is_some()),
        ];
        let hl7_tls_keys = [
            ("tls", self.tls.is_some()),
            ("tls_server_name", self.tls_server_name.is_some()),
            ("tls_check_name", self.tls_check_name.is_some()),
        ];
        let http_keys = [("url", self.url.is_some())];
        let webhook_keys = [("secret_file", self.secret_file.is_some()), ("with_patient", self.with_patient.is_some())];
        let fhir_keys = [
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("patient_system", self.patient_system.is_some()),
            ("accession_system", self.accession_system.is_some()),
            ("imaging_study", self.imaging_study.is_some()),
        ];
        let foreign: [&[(&str, bool)]; 3] = match self.kind {
            ChannelKind::Hl7 => [&http_keys, &webhook_keys, &fhir_keys],
            ChannelKind::Fhir => [&hl7_keys, &hl7_tls_keys, &webhook_keys],
            ChannelKind::Webhook => [&hl7_keys, &hl7_tls_keys, &fhir_keys],
        };
        let kind = match self.kind {
            ChannelKind::Hl7 => "hl7",
            ChannelKind::Fhir => "fhir",
            ChannelKind::Webhook => "webhook",
        };
        foreign.into_iter().try_for_each(|keys| none_is_set(keys, kind))?;
        match self.kind {
            ChannelKind::Hl7 => self.hl7_end(),
            ChannelKind::Fhir => self.fhir_end(),
            ChannelKind::Webhook => self.webhook_end(),
        }
    }

    fn hl7_end(&self) -> Result<ChannelEnd, String> {
        let address = self.address.clone().ok_or("kind hl7 needs the key address")?;
        host_and_port(&address)?;
        let processing_id = self.processing_id.clone().unwrap_or_else(|| "P".to_owned());
        if !["P", "T", "D"].contains(&processing_id.as_str()) {
            return Err(format!("processing_id {processing_id:?} is none of P, T, D"));
        }
        let text = |key: &Option<String>, absent: &str| key.clone().unwrap_or_else(|| absent.to_owned());
        Ok(ChannelEnd::Hl7 {
            address,
            template: match self.template.as_deref() {
                None | Some("oru") => Template::Oru,
                Some("orm") => Template::Orm,
                Some("omg") => Template::Omg,
                Some(path) => Template::File(path.into()),
            },
            sending: (text(&self.sending_application, "ICHOR"), text(&self.sending_facility, "")),
            receiving: (text(&self.receiving_application, ""), text(&self.receiving_facility, "")),
            processing_id,
            charset: match self.charset {
                None | Some(CharsetName::Utf8) => Charset::Utf8,
                Some(CharsetName::Latin1) => Charset::Latin1,
                Some(CharsetName::Ascii) => Charset::Ascii,
            },
            tls: self.tls_files().client(
                self.tls.unwrap_or(false),
                self.tls_server_name.as_deref(),
                self.tls_check_name,
            )?,
        })
    }

    /// How long a message about an order waits for the accession number, in seconds.
    pub(crate) fn order_wait(&self) -> f64 {
        self.order_wait_s.unwrap_or_else(default::order_wait_s)
    }

    /// URL and certificates of a kind that speaks HTTP.
    fn http_end(&self, kind: &str) -> Result<(String, HttpTls), String> {
        let url = self.url.clone().ok_or_else(|| format!("kind {kind} needs the key url"))?;
        let tls = self.tls_files().http(&url)?;
        Ok((url, tls))
    }

    fn fhir_end(&self) -> Result<ChannelEnd, String> {
        let (url, tls) = self.http_end("fhir")?;
        if self.subjects.contains(&Subject::DeliveryDead) {
            return Err(format!("subjects: {} is no result of a study, FHIR cannot say it", Subject::DeliveryDead));
        }
        for (key, system) in [("patient_system", &self.patient_system), ("accession_system", &self.accession_system)] {
            if let Some(system) = system.as_deref()
                && (!system.contains(':') || system.chars().any(|c| c.is_whitespace() || c.is_control()))
            {
                return Err(format!("{key} {system:?} is no URI, such as urn:oid:1.2.3 or https://example.org/mrn"));
            }
        }
        let naming = Naming {
            patient_system: self.patient_system.clone(),
            accession_system: self.accession_system.clone(),
            imaging_study: match self.imaging_study {
                None | Some(ImagingStudyName::Create) => ImagingStudyPolicy::Create,
                Some(ImagingStudyName::Update) => ImagingStudyPolicy::Update,
            },
        };
        Ok(ChannelEnd::Fhir { url, token_file: self.bearer_token_file.clone(), tls, naming })
    }

    fn webhook_end(&self) -> Result<ChannelEnd, String> {
        let (url, tls) = self.http_end("webhook")?;
        Ok(ChannelEnd::Webhook {
            url,
            secret_file: self.secret_file.clone().ok_or("kind webhook needs the key secret_file")?,
            tls,
            with_patient: self.with_patient.unwrap_or(false),
        })
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.resolve_tls_files(folder);
        resolve([&mut self.secret_file, &mut self.bearer_token_file], folder);
        if let Some(template) = self.template.as_mut().filter(|name| !["oru", "orm", "omg"].contains(&name.as_str())) {
            *template = folder.join(&template).to_string_lossy().into_owned();
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        self.end().map(drop).map_err(|message| (format!("channel {:?}", self.name), message))
    }

    pub(super) fn durations(&self) -> Durations {
        let key = |name: &str| format!("channel {:?} {name}", self.name);
        vec![
            (key("first_backoff_s"), self.first_backoff_s),
            (key("max_backoff_s"), self.max_backoff_s),
            (key("timeout_s"), self.timeout_s),
            (key("order_wait_s"), self.order_wait()),
        ]
    }
}

/// The defaults of single keys.
mod default {
    use ichor_core::Subject;

    pub(super) fn subjects() -> Vec<Subject> {
        use Subject::{Alert, AlertWithdrawn, Failed, Negative, NotAnalysed, Positive};
        vec![Alert, AlertWithdrawn, Positive, Negative, NotAnalysed, Failed]
    }
    pub(super) const fn order_wait_s() -> f64 {
        10.0
    }
    pub(super) const fn first_backoff_s() -> f64 {
        1.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        60.0
    }
    pub(super) const fn timeout_s() -> f64 {
        10.0
    }
}
