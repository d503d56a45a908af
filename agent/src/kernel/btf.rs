//! Reads type information (BTF) of the kernel and of a module, and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use agent_core::kernel::builtin;
use agent_core::kernel::layout::ModuleTypes;
use btf_rs::{Btf, Type};

/// Where the kernel publishes BTF: one file for the kernel, one per module (from 5.11 on).
const BTF_DIRECTORY: &str = "/sys/kernel/btf";

/// Why type information could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel was built without BTF.
    #[error(
        "{} cannot be read ({source}): this kernel publishes no BTF, so the offsets of its \
         structures are not known; use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        path.display()
    )]
    NoKernelBtf {
        /// File that was tried.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
    },
    /// The file the user gave.
    #[error("{} cannot be read as BTF: {reason}; give --btf a file made by pahole", path.display())]
    UserFile {
        /// File that was tried.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel publishes no BTF for the module, and no layout is built in for it.
    #[error(
        "{} cannot be read ({source}) and no layout is built in for kernel {release}, so the \
         offsets of `{module}` are not known; give its types with --btf FILE, or use a kernel \
         built with CONFIG_DEBUG_INFO_BTF_MODULES=y (5.11 or newer)",
        path.display()
    )]
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
        source: btf_rs::Error,
    },
    /// Functions of the module cannot be traced by type.
    #[error(
        "fexit needs the module's own BTF, and {0} is what there is; use --attach kprobe, or auto"
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

/// A function as BTF describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Number under which the kernel knows it.
    pub id: u32,
    /// Number of its arguments.
    pub args: u32,
}

/// Types of the kernel together with those of one module.
pub struct Types {
    module_name: String,
    kernel: Btf,
    module: ModuleTypes,
}

impl Types {
    /// Reads the kernel's BTF and finds the types of `module`: in `user_file` if given, else as
    /// the kernel publishes them, else built in for `release`.
    ///
    /// # Errors
    /// [`BtfError`] names the file and what to do.
    pub fn read(module: &str, user_file: Option<&Path>, release: &str) -> Result<Self, BtfError> {
        let path = Path::new(BTF_DIRECTORY).join("vmlinux");
        let bytes = std::fs::read(&path).map_err(|source| BtfError::NoKernelBtf {
            path: path.clone(),
            source,
        })?;
        let kernel =
            Btf::from_bytes(&bytes).map_err(|source| BtfError::Malformed { path, source })?;
        let types = match user_file {
            Some(file) => from_user_file(file, &kernel)?,
            None => of_module(module, &kernel, release)?,
        };
        Ok(Self {
            module_name: module.to_owned(),
            kernel,
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

    /// Where the module's types come from, for people.
    pub fn origin(&self) -> String {
        match &self.module {
            ModuleTypes::Kernel(_) => format!("BTF of module {}", self.module_name),
            ModuleTypes::File(path, _) => format!("BTF in {}", path.display()),
            ModuleTypes::BuiltIn(layout) => format!("the built-in layout of {}", layout.name),
        }
    }

    /// Number under which the kernel knows a function of the module.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`] when this kernel's module has no such function (it may have been
    /// inlined or renamed), [`BtfError::NotTraceable`] when the kernel does not know its types.
    pub fn function_id(&self, function: &str) -> Result<u32, BtfError> {
        let ModuleTypes::Kernel(btf) = &self.module else {
            return Err(BtfError::NotTraceable(self.origin()));
        };
        let missing = || BtfError::NoFunction {
            module: self.module_name.clone(),
            function: function.to_owned(),
        };
        let ids = btf.resolve_ids_by_name(function).map_err(|_| missing())?;
        ids.into_iter()
            .find(|id| matches!(btf.resolve_type_by_id(*id), Ok(Type::Func(_))))
            .ok_or_else(missing)
    }

    /// A function of the kernel itself.
    ///
    /// # Errors
    /// [`BtfError::NoKernelFunction`] when this kernel has no such function, or inlined it.
    pub fn kernel_function(&self, function: &str) -> Result<Function, BtfError> {
        let missing = || BtfError::NoKernelFunction(function.to_owned());
        let ids = self.kernel.resolve_ids_by_name(function);
        ids.map_err(|_| missing())?
            .into_iter()
            .find_map(|id| self.function(id))
            .ok_or_else(missing)
    }

    fn function(&self, id: u32) -> Option<Function> {
        let Ok(Type::Func(function)) = self.kernel.resolve_type_by_id(id) else {
            return None;
        };
        match self.kernel.resolve_chained_type(&function) {
            Ok(Type::FuncProto(prototype)) => Some(Function {
                id,
                args: u32::try_from(prototype.parameters.len()).ok()?,
            }),
            _ => None,
        }
    }
}

fn of_module(module: &str, kernel: &Btf, release: &str) -> Result<ModuleTypes, BtfError> {
    let path = Path::new(BTF_DIRECTORY).join(module);
    match std::fs::read(&path) {
        Ok(bytes) => Btf::from_split_bytes(&bytes, kernel)
            .map(ModuleTypes::Kernel)
            .map_err(|source| BtfError::Malformed { path, source }),
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

fn from_user_file(path: &Path, kernel: &Btf) -> Result<ModuleTypes, BtfError> {
    let refused = |reason: String| BtfError::UserFile {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    Btf::from_bytes(&bytes)
        .or_else(|_| Btf::from_split_bytes(&bytes, kernel))
        .map(|btf| ModuleTypes::File(path.to_owned(), btf))
        .map_err(|error| refused(error.to_string()))
}
