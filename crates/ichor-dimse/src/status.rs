//! Status codes of C-STORE and C-ECHO (PS3.7 9.1.1.1.9 and Annex C, PS3.4 B.2.3), in one place.

use std::fmt;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal $words:literal),+ $(,)?) => {
        /// A status in a response: success, warning or failure, by its code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum StoreStatus {
            $($(#[$doc])* $name,)+
            /// A code without a name here; what it means is told from its range (PS3.7 Annex C).
            Other(u16),
        }

        impl StoreStatus {
            /// All named codes.
            pub const NAMED: &'static [Self] = &[$(Self::$name),+];

            /// Names a code.
            #[must_use]
            pub const fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)+
                    other => Self::Other(other),
                }
            }

            /// The code as it travels, Status (0000,0900).
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)+
                    Self::Other(code) => code,
                }
            }

            const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                    Self::Other(_) => "",
                }
            }
        }
    };
}

statuses! {
    /// The instance is stored, or the echo answered.
    Success = 0x0000 "success",
    /// Stored, with elements coerced.
    CoercionOfDataElements = 0xB000 "coercion of data elements",
    /// Stored, with elements discarded.
    ElementsDiscarded = 0xB006 "elements discarded",
    /// Stored, although the data set does not match the SOP class.
    DataSetDoesNotMatchWarning = 0xB007 "stored, data set does not match SOP class",
    /// Refused: out of resources, such as a full disk.
    OutOfResources = 0xA700 "out of resources",
    /// Error: the data set does not match the SOP class or the command.
    DataSetDoesNotMatch = 0xA900 "data set does not match SOP class",
    /// Error: the data set cannot be understood.
    CannotUnderstand = 0xC000 "cannot understand",
    /// The instance could not be processed, for a reason that is not the instance's.
    ProcessingFailure = 0x0110 "processing failure",
    /// Another instance has the same SOP Instance UID.
    DuplicateSopInstance = 0x0111 "duplicate SOP instance",
    /// There is no such instance.
    NoSuchSopInstance = 0x0112 "no such SOP instance",
    /// A value of the data set is not what it may be.
    InvalidArgumentValue = 0x0115 "invalid argument value",
    /// The SOP Instance UID breaks the rules for UIDs.
    InvalidSopInstance = 0x0117 "invalid SOP instance",
    /// The SOP class is not known.
    NoSuchSopClass = 0x0118 "no such SOP class",
    /// The instance is of another SOP class.
    ClassInstanceConflict = 0x0119 "class-instance conflict",
    /// The SOP class is not supported, or not that of the presentation context.
    SopClassNotSupported = 0x0122 "SOP class not supported",
    /// The SOP class has no such action.
    NoSuchActionType = 0x0123 "no such action type",
    /// The user may not do this.
    NotAuthorized = 0x0124 "not authorized",
    /// The Message ID is in use.
    DuplicateInvocation = 0x0210 "duplicate invocation",
    /// The operation is not one of those agreed on.
    UnrecognizedOperation = 0x0211 "unrecognized operation",
    /// A parameter is not what it may be.
    MistypedArgument = 0x0212 "mistyped argument",
    /// A limit of the performer.
    ResourceLimitation = 0x0213 "resource limitation",
    /// The operation was cancelled.
    Cancelled = 0xFE00 "cancelled",
}

impl StoreStatus {
    /// Whether it is 0x0000.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }

    /// Whether it is one of the warnings (PS3.7 C.4): the peer has the instance, and something to say about it.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self.code(), 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }

    /// Whether the peer has the instance.
    #[must_use]
    pub const fn is_success_or_warning(self) -> bool {
        self.is_success() || self.is_warning()
    }

    /// Whether the same instance would be refused again: everything that fails because of what was sent. Lack of
    /// resources, processing failures and what is not known are worth another attempt.
    #[must_use]
    pub const fn is_permanent_failure(self) -> bool {
        match self.code() {
            0x0110 | 0x0213 => false,
            0x0107 | 0x0116 => false,
            0x0105..=0x0124 | 0x0210..=0x0212 | 0xA800..=0xA9FF | 0xC000..=0xCFFF => true,
            _ => false,
        }
    }
}

impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Other(code) => match code {
                0xA700..=0xA7FF => "out of resources",
                0xA900..=0xA9FF => "data set does not match SOP class",
                0xC000..=0xCFFF => "cannot understand",
                0xB000..=0xBFFF => "warning",
                _ => "unnamed status",
            },
            named => named.words(),
        };
        write!(f, "0x{:04X} {words}", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_round_trips() {
        for code in 0..=u16::MAX {
            let status = StoreStatus::from_code(code);
            assert_eq!(status.code(), code);
            let kinds = [status.is_success(), status.is_warning(), status.is_permanent_failure()];
            assert!(kinds.iter().filter(|is| **is).count() <= 1, "{status}");
        }
        for status in StoreStatus::NAMED {
            assert_eq!(StoreStatus::from_code(status.code()), *status);
        }
    }

    #[test]
    fn what_is_worth_another_attempt() {
        for code in [0xA700, 0xA7FF, 0x0110, 0x0213, 0xFE00, 0x9999] {
            assert!(!StoreStatus::from_code(code).is_permanent_failure(), "{code:04X}");
            assert!(!StoreStatus::from_code(code).is_success_or_warning(), "{code:04X}");
        }
        for code in [0xA900, 0xA9FE, 0xC000, 0xC123, 0x0111, 0x0117, 0x0122, 0x0124, 0x0211] {
            assert!(StoreStatus::from_code(code).is_permanent_failure(), "{code:04X}");
        }
        assert!(StoreStatus::ElementsDiscarded.is_success_or_warning());
    }

    #[test]
    fn names_for_people() {
        assert_eq!(StoreStatus::OutOfResources.to_string(), "0xA700 out of resources");
        assert_eq!(StoreStatus::from_code(0xC123).to_string(), "0xC123 cannot understand");
    }
}
