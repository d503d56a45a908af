//! Resolves every kernel field the programs read, by its presence in BTF. Pure.
//!
//! Versions prove nothing: stable updates move fields inside one series. A field that is missing
//! or has an unexpected size is an error that names it; the agent then refuses to observe.

use std::path::PathBuf;

use agent_common::layout::{ABSENT, FIELDS, FieldSpec, KernelLayout};

use super::btf::{Btf, Member, Type};
use super::builtin::{BuiltIn, is_of_module};

/// Anonymous structures nested deeper than this are not followed (the kernel nests three).
const NESTING_MAX: u32 = 8;
/// Typedefs and qualifiers followed to reach a type's size.
const CHAIN_MAX: usize = 16;

/// Where the types of the module come from, best first.
pub enum ModuleTypes {
    /// The module's own BTF, split over the kernel's, as the kernel publishes it.
    Kernel(Btf),
    /// ip_vs is built into the kernel, whose own BTF holds its types.
    InKernel,
    /// A file the user gave; self-contained, or split over the kernel's BTF.
    File(PathBuf, Btf),
    /// Offsets this build knows by heart.
    BuiltIn(&'static BuiltIn),
}

/// A field that cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The structure is not in BTF.
    #[error("structure `{structure}` is not in this kernel's BTF; `{path}` was wanted from it")]
    NoStructure {
        /// Structure asked for.
        structure: &'static str,
        /// Field asked for.
        path: &'static str,
    },
    /// The structure has no such member.
    #[error("structure `{structure}` of this kernel has no field `{path}`")]
    NoField {
        /// Structure searched.
        structure: &'static str,
        /// Field asked for.
        path: &'static str,
    },
    /// The member is there with a size the programs cannot read.
    #[error(
        "field `{structure}.{path}` of this kernel has {found} bytes, the programs read {wanted:?}"
    )]
    Size {
        /// Structure searched.
        structure: &'static str,
        /// Field asked for.
        path: &'static str,
        /// Size in BTF, bytes.
        found: usize,
        /// Sizes the programs can read, bytes.
        wanted: &'static [u16],
    },
    /// The member lies where the programs cannot reach.
    #[error("field `{structure}.{path}` lies at bit {bit_offset}, which the programs cannot read")]
    Place {
        /// Structure searched.
        structure: &'static str,
        /// Field asked for.
        path: &'static str,
        /// Offset in BTF, bits.
        bit_offset: u32,
    },
}

/// A field that cannot be relied on, and what the agent could not know without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}; without it the agent cannot report {costs}")]
pub struct Unresolved {
    /// What is wrong with the field.
    pub fault: LayoutError,
    /// What it is needed for.
    pub costs: &'static str,
}

/// Resolves the whole layout: structures of ip_vs from `module`, all others from `kernel`.
///
/// # Errors
/// The first required field this kernel does not have in a readable form.
pub fn resolve(kernel: &Btf, module: &ModuleTypes) -> Result<KernelLayout, Unresolved> {
    let mut offsets = [ABSENT; KernelLayout::LEN];
    for (offset, spec) in offsets.iter_mut().zip(FIELDS) {
        match find(kernel, module, spec) {
            Ok(found) => *offset = found,
            Err(LayoutError::NoField { .. }) if !spec.required => {}
            // Only a probe that observes something else than IPVS is lost with it.
            Err(_) if !spec.required && !is_of_module(spec.structure) => {}
            Err(fault) => {
                let costs = spec.costs();
                return Err(Unresolved { fault, costs });
            }
        }
    }
    Ok(KernelLayout::from_offsets(offsets))
}

fn find(kernel: &Btf, module: &ModuleTypes, spec: &FieldSpec) -> Result<u16, LayoutError> {
    if !is_of_module(spec.structure) {
        return field_offset(kernel, spec);
    }
    match module {
        ModuleTypes::InKernel => field_offset(kernel, spec),
        ModuleTypes::Kernel(types) | ModuleTypes::File(_, types) => field_offset(types, spec),
        ModuleTypes::BuiltIn(layout) => {
            layout
                .offset(spec.structure, spec.path)
                .ok_or(LayoutError::NoField {
                    structure: spec.structure,
                    path: spec.path,
                })
        }
    }
}

fn field_offset(types: &Btf, spec: &FieldSpec) -> Result<u16, LayoutError> {
    let (structure, path) = (spec.structure, spec.path);
    let mut scope =
        members_by_name(types, structure).ok_or(LayoutError::NoStructure { structure, path })?;
    let mut bit_offset = 0_u32;
    let mut size = 0;
    for name in path.split('.') {
        let (bits, member) =
            find_member(types, &scope, name, 0).ok_or(LayoutError::NoField { structure, path })?;
        // Saturated it is out of reach, as the sum would be.
        bit_offset = bit_offset.saturating_add(bits);
        size = size_bytes(types, &member).ok_or(LayoutError::NoField { structure, path })?;
        scope = members_of(types, &member).unwrap_or_default();
    }
    if !spec
        .sizes_bytes
        .iter()
        .any(|wanted| usize::from(*wanted) == size)
    {
        return Err(LayoutError::Size {
            structure,
            path,
            found: size,
            wanted: spec.sizes_bytes,
        });
    }
    u16::try_from(bit_offset / 8)
        .ok()
        .filter(|offset| bit_offset.is_multiple_of(8) && *offset != ABSENT)
        .ok_or(LayoutError::Place {
            structure,
            path,
            bit_offset,
        })
}

/// Whether these types describe ip_vs: those of a kernel do when it is built in.
pub fn describes_ip_vs(types: &Btf) -> bool {
    members_by_name(types, "ip_vs_conn").is_some()
}

/// Whether these types describe what every kernel has, so that they can serve as the kernel's own.
pub fn describes_kernel(types: &Btf) -> bool {
    ["sk_buff", "net_device", "net"]
        .iter()
        .all(|structure| members_by_name(types, structure).is_some())
}

/// Members of the structure of this name.
fn members_by_name(types: &Btf, name: &str) -> Option<Vec<Member>> {
    types.types(name).find_map(|found| match found {
        Type::Struct(structure) => Some(structure.members),
        _ => None,
    })
}

/// A member of this name among `members`, or inside one of its anonymous members; offset in bits.
fn find_member(types: &Btf, members: &[Member], name: &str, depth: u32) -> Option<(u32, Member)> {
    for member in members {
        let member_name = types.name(member.name);
        if member_name == name {
            return Some((member.bit_offset, *member));
        }
        if member_name.is_empty() && depth < NESTING_MAX {
            let inner = members_of(types, member).unwrap_or_default();
            if let Some((bits, found)) = find_member(types, &inner, name, depth + 1) {
                return Some((member.bit_offset.saturating_add(bits), found));
            }
        }
    }
    None
}

/// Members of the structure or union a member is made of.
fn members_of(types: &Btf, member: &Member) -> Option<Vec<Member>> {
    match underlying(types, member)? {
        Type::Struct(inner) | Type::Union(inner) => Some(inner.members),
        _ => None,
    }
}

/// The type of a member behind typedefs and qualifiers.
fn underlying(types: &Btf, member: &Member) -> Option<Type> {
    types
        .chain(member.type_id)
        .take(CHAIN_MAX)
        .find(|found| !matches!(found, Type::Typedef(_) | Type::Qualified(_)))
}

fn size_bytes(types: &Btf, member: &Member) -> Option<usize> {
    let found = underlying(types, member)?;
    match found {
        Type::Int(bytes) | Type::Enum { bytes, .. } | Type::Enum64(bytes) => Some(bytes),
        Type::Pointer(_) => Some(size_of::<u64>()),
        Type::Struct(inner) | Type::Union(inner) => Some(inner.bytes),
        Type::Array { element, len } => len.checked_mul(element_bytes(types, element)?),
        _ => None,
    }
}

fn element_bytes(types: &Btf, element: u32) -> Option<usize> {
    types
        .chain(element)
        .take(CHAIN_MAX)
        .find_map(|found| match found {
            Type::Int(bytes) => Some(bytes),
            Type::Pointer(_) => Some(size_of::<u64>()),
            Type::Struct(inner) | Type::Union(inner) => Some(inner.bytes),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sample;

    fn spec(structure: &'static str, path: &'static str, sizes: &'static [u16]) -> FieldSpec {
        FieldSpec {
            name: "x",
            structure,
            path,
            sizes_bytes: sizes,
            required: true,
            own_costs: None,
        }
    }

    #[test]
    fn plain_members_are_found_at_their_offset() {
        let types = sample::btf();
        assert_eq!(field_offset(&types, &spec("outer", "first", &[4])), Ok(0));
        assert_eq!(field_offset(&types, &spec("outer", "pointer", &[8])), Ok(8));
    }

    #[test]
    fn anonymous_members_are_followed() {
        let types = sample::btf();
        assert_eq!(
            field_offset(&types, &spec("outer", "hidden", &[2])),
            Ok(16 + 2)
        );
    }

    #[test]
    fn paths_add_the_offsets_of_their_steps() {
        let types = sample::btf();
        assert_eq!(
            field_offset(&types, &spec("outer", "named.hidden", &[2])),
            Ok(24 + 2)
        );
    }

    #[test]
    fn typedefs_and_arrays_have_the_size_of_what_they_stand_for() {
        let types = sample::btf();
        assert_eq!(field_offset(&types, &spec("outer", "array", &[16])), Ok(32));
    }

    #[test]
    fn missing_names_are_named() {
        let types = sample::btf();
        assert_eq!(
            field_offset(&types, &spec("outer", "gone", &[4])),
            Err(LayoutError::NoField {
                structure: "outer",
                path: "gone"
            })
        );
        assert_eq!(
            field_offset(&types, &spec("nowhere", "first", &[4])),
            Err(LayoutError::NoStructure {
                structure: "nowhere",
                path: "first"
            })
        );
    }

    #[test]
    fn a_size_the_programs_cannot_read_is_refused() {
        let types = sample::btf();
        assert_eq!(
            field_offset(&types, &spec("outer", "first", &[2])),
            Err(LayoutError::Size {
                structure: "outer",
                path: "first",
                found: 4,
                wanted: &[2]
            })
        );
    }

    #[test]
    fn bit_fields_are_refused() {
        let types = sample::btf();
        assert_eq!(
            field_offset(&types, &spec("outer", "bit", &[4])),
            Err(LayoutError::Place {
                structure: "outer",
                path: "bit",
                bit_offset: 387
            })
        );
    }

    #[test]
    fn every_field_says_what_it_is_for() {
        let costs = |name| {
            let spec = FIELDS.iter().find(|spec| spec.name == name);
            spec.map(FieldSpec::costs)
        };
        assert_eq!(
            costs("conn_control"),
            Some("persistence as the cause of a stale connection")
        );
        assert_eq!(
            costs("dest_addr"),
            Some("which real server a connection attempt went to")
        );
    }

    #[test]
    fn types_of_a_built_in_ip_vs_come_from_the_kernel() {
        let types = sample::btf();
        let spec = spec("ip_vs_conn", "hidden", &[2]);
        assert_eq!(
            find(&types, &ModuleTypes::InKernel, &spec),
            Err(LayoutError::NoStructure {
                structure: "ip_vs_conn",
                path: "hidden"
            }),
            "looked for in the kernel's types, which lack it here"
        );
        assert!(!describes_ip_vs(&types) && !describes_kernel(&types));
    }

    #[test]
    fn a_kernel_without_ipvs_types_is_refused_by_name() {
        let error = resolve(&sample::btf(), &ModuleTypes::Kernel(sample::btf()))
            .expect_err("the sample has no sk_buff");
        assert_eq!(
            error.to_string(),
            "structure `sk_buff` is not in this kernel's BTF; `head` was wanted from it; without \
             it the agent cannot report that a connection was attempted"
        );
    }
}
