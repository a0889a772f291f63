//! The two kinds of file that the server keeps, and what they are called on the disk, in URLs and in the log.

/// What a kept file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A signed release.
    Artifact,
    /// The way from one release to another. Carries no signature and is believed in nothing: devices check what it makes.
    Delta,
}

impl Kind {
    /// Both.
    pub const ALL: [Kind; 2] = [Kind::Artifact, Kind::Delta];

    /// The word for people.
    pub const fn noun(self) -> &'static str {
        match self {
            Kind::Artifact => "artifact",
            Kind::Delta => "delta",
        }
    }

    /// The directory of its files, under the data directory and in URLs.
    pub const fn directory(self) -> &'static str {
        match self {
            Kind::Artifact => "artifacts",
            Kind::Delta => "deltas",
        }
    }

    /// What its file names end with, after the digest.
    pub const fn suffix(self) -> &'static str {
        match self {
            Kind::Artifact => ".otab",
            Kind::Delta => ".otad-delta",
        }
    }
}
