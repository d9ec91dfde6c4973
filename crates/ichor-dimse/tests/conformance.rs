//! The tables of `docs/conformance.md` that speak of negotiation, held against what is negotiated by default.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

use ichor_core::AeTitle;
use ichor_dimse::scp::{CommitmentLimits, ScpOptions};
use ichor_dimse::uids;

const STATEMENT: &str = include_str!("../../../docs/conformance.md");

/// The UIDs of the table behind `<!-- table: NAME -->`: the first of each row that stands in backticks and is one.
fn table(name: &str) -> Vec<&'static str> {
    let marker = format!("<!-- table: {name} -->");
    let (_, behind) = STATEMENT.split_once(&marker).unwrap_or_else(|| panic!("no {marker}"));
    let rows = behind.lines().skip(1).take_while(|line| line.starts_with('|'));
    let is_uid = |text: &&str| text.contains('.') && text.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    rows.filter_map(|row| row.split('`').skip(1).step_by(2).find(is_uid)).collect()
}

/// The default options, as the daemon starts from them.
fn options() -> ScpOptions {
    ScpOptions::new(AeTitle::parse("ICHOR").unwrap()).with_commitment(CommitmentLimits::default())
}

#[test]
fn storage_sop_classes_are_those_of_the_statement() {
    let accepted: Vec<&str> =
        options().sop_classes.iter().filter(|rule| rule.is_storage()).map(|rule| rule.sop_class).collect();
    assert_eq!(table("storage"), accepted);
}

#[test]
fn other_services_are_those_of_the_statement() {
    let options = options();
    let others: Vec<&str> =
        options.sop_classes.iter().filter(|rule| !rule.is_storage()).map(|rule| rule.sop_class).collect();
    assert_eq!(table("services"), others);
    for rule in options.sop_classes.iter().filter(|rule| !rule.is_storage()) {
        assert_eq!(rule.transfer_syntaxes, [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN]);
    }
}

#[test]
fn transfer_syntaxes_are_those_of_the_statement() {
    let listed = table("transfer-syntaxes");
    for rule in options().sop_classes.iter().filter(|rule| rule.is_storage()) {
        assert_eq!(rule.transfer_syntaxes, listed, "{}", rule.sop_class);
    }
}

#[test]
fn implementation_is_named_as_in_the_statement() {
    assert!(STATEMENT.contains(&format!("`{}`", ichor_core::IMPLEMENTATION_CLASS_UID)));
    assert!(STATEMENT.contains(&format!("`{}`", uids::APPLICATION_CONTEXT)));
}
