//! Bounded numbers of things under way, so that no caller can fill otad's memory or keep the others from being heard (D5).

use std::sync::{Mutex, PoisonError};

/// A number of places, of which one owner gets only some.
pub(super) struct Places<K> {
    taken: Mutex<Vec<K>>,
    most: usize,
    most_of_one: usize,
}

/// One of them; free again when dropped.
#[must_use]
pub(super) struct Place<K: PartialEq + 'static> {
    of: &'static Places<K>,
    owner: K,
}

impl<K: PartialEq + Clone> Places<K> {
    pub(super) const fn new(most: usize, most_of_one: usize) -> Self {
        Places { taken: Mutex::new(Vec::new()), most, most_of_one }
    }

    /// A place for this owner, if there is one left.
    pub(super) fn take(&'static self, owner: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.iter().filter(|other| **other == owner).count();
        if taken.len() >= self.most || own >= self.most_of_one {
            return None;
        }
        taken.push(owner.clone());
        Some(Place { of: self, owner })
    }
}

impl<K: PartialEq + 'static> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.iter().position(|owner| *owner == self.owner) {
            taken.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_gets_some_and_all_together_get_no_more() {
        static PLACES: Places<u32> = Places::new(3, 2);
        let first = PLACES.take(1).unwrap();
        let _second = PLACES.take(1).unwrap();
        assert!(PLACES.take(1).is_none(), "a third of one");
        let _third = PLACES.take(2).unwrap();
        assert!(PLACES.take(3).is_none(), "a fourth of all");
        drop(first);
        assert!(PLACES.take(3).is_some());
    }
}
