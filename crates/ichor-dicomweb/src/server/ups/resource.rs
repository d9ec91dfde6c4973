//! What a URL below the worklist names.

/// What a URL names (PS3.18 table 11.1.1-1).
pub(super) enum Resource<'a> {
    Workitems,
    Workitem(&'a str),
    State(&'a str),
    CancelRequest(&'a str),
    Subscription { target: &'a str, subscriber: &'a str },
    Suspension { target: &'a str, subscriber: &'a str },
    Channel(&'a str),
}

impl<'a> Resource<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        Some(match segments[..] {
            ["workitems"] => Self::Workitems,
            ["workitems", uid] => Self::Workitem(uid),
            // Some name the requester behind it; we know who it is.
            ["workitems", uid, "state"] | ["workitems", uid, "state", _] => Self::State(uid),
            ["workitems", uid, "cancelrequest"] | ["workitems", uid, "cancelrequest", _] => Self::CancelRequest(uid),
            ["workitems", target, "subscribers", subscriber] => Self::Subscription { target, subscriber },
            ["workitems", target, "subscribers", subscriber, "suspend"] => Self::Suspension { target, subscriber },
            ["subscribers", subscriber] => Self::Channel(subscriber),
            _ => return None,
        })
    }

    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::Workitems | Self::Workitem(_) => "GET, POST",
            Self::State(_) => "PUT",
            Self::CancelRequest(_) | Self::Suspension { .. } => "POST",
            Self::Subscription { .. } => "POST, DELETE",
            Self::Channel(_) => "GET",
        }
    }
}
