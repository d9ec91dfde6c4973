//! Messages from presentation data values (PS3.8 Annex E): command fragments up to the one marked last, then, where
//! the command says so, data set fragments up to the one marked last, all on one presentation context.

use dicom_ul::pdu::{PDataValue, PDataValueType};
use thiserror::Error;

use crate::command::MAX_COMMAND_SET_BYTES;

/// Most fragments without a byte in a row. A peer that sends only these holds an association for nothing.
const MAX_EMPTY_FRAGMENTS: u32 = 64;

/// What a presentation data value completes or adds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A command fragment that is not the last.
    Pending,
    /// The whole command set, on a presentation context.
    Command(u8, Vec<u8>),
    /// The next bytes of the data set.
    Data(Fragment),
}

/// Bytes of a data set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_last: bool,
}

/// How a peer can break the order of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PdvError {
    #[error("data set fragment where a command was due")]
    DataBeforeCommand,
    #[error("command fragment inside a data set")]
    CommandInsideData,
    #[error("fragment on presentation context {found} inside a message on {expected}")]
    OtherContext { expected: u8, found: u8 },
    #[error("command set of more than {MAX_COMMAND_SET_BYTES} bytes")]
    CommandTooLong,
    #[error("more than {MAX_EMPTY_FRAGMENTS} empty fragments in a row")]
    Empty,
}

#[derive(Debug)]
enum State {
    Idle,
    Command { context: u8, bytes: Vec<u8> },
    Data { context: u8 },
}

/// Puts one message after the other together.
#[derive(Debug)]
pub(crate) struct Assembler {
    state: State,
    empty: u32,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self { state: State::Idle, empty: 0 }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_inside_message(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Says that a data set follows the command that was just completed on this context.
    pub(crate) fn expect_data(&mut self, context: u8) {
        self.state = State::Data { context };
    }

    /// Takes the next presentation data value.
    pub(crate) fn accept(&mut self, pdv: PDataValue) -> Result<Part, PdvError> {
        self.count_empty(&pdv)?;
        let (found, is_last) = (pdv.presentation_context_id, pdv.is_last);
        match (&mut self.state, pdv.value_type) {
            (State::Idle, PDataValueType::Data) | (State::Command { .. }, PDataValueType::Data) => {
                Err(PdvError::DataBeforeCommand)
            }
            (State::Data { .. }, PDataValueType::Command) => Err(PdvError::CommandInsideData),
            (State::Command { context, .. } | State::Data { context }, _) if *context != found => {
                Err(PdvError::OtherContext { expected: *context, found })
            }
            (State::Idle, PDataValueType::Command) => self.command(found, Vec::new(), pdv.data, is_last),
            (State::Command { bytes, .. }, PDataValueType::Command) => {
                let bytes = std::mem::take(bytes);
                self.command(found, bytes, pdv.data, is_last)
            }
            (State::Data { .. }, PDataValueType::Data) => {
                if is_last {
                    self.state = State::Idle;
                }
                Ok(Part::Data(Fragment { bytes: pdv.data, is_last }))
            }
        }
    }

    fn command(&mut self, context: u8, mut bytes: Vec<u8>, more: Vec<u8>, is_last: bool) -> Result<Part, PdvError> {
        if bytes.len() + more.len() > MAX_COMMAND_SET_BYTES {
            return Err(PdvError::CommandTooLong);
        }
        if bytes.is_empty() {
            bytes = more;
        } else {
            bytes.extend_from_slice(&more);
        }
        if is_last {
            self.state = State::Idle;
            return Ok(Part::Command(context, bytes));
        }
        self.state = State::Command { context, bytes };
        Ok(Part::Pending)
    }

    fn count_empty(&mut self, pdv: &PDataValue) -> Result<(), PdvError> {
        if pdv.data.is_empty() && !pdv.is_last {
            self.empty += 1;
            if self.empty > MAX_EMPTY_FRAGMENTS {
                return Err(PdvError::Empty);
            }
        } else {
            self.empty = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pdv(context: u8, value_type: PDataValueType, data: &[u8], is_last: bool) -> PDataValue {
        PDataValue { presentation_context_id: context, value_type, is_last, data: data.to_vec() }
    }

    use PDataValueType::{Command, Data};

    #[test]
    fn order_is_kept() {
        let mut assembler = Assembler::new();
        assert_eq!(assembler.accept(pdv(1, Data, b"x", true)), Err(PdvError::DataBeforeCommand));
        assert_eq!(assembler.accept(pdv(1, Command, b"ab", false)), Ok(Part::Pending));
        assert!(assembler.is_inside_message());
        assert_eq!(assembler.accept(pdv(1, Data, b"x", false)), Err(PdvError::DataBeforeCommand));
        let other = PdvError::OtherContext { expected: 1, found: 3 };
        assert_eq!(assembler.accept(pdv(3, Command, b"x", false)), Err(other));
        assert_eq!(assembler.accept(pdv(1, Command, b"c", true)), Ok(Part::Command(1, b"abc".to_vec())));
        assembler.expect_data(1);
        assert_eq!(assembler.accept(pdv(3, Data, b"x", false)), Err(other));
        assert_eq!(assembler.accept(pdv(1, Command, b"x", false)), Err(PdvError::CommandInsideData));
        let last = Part::Data(Fragment { bytes: b"x".to_vec(), is_last: true });
        assert_eq!(assembler.accept(pdv(1, Data, b"x", true)), Ok(last));
        assert!(!assembler.is_inside_message());
    }

    #[test]
    fn endless_commands_end() {
        let mut assembler = Assembler::new();
        let quarter = vec![0; MAX_COMMAND_SET_BYTES / 4];
        for _ in 0..4 {
            assert_eq!(assembler.accept(pdv(1, Command, &quarter, false)), Ok(Part::Pending));
        }
        assert_eq!(assembler.accept(pdv(1, Command, b"x", false)), Err(PdvError::CommandTooLong));
        let mut assembler = Assembler::new();
        let refused = (0..200).find_map(|_| assembler.accept(pdv(1, Command, b"", false)).err());
        assert_eq!(refused, Some(PdvError::Empty));
    }

    proptest! {
        /// However a message is cut, the same message comes out.
        #[test]
        fn any_cut_gives_the_same_message(
            command in proptest::collection::vec(any::<u8>(), 0..300),
            data in proptest::collection::vec(any::<u8>(), 1..2000),
            command_cuts in proptest::collection::vec(0usize..300, 0..8),
            data_cuts in proptest::collection::vec(0usize..2000, 0..20),
        ) {
            let mut assembler = Assembler::new();
            let mut parts = Vec::new();
            for (bytes, is_last) in cut(&command, &command_cuts) {
                match assembler.accept(pdv(5, Command, bytes, is_last)).unwrap() {
                    Part::Pending => prop_assert!(!is_last),
                    Part::Command(context, bytes) => parts.push((context, bytes)),
                    Part::Data(_) => prop_assert!(false),
                }
            }
            prop_assert_eq!(parts, vec![(5, command)]);
            assembler.expect_data(5);
            let mut received = Vec::new();
            for (bytes, is_last) in cut(&data, &data_cuts) {
                prop_assert!(assembler.is_inside_message());
                let Part::Data(fragment) = assembler.accept(pdv(5, Data, bytes, is_last)).unwrap() else { panic!() };
                prop_assert_eq!(fragment.is_last, is_last);
                received.extend_from_slice(&fragment.bytes);
            }
            prop_assert_eq!(received, data);
            prop_assert!(!assembler.is_inside_message());
        }
    }

    fn cut<'a>(bytes: &'a [u8], at: &[usize]) -> Vec<(&'a [u8], bool)> {
        let mut at: Vec<usize> = at.iter().map(|at| at % (bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut start = 0;
        let mut pieces = Vec::new();
        for end in at {
            pieces.push((&bytes[start..end], false));
            start = end;
        }
        pieces.push((&bytes[start..], true));
        pieces
    }
}
