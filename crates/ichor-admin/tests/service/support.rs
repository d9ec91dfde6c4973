//! A service over a store in a temporary folder, and a browser of few words.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use ichor_admin::{
    AccessOptions, ActiveModel, Admin, Facts, ModelFacts, Overlay, PictureFault, Pictures, WantedPicture,
};
use ichor_core::{AeTitle, Finding, Reason, Uid, Verdict as Call};
use ichor_store::{
    AnalysisOutcome, MapPlace, NewInstance, NewObject, SeriesAttributes, SeriesOutcomeRow, SliceScore, Store,
    StoreOptions, StudyAttributes, Timestamp, Verdict,
};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tower::ServiceExt;

static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000);

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(NOW.load(Ordering::Relaxed))
}

/// Says what it was asked to draw.
struct Words;

impl Pictures for Words {
    fn draw(&self, wanted: &WantedPicture) -> Result<Vec<u8>, PictureFault> {
        if wanted.frame == Some(9) {
            return Err(PictureFault::Unreadable("there is no such frame".to_owned()));
        }
        let overlay = match &wanted.overlay {
            Overlay::None => "nothing".to_owned(),
            Overlay::Outline(..) => "outline".to_owned(),
            Overlay::Map(map) => format!("map {} {}", map.place.offset, map.place.bytes),
        };
        Ok(format!("{:?} {overlay}", wanted.window).into_bytes())
    }
}

pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) admin: Admin,
    pub(crate) active: ActiveModel,
    routes: Router,
    folder: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The detail of a refusal.
    pub(crate) fn refusal(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        problem["detail"].as_str().unwrap().to_owned()
    }

    pub(crate) fn cookie(&self) -> String {
        let line = self.headers["set-cookie"].to_str().unwrap();
        line.split(';').next().unwrap().to_owned()
    }
}

/// Somebody with headers to show.
#[derive(Clone, Default)]
pub(crate) struct Who(pub(crate) Vec<(String, String)>);

impl Who {
    pub(crate) fn token(token: &str) -> Self {
        Self(vec![("authorization".to_owned(), format!("Bearer {token}"))])
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(AccessOptions::default()).await
    }

    pub(crate) async fn with(access: AccessOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
        let store = Store::open(&options).await.unwrap();
        let active = ActiveModel::default();
        active.set(Some(ModelFacts {
            id: "ichor-demo@1.0.0+0123456789ab".to_owned(),
            notice: Some("demonstration weights".to_owned()),
            slice_threshold: 0.5,
            study_rule: "2 neighbouring slices from 0.5".to_owned(),
            map: "map".to_owned(),
            is_refined: true,
            precision: "f32".to_owned(),
        }));
        let facts = Facts {
            store: store.clone(),
            database: options.database,
            min_free_bytes: 0,
            active: active.clone(),
            site: tokio::sync::watch::channel(Arc::new(ichor_admin::Site {
                zone: ichor_core::Zone::parse("Asia/Kolkata").unwrap(),
                longest_overtaken: std::time::Duration::from_secs(900),
                destinations: vec!["pacs".to_owned()],
                channels: Vec::new(),
                task_lists: vec!["tasks <1>".to_owned()],
                configuration: serde_json::json!({ "x": { "password": "s3cret" } }),
            }))
            .1,
            pictures: Arc::new(Words),
            access,
            url: "http://ichor".to_owned(),
            oidc: None,
            version: "0",
            now,
        };
        let admin = Admin::new(facts).unwrap();
        Self { routes: admin.routes(), store, admin, active, folder }
    }

    /// Breaks the audit trail, or mends it.
    pub(crate) async fn break_audit(&self, is_broken: bool) {
        let statement = if is_broken {
            "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit trail'); END"
        } else {
            "DROP TRIGGER broken"
        };
        self.sql(statement).await;
    }

    /// Changes the database behind the store's back.
    pub(crate) async fn sql(&self, statement: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("ichor.db"));
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    pub(crate) async fn ask(&self, who: &Who, method: &str, path: &str, body: Option<(&str, &str)>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "ichor");
        for (name, value) in &who.0 {
            request = request.header(name, value);
        }
        let body = body.map_or_else(Body::empty, |(kind, text)| {
            request = std::mem::take(&mut request).header("content-type", kind);
            Body::from(text.to_owned())
        });
        let response = self.routes.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, who: &Who, path: &str) -> Answer {
        self.ask(who, "GET", path, None).await
    }

    pub(crate) async fn post(&self, who: &Who, path: &str, json: &str) -> Answer {
        self.ask(who, "POST", path, Some(("application/json", json))).await
    }

    pub(crate) async fn form(&self, who: &Who, path: &str, form: &str) -> Answer {
        self.ask(who, "POST", path, Some(("application/x-www-form-urlencoded", form))).await
    }

    /// The first admin: their cookie and the word that changes repeat.
    pub(crate) async fn first_admin(&self) -> Who {
        let link = self.admin.first_link().await.unwrap().unwrap();
        let code = link.split_once("code=").unwrap().1;
        self.choose_password(code, "anna").await
    }

    pub(crate) async fn choose_password(&self, code: &str, name: &str) -> Who {
        let form = format!("code={code}&name={name}&password=seven+grey+pianos&again=seven+grey+pianos");
        let answer = self.form(&Who::default(), "/welcome", &form).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        self.browser(&answer).await
    }

    /// A browser with a session: the cookie, and the word from a page.
    pub(crate) async fn browser(&self, came_in: &Answer) -> Who {
        let cookie = Who::default().with("cookie", &came_in.cookie());
        let page = self.get(&cookie, "/").await.text;
        let csrf = page.split_once("name=\"csrf\" content=\"").unwrap().1.split('"').next().unwrap();
        cookie.with("x-csrf-token", csrf)
    }

    /// A user of a role, by a token.
    pub(crate) async fn user(&self, admin: &Who, name: &str, role: &str) -> Who {
        let made = self.post(admin, "/api/users", &format!("{{\"name\":\"{name}\",\"role\":\"{role}\"}}")).await;
        let link = made.json()["link"].as_str().unwrap().to_owned();
        let browser = self.choose_password(link.split_once("code=").unwrap().1, "").await;
        let token = self.post(&browser, "/api/tokens", "{\"label\":\"test\"}").await;
        Who::token(token.json()["token"].as_str().unwrap())
    }

    /// A study of a few slices, closed; one called `unordered` has no accession number and stays open.
    pub(crate) async fn study(&self, name: &str, patient: &str) -> Uid {
        let study = Uid::derive(["study", name]);
        NOW.fetch_add(1_000, Ordering::Relaxed);
        for number in 0..4 {
            let mut blob = self.store.blobs().begin().await.unwrap();
            blob.write(b"pixels").await.unwrap();
            let arrived = self.store.blobs().finish_in_place(blob).await.unwrap();
            let instance = NewInstance {
                sop_instance: Uid::derive(["slice", name, &number.to_string()]),
                sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
                study: StudyAttributes {
                    study_instance: study.clone(),
                    patient_id: Some(format!("ID-{name}")),
                    patient_name: Some(patient.to_owned()),
                    accession_number: (name != "unordered").then(|| format!("ACC-{name}")),
                    study_date: Some("20260301".to_owned()),
                    description: Some("HEAD".to_owned()),
                },
                series: SeriesAttributes {
                    series_instance: Uid::derive(["series", name]),
                    modality: Some("CT".to_owned()),
                    description: None,
                    number: Some(2),
                },
                transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
                association: None,
                source_ae: Some(AeTitle::parse("SCANNER").unwrap()),
                arrived,
                quiet_period_ms: 1_000,
                own: false,
                max_study_instances: 100,
            };
            self.store.record_instance(instance, now()).await.unwrap();
        }
        if name != "unordered" {
            self.store.close_quiet_studies(now().after(Duration::from_secs(2))).await.unwrap();
        }
        study
    }

    /// Analyses the study that waits longest.
    pub(crate) async fn analyse(&self, verdict: Option<bool>) {
        let later = now().after(Duration::from_secs(3));
        let claim = self.store.claim_analysis("w", later).await.unwrap().unwrap();
        let mut staged = self.store.blobs().begin().await.unwrap();
        staged.write(b"segmentation").await.unwrap();
        let object = NewObject {
            kind: "seg".to_owned(),
            sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.66.4").unwrap(),
            sop_instance: Uid::derive(["seg", claim.study.study_instance.as_str()]),
            series_instance: Uid::derive(["seg series", claim.study.study_instance.as_str()]),
            transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
            destinations: vec!["pacs".to_owned()],
            staged: staged.finish().await.unwrap(),
        };
        // Slices 1 and 2 of a positive study have maps.
        let mut pages = self.store.blobs().begin().await.unwrap();
        pages.write(b"firstsecond").await.unwrap();
        let maps = if verdict == Some(true) { Some(pages.finish().await.unwrap()) } else { None };
        let place = |number| match number {
            1 => Some(MapPlace { offset: 0, bytes: 5 }),
            2 => Some(MapPlace { offset: 5, bytes: 6 }),
            _ => None,
        };
        let call = |positive| if positive { Call::Positive } else { Call::Negative };
        let finding = |positive: bool| Finding {
            verdict: call(positive),
            probability: if positive { 0.97 } else { 0.03 },
            volume_ml: if positive { 23.5 } else { 0.0 },
            volume_sd_ml: None,
            positive_slices: 2,
            slices: 4,
            lesions_ml: vec![20.0, 3.5],
        };
        let outcome = AnalysisOutcome {
            routed: None,
            verdict: match verdict {
                Some(positive) => Verdict::Analysed(finding(positive)),
                None => Verdict::NotAnalysed(Reason::new("single-slice", "the study has one slice")),
            },
            model: verdict.map(|_| "ichor-demo@1.0.0+0123456789ab".parse().unwrap()),
            notice: None,
            series: vec![SeriesOutcomeRow {
                series_instance: claim.instances[0].series_instance.clone(),
                chosen: verdict.is_some(),
                reasons: Vec::new(),
                rules: Vec::new(),
            }],
            slices: (claim.instances.iter().zip(0..).filter(|_| verdict.is_some()))
                .map(|(instance, number)| SliceScore {
                    sop_instance: instance.sop_instance.clone(),
                    frame: None,
                    probability: 0.5,
                    masked_pixels: 7,
                    map: maps.as_ref().and_then(|_| place(number)),
                })
                .collect(),
            objects: if verdict.is_some() { vec![object] } else { Vec::new() },
            maps,
            slices_known: 0,
            timings: vec![("classify".to_owned(), 1_200)],
        };
        self.store.complete_analysis(claim, outcome, later).await.unwrap();
    }
}
