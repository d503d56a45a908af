//! Any bytes as type information: a layout, or the field that is missing; never a panic.

#![no_main]

use agent_core::kernel::layout::{self, ModuleTypes};
use agent_core::kernel::reasons;
use btf_rs::Btf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (Ok(types), Ok(again)) = (Btf::from_bytes(bytes), Btf::from_bytes(bytes)) else {
        return;
    };
    let _ = reasons::causes(&types);
    let module = ModuleTypes::Kernel(again);
    if let Err(unresolved) = layout::resolve(&types, &module) {
        assert!(!unresolved.to_string().is_empty());
    }
});
