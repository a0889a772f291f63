//! Connections that give the same bytes to whatever is asked: hostile answers by the million, for tests.

use std::fmt;
use std::sync::Arc;

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// What every connection gives, if not the network's.
#[derive(Clone, Default)]
pub(super) struct Memory(pub(super) Option<Arc<[u8]>>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Connector<()> for Memory {
    type Out = Answer;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Answer>, ureq::Error> {
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(self.0.clone().map(|bytes| Answer { bytes, given: 0, buffers }))
    }
}

/// One connection.
pub(super) struct Answer {
    bytes: Arc<[u8]>,
    given: usize,
    buffers: LazyBuffers,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("given", &self.given).finish_non_exhaustive()
    }
}

impl Transport for Answer {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let rest = self.bytes.get(self.given..).unwrap_or_default();
        let space = self.buffers.input_append_buf();
        let count = rest.len().min(space.len());
        if let (Some(to), Some(from)) = (space.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.buffers.input_appended(count);
        self.given += count;
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.given < self.bytes.len()
    }
}
