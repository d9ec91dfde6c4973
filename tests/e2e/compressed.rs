//! Every transfer syntax that CT comes in gives the same result as the uncompressed study.

use std::path::Path;

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::{StoreScu, converted};
use crate::support::seconds;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;

/// Name, transfer syntax UID, the converter with its options, and what storescu has to propose.
const SYNTAXES: [(&str, &str, &str, &[&str], &str); 8] = [
    ("implicit VR little endian", "1.2.840.10008.1.2", "dcmconv", &["+ti"], "-xi"),
    ("explicit VR big endian", "1.2.840.10008.1.2.2", "dcmconv", &["+tb"], "-xb"),
    ("deflated", "1.2.840.10008.1.2.1.99", "dcmconv", &["+td"], "-xd"),
    ("RLE", "1.2.840.10008.1.2.5", "dcmcrle", &[], "-xr"),
    ("JPEG lossless", "1.2.840.10008.1.2.4.70", "dcmcjpeg", &["+e1"], "-xs"),
    ("JPEG-LS lossless", "1.2.840.10008.1.2.4.80", "dcmcjpls", &["+el"], "-xt"),
    ("JPEG 2000 lossless", "1.2.840.10008.1.2.4.90", "gdcmconv", &["--j2k"], "-xv"),
    ("explicit VR little endian", "1.2.840.10008.1.2.1", "dcmconv", &["+te"], "-xe"),
];

fn encode(study: &Study, folder: &Path, index: usize) -> Study {
    let (name, uid, tool, options, _) = SYNTAXES[index];
    // UIDs of its own, so that the daemon takes it for another study.
    let own = study.restamped(&folder.join("plain"), &format!("{}", index + 1));
    let encoded = converted(&own, &folder.join("encoded"), tool, options);
    assert!(encoded.instances.iter().all(|i| i.transfer_syntax == uid), "{name}: {:?}", encoded.instances[0]);
    encoded
}

#[test]
fn each_transfer_syntax_gives_the_same_result() {
    requires!(Dcmtk, Gdcm);
    let daemon = Daemon::start(&Settings::default());
    let study = Phantom::BLEEDING.slices(12).write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(12);
    let encoded: Vec<Study> = (0..SYNTAXES.len())
        .map(|index| {
            let encoded = encode(&study, &daemon.folder(&format!("syntax-{index}")), index);
            StoreScu::to(daemon.port).option(SYNTAXES[index].4).send(&encoded).expect_all(12);
            encoded
        })
        .collect();

    let plain = daemon.wait_for_status(&study.study_uid, "analysed", seconds(40));
    assert!(plain["probability"].is_number(), "{plain}");
    for (study, (name, ..)) in encoded.iter().zip(SYNTAXES) {
        let entry = daemon.wait_for_end(&study.study_uid, seconds(40));
        for key in ["status", "positive", "probability", "volume_ml"] {
            assert_eq!(entry[key], plain[key], "{key} of {name}: {}", daemon.why(&study.study_uid));
        }
    }
}

#[test]
fn received_bytes_are_kept_as_received() {
    requires!(Dcmtk);
    let daemon = Daemon::start(&Settings::default());
    let study = Phantom::BLEEDING.slices(6).matrix(128).write(&daemon.folder("study"));
    let study = converted(&study, &daemon.folder("encoded"), "dcmcjpls", &["+el"]);
    let syntaxes: &[&str] = &["1.2.840.10008.1.2.4.80"];
    let contexts = [(crate::support::raw::CT_IMAGE, syntaxes)];
    let mut association = crate::support::raw::RawAssociation::propose(daemon.port, "STORESCU", &contexts).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    let stored = daemon.stored_data_sets();
    for instance in &study.instances {
        let sent = crate::support::part10::data_set(&instance.path);
        assert!(stored[&instance.sop_instance] == [sent], "{} was changed", instance.sop_instance);
    }
}
