//! Writes a BTF file that says where ip_vs keeps its fields, rightly or wrongly.
//!
//! As little as a reader needs (Documentation/bpf/btf.rst): integers, and structures of them.

use std::collections::BTreeMap;

/// BTF_KIND_INT.
const KIND_INT: u32 = 1;
/// BTF_KIND_STRUCT.
const KIND_STRUCT: u32 = 4;
/// What the first two bytes must be.
const MAGIC: u16 = 0xeb9f;
/// Version and flags.
const VERSION: [u8; 2] = [1, 0];
/// Bytes of the header.
const HEADER_BYTES: u32 = 24;
const BITS_PER_BYTE: u32 = 8;

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the beginning of its structure.
    pub offset_bytes: u32,
    /// Its size.
    pub size_bytes: u32,
}

/// Places by structure and field.
pub type Layout = BTreeMap<(String, String), Place>;

/// The file that describes `layout`.
pub fn file(layout: &Layout) -> Vec<u8> {
    let mut out = Writer::default();
    // The empty string, which has offset 0.
    out.strings.push(0);
    let mut integers = BTreeMap::new();
    for place in layout.values() {
        let size = place.size_bytes;
        integers.entry(size).or_insert_with(|| out.integer(size));
    }
    let mut structures: BTreeMap<&str, Vec<(&str, Place)>> = BTreeMap::new();
    for ((structure, field), place) in layout {
        structures
            .entry(structure)
            .or_default()
            .push((field, *place));
    }
    for (name, fields) in structures {
        out.structure(name, &fields, &integers);
    }
    out.finish()
}

#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    /// Returns the number of the new type.
    fn integer(&mut self, size_bytes: u32) -> u32 {
        let name = self.name(&format!("u{}", size_bytes * BITS_PER_BYTE));
        self.words(&[name, KIND_INT << 24, size_bytes, size_bytes * BITS_PER_BYTE]);
        self.count += 1;
        self.count
    }

    fn structure(&mut self, name: &str, fields: &[(&str, Place)], integers: &BTreeMap<u32, u32>) {
        let name = self.name(name);
        let size = fields
            .iter()
            .map(|(_, place)| place.offset_bytes + place.size_bytes)
            .max()
            .unwrap_or(0);
        self.words(&[name, (KIND_STRUCT << 24) | small(fields.len()), size]);
        for (field, place) in fields {
            let name = self.name(field);
            let integer = integers.get(&place.size_bytes).copied().unwrap_or(0);
            self.words(&[name, integer, place.offset_bytes * BITS_PER_BYTE]);
        }
        self.count += 1;
    }

    fn name(&mut self, name: &str) -> u32 {
        let offset = small(self.strings.len());
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        offset
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn finish(self) -> Vec<u8> {
        let (types, strings) = (small(self.types.len()), small(self.strings.len()));
        let mut all = MAGIC.to_le_bytes().to_vec();
        all.extend_from_slice(&VERSION);
        for word in [HEADER_BYTES, 0, types, types, strings] {
            all.extend_from_slice(&word.to_le_bytes());
        }
        all.extend_from_slice(&self.types);
        all.extend_from_slice(&self.strings);
        all
    }
}

/// A length of what this file writes: some kilobytes.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_reads_as_the_format_says() {
        let place = Place {
            offset_bytes: 16,
            size_bytes: 2,
        };
        let layout = Layout::from([(("conn".to_owned(), "port".to_owned()), place)]);
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        let want = [
            vec![0x9f, 0xeb, 1, 0],
            words(&[24, 0, 40, 40, 15]),
            words(&[1, 1 << 24, 2, 16]),
            words(&[5, (4 << 24) | 1, 18, 10, 1, 128]),
            b"\0u16\0conn\0port\0".to_vec(),
        ]
        .concat();
        assert_eq!(file(&layout), want);
    }
}
