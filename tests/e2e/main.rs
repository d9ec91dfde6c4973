//! The whole binary between real counterparts: DCMTK as the scanner, Orthanc as the PACS, dciodvfy and highdicom as
//! judges. Everything runs on loopback, on free ports, in temporary folders, and is ended by the test that began it.
//!
//! A test that misses a tool says so on standard error and passes; with `ICHOR_REQUIRE_TOOLS=1` it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

mod admin;
mod alert_latency;
mod audit;
mod bad_input;
mod care;
mod chaos;
mod cli;
mod commitment;
mod compressed;
mod decoder;
mod delivery;
mod demo;
mod disk_full;
mod doctor;
mod enhanced;
mod explain;
mod fhir;
mod forward;
mod gate;
mod kills;
mod logging;
mod lookup;
mod main_job;
mod models;
mod oidc;
mod outage;
mod pages;
mod papers;
mod places;
mod proof;
mod real_series;
mod reload;
mod reports;
mod restart;
mod retention;
mod route;
mod store_faults;
mod stow;
mod tasks;
mod telemetry;
mod tell;
mod tls;
mod transport;
mod triage;
mod ups;
mod viewer;
mod web;
