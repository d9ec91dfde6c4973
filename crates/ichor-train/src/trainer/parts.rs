//! Batches that do not fit into the device's memory: they are shown in parts, whose gradients add up to the same step.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::TrainError;
use crate::progress::Progress;

/// How many slices the device takes at once; no limit until memory has run out.
#[derive(Debug, Default)]
pub(super) struct Room {
    most: Option<usize>,
}

impl Room {
    /// For tests: as if memory had run out above so many.
    #[cfg(test)]
    pub(super) fn at_most(most: usize) -> Self {
        Self { most: Some(most) }
    }

    /// Calls `part` with ranges that make up `0..count`, the whole first; where memory runs out, `again` undoes what was done and
    /// all starts anew in parts of half the size. What is learned of the size is kept.
    pub(super) fn run<T>(
        &mut self,
        count: usize,
        progress: &mut dyn Progress,
        mut again: impl FnMut(),
        mut part: impl FnMut(Range<usize>) -> Result<T, TrainError>,
    ) -> Result<Vec<T>, TrainError> {
        loop {
            let most = self.most.unwrap_or(count).clamp(1, count.max(1));
            let ranges = (0..count).step_by(most).map(|start| start..(start + most).min(count));
            let mut done = Vec::new();
            let failed = ranges.into_iter().find_map(|range| match guarded(|| part(range)) {
                Ok(answer) => {
                    done.push(answer);
                    None
                }
                Err(error) => Some(error),
            });
            let Some(error) = failed else { return Ok(done) };
            let Some(message) = out_of_memory(&error) else { return Err(error) };
            if most == 1 {
                return Err(TrainError::OutOfMemory(1, message));
            }
            again();
            let half = most / 2;
            progress.note(&format!(
                "memory ran out with {most} slices at once; going on with {half}, which makes the same steps: {message}"
            ));
            self.most = Some(half);
        }
    }
}

/// tch's plain methods panic whenever libtorch throws.
fn guarded<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(TrainError::Panicked(text(payload.as_ref()))))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// libtorch's errors have no codes; its texts are the only mark. The first line says it all.
fn out_of_memory(error: &TrainError) -> Option<String> {
    const MARKS: [&str; 3] = ["out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"];
    let message = error.to_string();
    let end = message.find("\\nException raised").or_else(|| message.find('\n')).unwrap_or(message.len());
    MARKS.iter().any(|mark| message.contains(mark)).then(|| message[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> TrainError {
        TrainError::Torch(tch::TchError::Torch("CUDA out of memory. Tried to allocate 2 GiB\nmore".to_owned()))
    }

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Progress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn halves_until_it_fits_and_stays_there() {
        let (mut room, mut notes, mut undone) = (Room::default(), Notes::default(), 0);
        let fits = |range: Range<usize>| if range.len() > 4 { Err(full()) } else { Ok(range) };
        let parts = room.run(12, &mut notes, || undone += 1, fits).unwrap();
        assert_eq!(parts, [0..3, 3..6, 6..9, 9..12]);
        assert_eq!(undone, 2);
        assert!(notes.0.len() == 2 && notes.0[1].contains("going on with 3"), "{:?}", notes.0);
        // The next batch does not try the whole again.
        assert_eq!(room.run(7, &mut notes, || undone += 1, fits).unwrap(), [0..3, 3..6, 6..7]);
        assert_eq!((undone, notes.0.len()), (2, 2));
    }

    #[test]
    fn panics_are_told_apart() {
        let mut room = Room::default();
        let parts = room.run(
            2,
            &mut (),
            || (),
            |range| {
                assert!(range.len() == 1, "CUDA out of memory");
                Ok(range.start)
            },
        );
        assert_eq!(parts.unwrap(), [0, 1]);
        let other = Room::default().run(2, &mut (), || (), |_| -> Result<(), _> { panic!("shapes differ") });
        assert!(matches!(other, Err(TrainError::Panicked(why)) if why == "shapes differ"));
        let never = Room::default().run(3, &mut (), || (), |_| -> Result<(), _> { Err(full()) });
        assert!(matches!(never, Err(TrainError::OutOfMemory(1, why)) if !why.contains("more")));
    }
}
