//! How a scenario ends when it does not end well.

use otad_fleet_sim::life::LifeError;
use otad_fleet_sim::model::ModelError;
use otad_fleet_sim::operator::OperatorError;
use otad_fleet_sim::server::ServerError;

use crate::{build, cuts, emulator};

/// What went wrong in a scenario.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The board did something else than it promises.
    #[error("expected {expected}; found {found}")]
    Unexpected {
        /// What should have been.
        expected: String,
        /// What was.
        found: String,
    },
    /// The board could not be used, or did not answer in time.
    #[error(transparent)]
    Emulator(#[from] emulator::Error),
    /// The board could not be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The update server could not be used.
    #[error(transparent)]
    Server(#[from] otad_demo::Error),
    /// The fleet beside the board.
    #[error(transparent)]
    Fleet(#[from] LifeError),
    /// A power cut could not be replayed.
    #[error(transparent)]
    Cuts(#[from] cuts::Error),
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        Failure::Fleet(error.into())
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Failure {
        Failure::Fleet(error.into())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        Failure::Fleet(error.into())
    }
}

impl Failure {
    /// `Ok` if it is as expected, else the failure with what was found.
    pub fn unless(is_as_expected: bool, expected: &str, found: impl std::fmt::Debug) -> Result<(), Failure> {
        if is_as_expected {
            return Ok(());
        }
        Err(Failure::Unexpected { expected: expected.to_owned(), found: format!("{found:?}") })
    }
}
