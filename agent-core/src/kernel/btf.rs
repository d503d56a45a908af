//! Reads type information: BTF of a kernel, and that of a module split over it
//! (Documentation/bpf/btf.rst). Pure.
//!
//! The bytes are kept as they are, and a type is decoded when it is asked for. What is added is
//! where each type begins and an index of names: some 12 bytes per type. Decoding all of a kernel at
//! once takes eight times its size, 40 MB, at the moment when the agent needs most memory.

use std::ops::Range;
use std::sync::Arc;

/// First two bytes; in the other order where the byte order is not ours.
const MAGIC: u16 = 0xeb9f;
/// Bytes of the header as far as it is read.
const HEADER_BYTES: usize = 24;
/// Bytes every type has.
const TYPE_BYTES: usize = 12;

/// Why bytes are no type information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Shorter than its own header says.
    #[error("truncated: {have} bytes, expected {need} or more")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there must be.
        need: usize,
    },
    /// Not BTF, or of another byte order.
    #[error("begins with {0:#06x}, expected {MAGIC:#06x} in little-endian order")]
    Magic(u16),
    /// Another version of the format.
    #[error("version {version} with flags {flags:#x}, expected 1 without flags")]
    Version {
        /// Of the format.
        version: u8,
        /// None are known.
        flags: u8,
    },
    /// A kind of type that this build does not know, and cannot skip.
    #[error("type {id} is of kind {kind}, expected at most 19")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
    /// A type ends beyond the types.
    #[error("type {0} is truncated")]
    Type(u32),
    /// A name lies outside the strings: wrong bytes, or split over another base.
    #[error("the name of type {0} is not among the strings")]
    Name(u32),
    /// What is to be the base is split itself.
    #[error("the base is split over another one itself")]
    SplitBase,
}

/// A structure's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its name is among the strings.
    pub name: u32,
    /// Its type.
    pub type_id: u32,
    /// From the beginning of the structure.
    pub bit_offset: u32,
}

/// A structure or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    /// Its size.
    pub bytes: usize,
    /// In the order of the source.
    pub members: Vec<Member>,
}

/// An enumeration's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnumValue {
    /// Where its name is among the strings.
    pub name: u32,
    /// The value; a negative one in two's complement.
    pub value: u32,
}

/// A type, as far as the agent asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// An integer of this many bytes.
    Int(usize),
    /// A pointer to this type.
    Pointer(u32),
    /// `len` elements of a type.
    Array {
        /// Type of an element.
        element: u32,
        /// Their number.
        len: usize,
    },
    /// A structure.
    Struct(Composite),
    /// A union.
    Union(Composite),
    /// An enumeration of values of at most 32 bits.
    Enum {
        /// Size of a value.
        bytes: usize,
        /// Every value.
        values: Vec<EnumValue>,
    },
    /// An enumeration of larger values; bytes of one.
    Enum64(usize),
    /// A typedef of this type.
    Typedef(u32),
    /// `const`, `volatile`, `restrict`, or a tag, of this type.
    Qualified(u32),
    /// A function of this prototype.
    Function(u32),
    /// A function's type, with so many parameters.
    Prototype(u32),
    /// `void`, and what the agent does not ask about.
    Other,
}

impl Type {
    /// The type it is made of.
    const fn next(&self) -> Option<u32> {
        match self {
            Self::Pointer(id)
            | Self::Typedef(id)
            | Self::Qualified(id)
            | Self::Function(id)
            | Self::Array { element: id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// Kinds of types (`BTF_KIND_*`, include/uapi/linux/btf.h).
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Types of a kernel or of a module. A copy shares the bytes.
#[derive(Clone, Debug)]
pub struct Btf {
    own: Arc<Section>,
    base: Option<Arc<Section>>,
}

impl Btf {
    /// Types that stand by themselves.
    ///
    /// # Errors
    /// [`BtfError`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let own = Arc::new(Section::parse(bytes, None)?);
        Ok(Self { own, base: None })
    }

    /// Types that refer to those of `base`, as a module's do to its kernel's.
    ///
    /// # Errors
    /// [`BtfError`].
    pub fn parse_split(bytes: Vec<u8>, base: &Self) -> Result<Self, BtfError> {
        if base.base.is_some() {
            return Err(BtfError::SplitBase);
        }
        let own = Arc::new(Section::parse(bytes, Some(&base.own))?);
        let base = Some(Arc::clone(&base.own));
        Ok(Self { own, base })
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        [Some(&self.own), self.base.as_ref()]
            .into_iter()
            .flatten()
            .map(AsRef::as_ref)
    }

    /// Numbers of the types of this name, the module's own first.
    pub fn ids<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        let candidates = self
            .sections()
            .flat_map(move |section| section.candidates(name));
        candidates.filter_map(move |(id, at)| (self.name(at) == name).then_some(id))
    }

    /// The types of this name.
    pub fn types<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        self.ids(name).filter_map(|id| self.resolve(id))
    }

    /// The type of this number; `None` where there is none.
    #[must_use]
    pub fn resolve(&self, id: u32) -> Option<Type> {
        self.sections().find_map(|section| section.resolve(id))
    }

    /// The name at this place among the strings; empty where there is none.
    #[must_use]
    pub fn name(&self, at: u32) -> &str {
        let name = self.sections().find_map(|section| section.name(at));
        name.and_then(|name| str::from_utf8(name).ok())
            .unwrap_or("")
    }

    /// The type of this number, the type that is made of, and so on: endless where types are made
    /// of each other, so take as many as are sensible.
    pub fn chain(&self, id: u32) -> impl Iterator<Item = Type> + '_ {
        let mut next = Some(id);
        std::iter::from_fn(move || {
            let found = self.resolve(next.take()?)?;
            next = found.next();
            Some(found)
        })
    }
}

/// The bytes of one file.
#[derive(Debug)]
struct Section {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where its strings begin, behind those of its base.
    first_string: u32,
    /// Number of its first type: 1, or behind those of its base.
    first_id: u32,
    /// Where each type begins.
    starts: Vec<u32>,
    /// Hash of the name and number of each type that has a name, in order.
    names: Vec<(u32, u32)>,
}

impl Section {
    fn parse(bytes: Vec<u8>, base: Option<&Self>) -> Result<Self, BtfError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(BtfError::Truncated {
            have: bytes.len(),
            need: HEADER_BYTES,
        })?;
        let magic = u16::from_le_bytes([header[0], header[1]]);
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let (version, flags) = (header[2], header[3]);
        if (version, flags) != (1, 0) {
            return Err(BtfError::Version { version, flags });
        }
        let types = part(&bytes, 8)?;
        let strings = part(&bytes, 16)?;
        let mut section = Self {
            strings,
            first_string: base.map_or(0, Self::end_of_strings),
            first_id: base.map_or(1, Self::end_of_ids),
            // Half of a kernel's types have 12 bytes.
            starts: Vec::with_capacity(types.len() / 24),
            names: Vec::new(),
            bytes,
        };
        section.find_types(types)?;
        section.index_names(base)?;
        Ok(section)
    }

    fn end_of_strings(&self) -> u32 {
        self.first_string.saturating_add(number(self.strings.len()))
    }

    fn end_of_ids(&self) -> u32 {
        self.first_id.saturating_add(number(self.starts.len()))
    }

    fn find_types(&mut self, types: Range<usize>) -> Result<(), BtfError> {
        let mut at = types.start;
        while at < types.end {
            let id = self.end_of_ids();
            let truncated = BtfError::Type(id);
            let head = self.head(at).ok_or(truncated.clone())?;
            let more = head.more_bytes().ok_or(BtfError::Kind {
                id,
                kind: head.kind,
            })?;
            let end = at + TYPE_BYTES + more;
            if end > types.end {
                return Err(truncated);
            }
            self.starts.push(number(at));
            at = end;
        }
        Ok(())
    }

    fn index_names(&mut self, base: Option<&Self>) -> Result<(), BtfError> {
        let mut names = Vec::with_capacity(self.starts.len());
        for (id, start) in (self.first_id..).zip(&self.starts) {
            let Some(head) = self.head(*start as usize) else {
                continue;
            };
            if head.name == 0 {
                continue;
            }
            let name = base.and_then(|base| base.name(head.name));
            let name = name.or_else(|| self.name(head.name));
            names.push((hash(name.ok_or(BtfError::Name(id))?), id));
        }
        names.sort_unstable();
        names.shrink_to_fit();
        self.names = names;
        Ok(())
    }

    /// Numbers of the types whose name has the hash of this one, each with where its name is.
    fn candidates(&self, name: &str) -> impl Iterator<Item = (u32, u32)> + '_ {
        let expected = hash(name.as_bytes());
        let first = self.names.partition_point(|(hash, _)| *hash < expected);
        self.names[first..]
            .iter()
            .take_while(move |(hash, _)| *hash == expected)
            .filter_map(|(_, id)| {
                let head = self.head(self.start(*id)?)?;
                Some((*id, head.name))
            })
    }

    /// Bytes of the name at this place; `None` where it is another section's, or does not end.
    fn name(&self, at: u32) -> Option<&[u8]> {
        let at = at.checked_sub(self.first_string)?;
        let strings = self.bytes.get(self.strings.clone())?;
        let rest = strings.get(at as usize..)?;
        rest.iter()
            .position(|byte| *byte == 0)
            .map(|end| &rest[..end])
    }

    fn start(&self, id: u32) -> Option<usize> {
        let index = id.checked_sub(self.first_id)?;
        self.starts.get(index as usize).map(|start| *start as usize)
    }

    fn head(&self, at: usize) -> Option<Head> {
        let info = word(&self.bytes, at + 4)?;
        Some(Head {
            name: word(&self.bytes, at)?,
            kind: (info >> 24) & 0x1f,
            flag: info >> 31 == 1,
            len: info & 0xffff,
            size_or_type: word(&self.bytes, at + 8)?,
        })
    }

    fn resolve(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type::Other);
        }
        let start = self.start(id)?;
        let head = self.head(start)?;
        let more = start + TYPE_BYTES;
        let word = |index: usize| word(&self.bytes, more + 4 * index);
        let bytes = head.size_or_type as usize;
        let target = head.size_or_type;
        Some(match head.kind {
            kind::INT => Type::Int(bytes),
            kind::PTR => Type::Pointer(target),
            kind::ARRAY => Type::Array {
                element: word(0)?,
                len: word(2)? as usize,
            },
            kind::STRUCT => Type::Struct(self.composite(&head, more)?),
            kind::UNION => Type::Union(self.composite(&head, more)?),
            kind::ENUM => Type::Enum {
                bytes,
                values: self.values(&head, more)?,
            },
            kind::ENUM64 => Type::Enum64(bytes),
            kind::TYPEDEF => Type::Typedef(target),
            kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                Type::Qualified(target)
            }
            kind::FUNC => Type::Function(target),
            kind::FUNC_PROTO => Type::Prototype(head.len),
            _ => Type::Other,
        })
    }

    fn composite(&self, head: &Head, more: usize) -> Option<Composite> {
        // With the flag the upper 8 bits are the size of a bit field.
        let mask = if head.flag { 0x00ff_ffff } else { u32::MAX };
        let members = (0..head.len as usize).map(|index| {
            let at = more + 12 * index;
            Some(Member {
                name: word(&self.bytes, at)?,
                type_id: word(&self.bytes, at + 4)?,
                bit_offset: word(&self.bytes, at + 8)? & mask,
            })
        });
        Some(Composite {
            bytes: head.size_or_type as usize,
            members: members.collect::<Option<_>>()?,
        })
    }

    fn values(&self, head: &Head, more: usize) -> Option<Vec<EnumValue>> {
        (0..head.len as usize)
            .map(|index| {
                let at = more + 8 * index;
                Some(EnumValue {
                    name: word(&self.bytes, at)?,
                    value: word(&self.bytes, at + 4)?,
                })
            })
            .collect()
    }
}

/// What every type begins with (`struct btf_type`).
struct Head {
    name: u32,
    kind: u32,
    flag: bool,
    /// Members, values or parameters.
    len: u32,
    size_or_type: u32,
}

impl Head {
    /// Bytes behind it; `None` for a kind that is not known.
    const fn more_bytes(&self) -> Option<usize> {
        let each = match self.kind {
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => return Some(0),
            kind::INT | kind::VAR | kind::DECL_TAG => return Some(4),
            kind::ARRAY => return Some(12),
            kind::ENUM | kind::FUNC_PROTO => 8,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12,
            _ => return None,
        };
        Some(each * self.len as usize)
    }
}

/// A part of the file, by the offset and length that the header has at `at`.
fn part(bytes: &[u8], at: usize) -> Result<Range<usize>, BtfError> {
    let field = |at| word(bytes, at).map_or(0, |word| word as usize);
    let start = field(4) + field(at);
    let end = start + field(at + 4);
    if end > bytes.len() {
        return Err(BtfError::Truncated {
            have: bytes.len(),
            need: end,
        });
    }
    Ok(start..end)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Offsets in BTF have 32 bits.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn hash(name: &[u8]) -> u32 {
    // FNV-1a (draft-eastlake-fnv).
    name.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sample;

    #[test]
    fn types_are_found_by_name_and_decoded() {
        let types = sample::btf();
        assert_eq!(types.ids("outer").collect::<Vec<_>>(), [7]);
        assert_eq!(types.types("u16").collect::<Vec<_>>(), [Type::Int(2)]);
        let Some(Type::Struct(inner)) = types.resolve(6) else {
            panic!("type 6 is struct inner");
        };
        let names: Vec<_> = inner.members.iter().map(|it| types.name(it.name)).collect();
        assert_eq!((inner.bytes, names), (4, vec!["shown", "hidden"]));
        assert_eq!(inner.members[1].bit_offset, 16);
        assert_eq!(types.ids("hidden").count(), 0, "a member is no type");
        assert_eq!(types.ids("").count(), 0, "no name is no name");
        assert_eq!(types.resolve(0), Some(Type::Other));
        assert_eq!(types.resolve(9), None);
    }

    #[test]
    fn a_chain_ends_where_a_type_is_made_of_nothing() {
        let types = sample::btf();
        let alias = types.ids("u32_alias").next().expect("the typedef");
        let chain: Vec<_> = types.chain(alias).collect();
        assert_eq!(chain, [Type::Typedef(1), Type::Int(4)]);
    }

    #[test]
    fn a_split_file_goes_on_where_its_base_ends() {
        let base = sample::btf();
        let split = Btf::parse_split(sample::split(), &base).expect("the sample is valid");
        let id = 9;
        assert_eq!(split.ids("added").collect::<Vec<_>>(), [id]);
        assert_eq!(split.ids("inner").collect::<Vec<_>>(), [id + 1, 6]);
        let Some(Type::Struct(added)) = split.resolve(id) else {
            panic!("type {id} is struct added");
        };
        assert_eq!(split.name(added.members[0].name), "added");
        assert_eq!(
            split.name(added.members[1].name),
            "inner",
            "a name of the base"
        );
        assert_eq!(split.resolve(id + 2), None);
        assert_eq!(
            Btf::parse_split(sample::split(), &split).err(),
            Some(BtfError::SplitBase)
        );
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample::bytes();
        for len in 0..bytes.len() {
            let refused = Btf::parse(bytes[..len].to_vec());
            assert!(
                matches!(refused, Err(BtfError::Truncated { .. })),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn what_is_no_btf_is_refused_by_name() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = sample::bytes();
            bytes[at] = byte;
            Btf::parse(bytes).expect_err("was changed").to_string()
        };
        assert_eq!(
            changed(0, 0x7f),
            "begins with 0xeb7f, expected 0xeb9f in little-endian order"
        );
        assert_eq!(
            changed(2, 2),
            "version 2 with flags 0x0, expected 1 without flags"
        );
        assert_eq!(
            changed(3, 1),
            "version 1 with flags 0x1, expected 1 without flags"
        );
        assert_eq!(
            changed(24 + 7, 31),
            "type 1 is of kind 31, expected at most 19"
        );
        assert_eq!(
            changed(24 + 3, 1),
            "the name of type 1 is not among the strings"
        );
        // The last type says that it has more values than there are.
        let last = sample::bytes().len() - sample::STRING_BYTES - 4 * 8 - 8;
        assert_eq!(changed(last, 5), "type 8 is truncated");
    }
}
