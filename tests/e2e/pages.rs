//! The pages in a browser: what a radiologist and an administrator see.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::Value;

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, ICHOR, Settings, repository};
use crate::support::dcmtk::StoreScu;
use crate::support::study::{Study, put_text};
use crate::support::task_manager::{TaskManager, Wanted};
use crate::support::tools::{CHROMIUM, requires, viewer};
use crate::support::viewer::artefacts;
use crate::support::{eventually, free_port, seconds};

const NAMES: [&str; 3] = ["O'Brien^<script>alert(1)</script>", "Yamada^Tarou=山田^太郎=やまだ^たろう", "قباني^لنزار"];

fn named(study: &Study, daemon: &Daemon, name: &str, slices: Option<usize>) -> Study {
    let folder = daemon.folder(&format!("named-{}", name.len()));
    let named = study.edited(&folder, |_, object| {
        put_text(object, tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        put_text(object, tags::PATIENT_NAME, VR::PN, name);
    });
    let Some(slices) = slices else { return named };
    for instance in &named.instances[slices..] {
        std::fs::remove_file(&instance.path).unwrap();
    }
    Study::load(&folder)
}

/// The one-time link that the start printed.
fn first_link(daemon: &Daemon) -> String {
    eventually(seconds(20), "a one-time link", || {
        let log = daemon.log();
        let link = log
            .split(|c: char| c.is_whitespace() || c == '"' || c == '\u{1b}')
            .find(|word| word.contains("/welcome?code="));
        link.map(|link| link[link.find("http").unwrap()..].to_owned()).ok_or_else(|| "no link in the log".to_owned())
    })
}

#[test]
fn pages_are_seen_and_used_with_keys() {
    requires!(Dcmtk, Viewer);
    let port = free_port();
    let (manager, nobody) = (TaskManager::start(), free_port());
    let list = |name: &str, url: &str| {
        format!("[[task_list]]\nname = {name:?}\nurl = {url:?}\nworkitem_codes = [\"ICH^99TEST\"]\npoll_s = 0.3\n")
    };
    let lists = list("TASKS", &manager.url()) + &list("AWAY", &format!("http://127.0.0.1:{nobody}"));
    let sections = format!("[admin]\naddress = \"127.0.0.1:{port}\"\n{lists}");
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let positive = named(&called_positive()[0].write(&daemon.folder("positive")), &daemon, NAMES[0], None);
    let negative = named(&called_negative().write(&daemon.folder("negative")), &daemon, NAMES[1], None);
    let single = called_positive()[1].write(&daemon.folder("single"));
    let single = named(&single, &daemon, NAMES[2], Some(1));
    for (study, end) in [(&single, "not-analysed"), (&negative, "analysed"), (&positive, "analysed")] {
        StoreScu::to(daemon.port).send(study).expect_all(study.instances.len());
        daemon.wait_for_status(&study.study_uid, end, seconds(90));
    }

    // One whose study is here, and one whose study nobody has.
    for (uid, study) in [("2.25.1", positive.study_uid.as_str()), ("2.25.2", "2.25.99")] {
        let wanted = Wanted { uid, code: "ICH", study, priority: "HIGH", url: None, title: None, instances: &[] };
        manager.schedule(&wanted);
    }
    manager.wait_for("2.25.1", "COMPLETED", 60);
    let folder = artefacts("pages");
    let mut judge = Command::new("node")
        .arg(repository("tests/judges/pages/judge.mjs"))
        .arg(viewer().unwrap())
        .args([CHROMIUM, &first_link(&daemon), &positive.study_uid])
        .arg(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let late = single.restamped(&daemon.folder("late"), "77");
    let listening = folder.join("listening");
    eventually(seconds(60), "an open worklist", || {
        if listening.exists() { Ok(()) } else { Err("the page is not open yet".to_owned()) }
    });
    StoreScu::to(daemon.port).send(&late).expect_all(1);
    let another = positive.restamped(&daemon.folder("another"), "78");
    let reading_on = folder.join("reading-on");
    eventually(seconds(180), "a worklist that is read on", || {
        // One that has ended is asked why below.
        let is_over = judge.try_wait().unwrap().is_some();
        if is_over || reading_on.exists() { Ok(()) } else { Err("nobody has read on yet".to_owned()) }
    });
    StoreScu::to(daemon.port).send(&another).expect_all(another.instances.len());
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    check(&seen, [&positive, &single, &negative]);
    check_reasons(&seen);
    let (before, after) = (&seen["further"]["before"], &seen["further"]["after"]);
    assert_eq!(seen["further"]["toast"], "1 new positive or alerted", "{}", seen["further"]);
    assert_eq!(after, &serde_json::json!([another.study_uid, before[0]]), "as many as were read, the new one first");
    assert_eq!(seen["further"]["more"], 1, "and from there on");
    check_unsteady(&seen["unsteady"]);
    check_map(&seen, &positive, &folder);

    // Who came in stands in the audit trail, and the link is good no more.
    let log = daemon.log();
    for secret in ["O'Brien", "山田", "seven grey"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// `studies`: the most urgent first.
fn check(seen: &Value, studies: [&Study; 3]) {
    assert_eq!(seen["console"], serde_json::json!([]), "the console is silent");
    assert_eq!(seen["foreign"], serde_json::json!([]), "nothing is asked of another host");
    let rows: Vec<(&str, &str, &str)> = (seen["rows"].as_array().unwrap().iter())
        .map(|row| (row["uid"].as_str().unwrap(), row["name"].as_str().unwrap(), row["tag"].as_str().unwrap()))
        .collect();
    let [positive, single, negative] = studies.map(|study| study.study_uid.as_str());
    assert_eq!(
        rows,
        [
            (positive, "O'Brien, <script>alert(1)</script>", "positive"),
            (single, "قباني, لنزار", "not analysed"),
            (negative, "Yamada, Tarou · 山田, 太郎 · やまだ, たろう", "negative"),
        ]
    );
    assert_eq!(seen["scripts"], 0, "a name is no script");
    assert!(seen["notice"].as_str().unwrap().contains("Not for diagnosis"), "{}", seen["notice"]);
    for (page, overflow) in seen["pages"].as_object().unwrap() {
        assert!(overflow.as_i64().unwrap() <= 0, "{page} is {overflow} pixels wider than the screen");
    }
    assert_eq!(seen["study"]["verdict"], "Positive");
    assert_eq!(seen["study"]["name"], "O'Brien, <script>alert(1)</script>");
    let bars: Vec<f64> = seen["bars"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    assert_eq!(bars.len(), studies[0].instances.len());
    let best = bars.iter().copied().fold(0.0, f64::max);
    let index = usize::try_from(seen["index"].as_i64().unwrap()).unwrap();
    assert_eq!(bars[index], best, "the most probable slice is shown first");
    assert!(seen["outline"].as_i64().unwrap() > 20, "the outline of the mask: {}", seen["outline"]);
    assert_eq!(seen["bare"], 0, "and without it");
    let map = &seen["map"];
    assert_eq!(map["before"], serde_json::json!(["mask", false]));
    assert_eq!((&map["on"], &map["outline"]), (&serde_json::json!(["map", true]), &serde_json::json!(0)));
    assert!(map["words"].as_str().unwrap().contains("not a probability of blood"), "{map}");
    assert_eq!((&map["mapless"], &map["plain"]), (&Value::Bool(true), &Value::Bool(true)), "the first slice has none");
    assert_eq!(map["off"], serde_json::json!(["false", false]));
    assert_eq!(map["clicked"], serde_json::json!(["mask", seen["outline"]]));
    let tasks = &seen["tasks"];
    let lists: Vec<&str> = tasks["lists"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert!(lists[0].starts_with("AWAY does not answer") && lists[1].starts_with("TASKS answers"), "{lists:?}");
    let items = tasks["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{items:?}");
    let left = items.iter().map(|row| row.as_str().unwrap()).find(|row| row.starts_with("left")).unwrap();
    assert!(
        left.contains("2.25.99") && left.len() > "left urgent TASKS 2.25.2 2.25.99".len() + 30,
        "with its reason: {left}"
    );
    let [completed] = tasks["completed"].as_array().unwrap().as_slice() else { panic!("{tasks}") };
    assert!(completed.as_str().unwrap().contains(positive), "{completed}");
    assert_eq!((&tasks["study"], &seen["keys"]["tasks"]), (&format!("/studies/{positive}").into(), &"/tasks".into()));
    let (keys, last) = (&seen["keys"], bars.len() - 1);
    for key in ["again", "opened", "bone", "help"] {
        assert_eq!(keys[key], true, "{key}: {keys}");
    }
    assert_eq!(keys["search"], "search");
    assert_eq!(keys["slices"], serde_json::json!([0, 1, last, index]));
    assert_eq!(keys["clicked"], last, "the end of the strip is the last slice");
    assert!(seen["invitation"].as_str().unwrap().contains("/welcome?code="));
    assert_eq!(seen["live"], 1, "a study that arrives is seen without asking");
    assert_eq!(seen["dialogs"], serde_json::json!(["Analyse this study again?"]));
    assert!(seen["retried"].as_str().unwrap().contains("is queued for analysis"), "{}", seen["retried"]);
    assert_eq!(seen["out"], "/login");
}

/// The live list when it becomes empty, is refused, stalls, and is longer than what is asked for at once.
fn check_unsteady(seen: &Value) {
    assert_eq!((&seen["filled"], &seen["zero"]), (&serde_json::json!(["2.25.3"]), &Value::Bool(false)), "{seen}");
    assert_eq!(seen["refused"], seen["filled"], "a refusal takes no row away: {seen}");
    assert_eq!(seen["stalled"], serde_json::json!(["2.25.4"]), "an answer that never comes stops no other: {seen}");
    assert_eq!((&seen["long"], &seen["longer"]), (&Value::Bool(true), &Value::Bool(true)), "a row was lost: {seen}");
}

/// What is said of a finding, and of a study without one.
fn check_reasons(seen: &Value) {
    let table = |of: &Value| -> Vec<Vec<String>> { serde_json::from_value(of.clone()).unwrap() };
    let lesions = table(&seen["lesions"]);
    assert!(!lesions.is_empty(), "a positive study has a lesion");
    for (number, lesion) in lesions.iter().enumerate() {
        assert_eq!(lesion[0], (number + 1).to_string());
        let volume: f64 = lesion[1].strip_suffix(" mL").unwrap().parse().unwrap();
        assert!(volume > 0.0 && lesion[2].ends_with(" %"), "{lesion:?}");
    }
    let rules = table(&seen["rules"]);
    assert!(rules.len() > 3, "every rule of the gate: {rules:?}");
    assert!(rules.iter().all(|rule| rule.len() == 3 && !rule[1].is_empty()), "each by its name: {rules:?}");
    assert!(rules.iter().any(|rule| rule[0] == "passed" && !rule[2].is_empty()), "and what it saw: {rules:?}");
    let kinds: Vec<String> = table(&seen["timeline"]).into_iter().map(|mut line| line.swap_remove(1)).collect();
    for kind in ["study-opened", "analysed"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind}: {kinds:?}");
    }
    let unread = &seen["unread"];
    let why = unread["why"].as_str().unwrap();
    assert!(!why.is_empty() && unread["blank"].as_str().unwrap().contains(why), "{unread}");
    let failed: Vec<Vec<String>> = table(&unread["rules"]).into_iter().filter(|rule| rule[0] == "failed").collect();
    assert!(!failed.is_empty(), "the rule that did not pass is named: {unread}");
}

/// What lies over the slice is the map, by the pixel; and the map is what the weights say when they are asked again.
fn check_map(seen: &Value, study: &Study, folder: &Path) {
    let read = |path: &Path| {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
        let mut samples = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut samples).unwrap();
        (reader.info().width as usize, samples)
    };
    let of = |name: &str| read(&folder.join(format!("slice-{name}.png")));
    let ((columns, map), (_, over), (_, plain)) = (of("map"), of("over"), of("plain"));
    assert_eq!((map.len() * 3, plain.len()), (over.len(), over.len()), "as large as the slice");
    // Between the tokens' own values there are others: the most of a slice need not lie on a pixel.
    let (most, least) = (map.iter().max().unwrap(), map.iter().min().unwrap());
    assert!(*most >= 240 && *least == 0, "from 0 to 1 in each slice: {least} to {most}");
    for (at, value) in map.iter().enumerate() {
        let (color, share) = ichor_picture::heat_color(*value);
        for channel in 0..3 {
            let under = f32::from(plain[at * 3 + channel]);
            let wanted = (under + (f32::from(color[channel]) - under) * share).round();
            assert_eq!(f32::from(over[at * 3 + channel]), wanted, "pixel {at}, {value} of the map");
        }
    }
    let slice = study.instances.iter().find(|one| seen["map"]["slice"] == one.sop_instance.as_str()).unwrap();
    let explain = Command::new(ICHOR).arg("explain").arg(&slice.path).arg("--out").arg(folder).output().unwrap();
    assert!(explain.status.success(), "{}", String::from_utf8_lossy(&explain.stderr));
    let said: Value = serde_json::from_slice(&std::fs::read(folder.join("explain.json")).unwrap()).unwrap();
    let (width, drawn) = read(Path::new(said["slices"][0]["pictures"]["map"].as_str().unwrap()));
    let far = (0..map.len()).filter(|at| {
        let there = ((at / columns * 2) * width + at % columns * 2) * 3;
        let color = ichor_picture::map_color(f32::from(map[*at]) / 255.0);
        color.iter().zip(&drawn[there..]).any(|(kept, drawn)| kept.abs_diff(*drawn) > 4)
    });
    assert_eq!(far.count(), 0, "what was kept is what `ichor explain` draws");
}
