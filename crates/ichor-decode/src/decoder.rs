//! The pool of children.

use std::io::{self, Cursor};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ichor_core::{Reason, Uid};
use ichor_ct::CtError;
use ichor_ct::frames::MultiFrame;
use ichor_ct::volume::{PlacedSlice, Slice, read_slice, read_slice_from};
use thiserror::Error;
use tracing::warn;

use crate::options::DecoderOptions;
use crate::protocol::Answer;
use crate::spawner::Spawner;
use crate::survey::{Form, Survey};
use crate::worker_process::{Failure, Image, Job, WorkerProcess};

/// Reads slices, compressed ones in child processes. Cheap to clone; every clone uses the same children, and they end
/// with the last clone.
#[derive(Clone, Debug)]
pub struct Decoder(Arc<Pool>);

/// Why there is no slice.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// This slice cannot be decoded; the others are not affected.
    #[error("{0}")]
    Slice(Reason),
    /// No child can be started: nothing is known about the slice.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why no child can be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the decoder {program} cannot be started: {why}")]
pub struct Unavailable {
    program: String,
    why: String,
}

impl Unavailable {
    pub(crate) fn new(program: &Path, why: String) -> Self {
        Self { program: program.display().to_string(), why }
    }
}

#[derive(Debug)]
struct Pool {
    options: Arc<DecoderOptions>,
    spawner: Spawner,
    places: Mutex<Places>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Places {
    /// Children that wait for work.
    idle: Vec<WorkerProcess>,
    /// Slices in hand.
    taken: usize,
}

impl Decoder {
    /// A decoder without children; they are started when there is something to decode.
    ///
    /// # Errors
    /// If the thread that starts them cannot be started.
    pub fn new(options: DecoderOptions) -> io::Result<Self> {
        let options = Arc::new(options);
        let spawner = Spawner::start(Arc::clone(&options))?;
        Ok(Self(Arc::new(Pool { options, spawner, places: Mutex::default(), freed: Condvar::new() })))
    }

    /// Starts one child and hears that it is ready, so that a program that is missing shows before a study waits.
    ///
    /// # Errors
    /// [`Unavailable`] says what is wrong with the program.
    pub fn check(&self) -> Result<(), Unavailable> {
        let worker = self.0.start()?;
        self.0.lock().idle.push(worker);
        Ok(())
    }

    /// Reads a slice in Hounsfield units; waits while all children are busy.
    ///
    /// A child decodes slices of one series only. One that fails takes its slice with it, unless it had decoded others
    /// before or was killed from outside: then the slice is tried once more in a fresh child, so that no slice pays for
    /// another.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read_slice(&self, placed: &PlacedSlice) -> Result<Slice, DecodeError> {
        let (pool, path) = (&self.0, placed.header.path.as_path());
        if let Some(frame) = placed.header.frame {
            return pool.read_frame(placed, frame);
        }
        let survey = Survey::of(path, &pool.options.caps).map_err(|error| DecodeError::Slice(error.reason()))?;
        pool.options.caps.check(&survey).map_err(DecodeError::Slice)?;
        if survey.form == Form::Native {
            return read_slice(path).map_err(|error| DecodeError::Slice(error.reason()));
        }
        let matrix = (placed.plane.rows, placed.plane.columns);
        if (survey.rows, survey.columns) != (u64::from(matrix.0), u64::from(matrix.1)) {
            let text = format!("the file is of {} rows × {} columns now, and was not", survey.rows, survey.columns);
            return Err(DecodeError::Slice(Reason::new("unreadable", text)));
        }
        pool.decode(placed, Image::File(path), &survey.codec)
    }

    /// Decodes a compressed single-frame Part 10 file of one sample a pixel into its stored values, `cell` (1 or 2) bytes
    /// each, little endian; children are used as by [`Self::read_slice`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read_cells(
        &self,
        image: &[u8],
        series: &Uid,
        [rows, columns]: [u32; 2],
        cell: u8,
    ) -> Result<Vec<u8>, DecodeError> {
        let pool = &self.0;
        let survey = Survey::read(Cursor::new(image), image.len() as u64, &pool.options.caps)
            .map_err(|error| DecodeError::Slice(error.reason()))?;
        pool.options.caps.check(&survey).map_err(DecodeError::Slice)?;
        if survey.form == Form::Native || !(1..=2).contains(&cell) {
            return Err(DecodeError::Slice(Reason::new("codec-unsupported", "there is nothing to decode")));
        }
        let job = Job { series, rows, columns, cell: Some(cell) };
        match pool.ask(&job, Image::Bytes(image), &survey.codec)? {
            Answer::Cells(bytes) => Ok(bytes),
            Answer::Refused(reason) => Err(DecodeError::Slice(reason)),
            Answer::Slice(_) => Err(DecodeError::Slice(Reason::new("decoder-crashed", "it answered something else"))),
            Answer::Panicked(text) => Err(DecodeError::Slice(Reason::new("decoder-crashed", text))),
        }
    }

    /// Children that wait for work.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.lock().idle.len()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing panics while it is held; and if it did, both numbers would still be what they were.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one frame of a multi-frame file: taken out of it here, which needs no codec, and decoded as the slice that
    /// it is. The caps hold for the frame.
    fn read_frame(&self, placed: &PlacedSlice, frame: u32) -> Result<Slice, DecodeError> {
        let refused = |error: CtError| DecodeError::Slice(error.reason());
        let image = MultiFrame::open(&placed.header.path).and_then(|file| file.file(frame)).map_err(refused)?;
        let caps = &self.options.caps;
        let survey = Survey::read(Cursor::new(&image), image.len() as u64, caps)
            .map_err(|error| DecodeError::Slice(error.reason()))?;
        caps.check(&survey).map_err(DecodeError::Slice)?;
        if survey.form == Form::Native {
            return read_slice_from(image.as_slice()).map_err(refused);
        }
        self.decode(placed, Image::Bytes(&image), &survey.codec)
    }

    fn decode(&self, placed: &PlacedSlice, image: Image<'_>, codec: &str) -> Result<Slice, DecodeError> {
        let series = &placed.header.series_instance;
        let job = Job { series, rows: placed.plane.rows, columns: placed.plane.columns, cell: None };
        match self.ask(&job, image, codec)? {
            Answer::Slice(pixels) => Ok(Slice { hu: pixels.hu, plane: placed.plane, window: pixels.window }),
            Answer::Refused(reason) => Err(DecodeError::Slice(reason)),
            Answer::Cells(_) => Err(DecodeError::Slice(Reason::new("decoder-crashed", "it answered something else"))),
            // The child's own end says the same; a worker turns it into one before it comes here.
            Answer::Panicked(text) => Err(DecodeError::Slice(Reason::new("decoder-crashed", text))),
        }
    }

    fn ask(&self, job: &Job<'_>, image: Image<'_>, codec: &str) -> Result<Answer, DecodeError> {
        let _place = self.place();
        let mut worker = match self.idle(job.series) {
            Some(worker) => worker,
            None => self.start()?,
        };
        let mut may_try_again = true;
        loop {
            let end = match worker.decode(job, image, &self.options) {
                Ok(answer) => {
                    if worker.served() < self.options.slices_per_process {
                        self.lock().idle.push(worker);
                    }
                    return Ok(answer);
                }
                Err(Failure::File(error)) => {
                    let reason = Reason::new("unreadable", format!("cannot be read: {error}"));
                    return Err(DecodeError::Slice(reason));
                }
                Err(Failure::Ended(end)) => end,
            };
            let is_tried_again = may_try_again && (worker.served() > 0 || end.is_from_outside());
            let reason = end.reason(codec);
            warn!(%reason, served = worker.served(), is_tried_again, "a decoder was lost");
            if !is_tried_again {
                return Err(DecodeError::Slice(reason));
            }
            may_try_again = false;
            // Before the next one starts: there are never more than the settings say.
            drop(worker);
            worker = self.start()?;
        }
    }

    /// A waiting child for a slice of a series. What one patient's images did to a child is not for another patient: a
    /// child that has decoded another series makes room for a fresh one.
    fn idle(&self, series: &Uid) -> Option<WorkerProcess> {
        let mut places = self.lock();
        let fitting = places.idle.iter().rposition(|worker| worker.may_decode(series));
        if let Some(index) = fitting {
            return Some(places.idle.swap_remove(index));
        }
        let unfit = places.idle.pop();
        drop(places);
        // Its end is waited for without the lock.
        drop(unfit);
        None
    }

    fn start(&self) -> Result<WorkerProcess, Unavailable> {
        let mut worker =
            self.spawner.spawn().map_err(|error| Unavailable::new(&self.options.program, error.to_string()))?;
        worker.greet(&self.options)?;
        Ok(worker)
    }

    /// Waits for leave to use a child.
    fn place(&self) -> Place<'_> {
        let mut places = self.lock();
        while places.taken >= self.options.processes.max(1) {
            places = self.freed.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
        places.taken += 1;
        Place(self)
    }
}

/// Leave to use one child, given back when dropped.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.freed.notify_one();
    }
}
