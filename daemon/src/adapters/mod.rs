//! Real implementations of the ports. Each is thin: what it decides is a defect waiting for a power cut.

pub mod block;
pub mod clock;
pub mod device_key;
pub mod health;
pub mod http;
mod ioctl;
pub mod journal;
pub mod machine;
pub mod model;
pub mod pipe;
mod pre_run;
mod secret;
pub mod state_fs;
