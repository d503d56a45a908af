//! Reads type information (BTF) of the kernel and of a module, and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use agent_core::kernel::btf::{self, Btf, Type};
use agent_core::kernel::builtin;
use agent_core::kernel::layout::{ModuleTypes, describes_ip_vs};

use super::supplied::{Supplied, SuppliedError};

/// Where the kernel publishes BTF: one file for the kernel, one per module (from 5.11 on).
const BTF_DIRECTORY: &str = "/sys/kernel/btf";

/// Why type information could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel publishes no BTF, and no file has it.
    #[error("{}; supply its types with --btf FILE", self.reason())]
    NoKernelBtf {
        /// File that was tried.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
    },
    /// What `--btf` names.
    #[error(transparent)]
    Supplied(#[from] SuppliedError),
    /// The kernel publishes no BTF for the module, and no layout is built in for it.
    #[error("{}; supply its types with --btf FILE", self.reason())]
    NoModuleBtf {
        /// Module asked for.
        module: String,
        /// File that was tried.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
        /// Release of the running kernel.
        release: String,
    },
    /// The bytes are no BTF.
    #[error("{} is not valid BTF: {source}", path.display())]
    Malformed {
        /// File that was read.
        path: PathBuf,
        /// What the parser found.
        source: btf::BtfError,
    },
    /// Functions of the module cannot be traced by type.
    #[error(
        "fexit needs the BTF that the kernel publishes, and {0} is in use; use --attach kprobe, or \
         auto"
    )]
    NotTraceable(String),
    /// A function to trace is not in the kernel's BTF.
    #[error("function `{0}` is not in the BTF of this kernel")]
    NoKernelFunction(String),
    /// A function to trace is not in the module's BTF.
    #[error("function `{function}` is not in the BTF of module `{module}`")]
    NoFunction {
        /// Module searched.
        module: String,
        /// Function asked for.
        function: String,
    },
}

impl BtfError {
    /// What was looked for and where, without what to do about it.
    pub fn reason(&self) -> String {
        match self {
            Self::NoKernelBtf { path, source } => format!(
                "{} cannot be read ({source}): this kernel publishes no BTF",
                path.display()
            ),
            Self::NoModuleBtf {
                path,
                source,
                release,
                ..
            } => format!(
                "{} cannot be read ({source}), the kernel's own BTF does not describe ip_vs, and no \
                 layout is built in for kernel {release}",
                path.display()
            ),
            other => other.to_string(),
        }
    }
}

/// Types of the kernel together with those of one module.
pub struct Types {
    module_name: String,
    kernel: Btf,
    /// The file that has the kernel's types, where the kernel does not publish them.
    kernel_file: Option<PathBuf>,
    module: ModuleTypes,
}

impl Types {
    /// Finds the types of the kernel and of `module`.
    ///
    /// The kernel's own: as it publishes them, else from `user_path`. The module's: from
    /// `user_path`, else as the kernel publishes them (its own BTF has them where the module is
    /// built in), else the layout built in for `release`. `user_path` is what `--btf` names.
    ///
    /// # Errors
    /// [`BtfError`] names the file and what to do.
    pub fn read(module: &str, user_path: Option<&Path>, release: &str) -> Result<Self, BtfError> {
        let published = published("vmlinux");
        let supplied = match user_path {
            Some(path) => Supplied::read(path, release, published.as_ref().ok())?,
            None => Supplied::default(),
        };
        let (kernel, kernel_file) = match (published, supplied.kernel) {
            (Ok(kernel), _) => (kernel, None),
            (Err(Unreadable { source, .. }), Some((path, kernel))) => {
                log::info!(
                    "types of the kernel are read from {}: {source}",
                    path.display()
                );
                (kernel, Some(path))
            }
            (Err(unreadable), None) => return Err(unreadable.of_kernel()),
        };
        let types = match supplied.module {
            Some((path, types)) => ModuleTypes::File(path, types),
            None => of_module(module, &kernel, release)?,
        };
        Ok(Self {
            module_name: module.to_owned(),
            kernel,
            kernel_file,
            module: types,
        })
    }

    /// The kernel's own types.
    pub const fn kernel(&self) -> &Btf {
        &self.kernel
    }

    /// The module's types.
    pub const fn module(&self) -> &ModuleTypes {
        &self.module
    }

    /// Where the kernel's own types come from, for people.
    pub fn kernel_origin(&self) -> String {
        self.kernel_file
            .as_ref()
            .map_or_else(|| "BTF of the kernel".to_owned(), |path| in_file(path))
    }

    /// Where the module's types come from, for people.
    pub fn origin(&self) -> String {
        match &self.module {
            ModuleTypes::Kernel(_) => format!("BTF of module {}", self.module_name),
            ModuleTypes::InKernel => self.kernel_origin(),
            ModuleTypes::File(path, _) => in_file(path),
            ModuleTypes::BuiltIn(layout) => format!("the built-in layout of {}", layout.name),
        }
    }

    /// Number under which the kernel knows a function of the module.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`] when this kernel's module has no such function (it may have been
    /// inlined or renamed), [`BtfError::NotTraceable`] when the kernel does not know its types.
    pub fn function_id(&self, function: &str) -> Result<u32, BtfError> {
        let types = match &self.module {
            ModuleTypes::Kernel(types) => types,
            ModuleTypes::InKernel if self.kernel_file.is_none() => &self.kernel,
            _ => return Err(BtfError::NotTraceable(self.origin())),
        };
        function_in(types, function)
            .map(|found| found.id)
            .ok_or_else(|| BtfError::NoFunction {
                module: self.module_name.clone(),
                function: function.to_owned(),
            })
    }

    /// Number under which the kernel knows a function of its own.
    ///
    /// # Errors
    /// [`BtfError::NoKernelFunction`] when this kernel has no such function, or inlined it,
    /// [`BtfError::NotTraceable`] when its types come from a file, whose numbers are others.
    pub fn kernel_function_id(&self, function: &str) -> Result<u32, BtfError> {
        if let Some(path) = &self.kernel_file {
            return Err(BtfError::NotTraceable(in_file(path)));
        }
        function_in(&self.kernel, function)
            .map(|found| found.id)
            .ok_or_else(|| BtfError::NoKernelFunction(function.to_owned()))
    }

    /// Whether a function is known by its type, to the kernel or as part of the module.
    pub fn has_function(&self, function: &str) -> bool {
        self.function_id(function).is_ok() || self.kernel_function_id(function).is_ok()
    }

    /// How many arguments a function of the kernel has; `None` when its types do not say.
    pub fn kernel_function_args(&self, function: &str) -> Option<u32> {
        function_in(&self.kernel, function).and_then(|found| found.args)
    }
}

/// A function as BTF describes it.
struct Function {
    id: u32,
    args: Option<u32>,
}

fn function_in(types: &Btf, name: &str) -> Option<Function> {
    types.ids(name).find_map(|id| {
        let Some(Type::Function(prototype)) = types.resolve(id) else {
            return None;
        };
        let args = match types.resolve(prototype) {
            Some(Type::Prototype(parameters)) => Some(parameters),
            _ => None,
        };
        Some(Function { id, args })
    })
}

fn in_file(path: &Path) -> String {
    format!("BTF in {}", path.display())
}

/// BTF that the kernel does not publish.
struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

impl Unreadable {
    fn of_kernel(self) -> BtfError {
        let Self { path, source } = self;
        BtfError::NoKernelBtf { path, source }
    }
}

/// The kernel's own BTF, as it publishes it.
fn published(name: &str) -> Result<Btf, Unreadable> {
    let path = Path::new(BTF_DIRECTORY).join(name);
    let bytes = std::fs::read(&path).map_err(|source| Unreadable {
        path: path.clone(),
        source,
    })?;
    Btf::parse(bytes).map_err(|error| Unreadable {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

fn of_module(module: &str, kernel: &Btf, release: &str) -> Result<ModuleTypes, BtfError> {
    let path = Path::new(BTF_DIRECTORY).join(module);
    match std::fs::read(&path) {
        Ok(bytes) => Btf::parse_split(bytes, kernel)
            .map(ModuleTypes::Kernel)
            .map_err(|source| BtfError::Malformed { path, source }),
        Err(_) if describes_ip_vs(kernel) => Ok(ModuleTypes::InKernel),
        Err(source) => builtin::of_release(release)
            .map(ModuleTypes::BuiltIn)
            .ok_or_else(|| BtfError::NoModuleBtf {
                module: module.to_owned(),
                path,
                source,
                release: release.to_owned(),
            }),
    }
}

#[cfg(test)]
mod tests {
    use agent_core::kernel::btf::{Composite, EnumValue, Member};
    use btf_rs::BtfType as _;

    use super::*;
    use crate::kernel::supplied;

    /// What another reader finds, in our form.
    fn decoded_by_other(found: &btf_rs::Type) -> Type {
        use btf_rs::Type as Other;
        let target = |found: &dyn btf_rs::BtfType| found.get_type_id().unwrap();
        let composite = |found: &btf_rs::Struct| Composite {
            bytes: found.size(),
            members: found
                .members
                .iter()
                .map(|member| Member {
                    name: member.get_name_offset().unwrap(),
                    type_id: member.get_type_id().unwrap(),
                    bit_offset: member.bit_offset(),
                })
                .collect(),
        };
        match found {
            Other::Int(int) => Type::Int(int.size()),
            Other::Ptr(pointer) => Type::Pointer(target(pointer)),
            Other::Array(array) => Type::Array {
                element: target(array),
                len: array.len(),
            },
            Other::Struct(found) => Type::Struct(composite(found)),
            Other::Union(found) => Type::Union(composite(found)),
            Other::Enum(found) => Type::Enum {
                bytes: found.size(),
                values: found
                    .members
                    .iter()
                    .map(|value| EnumValue {
                        name: value.get_name_offset().unwrap(),
                        value: value.val(),
                    })
                    .collect(),
            },
            Other::Enum64(found) => Type::Enum64(found.size()),
            Other::Typedef(found) => Type::Typedef(target(found)),
            Other::Volatile(found) | Other::Const(found) | Other::Restrict(found) => {
                Type::Qualified(target(found))
            }
            Other::TypeTag(found) => Type::Qualified(target(found)),
            Other::Func(found) => Type::Function(target(found)),
            Other::FuncProto(found) => {
                Type::Prototype(u32::try_from(found.parameters.len()).unwrap())
            }
            _ => Type::Other,
        }
    }

    fn compare(bytes: Vec<u8>) -> u32 {
        let other = btf_rs::Btf::from_bytes(&bytes).unwrap();
        let ours = Btf::parse(bytes).unwrap();
        let (first, last) = other.base().type_id_range();
        for id in first..=last {
            let found = other.resolve_type_by_id(id).unwrap();
            assert_eq!(
                ours.resolve(id),
                Some(decoded_by_other(&found)),
                "type {id}"
            );
            let name = found.as_btf_type().map(|found| other.resolve_name(found));
            let Some(Ok(name)) = name else { continue };
            if !name.is_empty() {
                let mut ids: Vec<_> = ours.ids(&name).collect();
                ids.sort_unstable();
                assert_eq!(ids, other.resolve_ids_by_name(&name).unwrap(), "{name}");
            }
        }
        assert_eq!(ours.resolve(last + 1), None);
        last
    }

    /// A small file that is always there, and this kernel's where it publishes one.
    #[test]
    fn types_are_what_another_reader_finds() {
        let small =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernel/testdata/kernel.btf.tar.xz");
        assert!(compare(supplied::contents(&small).unwrap()) > 2);
        for path in std::env::var("IPVS_LENS_BTF_FILES")
            .iter()
            .flat_map(|it| it.split(':'))
        {
            println!("{path}: {} types", compare(std::fs::read(path).unwrap()));
        }
        if let Ok(bytes) = std::fs::read(Path::new(BTF_DIRECTORY).join("vmlinux")) {
            assert!(compare(bytes) > 10_000);
        }
    }
}
