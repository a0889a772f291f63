//! How a release reaches a fleet: pure rules over plain values, without a database, a clock or a network.
//!
//! [`step`] is the life of one device in one release, [`policy`] what an operator may set, [`judge`] what the numbers of a
//! release lead to, [`filter`] who is in a group, [`bucket`] who is in a stage, [`offer`] whether a device gets a release now and
//! if not, why not. The store keeps what they decide; nothing here may guess what a device did.

pub mod bucket;
pub mod class;
pub mod filter;
pub mod judge;
pub mod offer;
pub mod policy;
pub mod queue;
pub mod step;
pub mod window;
