//! The records of one drain, each copied once, all in one allocation.

use bytes::{Bytes, BytesMut};

/// Room for the records of one batch: [`super::ring::BATCH_MAX`] of the largest kind (144 bytes).
///
/// A batch of perf buffers may be larger; it gets another allocation.
const ARENA_BYTES: usize = super::ring::BATCH_MAX * 144;

/// Records in the order they were read.
///
/// Their memory is used again for the next batch once all of them have been dropped.
#[derive(Debug, Default)]
pub struct Batch {
    arena: BytesMut,
    records: Vec<Bytes>,
}

impl Batch {
    /// Copies one record, which may lie in two parts, and keeps as much of it as `len` says.
    pub fn push(&mut self, parts: [&[u8]; 2], len: impl FnOnce(&[u8]) -> usize) {
        if self.records.is_empty() {
            self.arena.reserve(ARENA_BYTES);
        }
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        let len = len(&self.arena).min(self.arena.len());
        let record = self.arena.split_to(len).freeze();
        // What is left is padding.
        self.arena.clear();
        self.records.push(record);
    }

    /// Takes the records out.
    pub fn drain(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.records.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batch: &mut Batch) -> Vec<Bytes> {
        batch.push([b"first", b""], <[u8]>::len);
        batch.push([b"sec", b"ond..."], |_| 6);
        batch.push([b"third", b""], |_| 100);
        batch.drain().collect()
    }

    #[test]
    fn records_are_what_was_pushed_without_padding() {
        assert_eq!(filled(&mut Batch::default()), ["first", "second", "third"]);
    }

    #[test]
    fn a_batch_is_one_allocation_that_the_next_one_uses_again() {
        let mut batch = Batch::default();
        let records = filled(&mut batch);
        let begin = records[0].as_ptr();
        let offset = |record: &Bytes| record.as_ptr() as usize - begin as usize;
        assert_eq!([offset(&records[1]), offset(&records[2])], [5, 11]);
        drop(records);
        assert_eq!(filled(&mut batch)[0].as_ptr(), begin);
    }

    #[test]
    fn records_that_are_kept_stay_as_they_are() {
        let mut batch = Batch::default();
        let kept = filled(&mut batch);
        let next = filled(&mut batch);
        assert_ne!(kept[0].as_ptr(), next[0].as_ptr());
        assert_eq!(kept, ["first", "second", "third"]);
    }
}
