//! The body of one response while it is read.

use std::io::{self, Read};

use ureq::BodyReader;

use super::client::{Client, Reply, Trouble, from_body};
use super::place::Place;
use crate::failure::Code;
use crate::ports::Stop;

/// Bytes that are read at once when they are only dropped.
const SCRAP_BYTES: usize = 16 * 1024;

/// A body that holds bytes `at..end` of something.
pub(super) struct Stream {
    body: BodyReader<'static>,
    place: Place,
    client: Client,
    /// Position of the next byte.
    pub(super) at: u64,
    /// Position behind the last one.
    pub(super) end: u64,
    began: u64,
}

impl Stream {
    /// Takes the body of a response that came by `client`, whose length has been judged.
    pub(super) fn new(client: &Client, reply: Reply, at: u64, end: u64) -> Stream {
        let body = reply.response.into_body().into_reader();
        Stream { body, place: reply.place, client: client.clone(), at, end, began: at }
    }

    /// Bytes that have not been read.
    pub(super) fn rest(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// Reads at least one byte.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let left = self.rest();
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match self.body.read(buffer.get_mut(..length).unwrap_or_default()) {
            Ok(0) => Err(self.broken_off()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.broken_off()),
            Err(error) => Err(from_body(error, &self.place)),
            Ok(count) => {
                let bytes = u64::try_from(count).unwrap_or(left);
                self.at = self.at.saturating_add(bytes);
                self.client.came(bytes);
                Ok(count)
            }
        }
    }

    /// A body that ends early is a broken line; one that has nothing at all of what was announced is a lie.
    fn broken_off(&self) -> Trouble {
        let code = if self.at == self.began { Code::NetLength } else { Code::NetFailed };
        let (place, at, left) = (&self.place, self.at, self.rest());
        Trouble::passing(code, format!("{place}: connection broke off at byte {at}, {left} bytes early"))
    }

    /// Reads bytes that nobody wants; `each` is told how many came.
    pub(super) fn drop_bytes(
        &mut self,
        mut count: u64,
        stop: &Stop,
        mut each: impl FnMut(u64) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut scrap = [0; SCRAP_BYTES];
        while count > 0 {
            if stop.requested() {
                return Err(Trouble::cancelled());
            }
            let length = usize::try_from(count).unwrap_or(SCRAP_BYTES).min(SCRAP_BYTES);
            let came = self.receive(scrap.get_mut(..length).unwrap_or_default())?;
            let came = u64::try_from(came).unwrap_or(u64::MAX);
            count = count.saturating_sub(came);
            each(came)?;
        }
        Ok(())
    }

    /// Lets ureq see the end of a body that was read to its last byte: that returns the connection to its pool.
    pub(super) fn finish(mut self) {
        if self.rest() == 0 {
            // All bytes are here already; an error here only means that the connection is not used again.
            let _ = self.body.read(&mut [0]);
        }
    }
}
