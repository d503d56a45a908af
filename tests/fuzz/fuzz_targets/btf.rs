//! Any bytes as type information: a layout, or the field that is missing; never a panic.

#![no_main]

use agent_core::kernel::btf::Btf;
use agent_core::kernel::layout::{self, ModuleTypes};
use agent_core::kernel::reasons;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(types) = Btf::parse(bytes.to_vec()) else {
        return;
    };
    let _ = Btf::parse_split(bytes.to_vec(), &types);
    let _ = reasons::causes(&types);
    let module = ModuleTypes::Kernel(types.clone());
    if let Err(unresolved) = layout::resolve(&types, &module) {
        assert!(!unresolved.to_string().is_empty());
    }
});
