//! What a client may ask of the services that search and retrieve: arbitrary paths, queries and Accept fields never panic.
#![no_main]

use ichor_dicomweb::server::{Level, PictureForm, pairs, parse, ranges, rendering, resource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Path, query and Accept, a line each.
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, query, accept) = (line(), line(), line());
    let _ = resource(path, 100);
    if let Ok(pairs) = pairs(query, 100) {
        assert!(pairs.len() <= 100);
        for level in [Level::Study, Level::Series, Level::Instance] {
            if let Ok(search) = parse(level, None, None, pairs.clone()) {
                assert!(search.conditions.len() <= 100);
            }
        }
        let _ = rendering(&pairs, PictureForm::Png);
    }
    if let Ok(ranges) = ranges(accept) {
        assert!(ranges.iter().all(|range| range.quality > 0 && range.quality <= 1000));
    }
});
