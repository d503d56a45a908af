//! A small BTF blob for tests, written by hand after Documentation/bpf/btf.rst.
//!
//! ```c
//! struct inner { u16 shown; u16 hidden; };
//! struct outer {
//!     u32 first;                       // 0
//!     void *pointer;                   // 8
//!     struct inner /* no name */;      // 16
//!     struct inner named;              // 24
//!     u32_alias array[4];              // 32
//!     u32 bit : 1;                     // bit 387
//! };
//! enum skb_drop_reason { NOT_DROPPED_YET = 0, NOT_SPECIFIED = 3, NETFILTER_DROP = 11,
//!                        IP_RPFILTER = 15 };
//! ```

use super::btf::Btf;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;

/// Bytes of all names and the ends of each.
pub const STRING_BYTES: usize = 211;
/// Where the name `inner` is among them.
const NAME_OF_INNER: u32 = 19;

#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = self.strings.len();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        u32::try_from(offset).expect("small")
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn header(&mut self, name: &str, kind: u32, flag: bool, vlen: u32, size_or_type: u32) {
        let name = self.name(name);
        self.words(&[
            name,
            (u32::from(flag) << 31) | (kind << 24) | vlen,
            size_or_type,
        ]);
    }

    fn member(&mut self, name: &str, kind: u32, offset: u32) {
        let name = self.name(name);
        self.words(&[name, kind, offset]);
    }

    fn finish(self) -> Vec<u8> {
        let type_bytes = u32::try_from(self.types.len()).expect("small");
        let string_bytes = u32::try_from(self.strings.len()).expect("small");
        let mut all = Vec::new();
        all.extend_from_slice(&0xeb9f_u16.to_le_bytes());
        all.extend_from_slice(&[1, 0]);
        for word in [24, 0, type_bytes, type_bytes, string_bytes] {
            all.extend_from_slice(&word.to_le_bytes());
        }
        all.extend_from_slice(&self.types);
        all.extend_from_slice(&self.strings);
        all
    }
}

/// The types above.
pub fn btf() -> Btf {
    Btf::parse(bytes()).expect("the sample is valid")
}

/// The same as bytes.
pub fn bytes() -> Vec<u8> {
    let mut out = Writer {
        types: Vec::new(),
        strings: vec![0],
    };
    out.header("u32", KIND_INT, false, 0, 4); // 1
    out.words(&[32]);
    out.header("u16", KIND_INT, false, 0, 2); // 2
    out.words(&[16]);
    out.header("", KIND_PTR, false, 0, 0); // 3
    out.header("u32_alias", KIND_TYPEDEF, false, 0, 1); // 4
    out.header("", KIND_ARRAY, false, 0, 0); // 5
    out.words(&[4, 1, 4]);
    out.header("inner", KIND_STRUCT, false, 2, 4); // 6
    out.member("shown", 2, 0);
    out.member("hidden", 2, 16);
    out.header("outer", KIND_STRUCT, true, 6, 52); // 7
    out.member("first", 1, 0);
    out.member("pointer", 3, 8 * 8);
    out.member("", 6, 16 * 8);
    out.member("named", 6, 24 * 8);
    out.member("array", 5, 32 * 8);
    out.member("bit", 1, (1 << 24) + 387);
    out.header("skb_drop_reason", KIND_ENUM, false, 4, 4); // 8
    for (name, value) in [
        ("NOT_DROPPED_YET", 0),
        ("NOT_SPECIFIED", 3),
        ("NETFILTER_DROP", 11),
        ("IP_RPFILTER", 15),
    ] {
        let name = out.name(&format!("SKB_DROP_REASON_{name}"));
        out.words(&[name, value]);
    }
    out.finish()
}

/// `struct added { u32 added; u32 inner; };` and another `inner`, split over [`btf`].
pub fn split() -> Vec<u8> {
    let first_string = u32::try_from(STRING_BYTES).expect("small");
    let inner = NAME_OF_INNER;
    let mut out = Writer {
        types: Vec::new(),
        strings: Vec::new(),
    };
    let added = first_string + out.name("added");
    out.words(&[added, (KIND_STRUCT << 24) | 2, 8]); // 9
    out.words(&[added, 1, 0, inner, 1, 32]);
    out.words(&[inner, KIND_STRUCT << 24, 0]); // 10
    out.finish()
}
