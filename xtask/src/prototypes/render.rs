//! C prototypes as BTF gives them, spelled as the kernel's own source spells them.

use anyhow::{Context, Result, bail};
use btf_rs::{Btf, BtfType, FuncProto, Type};

/// Spellings of the compiler's debug information, and those of people.
const SPELLINGS: &[(&str, &str)] = &[
    ("long unsigned int", "unsigned long"),
    ("long long unsigned int", "unsigned long long"),
    ("long long int", "long long"),
    ("long int", "long"),
    ("short unsigned int", "unsigned short"),
    ("short int", "short"),
    ("_Bool", "bool"),
];

/// What a tracepoint's own caller begins with; its first parameter is not the tracepoint's.
const TRACEPOINT_CALLER: &str = "__traceiter_";

/// Prototypes of every function called `name`; more than one only where static functions share it.
///
/// # Errors
/// When the types are damaged.
pub fn functions(btf: &Btf, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for proto in protos(btf, name)? {
        found.push(format!(
            "{}({})",
            declare(btf, proto.return_type_id(), name)?,
            parameters(btf, &proto, 0)?
        ));
    }
    found.dedup();
    Ok(found)
}

/// The raw arguments of the tracepoint called `name`, if there is one.
///
/// # Errors
/// When the types are damaged.
pub fn tracepoint(btf: &Btf, name: &str) -> Result<Option<String>> {
    let caller = format!("{TRACEPOINT_CALLER}{name}");
    let protos = protos(btf, &caller)?;
    let Some(proto) = protos.first() else {
        return Ok(None);
    };
    Ok(Some(format!("{name}({})", parameters(btf, proto, 1)?)))
}

fn protos(btf: &Btf, name: &str) -> Result<Vec<FuncProto>> {
    // An error says that nothing bears the name.
    let Ok(types) = btf.resolve_types_by_name(name) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for function in types {
        if let Type::Func(function) = function
            && let Type::FuncProto(proto) = btf.resolve_chained_type(&function)?
        {
            found.push(proto);
        }
    }
    Ok(found)
}

fn parameters(btf: &Btf, proto: &FuncProto, skip: usize) -> Result<String> {
    let mut words = Vec::new();
    for parameter in proto.parameters.iter().skip(skip) {
        words.push(if parameter.is_variadic() {
            "...".to_owned()
        } else {
            let name = btf.resolve_name(parameter).unwrap_or_default();
            let id = parameter.get_type_id().context("a parameter has no type")?;
            declare(btf, id, &name)?
        });
    }
    Ok(if words.is_empty() {
        "void".to_owned()
    } else {
        words.join(", ")
    })
}

/// Declares `name` (which may be empty, or a declarator such as `*a`) to be of type `id`.
fn declare(btf: &Btf, id: u32, name: &str) -> Result<String> {
    let of = |word: &str| join(word, name);
    let named = |of_type: &dyn BtfType| btf.resolve_name(of_type);
    Ok(match btf.resolve_type_by_id(id)? {
        Type::Void => of("void"),
        Type::Int(of_type) => of(spelling(&named(&of_type)?)),
        Type::Float(of_type) => of(&named(&of_type)?),
        Type::Typedef(of_type) => of(&named(&of_type)?),
        Type::Struct(of_type) => of(&format!("struct {}", named(&of_type)?)),
        Type::Union(of_type) => of(&format!("union {}", named(&of_type)?)),
        Type::Enum(of_type) => of(&format!("enum {}", named(&of_type)?)),
        Type::Enum64(of_type) => of(&format!("enum {}", named(&of_type)?)),
        Type::Fwd(of_type) => {
            let word = if of_type.is_union() {
                "union"
            } else {
                "struct"
            };
            of(&format!("{word} {}", named(&of_type)?))
        }
        Type::Ptr(of_type) => pointer(btf, target(&of_type), name)?,
        Type::Const(of_type) => qualified(btf, "const", target(&of_type), name)?,
        Type::Volatile(of_type) => qualified(btf, "volatile", target(&of_type), name)?,
        Type::Restrict(of_type) => declare(btf, target(&of_type), name)?,
        Type::TypeTag(of_type) => declare(btf, target(&of_type), name)?,
        other => bail!("a parameter is of kind {}", other.name()),
    })
}

/// Type 0 is `void`, which has no entry of its own.
fn target(of_type: &dyn BtfType) -> u32 {
    of_type.get_type_id().unwrap_or(0)
}

fn pointer(btf: &Btf, id: u32, name: &str) -> Result<String> {
    if let Type::FuncProto(proto) = btf.resolve_type_by_id(id)? {
        let result = declare(btf, proto.return_type_id(), &format!("(*{name})"))?;
        return Ok(format!("{result}({})", parameters(btf, &proto, 0)?));
    }
    declare(btf, id, &format!("*{name}"))
}

/// `const T *a` but `T *const a`: the word stands before a type and behind a star.
fn qualified(btf: &Btf, word: &str, id: u32, name: &str) -> Result<String> {
    if matches!(btf.resolve_type_by_id(id)?, Type::Ptr(_)) {
        return declare(btf, id, &join(word, name));
    }
    Ok(format!("{word} {}", declare(btf, id, name)?))
}

fn spelling(name: &str) -> &str {
    SPELLINGS
        .iter()
        .find(|(debug, _)| *debug == name)
        .map_or(name, |(_, people)| people)
}

fn join(word: &str, name: &str) -> String {
    if name.is_empty() {
        word.to_owned()
    } else {
        format!("{word} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::{functions, tracepoint};
    use btf_rs::Btf;

    /// `const struct s *f(long unsigned int n, void (*g)(struct s *), char **p)` and a tracepoint
    /// `t` of the same parameters but the first, as Documentation/bpf/btf.rst encodes them.
    fn example() -> Btf {
        const NAMES: &[u8] = b"\0long unsigned int\0s\0f\0n\0g\0p\0__traceiter_t\0char\0";
        let name = |word: &str| {
            let mut bytes = word.as_bytes().to_vec();
            bytes.push(0);
            let at = NAMES
                .windows(bytes.len())
                .position(|window| window == bytes);
            u32::try_from(at.expect("the name is listed")).expect("it is near")
        };
        let kind = |kind: u32, count: u32| (kind << 24) | count;
        let (int, ptr, structure, constant, func, proto) = (1, 2, 4, 10, 12, 13);
        let types = [
            &[name("long unsigned int"), kind(int, 0), 8, 64][..], // 1
            &[name("s"), kind(structure, 0), 0],                   // 2
            &[0, kind(constant, 0), 2],                            // 3
            &[0, kind(ptr, 0), 3],                                 // 4: const struct s *
            &[0, kind(ptr, 0), 2],                                 // 5: struct s *
            &[0, kind(proto, 1), 0, 0, 5],                         // 6: void (struct s *)
            &[0, kind(ptr, 0), 6],                                 // 7
            &[name("char"), kind(int, 0), 1, 8],                   // 8
            &[0, kind(ptr, 0), 8],                                 // 9
            &[0, kind(ptr, 0), 9],                                 // 10: char **
            &[
                0,
                kind(proto, 3),
                4,
                name("n"),
                1,
                name("g"),
                7,
                name("p"),
                10,
            ], // 11
            &[name("f"), kind(func, 0), 11],                       // 12
            &[name("__traceiter_t"), kind(func, 0), 11],           // 13
        ]
        .concat();
        let type_bytes = u32::try_from(types.len() * 4).expect("it is small");
        let name_bytes = u32::try_from(NAMES.len()).expect("it is small");
        let mut file = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, type_bytes, type_bytes, name_bytes]
            .into_iter()
            .chain(types)
        {
            file.extend(word.to_le_bytes());
        }
        file.extend(NAMES);
        Btf::from_bytes(&file).expect("the example is well formed")
    }

    #[test]
    fn prototypes_read_as_people_write_them() {
        let btf = example();
        assert_eq!(
            functions(&btf, "f").ok(),
            Some(vec![
                "const struct s *f(unsigned long n, void (*g)(struct s *), char **p)".to_owned()
            ])
        );
        assert_eq!(functions(&btf, "g").ok(), Some(Vec::new()));
    }

    #[test]
    fn a_tracepoint_begins_behind_its_own_data() {
        let btf = example();
        assert_eq!(
            tracepoint(&btf, "t").ok().flatten(),
            Some("t(void (*g)(struct s *), char **p)".to_owned())
        );
        assert_eq!(tracepoint(&btf, "f").ok(), Some(None));
    }
}
